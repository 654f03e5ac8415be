//! The operator's own endpoint says who may log in: what it answers, and what it gets wrong.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use common::{Running, raw};
use edgeway_certs::{DevCa, Usage};
use edgeway_proto::{
    CloseCode,
    auth::{Accepted, LoginRequest, auth_client::AuthClient, login_response::Result as Verdict},
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

/// Answers by the user's name. Gives its address, and how many ask at a time at most.
async fn endpoint() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let most_seen = Arc::clone(&most);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (now, most) = (Arc::clone(&now), Arc::clone(&most));
            tokio::spawn(async move {
                most.fetch_max(now.fetch_add(1, Ordering::AcqRel) + 1, Ordering::AcqRel);
                converse(&mut stream).await;
                now.fetch_sub(1, Ordering::AcqRel);
            });
        }
    });
    (addr, most_seen)
}

/// The same over TLS, with a certificate for `name` of a new authority: its port, and the authority's certificate in `dir`.
async fn secure_endpoint(dir: &Path, name: &str) -> (u16, String) {
    let ca = DevCa::open(dir).unwrap();
    let issued = ca.issue(name, Usage::Server).unwrap();
    let certificate = CertificateDer::from_pem_slice(issued.cert_pem.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // Whoever does not trust it goes.
                if let Ok(mut stream) = acceptor.accept(stream).await {
                    converse(&mut stream).await;
                }
            });
        }
    });
    (port, ca.path().display().to_string())
}

/// Reads one question and answers it.
async fn converse(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    let mut request = Vec::new();
    let answer = loop {
        let mut bytes = [0; 4096];
        let n = stream.read(&mut bytes).await.unwrap_or(0);
        request.extend_from_slice(&bytes[..n]);
        let text = String::from_utf8_lossy(&request).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n")
            && body.ends_with('}')
        {
            assert!(head.starts_with("POST /login?tenant=a HTTP/1.1"), "{head}");
            assert!(head.to_lowercase().contains("authorization: bearer us"), "{head}");
            break answer(body);
        }
        if n == 0 {
            break None;
        }
    };
    match answer {
        Some((status, body)) => {
            let len = body.len();
            let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {len}\r\n\r\n");
            let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
        }
        // Silence, until the other end has enough.
        None => while stream.read(&mut [0; 64]).await.unwrap_or(0) > 0 {},
    }
}

