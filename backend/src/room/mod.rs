//! A room, as a pure state machine: [`Room::apply`] takes an event and the time, and says what
//! follows. Nothing here does I/O, reads a clock or starts a task; the shard around it does.
//!
//! What holds, whatever happens:
//! - counters of an epoch are contiguous, per class, over everything that is published;
//! - a signal or stroke is published once, after it is stored, and acked after it is published;
//! - a Session is subscribed at the last published position: it misses nothing after it;
//! - every chat message offered is either forwarded or counted as shed.
//!
//! Where strokes have an owner of their own, the two halves of a room are two of these: one without the
//! class binary, with the members, and one with nothing else, which knows only the gateways that have some
//! ([`strokes`]).

mod chat;
mod config;
mod event;
mod filter;
mod join;
mod log;
mod members;
mod notes;
mod policy;
mod presence;
mod push;
mod rules;
mod send;
mod senders;
mod state;
mod strokes;

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use edgeway_filter::SlowMode;
use edgeway_proto::{Class, ErrorCode, Seq, Text};

use crate::store::{Append, LogHead, LogId, Record};
use chat::Chat;
pub use config::RoomConfig;
pub use event::{Ask, Asker, Counts, Effect, Effects, Event, Join, Move, Moves, Now, SessionId};
pub(crate) use event::{RETRY_AFTER_MS, refused_push};
pub use filter::Filtering;
pub(crate) use join::ACK_STATUSES;
use log::Log;
use members::Members;
pub(crate) use notes::{Note, Notes, Wanted};
use presence::{Beat, Presence};
pub use push::Push;
use push::Pushes;
pub use rules::Change;
pub(crate) use rules::{BYTES as RULES_BYTES, Rules};
use senders::Senders;
pub(crate) use senders::device_key;
use state::State;
use strokes::Strokes;

/// What kind of place it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Many members, all of whom see the same.
    Room,
    /// The same, without its strokes: another owner has them.
    Apart,
    /// The strokes of a room, and nothing else of it.
    Strokes,
    /// One user's: others attach to send into it, with ids that need only grow.
    Inbox,
}

impl Kind {
    /// The class whose epoch is that of the owner: all classes of an owner are sealed together.
    #[must_use]
    pub const fn owned(self) -> Class {
        match self {
            Self::Room | Self::Apart | Self::Inbox => Class::Signal,
            Self::Strokes => Class::Binary,
        }
    }

    /// The classes that it owns.
    #[must_use]
    pub const fn classes(self) -> &'static [Class] {
        match self {
            Self::Room | Self::Inbox => &Class::ALL,
            Self::Apart => &[Class::Signal, Class::Chat],
            Self::Strokes => &[Class::Binary],
        }
    }
}

/// What the store knows of a room when it is loaded.
#[derive(Debug, Clone, Default)]
pub struct Loaded {
    /// The ends of the logs, by class. The epoch is the one after the last entry.
    pub heads: [LogHead; 3],
    /// The latest signal of each key.
    pub state: Vec<Record>,
}

/// A room or an inbox.
#[derive(Debug)]
pub struct Room {
    group: u64,
    /// Told by the first join.
    name: Text,
    slow: SlowMode,
    kind: Kind,
    config: Arc<RoomConfig>,
    members: Members,
    senders: Senders,
    /// Signals and strokes.
    logs: [Log; 2],
    chat: Chat,
    state: State,
    /// Joins of devices whose messages are not stored yet.
    waiting: Vec<Join>,
    strokes: Strokes,
    pushes: Pushes,
    rules: Rules,
    /// The place of the last change of the rules, of this owner.
    ruled: Seq,
    /// What waits for the store, in bytes.
    pending_bytes: usize,
    /// The earliest wake that was asked for and has not come.
    armed: Option<Duration>,
    /// Since when there is no member.
    empty_since: Option<Duration>,
}

