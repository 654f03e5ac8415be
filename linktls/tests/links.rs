//! Links over real sockets: who is let in, who is not, and that nobody is in the others' way.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::time::Duration;

use common::{Ca, Server, Stranger, ask, connect, dial, log, within};
use edgeway_certs::Usage;
use edgeway_linktls::{DEFAULT_NAME, Limits, Peer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

#[tokio::test]
async fn two_of_one_ca_link_and_two_in_the_clear_do_too() {
    let ca = Ca::new();
    let server = Server::start(Some(&ca.identity())).await;
    server.dial(Some(&ca.identity())).await.unwrap();
    server.stop().await;
    let server = Server::start(None).await;
    server.dial(None).await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn who_dials_without_a_good_certificate_is_told_why_and_harms_nobody() {
    let (ca, other) = (Ca::new(), Ca::new());
    let server = Server::start(Some(&ca.identity())).await;
    let good = connect(&server.addr.to_string(), Some(&ca.identity())).await.unwrap();
    let expired = ca.issue(DEFAULT_NAME, Usage::Peer, Duration::ZERO);
    // Dates of certificates are in whole seconds.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let cases = [
        (Stranger::of(&ca), "CertificateRequired", "no_certificate"),
        (Stranger::showing(&ca, other.member()), "UnknownCA", "other_ca"),
        (Stranger::showing(&ca, expired), "CertificateExpired", "expired"),
        (
            Stranger::showing(&ca, ca.issue("another", Usage::Peer, 30 * DAY)),
            "BadCertificate",
            "other_name",
        ),
        (
            Stranger::showing(&ca, ca.issue(DEFAULT_NAME, Usage::Server, 30 * DAY)),
            "UnsupportedCertificate",
            "purpose",
        ),
        (
            Stranger { version: &rustls::version::TLS12, ..Stranger::showing(&ca, ca.member()) },
            "ProtocolVersion",
            "protocol",
        ),
        (
            Stranger { alpn: Some(b"http/1.1"), ..Stranger::showing(&ca, ca.member()) },
            "NoApplicationProtocol",
            "protocol",
        ),
    ];
    for (stranger, told, cause) in cases {
        let got = stranger.dial(server.addr).await;
        assert!(got.contains(told), "{cause}: {got}");
        log().wait_for(&format!("cause=\"{cause}\"")).await;
        ask(&good).await.unwrap();
        server.dial(Some(&ca.identity())).await.unwrap();
    }
    // One that offers nothing is not served either.
    let mute = Stranger { alpn: None, ..Stranger::showing(&ca, ca.member()) };
    let got = mute.dial(server.addr).await;
    assert!(!got.contains("served"), "{got}");
    server.stop().await;
}

#[tokio::test]
async fn a_process_whose_certificate_is_refused_says_so_itself() {
    let (ca, other) = (Ca::new(), Ca::new());
    let server = Server::start(Some(&ca.identity())).await;
    // It trusts the server, and the server does not trust it.
    let told = server.dial(Some(&other.identity_trusting(&ca))).await.unwrap_err();
    assert!(told.contains("it refuses our certificate") && told.contains("links.ca"), "{told}");
    // It does not trust the server.
    let told = server.dial(Some(&other.identity())).await.unwrap_err();
    assert!(told.contains("its certificate is not of our CA (links.ca)"), "{told}");
    log().wait_for("cause=\"refused_ours\"").await;
    // Another cluster of the same CA.
    let pem = ca.issue("another", Usage::Peer, 30 * DAY);
    let another = edgeway_linktls::Identity::from_pem(&pem, "another").unwrap();
    let told = server.dial(Some(&another)).await.unwrap_err();
    assert!(told.contains("links.name"), "{told}");
    server.dial(Some(&ca.identity())).await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn one_in_the_clear_and_one_with_tls_are_told_what_the_other_wants() {
    let ca = Ca::new();
    let tls = Server::start(Some(&ca.identity())).await;
    let told = tls.dial(None).await.unwrap_err();
    assert!(told.contains("links here are TLS") && told.contains("set [links]"), "{told}");
    log().wait_for("cause=\"clear\"").await;
    let clear = Server::start(None).await;
    let told = clear.dial(Some(&ca.identity())).await.unwrap_err();
    assert!(told.contains("closed the connection during the TLS handshake"), "{told}");
    log().wait_for("cause=\"tls\"").await;
    // A backend of one's own that is in the clear beside links with TLS.
    dial(&format!("http://{}", clear.addr), Some(&ca.identity())).await.unwrap();
    tls.dial(Some(&ca.identity())).await.unwrap();
    clear.dial(None).await.unwrap();
    tls.stop().await;
    clear.stop().await;
}

#[tokio::test]
async fn a_server_that_answers_in_the_clear_or_not_at_all_is_known_for_it() {
    let ca = Ca::new();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let answering = tokio::spawn(async move {
        let (mut one, _) = listener.accept().await.unwrap();
        one.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        let (two, _) = listener.accept().await.unwrap();
        (one, two)
    });
    let told = dial(&addr, Some(&ca.identity())).await.unwrap_err();
    assert!(told.contains("it speaks in the clear"), "{told}");
    let limit = Duration::from_millis(50);
    let silent = Peer::new(&addr, Some(&ca.identity()), limit, |endpoint| endpoint).unwrap();
    let told = edgeway_linktls::causes(&within(silent.connect()).await.unwrap_err());
    assert!(told.contains("did not finish the TLS handshake in time"), "{told}");
    drop(answering.await.unwrap());
}

#[tokio::test]
async fn those_who_say_nothing_keep_nobody_out_and_are_cut() {
    let ca = Ca::new();
    let limits = Limits { handshakes: 4, deadline: Duration::from_secs(3600) };
    for identity in [Some(ca.identity()), None] {
        let server = Server::with(identity.as_ref(), limits).await;
        let mut silent = Vec::new();
        for _ in 0..20 {
            silent.push(TcpStream::connect(server.addr).await.unwrap());
            server.dial(identity.as_ref()).await.unwrap();
        }
        // All but the last few have lost their places.
        for mut stream in silent.drain(..16) {
            let mut byte = [0];
            assert!(matches!(within(stream.read(&mut byte)).await, Ok(0) | Err(_)));
        }
        log().wait_for("cause=\"crowded\"").await;
        server.dial(identity.as_ref()).await.unwrap();
        server.stop().await;
    }
}

#[tokio::test]
async fn a_handshake_has_a_deadline() {
    let ca = Ca::new();
    let limits = Limits { deadline: Duration::from_millis(100), ..Limits::default() };
    let server = Server::with(Some(&ca.identity()), limits).await;
    // The second stops within its first record.
    for begin in [&b""[..], b"\x16\x03\x01\x02\x00\x01"] {
        let mut stream = TcpStream::connect(server.addr).await.unwrap();
        stream.write_all(begin).await.unwrap();
        let mut byte = [0];
        assert!(matches!(within(stream.read(&mut byte)).await, Ok(0) | Err(_)));
    }
    log().wait_for("cause=\"silent\"").await;
    server.stop().await;
}

#[tokio::test]
async fn what_is_no_protocol_at_all_harms_nobody() {
    let ca = Ca::new();
    let server = Server::start(Some(&ca.identity())).await;
    for noise in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0x16; 4096], &[0xff; 4096], b"\x16"] {
        let mut stream = TcpStream::connect(server.addr).await.unwrap();
        stream.write_all(noise).await.unwrap();
        stream.shutdown().await.unwrap();
        let _ = within(stream.read_to_end(&mut Vec::new())).await;
        server.dial(Some(&ca.identity())).await.unwrap();
    }
    server.stop().await;
}

