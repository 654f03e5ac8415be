//! Logins, over gRPC.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use common::{Running, raw};
use edgeway_backend::auth::PasswordHash;
use edgeway_proto::{
    CloseCode,
    auth::{LoginRequest, auth_client::AuthClient, login_response::Result as Verdict},
};

#[tokio::test]
async fn a_gateway_learns_who_may_log_in() {
    let dir = tempfile::tempdir().unwrap();
    let mut raw = raw(dir.path());
    raw.auth.mode = Some("passwords".into());
    raw.auth.users.insert("ada".into(), PasswordHash::new(b"secret").unwrap().to_string());
    let backend = Running::start(raw, "access,room,peer").await;
    let mut client = AuthClient::new(common::channel(backend.addr).await);
    let mut login = async |secret: &'static [u8]| {
        let request = LoginRequest {
            method: 1,
            user: "ada".into(),
            device: "phone".into(),
            secret: secret.into(),
            remote: "127.0.0.1:9".into(),
            renews: 0,
        };
        client.login(request).await.unwrap().into_inner().result.unwrap()
    };
    let Verdict::Accepted(first) = login(b"secret").await else { panic!("refused") };
    let Verdict::Accepted(second) = login(b"secret").await else { panic!("refused") };
    assert!(second.generation > first.generation);
    let Verdict::Rejected(rejected) = login(b"wrong").await else { panic!("accepted") };
    assert_eq!(u64::from(rejected.code), CloseCode::LoginFailed.code());
    backend.stop().await;
}
