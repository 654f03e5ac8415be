//! From the spool to Kafka: in order, and as much at a time as the window has room for.
//!
//! While Kafka is away its client tries again by itself, as often as it takes, so that nothing is sent twice; the window
//! is full then, and all else stays on disk. Only where Kafka rejects something is the client begun anew, and what it
//! held is sent again.

use std::{
    io,
    time::{Duration, Instant},
};

use crate::{
    segment::Record,
    spool::{Found, Spool},
    window::{Limits, Window},
};

/// A client of Kafka.
pub(crate) trait Broker {
    /// Takes an event; what became of it comes by [`Self::poll`].
    fn send(&mut self, position: u64, record: &Record) -> Result<(), NotSent>;

    /// What became of events, where need be after so long.
    fn poll(&mut self, wait: Duration) -> Vec<Outcome>;

    /// Begins anew and forgets all that it was given; no outcome of those comes any more. Until then, once it has
    /// rejected an event, it delivers no later one of the same key.
    fn restart(&mut self) -> Result<(), String>;
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NotSent {
    /// It holds as much as it may.
    Full,
    Rejected(Rejection),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Delivered(u64),
    /// The position, where it is of one event.
    Rejected(Option<u64>, Rejection),
}

/// Why Kafka does not take an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rejection {
    pub(crate) why: String,
    /// It is the event, which is no better later, and not the topic or a right.
    pub(crate) of_event: bool,
}

/// What a step did, for metrics.
#[derive(Debug, Default)]
pub(crate) struct Step {
    /// When those were recorded that are delivered.
    pub(crate) delivered: Vec<u64>,
    /// Events that Kafka will never take.
    pub(crate) refused: u64,
    /// Events that the disk has lost.
    pub(crate) lost: u64,
    /// Kafka has rejected something.
    pub(crate) rejected: Option<String>,
}

/// After a rejection: the first pause, and the longest.
const PAUSES: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(10)];

/// See the module.
#[derive(Debug)]
pub(crate) struct Relay<B> {
    spool: Spool,
    window: Window,
    broker: B,
    /// Below this position they are sent one by one, to find the one that is rejected.
    alone_below: u64,
    pause: Duration,
    resume_at: Option<Instant>,
    /// Up to here it was counted what had to wait on disk.
    seen: u64,
}

impl<B: Broker> Relay<B> {
    pub(crate) fn new(spool: Spool, broker: B, limits: Limits) -> Self {
        let (start, end) = (spool.start(), spool.end());
        let window = Window::new(start, limits);
        Self { spool, window, broker, alone_below: 0, pause: PAUSES[0], resume_at: None, seen: end }
    }

    /// Appends as many as there is room for; gives how many.
    pub(crate) fn append(&mut self, records: &[Record]) -> io::Result<usize> {
        self.spool.append(records)
    }

    pub(crate) fn spool(&mut self) -> &mut Spool {
        &mut self.spool
    }

    /// Nothing is to be delivered.
    pub(crate) fn is_empty(&self) -> bool {
        self.window.start() == self.spool.end()
    }

    /// Something is on its way.
    pub(crate) const fn is_waiting(&self) -> bool {
        self.window.in_flight() > 0
    }

    /// Those that were appended since this was asked last and had to stay on disk.
    pub(crate) fn take_spilled(&mut self) -> u64 {
        let from = std::mem::replace(&mut self.seen, self.spool.end());
        self.spool.end() - self.window.next().clamp(from, self.spool.end())
    }

    /// Takes what became of those that were sent, and sends more. Waits for the first of that for so long at most.
    pub(crate) fn step(&mut self, now: Instant, wait: Duration) -> io::Result<Step> {
        let mut step = Step::default();
        let mut rejected = None;
        for outcome in self.broker.poll(wait) {
            match outcome {
                Outcome::Delivered(position) => {
                    step.delivered.extend(self.window.done(position));
                    self.pause = PAUSES[0];
                }
                // What says more goes before what only follows from it.
                Outcome::Rejected(position, why) if why.of_event || rejected.is_none() => {
                    rejected = Some((position, why));
                }
                Outcome::Rejected(..) => {}
            }
        }
        if rejected.is_none() && self.resume_at.is_none_or(|at| at <= now) {
            self.resume_at = None;
            rejected = self.pump(&mut step)?;
        }
        if let Some((position, why)) = rejected {
            self.rejected(position, why, now, &mut step);
        }
        if step.refused > 0 {
            self.give_up()?;
        }
        self.spool.delivered(self.window.start())?;
        Ok(step)
    }

    fn pump(&mut self, step: &mut Step) -> io::Result<Option<(Option<u64>, Rejection)>> {
        while self.window.has_room() && self.window.next() < self.spool.end() {
            let position = self.window.next();
            if position < self.alone_below && self.window.in_flight() > 0 {
                break;
            }
            let record = match self.spool.read(position)? {
                Found::Record(record) => record,
                Found::Lost(next) => {
                    step.lost += next.min(self.spool.end()) - position;
                    self.window.give_up_to(next.min(self.spool.end()));
                    continue;
                }
            };
            match self.broker.send(position, &record) {
                Ok(()) => self.window.sent(record.at_ms, record.len()),
                Err(NotSent::Full) => break,
                // It has not left, so none behind it has.
                Err(NotSent::Rejected(why)) if why.of_event => {
                    if self.window.in_flight() > 0 {
                        break;
                    }
                    step.refused += 1;
                    step.rejected = Some(why.why);
                    self.window.give_up_to(position + 1);
                    self.give_up()?;
                }
                Err(NotSent::Rejected(why)) => return Ok(Some((None, why))),
            }
        }
        Ok(None)
    }

    /// What is given up is written down before anything behind it is sent: after a crash it would else be sent again,
    /// and if Kafka takes it then, behind those.
    fn give_up(&mut self) -> io::Result<()> {
        self.spool.delivered(self.window.start())?;
        self.spool.sync()
    }

    fn rejected(&mut self, at: Option<u64>, why: Rejection, now: Instant, step: &mut Step) {
        if why.of_event {
            match at.filter(|_| self.window.in_flight() == 1) {
                Some(position) => {
                    step.refused += u64::from(self.window.done(position).is_some());
                }
                // Kafka takes and rejects many in one: which it is shows when each is alone.
                None => self.alone_below = self.window.next(),
            }
        }
        step.rejected = Some(why.why);
        self.window.rewind();
        self.resume_at = Some(now + self.pause);
        self.pause = (self.pause * 2).min(PAUSES[1]);
        if let Err(why) = self.broker.restart() {
            tracing::error!(why, "the client of Kafka cannot be begun anew");
        }
    }
}

#[cfg(test)]
#[path = "relay_tests.rs"]
mod tests;
