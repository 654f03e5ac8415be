//! Checks what every receiver got: each message once, the messages of a sender in its order, and
//! the messages of a room and class in one order for all.

mod order;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use edgeway_proto::{Class, Seq};
use hdrhistogram::Histogram;
use parking_lot::Mutex;

use self::order::{Order, Segment};
use crate::{
    drive::Progress,
    stamp::{Clock, Stamp},
};

/// Latencies held by a receiver before they go into the shared histogram.
const PENDING: usize = 512;

/// Latencies are counted in microseconds up to this, with three digits.
const LATENCY_MAX_US: u64 = 600_000_000;

/// All receivers of a run together, or a part of them that is counted by itself.
pub struct Audit {
    pub clock: Clock,
    classes: [ClassAudit; Class::ALL.len()],
    /// Messages sent, by class, and their order: of all parts.
    sent: Arc<[AtomicU64; Class::ALL.len()]>,
    order: Arc<Order>,
}

struct ClassAudit {
    delivered: AtomicU64,
    duplicated: AtomicU64,
    reordered: AtomicU64,
    missed: AtomicU64,
    latency_us: Mutex<Histogram<u64>>,
}

/// What an audit found in one class, in deliveries (`sent`: in messages).
pub struct Findings {
    pub sent: u64,
    /// Different ones.
    pub delivered: u64,
    pub duplicated: u64,
    pub reordered: u64,
    /// Those that receivers were told they miss.
    pub missed: u64,
    pub latency_us: Histogram<u64>,
}

/// Of latencies in microseconds.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_MAX_US, 3).expect("the bounds are constants in range")
}

impl Audit {
    pub fn new() -> Arc<Self> {
        Self::with(Clock::start(), Arc::default(), Arc::default())
    }

    /// For receivers of the same messages that are to be counted by themselves; the order must be
    /// the same for both.
    pub fn part(&self) -> Arc<Self> {
        Self::with(self.clock, Arc::clone(&self.sent), Arc::clone(&self.order))
    }

    fn with(
        clock: Clock,
        sent: Arc<[AtomicU64; Class::ALL.len()]>,
        order: Arc<Order>,
    ) -> Arc<Self> {
        let class = || ClassAudit {
            delivered: AtomicU64::new(0),
            duplicated: AtomicU64::new(0),
            reordered: AtomicU64::new(0),
            missed: AtomicU64::new(0),
            latency_us: Mutex::new(histogram()),
        };
        Arc::new(Self { clock, classes: std::array::from_fn(|_| class()), sent, order })
    }

    /// Counts a message that a sender sends.
    pub fn sent(&self, class: Class) {
        self.sent[class.index()].fetch_add(1, Relaxed);
    }

    /// Messages of a class that were sent so far.
    pub fn messages(&self, class: Class) -> u64 {
        self.sent[class.index()].load(Relaxed)
    }

    /// Messages of a class that receivers were told they miss.
    pub fn missed(&self, class: Class) -> u64 {
        self.of(class).missed.load(Relaxed)
    }

    /// Different messages of a class delivered so far, over all receivers.
    pub fn delivered_of(&self, class: Class) -> u64 {
        self.of(class).delivered.load(Relaxed)
    }

    /// Different messages delivered so far, over all receivers and classes.
    pub fn delivered(&self) -> u64 {
        Class::ALL.iter().map(|class| self.delivered_of(*class)).sum()
    }

    /// What was found in a class. Receivers must have been flushed.
    pub fn findings(&self, class: Class) -> Findings {
        let sent = self.messages(class);
        let class = self.of(class);
        Findings {
            sent,
            delivered: class.delivered.load(Relaxed),
            duplicated: class.duplicated.load(Relaxed),
            reordered: class.reordered.load(Relaxed),
            missed: class.missed.load(Relaxed),
            latency_us: class.latency_us.lock().clone(),
        }
    }

    /// A receiver in `room`, whose senders are numbered below `senders`.
    pub fn receiver(self: &Arc<Self>, room: u32, senders: usize) -> Receiver {
        Receiver {
            audit: Arc::clone(self),
            room,
            senders,
            classes: std::array::from_fn(|_| ClassState::default()),
        }
    }

    fn of(&self, class: Class) -> &ClassAudit {
        &self.classes[class.index()]
    }
}

