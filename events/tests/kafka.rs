//! The sink "kafka" with a real Kafka, under load, through its crash and its hanging. (The same with clients and a
//! process, and for 30 s, is in `cli/tests/kafka.rs`.)

#![cfg(feature = "kafka")]
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    collections::BTreeMap,
    io::Write,
    thread::sleep,
    time::{Duration, Instant},
};

use edgeway_events::{
    Event, Events, What, Writer,
    config::{Config, Kafka as To, Sink},
};
use edgeway_testkafka::{Kafka, Program};
use serde_json::Value;

const USERS: u64 = 5;
/// Above what a busy machine takes.
const PATIENCE: Duration = Duration::from_secs(120);

fn kafka() -> Option<&'static Program> {
    Kafka::find()
        .inspect_err(|why| {
            // Not by a macro of the standard library: the harness would hide it.
            std::io::stderr().write_all(format!("SKIPPED Kafka: {why}\n").as_bytes()).unwrap();
        })
        .ok()
}

fn start(dir: &std::path::Path, kafka: &Kafka) -> (Events, Writer) {
    // Shorter than Kafka hangs: what it was sent is sent again then, and it has both.
    let timeouts = ["socket.timeout.ms", "request.timeout.ms"];
    let sink = Sink::Kafka(To {
        brokers: vec![kafka.address()],
        topic: "events".to_owned(),
        spill_bytes: 64 << 20,
        properties: timeouts.map(|name| (name.to_owned(), "1500".to_owned())).into(),
    });
    let (dir, node, sync) = (dir.to_owned(), "node".to_owned(), Duration::from_secs(1));
    Events::start(Config { sink, dir, node, messages: [false; 3], queue_bytes: 8 << 20, sync })
        .unwrap()
}

/// Records events for so long; gives how many there are now. None of it waits.
fn load(events: &Events, mut n: u64, time: Duration) -> u64 {
    let start = Instant::now();
    while start.elapsed() < time {
        for _ in 0..20 {
            n += 1;
            let what = What::Online { device: n.to_string() };
            events.record(Event { user: format!("user-{}", n % USERS), what });
        }
        sleep(Duration::from_millis(20));
    }
    n
}

/// All that Kafka has, once there are as many.
#[track_caller]
fn consume(kafka: &Kafka, n: u64) -> Vec<Value> {
    let start = Instant::now();
    loop {
        let messages = kafka.consume("events");
        if messages.len() as u64 >= n || start.elapsed() > PATIENCE {
            let value = |m: &edgeway_testkafka::Message| -> Value {
                serde_json::from_str(&m.value).unwrap()
            };
            return messages.iter().map(value).collect();
        }
        sleep(Duration::from_millis(500));
    }
}

/// Each once, and those of a user in order.
#[track_caller]
fn check(values: &[Value], n: u64) {
    let mut last: BTreeMap<&str, u64> = BTreeMap::new();
    for value in values {
        let number = value["device"].as_str().unwrap().parse().unwrap();
        let before = last.insert(value["user"].as_str().unwrap(), number);
        assert!(before.is_none_or(|before| before + USERS == number), "{before:?}, then {value}");
    }
    assert_eq!(values.len() as u64, n);
    assert_eq!(last.len() as u64, USERS);
}

#[test]
fn through_a_crash_and_a_pause_of_kafka_each_event_comes_once_and_in_order() {
    let Some(program) = kafka() else { return };
    let mut kafka = program.start(&[]);
    let dir = tempfile::tempdir().unwrap();
    let (events, writer) = start(dir.path(), &kafka);
    let mut n = load(&events, 0, Duration::from_secs(2));
    kafka.stop();
    n = load(&events, n, Duration::from_secs(10));
    kafka.resume();
    n = load(&events, n, Duration::from_secs(2));
    kafka.halt();
    n = load(&events, n, Duration::from_secs(5));
    kafka.go_on();
    n = load(&events, n, Duration::from_secs(1));
    check(&consume(&kafka, n), n);
    writer.stop();
}

#[test]
fn a_kafka_that_is_gone_from_start_to_end_gets_all_from_the_next_process() {
    let Some(program) = kafka() else { return };
    let mut kafka = program.start(&[]);
    kafka.stop();
    let dir = tempfile::tempdir().unwrap();
    let (events, writer) = start(dir.path(), &kafka);
    let n = load(&events, 0, Duration::from_millis(200));
    writer.stop();
    kafka.resume();
    let (events, writer) = start(dir.path(), &kafka);
    let n = load(&events, n, Duration::from_millis(200));
    writer.stop();
    check(&consume(&kafka, n), n);
}
