//! One direction of a client's link: what becomes of each packet.
//!
//! A pure core: no I/O, no clock, no state of chance. In order: the queue before the bottleneck
//! (tail drop), the bottleneck, loss on the air, the delay. So a packet that is lost has used the
//! link, as in a real radio.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use super::{
    counters::{Cause, LinkCounters},
    draw::{Direction, Draw, Purpose},
    profile::{Bottleneck, LinkSpec},
    timeline::Outage,
    units::Queue,
    weather::{BurstClock, JitterClock, Spells},
};

/// A copy arrives up to this much after its packet.
const COPY_LATE: Duration = Duration::from_millis(2);

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fate {
    /// It does not arrive.
    Lost(Cause),
    /// It arrives.
    Arrives {
        /// When, on the clock of the caller.
        at: Duration,
        /// When it arrives once more.
        copy: Option<Duration>,
    },
}

/// When a bottleneck will have sent all it has, on the clock of the caller. Clones are the same
/// bottleneck: one that several clients share.
#[derive(Debug, Clone, Default)]
pub struct Waist(Arc<AtomicU64>);

impl Waist {
    fn free_at(&self) -> Duration {
        Duration::from_nanos(self.0.load(Relaxed))
    }

    fn busy_until(&self, at: Duration) {
        self.0.store(u64::try_from(at.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }
}

/// One direction of a client's link.
#[derive(Debug, Clone)]
pub struct Link {
    spec: LinkSpec,
    loss: Draw,
    state_loss: Draw,
    duplicate: Draw,
    copy_delay: Draw,
    dying: Draw,
    bursts: Option<BurstClock>,
    /// As they were at the start of the schedule, and as they are.
    spells: Option<(Spells, Spells)>,
    jitter: Option<JitterClock>,
    /// Number of the next packet.
    next: u64,
    /// Number of the next packet on a dying path.
    next_dying: u64,
    waist: Waist,
    /// When the last packet arrives; nothing overtakes it where order is kept.
    last_arrival: Duration,
    /// What was counted.
    pub counters: LinkCounters,
}

impl Link {
    /// A link of a client's own at the start of its schedule.
    pub fn new(spec: &LinkSpec, seed: u64, client: u32, direction: Direction) -> Self {
        Self::through(Waist::default(), spec, seed, client, direction)
    }

    /// The same, with this bottleneck.
    pub fn through(
        waist: Waist,
        spec: &LinkSpec,
        seed: u64,
        client: u32,
        direction: Direction,
    ) -> Self {
        let draw = |purpose| Draw::new(seed, client, Some(direction), purpose, 0);
        Self {
            loss: draw(Purpose::Loss),
            state_loss: draw(Purpose::StateLoss),
            duplicate: draw(Purpose::Duplicate),
            copy_delay: draw(Purpose::CopyDelay),
            dying: draw(Purpose::Dying),
            bursts: spec.bursts.as_ref().map(|b| BurstClock::new(b, seed, client, direction)),
            spells: spec
                .gilbert_elliott
                .as_ref()
                .map(|model| Spells::new(model, seed, client, direction))
                .map(|spells| (spells.clone(), spells)),
            jitter: spec.jitter.as_ref().map(|j| JitterClock::new(j, seed, client, direction)),
            spec: spec.clone(),
            next: 0,
            next_dying: 0,
            waist,
            last_arrival: Duration::ZERO,
            counters: LinkCounters::default(),
        }
    }

    /// Starts the schedule anew: the fates of packets and the weather are those from the first
    /// packet on. What waits before the bottleneck stays.
    pub fn restart(&mut self) {
        self.next = 0;
        self.next_dying = 0;
        if let Some((initial, now)) = &mut self.spells {
            now.clone_from(initial);
        }
    }

    /// A packet that something refuses before it gets to the link; it has its number all the same.
    pub fn refuse(&mut self, bytes: u64, cause: Cause) -> Fate {
        self.next += 1;
        self.counters.offered(bytes);
        self.counters.lost(cause, bytes);
        Fate::Lost(cause)
    }

    /// Whether the next packet of a path that is dying gets through at all.
    pub fn survives(&mut self, loss: f64) -> Result<(), Cause> {
        if loss <= 0.0 {
            return Ok(());
        }
        let number = self.next_dying;
        self.next_dying += 1;
        if self.dying.hits(number, loss) { Err(Cause::OldPath) } else { Ok(()) }
    }

    /// A packet that is put on the link. `now` never goes back; the schedule began at `begun`, and
    /// `outage` says whether it has a blackout at a time of the schedule.
    pub fn send(
        &mut self,
        now: Duration,
        begun: Duration,
        bytes: u64,
        outage: impl Fn(Duration) -> Option<Outage>,
    ) -> Fate {
        let number = self.next;
        self.next += 1;
        self.counters.offered(bytes);
        let fate = match self.pass(number, now, begun, bytes, outage) {
            Ok(at) => Fate::Arrives {
                at,
                copy: (self.duplicate.hits(number, self.spec.duplicate))
                    .then(|| at + self.copy_delay.time(number, COPY_LATE)),
            },
            Err(cause) => Fate::Lost(cause),
        };
        match fate {
            Fate::Lost(cause) => self.counters.lost(cause, bytes),
            Fate::Arrives { copy: Some(_), .. } => self.counters.duplicated += 1,
            Fate::Arrives { .. } => {}
        }
        fate
    }

    /// When the packet arrives, or why it does not.
    fn pass(
        &mut self,
        number: u64,
        now: Duration,
        begun: Duration,
        bytes: u64,
        outage: impl Fn(Duration) -> Option<Outage>,
    ) -> Result<Duration, Cause> {
        let free_at = self.waist.free_at();
        let backlog = free_at.saturating_sub(now);
        if let Some(bottleneck) = &self.spec.bottleneck
            && !fits(bottleneck, backlog, bytes)
        {
            return Err(Cause::Queue);
        }
        self.counters.waited(backlog);
        let mut sent = now.max(free_at);
        let outage = outage(sent.saturating_sub(begun));
        if let Some(Outage { until, held: true }) = outage {
            sent = begun + until;
        }
        if let Some(bottleneck) = &self.spec.bottleneck {
            sent += bottleneck.rate.time_of(bytes);
        }
        self.waist.busy_until(sent);
        // A blackout takes what begins to be sent in it; the rest of the weather is that of the
        // moment at which the packet has been sent.
        let time = sent.saturating_sub(begun);
        if matches!(outage, Some(Outage { held: false, .. })) {
            return Err(Cause::Blackout);
        }
        if self.bursts.as_ref().is_some_and(|bursts| bursts.covers(time)) {
            return Err(Cause::Burst);
        }
        if let Some((_, spells)) = &mut self.spells {
            let share = spells.loss_at(time);
            if self.state_loss.hits(number, share) {
                return Err(Cause::Burst);
            }
        }
        if self.loss.hits(number, self.spec.loss) {
            return Err(Cause::Random);
        }
        let jitter = self.jitter.as_ref().map_or(Duration::ZERO, |jitter| jitter.at(time));
        let mut arrival = sent + self.spec.delay + jitter;
        if !self.spec.jitter.as_ref().is_some_and(|jitter| jitter.reorder) {
            arrival = arrival.max(self.last_arrival);
        }
        self.last_arrival = arrival;
        Ok(arrival)
    }
}

/// Whether a packet still fits behind what takes `backlog` to send. The packet that is being sent
/// counts as waiting, so a queue of 1 s delays nothing by more than 1 s.
fn fits(bottleneck: &Bottleneck, backlog: Duration, bytes: u64) -> bool {
    let room = match bottleneck.queue {
        Queue::Time(time) => time,
        Queue::Bytes(limit) => bottleneck.rate.time_of(limit),
    };
    backlog + bottleneck.rate.time_of(bytes) <= room
}

#[cfg(test)]
mod tests;
