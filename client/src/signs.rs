//! Signs of life of a client's connection, and what is counted of its paths. Written by reader and
//! writer, read by the supervisor and the app.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use edgeway_transport::{Path, Transport};
use parking_lot::Mutex;

use crate::{
    heartbeat::Heartbeat,
    watch::{Falls, View},
};

/// What is known of the path of a client's connection. What is counted of packets and copies is of
/// the present connection; moves, races, switches and reconnects are of the client's life.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PathStats {
    /// What carries the connection; `None` while there is none.
    pub transport: Option<Transport>,
    /// Smoothed round trip. Over TCP, where the kernel keeps it to itself, the last one measured by
    /// [`Client::ping`](crate::Client::ping) or when the connection was made.
    pub rtt: Option<Duration>,
    /// The shortest round trip seen. QUIC only.
    pub min_rtt: Option<Duration>,
    /// What may be in flight, bytes. QUIC only, as all below up to `copies_first`.
    pub window_bytes: u64,
    /// Packets sent.
    pub sent_packets: u64,
    /// Packets sent that were lost.
    pub lost_packets: u64,
    /// Frames sent again as datagrams, against loss.
    pub copies_sent: u64,
    /// Frames that came as copies.
    pub copies_received: u64,
    /// Frames whose copy came before themselves: what the gateway's copies were good for.
    pub copies_first: u64,
    /// Chat that this client did not get, as far as it can be counted: shed, or sent while there was no
    /// connection.
    pub missed: u64,
    /// Times that the connection was moved to a new socket.
    pub moves: u64,
    /// Races of fresh connections beside the present one.
    pub races: u64,
    /// Times that the winner of such a race took over.
    pub switches: u64,
    /// Times that the client connected anew, switches included.
    pub reconnects: u64,
    /// How long an idle connection rests before it says something.
    pub heartbeat: Duration,
}

