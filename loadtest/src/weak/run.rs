//! One run: a profile, a mode and a seed; connect, warm up, talk, wait for what is late, count.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use anyhow::Result;
use serde::Serialize;
use tokio::{task::JoinSet, time::sleep};

use super::{
    Mode,
    offer::{Mouth, Offer, Talk},
    plain::{self, Plain},
    record::{DIRECTIONS, Log, Record},
    returns::{self, Moment},
    sdk::{self, Edgeway},
    sides::Sides,
};
use crate::{
    procstat,
    server::ServerArgs,
    weaknet::{
        OldPath, Profile,
        counters::Waited,
        draw::Direction,
        profile::What,
        testbed::{Counters, Health},
    },
};

/// What is measured.
#[derive(Debug, Clone)]
pub struct Spec {
    pub profile: Profile,
    pub mode: Mode,
    /// Of kernel TCP.
    pub congestion: &'static str,
    pub offer: Offer,
    pub clients: u32,
    /// How long each phase talks.
    pub talks: Duration,
    pub warm_up: Duration,
    pub seed: u64,
    /// Apps tell their clients of a change of address.
    pub hint: bool,
}

/// Those who speak, by client.
#[derive(Default)]
pub struct Ends {
    up: Vec<Arc<dyn Mouth>>,
    down: Vec<Arc<dyn Mouth>>,
}

impl Ends {
    pub fn speakers(&mut self, direction: Direction) -> &mut Vec<Arc<dyn Mouth>> {
        match direction {
            Direction::Up => &mut self.up,
            Direction::Down => &mut self.down,
        }
    }
}

/// Packets that were put on the emulated wire, both ways, their IP headers included.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Wire {
    pub bytes: u64,
    pub packets: u64,
    /// Share of packets that did not arrive.
    pub loss: f64,
}

/// What came of it.
pub struct Outcome {
    pub spec: Spec,
    pub log: Log,
    /// One for each phase, with the directions that talked.
    pub wire: Vec<(&'static str, Wire)>,
    pub moments: Vec<Moment>,
    /// Before the bottleneck, up and down.
    pub queue: [Waited; 2],
    pub health: Health,
    pub resent: u64,
    pub reconnects: u64,
    pub leaves: u64,
    pub joins: u64,
    pub chat_missed: u64,
    /// None where that was not looked at.
    pub chat_unaccounted: Option<u64>,
    /// Load average of the machine before it began.
    pub load_before: Option<f64>,
    /// Cores that this process (clients, peers and testbed) kept busy.
    pub cores: f64,
}

/// What runs.
enum System {
    Edgeway(Box<Edgeway>),
    Plain(Plain),
}

/// What is late is waited for, until nothing came for this long.
const QUIET: Duration = Duration::from_secs(5);
const LATE_MAX: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(100);

/// Runs it. To be called where no runtime is.
pub fn run(spec: Spec, args: &ServerArgs) -> Result<Outcome> {
    let sides = Sides::start(&spec.profile, spec.clients, spec.seed)?;
    sides.testbed.set_tcp_congestion(spec.congestion)?;
    sides.server.block_on(measure(&sides, spec, args))
}

async fn measure(sides: &Sides, spec: Spec, args: &ServerArgs) -> Result<Outcome> {
    let load_before = procstat::load_average();
    let record = Record::new();
    // What happens at a moment is looked at from both ends at once.
    let both = !spec.profile.events.is_empty();
    let (mut ends, system) = match spec.mode {
        Mode::PlainTcp => {
            let (ends, plain) = plain::start(sides, &record, spec.clients, both).await?;
            (ends, System::Plain(plain))
        }
        mode => {
            let (ends, all) = sdk::start(sides, args, mode, &record, spec.clients, both).await?;
            (ends, System::Edgeway(Box::new(all)))
        }
    };
    let mut run = Run { sides, spec: &spec, record: &record, ends: &mut ends };
    run.talk(&DIRECTIONS, spec.warm_up, true).await;
    sleep(Duration::from_millis(500)).await;
    let cpu = procstat::Meter::start(&[std::process::id()])?;
    if let System::Edgeway(all) = &system {
        all.seen.reset();
    }
    let start = sides.testbed.restart();
    let hints = run.hints(&system, start)?;
    let phases: &[&[Direction]] =
        if both { &[&DIRECTIONS] } else { &[&[Direction::Up], &[Direction::Down]] };
    let mut wire = Vec::new();
    for phase in phases {
        let before = sides.testbed.counters()?;
        run.talk(phase, spec.talks, false).await;
        run.wait_for_late().await;
        let name = match phase {
            [Direction::Up] => "up",
            [Direction::Down] => "down",
            _ => "both",
        };
        wire.push((name, wire_between(&before, &sides.testbed.counters()?)));
    }
    drop(hints);
    let cores = cpu.used()?.cores();
    let log = record.take();
    let moments =
        returns::moments(&log, &record.clock, start, spec.talks, spec.clients, |client| {
            sides.testbed.schedule(client, spec.talks)
        })?;
    let counters = sides.testbed.counters()?;
    let queue = [counters.total.up, counters.total.down].map(|link| link.queue);
    let health = counters.testbed;
    let mut outcome = Outcome {
        spec,
        log,
        wire,
        moments,
        queue,
        health,
        resent: 0,
        reconnects: 0,
        leaves: 0,
        joins: 0,
        chat_missed: 0,
        chat_unaccounted: None,
        load_before,
        cores,
    };
    match system {
        System::Plain(plain) => plain.close(),
        System::Edgeway(mut all) => {
            all.server.check()?;
            (outcome.resent, outcome.reconnects) = all.stats();
            outcome.leaves = all.seen.leaves.load(Relaxed);
            outcome.joins = all.seen.joins.load(Relaxed);
            outcome.chat_missed = all.seen.missed.load(Relaxed);
            outcome.chat_unaccounted = all.chat_unaccounted().await;
            all.close().await?;
        }
    }
    Ok(outcome)
}

/// What is under way.
struct Run<'a> {
    sides: &'a Sides,
    spec: &'a Spec,
    record: &'a Arc<Record>,
    ends: &'a mut Ends,
}