impl Room {
    /// A room whose logs this owner has sealed, see [`crate::store::Store::open`].
    #[must_use]
    pub fn new(group: u64, kind: Kind, config: Arc<RoomConfig>, loaded: Loaded, now: Now) -> Self {
        let epoch = |class: Class| loaded.heads[class.index()].last.epoch + 1;
        let log = |class| Log::new(LogId { group, class }, epoch(class));
        let mut senders = Senders::new(config.senders_max, config.recent_ids);
        for class in Class::ALL {
            senders.restore(class, &loaded.heads[class.index()]);
        }
        let pushes = Pushes::restore(&loaded, now);
        let rules = Rules::restore(&loaded.state);
        let mut state = State::new(config.state_keys, config.state_bytes);
        state.restore(loaded.state);
        // Versions of a later owner are later, so that no client takes them for old ones.
        let version = epoch(Class::Signal) << 32;
        let (names_max, interval) = (config.presence_names_max, config.presence_interval);
        let presence = Presence::new(version, names_max, Beat::of(group, interval));
        Self {
            group,
            name: Text::default(),
            slow: SlowMode::default(),
            kind,
            members: Members::new(presence),
            senders,
            logs: [log(Class::Signal), log(Class::Binary)],
            chat: Chat::new(epoch(Class::Chat), &config, now),
            state,
            waiting: Vec::new(),
            strokes: Strokes::new(kind),
            pushes,
            rules,
            ruled: Seq::ZERO,
            pending_bytes: 0,
            armed: None,
            empty_since: Some(now.since_start),
            config,
        }
    }

    /// Goes by these numbers from now on, where they are others. Nobody has to leave a room that has more members
    /// than it may have now.
    pub fn configure(&mut self, config: &Arc<RoomConfig>, now: Now) {
        if !Arc::ptr_eq(&self.config, config) {
            self.chat.configure(config, now);
            self.config = Arc::clone(config);
        }
    }

    /// Takes an event, and adds what follows to the effects.
    pub fn apply(&mut self, event: Event, now: Now, fx: &mut Effects) {
        let cause = notes::cause(&event);
        match event {
            Event::Join(join) => self.join(join, now, fx),
            Event::Leave { session, access, request } => {
                self.leave(session, access, request, now, fx);
            }
            Event::GatewayGone(gateway) => self.sweep(|s, _| s.gateway == gateway, now, fx),
            Event::GatewayCame(gateway) => self.announce_again(gateway, fx),
            Event::AccessGone(access) => {
                self.sweep(|_, a| a == access, now, fx);
                self.unroute(access, fx);
            }
            Event::Stroke { session, user, device, send, store_full } => {
                self.stroke(session, user, &device, send, store_full, now, fx);
            }
            Event::Ask(ask) => self.ask(ask, fx),
            Event::Route { access, epoch, gateways } => self.set_route(access, epoch, gateways, fx),
            Event::TellRoute => self.forget_told_route(),
            Event::Send { session, send, store_full } => {
                self.send(session, send, store_full, now, fx);
            }
            Event::Push { push, store_full } => self.push(push, store_full, now, fx),
            Event::Rule { from, change, bytes_max, store_full } => {
                self.rule(from, &change, (bytes_max, store_full), now, fx);
            }
            Event::Kick { link, push, user } => self.kick(link, push, &user, now, fx),
            Event::Members { session, members } => self.member_page(session, &members, fx),
            Event::Appended(class) => self.appended(class, now, fx),
            Event::ChatSettled(upto) => self.chat.settle(upto),
            Event::Fenced => self.fenced(now, fx),
            Event::Tick => self.tick(now, fx),
        }
        self.note_moves(cause, fx);
        self.tell_route(fx);
        self.arm(now, fx);
    }

    /// The group's handle.
    #[must_use]
    pub fn group(&self) -> u64 {
        self.group
    }

