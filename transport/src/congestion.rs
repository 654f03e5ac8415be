//! The congestion controller of a connection that carries small real-time messages.
//!
//! It is Cubic with two differences, both of which concern a few packets and not bulk:
//! - **A floor.** Random loss drives a loss-based window to two packets: at a round trip of
//!   100 ms that is 20 packets a second, less than the signals and strokes of one busy client. The
//!   window does not fall below [`FLOOR_PACKETS`]. On a link that is really congested this
//!   is a small constant, and what is droppable is held back by its own bound in time.
//! - **Room for a probe.** When nothing is acknowledged any more, what is in flight fills the window
//!   and the connection is mute, for as long as quinn's backed-off probe timer runs, even when the link
//!   is long back. While the owner of the connection has declared [`Path::silence`], the window
//!   stands above what is in flight: the owner sends nothing then but signals and small probes.

use std::{
    any::Any,
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use quinn::congestion::{Controller, ControllerFactory, ControllerMetrics, CubicConfig};
use quinn_proto::RttEstimator;

/// The window never falls below so many packets. Standard load (1 signal, 17 strokes and 20 chat
/// messages a second, with repair) is 60 to 80 packets a second: 8 a round trip of 100 ms, and
/// as many again where half of what was sent is still to be declared lost.
const FLOOR_PACKETS: u64 = 16;

/// What may be sent above what is in flight during a silence, packets.
const PROBE_PACKETS: u64 = 8;

/// quinn reports packets that only acknowledge as well, and nothing answers those: taken for
/// messages they would make two idle ends probe each other for ever. They are not larger than this,
/// and what matters is not smaller.
const ACK_BYTES: u64 = 64;

/// What a connection's controller knows of its path, shared with the connection's owner.
#[derive(Debug)]
pub struct Path {
    origin: Instant,
    /// Microseconds since `origin` of the latest ack.
    acked_us: AtomicU64,
    /// Microseconds since `origin` when the oldest packet was sent that nothing was acked after;
    /// 0 for none.
    unanswered_us: AtomicU64,
    /// Microseconds since `origin` when the latest packet was sent that has been acknowledged; 0 for
    /// none.
    answered_us: AtomicU64,
    silent: AtomicBool,
    /// Whether anybody asks what has arrived.
    watched: AtomicBool,
    /// When packets were sent that have been acknowledged, the latest [`REMEMBERED`], in
    /// microseconds since `origin`.
    arrived: Mutex<VecDeque<u64>>,
}

/// Acks that are remembered: those of a busy path over some round trips.
const REMEMBERED: usize = 64;

/// A frame leaves in a packet within this time of being handed to quinn.
const LEAVES_WITHIN: Duration = Duration::from_millis(2);

impl Path {
    fn new(now: Instant) -> Self {
        Self {
            origin: now,
            acked_us: AtomicU64::new(0),
            unanswered_us: AtomicU64::new(0),
            answered_us: AtomicU64::new(0),
            silent: AtomicBool::new(false),
            watched: AtomicBool::new(false),
            arrived: Mutex::default(),
        }
    }

    fn us(&self, now: Instant) -> u64 {
        let us = now.saturating_duration_since(self.origin).as_micros();
        u64::try_from(us).unwrap_or(u64::MAX).max(1)
    }

    /// How long something has been in flight without anything being acknowledged; zero where
    /// nothing waits for an answer.
    #[must_use]
    pub fn unanswered(&self, now: Instant) -> Duration {
        match self.unanswered_us.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            since => Duration::from_micros(self.us(now).saturating_sub(since)),
        }
    }

    /// Since when [`unanswered`](Self::unanswered) counts: what is sent from then on and acknowledged
    /// ends the silence.
    pub(crate) fn unanswered_since(&self) -> Option<Instant> {
        match self.unanswered_us.load(Ordering::Relaxed) {
            0 => None,
            us => Some(self.origin + Duration::from_micros(us)),
        }
    }

    /// When the latest packet was sent that has been acknowledged. What was sent after a change of the
    /// network and is acknowledged shows that the path is there; a late ack does not.
    #[must_use]
    pub fn answered(&self) -> Option<Instant> {
        match self.answered_us.load(Ordering::Relaxed) {
            0 => None,
            us => Some(self.origin + Duration::from_micros(us)),
        }
    }

    /// Declares that the path is silent, or that it is no longer.
    pub fn silence(&self, silent: bool) {
        self.silent.store(silent, Ordering::Relaxed);
    }

    /// Whether a packet has been acknowledged that left just after `sent`. Not exact where several
    /// left together and some were lost: then the stream's own recovery has to do.
    pub(crate) fn arrived(&self, sent: Instant) -> bool {
        let from = self.us(sent);
        let to = self.us(sent + LEAVES_WITHIN);
        self.arrived.lock().iter().any(|us| (from..=to).contains(us))
    }

    /// Remembers from now on which packets arrive, or stops doing so.
    pub(crate) fn watch(&self, watched: bool) {
        if self.watched.swap(watched, Ordering::Relaxed) && !watched {
            *self.arrived.lock() = VecDeque::new();
        }
    }

    fn packet_arrived(&self, sent: Instant) {
        let us = self.us(sent);
        // Under the connection's lock: there is one writer.
        if us > self.answered_us.load(Ordering::Relaxed) {
            self.answered_us.store(us, Ordering::Relaxed);
        }
        if !self.watched.load(Ordering::Relaxed) {
            return;
        }
        let mut arrived = self.arrived.lock();
        // Where packets leave in trains, one of each train is enough.
        if arrived.back() != Some(&us) {
            if arrived.len() == REMEMBERED {
                arrived.pop_front();
            }
            arrived.push_back(us);
        }
    }

    /// Something is written that will be acknowledged. Its packet may be as small as one that only
    /// acknowledges, by its size it would not be seen: a few words of chat, and nothing else.
    pub(crate) fn asked(&self, now: Instant) {
        self.sent(now);
    }

    fn sent(&self, now: Instant) {
        let us = self.us(now);
        let _ = self.unanswered_us.compare_exchange(0, us, Ordering::Relaxed, Ordering::Relaxed);
    }

    fn acked(&self, now: Instant, in_flight: u64) {
        let us = self.us(now);
        self.acked_us.store(us, Ordering::Relaxed);
        self.unanswered_us.store(if in_flight > 0 { us } else { 0 }, Ordering::Relaxed);
    }
}

