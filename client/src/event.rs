//! What a client is told, and the values that requests answer with.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use edgeway_proto::{Class, CloseCode, ErrorCode, Seq, Text, frame};
use edgeway_transport::Transport;

/// Names one Session of a client, across reconnects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub(crate) u32);

impl SessionId {
    /// The chat Session, which every client has: the rooms.
    pub const CHAT: Self = Self(0);
}

/// A message of a room or inbox.
///
/// `sender`, `key` and `payload` share the bytes that were read from the network: to keep a small
/// one for long, copy it, or up to 16 KiB stay in memory with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The Session that the room belongs to.
    pub session: SessionId,
    /// The room's name; `@me` for one's own inbox.
    pub room: Arc<str>,
    /// Its class.
    pub class: Class,
    /// Its place in the order of the room and class, the same for all members.
    pub seq: Seq,
    /// The user who sent it; empty for the system.
    pub sender: Text,
    /// Milliseconds since 1970 on the server's clock when it was accepted.
    pub time_ms: u64,
    /// Milliseconds since 1970 after which it is void; 0 for never.
    pub expires_ms: u64,
    /// The key of room state that it sets; empty for none.
    pub key: Text,
    /// For chat: how many messages the room's policy has shed so far, in this epoch.
    pub shed: u64,
    /// What was sent.
    pub payload: Bytes,
}

/// Who came and went in a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presence {
    /// The Session that the room belongs to.
    pub session: SessionId,
    /// The room's name.
    pub room: Arc<str>,
    /// Members now, each user counted once.
    pub members: u64,
    /// Users who came; where `complete`, everyone who is there.
    pub joined: Vec<Text>,
    /// Users who went.
    pub left: Vec<Text>,
    /// Changes were missed: `joined` is the whole list, forget what was known.
    pub complete: bool,
    /// The room is too large for names: only `members` is told.
    pub count_only: bool,
}

/// Why one is no longer in a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeftCause {
    /// The server ended it.
    Ended(CloseCode),
    /// Joining again after a reconnect was refused.
    Refused(ErrorCode),
}

/// A frame of a Session whose meaning is the backend's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawFrame {
    /// 0x40 to 0xff when sent.
    pub kind: u8,
    /// At most 64 KiB.
    pub body: Bytes,
}

impl RawFrame {
    /// For an app that reads groups by itself ([`Client::open`](crate::Client::open)): the gateway has
    /// stopped the deliveries of one, because it joined or reads too late. `None` for any other frame.
    #[must_use]
    pub fn behind(&self) -> Option<Behind> {
        if self.kind != frame::Behind::KIND {
            return None;
        }
        let frame::Behind { group, class, head } = frame::Behind::parse(self.body.clone()).ok()?;
        Some(Behind { group, class, head })
    }
}

/// Nothing of a group and class comes any more, until [`Session::caught_up`](crate::Session::caught_up).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Behind {
    /// The group.
    pub group: u64,
    /// The class.
    pub class: Class,
    /// The latest position there is.
    pub head: Seq,
}

/// What happens, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A message: in order and once, for each room and class.
    Message(Message),
    /// Members came and went.
    Presence(Presence),
    /// Chat that this client did not get: shed for this connection, or sent while there was none.
    Gap {
        /// The Session that the room belongs to.
        session: SessionId,
        /// The room's name.
        room: Arc<str>,
        /// The class.
        class: Class,
        /// The last position before the gap.
        after: Seq,
        /// The last position in the gap.
        upto: Seq,
        /// How many messages; where the epoch changed in between, at least so many.
        missed: u64,
    },
    /// Messages after this position are no longer kept and will not come: a gap that cannot be
    /// refilled. What is kept follows.
    HistoryLost {
        /// The Session that the room belongs to.
        session: SessionId,
        /// The room's name.
        room: Arc<str>,
        /// The class.
        class: Class,
        /// The last position before the gap.
        after: Seq,
    },
    /// No longer in this room, without having asked.
    Left {
        /// The Session that the room belongs to.
        session: SessionId,
        /// The room's name.
        room: Arc<str>,
        /// Why.
        cause: LeftCause,
        /// For a person.
        reason: String,
    },
    /// A frame of the backend's own.
    Frame {
        /// The Session.
        session: SessionId,
        /// The lane that it came on.
        class: Class,
        /// The frame.
        frame: RawFrame,
    },
    /// The server closed a Session.
    SessionClosed {
        /// The Session.
        session: SessionId,
        /// Its code.
        code: CloseCode,
        /// For a person.
        reason: String,
        /// Whether the client opens it again, and joins its rooms again, by itself.
        reopening: bool,
    },
    /// A Session that was closed, or lost with its connection, is open again.
    SessionOpened {
        /// The Session.
        session: SessionId,
    },
    /// The login ends soon, and the connection with it: time for [`Client::renew`](crate::Client::renew).
    LoginExpires {
        /// How long it still holds.
        left: Duration,
    },
    /// The server asks to connect anew soon; the client does so by itself.
    GoingAway {
        /// Why.
        code: CloseCode,
        /// When it will.
        reconnect_after: Duration,
    },
    /// The connection is lost; the client tries to connect anew.
    Reconnecting {
        /// Why the connection, or the last try, ended.
        reason: String,
        /// Counts the tries, from 1.
        attempt: u32,
    },
    /// Connected again; rooms are being joined again.
    Reconnected {
        /// What carries the new connection.
        transport: Transport,
        /// The server went on with the Session as it was, without a login of its own.
        resumed: bool,
    },
    /// The client is closed and stays so. The last event.
    Closed {
        /// Why.
        code: CloseCode,
        /// For a person.
        reason: String,
    },
}

