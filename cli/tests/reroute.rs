//! The routes of a gateway change again and again under load, sometimes into nonsense: what reaches a room
//! is whole, in one order and once, and no connection is closed for it.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

mod support;

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use edgeway_client::{
    AckStatus, Bytes, Class, Client, ClientConfig, Event, Events, Login, Room, SendError,
    TransportChoice, Trust,
};
use support::{Process, Up, free_ports, get, write};
use tokio::task::JoinSet;

/// Above what a busy machine takes.
const PATIENCE: Duration = Duration::from_secs(120);

const CHANGES: usize = 50;
/// After so many changes there is one into nonsense.
const NONSENSE_EVERY: usize = 5;

async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("it did not happen in time")
}

/// The processes that are to be on the way, and the addresses of the two accesses.
struct Cluster {
    gateway: Process,
    _backends: Vec<Process>,
    access: [String; 2],
    common: String,
    quic: String,
    tcp: String,
    http: String,
}

fn start(dir: &Path) -> Cluster {
    // `up` makes the certificates.
    drop(Up::start(dir));
    let [one, two, room, peer] = free_ports();
    let common = format!(
        "room = [\"{room}\"]\npeer = [\"{peer}\"]\n[gateway.tls]\ncert = \"edgeway-data/certs/server.pem\"\n\
         key = \"edgeway-data/certs/server.key\"\n[rooms]\nchat_per_second = 0\n"
    );
    // That of the gateway changes; the backends keep theirs.
    write(dir, "backend.toml", &config(&[&one, &two], "consistent_hash", &common));
    write(dir, "edgeway.toml", &config(&[&one, &two], "consistent_hash", &common));
    let backend = |role, addr: &str, slot| {
        let args = ["backend", "--config", "backend.toml", "--roles", role, "--listen", addr];
        let more = ["--data-dir", &format!("data-{slot}"), "--slot", slot, "--http", "off"];
        Process::spawn(dir, &[&args[..], &more].concat())
    };
    let mut backends = vec![
        backend("room", &room, "1"),
        backend("peer", &peer, "2"),
        backend("access", &one, "3"),
        backend("access", &two, "4"),
    ];
    for backend in &mut backends {
        backend.wait_for("ready grpc=");
    }
    let any = "127.0.0.1:0";
    let args = ["gateway", "--config", "edgeway.toml", "--quic", any, "--tcp", any, "--http", any];
    let mut gateway = Process::spawn(dir, &args);
    let ready = gateway.wait_for("ready ");
    let value = |name: &str| {
        let rest = ready.split_once(&format!("{name}=")).unwrap_or_else(|| panic!("{ready}")).1;
        rest.split(' ').next().unwrap().to_owned()
    };
    let (quic, tcp, http) = (value("quic"), value("tcp"), value("http"));
    Cluster { gateway, _backends: backends, access: [one, two], common, quic, tcp, http }
}

fn config(access: &[&str], policy: &str, common: &str) -> String {
    format!(
        "[gateway.routes]\nchat = {{ backend = \"access\", policy = \"{policy}\" }}\n\
         [backends]\naccess = {access:?}\n{common}"
    )
}

impl Cluster {
    /// The config of a change. One of the two accesses is always there.
    fn change(&self, n: usize) -> String {
        let [one, two] = &self.access;
        let lists: [&[&str]; 4] = [&[one], &[two, one], &[two], &[one, two]];
        let policies = ["hash", "round_robin", "consistent_hash"];
        config(lists[n % 4], policies[n % 3], &self.common)
    }

