//! Clusters of processes that find each other by the registry: owners that are paused, killed, added and
//! removed, and a Redis that is away, all under load.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]
// What the clients were told, where a test fails; and counts, which are small.
#![allow(clippy::print_stderr, clippy::cast_possible_truncation)]

mod cluster;
mod push;
#[path = "../support/mod.rs"]
mod support;
mod talk;

use std::time::{Duration, Instant};

use cluster::Cluster;
use redis::Commands;
use talk::Talk;

const ROOM: &str = "lesson";

async fn pause(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

/// Waits until another instance than this one has the only room.
fn taken_over(cluster: &Cluster, from: &str) {
    cluster.wait_until("another owner", |cluster| cluster.rooms(from).values().sum::<usize>() == 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_that_was_paused_beyond_its_lease_goes_on_without_a_trace() {
    let cluster = Cluster::start(3);
    let talk = Talk::start(&cluster, 8, &[ROOM]).await;
    pause(2).await;
    let epoch = tokio::task::block_in_place(|| cluster.wait_listed(ROOM, 8, 0));
    let first = cluster.owner();
    cluster.node(&first).process.signal("STOP");
    tokio::task::block_in_place(|| taken_over(&cluster, &first));
    // Time for all to be with the second owner, and to have said something there.
    pause(2).await;
    tokio::task::block_in_place(|| cluster.wait_listed(ROOM, 8, epoch));
    cluster.node(&first).process.signal("CONT");
    pause(4).await;
    // What it had to say of its members, it says in vain.
    tokio::task::block_in_place(|| cluster.wait_listed(ROOM, 8, epoch));
    let whole = talk.end().await;
    whole.check();
    assert!(whole.epochs().len() > 1, "{:?}", whole.epochs());
    let logs = cluster.end();
    assert!(logs[&first].contains("was out of the registry"), "{}", logs[&first]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_that_is_killed_is_followed_by_another_one() {
    let mut cluster = Cluster::start(3);
    let talk = Talk::start(&cluster, 8, &[ROOM]).await;
    pause(2).await;
    let epoch = tokio::task::block_in_place(|| cluster.wait_listed(ROOM, 8, 0));
    let first = cluster.owner();
    let killed = cluster.take(&first);
    killed.process.signal("KILL");
    tokio::task::block_in_place(|| taken_over(&cluster, &first));
    tokio::task::block_in_place(|| cluster.wait_listed(ROOM, 8, epoch));
    pause(3).await;
    let whole = talk.end().await;
    whole.check();
    assert!(whole.epochs().len() > 1, "{:?}", whole.epochs());
    cluster.end();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_that_come_and_go_take_rooms_over_and_leave_them() {
    const ROOMS: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];
    // Of eight rooms alone none may fall to the third instance: one run in 25.
    const SILENT: usize = 32;
    let mut cluster = Cluster::start(2);
    // The gateway whose config lists the rooms must know of the third one: gateways dial each owner.
    let listed = std::fs::read_to_string(cluster.dir.path().join("listed.toml")).unwrap();
    let all = listed.lines().map(|line| {
        if line.starts_with("room = ") {
            "room = [\"registry\"]".to_owned()
        } else {
            line.to_owned()
        }
    });
    let all: Vec<_> = all.collect();
    support::write(cluster.dir.path(), "listed.toml", &all.join("\n"));
    let talk = Talk::start(&cluster, 4, &ROOMS).await;
    let (silent, _events) = cluster.connect(4).await;
    for n in 0..SILENT {
        silent.join(&format!("silent-{n}")).await.unwrap();
    }
    let all_rooms = ROOMS.len() + SILENT;
    pause(2).await;
    let before = cluster.rooms("");
    cluster.add_room(3);
    tokio::task::block_in_place(|| {
        cluster.wait_until("the third has rooms", |cluster| cluster.rooms("")["room-3"] > 0);
        cluster.wait_until("each room is somewhere once", |cluster| {
            cluster.rooms("").values().sum::<usize>() == all_rooms
        });
    });
    let with_three = cluster.rooms("");
    for name in ["room-1", "room-2"] {
        assert!(with_three[name] <= before[name], "{before:?} {with_three:?}: only to the new one");
    }
    pause(2).await;
    let first = cluster.take("room-1");
    let log = tokio::task::block_in_place(|| first.end());
    tokio::task::block_in_place(|| {
        cluster.wait_until("the others have its rooms", |cluster| {
            cluster.rooms("").values().sum::<usize>() == all_rooms
        });
    });
    pause(2).await;
    tokio::task::block_in_place(|| {
        ROOMS.iter().for_each(|room| _ = cluster.wait_listed(room, 4, 0));
    });
    talk.end().await.check();
    assert!(
        !log.contains("another owner has taken the room over"),
        "handed over, not fenced: {log}"
    );
    cluster.end();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_redis_is_away_chat_flows_acks_of_signals_wait_and_nothing_acked_is_lost() {
    const AWAY: u64 = 10;
    let mut cluster = Cluster::start(2);
    let talk = Talk::start(&cluster, 4, &[ROOM]).await;
    pause(2).await;
    // First it hangs, then it is killed and comes back with what it had.
    let mut away = Vec::new();
    for killed in [false, true] {
        let from = Instant::now();
        if killed {
            cluster.redis.stop()
        } else {
            cluster.redis.halt()
        }
        pause(AWAY).await;
        away.push((from, Instant::now()));
        if killed {
            cluster.redis.resume()
        } else {
            cluster.redis.go_on()
        }
        // Longer than a lease, so that whoever was taken for dead is missed.
        pause(6).await;
    }
    let whole = talk.end().await;
    whole.check();
    for (from, to) in away {
        let from = from + Duration::from_secs(1);
        let acked = whole.said.signals.iter().filter(|one| from <= one.at && one.at < to).count();
        assert_eq!(acked, 0, "an ack that lies");
        // 4 members hear 4, of which each says 20 a second; a tenth of that, on a busy machine.
        let chat = whole.chat_between(from, to);
        assert!(chat > 4 * 4 * 20 * 9 / 10, "{chat} messages of chat");
    }
    assert_eq!(whole.epochs().len(), 1, "nobody has lost its room: {:?}", whole.epochs());

    // What was acked is in the history, where its ack said.
    let mut redis = redis::Client::open(cluster.redis.url()).unwrap().get_connection().unwrap();
    let group: u64 = redis.get(format!("edgeway:room:chat:{ROOM}")).unwrap();
    let log = format!("edgeway:{{g:{group}}}:signal");
    let range = redis::cmd("XRANGE").arg(&log).arg("-").arg("+").query(&mut redis);
    type Entry = (String, Vec<(String, Vec<u8>)>);
    let entries: Vec<Entry> = range.unwrap();
    assert!(!whole.said.signals.is_empty());
    for one in &whole.said.signals {
        let at = entries.iter().filter(|(_, fields)| {
            fields.iter().any(|(_, record)| contains(record, one.text.as_bytes()))
        });
        let at: Vec<_> = at.map(|(id, _)| id.as_str()).collect();
        assert_eq!(at.len(), 1, "{} is stored at {at:?}", one.text);
        if one.seq.epoch != 0 {
            assert_eq!(at[0], one.seq.to_string(), "{}", one.text);
        }
    }
    cluster.end();
}

fn contains(bytes: &[u8], text: &[u8]) -> bool {
    bytes.windows(text.len()).any(|part| part == text)
}
