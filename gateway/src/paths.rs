//! Metrics of the paths of QUIC connections: read from what each connection's halves have written
//! down, once in a while and when the connection ends. Nothing is done for a message.

use std::sync::Arc;

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
    counted: Mutex<PathStats>,
}

impl Sampled {
    /// Nothing of it has been counted yet.
    #[must_use]
    pub fn new(path: Arc<Path>) -> Self {
        Self { path, counted: Mutex::default() }
    }

    /// What has come since it was asked last.
    fn since(&self) -> PathStats {
        let now = self.path.stats();
        delta(std::mem::replace(&mut *self.counted.lock(), now), now)
    }
}

/// Counts of `now` less those of `before`; the rest as it is now.
fn delta(before: PathStats, now: PathStats) -> PathStats {
    PathStats {
        sent_packets: now.sent_packets.saturating_sub(before.sent_packets),
        lost_packets: now.lost_packets.saturating_sub(before.lost_packets),
        copies_sent: now.copies_sent.saturating_sub(before.copies_sent),
        copies_received: now.copies_received.saturating_sub(before.copies_received),
        copies_first: now.copies_first.saturating_sub(before.copies_first),
        migrations: now.migrations.saturating_sub(before.migrations),
        ..now
    }
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
        let new = path.since();
        if new.sent_packets > 0 {
            self.rtt.record(new.rtt.as_secs_f64());
            self.sent.increment(new.sent_packets);
        }
        for (counter, n) in [
            (&self.lost, new.lost_packets),
            (&self.copies_sent, new.copies_sent),
            (&self.copies_received, new.copies_received),
            (&self.copies_first, new.copies_first),
            (&self.migrations, new.migrations),
        ] {
            if n > 0 {
                counter.increment(n);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn counts_are_counted_once_and_figures_are_of_now() {
        let before = PathStats { sent_packets: 10, lost_packets: 2, ..PathStats::default() };
        let rtt = Duration::from_millis(40);
        let now = PathStats { sent_packets: 15, lost_packets: 2, migrations: 1, rtt, ..before };
        let new = delta(before, now);
        assert_eq!((new.sent_packets, new.lost_packets, new.migrations), (5, 0, 1));
        assert_eq!(new.rtt, rtt);
        assert_eq!(delta(now, now).sent_packets, 0);
    }
}
