//! What runs that belong together have found, for the terminal and as JSON.

use std::time::Duration;

use edgeway_client::Class;
use serde::Serialize;

use super::{
    Group,
    record::{DIRECTIONS, Fates},
    returns::Moment,
    run::{Outcome, Wire},
};
use crate::weaknet::{counters::Waited, draw::Direction};

mod say;

/// One class in one direction, or in both.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    pub class: &'static str,
    pub direction: &'static str,
    pub sent: usize,
    pub delivered: usize,
    pub twice: usize,
    pub out_of_order: usize,
    /// One way, of all that was sent (of chat: of all that was delivered); none where so many did
    /// not arrive.
    pub latency_ms: Quantiles,
    #[serde(skip)]
    pub fates: Fates,
}

/// Milliseconds.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Quantiles {
    pub p50: Option<f64>,
    pub p90: Option<f64>,
    pub p99: Option<f64>,
    pub p999: Option<f64>,
    pub max: Option<f64>,
}

impl Quantiles {
    pub fn of(at: impl Fn(f64) -> Option<f64>) -> Self {
        Self { p50: at(0.5), p90: at(0.9), p99: at(0.99), p999: at(0.999), max: at(1.0) }
    }
}

/// Times without service.
#[derive(Debug, Clone, Serialize)]
pub struct Back {
    pub what: &'static str,
    pub direction: Direction,
    pub count: usize,
    /// Of these, service did not come back before the end.
    pub never: usize,
    pub back_ms: Quantiles,
    /// The longest time in which nothing arrived; of the worst one.
    pub gap_ms: f64,
}

/// What waited before the bottleneck of a direction.
#[derive(Debug, Clone, Serialize)]
pub struct Waits {
    pub direction: Direction,
    pub mean_ms: f64,
    pub max_ms: f64,
}

/// One run's machine and testbed.
#[derive(Debug, Clone, Serialize)]
struct Machine {
    seed: u64,
    load_before: Option<f64>,
    cores: f64,
    testbed_late_ms: crate::weaknet::testbed::Lateness,
    testbed_drops: u64,
    waits: Vec<Waits>,
}

/// A run in which one packet in a thousand was later than this by the testbed's own fault is void.
const LATE: Duration = Duration::from_millis(5);

/// See the module.
#[derive(Debug, Serialize)]
pub struct Found {
    pub profile: String,
    pub reason: String,
    pub transport: &'static str,
    /// Of kernel TCP.
    pub congestion: Option<&'static str>,
    pub load: &'static str,
    pub clients: u32,
    pub seconds: u32,
    pub warm_up_seconds: u32,
    pub hint: bool,
    pub seeds: Vec<u64>,
    pub rows: Vec<Row>,
    pub back: Vec<Back>,
    pub wire: Wire,
    /// Bytes on the wire for each phase of each run.
    pub wire_by_phase: Vec<(u64, &'static str, Wire)>,
    pub resent: u64,
    pub reconnects: u64,
    pub leaves: u64,
    pub joins: u64,
    /// Chat that members were told they missed.
    pub chat_missed: u64,
    /// Chat of which nobody knows what became of it; none where that was not looked at.
    pub chat_unaccounted: Option<u64>,
    pub problems: Vec<String>,
    machine: Vec<Machine>,
    #[serde(skip)]
    pub moments: Vec<Moment>,
    /// For plots: when a signal was sent, and its latency, of the first client; seconds and
    /// milliseconds.
    #[serde(skip)]
    pub signals_over_time: Vec<(f64, f64)>,
}

impl Found {
    pub fn new(group: &Group) -> Self {
        let mut rows = Vec::new();
        for class in Class::ALL {
            for direction in ["up", "down", "both"] {
                rows.push(Row {
                    class: class.name(),
                    direction,
                    sent: 0,
                    delivered: 0,
                    twice: 0,
                    out_of_order: 0,
                    latency_ms: Quantiles::default(),
                    fates: Fates::default(),
                });
            }
        }
        Self {
            profile: group.profile.clone(),
            reason: String::new(),
            transport: group.mode.name(),
            congestion: group.mode.is_tcp().then(|| group.congestion.name()),
            load: group.offer.name(),
            clients: group.size.clients,
            seconds: group.size.seconds,
            warm_up_seconds: group.size.warm_up,
            hint: group.hint,
            seeds: vec![],
            rows,
            back: vec![],
            wire: Wire::default(),
            wire_by_phase: vec![],
            resent: 0,
            reconnects: 0,
            leaves: 0,
            joins: 0,
            chat_missed: 0,
            chat_unaccounted: None,
            problems: vec![],
            machine: vec![],
            moments: vec![],
            signals_over_time: vec![],
        }
    }

    /// What it is called beside others.
    pub fn name(&self) -> String {
        let congestion = self.congestion.map(|name| format!(" ({name})")).unwrap_or_default();
        format!("{}{congestion}{}", self.transport, if self.hint { ", hint" } else { "" })
    }

