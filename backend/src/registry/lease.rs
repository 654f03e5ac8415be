//! Whether a process may go on as before: a state machine of the answers that it gets and of the time
//! as it sees it. Pure.
//!
//! A process that was stopped for longer than its lease may have lost its rooms without having noticed;
//! so whoever was not awake for a while asks before it does anything else. Where the registry cannot be
//! asked, nobody can know better, and it goes on: what it stores is fenced by the logs.

use std::time::Duration;

/// How long a process that was asleep waits for an answer.
const ASK: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(super) struct Lease {
    /// Longer between two ticks, and the process was asleep.
    sleep: Duration,
    /// The time of the last tick.
    tick: Duration,
    /// Since when it is not known what has happened meanwhile.
    doubt: Option<Duration>,
    registered: bool,
}

impl Lease {
    pub(super) fn new(lease: Duration, now: Duration) -> Self {
        Self { sleep: lease / 2, tick: now, doubt: None, registered: false }
    }

    /// After each wake, before anything else.
    pub(super) fn tick(&mut self, now: Duration) {
        if now.saturating_sub(self.tick) > self.sleep {
            self.doubt = Some(now);
        }
        self.tick = self.tick.max(now);
        if self.doubt.is_some_and(|since| now.saturating_sub(since) > ASK) {
            self.doubt = None;
        }
    }

    /// The lease is renewed, by a call of this time. `absent`: there was none to be renewed. Gives
    /// whether one was lost.
    pub(super) fn renewed(&mut self, sent: Duration, absent: bool) -> bool {
        if self.doubt.is_some_and(|since| sent >= since) {
            self.doubt = None;
        }
        std::mem::replace(&mut self.registered, true) && absent
    }

    /// It could not be renewed.
    pub(super) fn failed(&mut self, sent: Duration) {
        if self.doubt.is_some_and(|since| sent >= since) {
            self.doubt = None;
        }
    }

    pub(super) fn is_in_doubt(&self) -> bool {
        self.doubt.is_some()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn lease() -> Lease {
        let mut lease = Lease::new(ms(2_000), ms(0));
        lease.tick(ms(100));
        assert!(!lease.renewed(ms(100), true), "the first time there is none to be lost");
        lease
    }

    #[test]
    fn who_was_asleep_doubts_until_it_is_told() {
        let mut lease = lease();
        lease.tick(ms(5_000));
        assert!(lease.is_in_doubt());
        assert!(!lease.renewed(ms(150), false), "an answer from before the sleep says nothing");
        assert!(lease.is_in_doubt());
        assert!(lease.renewed(ms(5_000), true), "others may have taken over");
        assert!(!lease.is_in_doubt());
    }

    #[test]
    fn who_was_awake_goes_on_while_the_registry_is_away() {
        let mut lease = lease();
        for now in 0..1_000 {
            lease.tick(ms(100 + 500 * now));
            lease.failed(ms(100 + 500 * now));
            assert!(!lease.is_in_doubt());
        }
        lease.tick(ms(500_000));
        assert!(lease.renewed(ms(500_000), true));
    }

    #[test]
    fn who_was_asleep_and_cannot_ask_goes_on_in_time() {
        let mut hangs = lease();
        hangs.tick(ms(5_000));
        hangs.tick(ms(5_900));
        hangs.tick(ms(6_800));
        assert!(hangs.is_in_doubt());
        hangs.tick(ms(7_100));
        assert!(!hangs.is_in_doubt());
        let mut fails = lease();
        fails.tick(ms(5_000));
        fails.failed(ms(5_000));
        assert!(!fails.is_in_doubt());
    }

    proptest! {
        /// Whatever happens: no doubt without a sleep, none that outlasts its bound, and each lease that
        /// was lost is told once.
        #[test]
        fn doubt_comes_of_sleep_and_ends(steps in proptest::collection::vec((0..3_000_u64, 0..4_u8), 1..60)) {
            let (mut lease, mut now, mut slept) = (lease(), 100, None);
            for (pause, what) in steps {
                now += pause;
                if pause > 1_000 {
                    slept = Some(now);
                }
                lease.tick(ms(now));
                if lease.is_in_doubt() {
                    prop_assert!(slept.is_some_and(|at| now - at <= 2_000));
                }
                match what {
                    0 => prop_assert!(!lease.renewed(ms(now), false)),
                    1 => prop_assert!(lease.renewed(ms(now), true)),
                    2 => lease.failed(ms(now)),
                    _ => continue,
                }
                prop_assert!(!lease.is_in_doubt());
            }
        }
    }
}
