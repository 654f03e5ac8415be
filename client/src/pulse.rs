//! The writer's view of its connection: when it says something to keep it, and when it tells that
//! nothing comes back. No timer of its own, and no clock.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use edgeway_proto::frame::{Welcome, param};
use edgeway_transport::Path;

use crate::{
    core::param_of,
    signs::Signs,
    watch::{SILENT, SILENT_TCP},
};

/// How long a TCP connection rests at most. It is asked by a ping, which is answered.
const REST_TCP: Duration = Duration::from_secs(12);

/// After so long without an answer a TCP connection is asked by a ping: not all that is written is
/// answered. A second before it counts as silent, which is longer than round trips are.
const ASK_TCP: Duration = Duration::from_millis(750);

/// A shorter pause teaches nothing about bindings.
const REST_MIN: Duration = Duration::from_secs(5);

/// While a connection is silent it is looked at so often.
const LOOK: Duration = Duration::from_millis(250);

/// What the writer is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Do {
    /// Say something that is answered.
    Beat,
    /// Tell who watches that nothing is answered.
    Tell,
    /// Give the connection up: nothing was heard for the idle time.
    GiveUp,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Pulse {
    /// `None` over TCP.
    path: Option<Arc<Path>>,
    idle: Duration,
    server_idle: Duration,
    wrote: Instant,
    /// Written, and not yet looked at whether it was answered.
    fresh: bool,
    /// When something was written after a rest, and how long that was.
    rested: Option<(Instant, Duration)>,
    asked: bool,
    told: bool,
}

impl Pulse {
    /// Of a connection that is given up after `idle` (QUIC does so by itself); the gateway gives up after
    /// `server_idle`.
    pub(crate) fn new(
        path: Option<Arc<Path>>,
        idle: Duration,
        server_idle: Duration,
        now: Instant,
    ) -> Self {
        Self {
            path,
            idle,
            server_idle,
            wrote: now,
            fresh: true,
            rested: None,
            asked: false,
            told: false,
        }
    }

    /// Something was written.
    pub(crate) fn wrote(&mut self, now: Instant, signs: &Signs) {
        if self.path.is_none() {
            signs.asked(now);
        } else {
            let rest = now.saturating_duration_since(self.last(signs));
            if rest >= REST_MIN {
                self.rested = Some((now, rest));
                signs.rested(rest);
            }
        }
        self.wrote = now;
        self.fresh = true;
    }

    /// When a packet passed last that is known of.
    fn last(&self, signs: &Signs) -> Instant {
        let answered = self.path.as_ref().and_then(|path| path.answered());
        self.wrote.max(signs.heard_at()).max(answered.unwrap_or(self.wrote))
    }

    /// What is to be done now, and otherwise when to ask again.
    pub(crate) fn step(&mut self, now: Instant, signs: &Signs) -> Result<Instant, Do> {
        let view = signs.view(self.path.as_deref(), Duration::ZERO, now);
        if let Some((at, rest)) = self.rested
            && view.answered.is_some_and(|sent| sent >= at)
        {
            self.rested = None;
            signs.rested(Duration::ZERO);
            signs.heartbeat.lock().answered(rest);
        }
        let quic = self.path.is_some();
        let patience = if quic { SILENT } else { SILENT_TCP };
        if !quic && view.unanswered >= self.idle {
            return Err(Do::GiveUp);
        }
        if view.unanswered >= patience {
            if !std::mem::replace(&mut self.told, true) {
                return Err(Do::Tell);
            }
            return Ok(now + LOOK);
        }
        self.told = false;
        if quic { self.quic(view.unanswered, now, signs) } else { self.tcp(view.unanswered, now) }
    }

    fn quic(&mut self, unanswered: Duration, now: Instant, signs: &Signs) -> Result<Instant, Do> {
        if !unanswered.is_zero() {
            return Ok(now + (SILENT - unanswered));
        }
        if signs.take_beat() {
            return Err(Do::Beat);
        }
        let due = self.last(signs) + signs.heartbeat.lock().interval(self.server_idle);
        if due <= now {
            return Err(Do::Beat);
        }
        // What was just written is not in a packet yet.
        let look = self.wrote + SILENT;
        self.fresh &= look > now;
        Ok(if self.fresh { look.min(due) } else { due })
    }

