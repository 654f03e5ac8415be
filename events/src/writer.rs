//! The thread that writes what was recorded.

use std::{
    io,
    sync::Arc,
    thread,
    time::{Duration, Instant, SystemTime},
};

use crate::{
    file::Lines,
    home::Home,
    metrics::Metrics,
    queue::{Queue, Recorded, wall_ms},
    relay::{Broker, Relay, Step},
    segment::Record,
};

/// Taken at a time.
const BATCH_BYTES: usize = 1 << 20;
/// A disk that does not write is tried again after this.
const RETRY: Duration = Duration::from_millis(500);
/// At the end it is tried so often.
const LAST_TRIES: usize = 3;
/// At the end Kafka may take so long; what is left is sent at the next start.
const LAST_DELIVERIES: Duration = Duration::from_secs(5);
/// How long it waits for what comes next.
const IDLE: Duration = Duration::from_millis(200);
/// While something is on its way to Kafka, after which it is looked at what became of it.
const LOOK: Duration = Duration::from_millis(10);

/// What every sink needs.
pub(crate) struct Writing {
    pub(crate) queue: Arc<Queue>,
    pub(crate) home: Home,
    pub(crate) node: String,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) sync: Duration,
}

impl Writing {
    fn json(&self, recorded: &Recorded) -> Vec<u8> {
        let id = self.home.id(recorded.number);
        recorded.event.to_json(&id, recorded.at_ms, &self.node)
    }

    /// Does it until it succeeds; at the end of the process a few times. `None`: it did not.
    fn insist<T>(&self, last: bool, mut work: impl FnMut() -> io::Result<T>) -> Option<T> {
        let mut failed = 0;
        loop {
            match work() {
                Ok(done) => {
                    if failed > 0 {
                        tracing::info!("events are written again");
                    }
                    return Some(done);
                }
                Err(error) => {
                    self.metrics.write_errors.increment(1);
                    if failed == 0 {
                        let dir = self.home.dir().display();
                        tracing::error!(%error, %dir, "events cannot be written; they wait in memory");
                    }
                    failed += 1;
                    if last && failed == LAST_TRIES {
                        return None;
                    }
                    thread::sleep(RETRY);
                    self.metrics.queue_bytes.set(self.queue.bytes() as f64);
                }
            }
        }
    }

    pub(crate) fn into_files(self, mut lines: Lines) {
        let (mut synced, mut wait) = (Instant::now(), IDLE);
        loop {
            let (taken, last) = self.queue.take(BATCH_BYTES, wait);
            if !taken.is_empty() {
                let mut bytes = Vec::new();
                for recorded in &taken {
                    bytes.extend(self.json(recorded));
                    bytes.push(b'\n');
                }
                self.write(&mut lines, &bytes, &taken, last);
            }
            if last || synced.elapsed() >= self.sync {
                self.insist(last, || lines.sync());
                synced = Instant::now();
            }
            self.metrics.file_bytes.set(lines.bytes() as f64);
            self.metrics.queue_bytes.set(self.queue.bytes() as f64);
            if last {
                return;
            }
            let left = self.sync.saturating_sub(synced.elapsed());
            wait = if lines.is_synced() { IDLE } else { left.min(IDLE) };
        }
    }

    /// Writes the lines of events, over as many files as it takes.
    fn write(&self, lines: &mut Lines, mut bytes: &[u8], mut events: &[Recorded], last: bool) {
        while !bytes.is_empty() {
            let Some(taken) = self.insist(last, || lines.append(bytes, SystemTime::now())) else {
                return self.metrics.lost.increment(events.len() as u64);
            };
            let (written, rest) = bytes.split_at(taken);
            // Each is one line.
            let count = written.iter().filter(|byte| **byte == b'\n').count();
            let (done, left) = events.split_at(count.min(events.len()));
            let now = wall_ms();
            done.iter().for_each(|r| self.metrics.delivered(r.at_ms, now));
            (bytes, events) = (rest, left);
            // What is written is not written again because an old file stays.
            if let Err(error) = lines.prune() {
                self.metrics.write_errors.increment(1);
                tracing::error!(%error, "old files of events cannot be removed");
            }
        }
    }

    pub(crate) fn into_kafka<B: Broker>(self, mut relay: Relay<B>) {
        let (mut synced, mut is_quiet) = (Instant::now(), false);
        loop {
            // Where something is on its way, it is waited for that.
            let wait = if relay.is_waiting() { Duration::ZERO } else { IDLE };
            let (taken, last) = self.queue.take(BATCH_BYTES, wait);
            let is_idle = taken.is_empty();
            if !is_idle {
                self.spool(&mut relay, &taken, last);
            }
            let look = if is_idle && relay.is_waiting() { LOOK } else { Duration::ZERO };
            if self.step(&mut relay, look, &mut is_quiet).is_none() {
                thread::sleep(RETRY);
            }
            self.metrics.spilled.increment(relay.take_spilled());
            if last {
                self.finish(&mut relay);
            }
            if last || synced.elapsed() >= self.sync {
                self.insist(last, || relay.spool().sync());
                synced = Instant::now();
            }
            let waiting = if relay.is_empty() { 0 } else { relay.spool().bytes() };
            self.metrics.spill_bytes.set(waiting as f64);
            self.metrics.queue_bytes.set(self.queue.bytes() as f64);
            if last {
                return;
            }
        }
    }

    fn spool<B: Broker>(&self, relay: &mut Relay<B>, taken: &[Recorded], last: bool) {
        let record = |r: &Recorded| Record {
            at_ms: r.at_ms,
            key: r.event.user.clone().into_bytes(),
            value: self.json(r),
        };
        let records: Vec<_> = taken.iter().map(record).collect();
        match self.insist(last, || relay.append(&records)) {
            Some(kept) => self.metrics.spill_full.increment((records.len() - kept) as u64),
            None => self.metrics.lost.increment(records.len() as u64),
        }
    }

    /// `None`: the disk failed.
    fn step<B: Broker>(
        &self,
        relay: &mut Relay<B>,
        wait: Duration,
        is_quiet: &mut bool,
    ) -> Option<()> {
        let Step { delivered, refused, lost, rejected } = match relay.step(Instant::now(), wait) {
            Ok(step) => step,
            Err(error) => {
                self.metrics.write_errors.increment(1);
                tracing::error!(%error, "the spill of events cannot be read");
                return None;
            }
        };
        let now = wall_ms();
        delivered.iter().for_each(|at_ms| self.metrics.delivered(*at_ms, now));
        self.metrics.refused.increment(refused);
        self.metrics.lost.increment(lost);
        if lost > 0 {
            tracing::error!(events = lost, "the disk has lost events of the spill");
        }
        if let Some(why) = rejected {
            self.metrics.rejected.increment(1);
            // Told once until something is delivered, or each time an event is given up.
            if refused > 0 || !std::mem::replace(is_quiet, true) {
                tracing::warn!(why, given_up = refused, "Kafka rejects events");
            }
        } else if !delivered.is_empty() {
            *is_quiet = false;
        }
        Some(())
    }

    fn finish<B: Broker>(&self, relay: &mut Relay<B>) {
        let start = Instant::now();
        let mut is_quiet = true;
        while !relay.is_empty() && start.elapsed() < LAST_DELIVERIES {
            if self.step(relay, LOOK, &mut is_quiet).is_none() {
                return;
            }
        }
        if !relay.is_empty() {
            tracing::info!("some events wait on disk for the next start");
        }
    }
}
