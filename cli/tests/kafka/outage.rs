//! Kafka stopped for 30 s under load.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use edgeway_client::{AckStatus, Bytes, Client, Event, Events};

use crate::{
    kafka,
    setup::{all_delivered, base64, by_user, configure, consume, until, up, value},
    support::{
        events::is_whole,
        talk::{connect, within},
    },
    tell,
};

/// How long Kafka is away.
const AWAY: Duration = Duration::from_secs(30);
/// Together they send more meanwhile than Kafka's client holds in memory.
const USERS: usize = 16;
/// Between two signals of a user, beside what the ack takes.
const PACE: Duration = Duration::from_millis(20);
/// Above what a busy machine makes an ack wait.
const STALL: Duration = Duration::from_secs(10);

const PHASES: [&str; 3] = ["before", "away", "after"];
const STOP: usize = PHASES.len();

/// What one user did, and how long acks took in each phase.
#[derive(Default)]
struct Life {
    did: Vec<String>,
    acks: [Vec<Duration>; PHASES.len()],
}

/// Comes, joins, sends and leaves, until told to stop.
async fn live(client: Client, phase: Arc<AtomicUsize>, acked: Arc<AtomicU64>) -> Life {
    let mut life = Life { did: vec![format!("online {}", client.device())], ..Life::default() };
    let mut n = 0;
    while phase.load(Ordering::Relaxed) != STOP {
        let name = format!("lesson-{}", n % 3);
        let room = within(client.join(&name)).await.unwrap();
        life.did.push(format!("join {name}"));
        for _ in 0..10 {
            let payload = format!("{n:06}");
            let (start, sent_in) = (Instant::now(), phase.load(Ordering::Relaxed));
            let ack = within(room.send_signal(Bytes::from(payload.clone()))).await.unwrap();
            assert_eq!(ack.status, AckStatus::Accepted);
            if let Some(acks) = life.acks.get_mut(sent_in) {
                acks.push(start.elapsed());
            }
            life.did.push(format!("signal {}", base64(&payload)));
            n += 1;
            acked.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(PACE).await;
        }
        within(room.leave()).await.unwrap();
        life.did.push(format!("leave {name} left"));
    }
    life.did.push(format!("offline {}", client.device()));
    within(client.close()).await;
    life
}

/// Takes what a client is told, until it ends: messages and who is there, and nothing of trouble. Gives how often it
/// connected anew, as clients do where the machine has made them wait.
async fn watch(mut events: Events) -> u64 {
    let mut anew = 0;
    while let Some(event) = events.next().await {
        match event {
            Event::Message(_) | Event::Presence(_) | Event::Reconnected { .. } => {}
            Event::Reconnecting { .. } => anew += 1,
            Event::Closed { .. } => break,
            event => panic!("{event:?}"),
        }
    }
    anew
}

/// The acks of a phase: how many, the median, and the one in a hundred that took longest.
fn told(lives: &[Life], phase: usize) -> String {
    let mut acks: Vec<_> = lives.iter().flat_map(|life| &life.acks[phase]).collect();
    acks.sort();
    let ms = |part: usize| acks.get(acks.len() * part / 100).map_or(0, |ack| ack.as_millis());
    let (name, count) = (PHASES[phase], acks.len());
    format!("{name}: {count} signals, acks p50 {} ms, p99 {} ms; ", ms(50), ms(99))
}

#[tokio::test(flavor = "multi_thread")]
async fn storage_kafka_stopped_for_30_s_under_load_is_noticed_by_nobody_and_gets_each_event_once_in_order()
 {
    let Some(program) = kafka("storage: Kafka stopped for 30 s under load") else { return };
    let mut kafka = program.start(&[]);
    let dir = tempfile::tempdir().unwrap();
    configure(dir.path(), &kafka, "lessons", "");
    let up = up(dir.path());
    let (phase, acked) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicU64::new(0)));
    let (mut users, mut watchers) = (Vec::new(), Vec::new());
    for n in 0..USERS {
        let addr = if n % 2 == 0 { &up.quic } else { &up.tcp };
        let (client, events) = connect(dir.path(), addr, n % 2 == 0, n).await;
        users.push(tokio::spawn(live(client, Arc::clone(&phase), Arc::clone(&acked))));
        watchers.push(tokio::spawn(watch(events)));
    }
    until("something in Kafka", &up, || value(&up, "edgeway_events_written_total") > 2_000).await;

    kafka.stop();
    phase.store(1, Ordering::Relaxed);
    let start = Instant::now();
    let (mut last, mut longest) = (Instant::now(), Duration::ZERO);
    let mut seen = acked.load(Ordering::Relaxed);
    // The scenario, and no wait for something: so long it is away.
    while start.elapsed() < AWAY {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let now = acked.load(Ordering::Relaxed);
        if now > seen {
            longest = longest.max(last.elapsed());
            (seen, last) = (now, Instant::now());
        }
    }
    longest = longest.max(last.elapsed());
    assert_eq!(value(&up, "edgeway_events_kafka_away"), 1);
    assert!(value(&up, "edgeway_events_spill_bytes") > 0);
    phase.store(2, Ordering::Relaxed);
    kafka.resume();
    until("Kafka is back", &up, || value(&up, "edgeway_events_kafka_away") == 0).await;
    phase.store(STOP, Ordering::Relaxed);

    let mut lives = Vec::new();
    for user in users {
        lives.push(user.await.unwrap());
    }
    let mut anew = 0;
    for watcher in watchers {
        anew += watcher.await.unwrap();
    }
    let all: usize = lives.iter().map(|life| life.did.len()).sum();
    until("all recorded", &up, || value(&up, "edgeway_events_recorded_total") == all as u64).await;
    all_delivered(&up).await;
    let spilled = value(&up, "edgeway_events_spilled_total");
    let acks: String = (0..PHASES.len()).map(|phase| told(&lives, phase)).collect();
    let consumer = kafka.consumer();
    tell(&format!(
        "{acks}at most {longest:?} without one; {anew} connections anew; {all} events, {spilled} spilled; read by \
         {consumer}\n"
    ));
    // Each of them went on, and none was held up.
    assert!(longest < STALL, "nobody had an ack for {longest:?}");
    for life in &lives {
        assert!(life.acks[1].len() > 30, "{} acks of a user while it was away", life.acks[1].len());
        assert!(life.acks[1].iter().all(|ack| *ack < STALL), "{:?}", life.acks[1].iter().max());
    }
    assert_eq!(value(&up, "edgeway_events_dropped_total"), 0);
    assert_eq!(value(&up, "edgeway_events_rejected_total"), 0);

    let events = consume(&kafka, "lessons");
    assert_eq!(events.len(), all, "each once");
    is_whole(&events);
    let did: BTreeMap<_, _> =
        lives.into_iter().enumerate().map(|(n, life)| (format!("user-{n}"), life.did)).collect();
    assert!(by_user(&events) == did, "another order, or other events");
    up.process.signal("TERM");
    assert_eq!(up.process.finish().0, 0);
}