    fn tcp(&mut self, unanswered: Duration, now: Instant) -> Result<Instant, Do> {
        self.asked &= !unanswered.is_zero();
        if unanswered >= ASK_TCP && !std::mem::replace(&mut self.asked, true) {
            return Err(Do::Beat);
        }
        // A third, so that two may be late before either side gives up.
        let rest = REST_TCP.min(self.idle / 3).min(self.server_idle / 3);
        let due = self.wrote + rest.max(Duration::from_millis(10));
        if due <= now {
            return Err(Do::Beat);
        }
        let look = match unanswered {
            Duration::ZERO if self.fresh && self.wrote + ASK_TCP > now => self.wrote + ASK_TCP,
            Duration::ZERO => due,
            _ if self.asked => now + (SILENT_TCP - unanswered),
            _ => now + (ASK_TCP - unanswered),
        };
        Ok(look.min(due))
    }
}

/// After how long a silence the gateway gives up.
pub(crate) fn server_idle(welcome: &Welcome) -> Duration {
    Duration::from_millis(param_of(welcome, param::IDLE_MS).unwrap_or(60_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Duration = Duration::from_secs(40);

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn tcp(start: Instant) -> (Pulse, Signs) {
        let signs = Signs::default();
        signs.connected(None, start);
        (Pulse::new(None, IDLE, ms(30_000), start), signs)
    }

    /// All that is done until `to`, with its time in ms; nothing is ever heard.
    fn done(pulse: &mut Pulse, signs: &Signs, start: Instant, to: u64) -> Vec<(u64, Do)> {
        let mut all = Vec::new();
        let mut now = start;
        while now < start + ms(to) {
            match pulse.step(now, signs) {
                Ok(next) => {
                    assert!(next > now, "it does not spin");
                    now = next;
                }
                Err(what) => {
                    let at = now.duration_since(start).as_millis();
                    all.push((u64::try_from(at).unwrap(), what));
                    if what == Do::Beat {
                        pulse.wrote(now, signs);
                    }
                    if what == Do::GiveUp {
                        return all;
                    }
                }
            }
        }
        all
    }

    #[test]
    fn a_tcp_connection_without_an_answer_is_asked_told_and_given_up() {
        let start = Instant::now();
        let (mut pulse, signs) = tcp(start);
        let now = start + ms(100);
        pulse.wrote(now, &signs);
        let all = done(&mut pulse, &signs, now, 60_000);
        let of = |what| all.iter().filter(|(_, w)| *w == what).map(|(at, _)| *at).next();
        assert_eq!((of(Do::Beat), of(Do::Tell)), (Some(750), Some(1750)));
        assert!((40_000..40_300).contains(&of(Do::GiveUp).unwrap()), "{all:?}");
    }

    #[test]
    fn an_idle_tcp_connection_is_asked_each_third_of_what_the_server_bears() {
        let start = Instant::now();
        let (mut pulse, signs) = tcp(start);
        let mut now = start;
        let mut beats = Vec::new();
        while now < start + ms(35_000) {
            match pulse.step(now, &signs) {
                Ok(next) => now = next,
                Err(what) => {
                    assert_eq!(what, Do::Beat);
                    beats.push(now.duration_since(start).as_secs());
                    pulse.wrote(now, &signs);
                    now += ms(50);
                    signs.heard(now);
                }
            }
        }
        assert_eq!(beats, [10, 20, 30]);
    }

    #[test]
    fn an_idle_quic_connection_rests_for_the_heartbeat() {
        let start = Instant::now();
        let signs = Signs::default();
        let path = Arc::new(Path::default());
        signs.connected(Some(Arc::clone(&path)), start);
        let mut pulse = Pulse::new(Some(path), IDLE, ms(30_000), start);
        let all = done(&mut pulse, &signs, start, 45_000);
        let at: Vec<u64> = all.iter().map(|(at, _)| at / 1000).collect();
        assert_eq!(at, [14, 28, 42]);
        assert!(all.iter().all(|(_, what)| *what == Do::Beat));
    }

    #[test]
    fn what_is_read_is_a_sign_of_life() {
        let start = Instant::now();
        let signs = Signs::default();
        let path = Arc::new(Path::default());
        signs.connected(Some(Arc::clone(&path)), start);
        let mut pulse = Pulse::new(Some(path), IDLE, ms(30_000), start);
        let heard = start + ms(13_000);
        signs.heard(heard);
        assert!(pulse.step(start + ms(14_100), &signs).unwrap() >= start + ms(26_000));
    }
}
