//! Strokes with owners of their own: every role twice, as processes on Redis. An owner of strokes is killed
//! under load: joins, signals and chat go on, strokes wait, and nothing is lost, repeated or reordered.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

mod support;

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use edgeway_client::{Bytes, Class, Client, JoinOptions, Seq};
use edgeway_testredis::{Options, Server};
use support::{
    Process, Up, free_ports, get,
    talk::{Heard, connect, listen, speak, within},
    write,
};
use tokio::{sync::watch, task::JoinSet};

const ROOMS: usize = 2;
const MEMBERS: usize = 4;

struct Cluster {
    /// The UDP and TCP addresses of each gateway.
    gateways: Vec<(Process, [String; 2])>,
    backends: Vec<Backend>,
    _redis: Server,
}

struct Backend {
    process: Process,
    role: &'static str,
    addr: String,
    http: String,
}

impl Backend {
    fn spawn(dir: &Path, role: &'static str, addr: &str) -> Self {
        let args = ["backend", "--config", "edgeway.toml", "--roles", role, "--listen", addr];
        let args = [&args[..], &["--name", addr, "--http", "127.0.0.1:0"]].concat();
        let process = Process::spawn(dir, &args);
        Self { process, role, addr: addr.to_owned(), http: String::new() }
    }

    fn wait_ready(&mut self) {
        self.http = value(&self.process.wait_for("ready grpc="), "http");
    }
}

fn value(ready: &str, name: &str) -> String {
    let rest = ready.split_once(&format!("{name}=")).unwrap_or_else(|| panic!("{ready}")).1;
    rest.split(' ').next().unwrap().to_owned()
}

/// `registry`: all find each other there; else each is listed.
fn start(dir: &Path, registry: bool) -> Cluster {
    // `up` makes the certificates.
    drop(Up::start(dir));
    let redis = Server::start(&Options::default());
    let addrs: [String; 8] = free_ports();
    let roles = ["access", "room", "binary", "peer"];
    let listed = roles.iter().zip(addrs.chunks(2)).map(|(role, addrs)| {
        if registry {
            format!("{role} = [\"registry\"]\n")
        } else {
            format!("{role} = {addrs:?}\n")
        }
    });
    let text = format!(
        "[backends]\n{}[store]\nengine = \"redis\"\n[store.redis]\nurl = \"{}\"\n[rooms]\n\
         chat_per_second = 0\n[gateway.tls]\ncert = \"edgeway-data/certs/server.pem\"\n\
         key = \"edgeway-data/certs/server.key\"\n",
        listed.collect::<String>(),
        redis.url()
    );
    write(dir, "edgeway.toml", &text);
    let of_roles = roles.iter().copied().zip(addrs.chunks(2));
    let mut backends: Vec<Backend> = of_roles
        .flat_map(|(role, addrs)| addrs.iter().map(move |addr| Backend::spawn(dir, role, addr)))
        .collect();
    backends.iter_mut().for_each(Backend::wait_ready);
    let gateways = ["gw-1", "gw-2"].map(|name| {
        let any = "127.0.0.1:0";
        let args = ["gateway", "--config", "edgeway.toml", "--name", name, "--quic", any];
        let mut process =
            Process::spawn(dir, &[&args[..], &["--tcp", any, "--http", "off"]].concat());
        let ready = process.wait_for("ready ");
        (process, ["quic", "tcp"].map(|transport| value(&ready, transport)))
    });
    Cluster { gateways: gateways.into(), backends, _redis: redis }
}

impl Cluster {
    /// Member `n` of room `room`, on a gateway and transport of its own.
    async fn connect(&self, dir: &Path, n: usize) -> (Client, edgeway_client::Events) {
        let (quic, gateway) = (n.is_multiple_of(2), n / 2 % 2);
        let addr = &self.gateways[gateway].1[usize::from(!quic)];
        connect(dir, addr, quic, n).await
    }

