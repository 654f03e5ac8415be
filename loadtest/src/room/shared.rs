//! What the members of a run share.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::audit::{Audit, histogram};

/// Problems that are told one by one.
const PROBLEMS: usize = 10;

/// What the members of a run share.
pub struct Shared {
    /// Members who read all the time.
    pub audit: Arc<Audit>,
    /// Those who stop in between.
    pub stalled: Arc<Audit>,
    /// False during the warm-up.
    pub recording: AtomicBool,
    /// Whether those who stop are stopped.
    pub stop: watch::Sender<bool>,
    pub phases: Phases,
    pub problems: Problems,
}

impl Default for Shared {
    fn default() -> Self {
        let audit = Audit::new();
        Self {
            stalled: audit.part(),
            audit,
            recording: AtomicBool::new(false),
            stop: watch::Sender::new(false),
            phases: Phases::default(),
            problems: Problems::default(),
        }
    }
}

/// Latencies of signals by the phase of the run in which they were sent.
#[derive(Default)]
pub struct Phases {
    /// Names and beginnings, in nanoseconds of the run's clock, in order.
    starts: OnceLock<Vec<(&'static str, u64)>>,
    latency_us: Mutex<Vec<[Histogram<u64>; 2]>>,
}

impl Phases {
    /// To be called once, before the first signal.
    pub fn plan(&self, starts: Vec<(&'static str, u64)>) {
        *self.latency_us.lock() = starts.iter().map(|_| [histogram(), histogram()]).collect();
        self.starts.get_or_init(|| starts);
    }

    /// A signal came, which the server had accepted `up_us` after it was sent.
    pub fn record(&self, sent_ns: u64, now_ns: u64, up_us: u64) {
        let Some(starts) = self.starts.get() else { return };
        let Some(phase) = starts.iter().rposition(|(_, start)| *start <= sent_ns) else { return };
        if let Some([whole, up]) = self.latency_us.lock().get_mut(phase) {
            whole.saturating_record(now_ns.saturating_sub(sent_ns) / 1000);
            up.saturating_record(up_us);
        }
    }

    /// Each phase with its latencies: the whole way, and the way to the server.
    pub fn all(&self) -> Vec<(&'static str, [Histogram<u64>; 2])> {
        let names = self.starts.get().into_iter().flatten().map(|(name, _)| *name);
        names.zip(self.latency_us.lock().iter().cloned()).collect()
    }
}

/// What should not happen, in words: the first ones, and how many more.
#[derive(Default)]
pub struct Problems {
    first: Mutex<Vec<String>>,
    more: AtomicU64,
}

impl Problems {
    pub fn add(&self, problem: impl FnOnce() -> String) {
        let mut first = self.first.lock();
        if first.len() < PROBLEMS {
            first.push(problem());
        } else {
            self.more.fetch_add(1, Relaxed);
        }
    }

    pub fn take(&self) -> Vec<String> {
        let mut all = std::mem::take(&mut *self.first.lock());
        match self.more.swap(0, Relaxed) {
            0 => {}
            more => all.push(format!("and {more} more of that kind")),
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_counts_in_the_phase_in_which_it_was_sent() {
        let phases = Phases::default();
        phases.plan(vec![("alone", 100), ("load", 200)]);
        for sent_ns in [50, 100, 199, 200, 9999] {
            phases.record(sent_ns, sent_ns + 5000, 2);
        }
        let counts = phases.all().into_iter().map(|(name, [whole, _])| (name, whole.len()));
        let counts: Vec<_> = counts.collect();
        assert_eq!(counts, [("alone", 2), ("load", 2)]);
    }

    #[test]
    fn problems_beyond_the_first_are_counted() {
        let problems = Problems::default();
        (0..13).for_each(|n| problems.add(|| n.to_string()));
        let told = problems.take();
        assert_eq!(told.len(), 11);
        assert!(told[10].contains('3'));
        assert!(problems.take().is_empty());
    }
}
