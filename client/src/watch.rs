//! What is done about a connection that falls silent, or that runs over TCP where QUIC may work again.
//! Pure: no I/O, no clock.
//!
//! A silent QUIC connection first moves to a new socket: a NAT may have forgotten the old one. Where
//! that is not answered soon, fresh connections are raced beside it, over all transports. They only say
//! Hello: whoever is welcomed takes over if the old connection is still silent then. Where nothing
//! answers (the link is gone), the old connection stays, since it comes back at once with the link; when
//! it answers, the race is dropped.

use std::time::{Duration, Instant};

/// So long may a QUIC connection leave what is in flight unanswered. Losses are repaired within
/// a few round trips; a shorter silence is more often a burst of them than the end of a path.
pub(crate) const SILENT: Duration = Duration::from_millis(1000);

/// The same for TCP, whose own recovery takes longer. What follows (a race, and the old connection asked once
/// more) takes six round trips and [`SETTLE`] until there is service again: within 3 s up to 150 ms each.
pub(crate) const SILENT_TCP: Duration = Duration::from_millis(1750);

/// How long a move to another socket is given before fresh connections are raced: this many round
/// trips, and not less than [`MOVE_MIN`].
const MOVE_RTTS: f64 = 1.5;
const MOVE_MIN: Duration = Duration::from_millis(250);

/// How long a fresh connection that is welcomed waits before it takes over, while the old one is asked
/// once more: a round trip and a half, and not less than this. When a link comes back, both may answer
/// at the same moment, and the old one is the better: it goes on where it was.
const SETTLE: Duration = Duration::from_millis(200);

/// A QUIC connection that falls silent once more within this time, after [`FALLS`] times, is behind
/// something that lets a flow's first packets pass and no more: another socket does not help for long.
const FALLS_TIME: Duration = Duration::from_secs(60);
const FALLS: u32 = 2;

/// How often a silent connection is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// The distance of races that nobody won.
const AGAIN_MIN: Duration = Duration::from_millis(500);
const AGAIN_MAX: Duration = Duration::from_secs(8);

/// What a race is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Goal {
    /// Any way to the server.
    Service,
    /// Back to QUIC.
    Quic,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    /// Take the QUIC connection to a new socket, and say so.
    Rebind,
    /// Start fresh connections.
    Race(Goal),
    /// Stop them; the old connection answers.
    Drop,
    /// The fresh connection that is welcomed takes over.
    Switch(Goal),
    /// A beat after a rest was answered only from a new socket.
    BindingWasDead,
}

/// What is seen of the present connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View {
    /// How long something has waited for an answer.
    pub(crate) unanswered: Duration,
    /// When that was sent which was answered last.
    pub(crate) answered: Option<Instant>,
    pub(crate) rtt: Duration,
    /// QUIC falls silent again and again.
    pub(crate) fickle: bool,
}

/// How often QUIC fell silent lately, on the network that is there now.
#[derive(Debug, Default)]
pub(crate) struct Falls {
    count: u32,
    last: Option<Instant>,
}

impl Falls {
    fn lately(&self, now: Instant) -> bool {
        self.last.is_some_and(|at| now.saturating_duration_since(at) < FALLS_TIME)
    }

    pub(crate) fn fell(&mut self, now: Instant) {
        self.count = if self.lately(now) { self.count.saturating_add(1) } else { 1 };
        self.last = Some(now);
    }

