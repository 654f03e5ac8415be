//! Metrics of the paths of QUIC connections: read from what each connection's halves have written
//! down, once in a while and when the connection ends. Nothing is done for a message.

use std::{sync::Arc, time::Duration};

use edgeway_transport::{Path, PathStats};
use metrics::{Counter, Histogram, Unit, counter, describe_counter, describe_histogram, histogram};
use parking_lot::Mutex;

/// A connection is looked at in one sweep of so many: a sweep is a second, so at a million
/// connections it reads 60,000 of them, a handful of numbers each.
pub const SWEEPS: u64 = 16;

/// The path of one connection, and what of it has been counted.
#[derive(Debug)]
pub struct Sampled {
    path: Arc<Path>,
    counted: Mutex<Counts>,
}

/// Counts of a path, in this order: packets sent and lost, copies sent, received, and first, migrations. The
/// low halves, since every idle connection holds them; what comes between two looks is less.
type Counts = [u32; 6];

fn counts(stats: &PathStats) -> Counts {
    let low = |n: u64| u32::try_from(n & u64::from(u32::MAX)).unwrap_or(0);
    [
        low(stats.sent_packets),
        low(stats.lost_packets),
        low(stats.copies_sent),
        low(stats.copies_received),
        low(stats.copies_first),
        low(stats.migrations),
    ]
}

impl Sampled {
    /// Nothing of it has been counted yet.
    #[must_use]
    pub fn new(path: Arc<Path>) -> Self {
        Self { path, counted: Mutex::default() }
    }

    /// The round trip, and what has come since it was asked last.
    fn since(&self) -> (Duration, Counts) {
        let stats = self.path.stats();
        let now = counts(&stats);
        (stats.rtt, delta(std::mem::replace(&mut *self.counted.lock(), now), now))
    }
}

/// What has come between `before` and `now`.
fn delta(before: Counts, now: Counts) -> Counts {
    std::array::from_fn(|n| now[n].wrapping_sub(before[n]))
}

/// Handles of the metrics.
#[derive(Clone)]
pub struct PathMetrics {
    rtt: Histogram,
    sent: Counter,
    lost: Counter,
    copies_sent: Counter,
    copies_received: Counter,
    copies_first: Counter,
    migrations: Counter,
}

impl std::fmt::Debug for PathMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PathMetrics")
    }
}

impl Default for PathMetrics {
    fn default() -> Self {
        describe();
        Self {
            rtt: histogram!("edgeway_gateway_path_rtt_seconds", "transport" => "quic"),
            sent: counter!("edgeway_gateway_path_packets_total", "transport" => "quic"),
            lost: counter!("edgeway_gateway_path_lost_packets_total", "transport" => "quic"),
            copies_sent: counter!("edgeway_gateway_copies_sent_total"),
            copies_received: counter!("edgeway_gateway_copies_received_total"),
            copies_first: counter!("edgeway_gateway_copies_first_total"),
            migrations: counter!("edgeway_gateway_migrations_total"),
        }
    }
}

fn describe() {
    describe_histogram!(
        "edgeway_gateway_path_rtt_seconds",
        Unit::Seconds,
        "smoothed round trips of connections that carried something lately"
    );
    describe_counter!("edgeway_gateway_path_packets_total", "packets sent to clients");
    describe_counter!(
        "edgeway_gateway_path_lost_packets_total",
        "packets lost on the way to clients"
    );
    describe_counter!(
        "edgeway_gateway_copies_sent_total",
        "frames sent to clients again as datagrams"
    );
    describe_counter!(
        "edgeway_gateway_copies_received_total",
        "frames that came from clients as copies"
    );
    describe_counter!(
        "edgeway_gateway_copies_first_total",
        "copies from clients that came before the frame itself"
    );
    describe_counter!("edgeway_gateway_migrations_total", "changes of address of connections");
}

impl PathMetrics {
    /// Counts what has come since the last time.
    pub fn sample(&self, path: &Sampled) {
        let (rtt, new) = path.since();
        if new[0] > 0 {
            self.rtt.record(rtt.as_secs_f64());
        }
        let counters = [
            &self.sent,
            &self.lost,
            &self.copies_sent,
            &self.copies_received,
            &self.copies_first,
            &self.migrations,
        ];
        for (counter, n) in counters.into_iter().zip(new) {
            if n > 0 {
                counter.increment(n.into());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_counted_once_and_wrap() {
        let before = PathStats { sent_packets: 10, lost_packets: 2, ..PathStats::default() };
        let now = PathStats { sent_packets: 15, migrations: 1, ..before };
        let new = delta(counts(&before), counts(&now));
        assert_eq!(new, [5, 0, 0, 0, 0, 1]);
        assert_eq!(delta(counts(&now), counts(&now)), [0; 6]);
        let many = PathStats { sent_packets: u64::from(u32::MAX) + 5, ..now };
        assert_eq!(delta(counts(&now), counts(&many))[0], u32::MAX - 10);
        let more = PathStats { sent_packets: many.sent_packets + 7, ..now };
        assert_eq!(delta(counts(&many), counts(&more))[0], 7);
    }
}
