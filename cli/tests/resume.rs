//! What a user of the SDK may rely on when the network fails: the server as a process, on real sockets,
//! behind a link that can be cut.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

mod support;

use std::{
    collections::HashMap,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use edgeway_client::{
    Ack, AckStatus, Bytes, Class, Client, ClientConfig, CloseCode, Event, Events, Login, Presence,
    Room, SendError, Transport, TransportChoice, Trust,
};
use support::{Process, Up, get, write};
use tokio::{
    net::{TcpListener, TcpStream, UdpSocket},
    task::JoinSet,
};

/// Above what a busy machine takes.
const PATIENCE: Duration = Duration::from_secs(60);

const ROOM: &str = "lesson";

/// A link to the server that can be cut, without a word to either end.
struct Link {
    addr: SocketAddr,
    cut: Arc<AtomicBool>,
    _task: JoinSet<()>,
}

impl Link {
    async fn start(transport: TransportChoice, to: &str) -> Self {
        let to: SocketAddr = to.parse().unwrap();
        let cut = Arc::<AtomicBool>::default();
        let mut task = JoinSet::new();
        let addr = if transport == TransportChoice::Quic {
            let front = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let addr = front.local_addr().unwrap();
            task.spawn(datagrams(Arc::new(front), to, Arc::clone(&cut)));
            addr
        } else {
            let front = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let addr = front.local_addr().unwrap();
            task.spawn(streams(front, to, Arc::clone(&cut)));
            addr
        };
        Self { addr, cut, _task: task }
    }

    /// One of which only datagrams can be cut.
    async fn of_both(quic: &str, tcp: &str) -> Self {
        let (quic, tcp) = (quic.parse().unwrap(), tcp.parse().unwrap());
        let cut = Arc::<AtomicBool>::default();
        let mut task = JoinSet::new();
        loop {
            let front = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let addr = front.local_addr().unwrap();
            // The port may be somebody else's there.
            let Ok(datagram) = UdpSocket::bind(addr).await else { continue };
            task.spawn(datagrams(Arc::new(datagram), quic, Arc::clone(&cut)));
            task.spawn(streams(front, tcp, Arc::default()));
            return Self { addr, cut, _task: task };
        }
    }

    fn cut(&self, cut: bool) {
        self.cut.store(cut, Ordering::SeqCst);
    }
}

async fn datagrams(front: Arc<UdpSocket>, to: SocketAddr, cut: Arc<AtomicBool>) {
    let (mut flows, mut tasks) = (HashMap::new(), JoinSet::new());
    let mut buffer = [0; 2048];
    loop {
        let (n, from) = front.recv_from(&mut buffer).await.unwrap();
        if cut.load(Ordering::SeqCst) {
            // What comes later comes from elsewhere, as after a change of network.
            flows.clear();
            tasks.abort_all();
            continue;
        }
        let known: Option<&Arc<UdpSocket>> = flows.get(&from);
        let back = if let Some(back) = known {
            Arc::clone(back)
        } else {
            let back = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
            back.connect(to).await.unwrap();
            flows.insert(from, Arc::clone(&back));
            let (front, cut, reading) = (Arc::clone(&front), Arc::clone(&cut), Arc::clone(&back));
            tasks.spawn(async move {
                let mut buffer = [0; 2048];
                while let Ok(n) = reading.recv(&mut buffer).await {
                    if !cut.load(Ordering::SeqCst) {
                        front.send_to(&buffer[..n], from).await.unwrap();
                    }
                }
            });
            back
        };
        let _ = back.send(&buffer[..n]).await;
    }
}

async fn streams(front: TcpListener, to: SocketAddr, cut: Arc<AtomicBool>) {
    let mut tasks = JoinSet::new();
    loop {
        let (mut client, _) = front.accept().await.unwrap();
        let cut = Arc::clone(&cut);
        tasks.spawn(async move {
            let is_cut = async {
                while !cut.load(Ordering::SeqCst) {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            };
            let Ok(mut server) = TcpStream::connect(to).await else { return };
            tokio::select! {
                _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                () = is_cut => {}
            }
        });
    }
}

fn start(dir: &Path, toml: &str, ports: Option<(&str, &str)>) -> Up {
    write(dir, "edgeway.toml", toml);
    let (quic, tcp) = ports.unwrap_or(("127.0.0.1:0", "127.0.0.1:0"));
    let args =
        ["up", "--config", "edgeway.toml", "--quic", quic, "--tcp", tcp, "--http", "127.0.0.1:0"];
    Up::ready(Process::spawn(dir, &args))
}

fn config(up: &Up, addr: &str, user: &str, transport: TransportChoice) -> ClientConfig {
    let mut config = ClientConfig::new(addr, Login::Development { user: user.into() });
    config.trust = Trust::Ca(std::fs::read(&up.ca).unwrap());
    config.server_name = Some("localhost".into());
    config.transport = transport;
    config.device = format!("{user}'s phone");
    config.backoff_min = Duration::from_millis(50);
    config.backoff_max = Duration::from_millis(200);
    config
}

async fn next(events: &mut Events) -> Event {
    tokio::time::timeout(PATIENCE, events.next()).await.expect("no event").expect("it is over")
}

/// Whether it was resumed.
async fn reconnected(events: &mut Events, others: &mut Vec<Event>) -> bool {
    loop {
        match next(events).await {
            Event::Reconnected { resumed, .. } => return resumed,
            other => others.push(other),
        }
    }
}

fn number(n: u32) -> Bytes {
    Bytes::from(n.to_string())
}

fn names(presence: &Presence) -> (Vec<String>, Vec<String>) {
    let names = |names: &[edgeway_client::Text]| names.iter().map(ToString::to_string).collect();
    (names(&presence.joined), names(&presence.left))
}

/// Reads until `who` comes; whether `about` came or went before.
async fn moved_before(events: &mut Events, about: &str, who: &str) -> bool {
    let mut moved = false;
    loop {
        let Event::Presence(presence) = next(events).await else { continue };
        let (joined, left) = names(&presence);
        moved |= joined.iter().chain(&left).any(|name| name == about);
        if joined.iter().any(|name| name == who) {
            return moved;
        }
    }
}

async fn cut_and_back(transport: TransportChoice) {
    let dir = tempfile::tempdir().unwrap();
    let up = start(dir.path(), "", None);
    let link =
        Link::start(transport, if transport == TransportChoice::Quic { &up.quic } else { &up.tcp })
            .await;
    let (bob, mut to_bob) =
        Client::connect(config(&up, &up.tcp, "bob", TransportChoice::Tcp)).await.unwrap();
    let at_bob = bob.join(ROOM).await.unwrap();
    let (ada, mut to_ada) =
        Client::connect(config(&up, &link.addr.to_string(), "ada", transport)).await.unwrap();
    let at_ada = ada.join(ROOM).await.unwrap();
    assert!(moved_before(&mut to_bob, "ada", "ada").await);
    for n in 0..10 {
        at_bob.send_signal(number(n)).await.unwrap();
        at_bob.send_stroke(number(n)).await.unwrap();
    }
    link.cut(true);
    for n in 10..50 {
        at_bob.send_signal(number(n)).await.unwrap();
        at_bob.send_stroke(number(n)).await.unwrap();
    }
    let sent = at_ada.clone();
    let sending = tokio::spawn(async move { sent.send_signal(Bytes::from_static(b"ada")).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    link.cut(false);
    ada.reconnect();
    let mut seen = Vec::new();
    assert!(reconnected(&mut to_ada, &mut seen).await, "by token");
    let mut got: HashMap<Class, Vec<Bytes>> = HashMap::new();
    let full = |got: &HashMap<Class, Vec<Bytes>>| {
        [Class::Signal, Class::Binary].iter().all(|c| got.get(c).is_some_and(|m| m.len() >= 50))
    };
    let mut seen = seen.into_iter();
    while !full(&got) {
        let event = match seen.next() {
            Some(event) => event,
            None => next(&mut to_ada).await,
        };
        match event {
            Event::Message(m) if *m.sender == *"bob" => {
                got.entry(m.class).or_default().push(m.payload)
            }
            Event::Left { .. } | Event::HistoryLost { .. } => panic!("{event:?}"),
            _ => {}
        }
    }
    let all: Vec<Bytes> = (0..50).map(number).collect();
    assert_eq!(got[&Class::Signal], all, "once and in order");
    assert_eq!(got[&Class::Binary], all, "once and in order");
    sending.await.unwrap().unwrap();
    // Longer than it takes to tell who came and went.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    let (cleo, _) =
        Client::connect(config(&up, &up.tcp, "cleo", TransportChoice::Tcp)).await.unwrap();
    cleo.join(ROOM).await.unwrap();
    assert!(!moved_before(&mut to_bob, "ada", "cleo").await, "ada has never left");
    let stats = ada.stats();
    assert_eq!((stats.resumes, stats.duplicates), (1, 0));
    let metrics = get(&up.http, "/metrics");
    assert!(metrics.contains("edgeway_gateway_resumes_total{result=\"accepted\"} 1"), "{metrics}");
    let early = metrics.contains("edgeway_gateway_early_data_total{result=\"confirmed\"} 1");
    assert_eq!(early, transport == TransportChoice::Quic, "{metrics}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_cut_off_and_comes_back_has_missed_nothing_and_never_left_over_quic() {
    cut_and_back(TransportChoice::Quic).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_cut_off_and_comes_back_has_missed_nothing_and_never_left_over_tcp() {
    cut_and_back(TransportChoice::Tcp).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_connection_that_takes_over_goes_on_by_token_and_nobody_sees_it() {
    let dir = tempfile::tempdir().unwrap();
    let up = start(dir.path(), "", None);
    let link = Link::of_both(&up.quic, &up.tcp).await;
    let (bob, mut to_bob) =
        Client::connect(config(&up, &up.tcp, "bob", TransportChoice::Tcp)).await.unwrap();
    let at_bob = bob.join(ROOM).await.unwrap();
    let (ada, mut to_ada) =
        Client::connect(config(&up, &link.addr.to_string(), "ada", TransportChoice::Auto))
            .await
            .unwrap();
    let at_ada = ada.join(ROOM).await.unwrap();
    assert!(moved_before(&mut to_bob, "ada", "ada").await);
    assert_eq!(ada.path().transport, Some(Transport::Quic));
    link.cut(true);
    for n in 0..50 {
        at_bob.send_signal(number(n)).await.unwrap();
    }
    // It gets there, though nobody was told that UDP is gone.
    at_ada.send_signal(Bytes::from_static(b"ada")).await.unwrap();
    let mut got = Vec::new();
    let mut taken_over = None;
    while got.len() < 50 || taken_over.is_none() {
        match next(&mut to_ada).await {
            Event::Message(m) if *m.sender == *"bob" => got.push(m.payload),
            Event::Reconnected { transport, resumed } => taken_over = Some((transport, resumed)),
            event @ (Event::Left { .. }
            | Event::HistoryLost { .. }
            | Event::Reconnecting { .. }) => panic!("{event:?}"),
            _ => {}
        }
    }
    assert_eq!(taken_over, Some((Transport::Tcp, true)));
    assert_eq!(got, (0..50).map(number).collect::<Vec<_>>(), "once and in order");
    // Longer than the old connection is kept, and than it takes to tell who came and went.
    tokio::time::sleep(Duration::from_millis(4_500)).await;
    let (cleo, _) =
        Client::connect(config(&up, &up.tcp, "cleo", TransportChoice::Tcp)).await.unwrap();
    cleo.join(ROOM).await.unwrap();
    assert!(!moved_before(&mut to_bob, "ada", "cleo").await, "ada has never left");
    assert_eq!((ada.stats().resumes, ada.path().switches), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_the_grace_time_a_leave_is_seen_and_the_client_logs_in_anew_and_keeps_its_rooms() {
    let dir = tempfile::tempdir().unwrap();
    let up = start(dir.path(), "[gateway.limits]\ngrace_ms = 300\n", None);
    let link = Link::start(TransportChoice::Tcp, &up.tcp).await;
    let (bob, mut to_bob) =
        Client::connect(config(&up, &up.tcp, "bob", TransportChoice::Tcp)).await.unwrap();
    let at_bob = bob.join(ROOM).await.unwrap();
    let ada = config(&up, &link.addr.to_string(), "ada", TransportChoice::Tcp);
    let (ada, mut to_ada) = Client::connect(ada).await.unwrap();
    let at_ada = ada.join(ROOM).await.unwrap();
    assert!(moved_before(&mut to_bob, "ada", "ada").await);
    link.cut(true);
    loop {
        if let Event::Presence(presence) = next(&mut to_bob).await
            && names(&presence).1 == ["ada"]
        {
            break;
        }
    }
    at_bob.send_signal(number(1)).await.unwrap();
    link.cut(false);
    ada.reconnect();
    let mut seen = Vec::new();
    assert!(!reconnected(&mut to_ada, &mut seen).await, "the token has expired");
    at_ada.send_signal(number(2)).await.unwrap();
    let mut got = Vec::new();
    while got.len() < 2 {
        if let Event::Message(m) = next(&mut to_ada).await {
            got.push(m.payload);
        }
    }
    assert_eq!(got, [number(1), number(2)]);
    assert!(moved_before(&mut to_bob, "ada", "ada").await, "comes again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn early_data_that_a_server_does_not_know_what_to_do_with_is_said_again() {
    let dir = tempfile::tempdir().unwrap();
    let up = start(dir.path(), "", None);
    let (ada, mut to_ada) =
        Client::connect(config(&up, &up.quic, "ada", TransportChoice::Quic)).await.unwrap();
    let at_ada = ada.join(ROOM).await.unwrap();
    at_ada.send_signal(number(1)).await.unwrap();
    // Another process, which has neither the TLS session nor the token.
    let (quic, tcp) = (up.quic.clone(), up.tcp.clone());
    up.process.signal("KILL");
    up.process.finish();
    let up = start(dir.path(), "", Some((&quic, &tcp)));
    ada.reconnect();
    let mut seen = Vec::new();
    assert!(!reconnected(&mut to_ada, &mut seen).await);
    at_ada.send_signal(number(2)).await.unwrap();
    let mut got: Vec<Bytes> = Vec::new();
    let mut seen = seen.into_iter();
    while got.len() < 2 {
        let event = match seen.next() {
            Some(event) => event,
            None => next(&mut to_ada).await,
        };
        if let Event::Message(m) = event {
            got.push(m.payload);
        }
    }
    assert_eq!(got, [number(1), number(2)]);
    let metrics = get(&up.http, "/metrics");
    assert!(metrics.contains("edgeway_gateway_resumes_total{result=\"refused\"} 1"), "{metrics}");
    assert!(!metrics.contains("edgeway_gateway_early_data_total{"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rooms_may_be_joined_along_with_the_login_and_the_second_of_a_device_replaces_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let up = start(dir.path(), "", None);
    let mut ada = config(&up, &up.quic, "ada", TransportChoice::Quic);
    ada.join = vec![ROOM.into(), "other".into()];
    let (first, mut to_first) = Client::connect(ada.clone()).await.unwrap();
    first.join(ROOM).await.unwrap().send_signal(number(1)).await.unwrap();
    loop {
        if let Event::Message(m) = next(&mut to_first).await {
            assert_eq!((m.payload, &*m.room), (number(1), ROOM));
            break;
        }
    }
    let (_second, _) = Client::connect(ada).await.unwrap();
    loop {
        if let Event::Closed { code, .. } = next(&mut to_first).await {
            assert_eq!(code, CloseCode::Replaced);
            break;
        }
    }
}

/// Says numbers as chat until it is told to stop; how many, and which of them the room has taken.
async fn chat(room: Room, going: Arc<AtomicBool>) -> (u32, Vec<Bytes>) {
    let (mut said, mut count) = (JoinSet::new(), 0);
    while going.load(Ordering::SeqCst) {
        let (n, sending) = (count, room.clone());
        said.spawn(async move { (n, sending.send_chat(number(n)).await) });
        count += 1;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let taken = |answer| match answer {
        Ok(Ack { status: AckStatus::Accepted | AckStatus::Duplicate, .. }) => true,
        // On a machine that is too busy for the old connection to be left within 5 s.
        Ok(Ack { status: AckStatus::Shed, .. }) | Err(SendError::NoAnswer) => false,
        Err(error) => panic!("{error}"),
    };
    let mut all = said.join_all().await;
    all.sort_by_key(|(n, _)| *n);
    let taken = all.into_iter().filter_map(|(n, answer)| taken(answer).then(|| number(n)));
    (count, taken.collect())
}

/// The chat that a member got, by sender, and what it was told that it missed.
#[derive(Default)]
struct Chat {
    from: HashMap<String, Vec<Bytes>>,
    missed: u64,
}

impl Chat {
    /// Whether it is the end.
    fn take(&mut self, event: &Event) -> bool {
        match event {
            Event::Message(m) if *m.payload == *b"end" => return true,
            Event::Message(m) if m.class == Class::Chat => {
                self.from.entry(m.sender.to_string()).or_default().push(m.payload.clone());
            }
            Event::Gap { class: Class::Chat, missed, .. } => self.missed += missed,
            Event::Left { .. } | Event::HistoryLost { .. } => panic!("{event:?}"),
            _ => {}
        }
        false
    }

    fn count(&self) -> u64 {
        self.from.values().map(|all| all.len() as u64).sum::<u64>() + self.missed
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chat_on_its_way_when_tcp_takes_over_arrives_or_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let up = start(dir.path(), "[rooms]\nchat_per_second = 0\n", None);
    let link = Link::of_both(&up.quic, &up.tcp).await;
    let (bob, mut to_bob) =
        Client::connect(config(&up, &up.tcp, "bob", TransportChoice::Tcp)).await.unwrap();
    let at_bob = bob.join(ROOM).await.unwrap();
    let (ada, mut to_ada) =
        Client::connect(config(&up, &link.addr.to_string(), "ada", TransportChoice::Auto))
            .await
            .unwrap();
    let at_ada = ada.join(ROOM).await.unwrap();
    assert_eq!(ada.path().transport, Some(Transport::Quic));
    let going = Arc::new(AtomicBool::new(true));
    let by_ada = tokio::spawn(chat(at_ada, Arc::clone(&going)));
    let by_bob = tokio::spawn(chat(at_bob.clone(), Arc::clone(&going)));
    // Both take what comes, or the acks of chat wait behind it for credit.
    let bob_takes = tokio::spawn(async move {
        let mut got = Chat::default();
        while !got.take(&next(&mut to_bob).await) {}
        got
    });
    let ada_takes = tokio::spawn(async move {
        let (mut got, mut taken_over) = (Chat::default(), false);
        loop {
            let event = next(&mut to_ada).await;
            let resumed = Event::Reconnected { transport: Transport::Tcp, resumed: true };
            taken_over |= event == resumed;
            if got.take(&event) {
                assert!(taken_over);
                return got;
            }
            if got.from.len() == 2 {
                link.cut(true);
            }
            if taken_over && got.missed > 0 {
                going.store(false, Ordering::SeqCst);
            }
        }
    });
    let (by_ada, by_bob) = (by_ada.await.unwrap(), by_bob.await.unwrap());
    // The last in the order of the room.
    at_bob.send_chat(Bytes::from_static(b"end")).await.unwrap();
    let (ada_got, bob_got) = (ada_takes.await.unwrap(), bob_takes.await.unwrap());
    assert_eq!(bob_got.missed, 0);
    for (sender, (said, taken)) in [("ada", &by_ada), ("bob", &by_bob)] {
        let (got, here) = (&bob_got.from[sender], &ada_got.from[sender]);
        let all: Vec<Bytes> = (0..*said).map(number).collect();
        assert!(is_part(got, &all) && is_part(here, got), "{sender}: once and in order: {got:?}");
        assert!(is_part(taken, got), "{sender}: what was taken arrives: {taken:?} {got:?}");
    }
    assert_eq!(ada_got.count(), bob_got.count(), "what she did not get was counted");
    assert_eq!(ada.stats().missed, ada_got.missed);
    assert!(ada.stats().resent > 0, "chat was on its way");
}

/// Whether all of `part` is in `whole`, in the same order, and nothing twice.
fn is_part(part: &[Bytes], whole: &[Bytes]) -> bool {
    let mut rest = whole.iter();
    part.iter().all(|one| rest.any(|other| one == other))
}
