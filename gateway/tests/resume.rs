//! Lost connections, session tokens, and early data.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use common::{
    Backend, Client, Edge, Via,
    backend::Event,
    client::{ALL, hello, login, resume},
    within,
};
use edgeway_proto::{
    Class, CloseCode, Frame, Lane,
    frame::{Open, ResumeRefused, param},
    link,
};
use edgeway_transport::Connection;
use parking_lot::Mutex;
use tokio::net::UdpSocket;

const SIGNAL: Lane = Lane { session: 1, class: Class::Signal };

fn open_chat() -> bytes::Bytes {
    Open { session: 1, kind: "chat".into(), headers: vec![] }.to_bytes()
}

async fn start() -> (Backend, Edge) {
    let backend = Backend::start().await;
    let edge = Edge::start(&backend, |raw| raw.limits.handshake_timeout_ms = 20_000).await;
    (backend, edge)
}

async fn closed(backend: &mut Backend) -> link::Close {
    loop {
        if let Event::Close(close) = backend.event().await {
            return close;
        }
    }
}

async fn confirmed(backend: &mut Backend) -> u64 {
    match backend.event().await {
        Event::Confirm(confirm) => confirm.session,
        other => panic!("{other:?}"),
    }
}

over! {
    [quic, tcp, plain, legacy]
    async fn a_backend_learns_who_has_left_and_who_is_lost(via: Via) {
        let (mut backend, edge) = start().await;
        let cases = [(Some(CloseCode::Normal), false), (Some(CloseCode::GoingAway), true), (None, true)];
        for (code, lost) in cases {
            let mut client = Client::login(&edge, via, "ada").await;
            client.open(1, "chat").await;
            let open = backend.opened().await;
            assert_eq!((open.grace_ms, open.early), (30_000, false));
            match code {
                Some(code) => client.sender.close(code, "", 0).await,
                None => client.vanish().await,
            }
            let close = closed(&mut backend).await;
            assert_eq!((close.session, close.lost), (open.session, lost), "{code:?}");
        }
    }

    [quic, tcp]
    async fn a_newer_connection_of_a_device_replaces_the_older_one(via: Via) {
        let (mut backend, edge) = start().await;
        let mut older = Client::login(&edge, via, "ada").await;
        older.open(1, "chat").await;
        let open = backend.opened().await;
        let mut newer = Client::connect(&edge, via).await;
        newer.control(hello([ALL; 3])).await;
        newer.control(resume("ada", "good")).await;
        let generation = match newer.until(|f| matches!(f, Frame::LoggedIn(_))).await {
            (_, Frame::LoggedIn(logged_in)) => logged_in.generation,
            other => panic!("{other:?}"),
        };
        assert!(generation > open.generation);
        assert_eq!(older.code().await, CloseCode::Replaced);
        let close = closed(&mut backend).await;
        assert_eq!((close.session, close.lost), (open.session, true), "its place is kept");
        newer.is_well().await;
    }

    [quic, tcp, plain, legacy]
    async fn a_token_that_is_refused_is_followed_by_a_login_and_what_was_said_meanwhile_stands(via: Via) {
        let (mut backend, edge) = start().await;
        let mut client = Client::connect(&edge, via).await;
        client.control(hello([ALL; 3])).await;
        client.control(resume("ada", "garbled")).await;
        client.send(SIGNAL, open_chat()).await;
        match client.until(|f| matches!(f, Frame::ResumeRefused(_))).await {
            (lane, Frame::ResumeRefused(ResumeRefused { reason })) => {
                assert!(lane.is_control() && *reason == *"no such token", "{reason}");
            }
            other => panic!("{other:?}"),
        }
        client.control(login("ada", "secret")).await;
        assert_eq!(backend.opened().await.user, "ada");
        client.until(|f| matches!(f, Frame::Opened(_))).await;
    }

    [quic, tcp]
    async fn a_token_is_refused_once_and_then_the_connection_is(via: Via) {
        let (_backend, edge) = start().await;
        let mut client = Client::connect(&edge, via).await;
        client.control(hello([ALL; 3])).await;
        client.control(resume("ada", "garbled")).await;
        client.until(|f| matches!(f, Frame::ResumeRefused(_))).await;
        client.control(resume("ada", "good")).await;
        assert_eq!(client.code().await, CloseCode::LoginFailed);
    }

    [quic]
    async fn the_welcome_says_how_long_a_place_is_kept(via: Via) {
        let (_backend, edge) = start().await;
        let mut client = Client::connect(&edge, via).await;
        client.control(hello([ALL; 3])).await;
        match client.next().await {
            (_, Frame::Welcome(w)) => assert!(w.params.contains(&(param::GRACE_MS, 30_000))),
            other => panic!("{other:?}"),
        }
    }
}

