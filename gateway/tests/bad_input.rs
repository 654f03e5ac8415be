//! What bad input gets: a clear close code for its own connection, and nothing else disturbed.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use common::{
    Backend, Client, Edge, Via,
    client::{ALL, hello, login},
    within,
};
use edgeway_proto::{
    Class, CloseCode, Frame, Lane, Seq,
    frame::{
        CaughtUp, Close, Credit, Hello, Join, LaneStart, LoggedIn, Login, Open, Opened, Ping, Send,
        Welcome,
    },
    varint,
};
use edgeway_transport::End;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const SIGNAL: Lane = Lane { session: 1, class: Class::Signal };
const CHAT: Lane = Lane { session: 1, class: Class::Chat };

/// A gateway, and somebody on it who does nothing wrong.
struct World {
    edge: Edge,
    backend: Backend,
    bystander: Client,
}

async fn world(via: Via) -> World {
    let backend = Backend::start().await;
    let edge = Edge::start(&backend, |_| {}).await;
    let mut bystander = Client::login(&edge, via, "bystander").await;
    bystander.open(1, "chat").await;
    bystander.echoes(1).await;
    World { edge, backend, bystander }
}

impl World {
    async fn undisturbed(mut self) {
        self.bystander.echoes(1).await;
        self.bystander.is_well().await;
        self.bystander.sender.close(CloseCode::Normal, "done", 0).await;
        self.edge.stop().await;
        drop(self.backend);
    }

    /// A client that is logged in and has Session 1 open sends this; it is closed with the code.
    async fn closes(&self, via: Via, what: &str, lane: Lane, bytes: Bytes, expected: CloseCode) {
        let mut client = Client::login(&self.edge, via, "mallory").await;
        client.open(1, "chat").await;
        client.try_send(lane, bytes).await;
        match client.end().await {
            End::Peer { code, reason, .. } => {
                assert_eq!(code, expected, "{what}: {reason}");
                assert!(!reason.is_empty(), "{what}: the reason says what was wrong");
            }
            other => panic!("{what}: {other:?}"),
        }
    }
}

fn frame(kind: u8, body: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(kind);
    varint::put(&mut out, body.len() as u64);
    out.put_slice(body);
    out.freeze()
}

fn header(kind: u8, len: u64) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(kind);
    varint::put(&mut out, len);
    out.freeze()
}

