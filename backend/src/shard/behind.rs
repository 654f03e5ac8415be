//! Chat on its way to history. Nothing waits for it, so it is stored in batches when there is
//! time; where the store is away for long the oldest is given up, and counted.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use edgeway_proto::Seq;

use crate::store::{Append, LogId};

/// Chat of one shard that is not stored yet.
#[derive(Debug)]
pub(super) struct Behind {
    queue: VecDeque<Append>,
    queue_bytes: usize,
    bytes_max: usize,
    batch_bytes: usize,
    interval: Duration,
    /// The batch that is being stored, or is to be tried again.
    batch: Vec<Append>,
    storing: bool,
    not_before: Duration,
}

/// Positions up to which logs are settled, by group.
pub(super) type Settled = HashMap<u64, Seq>;

/// What a record costs beside its frame, roughly.
const RECORD_BYTES: usize = 160;

fn cost(append: &Append) -> usize {
    append.record.frame.len() + RECORD_BYTES
}

impl Behind {
    pub(super) fn new(bytes_max: usize, batch_bytes: usize, interval: Duration) -> Self {
        Self {
            queue: VecDeque::new(),
            queue_bytes: 0,
            bytes_max,
            batch_bytes: batch_bytes.max(1),
            interval,
            batch: Vec::new(),
            storing: false,
            not_before: Duration::ZERO,
        }
    }

    /// Adds records. What there is no room for any more is given up: how many, and where they were.
    pub(super) fn push(&mut self, records: impl Iterator<Item = Append>) -> (u64, Settled) {
        for append in records {
            self.queue_bytes += cost(&append);
            self.queue.push_back(append);
        }
        let (mut lost, mut settled) = (0, Settled::new());
        while self.queue_bytes > self.bytes_max {
            let Some(oldest) = self.queue.pop_front() else { break };
            self.queue_bytes -= cost(&oldest);
            settle(&mut settled, &oldest);
            lost += 1;
        }
        (lost, settled)
    }

    pub(super) fn bytes(&self) -> usize {
        self.queue_bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.batch.is_empty()
    }

    /// When [`Self::start`] will have something.
    pub(super) fn due(&self) -> Option<Duration> {
        (!self.storing && !self.is_empty()).then_some(self.not_before)
    }

    /// The next batch to store; none while one is being stored.
    pub(super) fn start(&mut self, now: Duration) -> Option<Vec<Append>> {
        self.due().filter(|due| *due <= now)?;
        // What is tried again stays as it is.
        let mut bytes = if self.batch.is_empty() { 0 } else { self.batch_bytes };
        while bytes < self.batch_bytes {
            let Some(append) = self.queue.pop_front() else { break };
            self.queue_bytes -= cost(&append);
            bytes += cost(&append);
            self.batch.push(append);
        }
        self.storing = true;
        self.not_before = now + self.interval;
        Some(self.batch.clone())
    }

    /// The batch is stored.
    pub(super) fn stored(&mut self) -> Settled {
        self.storing = false;
        let mut settled = Settled::new();
        self.batch.drain(..).for_each(|append| settle(&mut settled, &append));
        settled
    }

    /// The batch is to be tried again.
    pub(super) fn failed(&mut self, retry_at: Duration) {
        self.storing = false;
        self.not_before = retry_at;
    }

    /// A log takes no more: its records are given up, the others are tried again.
    pub(super) fn give_up(&mut self, log: LogId) -> (u64, Settled) {
        self.storing = false;
        let (mut lost, mut settled) = (0, Settled::new());
        self.batch.retain(|append| {
            let keep = append.log != log;
            if !keep {
                settle(&mut settled, append);
                lost += 1;
            }
            keep
        });
        (lost, settled)
    }
}

fn settle(settled: &mut Settled, append: &Append) {
    let seq = settled.entry(append.log.group).or_default();
    *seq = append.record.seq.max(*seq);
}
