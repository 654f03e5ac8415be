//! Append throughput and latency of the embedded store, for both durabilities:
//! `cargo run --release -p edgeway-backend --example store_append [tasks] [seconds] [directory]`.
//! Each task appends 200-byte messages to a log of its own and waits for each answer.
#![allow(clippy::print_stdout, clippy::unwrap_used)] // a program for a terminal

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use edgeway_backend::store::{
    Append, Durability, Embedded, EmbeddedOptions, LogId, Origin, Record, Store,
};
use edgeway_proto::{Class, Seq};

#[tokio::main]
async fn main() {
    let mut args = std::env::args().skip(1);
    let tasks = args.next().map_or(64, |n| n.parse().unwrap());
    let time = Duration::from_secs(args.next().map_or(3, |n| n.parse().unwrap()));
    let dir = args.next().map_or_else(std::env::temp_dir, PathBuf::from);
    for durability in [Durability::Process, Durability::Disk] {
        let dir = dir.join(format!("store_append-{}-{durability:?}", std::process::id()));
        let options = EmbeddedOptions { durability, ..EmbeddedOptions::default() };
        let store = Arc::new(Embedded::open(&dir, options).unwrap());
        let started = Instant::now();
        let running = (0..tasks).map(|group| tokio::spawn(append(store.clone(), group, time)));
        let mut latencies = Vec::new();
        for task in running.collect::<Vec<_>>() {
            latencies.extend(task.await.unwrap());
        }
        let elapsed = started.elapsed();
        latencies.sort_unstable();
        let at = |permille: usize| latencies[(latencies.len() - 1) * permille / 1000];
        println!(
            "{durability:?}: {tasks} tasks, {:.0} appends/s, p50 {:?}, p99 {:?}, max {:?}",
            latencies.len() as f64 / elapsed.as_secs_f64(),
            at(500),
            at(990),
            at(1000),
        );
        drop(store);
        std::fs::remove_dir_all(dir).unwrap();
    }
}

async fn append(store: Arc<Embedded>, group: u64, time: Duration) -> Vec<Duration> {
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