#[tokio::test]
async fn certificates_are_replaced_while_links_stand() {
    let (old, new) = (Ca::new(), Ca::new());
    let (ours, theirs) = (old.identity(), old.identity());
    let server = Server::start(Some(&ours)).await;
    let addr = server.addr.to_string();
    let stands = connect(&addr, Some(&theirs)).await.unwrap();
    ask(&stands).await.unwrap();
    // A gateway's channel of its own, which connects again by itself.
    let lazy = Peer::new(&addr, Some(&theirs), Duration::from_secs(60), |e| e)
        .unwrap()
        .connect_lazy(|e| e);

    assert!(ours.replace(&new.identity()));
    ask(&stands).await.unwrap();
    let told = ask(&lazy).await.unwrap_err();
    assert!(told.contains("links.ca"), "{told}");
    assert!(server.dial(Some(&theirs)).await.is_err());
    server.dial(Some(&new.identity())).await.unwrap();

    assert!(theirs.replace(&new.identity()));
    server.dial(Some(&theirs)).await.unwrap();
    ask(&lazy).await.unwrap();
    ask(&stands).await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn nothing_but_loopback_is_dialled_in_the_clear() {
    let ca = Ca::new();
    let identity = ca.identity();
    let told = |addr: &str, identity| {
        let peer = Peer::new(addr, identity, DAY, |endpoint| endpoint);
        peer.map(|_| ()).map_err(|problem| problem.to_string())
    };
    for addr in ["10.0.0.1:7400", "room-1:7400", "0.0.0.0:7400"] {
        let problem = told(addr, None).unwrap_err();
        assert!(problem.contains("certificates of both sides"), "{problem}");
        assert!(problem.contains("edgeway certs"), "{problem}");
        told(addr, Some(&identity)).unwrap();
        let problem = told(&format!("http://{addr}"), Some(&identity)).unwrap_err();
        assert!(problem.contains("in the clear on another machine"), "{problem}");
    }
    told("http://localhost:7400", None).unwrap();
    told("[::1]:7400", Some(&identity)).unwrap();
}
