//! Events in a real Kafka, as a consumer that knows nothing of Edgeway reads them, against what clients did.
//! Where there is no Java, or no Maven to fetch Kafka by, the tests are skipped and say so.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use edgeway_client::{Bytes, Client};
use edgeway_testkafka::{Kafka, Program};
use support::{
    Process, Up,
    events::{Recorded, is_whole},
    get,
    talk::{connect, drain, within},
    write,
};

const ANY: &str = "127.0.0.1:0";
/// Above what a busy machine takes, from Kafka's return to the last event.
const PATIENCE: Duration = Duration::from_secs(180);
/// How long Kafka is away.
const AWAY: Duration = Duration::from_secs(30);
const USERS: usize = 4;

fn kafka(test: &str) -> Option<&'static Program> {
    match Kafka::find() {
        Ok(program) => Some(program),
        Err(why) => {
            // Not by a macro of the standard library: the harness would hide it.
            let told = format!("SKIPPED {test}: {why}\n");
            std::io::stderr().write_all(told.as_bytes()).unwrap();
            None
        }
    }
}

fn configure(dir: &Path, kafka: &Kafka, topic: &str) {
    let text = format!(
        "[events]\nsink = \"kafka\"\nmessages = [\"signal\"]\n[events.kafka]\nbrokers = [\"{}\"]\n\
         topic = \"{topic}\"\n",
        kafka.address()
    );
    write(dir, "edgeway.toml", &text);
}

fn up(dir: &Path) -> Up {
    let args = ["up", "--config", "edgeway.toml", "--quic", ANY, "--tcp", ANY, "--http", ANY];
    Up::ready(Process::spawn(dir, &args))
}

/// The sum of a metric.
fn value(up: &Up, name: &str) -> u64 {
    let metrics = get(&up.http, "/metrics");
    let lines = metrics.lines().filter(|line| line.starts_with(name));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u64).sum()
}

async fn until(what: &str, up: &Up, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "not {what}: {}", get(&up.http, "/metrics"));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Kafka has all that was recorded.
async fn all_delivered(up: &Up) {
    let done = || {
        let recorded = value(up, "edgeway_events_recorded_total");
        let gone = value(up, "edgeway_events_dropped_total");
        value(up, "edgeway_events_written_total") + gone == recorded
    };
    until("all delivered", up, done).await;
}

