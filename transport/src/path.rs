//! What is known of a connection's path, for whoever asks: the halves of the connection write it as
//! they work, and reading it takes no lock of the connection.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use crate::congestion;

/// The path of one QUIC connection.
#[derive(Debug, Default)]
pub struct Path {
    controller: Mutex<Option<Arc<congestion::Path>>>,
    rtt_us: AtomicU64,
    min_rtt_us: AtomicU64,
    window_bytes: AtomicU64,
    sent_packets: AtomicU64,
    lost_packets: AtomicU64,
    copies_sent: AtomicU64,
    copies_received: AtomicU64,
    copies_first: AtomicU64,
    migrations: AtomicU64,
}

/// Figures of a path. Counts are of the connection's whole life.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PathStats {
    /// Smoothed round trip.
    pub rtt: Duration,
    /// The shortest round trip seen on this path.
    pub min_rtt: Duration,
    /// What may be in flight, bytes.
    pub window_bytes: u64,
    /// Packets sent.
    pub sent_packets: u64,
    /// Packets that were lost on the way to the peer.
    pub lost_packets: u64,
    /// Copies of frames sent, against loss.
    pub copies_sent: u64,
    /// Frames that came as copies.
    pub copies_received: u64,
    /// Those of them that came before the frame itself: what the peer's copies were good for.
    pub copies_first: u64,
    /// Times that the peer's address changed (seen by a server).
    pub migrations: u64,
}

impl Path {
    /// Figures, at most some 100 ms older than the last traffic.
    #[must_use]
    pub fn stats(&self) -> PathStats {
        let get = |n: &AtomicU64| n.load(Ordering::Relaxed);
        PathStats {
            rtt: Duration::from_micros(get(&self.rtt_us)),
            min_rtt: Duration::from_micros(get(&self.min_rtt_us)),
            window_bytes: get(&self.window_bytes),
            sent_packets: get(&self.sent_packets),
            lost_packets: get(&self.lost_packets),
            copies_sent: get(&self.copies_sent),
            copies_received: get(&self.copies_received),
            copies_first: get(&self.copies_first),
            migrations: get(&self.migrations),
        }
    }

    /// Smoothed round trip.
    #[must_use]
    pub fn rtt(&self) -> Duration {
        Duration::from_micros(self.rtt_us.load(Ordering::Relaxed))
    }

    /// How long something has been in flight without anything being acknowledged; zero where
    /// nothing waits for an answer.
    #[must_use]
    pub fn unanswered(&self, now: Instant) -> Duration {
        self.controller.lock().as_ref().map_or(Duration::ZERO, |path| path.unanswered(now))
    }

    /// When the latest packet was sent that has been acknowledged.
    #[must_use]
    pub fn answered(&self) -> Option<Instant> {
        self.controller.lock().as_ref().and_then(|path| path.answered())
    }

    pub(crate) fn controlled_by(&self, path: Option<Arc<congestion::Path>>) {
        *self.controller.lock() = path;
    }

    /// Takes quinn's figures.
    pub(crate) fn update(&self, stats: &quinn::PathStats) {
        let us = |d: Duration| u64::try_from(d.as_micros()).unwrap_or(u64::MAX);
        self.rtt_us.store(us(stats.rtt), Ordering::Relaxed);
        self.min_rtt_us.store(us(stats.min_rtt), Ordering::Relaxed);
        self.window_bytes.store(stats.cwnd, Ordering::Relaxed);
        self.sent_packets.store(stats.sent_packets, Ordering::Relaxed);
        self.lost_packets.store(stats.lost_packets, Ordering::Relaxed);
    }

    pub(crate) fn copied(&self, copies: u64) {
        self.copies_sent.store(copies, Ordering::Relaxed);
    }

    pub(crate) fn copy_came(&self) {
        self.copies_received.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn copy_was_first(&self) {
        self.copies_first.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn migrated(&self) {
        self.migrations.fetch_add(1, Ordering::Relaxed);
    }
}