/// A message to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// Its class.
    pub class: Class,
    /// At most 60 KiB.
    pub payload: Bytes,
    /// For a signal: the room keeps the latest of each key as its state. Empty for none.
    pub key: String,
    /// Milliseconds since 1970 after which it is not delivered any more; 0 for never.
    pub expires_ms: u64,
}

impl Outgoing {
    const fn of(class: Class, payload: Bytes) -> Self {
        Self { class, payload, key: String::new(), expires_ms: 0 }
    }

    /// A signal: high priority, never lost.
    #[must_use]
    pub const fn signal(payload: Bytes) -> Self {
        Self::of(Class::Signal, payload)
    }

    /// A whiteboard stroke.
    #[must_use]
    pub const fn stroke(payload: Bytes) -> Self {
        Self::of(Class::Binary, payload)
    }

    /// A chat message: low priority.
    #[must_use]
    pub const fn chat(payload: Bytes) -> Self {
        Self::of(Class::Chat, payload)
    }
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AckStatus {
    /// Accepted: for signals and strokes, in history; for chat, forwarded.
    Accepted,
    /// It had been accepted before: the first answer was lost with a connection.
    Duplicate,
    /// Thinned out by the room's policy for chat. Not an error.
    Shed,
}

/// The server's answer to a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ack {
    /// What became of it.
    pub status: AckStatus,
    /// Its position; [`Seq::ZERO`] where it has none or the server no longer knows it.
    pub seq: Seq,
}

/// How to join a room.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JoinOptions {
    /// Only to send: nothing is delivered, and others do not see this member.
    pub send_only: bool,
    /// What the app has already, by class: what follows is delivered first. [`Seq::ZERO`] for all that
    /// is kept. A class left out starts live.
    pub positions: Vec<(Class, Seq)>,
}

/// A page of history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryPage {
    /// Oldest first.
    pub messages: Vec<Message>,
    /// Where the next page starts.
    pub upto: Seq,
    /// The latest position there is.
    pub head: Seq,
    /// Whether there is more.
    pub more: bool,
    /// Whether what directly followed the asked position is no longer kept.
    pub truncated: bool,
}

/// A page of a room's member list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MembersPage {
    /// Names in byte order; the last one is where the next page starts.
    pub users: Vec<Text>,
    /// Members in all.
    pub total: u64,
    /// Whether there are more.
    pub more: bool,
}

/// Counts of one client since it was made, across reconnects.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Messages given to the app's queue.
    pub messages: u64,
    /// Deliveries that had been received before, and were not given again.
    pub duplicates: u64,
    /// Pages of history fetched to catch up.
    pub pages: u64,
    /// Times that live deliveries had a hole, in classes that must have none.
    pub holes: u64,
    /// Chat messages missed, as far as they can be counted.
    pub missed: u64,
    /// Messages accepted by the server (duplicates included).
    pub acked: u64,
    /// Messages of this client that the policy for chat shed.
    pub shed: u64,
    /// Messages of this client that were refused, dropped or not answered.
    pub failed: u64,
    /// Messages written again after a loss.
    pub resent: u64,
    /// Bytes of messages that are not acknowledged yet.
    pub unacked_bytes: u64,
    /// Times that the client connected anew.
    pub reconnects: u64,
    /// Of them, those that went on by session token, without a login of their own.
    pub resumes: u64,
    /// Times that it did so by early data: what it said along with the first packet was taken.
    pub early_data: u64,
    /// Bytes of frames received.
    pub received_bytes: u64,
    /// Bytes of frames written.
    pub sent_bytes: u64,
    /// Bytes of events that the app has not taken yet.
    pub queued_event_bytes: u64,
}