/// See the module.
pub(crate) struct Realtime {
    cubic: Box<dyn Controller>,
    mtu: u64,
    in_flight: u64,
    path: Arc<Path>,
}

impl Realtime {
    /// What a connection's controller knows of its path.
    pub(crate) fn path(controller: Box<dyn Controller>) -> Option<Arc<Path>> {
        let controller = controller.into_any().downcast::<Self>().ok()?;
        Some(Arc::clone(&controller.path))
    }
}

impl Controller for Realtime {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        // Small packets count in quinn's window too. Where one only acknowledges this is too much, until
        // the next ack: better than too little, which would keep a probe in.
        self.in_flight += bytes;
        if bytes > ACK_BYTES {
            self.path.sent(now);
        }
        self.cubic.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        app_limited: bool,
        rtt: &RttEstimator,
    ) {
        self.path.packet_arrived(sent);
        self.cubic.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(
        &mut self,
        now: Instant,
        in_flight: u64,
        app_limited: bool,
        largest_packet_num_acked: Option<u64>,
    ) {
        self.in_flight = in_flight;
        self.path.acked(now, in_flight);
        self.cubic.on_end_acks(now, in_flight, app_limited, largest_packet_num_acked);
    }

    fn on_congestion_event(
        &mut self,
        now: Instant,
        sent: Instant,
        is_persistent_congestion: bool,
        lost_bytes: u64,
    ) {
        self.in_flight = self.in_flight.saturating_sub(lost_bytes);
        self.cubic.on_congestion_event(now, sent, is_persistent_congestion, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.mtu = u64::from(new_mtu);
        self.cubic.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        let window = self.cubic.window().max(FLOOR_PACKETS * self.mtu);
        if self.path.silent.load(Ordering::Relaxed) {
            return window.max(self.in_flight + PROBE_PACKETS * self.mtu);
        }
        window
    }

    fn metrics(&self) -> ControllerMetrics {
        let mut metrics = self.cubic.metrics();
        metrics.congestion_window = self.window();
        metrics
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self {
            cubic: self.cubic.clone_box(),
            mtu: self.mtu,
            in_flight: self.in_flight,
            path: Arc::clone(&self.path),
        })
    }

    fn initial_window(&self) -> u64 {
        self.cubic.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

/// Makes the controllers of an endpoint's connections.
#[derive(Debug, Default)]
pub(crate) struct RealtimeConfig;

impl ControllerFactory for RealtimeConfig {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(Realtime {
            cubic: Arc::new(CubicConfig::default()).build(now, current_mtu),
            mtu: u64::from(current_mtu),
            in_flight: 0,
            path: Arc::new(Path::new(now)),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn controller() -> (Box<dyn Controller>, Arc<Path>, Instant) {
        let now = Instant::now();
        let controller = Arc::new(RealtimeConfig).build(now, 1200);
        let path = Realtime::path(controller.clone_box()).unwrap();
        (controller, path, now)
    }

    #[test]
    fn loss_never_drives_the_window_below_the_floor() {
        let (mut controller, _, now) = controller();
        for n in 1..100 {
            let at = now + Duration::from_millis(200 * n);
            controller.on_congestion_event(at, at, true, 1200);
        }
        assert_eq!(controller.window(), FLOOR_PACKETS * 1200);
    }

    #[test]
    fn a_full_window_leaves_room_for_a_probe_while_the_path_is_silent() {
        let (mut controller, path, now) = controller();
        controller.on_sent(now, 100_000, 1);
        assert!(controller.window() < 100_000);
        path.silence(true);
        assert!(controller.window() >= 100_000 + PROBE_PACKETS * 1200);
        path.silence(false);
        assert!(controller.window() < 100_000);
    }

    #[test]
    fn many_small_packets_leave_room_for_a_probe_too() {
        let (mut controller, path, now) = controller();
        path.silence(true);
        for n in 0..10_000 {
            controller.on_sent(now, 60, n);
        }
        assert!(controller.window() >= 600_000 + PROBE_PACKETS * 1200);
    }

    #[test]
    fn what_only_acknowledges_awaits_no_answer() {
        let (mut controller, path, now) = controller();
        controller.on_sent(now, 45, 1);
        assert_eq!(path.unanswered(now + Duration::from_secs(1)), Duration::ZERO);
    }

    #[test]
    fn a_small_message_awaits_an_answer() {
        let (mut controller, path, now) = controller();
        let at = |ms| now + Duration::from_millis(ms);
        path.asked(at(100));
        controller.on_sent(at(101), 45, 1);
        path.asked(at(200));
        assert_eq!(path.unanswered(at(400)), Duration::from_millis(300));
        controller.on_end_acks(at(500), 0, true, Some(1));
        assert_eq!(path.unanswered(at(900)), Duration::ZERO);
    }

    #[test]
    fn a_path_is_unanswered_from_its_first_packet_in_flight_to_the_next_ack() {
        let (mut controller, path, now) = controller();
        let at = |ms| now + Duration::from_millis(ms);
        assert_eq!(path.unanswered(at(50)), Duration::ZERO);
        controller.on_sent(at(100), 1200, 1);
        controller.on_sent(at(200), 1200, 2);
        assert_eq!(path.unanswered(at(400)), Duration::from_millis(300));
        controller.on_end_acks(at(400), 1200, true, Some(1));
        assert_eq!(path.unanswered(at(500)), Duration::from_millis(100));
        controller.on_end_acks(at(500), 0, true, Some(2));
        assert_eq!(path.unanswered(at(900)), Duration::ZERO);
    }
}
