//! What moderators set in a room: who is muted and blocked, whether it is muted or closed. It is a signal of the system with a
//! key of its own, so it is in the log before it is told as done, members see it, and whoever owns the room next has it.

use std::collections::BTreeMap;

use edgeway_filter::{Until, Why};
use edgeway_proto::{CloseCode, ErrorCode, Rest, Text, frame};
use serde::{Deserialize, Serialize};

use super::{
    Asker, Effects, Now, Room,
    log::{Later, Refusal},
    push::DEVICE,
    send::{Speaker, answer},
};
use crate::store::Record;

/// In front of keys of room state that only the system sets.
pub(super) const RESERVED: char = '@';
/// The key of the rules.
pub(crate) const KEY: &str = "@rules";
/// What the rules of one room may take: with the rest of the room's state they fit into the answer to a join.
pub(crate) const BYTES: usize = 10 * 1024;

/// The rules of a room, as its state has them. A time is in milliseconds since 1970; 0 for no end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Rules {
    /// Nobody may be in it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) closed: bool,
    /// Nobody may speak until then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) room_muted: Option<u64>,
    /// Who may not speak until then.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) muted: BTreeMap<String, u64>,
    /// Who may send nothing of any class until then.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) blocked: BTreeMap<String, u64>,
}

/// A change of the rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A user may not speak until then; `None`: may again. 0: without an end.
    Mute(String, Option<u64>),
    /// A user may send nothing.
    Block(String, Option<u64>),
    /// Nobody may speak.
    MuteRoom(Option<u64>),
    /// Nobody may be in it, or may again.
    Close(bool),
}

fn holds(until: u64, now_ms: u64) -> bool {
    until == 0 || now_ms < until
}

impl Rules {
    /// Of the room's state. What cannot be read is none: nobody else could have written it.
    pub(crate) fn restore(state: &[Record]) -> Self {
        let record = state.iter().find(|record| record.key == KEY);
        record.and_then(|record| Self::of_frame(&record.frame)).unwrap_or_default()
    }

    fn of_frame(frame: &bytes::Bytes) -> Option<Self> {
        let raw = frame::split(&mut frame.clone()).ok()??;
        let deliver = frame::Deliver::parse(raw.body).ok()?;
        serde_json::from_slice(&deliver.payload.0).ok()
    }

    /// With a change, and without what is over.
    fn with(&self, change: &Change, now_ms: u64) -> Self {
        let mut rules = self.clone();
        let set = |users: &mut BTreeMap<String, u64>, user: &String, until: Option<u64>| {
            match until {
                Some(until) => users.insert(user.clone(), until),
                None => users.remove(user),
            };
        };
        match change {
            Change::Mute(user, until) => set(&mut rules.muted, user, *until),
            Change::Block(user, until) => set(&mut rules.blocked, user, *until),
            Change::MuteRoom(until) => rules.room_muted = *until,
            Change::Close(closed) => rules.closed = *closed,
        }
        rules.muted.retain(|_, until| holds(*until, now_ms));
        rules.blocked.retain(|_, until| holds(*until, now_ms));
        rules.room_muted = rules.room_muted.filter(|until| holds(*until, now_ms));
        rules
    }

    /// As filter rules.
    pub(crate) fn users(users: &BTreeMap<String, u64>) -> impl Iterator<Item = (&str, Until)> {
        users.iter().map(|(user, until)| (user.as_str(), (*until != 0).then_some(*until)))
    }

    /// Why a user may not send. `is_looked_at`: mutes are of messages of this class.
    pub(super) fn refuse(&self, user: &str, is_looked_at: bool, now_ms: u64) -> Option<Why> {
        let is_in = |users: &BTreeMap<String, u64>| {
            !users.is_empty() && users.get(user).is_some_and(|until| holds(*until, now_ms))
        };
        if is_in(&self.blocked) {
            return Some(Why::Blocked);
        }
        if !is_looked_at {
            return None;
        }
        if is_in(&self.muted) {
            return Some(Why::Muted);
        }
        self.room_muted.is_some_and(|until| holds(until, now_ms)).then_some(Why::RoomMuted)
    }
}

impl Room {
    /// Changes the rules: in effect at once, answered when they are stored.
    pub(super) fn rule(
        &mut self,
        from: Asker,
        change: &Change,
        (bytes_max, store_full): (usize, bool),
        now: Now,
        fx: &mut Effects,
    ) {
        let rules = self.rules.with(change, now.wall_ms);
        if rules == self.rules {
            return self.rule_stands(from, fx);
        }
        let empty = rules == Rules::default();
        // Texts and numbers can always be written.
        let json = serde_json::to_vec(&rules).unwrap_or_default();
        let send = frame::Send {
            group: self.group,
            key: Text::from_static(KEY),
            payload: if empty { Rest::default() } else { Rest(json.into()) },
            ..frame::Send::default()
        };
        if send.payload.0.len() > bytes_max {
            let detail = "there are as many mutes and blocks as there may be; take some back";
            return fx.refuse(from, &send, ErrorCode::TooLarge, detail);
        }
        let sender = self.senders.of("", DEVICE);
        let speaker = Speaker { from, sender, user: Text::default() };
        match self.give_place(speaker, &send, store_full, now) {
            Ok(seq) => (self.rules, self.ruled) = (rules, seq),
            Err((code, detail)) => fx.refuse(from, &send, code, detail),
        }
    }

    /// Nothing has to change; but what was asked before may not be stored yet.
    fn rule_stands(&mut self, from: Asker, fx: &mut Effects) {
        let send = frame::Send { group: self.group, ..frame::Send::default() };
        let ack = answer(&send, edgeway_proto::AckStatus::Duplicate, self.ruled, 0);
        let later = Later { from, ack, refusal: None };
        let log = &mut self.logs[send.class.index()];
        if log.is_pending(self.ruled) {
            self.pending_bytes += log.push_later(self.ruled, later);
        } else {
            fx.answer(&later);
        }
    }

    /// After rules were stored: nobody stays in a room that is closed.
    pub(super) fn rules_stored(&mut self, now: Now, fx: &mut Effects) {
        if self.rules.closed {
            self.put_out(|_| true, CloseCode::Kicked, "the room was closed", now, fx);
        }
    }

    /// Whether members may come, and the system may send.
    pub(super) fn check_open(&self) -> Result<(), Refusal> {
        if self.rules.closed {
            return Err((ErrorCode::RoomClosed, "the room is closed"));
        }
        Ok(())
    }

    /// All Sessions of a user leave.
    pub(super) fn kick(&mut self, link: u64, push: u64, user: &str, now: Now, fx: &mut Effects) {
        let of_user = |member: &str| member == user;
        let sessions = self.put_out(of_user, CloseCode::Kicked, "put out of the room", now, fx);
        fx.push_kicked(link, push, sessions);
    }
}