impl PathStats {
    /// Share of packets sent that were lost, 0 to 1.
    #[must_use]
    #[allow(clippy::cast_precision_loss)] // a share
    pub fn loss(&self) -> f64 {
        self.lost_packets as f64 / self.sent_packets.max(1) as f64
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Signs {
    origin: Instant,
    heard_us: AtomicU64,
    /// When the first was written that nothing was heard after; TCP only.
    asked_us: AtomicU64,
    /// The rest before what was written last, where it is not answered yet; 0 for none.
    rest_ms: AtomicU64,
    nudge: AtomicBool,
    beat: AtomicBool,
    moves: AtomicU64,
    races: AtomicU64,
    switches: AtomicU64,
    path: Mutex<Option<Arc<Path>>>,
    pub(crate) heartbeat: Mutex<Heartbeat>,
    pub(crate) falls: Mutex<Falls>,
}

impl Default for Signs {
    fn default() -> Self {
        Self {
            origin: Instant::now(),
            heard_us: AtomicU64::new(0),
            asked_us: AtomicU64::new(0),
            rest_ms: AtomicU64::new(0),
            nudge: AtomicBool::new(false),
            beat: AtomicBool::new(false),
            moves: AtomicU64::new(0),
            races: AtomicU64::new(0),
            switches: AtomicU64::new(0),
            path: Mutex::new(None),
            heartbeat: Mutex::default(),
            falls: Mutex::default(),
        }
    }
}

impl Signs {
    fn us(&self, now: Instant) -> u64 {
        let us = now.saturating_duration_since(self.origin).as_micros();
        u64::try_from(us).unwrap_or(u64::MAX).max(1)
    }

    /// A new connection stands.
    pub(crate) fn connected(&self, path: Option<Arc<Path>>, now: Instant) {
        *self.path.lock() = path;
        self.heard_us.store(self.us(now), Ordering::Relaxed);
        self.asked_us.store(0, Ordering::Relaxed);
        self.rest_ms.store(0, Ordering::Relaxed);
        self.nudge.store(false, Ordering::Relaxed);
        self.beat.store(false, Ordering::Relaxed);
    }

    pub(crate) fn disconnected(&self) {
        *self.path.lock() = None;
    }

    /// Something was read.
    pub(crate) fn heard(&self, now: Instant) {
        self.heard_us.store(self.us(now), Ordering::Relaxed);
    }

    /// When something was read last.
    pub(crate) fn heard_at(&self) -> Instant {
        self.origin + Duration::from_micros(self.heard_us.load(Ordering::Relaxed))
    }

    /// Something was written that is answered, sooner or later.
    pub(crate) fn asked(&self, now: Instant) {
        if self.asked_us.load(Ordering::Relaxed) <= self.heard_us.load(Ordering::Relaxed) {
            self.asked_us.store(self.us(now), Ordering::Relaxed);
        }
    }

    /// What is to be seen of the connection, over QUIC (`path`) or TCP.
    pub(crate) fn view(&self, path: Option<&Path>, rtt: Duration, now: Instant) -> View {
        if let Some(path) = path {
            return View {
                unanswered: path.unanswered(now),
                answered: path.answered(),
                rtt: path.rtt(),
                fickle: false,
            };
        }
        let heard = self.heard_us.load(Ordering::Relaxed);
        let asked = self.asked_us.load(Ordering::Relaxed);
        let unanswered = if asked > heard {
            Duration::from_micros(self.us(now).saturating_sub(asked))
        } else {
            Duration::ZERO
        };
        View { unanswered, answered: Some(self.heard_at()), rtt, fickle: false }
    }

    /// The connection rested for so long before it wrote what is not answered yet.
    pub(crate) fn rested(&self, rest: Duration) {
        let ms = u64::try_from(rest.as_millis()).unwrap_or(u64::MAX);
        self.rest_ms.store(ms, Ordering::Relaxed);
    }

    pub(crate) fn binding_was_dead(&self) {
        let rest = Duration::from_millis(self.rest_ms.swap(0, Ordering::Relaxed));
        self.heartbeat.lock().binding_was_dead(rest);
    }

    /// The connection was moved to a new socket: the writer is to say so.
    pub(crate) fn moved(&self) {
        self.moves.fetch_add(1, Ordering::Relaxed);
        self.nudge.store(true, Ordering::Relaxed);
    }

    /// The writer is to say where the connection is, once more.
    pub(crate) fn ask_again(&self) {
        self.nudge.store(true, Ordering::Relaxed);
    }

    pub(crate) fn take_nudge(&self) -> bool {
        self.nudge.load(Ordering::Relaxed) && self.nudge.swap(false, Ordering::Relaxed)
    }

    /// The writer is to say something, to see whether the path is there.
    pub(crate) fn ask_beat(&self) {
        self.beat.store(true, Ordering::Relaxed);
    }

    pub(crate) fn take_beat(&self) -> bool {
        self.beat.load(Ordering::Relaxed) && self.beat.swap(false, Ordering::Relaxed)
    }

    pub(crate) fn raced(&self) {
        self.races.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn switched(&self) {
        self.switches.fetch_add(1, Ordering::Relaxed);
    }

    /// All that this knows; the rest is left to the caller.
    pub(crate) fn stats(&self, server_idle: Duration) -> PathStats {
        let get = |n: &AtomicU64| n.load(Ordering::Relaxed);
        let mut stats = PathStats {
            moves: get(&self.moves),
            races: get(&self.races),
            switches: get(&self.switches),
            heartbeat: self.heartbeat.lock().interval(server_idle),
            ..PathStats::default()
        };
        if let Some(path) = &*self.path.lock() {
            let seen = path.stats();
            stats.rtt = Some(seen.rtt);
            stats.min_rtt = Some(seen.min_rtt);
            stats.window_bytes = seen.window_bytes;
            stats.sent_packets = seen.sent_packets;
            stats.lost_packets = seen.lost_packets;
            stats.copies_sent = seen.copies_sent;
            stats.copies_received = seen.copies_received;
            stats.copies_first = seen.copies_first;
        }
        stats
    }
}
