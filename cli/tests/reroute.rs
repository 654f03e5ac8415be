//! The routes of a gateway change again and again under load, sometimes into nonsense: what reaches a room
//! is whole, in one order and once, and no connection is closed for it.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

mod support;

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use support::{
    Process, Up, free_ports, get,
    talk::{Heard, connect, listen, speak, within},
    write,
};
use tokio::task::JoinSet;

const CHANGES: usize = 50;
/// After so many changes there is one into nonsense.
const NONSENSE_EVERY: usize = 5;

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn routes_that_change_under_load_lose_repeat_and_reorder_nothing() {
    const MEMBERS: usize = 6;
    let dir = tempfile::tempdir().unwrap();
    let cluster = start(dir.path());
    let (stop, (total, sent)) = (Arc::<AtomicBool>::default(), tokio::sync::watch::channel(None));
    let (mut clients, mut rooms, mut listeners) = (Vec::new(), Vec::new(), JoinSet::new());
    for n in 0..MEMBERS {
        let quic = n.is_multiple_of(2);
        let addr = if quic { &cluster.quic } else { &cluster.tcp };
        let (client, events) = connect(dir.path(), addr, quic, n).await;
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
    let mut heard = Heard::default();
    while let Some(one) = within(listeners.join_next()).await {
        let (n, all) = one.unwrap();
        heard.insert(n, all);
    }
    heard.check(said, MEMBERS);
    for client in &clients {
        assert_eq!(client.stats().reconnects, 0);
    }
    cluster.gateway.signal("TERM");
    let (code, _, log) = cluster.gateway.finish();
    assert_eq!(code, 0, "{log}");
    assert!(log.contains("Sessions follow the routes"), "none has moved: {log}");
    assert!(log.contains("edgeway.toml:2: gateway.routes.chat.polisy: unknown key"), "{log}");
}