over! {
    [quic, tcp, plain, legacy]
    async fn frames_that_are_broken_close_their_connection_with_the_right_code(via: Via) {
        let world = world(via).await;
        let control = Lane::CONTROL;
        let cases = [
            ("kind 0 on control", control, frame(0, &[]), CloseCode::UnknownFrame),
            ("unknown control kind", control, frame(0x0f, b"?"), CloseCode::UnknownFrame),
            ("unknown kind below 0x40 on a Session", SIGNAL, frame(0x3f, b"?"), CloseCode::UnknownFrame),
            ("a ping without its token", control, frame(Ping::KIND, &[]), CloseCode::Protocol),
            ("credit that ends in a field", control, frame(Credit::KIND, &[1, 0]), CloseCode::Protocol),
            ("credit of class 3", control, frame(Credit::KIND, &[1, 3, 5]), CloseCode::Protocol),
            ("credit of Session 0", control, frame(Credit::KIND, &[0, 0, 5]), CloseCode::Protocol),
            ("caught up in class 7", SIGNAL, frame(CaughtUp::KIND, &[1, 7, 1, 1]), CloseCode::Protocol),
            ("a body above the limit", SIGNAL, header(Send::KIND, 65_537), CloseCode::TooLarge),
            ("a body of 2^60", control, header(Ping::KIND, 1 << 60), CloseCode::TooLarge),
        ];
        for (what, lane, bytes, code) in cases {
            world.closes(via, what, lane, bytes, code).await;
        }
        world.undisturbed().await;
    }

    [quic, tcp, plain, legacy]
    async fn frames_where_they_do_not_belong_are_a_protocol_error(via: Via) {
        let world = world(via).await;
        let cases = [
            ("a second Hello", Lane::CONTROL, hello([ALL; 3])),
            ("a second Login", Lane::CONTROL, login("mallory", "secret")),
            ("Welcome from a client", Lane::CONTROL, Welcome::default().to_bytes()),
            ("LoggedIn from a client", Lane::CONTROL, LoggedIn::default().to_bytes()),
            ("Opened from a client", SIGNAL, Opened { session: 1 }.to_bytes()),
            ("LaneStart on the signal lane", SIGNAL, LaneStart { session: 1, class: Class::Chat }.to_bytes()),
        ];
        for (what, lane, bytes) in cases {
            world.closes(via, what, lane, bytes, CloseCode::Protocol).await;
        }
        world.undisturbed().await;
    }

    [quic, tcp, plain]
    async fn with_lanes_a_frame_on_a_lane_that_is_not_its_own_is_a_protocol_error(via: Via) {
        let world = world(via).await;
        let ping = Ping { token: 1 }.to_bytes();
        let cases = [
            ("Ping on a Session", SIGNAL, ping.clone()),
            ("Ping on a chat lane", CHAT, ping),
            ("Close on a Session", SIGNAL, Close { code: 0, ..Close::default() }.to_bytes()),
            ("Join on control", Lane::CONTROL, Join { request: 1, ..Join::default() }.to_bytes()),
            ("Open on control", Lane::CONTROL, Open { session: 2, kind: "im".into(), headers: vec![] }.to_bytes()),
            ("Open of Session 2 on a lane of 1", SIGNAL, Open { session: 2, kind: "im".into(), headers: vec![] }.to_bytes()),
        ];
        for (what, lane, bytes) in cases {
            world.closes(via, what, lane, bytes, CloseCode::Protocol).await;
        }
        world.undisturbed().await;
    }

    [tcp, plain]
    async fn a_record_that_ends_inside_a_frame_is_a_protocol_error(via: Via) {
        let world = world(via).await;
        let send = Send { payload: Bytes::from_static(b"truncated").into(), ..Send::default() }.to_bytes();
        for len in [1, 2, send.len() - 1] {
            world.closes(via, "truncated", SIGNAL, send.slice(..len), CloseCode::Protocol).await;
            world.closes(via, "truncated", Lane::CONTROL, send.slice(..len), CloseCode::Protocol).await;
        }
        world.undisturbed().await;
    }

    [quic]
    async fn a_stream_that_ends_inside_a_frame_is_a_protocol_error(via: Via) {
        let world = world(via).await;
        for lane in [SIGNAL, CHAT, Lane::CONTROL] {
            let mut client = Client::login(&world.edge, via, "mallory").await;
            client.open(1, "chat").await;
            client.send(lane, Send::default().to_bytes().slice(..4)).await;
            client.sender.finish(lane.session);
            assert_eq!(client.code().await, CloseCode::Protocol, "{lane:?}");
        }
        world.undisturbed().await;
    }

    [quic]
    async fn ending_the_control_stream_is_a_protocol_error(via: Via) {
        let world = world(via).await;
        let mut client = Client::login(&world.edge, via, "mallory").await;
        client.sender.finish(0);
        assert_eq!(client.code().await, CloseCode::Protocol);
        world.undisturbed().await;
    }

    [quic, tcp, plain, legacy]
    async fn kinds_that_may_be_skipped_are(via: Via) {
        let mut world = world(via).await;
        world.bystander.send(if via == Via::Legacy { SIGNAL } else { Lane::CONTROL }, frame(0xc2, b"of a later version")).await;
        world.bystander.send(SIGNAL, frame(0xff, b"of a later version")).await;
        world.undisturbed().await;
    }

    [tcp, plain]
    async fn a_frame_for_a_session_that_was_never_opened_gets_session_not_open_once(via: Via) {
        let world = world(via).await;
        let mut client = Client::login(&world.edge, via, "ada").await;
        client.open(1, "chat").await;
        for class in Class::ALL {
            client.send(Lane::new(9, class), frame(0x90, b"hello?")).await;
        }
        assert_eq!(client.session_code(9).await, CloseCode::NotOpen);
        client.echoes(1).await;
        // Its number cannot be opened any more.
        client.ask(9, "im").await;
        assert_eq!(client.session_code(9).await, CloseCode::SessionInUse);
        client.echoes(1).await;
        world.undisturbed().await;
    }

    [quic, tcp, plain, legacy]
    async fn a_version_from_the_future_is_told_what_this_server_speaks(via: Via) {
        let world = world(via).await;
        for (version_min, version_max) in [(2, 9), (1 << 40, 1 << 41), (0, 0)] {
            let mut client = Client::connect(&world.edge, via).await;
            let hello = Hello { version_min, version_max, ..Hello::default() };
            client.control(hello.to_bytes()).await;
            let end = client.end().await;
            let End::Peer { code, reason, .. } = end else { panic!("no close: {end:?}") };
            assert_eq!(code, CloseCode::Version);
            assert!(reason.contains("this server speaks") && reason.contains('1'), "{reason}");
        }
        // One that speaks ours too is welcome.
        let mut client = Client::connect(&world.edge, via).await;
        client.control(Hello { version_min: 1, version_max: 7, ..Hello::default() }.to_bytes()).await;
        let (_, Frame::Welcome(welcome)) = client.next().await else { panic!("no welcome") };
        assert_eq!(welcome.version, 1);
        world.undisturbed().await;
    }

    [quic, tcp, plain]
    async fn the_first_frame_must_be_hello(via: Via) {
        let world = world(via).await;
        for first in [login("ada", "secret"), Ping { token: 1 }.to_bytes()] {
            let mut client = Client::connect(&world.edge, via).await;
            client.control(first).await;
            assert_eq!(client.code().await, CloseCode::Protocol);
        }
        world.undisturbed().await;
    }

    [quic, tcp, plain, legacy]
    async fn a_login_that_is_wrong_is_refused_and_says_so(via: Via) {
        let world = world(via).await;
        let mut client = Client::connect(&world.edge, via).await;
        client.control(hello([ALL; 3])).await;
        client.control(login("ada", "wrong")).await;
        // What came with it waits for a login that never succeeds.
        client.try_send(SIGNAL, Open { session: 1, kind: "chat".into(), headers: vec![] }.to_bytes()).await;
        let end = client.end().await;
        let End::Peer { code, reason, .. } = end else { panic!("no close: {end:?}") };
        assert_eq!((code, reason.as_str()), (CloseCode::LoginFailed, "wrong password"));

        let mut client = Client::connect(&world.edge, via).await;
        client.control(hello([ALL; 3])).await;
        client.control(Login { user: "ada".into(), device: "".into(), ..Login::default() }.to_bytes()).await;
        let code = client.code().await;
        assert!(matches!(code, CloseCode::LoginFailed | CloseCode::Protocol), "{code}");
        world.undisturbed().await;
    }

    [quic, tcp, plain]
    async fn a_login_that_never_comes_times_out(via: Via) {
        let backend = Backend::start().await;
        let edge = Edge::start(&backend, |raw| raw.limits.login_timeout_ms = 300).await;
        let mut bystander = Client::login(&edge, via, "bystander").await;
        bystander.open(1, "chat").await;
        let silent = Client::connect(&edge, via).await;
        assert_eq!(silent.code().await, CloseCode::LoginTimeout);
        let mut half = Client::connect(&edge, via).await;
        half.control(hello([ALL; 3])).await;
        assert_eq!(half.code().await, CloseCode::LoginTimeout);
        bystander.echoes(1).await;
    }

    [quic, tcp, legacy]
    async fn a_login_that_nobody_answers_is_not_called_the_client_s_fault(via: Via) {
        let backend = Backend::start().await;
        let edge = Edge::start(&backend, |raw| raw.limits.login_timeout_ms = 300).await;
        let mut client = Client::connect(&edge, via).await;
        client.control(hello([ALL; 3])).await;
        client.control(login("ada", "wait")).await;
        assert_eq!(client.code().await, CloseCode::AuthUnavailable);
        backend.stop().await;
        common::until("the link is lost", || edge.readiness.check().is_err()).await;
        let mut client = Client::connect(&edge, via).await;
        client.control(hello([ALL; 3])).await;
        client.control(login("ada", "secret")).await;
        assert_eq!(client.code().await, CloseCode::AuthUnavailable);
    }

    [quic, tcp, legacy]
    async fn a_login_that_has_run_out_closes_the_connection(via: Via) {
        let backend = Backend::start().await;
        let edge = Edge::start(&backend, |_| {}).await;
        let mut client = Client::connect(&edge, via).await;
        client.control(hello([ALL; 3])).await;
        client.control(login("ada", "short")).await;
        assert_eq!(client.code().await, CloseCode::LoginExpired);
    }
}