    /// Waits until the config was read again so often with this outcome.
    async fn reloaded(&self, outcome: &str, times: usize) {
        let line = format!("edgeway_config_reloads_total{{outcome=\"{outcome}\"}} {times}");
        let search = async {
            while !get(&self.http, "/metrics").lines().any(|one| one == line) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        within(search).await;
    }
}

async fn connect(dir: &Path, cluster: &Cluster, n: usize) -> (Client, Events) {
    let quic = n.is_multiple_of(2);
    let addr = if quic { &cluster.quic } else { &cluster.tcp };
    let login = Login::Development { user: format!("user-{n}") };
    let mut config = ClientConfig::new(addr, login);
    config.trust = Trust::Ca(std::fs::read(dir.join("edgeway-data/certs/ca.pem")).unwrap());
    config.transport = if quic { TransportChoice::Quic } else { TransportChoice::Tcp };
    within(Client::connect(config)).await.unwrap()
}

/// Signals, each after the ack of the one before, and strokes, until told to stop; gives how many of
/// each.
async fn speak(room: Room, user: usize, stop: Arc<AtomicBool>) -> [u64; 2] {
    let (mut signals, mut strokes) = (0, 0);
    let mut ticks = tokio::time::interval(Duration::from_millis(50));
    while !stop.load(Ordering::Relaxed) {
        ticks.tick().await;
        let stroke = Bytes::from(format!("{user} {strokes}"));
        match room.send_stroke_nowait(stroke) {
            Ok(_) => strokes += 1,
            Err(SendError::Full) => {}
            Err(error) => panic!("a stroke: {error}"),
        }
        let _ = room.send_chat_nowait(Bytes::from_static(b"chat"));
        let ack = within(room.send_signal(Bytes::from(format!("{user} {signals}")))).await.unwrap();
        assert_ne!(ack.status, AckStatus::Shed);
        signals += 1;
    }
    [signals, strokes]
}

/// All signals and strokes that one member was given, in order.
async fn listen(
    mut events: Events,
    sent: tokio::sync::watch::Receiver<Option<u64>>,
) -> [Vec<String>; 2] {
    let mut all = [Vec::new(), Vec::new()];
    loop {
        let total = sent.borrow().unwrap_or(u64::MAX);
        if all.iter().map(Vec::len).sum::<usize>() as u64 >= total {
            return all;
        }
        let event = match tokio::time::timeout(Duration::from_millis(100), events.next()).await {
            Err(_) => continue,
            Ok(event) => event.expect("the client goes on"),
        };
        match event {
            Event::Message(message) if message.class != Class::Chat => {
                let text = String::from_utf8(message.payload.to_vec()).unwrap();
                all[usize::from(message.class == Class::Binary)].push(text);
            }
            Event::HistoryLost { .. } => panic!("{event:?}"),
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn routes_that_change_under_load_lose_repeat_and_reorder_nothing() {
    const MEMBERS: usize = 6;
    let dir = tempfile::tempdir().unwrap();
    let cluster = start(dir.path());
    let (stop, (total, sent)) = (Arc::<AtomicBool>::default(), tokio::sync::watch::channel(None));
    let (mut clients, mut rooms, mut listeners) = (Vec::new(), Vec::new(), JoinSet::new());
    for n in 0..MEMBERS {
        let (client, events) = connect(dir.path(), &cluster, n).await;
        rooms.push(within(client.join("lesson")).await.unwrap());
        let heard = listen(events, sent.clone());
        listeners.spawn(async move { (n, heard.await) });
        clients.push(client);
    }
    let mut speakers = JoinSet::new();
    for (n, room) in rooms.into_iter().enumerate() {
        speakers.spawn(speak(room, n, Arc::clone(&stop)));
    }

    let mut nonsense = 0;
    for n in 0..CHANGES {
        let good = cluster.change(n);
        if n % NONSENSE_EVERY == NONSENSE_EVERY - 1 {
            nonsense += 1;
            write(dir.path(), "edgeway.toml", &good.replace("policy = ", "polisy = "));
            cluster.reloaded("refused", nonsense).await;
        }
        write(dir.path(), "edgeway.toml", &good);
        cluster.reloaded("applied", n + 1).await;
        // Long enough that Sessions have moved and speak again, most times.
        tokio::time::sleep(Duration::from_millis(300)).await;
    }

    stop.store(true, Ordering::Relaxed);
    let mut said = [0, 0];
    while let Some(sums) = within(speakers.join_next()).await {
        let sums = sums.unwrap();
        said = [said[0] + sums[0], said[1] + sums[1]];
    }
    total.send(Some(said.iter().sum())).unwrap();
    let mut heard = BTreeMap::new();
    while let Some(one) = within(listeners.join_next()).await {
        let (n, all) = one.unwrap();
        heard.insert(n, all);
    }
    let first = &heard[&0];
    for (class, of) in first.iter().enumerate() {
        assert_eq!(of.len() as u64, said[class], "class {class}");
        // Of each sender in its order, and none twice.
        let mut next = [0; MEMBERS];
        for text in of {
            let (user, number) = text.split_once(' ').unwrap();
            let user: usize = user.parse().unwrap();
            assert_eq!(number.parse::<u64>().unwrap(), next[user], "{text} in class {class}");
            next[user] += 1;
        }
    }
    for (n, all) in &heard {
        assert!(all == first, "member {n} saw another order");
    }
    for client in &clients {
        assert_eq!(client.stats().reconnects, 0);
    }
    cluster.gateway.signal("TERM");
    let (code, _, log) = cluster.gateway.finish();
    assert_eq!(code, 0, "{log}");
    assert!(log.contains("Sessions follow the routes"), "none has moved: {log}");
    assert!(log.contains("edgeway.toml:2: gateway.routes.chat.polisy: unknown key"), "{log}");
}