fn answer(body: &str) -> Option<(u16, String)> {
    let said = |what: &str| body.contains(&format!("\"{what}\""));
    let (status, body) = match () {
        () if said("hangs") => return None,
        () if said("breaks") => (500, r#"{"allow":true}"#.to_owned()),
        () if said("moved") => (302, String::new()),
        () if said("unknown") => (404, r#"{"allow":true}"#.to_owned()),
        () if said("nonsense") => (200, "<html>it works</html>".to_owned()),
        () if said("empty") => (200, String::new()),
        () if said("maybe") => (200, r#"{"allow":"yes"}"#.to_owned()),
        () if said("huge") => (200, format!(r#"{{"allow":true,"x":"{}"}}"#, "x".repeat(1 << 20))),
        () if said("no") => (200, r#"{"allow":false,"reason":"no such pupil"}"#.to_owned()),
        () if said("unauthorized") => (401, String::new()),
        () if said("forbidden") => (403, String::new()),
        () if said("over") => (200, r#"{"allow":true,"exp":1}"#.to_owned()),
        () => {
            assert!(
                body.contains(r#""secret":"secret""#) && body.contains(r#""method":"password""#)
            );
            let more = r#""user":"Ada","exp":4102444800,"rooms":["maths-*"],"rights":["chat"]"#;
            (200, format!(r#"{{"allow":true,{more}}}"#))
        }
    };
    Some((status, body))
}

async fn login(
    client: &mut AuthClient<tonic::transport::Channel>,
    user: &str,
) -> Result<Accepted, (CloseCode, String)> {
    let request = LoginRequest {
        method: 1,
        user: user.to_owned(),
        device: "phone".into(),
        secret: "secret".into(),
        ..LoginRequest::default()
    };
    match client.login(request).await.unwrap().into_inner().result.unwrap() {
        Verdict::Accepted(accepted) => Ok(accepted),
        Verdict::Rejected(r) => Err((CloseCode::from_code(r.code.into()), r.reason)),
    }
}

async fn start(
    dir: &Path,
    url: String,
    timeout_ms: i64,
) -> (Running, AuthClient<tonic::transport::Channel>) {
    start_trusting(dir, url, None, timeout_ms).await
}

async fn start_trusting(
    dir: &Path,
    url: String,
    ca: Option<String>,
    timeout_ms: i64,
) -> (Running, AuthClient<tonic::transport::Channel>) {
    let mut raw = raw(dir);
    raw.auth.mode = Some("callback".into());
    raw.auth.callback.url = Some(url);
    raw.auth.callback.ca = ca;
    raw.auth.callback.authorization = Some("Bearer us".into());
    raw.auth.callback.timeout_ms = Some(timeout_ms);
    raw.auth.callback.at_a_time = Some(4);
    let backend = Running::start(raw, "access,room,peer").await;
    let client = AuthClient::new(common::channel(backend.addr).await);
    (backend, client)
}

#[tokio::test]
async fn the_endpoint_says_who_may_and_no_failure_of_it_lets_anyone_in() {
    let dir = tempfile::tempdir().unwrap();
    let (addr, _) = endpoint().await;
    let url = format!("http://{addr}/login?tenant=a");
    let (backend, mut client) = start(dir.path(), url, 8_000).await;
    let ada = login(&mut client, "ada").await.unwrap();
    assert_eq!((ada.user.as_str(), ada.expires_ms), ("Ada", 4_102_444_800_000));
    let rights = ada.rights.unwrap();
    assert_eq!(rights.rooms.unwrap().names, ["maths-*"]);
    assert_eq!(rights.rights.unwrap().names, ["chat"]);
    for user in ["no", "unauthorized", "forbidden", "over"] {
        let (code, reason) = login(&mut client, user).await.unwrap_err();
        assert_eq!(code, CloseCode::LoginFailed, "{user}: {reason}");
        assert!(reason.starts_with("callback_refused: "), "{reason}");
        assert_eq!(user == "no", reason.contains("no such pupil"));
    }
    for user in ["breaks", "moved", "unknown", "nonsense", "empty", "maybe", "huge"] {
        let (code, reason) = login(&mut client, user).await.unwrap_err();
        assert_eq!(code, CloseCode::AuthUnavailable, "{user}: {reason}");
        assert!(reason.starts_with("callback_failed: "), "{reason}");
    }
    backend.stop().await;
}

#[tokio::test]
async fn an_endpoint_that_hangs_costs_its_time_out_and_no_more_than_its_places() {
    let dir = tempfile::tempdir().unwrap();
    let (addr, most) = endpoint().await;
    let url = format!("http://{addr}/login?tenant=a");
    let (backend, client) = start(dir.path(), url, 300).await;
    let asking = (0..20).map(|_| {
        let mut client = client.clone();
        tokio::spawn(async move { login(&mut client, "hangs").await })
    });
    for asked in asking.collect::<Vec<_>>() {
        let (code, _) = asked.await.unwrap().unwrap_err();
        assert_eq!(code, CloseCode::AuthUnavailable);
    }
    // The other end may see a connection go a moment after the next has come.
    assert!(most.load(Ordering::Acquire) <= 8, "{most:?} at a time");
    backend.stop().await;
    // Nobody there at all.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/login", listener.local_addr().unwrap());
    drop(listener);
    let dir = tempfile::tempdir().unwrap();
    let (backend, mut client) = start(dir.path(), url, 5_000).await;
    let (code, _) = login(&mut client, "ada").await.unwrap_err();
    assert_eq!(code, CloseCode::AuthUnavailable);
    backend.stop().await;
}

#[tokio::test]
async fn over_https_only_whom_the_certificate_and_the_authority_name_is_believed() {
    let certs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let (port, ca) = secure_endpoint(certs[0].path(), "localhost").await;
    let (impostor, _) = secure_endpoint(certs[0].path(), "elsewhere.example").await;
    let (stranger, other_ca) = secure_endpoint(certs[1].path(), "localhost").await;
    let (plain, _) = endpoint().await;
    let plain = plain.rsplit(':').next().unwrap().parse().unwrap();
    for (port, ca, believed) in [
        (port, &ca, true),
        (port, &other_ca, false),
        (impostor, &ca, false),
        (stranger, &ca, false),
        (stranger, &other_ca, true),
        (plain, &ca, false),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("https://localhost:{port}/login?tenant=a");
        let (backend, mut client) = start_trusting(dir.path(), url, Some(ca.clone()), 8_000).await;
        match login(&mut client, "ada").await {
            Ok(accepted) => assert!(believed && accepted.user == "Ada", "{port} {ca}"),
            Err((code, reason)) => {
                assert!(!believed, "{port} {ca}: {reason}");
                assert_eq!(code, CloseCode::AuthUnavailable, "{reason}");
                assert!(reason.starts_with("callback_failed: "), "{reason}");
            }
        }
        backend.stop().await;
    }
}
