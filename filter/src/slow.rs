//! Who has sent when, in a room in slow mode.

use std::{collections::HashMap, time::Duration};

/// Users that are remembered at most, of a room. Above, those whose pause is over are forgotten, and where it is of none, all:
/// somebody then speaks too soon.
const USERS_MAX: usize = 100_000;

/// After how many more users it is looked for those whose pause is over.
const SWEEP_MIN: usize = 64;

/// Of one room. Empty, and without memory, while the room is not in slow mode.
#[derive(Debug, Default)]
pub struct SlowMode {
    sent_ms: HashMap<String, u64>,
    sweep_at: usize,
}

impl SlowMode {
    pub(crate) fn is_too_soon(&self, user: &str, pause: Duration, now_ms: u64) -> bool {
        !pause.is_zero()
            && self.sent_ms.get(user).is_some_and(|sent| is_within(*sent, pause, now_ms))
    }

    pub(crate) fn sent(&mut self, user: &str, pause: Duration, now_ms: u64) {
        if pause.is_zero() {
            if !self.sent_ms.is_empty() {
                *self = Self::default();
            }
            return;
        }
        if self.sent_ms.len() >= self.sweep_at.max(SWEEP_MIN) {
            self.sent_ms.retain(|_, sent| is_within(*sent, pause, now_ms));
            if self.sent_ms.len() >= USERS_MAX {
                self.sent_ms.clear();
            }
            self.sweep_at = (self.sent_ms.len() * 2).min(USERS_MAX);
        }
        match self.sent_ms.get_mut(user) {
            Some(sent) => *sent = now_ms,
            None => {
                self.sent_ms.insert(user.to_owned(), now_ms);
            }
        }
    }
}

/// A clock that went back ends no pause early, nor makes one longer than it is.
fn is_within(sent_ms: u64, pause: Duration, now_ms: u64) -> bool {
    let pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
    sent_ms.abs_diff(now_ms) < pause_ms
}