/// A load of which everything must be delivered: nothing is shed.
pub struct Whole<'a> {
    pub audit: &'a Audit,
    pub expected: u64,
}

impl Progress for Whole<'_> {
    fn delivered(&self) -> u64 {
        self.audit.delivered()
    }

    fn expected(&self) -> u64 {
        self.expected
    }
}

/// One receiver's memory. Not shared: each receiving task has its own.
pub struct Receiver {
    audit: Arc<Audit>,
    room: u32,
    senders: usize,
    classes: [ClassState; Class::ALL.len()],
}

#[derive(Default)]
struct ClassState {
    /// Made at the first message, so that idle receivers cost nothing.
    senders: Vec<Seen>,
    last: Option<Seq>,
    /// The part of the room's order that `last` is in.
    segment: Option<Segment>,
    pending: Pending,
}

#[derive(Default)]
struct Pending {
    delivered: u64,
    duplicated: u64,
    reordered: u64,
    missed: u64,
    latencies_us: Vec<u32>,
}

impl Receiver {
    /// Takes one delivery. `seq` is its place in the order of the room and class, where the
    /// server gives one. Returns false where the stamp names no sender of the room.
    pub fn delivered(&mut self, class: Class, seq: Option<Seq>, stamp: Stamp, now_ns: u64) -> bool {
        let state = &mut self.classes[class.index()];
        if state.senders.is_empty() {
            state.senders.resize(self.senders, Seen::default());
        }
        let Some(seen) = state.senders.get_mut(stamp.sender as usize) else { return false };
        let verdict = seen.take(stamp.n);
        let in_order = seq.is_none_or(|seq| {
            let grows = state.last.replace(seq).is_none_or(|last| last < seq);
            let order = &self.audit.order;
            grows && order.agrees(&mut state.segment, (self.room, class), seq, stamp)
        });
        let pending = &mut state.pending;
        if verdict == Verdict::Duplicate {
            pending.duplicated += 1;
            return true;
        }
        pending.delivered += 1;
        pending.reordered += u64::from(verdict == Verdict::Late || !in_order);
        let latency_us = now_ns.saturating_sub(stamp.sent_ns) / 1000;
        pending.latencies_us.push(u32::try_from(latency_us).unwrap_or(u32::MAX));
        if pending.latencies_us.len() >= PENDING {
            self.flush();
        }
        true
    }

    /// The receiver was told that it misses messages.
    pub fn missed(&mut self, class: Class, messages: u64) {
        self.classes[class.index()].pending.missed += messages;
    }

    /// Makes what was taken visible to the others. To be called when there is nothing more to
    /// read at the moment.
    pub fn flush(&mut self) {
        for class in Class::ALL {
            let pending = &mut self.classes[class.index()].pending;
            let shared = self.audit.of(class);
            for (count, total) in [
                (&mut pending.duplicated, &shared.duplicated),
                (&mut pending.reordered, &shared.reordered),
                (&mut pending.missed, &shared.missed),
                (&mut pending.delivered, &shared.delivered),
            ] {
                if *count > 0 {
                    total.fetch_add(std::mem::take(count), Relaxed);
                }
            }
            if !pending.latencies_us.is_empty() {
                let mut histogram = shared.latency_us.lock();
                for latency in pending.latencies_us.drain(..) {
                    histogram.saturating_record(u64::from(latency));
                }
            }
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.flush();
    }
}

/// Which messages of one sender have come: the next one expected, and of the 64 before it, a bit
/// each. Older ones cannot be told apart and count as late.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    next: u32,
    before: u64,
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    InOrder,
    /// After one that its sender sent later.
    Late,
    Duplicate,
}

impl Seen {
    fn take(&mut self, n: u32) -> Verdict {
        if n >= self.next {
            let by = (n - self.next).saturating_add(1);
            self.before = self.before.checked_shl(by).unwrap_or(0) | 1;
            self.next = n.saturating_add(1);
            return Verdict::InOrder;
        }
        let Some(bit) = 1u64.checked_shl(self.next - 1 - n) else { return Verdict::Late };
        if self.before & bit != 0 {
            return Verdict::Duplicate;
        }
        self.before |= bit;
        Verdict::Late
    }
}

type SegmentKey = (u32, Class, u64, u64);
type SegmentMap = HashMap<SegmentKey, order::Places>;

#[cfg(test)]
#[path = "audit/tests.rs"]
mod tests;
