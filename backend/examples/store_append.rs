//! Append throughput and latency of the embedded store, for both durabilities, or of one on Redis:
//! `cargo run --release -p edgeway-backend --example store_append [tasks] [seconds] [directory or URL]`.
//! Each task appends 200-byte messages to a log of its own and waits for each answer.
#![allow(clippy::print_stdout, clippy::unwrap_used)] // a program for a terminal

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use edgeway_backend::store::{
    Append, Durability, Embedded, EmbeddedOptions, LogId, Origin, Record, Redis, RedisOptions,
    RedisServer, RedisUrl, Store,
};
use edgeway_proto::{Class, Seq};

#[tokio::main]
async fn main() {
    let mut args = std::env::args().skip(1);
    let tasks = args.next().map_or(64, |n| n.parse().unwrap());
    let time = Duration::from_secs(args.next().map_or(3, |n| n.parse().unwrap()));
    let place = args.next();
    if let Some(Ok(url)) = place.as_deref().map(RedisUrl::parse) {
        let options = RedisOptions::new(RedisServer { urls: vec![url.clone()], cluster: false });
        let store = Arc::new(Redis::open(options).await.unwrap());
        return measure(&url.to_string(), store, tasks, time).await;
    }
    let dir = place.map_or_else(std::env::temp_dir, PathBuf::from);
    for durability in [Durability::Process, Durability::Disk] {
        let dir = dir.join(format!("store_append-{}-{durability:?}", std::process::id()));
        let options = EmbeddedOptions { durability, ..EmbeddedOptions::default() };
        let store = Arc::new(Embedded::open(&dir, options).unwrap());
        measure(&format!("{durability:?}"), store, tasks, time).await;
        std::fs::remove_dir_all(dir).unwrap();
    }
}

async fn measure(name: &str, store: Arc<impl Store>, tasks: u64, time: Duration) {
    let started = Instant::now();
    let running = (0..tasks).map(|n| tokio::spawn(append(store.clone(), n, time)));
    let mut latencies = Vec::new();
    for task in running.collect::<Vec<_>>() {
        latencies.extend(task.await.unwrap());
    }
    let elapsed = started.elapsed();
    latencies.sort_unstable();
    let at = |permille: usize| latencies[(latencies.len() - 1) * permille / 1000];
    println!(
        "{name}: {tasks} tasks, {:.0} appends/s, p50 {:?}, p99 {:?}, max {:?}",
        latencies.len() as f64 / elapsed.as_secs_f64(),
        at(500),
        at(990),
        at(1000),
    );
}

async fn append(store: Arc<impl Store>, n: u64, time: Duration) -> Vec<Duration> {
    // A room of its own, new on servers that keep what was before.
    let room = format!("{} {n}", std::process::id());
    let group = store.group(&room, true).await.unwrap().unwrap();
    let (started, mut latencies) = (Instant::now(), Vec::new());
    while started.elapsed() < time {
        let counter = latencies.len() as u64 + 1;
        let record = Record {
            seq: Seq::new(1, counter),
            origin: Origin { device: "ann/phone".to_owned(), id: counter },
            time_ms: counter,
            expires_ms: 0,
            key: String::new(),
            frame: Bytes::from_static(&[7; 200]),
        };
        let asked = Instant::now();
        let log = LogId { group, class: Class::Signal };
        store.append(vec![Append { log, record }]).await.unwrap();
        latencies.push(asked.elapsed());
    }
    latencies
}
