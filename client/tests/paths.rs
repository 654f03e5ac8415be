//! What the SDK promises about networks that fail, over real sockets with a network in between that
//! does as it is told.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

mod common;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use common::{Listen, Server, proxy::Proxy};
use edgeway_client::{
    Class, Client, ClientConfig, ConnectError, Connector, Event, Events, Room, Transport,
    TransportChoice,
};
use tokio::task::JoinHandle;

fn bytes(n: u64) -> Bytes {
    Bytes::copy_from_slice(&n.to_be_bytes())
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(40), wait).await.is_ok(), "{what}");
}

/// A client behind a network, in a room, with traffic both ways.
struct Talk {
    server: Server,
    proxy: Arc<Proxy>,
    client: Client,
    going: Arc<AtomicBool>,
    up: JoinHandle<u64>,
    down: JoinHandle<Vec<Bytes>>,
}

fn through(server: &Server, proxy: &Proxy) -> ClientConfig {
    let mut config = server.config("ann");
    config.server = proxy.addr.to_string();
    config
}

/// Sends numbers until it is told to stop, without waiting for acks; how many.
async fn send(room: Room, going: Arc<AtomicBool>) -> u64 {
    let mut sent = 0;
    while going.load(Ordering::Relaxed) {
        room.send_signal_nowait(bytes(sent)).unwrap();
        sent += 1;
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    sent
}

/// All signals up to an empty one.
async fn receive(mut events: Events) -> Vec<Bytes> {
    let mut got = Vec::new();
    while let Some(event) = events.next().await {
        match event {
            Event::Message(message) if message.payload.is_empty() => return got,
            Event::Message(message) if message.class == Class::Signal => got.push(message.payload),
            Event::HistoryLost { .. } | Event::Closed { .. } => panic!("{event:?}"),
            _ => {}
        }
    }
    got
}

impl Talk {
    async fn start(transport: TransportChoice) -> Self {
        let server = Server::start(Listen::Both);
        let proxy = Proxy::to(server.quic.unwrap()).await;
        let mut config = through(&server, &proxy);
        config.transport = transport;
        // No luck of the scheduler has TCP win at first.
        config.head_start = Duration::from_secs(8);
        let (client, events) = Client::connect(config).await.unwrap();
        assert_eq!(client.transport(), Some(Transport::Quic));
        let room = client.join("maths").await.unwrap();
        let going = Arc::new(AtomicBool::new(true));
        let up = tokio::spawn(send(room, Arc::clone(&going)));
        let down = tokio::spawn(receive(events));
        let talk = Self { server, proxy, client, going, up, down };
        talk.goes_on().await;
        talk
    }

    fn log(&self) -> Vec<Bytes> {
        self.server.log("maths", Class::Signal)
    }

    /// Waits for traffic both ways from now on.
    async fn goes_on(&self) {
        let up = self.log().len();
        until("the server gets more", || self.log().len() > up + 5).await;
        let down = self.client.stats().messages;
        until("the client gets more", || self.client.stats().messages > down + 5).await;
    }

    /// Ends it: nothing is lost, nothing is there twice.
    async fn end(mut self) {
        self.going.store(false, Ordering::Relaxed);
        let sent = (&mut self.up).await.unwrap();
        until("all is acknowledged", || self.client.stats().unacked_bytes == 0).await;
        let log = self.log();
        assert_eq!(log, (0..sent).map(bytes).collect::<Vec<_>>());
        self.server.publish("maths", Class::Signal, Bytes::new());
        let down = tokio::time::timeout(Duration::from_secs(30), self.down).await;
        assert_eq!(down.expect("all arrives").unwrap(), log);
        self.client.close().await;
    }
}

#[tokio::test]
async fn where_udp_is_blocked_midway_tcp_takes_over_and_quic_comes_back() {
    let talk = Talk::start(TransportChoice::Auto).await;
    talk.proxy.udp(false);
    until("TCP takes over", || talk.client.transport() == Some(Transport::Tcp)).await;
    talk.goes_on().await;
    let path = talk.client.path();
    assert_eq!((path.switches, path.reconnects, path.moves), (1, 1, 1));
    talk.proxy.udp(true);
    until("back to QUIC", || talk.client.transport() == Some(Transport::Quic)).await;
    talk.goes_on().await;
    let path = talk.client.path();
    assert_eq!((path.switches, path.reconnects, path.moves), (2, 2, 1));
    until("what was left is closed", || talk.server.connections() == 1).await;
    talk.end().await;
}

#[tokio::test]
async fn a_binding_that_changes_its_port_changes_nothing() {
    let talk = Talk::start(TransportChoice::Auto).await;
    for _ in 0..3 {
        talk.proxy.rebind().await;
        talk.goes_on().await;
    }
    assert_eq!(talk.client.path().reconnects, 0);
    talk.end().await;
}

#[tokio::test]
async fn a_dead_binding_is_left_for_a_new_socket_and_the_connection_stays() {
    let talk = Talk::start(TransportChoice::Quic).await;
    talk.proxy.forget_bindings();
    until("it moves", || talk.client.path().moves == 1).await;
    talk.goes_on().await;
    let path = talk.client.path();
    assert_eq!((path.reconnects, path.moves), (0, 1));
    talk.end().await;
}

#[tokio::test]
async fn a_hint_of_another_network_takes_the_connection_there() {
    let talk = Talk::start(TransportChoice::Auto).await;
    for n in 1..=2 {
        talk.proxy.forget_bindings();
        talk.client.network_changed();
        talk.goes_on().await;
        let path = talk.client.path();
        assert_eq!((path.reconnects, path.moves), (0, n));
    }
    talk.end().await;
}

#[tokio::test]
async fn a_hint_where_udp_does_not_pass_leads_to_tcp() {
    let talk = Talk::start(TransportChoice::Auto).await;
    talk.proxy.udp(false);
    talk.client.network_changed();
    until("TCP takes over", || talk.client.transport() == Some(Transport::Tcp)).await;
    talk.goes_on().await;
    assert_eq!(talk.client.path().switches, 1);
    talk.end().await;
}

#[tokio::test]
async fn where_nothing_answers_the_old_connection_stays_and_goes_on() {
    let talk = Talk::start(TransportChoice::Auto).await;
    talk.proxy.udp(false);
    talk.proxy.tcp(false);
    until("fresh connections are tried", || talk.client.path().races >= 2).await;
    talk.proxy.udp(true);
    talk.proxy.tcp(true);
    talk.goes_on().await;
    let path = talk.client.path();
    assert_eq!((path.reconnects, path.switches, talk.server.logins()), (0, 0, 1));
    talk.end().await;
}

#[tokio::test]
async fn what_won_is_remembered_and_goes_first() {
    let server = Server::start(Listen::Both);
    let proxy = Proxy::to(server.quic.unwrap()).await;
    proxy.udp(false);
    let mut config = through(&server, &proxy);
    config.head_start = Duration::from_millis(20);
    let connector = Connector::new(&config.trust).unwrap();
    let (first, _events) = Client::connect_through(&connector, config.clone()).await.unwrap();
    assert_eq!(first.transport(), Some(Transport::Tcp));
    // A head start that is never over: only who goes first connects.
    config.head_start = Duration::from_secs(600);
    let (second, _events) = Client::connect_through(&connector, config.clone()).await.unwrap();
    assert_eq!(second.transport(), Some(Transport::Tcp));
    // In another network nothing is remembered.
    proxy.udp(true);
    second.network_changed();
    until("QUIC goes first", || second.transport() == Some(Transport::Quic)).await;
}

#[tokio::test]
async fn where_tcp_is_refused_quic_is_not_waited_for_until_the_end() {
    let silent = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let server = Server::start(Listen::Tcp);
    let mut config = server.config("ann");
    config.server = silent.local_addr().unwrap().to_string();
    config.connect_timeout = Duration::from_secs(60);
    let error = Client::connect(config).await.unwrap_err();
    let ConnectError::Unreachable { reason } = &error else { panic!("{error}") };
    assert!(reason.contains("Tcp") && reason.contains("QUIC: no answer"), "{reason}");
}

#[tokio::test]
async fn a_handshake_that_does_not_end_has_another_beside_it() {
    let server = Server::start(Listen::Both);
    let proxy = Proxy::to(server.quic.unwrap()).await;
    proxy.stick_first_handshake();
    let mut config = through(&server, &proxy);
    config.transport = TransportChoice::Quic;
    config.connect_timeout = Duration::from_secs(60);
    let (client, _events) = Client::connect(config).await.unwrap();
    client.ping().await.unwrap();
    assert!(proxy.stuck() > 1, "{}", proxy.stuck());
}

#[tokio::test]
async fn an_idle_connection_says_something_when_the_app_comes_back() {
    let server = Server::start(Listen::Both);
    let proxy = Proxy::to(server.quic.unwrap()).await;
    let mut config = through(&server, &proxy);
    config.transport = TransportChoice::Quic;
    let (client, _events) = Client::connect(config).await.unwrap();
    client.set_background(true);
    assert!(client.path().heartbeat > Duration::from_secs(20));
    tokio::time::sleep(Duration::from_millis(300)).await;
    // What died while it was away is found out at once, and not when the app next needs it.
    proxy.forget_bindings();
    client.set_background(false);
    until("it moves", || client.path().moves == 1).await;
    client.ping().await.unwrap();
    assert_eq!(client.path().reconnects, 0);
}

#[tokio::test]
async fn a_path_has_figures() {
    let talk = Talk::start(TransportChoice::Quic).await;
    until("they are taken", || talk.client.path().sent_packets > 10).await;
    let path = talk.client.path();
    assert_eq!(path.transport, Some(Transport::Quic));
    assert!(path.rtt.unwrap() > Duration::ZERO && path.min_rtt.unwrap() <= path.rtt.unwrap());
    assert!(path.window_bytes > 0 && (0.0..1.0).contains(&path.loss()));
    assert!(talk.proxy.datagrams() > 10);
    // A near path on which nothing is lost is sent no copies; this one is no longer such a path.
    talk.proxy.udp(false);
    tokio::time::sleep(Duration::from_millis(300)).await;
    talk.proxy.udp(true);
    until("copies are sent", || talk.client.path().copies_sent > 0).await;
    talk.end().await;
}
