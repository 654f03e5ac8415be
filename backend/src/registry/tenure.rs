//! What the owners of this process know of its lease: read at each of their wakes, so cheap.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// How often it is looked whether a doubt is over.
const LOOK: Duration = Duration::from_millis(10);
/// A doubt ends by itself long before.
const DOUBT_MAX: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Debug)]
pub(crate) struct Tenure {
    start: Instant,
    /// Longer without a sign of the task that renews the lease, and the process was asleep.
    sleep: Duration,
    seen_ms: AtomicU64,
    doubt: AtomicBool,
    ended: AtomicBool,
    losses: AtomicU64,
}

impl Tenure {
    pub(crate) fn new(lease: Duration) -> Self {
        Self {
            start: Instant::now(),
            sleep: lease / 2,
            seen_ms: AtomicU64::new(0),
            doubt: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            losses: AtomicU64::new(0),
        }
    }

    pub(super) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// The task that renews the lease is awake.
    pub(crate) fn seen(&self, now: Duration, doubt: bool) {
        self.doubt.store(doubt, Ordering::Release);
        let ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        self.seen_ms.store(ms, Ordering::Release);
    }

    /// The lease has ended, and others may have rooms of this process.
    pub(crate) fn lost(&self) {
        self.losses.fetch_add(1, Ordering::AcqRel);
    }

    /// There is no lease any more that could be lost.
    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Release);
    }

    /// How often the lease was lost.
    pub(crate) fn losses(&self) -> u64 {
        self.losses.load(Ordering::Acquire)
    }

    /// Whether others may have taken over while the process was asleep.
    pub(crate) fn is_in_doubt(&self) -> bool {
        let seen = Duration::from_millis(self.seen_ms.load(Ordering::Acquire));
        let asleep = self.now().saturating_sub(seen) > self.sleep;
        (asleep || self.doubt.load(Ordering::Acquire)) && !self.ended.load(Ordering::Acquire)
    }

    /// Waits until that is known.
    pub(crate) async fn known(&self) {
        let until = self.now() + DOUBT_MAX;
        while self.is_in_doubt() && self.now() < until {
            tokio::time::sleep(LOOK).await;
        }
    }
}
