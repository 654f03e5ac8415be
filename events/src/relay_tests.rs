//! What was recorded is delivered once, in order for each key, unless counted as dropped; whatever becomes of Kafka and
//! of the process.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fs::OpenOptions,
    io::Write,
    path::Path,
};

use proptest::prelude::*;

use super::*;
use crate::home::numbered;

/// A Kafka with partitions by key, as its client shows it.
#[derive(Debug, Default)]
struct Model {
    /// What consumers see, by key.
    log: BTreeMap<Vec<u8>, Vec<u64>>,
    is_up: bool,
    /// It takes these values no longer than this.
    rejects_above: usize,
    /// It takes nothing: no such topic, no right.
    rejects_all: bool,
    in_flight: VecDeque<(u64, Record)>,
    /// It is not told of before the next time.
    untold: Vec<Outcome>,
    /// Keys of which one was rejected.
    stuck: BTreeSet<Vec<u8>>,
}

const ROOM: usize = 5;

impl Model {
    fn new() -> Self {
        Self { is_up: true, rejects_above: usize::MAX, ..Self::default() }
    }

    /// Works on so many of what it holds.
    fn work(&mut self, most: usize) {
        if !self.is_up {
            return;
        }
        for _ in 0..most {
            let Some((position, record)) = self.in_flight.pop_front() else { return };
            let is_bad = record.value.len() > self.rejects_above;
            if self.stuck.contains(&record.key) || is_bad || self.rejects_all {
                self.stuck.insert(record.key);
                let why = Rejection { why: "no".to_owned(), of_event: is_bad };
                self.untold.push(Outcome::Rejected(Some(position), why));
            } else {
                self.log.entry(record.key).or_default().push(record.at_ms);
                self.untold.push(Outcome::Delivered(position));
            }
        }
    }
}

impl Broker for &mut Model {
    fn send(&mut self, position: u64, record: &Record) -> Result<(), NotSent> {
        if self.in_flight.len() >= ROOM {
            return Err(NotSent::Full);
        }
        self.in_flight.push_back((position, record.clone()));
        Ok(())
    }

    fn poll(&mut self, _: Duration) -> Vec<Outcome> {
        std::mem::take(&mut self.untold)
    }

    fn restart(&mut self) -> Result<(), String> {
        // What is on its way may arrive and never be told of.
        self.work(1);
        self.in_flight.clear();
        self.untold.clear();
        self.stuck.clear();
        Ok(())
    }
}

#[derive(Debug, Clone)]
enum Op {
    /// Events of these keys; a long one is more than Kafka may take.
    Record(Vec<(u8, bool)>),
    Step,
    /// Kafka takes some of what it has.
    Work(usize),
    Up(bool),
    RejectAll(bool),
    RejectLong(bool),
    Sync,
    /// The process dies; perhaps while it writes.
    Crash(bool),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => prop::collection::vec((0..3u8, prop::bool::weighted(0.1)), 1..8).prop_map(Op::Record),
        4 => Just(Op::Step),
        4 => (1..6usize).prop_map(Op::Work),
        1 => any::<bool>().prop_map(Op::Up),
        1 => any::<bool>().prop_map(Op::RejectAll),
        1 => any::<bool>().prop_map(Op::RejectLong),
        1 => Just(Op::Sync),
        1 => any::<bool>().prop_map(Op::Crash),
    ]
}

struct Run<'a> {
    dir: &'a Path,
    now: Instant,
    next: u64,
    /// By key, in order.
    recorded: BTreeMap<Vec<u8>, Vec<u64>>,
    dropped: u64,
    refused: u64,
    /// Each may cost what was on its way a second delivery.
    restarts: u64,
}

/// Small, so that bounds and files are met.
const MAX_BYTES: u64 = 4000;
const SEGMENT_BYTES: u64 = 300;
const LIMITS: Limits = Limits { events: 4, bytes: 1000 };

fn relay<'m>(dir: &Path, model: &'m mut Model) -> Relay<&'m mut Model> {
    let spool = Spool::open_with(dir.to_owned(), MAX_BYTES, SEGMENT_BYTES).unwrap();
    Relay::new(spool, model, LIMITS)
}

