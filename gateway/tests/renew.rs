//! A login that goes on by another proof, on the connection that stands.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use bytes::Bytes;
use common::{
    Backend, Client, Edge, Via,
    backend::Event,
    client::{ALL, hello, login},
};
use edgeway_proto::{
    CloseCode, Frame,
    frame::{Renew, Renewed, param},
};

fn renew(method: u64, secret: &'static str) -> Bytes {
    Renew { method, secret: Bytes::from_static(secret.as_bytes()) }.to_bytes()
}

async fn renewed(client: &mut Client) -> Renewed {
    match client.until(|frame| matches!(frame, Frame::Renewed(_))).await {
        (lane, Frame::Renewed(renewed)) => {
            assert!(lane.is_control());
            renewed
        }
        other => unreachable!("{other:?}"),
    }
}

over! {
    [quic, tcp, legacy]
    async fn a_login_is_renewed_and_its_backends_are_told(via: Via) {
        let mut backend = Backend::start().await;
        let edge = Edge::start(&backend, |_| {}).await;
        let mut client = Client::connect(&edge, via).await;
        client.control(hello([ALL; 3])).await;
        client.until(|f| matches!(f, Frame::Welcome(w) if w.params.contains(&(param::RENEW, 1)))).await;
        client.control(login("ada", "secret")).await;
        client.until(|f| matches!(f, Frame::LoggedIn(_))).await;
        client.open(1, "chat").await;
        let opened = backend.opened().await;
        assert_eq!(opened.rights, None);

        client.control(renew(1, "wrong")).await;
        let refused = renewed(&mut client).await;
        assert_eq!(refused.code, CloseCode::LoginFailed.code());
        assert_eq!(&*refused.reason, "wrong password");
        client.control(renew(3, "good")).await;
        assert_eq!(renewed(&mut client).await.code, CloseCode::LoginFailed.code());
        client.is_well().await;

        client.control(renew(2, "token")).await;
        let answer = renewed(&mut client).await;
        assert_eq!((answer.code, answer.expires_ms), (0, 0));
        let told = loop {
            if let Event::Renewed(told) = backend.event().await {
                break told;
            }
        };
        assert_eq!(told.session, opened.session);
        assert_eq!(told.rights.unwrap().rooms.unwrap().names, ["renewed"]);
        client.echoes(1).await;

        // From then on the end is that of the new proof.
        client.control(renew(1, "short")).await;
        assert_ne!(renewed(&mut client).await.expires_ms, 0);
        assert_eq!(client.code().await, CloseCode::LoginExpired);
        edge.stop().await;
    }

    [quic, tcp, legacy]
    async fn a_renewal_before_the_login_or_before_the_answer_to_another_is_broken(via: Via) {
        let backend = Backend::start().await;
        let edge = Edge::start(&backend, |_| {}).await;
        let mut client = Client::connect(&edge, via).await;
        client.control(hello([ALL; 3])).await;
        client.control(renew(1, "secret")).await;
        assert_eq!(client.code().await, CloseCode::Protocol);
        let mut client = Client::login(&edge, via, "ada").await;
        client.control(renew(1, "wait")).await;
        client.control(renew(1, "secret")).await;
        assert_eq!(client.code().await, CloseCode::Protocol);
        edge.stop().await;
    }

    [quic, tcp]
    async fn sessions_that_are_opened_later_have_the_new_rights(via: Via) {
        let mut backend = Backend::start().await;
        let edge = Edge::start(&backend, |_| {}).await;
        let mut client = Client::login(&edge, via, "ada").await;
        client.control(renew(1, "secret")).await;
        assert_eq!(renewed(&mut client).await.code, 0);
        client.open(1, "chat").await;
        assert!(backend.opened().await.rights.is_some());
        edge.stop().await;
    }
}
