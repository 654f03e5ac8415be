//! How often an idle connection says something. Pure: no I/O, no clock.
//!
//! A QUIC connection that is idle for longer than a NAT on its path keeps its binding can no longer
//! be reached, and notices only when it speaks. How long that is differs from network to network and is
//! learned: the distance grows while beats after so long a rest are answered, and falls below any
//! rest after which the binding was dead. In the background, where each beat wakes a radio, the longest
//! distance is taken that is not known to be too long.

use std::time::Duration;

/// The distance on a network that nothing is known of.
const START: Duration = Duration::from_secs(14);

/// Bindings that live less long are hardly worth keeping.
const MIN: Duration = Duration::from_secs(5);

/// Below the 30 s after which NATs may forget UDP.
const MAX: Duration = Duration::from_secs(25);

/// Beats that must be answered after a rest before a longer one is tried.
const ENOUGH: u32 = 4;

/// What was learned of the network that is there now.
#[derive(Debug, Clone)]
pub(crate) struct Heartbeat {
    interval: Duration,
    /// The shortest rest after which a binding was dead.
    dead: Option<Duration>,
    answered: u32,
    background: bool,
}

impl Default for Heartbeat {
    fn default() -> Self {
        Self { interval: START, dead: None, answered: 0, background: false }
    }
}

impl Heartbeat {
    /// Whether the app is in the background.
    pub(crate) fn set_background(&mut self, background: bool) {
        self.background = background;
    }

    /// The network has changed: nothing is known of it.
    pub(crate) fn forget(&mut self) {
        *self = Self { background: self.background, ..Self::default() };
    }

    /// How long the connection may rest, where the server gives up after `server_idle`. A sixth of that is
    /// left, in which the transport sends again what is lost.
    pub(crate) fn interval(&self, server_idle: Duration) -> Duration {
        let wanted = if self.background { MAX } else { self.interval };
        wanted.min(self.longest()).min(server_idle / 6 * 5).max(Duration::from_millis(10))
    }

    /// A beat after a rest of `rest` was answered.
    pub(crate) fn answered(&mut self, rest: Duration) {
        if rest < self.interval.mul_f64(0.9) {
            return;
        }
        self.answered += 1;
        if self.answered >= ENOUGH {
            self.answered = 0;
            self.interval = self.interval.mul_f64(1.15).min(self.longest());
        }
    }

    /// After a rest of `rest` nothing came back, until the connection spoke from another port.
    pub(crate) fn binding_was_dead(&mut self, rest: Duration) {
        if rest < MIN {
            return;
        }
        self.answered = 0;
        self.dead = Some(self.dead.map_or(rest, |dead| dead.min(rest)));
        self.interval = self.interval.min(rest).mul_f64(0.6).max(MIN);
    }

    /// The longest that may be tried.
    fn longest(&self) -> Duration {
        self.dead.map_or(MAX, |dead| dead.mul_f64(0.8)).clamp(MIN, MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Duration = Duration::from_secs(60);

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn distances_grow_while_beats_are_answered_and_stay_below_the_most() {
        let mut beat = Heartbeat::default();
        let mut longest = Duration::ZERO;
        for n in 0..100 {
            let rest = beat.interval(IDLE);
            assert!(rest >= longest && rest <= MAX, "{n}: {rest:?}");
            longest = rest;
            beat.answered(rest);
        }
        assert_eq!(longest, MAX);
    }

    #[test]
    fn a_dead_binding_shortens_the_distance_for_good() {
        let mut beat = Heartbeat::default();
        beat.binding_was_dead(secs(14));
        assert!(beat.interval(IDLE) < secs(9));
        for _ in 0..100 {
            beat.answered(beat.interval(IDLE));
        }
        let longest = beat.interval(IDLE);
        assert!(longest > secs(10) && longest < secs(12), "{longest:?}");
        beat.set_background(true);
        assert_eq!(beat.interval(IDLE), longest, "known to be too long in the background too");
        beat.forget();
        assert_eq!(beat.interval(IDLE), MAX);
    }

    #[test]
    fn never_shorter_than_the_least_however_often_the_binding_dies() {
        let mut beat = Heartbeat::default();
        for _ in 0..20 {
            beat.binding_was_dead(beat.interval(IDLE));
        }
        assert_eq!(beat.interval(IDLE), MIN);
    }

    #[test]
    fn in_the_background_it_rests_longer() {
        let mut beat = Heartbeat::default();
        assert_eq!(beat.interval(IDLE), START);
        beat.set_background(true);
        assert_eq!(beat.interval(IDLE), MAX);
    }

    #[test]
    fn the_servers_patience_is_never_used_up() {
        let beat = Heartbeat::default();
        assert_eq!(beat.interval(secs(12)), secs(10));
        assert!(beat.interval(secs(30)) <= secs(25));
    }

    #[test]
    fn answers_after_short_rests_teach_nothing() {
        let mut beat = Heartbeat::default();
        for _ in 0..100 {
            beat.answered(secs(1));
        }
        assert_eq!(beat.interval(IDLE), START);
    }
}