impl Run<'_> {
    fn records(&mut self, relay: &mut Relay<&mut Model>, events: &[(u8, bool)]) {
        let mut records = Vec::new();
        for (key, is_long) in events {
            self.next += 1;
            let value = vec![b'x'; if *is_long { 90 } else { 10 }];
            records.push(Record { at_ms: self.next, key: vec![*key], value });
        }
        let taken = relay.append(&records).unwrap();
        self.dropped += (records.len() - taken) as u64;
        for record in records.into_iter().take(taken) {
            self.recorded.entry(record.key).or_default().push(record.at_ms);
        }
        assert!(relay.spool().bytes() <= MAX_BYTES);
    }

    fn step(&mut self, relay: &mut Relay<&mut Model>) {
        self.now += PAUSES[1];
        let step = relay.step(self.now, Duration::ZERO).unwrap();
        self.refused += step.refused;
        self.restarts += u64::from(step.rejected.is_some());
        assert_eq!(step.lost, 0);
        assert!(relay.window.in_flight() <= LIMITS.events);
    }

    /// Until Kafka has all.
    fn settle(&mut self, relay: &mut Relay<&mut Model>) {
        for _ in 0..10_000 {
            if relay.is_empty() {
                return;
            }
            self.step(relay);
            relay.broker.work(ROOM);
        }
        panic!("not delivered: {relay:?}");
    }

    /// Consumers that leave out repeats see each once and in order.
    fn check(&self, model: &Model, repeats_are_fine: bool) {
        let mut missing = 0;
        for (key, recorded) in &self.recorded {
            let log = model.log.get(key).cloned().unwrap_or_default();
            let mut seen = BTreeSet::new();
            let first: Vec<_> = log.iter().filter(|n| seen.insert(**n)).copied().collect();
            assert!(repeats_are_fine || first == log, "twice: {log:?}");
            assert!(first.is_sorted(), "out of order: {log:?}");
            assert!(first.iter().all(|n| recorded.contains(n)));
            missing += (recorded.len() - first.len()) as u64;
        }
        // A crash forgets what it had counted.
        assert!(missing <= self.refused, "{missing} missing, {} refused", self.refused);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn what_was_recorded_is_delivered_once_and_in_order_whatever_happens(
        ops in prop::collection::vec(op(), 1..80),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut run = Run {
            dir: dir.path(),
            now: Instant::now(),
            next: 0,
            recorded: BTreeMap::new(),
            dropped: 0,
            refused: 0,
            restarts: 0,
        };
        let mut model = Model::new();
        let mut crashes = 0;
        let mut ops = ops.into_iter();
        loop {
            let mut relay = relay(run.dir, &mut model);
            let mut crash = None;
            for op in ops.by_ref() {
                match op {
                    Op::Record(events) => run.records(&mut relay, &events),
                    Op::Step => run.step(&mut relay),
                    Op::Work(n) => relay.broker.work(n),
                    Op::Up(is) => relay.broker.is_up = is,
                    Op::RejectAll(is) => relay.broker.rejects_all = is,
                    Op::RejectLong(is) => {
                        relay.broker.rejects_above = if is { 50 } else { usize::MAX };
                    }
                    Op::Sync => relay.spool().sync().unwrap(),
                    Op::Crash(torn) => {
                        crash = Some(torn);
                        break;
                    }
                }
            }
            let Some(torn) = crash else {
                relay.broker.is_up = true;
                relay.broker.rejects_all = false;
                run.settle(&mut relay);
                break;
            };
            crashes += 1;
            drop(relay);
            // Some of what was on its way arrives.
            model.work(2);
            model.in_flight.clear();
            model.untold.clear();
            model.stuck.clear();
            if torn {
                let (_, last) = numbered(run.dir, "spool-", ".bin").unwrap().pop().unwrap();
                OpenOptions::new().append(true).open(last).unwrap().write_all(&[20, 0, 0]).unwrap();
            }
        }
        run.check(&model, crashes + run.restarts > 0);
    }
}

fn run(dir: &Path) -> Run<'_> {
    let (now, recorded) = (Instant::now(), BTreeMap::new());
    Run { dir, now, next: 0, recorded, dropped: 0, refused: 0, restarts: 0 }
}

#[test]
fn what_finds_no_room_while_kafka_is_away_is_dropped_and_counted_and_the_rest_arrives() {
    let dir = tempfile::tempdir().unwrap();
    let (mut run, mut model) = (run(dir.path()), Model::new());
    let mut relay = relay(dir.path(), &mut model);
    relay.broker.is_up = false;
    for _ in 0..50 {
        run.records(&mut relay, &[(1, false), (2, false), (1, false)]);
        run.step(&mut relay);
    }
    assert!(run.dropped > 0);
    let spilled = relay.take_spilled();
    assert_eq!(spilled, 150 - run.dropped - LIMITS.events as u64);
    relay.broker.is_up = true;
    run.settle(&mut relay);
    run.check(&model, false);
    assert_eq!(model.log.values().map(|log| log.len() as u64).sum::<u64>(), 150 - run.dropped);
}

#[test]
fn one_that_kafka_never_takes_is_given_up_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (mut run, mut model) = (run(dir.path()), Model::new());
    let mut relay = relay(dir.path(), &mut model);
    relay.broker.rejects_above = 50;
    run.records(
        &mut relay,
        &[(1, false), (1, true), (1, false), (2, false), (2, true), (1, false)],
    );
    run.settle(&mut relay);
    run.check(&model, true);
    assert_eq!(run.refused, 2);
    assert_eq!(model.log.values().map(Vec::len).sum::<usize>(), 4);
}

#[test]
fn a_topic_that_is_not_there_yet_is_waited_for_with_growing_pauses() {
    let dir = tempfile::tempdir().unwrap();
    let (mut run, mut model) = (run(dir.path()), Model::new());
    let mut relay = relay(dir.path(), &mut model);
    relay.broker.rejects_all = true;
    run.records(&mut relay, &[(1, false), (2, false)]);
    let start = run.now;
    relay.step(start, Duration::ZERO).unwrap();
    relay.broker.work(ROOM);
    assert!(relay.step(start, Duration::ZERO).unwrap().rejected.is_some());
    relay.step(start + PAUSES[0] / 2, Duration::ZERO).unwrap();
    assert!(!relay.is_waiting(), "not before the pause is over");
    relay.step(start + PAUSES[0], Duration::ZERO).unwrap();
    assert!(relay.is_waiting());
    relay.broker.work(ROOM);
    relay.step(start + PAUSES[0], Duration::ZERO).unwrap();
    relay.step(start + PAUSES[0] * 2, Duration::ZERO).unwrap();
    assert!(!relay.is_waiting(), "the next pause is longer");
    relay.broker.rejects_all = false;
    run.settle(&mut relay);
    assert_eq!(run.refused, 0);
    run.check(&model, true);
}
