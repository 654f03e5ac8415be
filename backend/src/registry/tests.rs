//! The registry on real servers: one, and a Cluster.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    future::Future,
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use edgeway_testredis::{Cluster, Options, Server};
use redis::{Commands, cmd};

use super::*;
use crate::store::{RedisServer, RedisUrl, RegistryCall};

/// Far beyond what anything takes.
const GIVE_UP: Duration = Duration::from_secs(60);
const LEASE: Duration = Duration::from_millis(600);

async fn until<F: Future<Output = bool>>(what: &str, holds: impl Fn() -> F) {
    let end = Instant::now() + GIVE_UP;
    while !holds().await {
        assert!(Instant::now() < end, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn at(url: &str, cluster: bool) -> RedisServer {
    RedisServer { urls: vec![RedisUrl::parse(url).unwrap()], cluster }
}

/// One who asks.
struct Asker {
    calls: RedisCalls,
    run: u64,
    record: String,
}

/// What it is answered: whether it was absent, the version, and the addresses in the list.
type Told = (bool, String, Vec<String>);

impl Asker {
    async fn new(server: &RedisServer, address: &str) -> Self {
        static RUNS: AtomicU64 = AtomicU64::new(1);
        let run = RUNS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let calls = RedisCalls::open(server, "t", None).await.unwrap();
        Self { calls, run, record: format!("{address} room name") }
    }

    async fn ask(&self, what: &'static str, known: &str) -> Vec<String> {
        let (id, record) = (format!("{:016x}", self.run), self.record.clone());
        let (load, known) = ("1 2 3".to_owned(), known.to_owned());
        let call = RegistryCall { what, id, record, load, lease: LEASE, known, most: 4 };
        self.calls.registry(&call).await.unwrap()
    }

    async fn told(&self, what: &'static str) -> Told {
        let answer = self.ask(what, "").await;
        let entries = answer[2..].as_chunks::<3>().0;
        let view = View::read(answer[1].clone(), entries);
        assert_eq!(view.unreadable, 0);
        (answer[0] == "1", answer[1].clone(), view.addresses("room"))
    }

    async fn list(&self) -> Vec<String> {
        self.told("look").await.2
    }
}

async fn promises(server: &RedisServer) {
    let (a, b) = (Asker::new(server, "a:1").await, Asker::new(server, "b:1").await);
    let (absent, first, list) = a.told("renew").await;
    assert!(absent && list == ["a:1"]);
    let (absent, second, list) = b.told("renew").await;
    assert!(absent && list == ["a:1", "b:1"] && second != first);
    assert_eq!(a.told("renew").await, (false, second.clone(), list));
    assert_eq!(a.ask("renew", &second).await, ["0", &second], "nothing new is not told again");

    // Who is silent for its lease is out, and the other one stays.
    until("the silent one is out", || async { a.told("renew").await.2 == ["a:1"] }).await;
    let (absent, _, list) = b.told("renew").await;
    assert!(absent && list == ["a:1", "b:1"], "and may come back");
    assert_eq!(b.told("leave").await.2, ["a:1"], "who says so is out at once");

    // Another run at the same address is in its place.
    let again = Asker::new(server, "a:1").await;
    assert_eq!(again.told("renew").await.2, ["a:1"]);
    assert!(a.told("look").await.0);
    assert_eq!(again.told("leave").await.2, [""; 0]);

    // There is a bound.
    for n in 0..4 {
        assert!(Asker::new(server, &format!("c:{}", n + 1)).await.told("renew").await.0);
    }
    assert_eq!(b.ask("renew", "").await, ["-1"]);
    assert_eq!(b.list().await.len(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_list_is_of_those_who_say_that_they_live() {
    let server = Server::start(&Options::default());
    promises(&at(&server.url(), false)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_on_a_cluster() {
    let cluster = Cluster::start(&Options::default());
    promises(&at(&cluster.urls()[0], true)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_lease_ends_because_the_servers_clock_was_set_or_nobody_could_ask() {
    let server = Server::start(&Options::default());
    let mut redis = redis::Client::open(server.url()).unwrap().get_connection().unwrap();
    let place = at(&server.url(), false);
    let (a, b) = (Asker::new(&place, "a:1").await, Asker::new(&place, "b:1").await);
    // As if the clock had been set by so much, forwards and back; or the server been away for a day.
    for step_ms in [86_400_000_i64, -86_400_000] {
        a.told("renew").await;
        b.told("renew").await;
        let _: i64 = cmd("HINCRBY")
            .arg("t:{nodes}:clock")
            .arg("at")
            .arg(-step_ms)
            .query(&mut redis)
            .unwrap();
        let (absent, _, list) = a.told("renew").await;
        assert!(!absent && list == ["a:1", "b:1"], "{step_ms}");
        // And leases end again.
        until("the silent one is out", || async { a.told("renew").await.2 == ["a:1"] }).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_in_the_registry_is_left_out_and_the_rest_is_found() {
    let server = Server::start(&Options::default());
    let mut redis = redis::Client::open(server.url()).unwrap().get_connection().unwrap();
    let score = 9e15;
    let _: i64 = redis.zadd("t:{nodes}:due", "nonsense", score).unwrap();
    let _: i64 = redis.zadd("t:{nodes}:due", "00000000000000ff", score).unwrap();
    let _: i64 = redis.hset("t:{nodes}:records", "00000000000000ff", "\u{1}\u{2}").unwrap();
    let _: i64 = redis.hset("t:{nodes}:clock", "at", "never").unwrap();
    let state = at(&server.url(), false);
    let config = RedisConfig { state, history: None, prefix: "t".to_owned(), ca: None };
    let me = Instance {
        run: 1,
        address: "a:1".to_owned(),
        roles: vec!["room".to_owned()],
        name: "room 1".to_owned(),
        load: Load::default(),
        report: String::new(),
    };
    let load = Load { connections: 4, sessions: 5, rooms: 6 };
    let sent = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&sent);
    let report = move || format!("report {}", count.fetch_add(1, Ordering::Relaxed) / 4);
    let registry = Registry::join(&config, LEASE, me.clone(), Box::new(move || (load, report())))
        .await
        .unwrap();
    let (mut view, stop) = (registry.view(), CancellationToken::new());
    let mut looker = registry.looker();
    let task = tokio::spawn(registry.run(stop.clone()));
    let seen = tokio::time::timeout(GIVE_UP, view.wait_for(|view| view.is_known())).await;
    let seen = seen.unwrap().unwrap().clone();
    assert_eq!(
        (seen.unreadable, &seen.instances[..]),
        (2, &[Instance { load, report: "report 0".to_owned(), ..me }][..])
    );
    // Loads change and the list does not: they come to those who look.
    let looking = async {
        let told =
            |view: &View| view.instances[0].report.rsplit(' ').next().unwrap().parse::<u64>();
        while told(&looker.next().await.unwrap()).unwrap() < 2 {}
    };
    tokio::time::timeout(GIVE_UP, looking).await.unwrap();
    assert_eq!(looker.now().await.version, seen.version);
    stop.cancel();
    task.await.unwrap();
    let left: i64 = redis.zcard("t:{nodes}:due").unwrap();
    assert_eq!(left, 2, "it has left at once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_registry_is_away_the_last_list_stays_and_nobody_is_lost() {
    let mut server = Server::start(&Options { durable: true, ..Options::default() });
    let state = at(&server.url(), false);
    let config = RedisConfig { state, history: None, prefix: "t".to_owned(), ca: None };
    let stop = CancellationToken::new();
    let mut all = Vec::new();
    for n in 1..=3 {
        let (address, name) = (format!("a:{n}"), String::new());
        let me = Instance {
            run: n,
            address,
            roles: vec!["room".to_owned()],
            name,
            load: Load::default(),
            report: String::new(),
        };
        let registry =
            Registry::join(&config, LEASE, me, Box::new(Default::default)).await.unwrap();
        let (view, tenure) = (registry.view(), registry.tenure());
        all.push((view, tenure));
        tokio::spawn(registry.run(stop.clone()));
    }
    let is_whole = |view: &watch::Receiver<Arc<View>>| view.borrow().addresses("room").len() == 3;
    until("all know all", || async { all.iter().all(|(view, _)| is_whole(view)) }).await;
    let versions: Vec<_> = all.iter().map(|(view, _)| view.borrow().version.clone()).collect();
    server.stop();
    tokio::time::sleep(3 * LEASE).await;
    assert!(all.iter().all(|(_, tenure)| !tenure.is_in_doubt()), "they are awake, and go on");
    server.resume();
    // Longer than a lease: who had been lost would be missed by now.
    tokio::time::sleep(Duration::from_secs(5)).await;
    for ((view, tenure), version) in all.iter().zip(versions) {
        assert_eq!((&view.borrow().version, tenure.losses()), (&version, 0));
    }
    stop.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_schema_is_refused_and_a_server_that_has_lost_its_data_is_not_believed() {
    let mut server = Server::start(&Options::default());
    let mut redis = redis::Client::open(server.url()).unwrap().get_connection().unwrap();
    let _: () = redis.set("t:schema", "99 0123456789abcdef").unwrap();
    let place = at(&server.url(), false);
    let refused = RedisCalls::open(&place, "t", None).await.err().unwrap().to_string();
    assert!(refused.contains("`99`"), "{refused}");

    let mark = format!("1 {:016x}", 7);
    let _: () = redis.set("t:schema", mark).unwrap();
    let a = Asker::new(&place, "a:1").await;
    assert_eq!(a.told("renew").await.2, ["a:1"]);
    server.stop();
    server.resume();
    let (id, record) = (format!("{:016x}", a.run), a.record.clone());
    let call = RegistryCall {
        what: "renew",
        id,
        record,
        load: String::new(),
        lease: LEASE,
        known: String::new(),
        most: 4,
    };
    for _ in 0..5 {
        assert!(a.calls.registry(&call).await.is_err(), "an empty list would move every room");
    }
}
