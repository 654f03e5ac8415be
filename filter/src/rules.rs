//! Who may not speak, and how slow rooms are: changed at run time, each with an end or without.

use std::{collections::HashMap, time::Duration};

use super::Why;

/// Rules of each kind at most: at about 100 bytes each, 10 MB.
pub const RULES_MAX: usize = 100_000;

/// There are as many rules of this kind as there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there are {RULES_MAX} already; take some back")]
pub struct TooMany;

/// When a rule ends, in milliseconds since 1970; `None` for never.
pub type Until = Option<u64>;

/// See the module. Rooms go by the names by which they are joined.
#[derive(Debug, Default)]
pub struct Rules {
    /// By the config: not taken back at run time.
    configured: Vec<String>,
    blocked: HashMap<String, Until>,
    muted: HashMap<String, Until>,
    /// The same, kept in a store that many processes share.
    stored_blocked: HashMap<String, Until>,
    stored_muted: HashMap<String, Until>,
    /// By room, then by user.
    muted_in: HashMap<String, HashMap<String, Until>>,
    rooms: HashMap<String, Until>,
    slow: HashMap<String, Duration>,
    pause: Duration,
    /// Of `muted_in`.
    muted_in_len: usize,
}

impl Rules {
    /// What the config says: who is blocked, and the pause of all rooms that have none of their own.
    pub fn configure(&mut self, blocked: Vec<String>, pause: Duration) {
        (self.configured, self.pause) = (blocked, pause);
    }

    /// Who is blocked and who is muted everywhere, as a store has it: all of it, in the place of what it had before.
    pub fn set_stored(&mut self, blocked: HashMap<String, Until>, muted: HashMap<String, Until>) {
        (self.stored_blocked, self.stored_muted) = (blocked, muted);
    }

    /// Rules that are there.
    #[must_use]
    pub fn len(&self) -> usize {
        let Self { configured, blocked, muted, rooms, slow, muted_in_len, .. } = self;
        let stored = self.stored_blocked.len() + self.stored_muted.len();
        stored
            + configured.len()
            + blocked.len()
            + muted.len()
            + rooms.len()
            + slow.len()
            + muted_in_len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A user may send nothing, of any class, anywhere.
    ///
    /// # Errors
    /// As many are blocked as may be.
    pub fn block(&mut self, user: &str, until: Until, now_ms: u64) -> Result<(), TooMany> {
        put(&mut self.blocked, user, until, now_ms)
    }

    /// Takes [`block`](Self::block) back. Whether there was something to take back.
    pub fn unblock(&mut self, user: &str) -> bool {
        self.blocked.remove(user).is_some()
    }

    /// A user may not speak, in a room or in all.
    ///
    /// # Errors
    /// As many are muted as may be.
    pub fn mute(
        &mut self,
        user: &str,
        room: Option<&str>,
        until: Until,
        now_ms: u64,
    ) -> Result<(), TooMany> {
        let Some(room) = room else { return put(&mut self.muted, user, until, now_ms) };
        if self.muted_in_len >= RULES_MAX {
            self.sweep(now_ms);
        }
        let in_room = self.muted_in.get(room);
        let is_new = in_room.is_none_or(|users| !users.contains_key(user));
        if is_new && self.muted_in_len >= RULES_MAX {
            return Err(TooMany);
        }
        self.muted_in.entry(room.to_owned()).or_default().insert(user.to_owned(), until);
        self.muted_in_len += usize::from(is_new);
        Ok(())
    }

    /// Takes [`mute`](Self::mute) back. Whether there was something to take back.
    pub fn unmute(&mut self, user: &str, room: Option<&str>) -> bool {
        let Some(room) = room else { return self.muted.remove(user).is_some() };
        let Some(users) = self.muted_in.get_mut(room) else { return false };
        let was = users.remove(user).is_some();
        self.muted_in_len -= usize::from(was);
        if users.is_empty() {
            self.muted_in.remove(room);
        }
        was
    }

    /// Nobody may speak in a room.
    ///
    /// # Errors
    /// As many rooms are muted as may be.
    pub fn mute_room(&mut self, room: &str, until: Until, now_ms: u64) -> Result<(), TooMany> {
        put(&mut self.rooms, room, until, now_ms)
    }

    /// Takes [`mute_room`](Self::mute_room) back. Whether there was something to take back.
    pub fn unmute_room(&mut self, room: &str) -> bool {
        self.rooms.remove(room).is_some()
    }

    /// A user may send one message in a pause, in a room; zero for as many as there are; `None` for what the config
    /// says.
    ///
    /// # Errors
    /// As many rooms have a pause as may have.
    pub fn slow(&mut self, room: &str, pause: Option<Duration>) -> Result<(), TooMany> {
        match pause {
            Some(_) if self.slow.len() >= RULES_MAX && !self.slow.contains_key(room) => {
                return Err(TooMany);
            }
            Some(pause) => self.slow.insert(room.to_owned(), pause),
            None => self.slow.remove(room),
        };
        Ok(())
    }

    pub(super) fn pause(&self, room: &str) -> Duration {
        if self.slow.is_empty() {
            return self.pause;
        }
        self.slow.get(room).copied().unwrap_or(self.pause)
    }

    pub(super) fn refuses(
        &self,
        room: &str,
        user: &str,
        is_looked_at: bool,
        now_ms: u64,
    ) -> Option<Why> {
        let holds = |until: &Until| until.is_none_or(|until| now_ms < until);
        let is_in = |rules: &HashMap<String, Until>, key: &str| {
            !rules.is_empty() && rules.get(key).is_some_and(holds)
        };
        if is_in(&self.blocked, user)
            || is_in(&self.stored_blocked, user)
            || self.configured.iter().any(|one| one == user)
        {
            return Some(Why::Blocked);
        }
        if !is_looked_at {
            return None;
        }
        if is_in(&self.muted, user) || is_in(&self.stored_muted, user) {
            return Some(Why::Muted);
        }
        if self.muted_in.get(room).is_some_and(|users| is_in(users, user)) {
            return Some(Why::Muted);
        }
        is_in(&self.rooms, room).then_some(Why::RoomMuted)
    }

    /// Forgets mutes in rooms that are over.
    fn sweep(&mut self, now_ms: u64) {
        self.muted_in.retain(|_, users| {
            users.retain(|_, until| until.is_none_or(|until| now_ms < until));
            !users.is_empty()
        });
        self.muted_in_len = self.muted_in.values().map(HashMap::len).sum();
    }
}

fn put(
    rules: &mut HashMap<String, Until>,
    key: &str,
    until: Until,
    now_ms: u64,
) -> Result<(), TooMany> {
    if rules.len() >= RULES_MAX && !rules.contains_key(key) {
        rules.retain(|_, until| until.is_none_or(|until| now_ms < until));
        if rules.len() >= RULES_MAX {
            return Err(TooMany);
        }
    }
    rules.insert(key.to_owned(), until);
    Ok(())
}