/// Waits for the real time-out of 10 s.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quic_stream_that_is_opened_and_left_silent_is_reset_and_the_connection_goes_on() {
    let world = world(Via::Quic).await;
    let client = raw_quic(&world.edge).await;
    let (mut control, mut answers) = client.open_bi().await.unwrap();
    control.write_all(&hello([ALL; 3])).await.unwrap();
    control.write_all(&login("ada", "secret")).await.unwrap();
    let (mut silent, mut recv) = client.open_bi().await.unwrap();
    silent.write_all(&[Open::KIND]).await.unwrap();
    let code = quinn::VarInt::from_u64(CloseCode::OpenTimeout.code()).unwrap();
    assert_eq!(within(silent.stopped()).await.unwrap(), Some(code));
    assert_eq!(within(recv.read(&mut [0])).await.unwrap_err(), quinn::ReadError::Reset(code));
    let ping = Ping { token: 77 }.to_bytes();
    control.write_all(&ping).await.unwrap();
    let mut heard = Vec::new();
    let mut pong = ping.to_vec();
    pong[0] = 6;
    while !heard.ends_with(&pong) {
        let mut buf = [0; 256];
        let n = within(answers.read(&mut buf)).await.unwrap().unwrap();
        heard.extend_from_slice(&buf[..n]);
    }
    world.undisturbed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_quic_a_session_that_overtakes_the_hello_is_opened_all_the_same() {
    let world = world(Via::Quic).await;
    let client = raw_quic(&world.edge).await;
    let (mut control, _answers) = client.open_bi().await.unwrap();
    let (mut session, mut recv) = client.open_bi().await.unwrap();
    let open = Open { session: 1, kind: "chat".into(), headers: vec![] };
    session.write_all(&open.to_bytes()).await.unwrap();
    // The time of a few round trips: the stream's packet has gone out before the hello's.
    for _ in 0..50 {
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    control.write_all(&hello([ALL; 3])).await.unwrap();
    control.write_all(&login("ada", "secret")).await.unwrap();
    let opened = Opened { session: 1 }.to_bytes();
    let mut buf = vec![0; opened.len()];
    within(recv.read_exact(&mut buf)).await.unwrap();
    assert_eq!(buf, opened);
    world.undisturbed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_are_no_protocol_of_ours_get_a_close_on_plain_tcp() {
    let world = world(Via::Plain).await;
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 100], &[0x16, 3, 1, 2, 0]] {
        let mut stream = TcpStream::connect(world.edge.plain).await.unwrap();
        stream.write_all(garbage).await.unwrap();
        let mut answer = Vec::new();
        within(stream.read_to_end(&mut answer)).await.unwrap();
        // A record on the control lane with a Close frame of code 2.
        assert_eq!((answer[0], answer[3], answer[6]), (0, Close::KIND, 2), "{answer:?}");
    }
    world.undisturbed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_are_no_tls_or_quic_disturb_nobody() {
    let world = world(Via::Tcp).await;
    let mut stream = TcpStream::connect(world.edge.tcp).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = within(stream.read_to_end(&mut answer)).await;
    let udp = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for len in [0, 1, 20, 1200, 1400] {
        udp.send_to(&vec![0xc3; len], world.edge.quic).await.unwrap();
    }
    let mut quic = Client::login(&world.edge, Via::Quic, "ada").await;
    quic.is_well().await;
    world.undisturbed().await;
}

/// A legacy client may open Session 1 only.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_legacy_client_that_opens_another_session_is_told_too_many_sessions() {
    let world = world(Via::Legacy).await;
    let mut client = Client::login(&world.edge, Via::Legacy, "ada").await;
    client.ask(2, "chat").await;
    assert_eq!(client.code().await, CloseCode::TooManySessions);
    world.undisturbed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn caught_up_and_credit_for_what_does_not_exist_are_ignored() {
    let mut world = world(Via::Quic).await;
    let caught_up = CaughtUp { group: 99, class: Class::Chat, last: Seq::new(5, 5) };
    world.bystander.send(SIGNAL, caught_up.to_bytes()).await;
    world.bystander.grant(Lane::new(44, Class::Chat), 1 << 40).await;
    world.undisturbed().await;
}

async fn raw_quic(edge: &Edge) -> quinn::Connection {
    use rustls_pki_types::{CertificateDer, pem::PemObject};
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&edge.ca).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![edgeway_proto::ALPN.to_vec()];
    let tls = quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let config = quinn::ClientConfig::new(Arc::new(tls));
    within(endpoint.connect_with(config, edge.quic, "localhost").unwrap()).await.unwrap()
}
