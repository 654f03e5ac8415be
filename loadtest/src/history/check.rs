//! Reads every log through: each entry there, once, in order.

use anyhow::{Context, Result};
use edgeway_backend::store::Store;
use edgeway_proto::Seq;
use tokio::task::yield_now;

use super::logs::Log;
use crate::{drive, report::Counts};

/// Of one read.
const ENTRIES: usize = 2000;
const BYTES: usize = 4 << 20;

/// What is there, compared with what was answered as stored.
pub async fn check(store: &dyn Store, logs: &[std::sync::Arc<Log>]) -> Result<Counts> {
    let mut counts = Counts::default();
    let stored = logs.iter().map(|log| log.stored()).sum();
    let bar = drive::bar(stored, "entries checked");
    for log in logs {
        let mut seen = Seen::default();
        let mut after = Seq::ZERO;
        loop {
            let page = store.read(log.id, after, ENTRIES, BYTES, 0).await;
            let page = page.context("a log could not be read")?;
            page.records.iter().for_each(|record| seen.entry(record.seq.counter));
            bar.inc(page.records.len() as u64);
            after = page.upto;
            if !page.more {
                break;
            }
            yield_now().await;
        }
        seen.add_to(&mut counts, log.stored());
    }
    bar.finish_and_clear();
    Ok(counts)
}

/// One log's entries.
#[derive(Default)]
struct Seen {
    last: u64,
    there: u64,
    again: u64,
    back: u64,
}

impl Seen {
    fn entry(&mut self, counter: u64) {
        if counter > self.last {
            self.there += 1;
            self.last = counter;
        } else if counter == self.last {
            self.again += 1;
        } else {
            self.back += 1;
        }
    }

    fn add_to(&self, counts: &mut Counts, stored: u64) {
        counts.sent += stored;
        counts.expected += stored;
        counts.delivered += self.there;
        counts.lost += stored.saturating_sub(self.there);
        counts.duplicated += self.again;
        counts.reordered += self.back;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(counters: &[u64], stored: u64) -> (bool, u64) {
        let (mut seen, mut counts) = (Seen::default(), Counts::default());
        counters.iter().for_each(|counter| seen.entry(*counter));
        seen.add_to(&mut counts, stored);
        (counts.held(), counts.lost)
    }

    #[test]
    fn what_is_missing_twice_or_out_of_order_does_not_hold() {
        assert_eq!(held(&[1, 2, 3], 3), (true, 0));
        assert_eq!(held(&[1, 3], 3), (false, 1));
        assert_eq!(held(&[1, 2, 2, 3], 3), (false, 0));
        assert_eq!(held(&[1, 3, 2], 3), (false, 1));
        assert_eq!(held(&[1, 2, 3, 4], 3), (false, 0), "more than was answered");
    }
}
