//! Whether a path is silent, and how often it is probed then. Pure: no clock.

use std::time::{Duration, Instant};

/// A path that answers nothing for this many round trips is silent, but not before
/// [`SILENCE_MIN`]: an isolated loss is answered for after a probe timeout.
const SILENCE_RTTS: f64 = 3.0;
const SILENCE_MIN: Duration = Duration::from_millis(250);

/// During a silence something is sent so often: the first of it that leaves after the link's return
/// is what brings the signals.
const PROBE_EVERY: Duration = Duration::from_millis(50);

/// The same where it has lasted for [`LONG`]: who is gone for good costs no more than he must.
const PROBE_EVERY_LATER: Duration = Duration::from_millis(100);
const LONG: Duration = Duration::from_secs(10);

/// For how long after a move there are probes at most, where nothing is answered.
const MOVING: Duration = Duration::from_secs(30);

/// What is seen of a path.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    /// Since when something is in flight and nothing was acknowledged.
    pub unanswered_since: Option<Instant>,
    /// When that was sent which was acknowledged, the latest of it.
    pub answered: Option<Instant>,
    pub rtt: Duration,
}

impl Seen {
    fn answered_since(&self, at: Instant) -> bool {
        self.answered.is_some_and(|sent| sent >= at)
    }

    /// When the path is silent unless something is answered before.
    pub(crate) fn silent_at(&self) -> Option<Instant> {
        Some(self.unanswered_since? + self.rtt.mul_f64(SILENCE_RTTS).max(SILENCE_MIN))
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Silence {
    /// Since when nothing is answered, where that is long enough.
    since: Option<Instant>,
    /// When this end moved, until something sent since was acknowledged.
    moved: Option<Instant>,
}

impl Silence {
    /// Takes what is seen. A late ack of what left before the silence does not end it: it does not show
    /// that the link is there, and what the probes bring would be left to the streams' own recovery.
    pub(crate) fn step(&mut self, seen: Seen, now: Instant) {
        let over = |at: Instant| now.saturating_duration_since(at) > MOVING;
        if self.moved.is_some_and(|at| seen.answered_since(at) || over(at)) {
            self.moved = None;
        }
        match self.since {
            Some(since) if seen.answered_since(since) => self.since = None,
            None if seen.silent_at().is_some_and(|at| at <= now) => {
                self.since = seen.unanswered_since;
            }
            _ => {}
        }
    }

    /// This end has moved: it does not wait to find out that nothing comes any more.
    pub(crate) fn moved(&mut self, now: Instant) {
        self.moved = Some(now);
    }

    pub(crate) fn has_moved(&self) -> bool {
        self.moved.is_some()
    }

    /// Whether nothing is answered any more. A move alone does not count: the path may well be there.
    pub(crate) fn is_silent(&self) -> bool {
        self.since.is_some()
    }

    pub(crate) fn is_probed(&self) -> bool {
        self.since.or(self.moved).is_some()
    }

    /// How often the path is to be probed now; `None` where it is not.
    pub(crate) fn probe_every(&self, now: Instant) -> Option<Duration> {
        let lasts = now.saturating_duration_since(self.since.or(self.moved)?);
        Some(if lasts < LONG { PROBE_EVERY } else { PROBE_EVERY_LATER })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn seen(unanswered_since: Instant, answered: Instant) -> Seen {
        Seen { unanswered_since: Some(unanswered_since), answered: Some(answered), rtt: ms(100) }
    }

    #[test]
    fn a_path_is_silent_after_three_round_trips_without_an_answer() {
        let start = Instant::now();
        let mut silence = Silence::default();
        silence.step(seen(start, start - ms(100)), start + ms(299));
        assert!(!silence.is_silent());
        silence.step(seen(start, start - ms(100)), start + ms(300));
        assert!(silence.is_silent());
        silence.step(seen(start + ms(900), start + ms(800)), start + ms(900));
        assert!(!silence.is_silent() && !silence.is_probed());
    }

    #[test]
    fn a_late_ack_of_what_left_before_the_silence_does_not_end_it() {
        let start = Instant::now();
        let mut silence = Silence::default();
        silence.step(seen(start, start - ms(100)), start + ms(300));
        // The ack was lost with the link, and is said again now that it is back.
        silence.step(seen(start + ms(6000), start - ms(20)), start + ms(6000));
        assert!(silence.is_silent());
        silence.step(seen(start + ms(6050), start), start + ms(6050));
        assert!(!silence.is_silent());
    }

    #[test]
    fn a_move_is_probed_at_once_and_holds_nothing_back() {
        let start = Instant::now();
        let mut silence = Silence::default();
        silence.moved(start);
        assert!(silence.is_probed() && !silence.is_silent());
        silence.step(seen(start, start - ms(1)), start + ms(50));
        assert!(silence.has_moved());
        silence.step(seen(start + ms(100), start), start + ms(100));
        assert!(!silence.is_probed());
    }

    #[test]
    fn a_long_silence_is_probed_less() {
        let start = Instant::now();
        let mut silence = Silence::default();
        assert_eq!(silence.probe_every(start), None);
        silence.step(seen(start, start - ms(100)), start + ms(300));
        assert_eq!(silence.probe_every(start + ms(9999)), Some(PROBE_EVERY));
        assert_eq!(silence.probe_every(start + LONG), Some(PROBE_EVERY_LATER));
    }
}
