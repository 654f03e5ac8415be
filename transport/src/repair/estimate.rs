//! How lossy a path is, from quinn's counters of packets sent and lost.

use std::time::{Duration, Instant};

/// Packets over which the share of loss is taken, about.
const MEMORY_PACKETS: f64 = 1000.0;

/// Share of loss above which the path is doubtful. A burst that overruns a socket's buffer now and
/// then is below it. At a loss of 1% the chance to be taken for clean is one in a hundred.
const DOUBT: f64 = 0.004;

/// So many packets within [`BUSY_TIME`] are enough to know.
const BUSY_PACKETS: f64 = 40.0;
const BUSY_TIME: Duration = Duration::from_secs(2);

/// See the module.
#[derive(Debug)]
pub(crate) struct Estimate {
    counted: (u64, u64),
    sent: f64,
    lost: f64,
    /// Packets sent since, and since when: for "busy".
    recent: (f64, Instant),
    busy: bool,
}

impl Estimate {
    pub(crate) fn new(now: Instant) -> Self {
        Self { counted: (0, 0), sent: 0.0, lost: 0.0, recent: (0.0, now), busy: false }
    }

    /// Takes the connection's counters.
    pub(crate) fn update(&mut self, now: Instant, sent: u64, lost: u64) {
        let (before_sent, before_lost) = self.counted;
        // Counters of a new path may begin anew.
        let delta = |now: u64, before: u64| u32::try_from(now.saturating_sub(before)).unwrap_or(0);
        let (new_sent, new_lost) = (delta(sent, before_sent), delta(lost, before_lost));
        self.counted = (sent, lost);
        self.sent += f64::from(new_sent);
        self.lost += f64::from(new_lost);
        if self.sent > MEMORY_PACKETS {
            let keep = MEMORY_PACKETS / self.sent;
            self.sent *= keep;
            self.lost *= keep;
        }
        self.recent.0 += f64::from(new_sent);
        let elapsed = now.saturating_duration_since(self.recent.1);
        if elapsed >= BUSY_TIME {
            self.busy =
                self.recent.0 * BUSY_TIME.as_secs_f64() / elapsed.as_secs_f64() >= BUSY_PACKETS;
            self.recent = (0.0, now);
        }
    }

    /// Share of packets lost lately.
    pub(crate) fn loss(&self) -> f64 {
        if self.sent < 1.0 { 0.0 } else { self.lost / self.sent }
    }

    /// Whether enough is sent to know how lossy the path is.
    pub(crate) fn busy(&self) -> bool {
        self.busy
    }

    /// Whether packets are being lost, or too few are sent to know.
    pub(crate) fn doubtful(&self) -> bool {
        !self.busy || self.loss() >= DOUBT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_doubtful_until_it_is_busy_and_again_while_it_loses_packets() {
        let now = Instant::now();
        let at = |ms| now + Duration::from_millis(ms);
        let mut e = Estimate::new(now);
        assert!(e.doubtful());
        for n in 1..=50 {
            e.update(at(n * 100), n * 6, 0);
        }
        assert!(e.busy() && !e.doubtful());
        e.update(at(5100), 306, 3);
        assert!(e.doubtful());
        for n in 1..=50 {
            e.update(at(5100 + n * 100), 306 + n * 100, 3);
        }
        assert!(!e.doubtful());
    }

    #[test]
    fn the_share_of_loss_follows_the_path() {
        let now = Instant::now();
        let mut e = Estimate::new(now);
        for n in 1..=1000u64 {
            e.update(now, n * 10, n);
        }
        assert!((e.loss() - 0.1).abs() < 0.01);
        for n in 1..=1000u64 {
            e.update(now, 10_000 + n * 10, 1000);
        }
        assert!(e.loss() < 0.001);
    }
}