impl Run<'_> {
    /// Everyone talks in these directions.
    async fn talk(&mut self, directions: &[Direction], lasts: Duration, warm_up: bool) {
        let mut talks = JoinSet::new();
        let start = tokio::time::Instant::now();
        for direction in directions.iter().copied() {
            let side = match direction {
                Direction::Up => self.sides.clients.handle(),
                Direction::Down => self.sides.server.handle(),
            };
            for (client, mouth) in (0..).zip(self.ends.speakers(direction).iter()) {
                let talk = Talk {
                    record: Arc::clone(self.record),
                    mouth: Arc::clone(mouth),
                    client,
                    direction,
                    offer: self.spec.offer,
                    warm_up,
                    seed: self.spec.seed,
                };
                talks.spawn_on(talk.run(start, lasts), side);
            }
        }
        talks.join_all().await;
    }

    async fn wait_for_late(&self) {
        let began = Instant::now();
        let mut last = (self.record.arrivals(), Instant::now());
        while self.record.outstanding() > 0
            && last.1.elapsed() < QUIET
            && began.elapsed() < LATE_MAX
        {
            sleep(LOOK).await;
            let arrivals = self.record.arrivals();
            if arrivals != last.0 {
                last = (arrivals, Instant::now());
            }
        }
    }

    /// Has apps tell their clients of each change of address, at its moment.
    fn hints(&self, system: &System, start: Instant) -> Result<JoinSet<()>> {
        let mut hints = JoinSet::new();
        let System::Edgeway(all) = system else { return Ok(hints) };
        if !self.spec.hint {
            return Ok(hints);
        }
        for (n, client) in (0..).zip(&all.members) {
            for event in self.sides.testbed.schedule(n, self.spec.talks)? {
                if !matches!(event.what, What::HandOver(OldPath::Dead | OldPath::Dying { .. })) {
                    continue;
                }
                let client = client.clone();
                let at = tokio::time::Instant::from_std(start + event.at);
                hints.spawn(async move {
                    tokio::time::sleep_until(at).await;
                    client.network_changed();
                });
            }
        }
        Ok(hints)
    }
}

fn wire_between(before: &Counters, after: &Counters) -> Wire {
    let of = |counters: &Counters| {
        let mut both = counters.total.up;
        both += counters.total.down;
        let lost: u64 = both.lost.all().iter().map(|(_, count)| count.packets).sum();
        (both.sent, lost)
    };
    let ((sent_before, lost_before), (sent, lost)) = (of(before), of(after));
    let packets = sent.packets - sent_before.packets;
    #[allow(clippy::cast_precision_loss)] // counts of packets
    let loss = (lost - lost_before) as f64 / packets.max(1) as f64;
    Wire { bytes: sent.bytes - sent_before.bytes, packets, loss }
}
