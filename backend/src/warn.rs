//! Warnings about peers, at a rate that a bad peer cannot raise.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use parking_lot::Mutex;

/// One warning in this time; the others are counted and told with the next.
const EVERY: Duration = Duration::from_secs(1);

/// Lets one warning a second through.
#[derive(Debug, Default)]
pub(crate) struct WarnLimit {
    last: Mutex<Option<Instant>>,
    held_back: AtomicU64,
}

impl WarnLimit {
    /// How many were held back since the last one that was let through; `None`: hold this one back.
    pub(crate) fn pass(&self) -> Option<u64> {
        let now = Instant::now();
        let mut last = self.last.lock();
        if last.is_some_and(|last| now.duration_since(last) < EVERY) {
            self.held_back.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        *last = Some(now);
        Some(self.held_back.swap(0, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_warnings_is_one_warning() {
        let limit = WarnLimit::default();
        assert_eq!(limit.pass(), Some(0));
        assert_eq!((0..1000).filter_map(|_| limit.pass()).count(), 0);
    }
}