fn consume(kafka: &Kafka, topic: &str) -> Vec<Recorded> {
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
fn by_user(events: &[Recorded]) -> BTreeMap<String, Vec<String>> {
    let mut users: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for event in events {
        users.entry(event.text("user").to_owned()).or_default().push(event.what());
    }
    users
}

/// Comes, joins, sends and leaves, until told to stop; gives what it did.
async fn live(client: Client, stop: Arc<AtomicBool>, acked: Arc<AtomicU64>) -> Vec<String> {
    let mut did = vec![format!("online {}", client.device())];
    let mut n = 0;
    while !stop.load(Ordering::Relaxed) {
        let name = format!("lesson-{}", n % 3);
        let room = within(client.join(&name)).await.unwrap();
        did.push(format!("join {name}"));
        for _ in 0..10 {
            // Two digits a byte, so that base64 is easily made.
            let payload = format!("{n:06}");
            within(room.send_signal(Bytes::from(payload.clone()))).await.unwrap();
            did.push(format!("signal {}", base64(&payload)));
            n += 1;
            acked.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        within(room.leave()).await.unwrap();
        did.push(format!("leave {name} left"));
    }
    did.push(format!("offline {}", client.device()));
    within(client.close()).await;
    did
}

/// Of a text whose length is a multiple of three.
fn base64(text: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let three = |chunk: &[u8]| {
        let bits = chunk.iter().fold(0, |bits, byte| bits << 8 | usize::from(*byte));
        [18, 12, 6, 0].map(|shift| char::from(DIGITS[bits >> shift & 63]))
    };
    text.as_bytes().chunks(3).flat_map(three).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn kafka_stopped_for_30_s_under_load_is_noticed_by_nobody_and_gets_each_event_once_in_order()
{
    let Some(program) = kafka("Kafka stopped under load") else { return };
    let mut kafka = program.start(&[]);
    let dir = tempfile::tempdir().unwrap();
    configure(dir.path(), &kafka, "lessons");
    let up = up(dir.path());
    let (stop, acked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut users = Vec::new();
    for n in 0..USERS {
        let addr = if n % 2 == 0 { &up.quic } else { &up.tcp };
        let (client, events) = connect(dir.path(), addr, n % 2 == 0, n).await;
        let life = tokio::spawn(live(client, Arc::clone(&stop), Arc::clone(&acked)));
        drain(events);
        users.push(life);
    }
    until("something in Kafka", &up, || value(&up, "edgeway_events_written_total") > 100).await;

    kafka.stop();
    let (start, before) = (Instant::now(), acked.load(Ordering::Relaxed));
    let (mut last, mut longest) = (Instant::now(), Duration::ZERO);
    let mut seen = before;
    // The scenario, and no wait for something: so long it is away.
    while start.elapsed() < AWAY {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let now = acked.load(Ordering::Relaxed);
        if now > seen {
            longest = longest.max(last.elapsed());
            (seen, last) = (now, Instant::now());
        }
    }
    let while_away = acked.load(Ordering::Relaxed) - before;
    assert_eq!(value(&up, "edgeway_events_kafka_away"), 1);
    assert!(value(&up, "edgeway_events_spill_bytes") > 0);
    // Each of them went on, at its pace: a signal in 20 ms and what its ack takes.
    assert!(while_away > USERS as u64 * 30, "{while_away} acks in {AWAY:?}");
    assert!(longest < Duration::from_secs(10), "nobody had an ack for {longest:?}");

    kafka.resume();
    until("Kafka is back", &up, || value(&up, "edgeway_events_kafka_away") == 0).await;
    stop.store(true, Ordering::Relaxed);
    let mut did = BTreeMap::new();
    for (n, life) in users.into_iter().enumerate() {
        did.insert(format!("user-{n}"), life.await.unwrap());
    }
    let all: usize = did.values().map(Vec::len).sum();
    until("all recorded", &up, || value(&up, "edgeway_events_recorded_total") == all as u64).await;
    all_delivered(&up).await;
    assert_eq!(value(&up, "edgeway_events_dropped_total"), 0);

    let events = consume(&kafka, "lessons");
    let told = format!(
        "{all} events, {while_away} signals while Kafka was away, at most {longest:?} without an ack, {} spilled\n",
        value(&up, "edgeway_events_spilled_total")
    );
    std::io::stderr().write_all(told.as_bytes()).unwrap();
    assert_eq!(events.len(), all, "each once");
    is_whole(&events);
    assert!(by_user(&events) == did, "another order, or other events");
    up.process.signal("TERM");
    assert_eq!(up.process.finish().0, 0);
}

/// Text that cannot be compressed by much.
fn noise(len: usize) -> String {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        char::from(b'!' + u8::try_from(state >> 24).unwrap() % 90)
    };
    (0..len).map(|_| next()).collect()
}

/// Sends signals, one after the other.
async fn send(client: &Client, room: &str, payloads: &[&str]) {
    let room = within(client.join(room)).await.unwrap();
    for payload in payloads {
        within(room.send_signal(Bytes::from((*payload).to_owned()))).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kafka_gone_at_the_start_or_hanging_delays_events_and_nothing_else() {
    let Some(program) = kafka("Kafka gone at the start") else { return };
    let mut kafka = program.start(&[]);
    kafka.stop();
    let dir = tempfile::tempdir().unwrap();
    configure(dir.path(), &kafka, "lessons");

    // Gone for the whole life of a process.
    let first = up(dir.path());
    let (client, _events) = connect(dir.path(), &first.quic, true, 0).await;
    send(&client, "lesson", &["one", "two"]).await;
    until("away", &first, || value(&first, "edgeway_events_kafka_away") == 1).await;
    let recorded = value(&first, "edgeway_events_recorded_total");
    assert_eq!((recorded, value(&first, "edgeway_events_written_total")), (4, 0));
    within(client.close()).await;
    until("offline", &first, || value(&first, "edgeway_events_recorded_total") == 6).await;
    first.process.signal("TERM");
    let (code, _, told) = first.process.finish();
    assert_eq!(code, 0, "{told}");
    assert!(told.contains("Kafka is away"), "{told}");

    // The next one delivers what the first one left.
    kafka.resume();
    let second = up(dir.path());
    until("delivered", &second, || value(&second, "edgeway_events_written_total") == 6).await;

    // It hangs: takes connections, and answers nothing.
    let (client, _events) = connect(dir.path(), &second.quic, true, 0).await;
    send(&client, "lesson", &["thr", "for"]).await;
    kafka.halt();
    send(&client, "lesson", &["fiv", "six"]).await;
    within(client.close()).await;
    let recorded = || value(&second, "edgeway_events_recorded_total") == 8;
    until("offline", &second, recorded).await;
    kafka.go_on();
    until("delivered", &second, || value(&second, "edgeway_events_written_total") == 14).await;

    let events = consume(&kafka, "lessons");
    is_whole(&events[..6]);
    is_whole(&events[6..]);
    let what: Vec<_> = events.iter().map(Recorded::what).collect();
    let device = |n: usize| events[n].text("device");
    let (a, b) = (device(0), device(6));
    let all = |device: &str, payloads: &[&str]| {
        let mut all = vec![format!("online {device}"), "join lesson".to_owned()];
        all.extend(payloads.iter().map(|payload| format!("signal {}", base64(payload))));
        // It left because it went offline.
        all.extend([format!("offline {device}"), "leave lesson left".to_owned()]);
        all
    };
    let expected = [all(a, &["one", "two"]), all(b, &["thr", "for", "fiv", "six"])].concat();
    assert_eq!(what, expected);
    drop(second);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_kafka_rejects_is_told_and_holds_up_no_longer_than_it_must() {
    let Some(program) = kafka("Kafka that rejects") else { return };
    let settings = [("auto.create.topics.enable", "false"), ("message.max.bytes", "4000")];
    let kafka = program.start(&settings);
    let dir = tempfile::tempdir().unwrap();
    configure(dir.path(), &kafka, "lessons");
    let up = up(dir.path());
    let (client, _events) = connect(dir.path(), &up.quic, true, 0).await;

    // There is no such topic, and then there is.
    let payloads = ["one", &noise(6000), "two", "thr"];
    send(&client, "lesson", &payloads).await;
    until("recorded", &up, || value(&up, "edgeway_events_recorded_total") == 6).await;
    assert!(kafka.consume("lessons").is_empty());
    kafka.create_topic("lessons");

    // One is more than the topic takes: it is given up, and no other one.
    all_delivered(&up).await;
    assert_eq!(value(&up, "edgeway_events_dropped_total"), 1);
    let mut ids = BTreeSet::new();
    let mut events = consume(&kafka, "lessons");
    // Once something was rejected, an event may come again, with the same id.
    events.retain(|event| ids.insert(event.text("id").to_owned()));
    let counters: Vec<_> = events.iter().map(|event| event.id().1).collect();
    assert_eq!(counters, [1, 2, 3, 5, 6], "{events:?}");
    up.process.signal("TERM");
    let (code, _, told) = up.process.finish();
    assert_eq!(code, 0);
    assert!(told.contains("Kafka rejects events"), "{told}");
}

#[test]
fn settings_that_kafkas_client_does_not_have_are_told_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let text = "[events]\nsink = \"kafka\"\n[events.kafka]\nbrokers = [\"127.0.0.1:1\"]\n\
                [events.kafka.properties]\n\"compresion.type\" = \"lz4\"\n";
    write(dir.path(), "edgeway.toml", text);
    let args = ["up", "--config", "edgeway.toml", "--quic", ANY, "--tcp", ANY, "--http", ANY];
    let (code, _, error) = support::run(dir.path(), &args, "");
    assert_ne!(code, 0);
    assert!(error.contains("events.kafka") && error.contains("compresion.type"), "{error}");
}
