//! What joins and messages cost the store, by its own account.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;
#[path = "common/turns.rs"]
mod turns;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::{Duration, Instant},
};

use common::{Event, Gateway, Running, accepted, message, raw, signal};
use edgeway_backend::config::{RawConfig, RawRedis, RawRooms, RawStore};
use edgeway_proto::{AckStatus, Class, Frame, Text, frame::Join};
use edgeway_testredis::{Cluster, Options, Server};
use tempfile::TempDir;
use turns::Turns;

/// Rooms that one user joins at once.
const ROOMS: usize = 300;

async fn process(redis: RawRedis) -> (Running, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let store = RawStore { engine: Some("redis".to_owned()), redis };
    let rooms = RawRooms { chat_per_second: Some(0), ..RawRooms::default() };
    let raw = RawConfig { store, rooms, ..raw(dir.path()) };
    (Running::start(raw, "access,room,peer").await, dir)
}

fn at(url: String) -> RawRedis {
    RawRedis { url: Some(url), ..RawRedis::default() }
}

/// Joins all rooms in one go; the group of each.
async fn join_all(gateway: &mut Gateway, session: u64) -> Vec<u64> {
    let first = gateway.request();
    let joins = (0..ROOMS).map(|n| {
        let room = Text::from(format!("room-{n}"));
        Join { request: first + n as u64, room, ..Join::default() }.into()
    });
    let joins: Vec<Frame> = joins.collect();
    gateway.frames(session, Class::Signal, joins);
    let mut groups = HashMap::new();
    while groups.len() < ROOMS {
        let joined = gateway.expect_frame(session, "answer to a join", |frame| match frame {
            Frame::Joined(joined) => Some(joined.clone()),
            Frame::Error(error) => panic!("{error:?}"),
            _ => None,
        });
        let joined = joined.await;
        groups.insert(joined.request - first, joined.group);
    }
    (0..ROOMS as u64).map(|n| groups[&n]).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_joins_300_rooms_in_a_few_round_trips_and_in_none_where_they_are_known() {
    let server = Server::start(&Options::default());
    let way = Turns::before(server.port()).await;
    let (backend, _dir) = process(at(way.url())).await;
    let mut gateway = Gateway::dial(backend.addr, 1).await;
    gateway.open(1, "chat", "ada", "phone", 1);
    let (made, groups) = way.count(join_all(&mut gateway, 1)).await;
    assert!((1..=5).contains(&made), "{made} round trips to make them");
    gateway.open(2, "chat", "bob", "phone", 1);
    let (warm, again) = way.count(join_all(&mut gateway, 2)).await;
    assert_eq!((warm, &again), (0, &groups), "all is in memory");
    way.directory().await;

    // Some have more history than is read in one go.
    for group in &groups[..3] {
        for id in 1..=100 {
            accepted(&gateway.send(1, signal(*group, id, "page")).await);
        }
    }
    backend.stop().await;
    let (backend, _dir) = process(at(way.url())).await;
    let mut gateway = Gateway::dial(backend.addr, 2).await;
    gateway.open(1, "chat", "ada", "phone", 1);
    let (cold, again) = way.count(join_all(&mut gateway, 1)).await;
    assert!((1..=5).contains(&cold), "{cold} round trips to take them over");
    assert_eq!(again, groups);
    assert_eq!(accepted(&gateway.send(1, signal(groups[0], 101, "on")).await).epoch, 2);
    backend.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_cluster_300_rooms_are_joined_in_one_go_as_well() {
    let cluster = Cluster::start(&Options::default());
    let mut urls = cluster.urls();
    let url = Some(urls.remove(0));
    let redis = RawRedis { url, nodes: urls, cluster: Some(true), ..RawRedis::default() };
    let mut before = None;
    for run in 1..=2 {
        let (backend, _dir) = process(redis.clone()).await;
        let mut gateway = Gateway::dial(backend.addr, run).await;
        gateway.open(1, "chat", "ada", "phone", 1);
        let groups = join_all(&mut gateway, 1).await;
        assert_eq!(*before.get_or_insert(groups.clone()), groups);
        backend.stop().await;
    }
}

/// How often each command was called so far, those inside of scripts included.
fn calls(server: &Server) -> BTreeMap<String, u64> {
    let mut connection = redis::Client::open(server.url()).unwrap().get_connection().unwrap();
    let told: String = redis::cmd("INFO").arg("commandstats").query(&mut connection).unwrap();
    let lines = told.lines().filter_map(|line| {
        let (name, figures) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        Some((name.to_owned(), figures.split(',').next()?.parse().ok()?))
    });
    lines.collect()
}

/// How many lines there are of something in the directory.
fn lines_of(server: &Server, key: &str) -> u64 {
    let mut connection = redis::Client::open(server.url()).unwrap().get_connection().unwrap();
    redis::cmd("ZCARD").arg(key).query(&mut connection).unwrap()
}

/// What was called since.
fn since(server: &Server, before: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let mut calls = calls(server);
    for (name, count) in &mut calls {
        *count -= before.get(name).copied().unwrap_or_default();
    }
    // These are of the look itself, and of its connection.
    let look = |name: &str| {
        ["info", "client", "hello", "select", "ping"].iter().any(|l| name.starts_with(l))
    };
    calls.retain(|name, count| *count > 0 && !look(name));
    calls
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_chat_messages_in_a_warm_room_ask_redis_for_batched_appends_and_nothing_else()
{
    const MESSAGES: u64 = 10_000;
    const TOGETHER: u64 = 500;
    const BATCHES: u64 = MESSAGES / TOGETHER;
    let server = Server::start(&Options::default());
    let (backend, _dir) = process(at(server.url())).await;
    let mut gateway = Gateway::dial(backend.addr, 1).await;
    gateway.open(1, "chat", "ada", "phone", 1);
    let group = gateway.join(1, "maths").await.group;
    accepted(&gateway.send(1, message(group, Class::Chat, 1, "hello")).await);
    while calls(&server).get("xadd").is_none_or(|calls| *calls < 4) {
        // Three seals and the first message.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // The directory is told behind that she has come.
    for lines in ["edgeway:{r:chat:maths}:members", "edgeway:{u:ada}:places/phone/chat"] {
        while lines_of(&server, lines) != 1 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    let (before, began) = (calls(&server), Instant::now());
    for batch in 0..BATCHES {
        let first = 2 + batch * TOGETHER;
        let ids = first..first + TOGETHER;
        gateway.frames(1, Class::Chat, ids.map(|id| message(group, Class::Chat, id, "hi").into()));
        for _ in 0..TOGETHER {
            let ack = gateway.expect_frame(1, "ack", |frame| match frame {
                Frame::Ack(ack) => Some(ack.clone()),
                _ => None,
            });
            assert_eq!(ack.await.status, AckStatus::Accepted);
        }
    }
    while since(&server, &before).get("xadd").is_none_or(|calls| *calls < MESSAGES) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut calls = since(&server, &before);
    // A process keeps itself in the registry meanwhile, by one call each time, whose script alone asks for the time
    // and works on a sorted set.
    let renewals = calls.get("time").copied().unwrap_or(0);
    // And its two listings in the directory, by a call in 20 s each, whose script alone reads several fields.
    let listings = calls.get("hmget").copied().unwrap_or(0);
    let rounds = began.elapsed().as_secs() / 20 + 1;
    assert!(listings <= 2 * rounds, "{listings} writes of listings in {rounds} rounds");
    // And it looks twice a second whether there are rules for all rooms, in any of four places.
    let looks = u64::try_from(began.elapsed().as_millis() / 500).unwrap() + 2;
    let rules = calls.get("get").copied().unwrap_or(0);
    assert!(rules <= 4 * looks, "{rules} in {looks} looks");
    let beside = ["get", "time", "hmget", "pexpire", "pttl", "sadd"];
    calls.retain(|name, _| !beside.contains(&&**name) && !name.starts_with('z'));
    // The shard stores chat at most once in this time.
    let commits = u64::try_from(began.elapsed().as_millis() / 20).unwrap() + 1;
    let appends = calls["evalsha"] - renewals - listings;
    assert!(appends <= commits.min(MESSAGES / 4), "{appends} appends, {commits} at most");
    // What the script of an append does: it looks at the log's end, and adds each message.
    assert_eq!(calls["xadd"], MESSAGES);
    assert_eq!(calls.keys().collect::<Vec<_>>(), ["evalsha", "hget", "hset", "xadd"]);
    backend.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_joins_300_rooms_is_told_to_each_of_them_once() {
    let dir = tempfile::tempdir().unwrap();
    let backend = Running::all(dir.path()).await;
    let mut gateway = Gateway::dial(backend.addr, 1).await;
    for session in 1..=3 {
        gateway.open(session, "chat", &format!("user-{session}"), "phone", 1);
        join_all(&mut gateway, session).await;
    }
    // Each room tells the three of them, in one or two differences.
    let mut members = HashMap::new();
    while members.len() < ROOMS || members.values().any(|members| *members < 3) {
        let (group, told) = gateway.expect("presence", presence).await;
        members.insert(group, told);
    }
    gateway.open(4, "chat", "teacher", "phone", 1);
    join_all(&mut gateway, 4).await;
    let mut told = HashSet::new();
    while told.len() < ROOMS {
        let (group, members) = gateway.expect("presence", presence).await;
        assert_eq!(members, 4);
        assert!(told.insert(group), "twice");
    }
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    gateway.open(5, "chat", "last", "phone", 1);
    gateway.join(5, "elsewhere").await;
    assert_eq!(gateway.presences_seen(), 0, "nothing is told twice");
    backend.stop().await;
}

/// Which group, and how many members it is told to have.
fn presence(event: &Event) -> Option<(u64, u64)> {
    let Event::Publish { group, count: 0, frames, .. } = event else { return None };
    let last = frames.iter().rev().find_map(|frame| match frame {
        Frame::Presence(presence) => Some(presence.members),
        _ => None,
    });
    last.map(|members| (*group, members))
}
