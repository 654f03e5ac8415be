//! What a Kafka that is gone, hangs, or rejects does to events, and to nothing else.

use std::{collections::BTreeSet, fs, path::Path};

use edgeway_client::{AckStatus, Bytes, Client};

use crate::{
    kafka,
    setup::{ANY, all_delivered, base64, by_user, configure, consume, until, up, value},
    support::{
        self,
        events::{Recorded, is_whole},
        talk::{connect, drain, within},
        write,
    },
    tell,
};

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
async fn storage_kafka_gone_at_the_start_or_hanging_delays_events_and_nothing_else() {
    let Some(program) = kafka("storage: Kafka gone at the start") else { return };
    let mut kafka = program.start(&[]);
    kafka.stop();
    let dir = tempfile::tempdir().unwrap();
    configure(dir.path(), &kafka, "lessons", "");

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
async fn storage_what_kafka_rejects_is_told_and_holds_up_no_longer_than_it_must() {
    let Some(program) = kafka("storage: Kafka that rejects") else { return };
    let settings = [("auto.create.topics.enable", "false"), ("message.max.bytes", "4000")];
    let kafka = program.start(&settings);
    let dir = tempfile::tempdir().unwrap();
    configure(dir.path(), &kafka, "lessons", "");
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

/// Bytes of the spill on disk.
fn spill(dir: &Path) -> u64 {
    let files = fs::read_dir(dir.join("edgeway-data/events/spill")).unwrap();
    files.map(|file| file.unwrap().metadata().unwrap().len()).sum()
}

/// Sends large signals; gives the order in which they were accepted, by how they begin.
async fn send_much(client: Client, user: usize) -> Vec<String> {
    let room = within(client.join("lesson")).await.unwrap();
    let mut sent = Vec::new();
    for n in 0..60 {
        let begins = format!("{user:03}{n:03}");
        let payload = format!("{begins}{}", noise(29_994));
        let ack = within(room.send_signal(Bytes::from(payload))).await.unwrap();
        assert_eq!(ack.status, AckStatus::Accepted, "nobody waits for the spill, or is refused");
        sent.push(base64(&begins));
    }
    within(client.close()).await;
    sent
}

#[tokio::test(flavor = "multi_thread")]
async fn storage_a_spill_that_is_full_drops_the_newest_and_counts_them_and_the_rest_arrives() {
    const SPILL: u64 = 16 << 20;
    const USERS: usize = 10;
    let Some(program) = kafka("storage: a spill that is full") else { return };
    let mut kafka = program.start(&[]);
    kafka.stop();
    let dir = tempfile::tempdir().unwrap();
    configure(dir.path(), &kafka, "lessons", &format!("spill_bytes = {SPILL}"));
    let up = up(dir.path());
    let mut users = Vec::new();
    for n in 0..USERS {
        let (client, events) = connect(dir.path(), &up.quic, true, n).await;
        drain(events);
        users.push(tokio::spawn(send_much(client, n)));
    }
    let mut sent = Vec::new();
    for user in users {
        sent.push(user.await.unwrap());
    }
    // Online, join, what was sent, offline, leave; all of that was taken from the queue.
    let all = sent.iter().map(Vec::len).sum::<usize>() + USERS * 4;
    let recorded = || value(&up, "edgeway_events_recorded_total") == all as u64;
    until("all recorded", &up, recorded).await;
    until("all taken", &up, || value(&up, "edgeway_events_queue_bytes") == 0).await;
    let dropped = value(&up, "edgeway_events_dropped_total{cause=\"spill_full\"}");
    let on_disk = spill(dir.path());
    tell(&format!("{all} events, {dropped} dropped, {on_disk} bytes on disk of {SPILL}\n"));
    assert!(dropped > 0);
    // What says how far it is delivered is a few bytes more.
    assert!((SPILL / 2..SPILL + 64).contains(&on_disk), "{on_disk}");

    kafka.resume();
    all_delivered(&up).await;
    let events = consume(&kafka, "lessons");
    let dropped = value(&up, "edgeway_events_dropped_total");
    assert_eq!(events.len() as u64, all as u64 - dropped);
    let ids: BTreeSet<_> = events.iter().map(|event| event.text("id")).collect();
    assert_eq!(ids.len(), events.len(), "each once");
    // A hole in the counters for each that was dropped, but at the end.
    let last = events.iter().map(|event| event.id().1).max().unwrap();
    assert!(last <= all as u64 && last - ids.len() as u64 <= dropped);
    for (user, did) in by_user(&events) {
        let n: usize = user.strip_prefix("user-").unwrap().parse().unwrap();
        let mut left = sent[n].iter();
        for signal in did.iter().filter_map(|what| what.strip_prefix("signal ")) {
            assert!(left.any(|sent| signal.starts_with(sent)), "out of order: {user}");
        }
    }
    up.process.signal("TERM");
    assert_eq!(up.process.finish().0, 0);
}

#[test]
fn storage_settings_that_kafkas_client_does_not_have_are_told_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let text = "[events]\nsink = \"kafka\"\n[events.kafka]\nbrokers = [\"127.0.0.1:1\"]\n\
                [events.kafka.properties]\n\"compresion.type\" = \"lz4\"\n";
    write(dir.path(), "edgeway.toml", text);
    let args = ["up", "--config", "edgeway.toml", "--quic", ANY, "--tcp", ANY, "--http", ANY];
    let (code, _, error) = support::run(dir.path(), &args, "");
    assert_ne!(code, 0);
    assert!(error.contains("events.kafka") && error.contains("compresion.type"), "{error}");
}
