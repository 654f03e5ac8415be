//! Pages as clients ask for them, while others append.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use edgeway_backend::store::{LogPage, Store};
use edgeway_proto::{Seq, limits};
use hdrhistogram::Histogram;
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use tokio::time::{Instant, sleep_until};

use super::{
    append::{Pace, us},
    logs::{EPOCH, Log},
};
use crate::audit::histogram;

/// Pages that are read at a time: what waits beyond counts as the store's time.
pub const READERS: u32 = 16;

/// Where pages begin.
pub const PLACES: [&str; 3] = ["beginning", "middle", "end"];

/// What came of reading.
pub struct Read {
    /// By place.
    pub latency_us: [Histogram<u64>; 3],
    pub pages: u64,
    pub entries: u64,
    /// Pages that were not what they had to be, in words.
    pub wrong: Vec<String>,
}

impl Default for Read {
    fn default() -> Self {
        let latency_us = [histogram(), histogram(), histogram()];
        Self { latency_us, pages: 0, entries: 0, wrong: Vec::new() }
    }
}

impl Read {
    pub fn add(&mut self, other: Self) {
        for (all, one) in self.latency_us.iter_mut().zip(&other.latency_us) {
            all.add(one).unwrap_or(()); // the same bounds
        }
        self.pages += other.pages;
        self.entries += other.entries;
        self.wrong.extend(other.wrong);
    }
}

/// Problems that each reader tells.
const TOLD: usize = 3;

/// One of those who read.
pub struct Reader {
    pub store: Arc<dyn Store>,
    pub logs: Arc<Vec<Arc<Log>>>,
    /// Pages that all readers have begun so far.
    pub begun: Arc<AtomicU64>,
    pub seed: u64,
}

impl Reader {
    /// Takes part in reading `rate` pages a second.
    pub async fn run(self, start: Instant, end: Instant, rate: f64) -> Result<Read> {
        let mut rng = SmallRng::seed_from_u64(self.seed);
        let mut done = Read::default();
        loop {
            let n = self.begun.fetch_add(1, Relaxed);
            let Some(due) = (Pace { start, end, rate, n }).next() else { return Ok(done) };
            let waited = due > Instant::now();
            if waited {
                sleep_until(due).await;
            }
            let came = if waited { Instant::now() } else { due };
            let place = usize::try_from(n % PLACES.len() as u64).unwrap_or_default();
            let log = &self.logs[rng.random_range(0..self.logs.len())];
            self.page(log, place, came, &mut done).await?;
        }
    }

    async fn page(&self, log: &Log, place: usize, came: Instant, done: &mut Read) -> Result<()> {
        let limit = limits::PAGE_MESSAGES;
        let stored = log.stored();
        let after = [0, stored / 2, stored.saturating_sub(limit)][place];
        let page = self.store.read(
            log.id,
            Seq::new(EPOCH, after),
            usize::try_from(limit)?,
            limits::PAGE_BYTES,
            0,
        );
        let page = page.await.context("a page could not be read")?;
        let took: Duration = came.elapsed();
        done.latency_us[place].saturating_record(us(took));
        done.pages += 1;
        done.entries += page.records.len() as u64;
        if let Some(wrong) = wrong(&page, after, (stored - after).min(limit))
            && done.wrong.len() < TOLD
        {
            done.wrong.push(format!("a page from the {}: {wrong}", PLACES[place]));
        }
        Ok(())
    }
}

/// What is wrong with a page of what follows `after`, of which `there` entries at least are.
fn wrong(page: &LogPage, after: u64, there: u64) -> Option<String> {
    let places = page.records.iter().map(|record| record.seq.counter);
    if let Some((wanted, got)) = (after + 1..).zip(places).find(|(wanted, got)| wanted != got) {
        return Some(format!("entry {got} where {wanted} had to be"));
    }
    let entries = page.records.len() as u64;
    // Large messages fill a page before there are as many.
    (entries < there && !page.more).then(|| format!("{entries} entries of {there}"))
}

#[cfg(test)]
mod tests {
    use edgeway_backend::store::Record;

    use super::*;

    fn page(counters: impl IntoIterator<Item = u64>, more: bool) -> LogPage {
        let record = |counter| Record {
            seq: Seq::new(EPOCH, counter),
            origin: Default::default(),
            time_ms: 0,
            expires_ms: 0,
            key: String::new(),
            frame: Default::default(),
        };
        let records = counters.into_iter().map(record).collect();
        LogPage { records, upto: Seq::ZERO, more, truncated: false }
    }

    #[test]
    fn a_page_must_hold_what_was_there_in_order() {
        for (page, expected) in [
            (page(11..=15, false), None),
            (page(11..=17, false), None),
            (page(11..=12, true), None),
            (page(11..=14, false), Some("4 entries of 5")),
            (page([11, 13], true), Some("entry 13 where 12 had to be")),
            (page(12..=16, false), Some("entry 12 where 11")),
        ] {
            let told = wrong(&page, 10, 5);
            let fits = match (&told, expected) {
                (Some(told), Some(expected)) => told.contains(expected),
                (told, expected) => told.is_none() && expected.is_none(),
            };
            assert!(fits, "{told:?} is not {expected:?}");
        }
    }
}
