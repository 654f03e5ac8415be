//! What is to be done later, and random delays.

use std::time::{Duration, Instant};

use edgeway_proto::Class;

use super::{Core, RoomId, SessionId};

/// What a timer does when it fires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Timer {
    Rejoin(RoomId),
    Reopen(SessionId),
    Page(RoomId, Class),
    Sync(RoomId),
    /// Chat without an ack is given up.
    Chat,
}

/// All timers of a client: bounded by its rooms and Sessions, since each thing has one at most.
#[derive(Debug)]
pub(super) struct Timers {
    all: Vec<(Instant, Timer)>,
    random: u64,
}

impl Timers {
    pub(super) fn new(seed: u64) -> Self {
        // xorshift stands still at zero.
        Self { all: Vec::new(), random: seed | 1 }
    }

    pub(super) fn set(&mut self, at: Instant, timer: Timer) {
        if !self.all.iter().any(|(_, t)| *t == timer) {
            self.all.push((at, timer));
        }
    }

    pub(super) fn clear(&mut self) {
        self.all.clear();
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.all.iter().map(|(at, _)| *at).min()
    }

    fn take(&mut self, now: Instant) -> Vec<Timer> {
        let mut due = Vec::new();
        self.all.retain(|(at, timer)| {
            let wait = *at > now;
            if !wait {
                due.push(*timer);
            }
            wait
        });
        due
    }

    /// A random part of `max`.
    pub(super) fn random(&mut self, max: Duration) -> Duration {
        // xorshift64: no secrets, only spread.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let part = u32::try_from(self.random >> 48).unwrap_or(0);
        max * part / 0x1_0000
    }
}

impl Core {
    /// When [`timeout`](Self::timeout) wants to be called.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Does what is due.
    pub(crate) fn timeout(&mut self, now: Instant) {
        for timer in self.timers.take(now) {
            match timer {
                Timer::Rejoin(room) => self.want_join(room),
                Timer::Reopen(session) => self.open_session(session, false),
                Timer::Page(room, class) => self.want_fetch(super::Fetch::Page(room, class)),
                Timer::Chat => self.chat_unanswered(now),
                Timer::Sync(room) => self.want_fetch(super::Fetch::Sync(room)),
            }
        }
        self.pump();
    }

    /// The delay before try number `attempt` (from 1): between half of it and all of a doubling bound.
    pub(crate) fn backoff(&mut self, attempt: u32) -> Duration {
        let doubled =
            self.config.backoff_min.saturating_mul(1 << attempt.min(16).saturating_sub(1));
        let max = self.config.backoff_max.min(doubled);
        max / 2 + self.timers.random(max / 2)
    }

    /// A random part of `max`.
    pub(crate) fn jitter(&mut self, max: Duration) -> Duration {
        self.timers.random(max)
    }
}