/// A first flight on a connection that may begin with early data.
async fn flight(connection: Connection, user: &str) -> Client {
    assert!(connection.early.is_some(), "the server is known from before");
    let mut client = Client::over(connection);
    client.control(hello([ALL; 3])).await;
    client.control(resume(user, "good")).await;
    client.send(SIGNAL, open_chat()).await;
    client
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn early_data_is_answered_and_takes_over_when_the_handshake_is_complete() {
    let (mut backend, edge) = start().await;
    let mut older = Client::login(&edge, Via::Quic, "ada").await;
    older.open(1, "chat").await;
    let first = backend.opened().await.session;
    let between = Between::start(edge.quic).await;
    between.deaf.store(true, Ordering::Relaxed);
    let connection = edge.dialer.quic_early(between.addr, "localhost").await.unwrap();
    let mut newer = flight(connection, "ada").await;
    let open = backend.opened().await;
    assert!(open.early);
    older.echoes(1).await;
    backend.event().await;
    between.deaf.store(false, Ordering::Relaxed);
    newer.until(|f| matches!(f, Frame::LoggedIn(_))).await;
    newer.until(|f| matches!(f, Frame::Opened(_))).await;
    assert_eq!(confirmed(&mut backend).await, open.session);
    assert_eq!(older.code().await, CloseCode::Replaced);
    assert_eq!(closed(&mut backend).await.session, first);
    newer.echoes(1).await;
}

/// Stands between a client and the gateway, and can keep what comes from the gateway for itself.
struct Between {
    addr: SocketAddr,
    deaf: Arc<AtomicBool>,
    said: Arc<Mutex<Vec<Vec<u8>>>>,
    _task: tokio::task::JoinSet<()>,
}

impl Between {
    async fn start(to: SocketAddr) -> Self {
        let any = "127.0.0.1:0";
        let (front, back) =
            (UdpSocket::bind(any).await.unwrap(), UdpSocket::bind(any).await.unwrap());
        back.connect(to).await.unwrap();
        let addr = front.local_addr().unwrap();
        let (deaf, said) = (Arc::<AtomicBool>::default(), Arc::<Mutex<Vec<Vec<u8>>>>::default());
        let (is_deaf, saying) = (Arc::clone(&deaf), Arc::clone(&said));
        let mut task = tokio::task::JoinSet::new();
        task.spawn(async move {
            let (mut up, mut down, mut client) = ([0; 2048], [0; 2048], None);
            loop {
                tokio::select! {
                    Ok((n, from)) = front.recv_from(&mut up) => {
                        client = Some(from);
                        saying.lock().push(up[..n].to_vec());
                        back.send(&up[..n]).await.unwrap();
                    }
                    Ok(n) = back.recv(&mut down) => {
                        if let Some(client) = client && !is_deaf.load(Ordering::Relaxed) {
                            front.send_to(&down[..n], client).await.unwrap();
                        }
                    }
                }
            }
        });
        Self { addr, deaf, said, _task: task }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_flight_whose_handshake_is_never_completed_replaces_nobody() {
    let mut backend = Backend::start().await;
    let edge = Edge::start(&backend, |raw| raw.limits.handshake_timeout_ms = 1_000).await;
    let mut older = Client::login(&edge, Via::Quic, "ada").await;
    older.open(1, "chat").await;
    backend.opened().await;
    let between = Between::start(edge.quic).await;
    between.deaf.store(true, Ordering::Relaxed);
    let connection = edge.dialer.quic_early(between.addr, "localhost").await.unwrap();
    let _newer = flight(connection, "ada").await;
    let open = backend.opened().await;
    assert!(open.early);
    // It is given up without ever having counted.
    match backend.event().await {
        Event::Close(close) => assert_eq!(close.session, open.session),
        other => panic!("{other:?}"),
    }
    older.is_well().await;
    older.echoes(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_flight_that_is_said_again_by_somebody_else_does_nothing() {
    let (mut backend, edge) = start().await;
    drop(Client::login(&edge, Via::Quic, "ada").await);
    let between = Between::start(edge.quic).await;
    let connection = edge.dialer.quic_early(between.addr, "localhost").await.unwrap();
    let mut client = flight(connection, "ada").await;
    client.until(|f| matches!(f, Frame::Opened(_))).await;
    let open = backend.opened().await;
    if open.early {
        assert_eq!(confirmed(&mut backend).await, open.session);
    }
    client.sender.close(CloseCode::Normal, "", 0).await;
    closed(&mut backend).await;
    let said = between.said.lock().clone();
    let replay = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    // As long as the gateway remembers the connection it takes all for late packets of that.
    let answer = async {
        let mut answer = [0; 2048];
        loop {
            for datagram in &said {
                replay.send_to(datagram, edge.quic).await.unwrap();
            }
            let wait = Duration::from_millis(200);
            if tokio::time::timeout(wait, replay.recv(&mut answer)).await.is_ok() {
                return;
            }
        }
    };
    within(answer).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    // It is a new client to the gateway, which has said nothing yet.
    let mut bob = Client::login(&edge, Via::Quic, "bob").await;
    bob.open(1, "chat").await;
    assert_eq!(backend.opened().await.user, "bob");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_in_early_data_is_looked_at_when_the_handshake_is_complete() {
    let (mut backend, edge) = start().await;
    drop(Client::login(&edge, Via::Quic, "ada").await);
    let between = Between::start(edge.quic).await;
    between.deaf.store(true, Ordering::Relaxed);
    let connection = edge.dialer.quic_early(between.addr, "localhost").await.unwrap();
    let mut client = Client::over(connection);
    client.control(hello([ALL; 3])).await;
    client.control(login("ada", "secret")).await;
    client.send(SIGNAL, open_chat()).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    between.deaf.store(false, Ordering::Relaxed);
    client.until(|f| matches!(f, Frame::LoggedIn(_))).await;
    let open = backend.opened().await;
    assert!(!open.early, "it is no replay any more when it is opened");
    client.sender.close(CloseCode::Normal, "", 0).await;
    assert!(matches!(closed(&mut backend).await, close if close.session == open.session));
}
