//! Appends as the shards of a backend make them: one commit under way, what comes meanwhile makes up
//! the next.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result};
use edgeway_backend::store::{Append, Store};
use hdrhistogram::Histogram;
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use tokio::time::{Instant, sleep_until};

use super::logs::{Log, Scribe};
use crate::audit::histogram;

/// Bytes of one commit, as a backend has it, and what an entry is counted for beside its payload.
const COMMIT_BYTES: usize = 4 << 20;
const ENTRY_BYTES: usize = 200;

/// One that appends to logs of its own.
pub struct Appender {
    store: Arc<dyn Store>,
    logs: Vec<Arc<Log>>,
    scribe: Scribe,
    rng: SmallRng,
    /// Entries of one commit at most.
    most: usize,
    /// Entries for each log of the next commit; empty between commits.
    counts: Vec<u64>,
}

/// What came of appending.
pub struct Appended {
    /// From a message's coming to the answer.
    pub latency_us: Histogram<u64>,
    /// From a commit's beginning to the answer.
    pub commit_us: Histogram<u64>,
    pub entries: u64,
    pub commits: u64,
    /// How long after its time a message came at most: the timer's and the generator's fault.
    pub late: Duration,
}

/// When appending as fast as possible ends.
#[derive(Debug, Clone, Copy)]
pub enum Until {
    /// So many entries in all.
    Entries(u64),
    Time(Instant),
}

impl Default for Appended {
    fn default() -> Self {
        let (latency_us, commit_us) = (histogram(), histogram());
        Self { latency_us, commit_us, entries: 0, commits: 0, late: Duration::ZERO }
    }
}

impl Appended {
    pub fn add(&mut self, other: &Self) {
        // The bounds are the same, so that nothing is out of them.
        self.latency_us.add(&other.latency_us).unwrap_or(());
        self.commit_us.add(&other.commit_us).unwrap_or(());
        self.entries += other.entries;
        self.commits += other.commits;
        self.late = self.late.max(other.late);
    }

    fn committed(&mut self, came: &[Instant], began: Instant) {
        let now = Instant::now();
        self.commit_us.saturating_record(us(now - began));
        came.iter().for_each(|came| self.latency_us.saturating_record(us(now - *came)));
        self.entries += came.len() as u64;
        self.commits += 1;
    }
}

pub fn us(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

impl Appender {
    pub fn new(store: Arc<dyn Store>, logs: Vec<Arc<Log>>, size: usize, seed: u64) -> Self {
        Self {
            store,
            counts: vec![0; logs.len()],
            logs,
            scribe: Scribe::new(size, seed),
            rng: SmallRng::seed_from_u64(seed),
            most: (COMMIT_BYTES / (size + ENTRY_BYTES)).max(1),
        }
    }

    /// `rate` messages a second, at even times.
    pub async fn paced(&mut self, start: Instant, end: Instant, rate: f64) -> Result<Appended> {
        let mut done = Appended::default();
        let mut pace = Pace { start, end, rate, n: 0 };
        let mut came = Vec::new();
        while let Some(next) = pace.next() {
            let waited = next > Instant::now();
            if waited {
                sleep_until(next).await;
            }
            let now = Instant::now();
            came.clear();
            while came.len() < self.most
                && let Some(due) = pace.next().filter(|due| *due <= now)
            {
                pace.n += 1;
                // What waited for nothing comes when the timer lets it, and not before.
                done.late = done.late.max(if waited { now - due } else { Duration::ZERO });
                came.push(if waited { now } else { due });
            }
            self.commit(&came, &mut done).await?;
        }
        Ok(done)
    }

    /// Commits of `batch`, each after the other.
    pub async fn flat_out(&mut self, batch: u32, until: Until) -> Result<Appended> {
        let mut done = Appended::default();
        let mut came = Vec::new();
        loop {
            let left = match until {
                Until::Entries(entries) => entries - done.entries,
                Until::Time(end) if Instant::now() < end => u64::MAX,
                Until::Time(_) => 0,
            };
            let count = u64::from(batch).min(left).min(self.most as u64);
            if count == 0 {
                return Ok(done);
            }
            came.clear();
            came.resize(usize::try_from(count)?, Instant::now());
            self.commit(&came, &mut done).await?;
        }
    }

    async fn commit(&mut self, came: &[Instant], done: &mut Appended) -> Result<()> {
        let batch = self.batch(came.len());
        let began = Instant::now();
        self.store.append(batch).await.context("an append failed")?;
        done.committed(came, began);
        for (log, count) in self.logs.iter().zip(&mut self.counts) {
            log.set_stored(log.stored() + std::mem::take(count));
        }
        Ok(())
    }

    /// Messages of logs at random; what is of one log stands together.
    fn batch(&mut self, count: usize) -> Vec<Append> {
        for _ in 0..count {
            let log = self.rng.random_range(0..self.counts.len());
            self.counts[log] += 1;
        }
        let mut batch = Vec::with_capacity(count);
        for (log, count) in self.logs.iter().zip(&self.counts) {
            if *count > 0 {
                self.scribe.write(log.id, log.stored(), *count, &mut batch);
            }
        }
        batch
    }
}

/// Even times.
pub struct Pace {
    pub start: Instant,
    pub end: Instant,
    /// A second.
    pub rate: f64,
    /// How many are over.
    pub n: u64,
}

impl Pace {
    /// The next one, unless the end comes before.
    #[allow(clippy::cast_precision_loss)] // 2^53 of them are enough
    pub fn next(&self) -> Option<Instant> {
        let at = self.start + Duration::from_secs_f64(self.n as f64 / self.rate);
        (at < self.end).then_some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_is_even_and_ends() {
        let start = Instant::now();
        let mut pace = Pace { start, end: start + Duration::from_secs(2), rate: 4.0, n: 0 };
        let mut times = Vec::new();
        while let Some(at) = pace.next() {
            times.push((at - start).as_millis());
            pace.n += 1;
        }
        assert_eq!(times, [0, 250, 500, 750, 1000, 1250, 1500, 1750]);
    }
}
