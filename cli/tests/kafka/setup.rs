//! A process that writes to a Kafka, and what is looked at in both.

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant},
};

use edgeway_testkafka::Kafka;

use crate::support::{Process, Up, events::Recorded, get, write};

pub const ANY: &str = "127.0.0.1:0";
/// Above what a busy machine takes, from Kafka's return to the last event.
const PATIENCE: Duration = Duration::from_secs(180);

/// More keys of `[events.kafka]` may follow.
pub fn configure(dir: &Path, kafka: &Kafka, topic: &str, more: &str) {
    let text = format!(
        "[events]\nsink = \"kafka\"\nmessages = [\"signal\"]\n[events.kafka]\nbrokers = [\"{}\"]\n\
         topic = \"{topic}\"\n{more}\n",
        kafka.address()
    );
    write(dir, "edgeway.toml", &text);
}

pub fn up(dir: &Path) -> Up {
    let args = ["up", "--config", "edgeway.toml", "--quic", ANY, "--tcp", ANY, "--http", ANY];
    Up::ready(Process::spawn(dir, &args))
}

/// The sum of a metric; of one of its series, where the name goes on with labels.
pub fn value(up: &Up, name: &str) -> u64 {
    let metrics = get(&up.http, "/metrics");
    let lines = metrics.lines().filter(|line| line.starts_with(name));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u64).sum()
}

pub async fn until(what: &str, up: &Up, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "not {what}: {}", get(&up.http, "/metrics"));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Kafka has all that was recorded and not dropped.
pub async fn all_delivered(up: &Up) {
    let done = || {
        let recorded = value(up, "edgeway_events_recorded_total");
        let gone = value(up, "edgeway_events_dropped_total");
        value(up, "edgeway_events_written_total") + gone == recorded
    };
    until("all delivered", up, done).await;
}

pub fn consume(kafka: &Kafka, topic: &str) -> Vec<Recorded> {
    let messages = kafka.consume(topic);
    let mut partitions = BTreeMap::new();
    let read = messages.into_iter().map(|message| {
        let event = Recorded::parse(&message.value);
        assert_eq!(event.text("user"), message.key);
        let partition = *partitions.entry(message.key).or_insert(message.partition);
        assert_eq!(partition, message.partition, "a user's events are in one partition");
        event
    });
    read.collect()
}

/// What each user did, in the order in which Kafka has it.
pub fn by_user(events: &[Recorded]) -> BTreeMap<String, Vec<String>> {
    let mut users: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for event in events {
        users.entry(event.text("user").to_owned()).or_default().push(event.what());
    }
    users
}

/// Of a text whose length is a multiple of three.
pub fn base64(text: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let three = |chunk: &[u8]| {
        let bits = chunk.iter().fold(0, |bits, byte| bits << 8 | usize::from(*byte));
        [18, 12, 6, 0].map(|shift| char::from(DIGITS[bits >> shift & 63]))
    };
    text.as_bytes().chunks(3).flat_map(three).collect()
}
