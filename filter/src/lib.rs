//! What users say, and who may say it: a list of words that is looked for in each message however it is written,
//! users who are blocked or muted, and rooms in slow mode.
//!
//! Nothing here does I/O or reads a clock: the caller passes the time. `docs/FILTER.md` says what is found and what is
//! not.

mod letters;
mod list;
mod matching;
mod rules;
mod slow;

use std::sync::Arc;

use parking_lot::RwLock;

pub use self::{
    list::{Action, ListProblem, WORDS_MAX, WordOptions},
    matching::{Found, Words},
    rules::{RULES_MAX, Rules, TooMany, Until},
    slow::SlowMode,
};

/// What is to be done with a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on as it is.
    Pass,
    /// It goes on with these bytes.
    Masked(Vec<u8>),
    /// The sender is told that it was sent, and nobody gets it.
    Silent,
    /// The sender is told why it is not sent.
    Rejected(Why),
}

/// Why a message is not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// A word of the list is in it.
    Words,
    /// The user is blocked.
    Blocked,
    /// The user is muted, in this room or in all.
    Muted,
    /// The room is muted.
    RoomMuted,
    /// The user has sent one too short a time ago.
    SlowMode,
}

impl Why {
    /// For the sender: begins with a name that programs can rely on.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Words => "filtered: the message has a word that is not allowed here",
            Self::Blocked => "blocked: the user may not send messages",
            Self::Muted => "muted: the user is muted",
            Self::RoomMuted => "room_muted: the room is muted",
            Self::SlowMode => "slow_mode: the room is in slow mode; wait before the next message",
        }
    }

    /// As in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Words => "reject",
            Self::Blocked => "blocked",
            Self::Muted => "muted",
            Self::RoomMuted => "room_muted",
            Self::SlowMode => "slow_mode",
        }
    }
}

/// A message that a user sends.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// The room's name.
    pub room: &'a str,
    /// Who sends it.
    pub user: &'a str,
    /// Its bytes; what of them is UTF-8 is looked at.
    pub payload: &'a [u8],
    /// Whether words, mutes and slow mode are of messages of its class. Who is blocked sends none of any.
    pub is_looked_at: bool,
    /// Milliseconds since 1970.
    pub now_ms: u64,
}

/// The filter of a process: what the config says, and what is changed at run time.
#[derive(Debug, Default)]
pub struct Filter {
    words: RwLock<Arc<Words>>,
    rules: RwLock<Rules>,
}

impl Filter {
    /// Other words from now on. What is being looked at is looked at by the old ones.
    pub fn set_words(&self, words: Arc<Words>) {
        #[allow(clippy::cast_precision_loss)] // a gauge
        metrics::gauge!("edgeway_filter_words").set(words.len() as f64);
        *self.words.write() = words;
    }

    /// Reads the rules that are set at run time, or changes them: who is blocked and muted, and how slow rooms are.
    ///
    /// They are this process's own, in memory: an owner of rooms that starts, or takes rooms over from another one, knows
    /// those of its config, until it is told.
    pub fn rules<T>(&self, work: impl FnOnce(&mut Rules) -> T) -> T {
        let mut rules = self.rules.write();
        let result = work(&mut rules);
        #[allow(clippy::cast_precision_loss)] // a gauge
        metrics::gauge!("edgeway_filter_rules").set(rules.len() as f64);
        result
    }

    /// What is to be done with a message. `slow` is the room's, and remembers who has sent when.
    pub fn judge(&self, message: &Message<'_>, slow: &mut SlowMode) -> Verdict {
        let verdict = self.decide(message, slow);
        let action = match &verdict {
            Verdict::Pass => return verdict,
            Verdict::Masked(_) => "mask",
            Verdict::Silent => "silent",
            Verdict::Rejected(why) => why.name(),
        };
        metrics::counter!("edgeway_filter_messages_total", "action" => action).increment(1);
        verdict
    }

    fn decide(&self, message: &Message<'_>, slow: &mut SlowMode) -> Verdict {
        let Message { room, user, payload, is_looked_at, now_ms } = *message;
        let pause = {
            let rules = self.rules.read();
            if let Some(why) = rules.refuses(room, user, is_looked_at, now_ms) {
                return Verdict::Rejected(why);
            }
            rules.pause(room)
        };
        if !is_looked_at {
            return Verdict::Pass;
        }
        if slow.is_too_soon(user, pause, now_ms) {
            return Verdict::Rejected(Why::SlowMode);
        }
        let words = Arc::clone(&self.words.read());
        let found = words.find(payload);
        let verdict = match found.as_ref().map(Found::action) {
            None => Verdict::Pass,
            Some(Action::Reject) => return Verdict::Rejected(Why::Words),
            Some(Action::Silent) => Verdict::Silent,
            Some(Action::Mask) => {
                Verdict::Masked(found.map(|f| f.mask(payload)).unwrap_or_default())
            }
        };
        // What was rejected may be written anew at once.
        slow.sent(user, pause, now_ms);
        verdict
    }
}