    /// The epoch of this owner.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.head(self.kind.owned()).epoch
    }

    /// The members that others see, with their users and devices.
    pub fn listed(&self) -> impl Iterator<Item = (SessionId, &str, &str)> + '_ {
        self.members.all().filter(|(_, member)| !member.send_only).map(|(session, member)| {
            (session, member.user.as_str(), self.senders.device(member.sender))
        })
    }

    /// The gateways that have members.
    pub fn route(&self) -> impl Iterator<Item = u64> + '_ {
        self.members.route().chain(self.strokes.route())
    }

    /// Sessions attached, senders to an inbox included.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.members.sessions()
    }

    /// The last published position of a class.
    #[must_use]
    pub fn head(&self, class: Class) -> Seq {
        match class {
            Class::Chat => self.chat.head(),
            _ => self.logs[class.index()].head(),
        }
    }

    /// Up to here history is complete: what is published and stored, or lost for history. `None` where
    /// another owner knows.
    #[must_use]
    pub fn settled(&self, class: Class) -> Option<Seq> {
        match class {
            _ if !self.kind.classes().contains(&class) => None,
            Class::Chat => Some(self.chat.settled()),
            _ => Some(self.logs[class.index()].head()),
        }
    }

    /// Whether the Session may read history and members.
    ///
    /// # Errors
    /// What to tell the client.
    pub fn may_read(&self, session: SessionId) -> Result<(), (ErrorCode, &'static str)> {
        match self.members.get(session) {
            None => Err((ErrorCode::NotJoined, "the room is not joined")),
            Some(member) if member.send_only => {
                Err((ErrorCode::Forbidden, "joined for sending only"))
            }
            Some(_) => Ok(()),
        }
    }

    /// Whether [`Self::collect`] would give something new.
    #[must_use]
    pub fn wants_append(&self) -> bool {
        self.logs.iter().any(Log::wants_append)
    }

    /// Adds what is to be stored, and says how many bytes it takes. Asked again before
    /// [`Event::Appended`] it gives the same, for another try.
    pub fn collect(&mut self, out: &mut Vec<Append>) -> usize {
        self.logs.iter_mut().map(|log| log.collect(&self.senders, out)).sum()
    }

    /// The last position that [`Self::collect`] gave of a class and that is not stored yet.
    #[must_use]
    pub fn storing(&self, class: Class) -> Option<Seq> {
        self.logs.get(class.index())?.storing()
    }

    /// Bytes that wait for the store.
    #[must_use]
    pub fn pending_bytes(&self) -> usize {
        self.pending_bytes
    }

    /// Whether everything that was accepted is stored, or given up where it may be.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.logs.iter().all(Log::is_settled) && self.chat.is_settled()
    }

    /// Whether the room has been empty for long enough to be unloaded.
    #[must_use]
    pub fn is_idle(&self, now: Now) -> bool {
        let due = self.idle_due();
        due.is_some_and(|due| due <= now.since_start) && self.is_settled()
    }

    fn idle_due(&self) -> Option<Duration> {
        Some(self.empty_since? + self.config.idle_unload)
    }

    fn tick(&mut self, now: Now, fx: &mut Effects) {
        self.armed = None;
        let is_due = |due: Option<Duration>| due.is_some_and(|due| due <= now.since_start);
        if is_due(self.chat.due()) {
            self.flush_chat(now, fx);
        }
        if is_due(self.members.presence.due()) {
            self.tell_presence(fx);
        }
    }

    fn tell_presence(&mut self, fx: &mut Effects) {
        let frames = self.members.take_presence(self.group);
        if self.kind == Kind::Inbox || frames.is_empty() {
            return;
        }
        let mut out = bytes::BytesMut::new();
        for frame in frames {
            frame.encode(&mut out);
        }
        let first = self.head(Class::Signal);
        let frames = out.freeze();
        fx.list.push(Effect::Publish { class: Class::Signal, first, count: 0, frames });
    }

    /// Asks to be woken for whatever comes next.
    fn arm(&mut self, now: Now, fx: &mut Effects) {
        if self.members.sessions() > 0 || self.strokes.is_wanted() {
            self.empty_since = None;
        } else {
            self.empty_since.get_or_insert(now.since_start);
        }
        let idle = self.idle_due().filter(|_| self.is_settled());
        // What is overdue and could not happen yet is not asked for again and again.
        let idle = idle.map(|due| due.max(now.since_start + Duration::from_millis(1)));
        let due = [self.chat.due(), self.members.presence.due(), idle].into_iter().flatten().min();
        if let Some(due) = due.filter(|due| self.armed.is_none_or(|armed| *due < armed)) {
            self.armed = Some(due);
            fx.list.push(Effect::WakeAt(due));
        }
    }
}