    /// Adds a run.
    pub fn add(&mut self, run: &Outcome) {
        self.reason.clone_from(&run.spec.profile.reason);
        self.seeds.push(run.spec.seed);
        for class in Class::ALL {
            for direction in DIRECTIONS {
                let fates = run.log.fates(direction, class);
                let names = ["both", if direction == Direction::Up { "up" } else { "down" }];
                for row in &mut self.rows {
                    if row.class == class.name() && names.contains(&row.direction) {
                        row.add(class, &fates);
                    }
                }
            }
        }
        self.add_wire(run);
        self.resent += run.resent;
        self.reconnects += run.reconnects;
        self.leaves += run.leaves;
        self.joins += run.joins;
        self.chat_missed += run.chat_missed;
        if let Some(chat) = run.chat_unaccounted {
            self.chat_unaccounted = Some(self.chat_unaccounted.unwrap_or(0) + chat);
        }
        self.problems.extend(run.log.problems.iter().cloned());
        self.moments.extend(run.moments.iter().cloned());
        self.back = backs(&self.moments);
        if self.signals_over_time.is_empty() {
            self.signals_over_time = over_time(run);
        }
        self.machine.push(Machine {
            seed: run.spec.seed,
            load_before: run.load_before,
            cores: run.cores,
            testbed_late_ms: run.health.late_ms.clone(),
            testbed_drops: run.health.kernel_drops + run.health.socket_drops,
            waits: waits(&run.queue),
        });
    }

    #[allow(clippy::cast_precision_loss)] // counts of packets
    fn add_wire(&mut self, run: &Outcome) {
        for (phase, wire) in &run.wire {
            let packets = self.wire.packets + wire.packets;
            let lost = self.wire.loss * self.wire.packets as f64 + wire.loss * wire.packets as f64;
            self.wire.loss = lost / packets.max(1) as f64;
            self.wire.packets = packets;
            self.wire.bytes += wire.bytes;
            self.wire_by_phase.push((run.spec.seed, phase, *wire));
        }
    }

    /// Whether the figures can be trusted: the testbed itself lost nothing and was not late, and nothing
    /// went wrong that is not a figure.
    pub fn is_sound(&self) -> bool {
        let good = |one: &Machine| {
            one.testbed_drops == 0 && one.testbed_late_ms.p999 <= LATE.as_secs_f64() * 1000.0
        };
        self.problems.is_empty() && self.machine.iter().all(good)
    }

    /// Both directions of a class.
    pub fn both(&self, class: Class) -> Option<&Row> {
        self.rows.iter().find(|row| row.class == class.name() && row.direction == "both")
    }
}

impl Row {
    fn add(&mut self, class: Class, fates: &Fates) {
        self.fates.join(fates);
        let fates = &self.fates;
        self.sent = fates.sent;
        self.delivered = fates.latency_ms.len();
        self.twice = fates.twice;
        self.out_of_order = fates.out_of_order;
        let at = |share| match class.reliable() {
            true => fates.quantile(share),
            false => fates.quantile_of_delivered(share),
        };
        self.latency_ms = Quantiles::of(at);
    }
}

fn backs(moments: &[Moment]) -> Vec<Back> {
    let mut backs = Vec::new();
    for what in ["blackout", "hand_over", "rebind", "udp_block"] {
        for direction in DIRECTIONS {
            let of = |one: &&Moment| one.what == what && one.direction == direction;
            let all: Vec<_> = moments.iter().filter(of).map(|one| one.back_ms).collect();
            let gaps = moments.iter().filter(of).map(|one| one.gap_ms);
            let gap_ms = gaps.fold(0.0, f64::max);
            if all.is_empty() {
                continue;
            }
            let mut latency_ms: Vec<f64> = all.iter().flatten().copied().collect();
            latency_ms.sort_by(f64::total_cmp);
            let fates = Fates { sent: all.len(), latency_ms, ..Fates::default() };
            let at = |share| fates.quantile(share);
            backs.push(Back {
                what,
                direction,
                count: all.len(),
                never: all.len() - fates.latency_ms.len(),
                back_ms: Quantiles { p999: None, ..Quantiles::of(at) },
                gap_ms,
            });
        }
    }
    backs
}

#[allow(clippy::cast_precision_loss)] // microseconds of minutes
fn waits(queue: &[Waited; 2]) -> Vec<Waits> {
    let of = |(direction, waited): (Direction, &Waited)| {
        (waited.sum_us > 0).then(|| Waits {
            direction,
            mean_ms: waited.sum_us as f64 / waited.packets.max(1) as f64 / 1000.0,
            max_ms: waited.max_us as f64 / 1000.0,
        })
    };
    DIRECTIONS.into_iter().zip(queue).filter_map(of).collect()
}

fn over_time(run: &Outcome) -> Vec<(f64, f64)> {
    let signals = run.log.arrived.iter().map(|one| (one.sent, one.at_ns));
    let first = run.log.sent.iter().map(|one| one.at_ns).min().unwrap_or(0);
    let signals = signals.filter(|(sent, _)| sent.class == Class::Signal && sent.client == 0);
    let point = |at_ns: u64, until_ns: u64| super::record::ms(until_ns.saturating_sub(at_ns));
    signals
        .map(|(sent, at_ns)| (point(first, sent.at_ns) / 1000.0, point(sent.at_ns, at_ns)))
        .collect()
}

/// With one digit; a dash for never.
pub fn number(ms: Option<f64>) -> String {
    ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1}"))
}