    /// Waits until the directory, asked by an owner of strokes, has so many members of a room.
    fn wait_members(&self, room: &str, members: usize) {
        let asked = self.backends.iter().find(|backend| backend.role == "binary").unwrap();
        let (start, total) = (Instant::now(), format!("\"total\":{members},"));
        loop {
            let answer = get(&asked.http, &format!("/rooms/{room}/members"));
            if answer.contains(&total) {
                return;
            }
            assert!(start.elapsed() < Duration::from_secs(60), "{answer}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The sum of a counter over the processes of a role.
    fn count(&self, role: &str, name: &str) -> u64 {
        let backends = self.backends.iter().filter(|backend| backend.role == role);
        let metrics = backends.map(|backend| get(&backend.http, "/metrics"));
        let lines = metrics.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>());
        let values = lines.filter(|line| line.starts_with(name));
        values.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    }
}

/// Who comes while an owner of strokes is away is let in, and heard.
async fn visit(cluster: &Cluster, dir: &Path, n: usize) {
    let (client, _events) = cluster.connect(dir, n).await;
    for room in 0..ROOMS {
        let room = within(client.join(&format!("visited-{room}"))).await.unwrap();
        within(room.send_signal(Bytes::from_static(b"hello"))).await.unwrap();
    }
    within(client.close()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn owners_of_strokes_that_are_killed_under_load_lose_repeat_and_reorder_nothing() {
    are_killed_under_load(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn owners_of_strokes_that_are_found_in_the_registry_may_be_killed_as_well() {
    are_killed_under_load(true).await;
}

async fn are_killed_under_load(registry: bool) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    let mut cluster = start(path, registry);
    let stop = Arc::<AtomicBool>::default();
    let totals = [(); ROOMS].map(|()| watch::channel(None));
    let (mut clients, mut listeners, mut speakers) = (Vec::new(), JoinSet::new(), JoinSet::new());
    let mut members = Vec::new();
    for n in 0..ROOMS * MEMBERS {
        let (of, member) = (n % ROOMS, n / ROOMS);
        let (client, events) = cluster.connect(path, member * 7 + of).await;
        let room = within(client.join(&format!("lesson-{of}"))).await.unwrap();
        let heard = listen(events, totals[of].1.clone());
        listeners.spawn(async move { (of, member, heard.await) });
        members.push((of, member, room));
        clients.push(client);
    }
    let told = cluster.count("room", "edgeway_owner_routes_told_total{kind=\"room\"}");
    assert!(told <= 2 * ROOMS as u64, "once for each gateway, not for each member: {told}");
    // Who is in the rooms, their owners tell the directory, and those of strokes nothing.
    for of in 0..ROOMS {
        tokio::task::block_in_place(|| cluster.wait_members(&format!("lesson-{of}"), MEMBERS));
    }
    assert_eq!(cluster.count("binary", "edgeway_directory_listings"), 0);
    assert_eq!(cluster.count("binary", "edgeway_directory_writes_total"), 0);
    for (of, member, room) in members {
        let spoken = speak(room, member, Arc::clone(&stop));
        speakers.spawn(async move { (of, spoken.await) });
    }

    tokio::time::sleep(Duration::from_secs(1)).await;
    for n in 0..cluster.backends.len() {
        if cluster.backends[n].role != "binary" {
            continue;
        }
        let old = &mut cluster.backends[n];
        old.process.signal("KILL");
        let addr = old.addr.clone();
        visit(&cluster, path, 100 + n).await;
        let mut new = Backend::spawn(path, "binary", &addr);
        new.wait_ready();
        cluster.backends[n] = new;
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut said = [[0; 2]; ROOMS];
    while let Some(sums) = within(speakers.join_next()).await {
        let (of, [signals, strokes]) = sums.unwrap();
        said[of] = [said[of][0] + signals, said[of][1] + strokes];
    }
    for (of, (total, sent)) in totals.iter().enumerate() {
        total.send(Some(said[of].iter().sum())).unwrap();
        let (client, events) = cluster.connect(path, 200 + of).await;
        let from_the_beginning =
            [Class::Signal, Class::Binary].map(|class| (class, Seq::ZERO)).into();
        let options = JoinOptions { positions: from_the_beginning, ..JoinOptions::default() };
        within(client.join_with(&format!("lesson-{of}"), options)).await.unwrap();
        let heard = listen(events, sent.clone());
        listeners.spawn(async move { (of, MEMBERS, heard.await) });
        clients.push(client);
    }
    let mut heard = [(); ROOMS].map(|()| Heard::default());
    while let Some(one) = within(listeners.join_next()).await {
        let (of, member, all) = one.unwrap();
        heard[of].insert(member, all);
    }
    for (heard, said) in heard.iter().zip(said) {
        assert!(said[1] > 0);
        heard.check(said, MEMBERS);
    }
    for client in &clients {
        assert_eq!(client.stats().reconnects, 0);
    }
    let again = cluster.count("access", "edgeway_access_told_to_join_again_total");
    assert!(again > 0, "nobody was concerned");
    assert_eq!(cluster.count("access", "edgeway_access_sessions_closed_total"), 0);
    for process in cluster.gateways.into_iter().map(|(process, _)| process) {
        process.signal("TERM");
        let (code, _, log) = process.finish();
        assert_eq!(code, 0, "{log}");
    }
}