    pub(crate) fn fickle(&self, now: Instant) -> bool {
        self.count >= FALLS && self.lately(now)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Race {
    None,
    Running(Goal),
    Welcomed(Goal, Instant),
}

#[derive(Debug, Clone, Copy)]
struct Silence {
    since: Instant,
    /// When the connection was taken to a new socket.
    rebound: Option<Instant>,
    /// By a hint of the app's.
    hinted: bool,
    failures: u32,
    race_at: Instant,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Watch {
    quic: bool,
    silence: Option<Silence>,
    race: Race,
    try_quic_at: Option<Instant>,
}

impl Watch {
    /// Of a connection over QUIC, or over TCP. `try_quic_at` is when QUIC is tried beside TCP, where that
    /// may be.
    pub(crate) fn new(quic: bool, try_quic_at: Option<Instant>) -> Self {
        Self { quic, silence: None, race: Race::None, try_quic_at: try_quic_at.filter(|_| !quic) }
    }

    const fn patience(&self) -> Duration {
        if self.quic { SILENT } else { SILENT_TCP }
    }

    /// The app says that the network has changed, and the connection was taken to a new socket.
    pub(crate) fn moved(&mut self, now: Instant, view: View) {
        let race_at = now + give_move(view);
        let rebound = Some(now);
        self.silence = Some(Silence { since: now, rebound, hinted: true, failures: 0, race_at });
        // What was begun on the old network is worth nothing.
        self.race = Race::None;
    }

    /// A fresh connection was welcomed.
    pub(crate) fn welcomed(&mut self, now: Instant) {
        if let Race::Running(goal) = self.race {
            self.race = Race::Welcomed(goal, now);
        }
    }

    /// No fresh connection came about. `try_quic_at` as in [`new`](Self::new).
    pub(crate) fn failed(&mut self, now: Instant, try_quic_at: Option<Instant>) {
        self.race = Race::None;
        self.try_quic_at = try_quic_at.filter(|_| !self.quic);
        if let Some(silence) = &mut self.silence {
            let wait = AGAIN_MIN.saturating_mul(1 << silence.failures.min(8)).min(AGAIN_MAX);
            silence.failures = silence.failures.saturating_add(1);
            silence.race_at = now + wait;
        }
    }

    /// What is to be done now; to be asked again until there is nothing.
    pub(crate) fn step(&mut self, now: Instant, view: View) -> Option<Act> {
        if self.silence.is_none() && view.unanswered >= self.patience() {
            // TCP cannot move to another socket: it is raced at once.
            let race_at = now;
            self.silence =
                Some(Silence { since: now, rebound: None, hinted: false, failures: 0, race_at });
        }
        match self.silence {
            Some(silence) => self.silent(silence, now, view),
            None => self.well(now),
        }
    }

    fn silent(&mut self, silence: Silence, now: Instant, view: View) -> Option<Act> {
        if view.answered.is_some_and(|sent| sent >= silence.since) {
            self.silence = None;
            let racing = self.race != Race::None;
            self.race = Race::None;
            let soon = |at: Instant| now.saturating_duration_since(at) < give_move(view) * 2;
            return if racing {
                Some(Act::Drop)
            } else if !silence.hinted && silence.rebound.is_some_and(soon) {
                Some(Act::BindingWasDead)
            } else {
                None
            };
        }
        if self.quic && silence.rebound.is_none() && !view.fickle {
            let silence = Silence { rebound: Some(now), race_at: now + give_move(view), ..silence };
            self.silence = Some(silence);
            return Some(Act::Rebind);
        }
        match self.race {
            Race::None if now >= silence.race_at => {
                self.race = Race::Running(Goal::Service);
                Some(Act::Race(Goal::Service))
            }
            Race::Welcomed(goal, at) if now >= at + view.rtt.mul_f64(MOVE_RTTS).max(SETTLE) => {
                self.race = Race::None;
                Some(Act::Switch(goal))
            }
            _ => None,
        }
    }

    /// Nothing is wrong.
    fn well(&mut self, now: Instant) -> Option<Act> {
        match self.race {
            Race::None if self.try_quic_at.is_some_and(|at| at <= now) => {
                self.try_quic_at = None;
                self.race = Race::Running(Goal::Quic);
                Some(Act::Race(Goal::Quic))
            }
            Race::Welcomed(Goal::Quic, _) => {
                self.race = Race::None;
                Some(Act::Switch(Goal::Quic))
            }
            _ => None,
        }
    }

    /// When [`step`](Self::step) is to be asked again, at the latest. What falls silent before is
    /// told by who writes.
    pub(crate) fn next(&self, now: Instant) -> Option<Instant> {
        match (self.silence, self.race) {
            (Some(_), _) => Some(now + LOOK),
            (None, Race::None) => self.try_quic_at,
            (None, _) => None,
        }
    }
}

fn give_move(view: View) -> Duration {
    view.rtt.mul_f64(MOVE_RTTS).max(MOVE_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RTT: Duration = Duration::from_millis(100);

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    /// A connection whose last answer was for what was sent at `answered`, seen at `now`.
    fn view(answered: Instant, now: Instant) -> View {
        let unanswered = now.saturating_duration_since(answered);
        View { unanswered, answered: Some(answered), rtt: RTT, fickle: false }
    }

    /// All that is done from `from` to `to`, with its time in ms, while nothing is answered.
    fn acts(watch: &mut Watch, start: Instant, from: u64, to: u64) -> Vec<(u64, Act)> {
        let mut acts = Vec::new();
        for at in (from..to).step_by(10) {
            let now = start + ms(at);
            while let Some(act) = watch.step(now, view(start, now)) {
                acts.push((at, act));
            }
        }
        acts
    }

    #[test]
    fn a_silent_quic_connection_moves_first_and_is_raced_then() {
        let start = Instant::now();
        let mut watch = Watch::new(true, None);
        let done = acts(&mut watch, start, 0, 2000);
        assert_eq!(done, [(1000, Act::Rebind), (1250, Act::Race(Goal::Service))]);
    }

    #[test]
    fn who_is_welcomed_takes_over_if_the_old_one_is_still_silent() {
        let start = Instant::now();
        let mut watch = Watch::new(true, None);
        acts(&mut watch, start, 0, 1500);
        watch.welcomed(start + ms(1550));
        assert_eq!(acts(&mut watch, start, 1550, 1750), []);
        let now = start + ms(1750);
        assert_eq!(watch.step(now, view(start, now)), Some(Act::Switch(Goal::Service)));
    }

    #[test]
    fn the_race_is_dropped_where_the_old_one_answers_first() {
        let start = Instant::now();
        let mut watch = Watch::new(true, None);
        acts(&mut watch, start, 0, 1500);
        watch.welcomed(start + ms(1500));
        let now = start + ms(1540);
        assert_eq!(watch.step(now, view(start + ms(1450), now)), Some(Act::Drop));
        assert_eq!(watch.step(now, view(start + ms(1450), now)), None);
        assert_eq!(watch.next(now), None);
    }

    #[test]
    fn an_answer_to_what_was_sent_before_the_silence_changes_nothing() {
        let start = Instant::now();
        let mut watch = Watch::new(true, None);
        acts(&mut watch, start, 0, 1200);
        let now = start + ms(1240);
        let late = View { answered: Some(start + ms(900)), ..view(start + ms(1230), now) };
        assert_eq!(watch.step(now, late), None);
        assert!(watch.silence.is_some());
    }

    #[test]
    fn where_nothing_answers_races_become_rare_and_the_old_one_stays() {
        let start = Instant::now();
        let mut watch = Watch::new(true, None);
        let mut races = Vec::new();
        for at in (0..30_000).step_by(10) {
            let now = start + ms(at);
            while let Some(act) = watch.step(now, view(start, now)) {
                match act {
                    Act::Rebind => assert_eq!(at, 1000),
                    Act::Race(Goal::Service) => {
                        races.push(at);
                        watch.failed(now, None);
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
        assert_eq!(races, [1250, 1750, 2750, 4750, 8750, 16_750, 24_750]);
    }

    #[test]
    fn a_hint_races_as_soon_as_the_move_is_not_answered() {
        let start = Instant::now();
        let at = |n| start + ms(n);
        let mut watch = Watch::new(true, None);
        watch.moved(start, view(start, start));
        assert_eq!(watch.step(at(240), view(start - ms(1), at(240))), None);
        assert_eq!(
            watch.step(at(250), view(start - ms(1), at(250))),
            Some(Act::Race(Goal::Service))
        );
        let mut watch = Watch::new(true, None);
        watch.moved(start, view(start, start));
        assert_eq!(watch.step(at(110), view(at(5), at(110))), None);
        assert_eq!(watch.next(at(110)), None, "answered");
    }

    #[test]
    fn a_binding_that_was_dead_is_told() {
        let start = Instant::now();
        let mut watch = Watch::new(true, None);
        acts(&mut watch, start, 0, 1100);
        let now = start + ms(1110);
        assert_eq!(watch.step(now, view(start + ms(1005), now)), Some(Act::BindingWasDead));
    }

    #[test]
    fn where_quic_falls_silent_again_and_again_another_socket_is_not_tried() {
        let start = Instant::now();
        let mut falls = Falls::default();
        falls.fell(start);
        assert!(!falls.fickle(start));
        falls.fell(start + ms(3000));
        assert!(falls.fickle(start + ms(6000)) && !falls.fickle(start + ms(70_000)));
        let mut watch = Watch::new(true, None);
        let now = start + ms(1000);
        let seen = View { fickle: true, ..view(start, now) };
        assert_eq!(watch.step(now, seen), Some(Act::Race(Goal::Service)));
    }

    #[test]
    fn tcp_tries_quic_when_it_is_due_and_goes_back_once_it_is_welcomed() {
        let start = Instant::now();
        let at = |n| start + ms(n);
        let mut watch = Watch::new(false, Some(at(5000)));
        assert_eq!(watch.next(start), Some(at(5000)));
        assert_eq!(watch.step(at(4999), view(at(4999), at(4999))), None);
        assert_eq!(watch.step(at(5000), view(at(5000), at(5000))), Some(Act::Race(Goal::Quic)));
        watch.failed(at(6000), Some(at(16_000)));
        assert_eq!(watch.next(at(6000)), Some(at(16_000)));
        assert_eq!(
            watch.step(at(16_000), view(at(16_000), at(16_000))),
            Some(Act::Race(Goal::Quic))
        );
        watch.welcomed(at(16_200));
        assert_eq!(
            watch.step(at(16_200), view(at(16_200), at(16_200))),
            Some(Act::Switch(Goal::Quic))
        );
    }

    #[test]
    fn a_silent_tcp_connection_is_raced() {
        let start = Instant::now();
        let mut watch = Watch::new(false, None);
        assert_eq!(acts(&mut watch, start, 0, 3000), [(1750, Act::Race(Goal::Service))]);
    }
}
