//! Inboxes, and Sessions of types of one's own, as apps hold them.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use edgeway_proto::{Class, Seq};
use parking_lot::Mutex;

use crate::{
    Ack, JoinOptions, Message, RawFrame, RequestError, Room, SendError, SessionId, client::Guard,
    core::Core,
};

/// The name of one's own inbox.
const OWN: &str = "@me";

/// Inboxes of others that stay joined.
const OTHERS_MAX: usize = 64;

/// The key of the signal that says what was read.
const READ_KEY: &str = "read";

/// With what an inbox begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Begin {
    /// What comes from now on.
    Live,
    /// What has come after this place.
    After(Seq),
    /// What this device has not acknowledged.
    Cursor,
}

/// One's own inbox, and the way to those of others. What arrives in it comes as
/// [`Event::Message`](crate::Event::Message) of the room `@me`.
#[derive(Debug, Clone)]
pub struct Inbox {
    guard: Arc<Guard>,
    session: SessionId,
    own: Room,
    /// Inboxes of others, the one used last at the end.
    others: Arc<Mutex<VecDeque<Room>>>,
}

impl Inbox {
    pub(crate) async fn join(
        guard: &Arc<Guard>,
        session: SessionId,
        begin: Begin,
    ) -> Result<Self, RequestError> {
        let after = match begin {
            Begin::Live => None,
            Begin::After(after) => Some(after),
            // Where this device has no cursor yet, with all that is kept.
            Begin::Cursor => Some(Seq::ZERO),
        };
        let positions = after.into_iter().map(|after| (Class::Signal, after)).collect();
        let options = JoinOptions { positions, send_only: false };
        let ask = |core: &mut Core, answer| {
            core.join(session, OWN, &options, answer);
            core.keep_cursor(session, OWN, &guard.device, begin == Begin::Cursor);
        };
        let own = Room::join_by(guard, session, OWN, ask).await?;
        Ok(Self { guard: Arc::clone(guard), session, own, others: Arc::default() })
    }

    /// The Session that carries it: what its messages are known by.
    #[must_use]
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// The inbox as a room: its history, and its state (read marks).
    #[must_use]
    pub fn room(&self) -> Room {
        self.own.clone()
    }

    /// Sends to another user's inbox. Resolves once it is in there, whether they are online or not.
    /// The way to an inbox is kept for the next message; few that are used are kept, others are left.
    ///
    /// # Errors
    /// As [`Room::send`]; and [`SendError::Receiver`] where the inbox cannot be reached.
    pub async fn send_to(&self, user: &str, payload: Bytes) -> Result<Ack, SendError> {
        if user == self.guard.shared.user() {
            // Joined to be sent to, it would not be read any more.
            return self.own.send_signal(payload).await;
        }
        loop {
            let known = self.known(user);
            let again = known.is_some();
            let room = match known {
                Some(room) => room,
                None => self.way_to(user).await?,
            };
            match room.send_signal(payload.clone()).await {
                // It was left meanwhile, here or by the server: joins anew, once.
                Err(SendError::NotJoined) if again => self.forget(user),
                result => return result,
            }
        }
    }

    fn known(&self, user: &str) -> Option<Room> {
        let mut others = self.others.lock();
        let at = others.iter().position(|room| *room.name() == *user)?;
        let room = others.remove(at)?;
        others.push_back(room.clone());
        Some(room)
    }

    fn forget(&self, user: &str) {
        self.others.lock().retain(|room| *room.name() != *user);
    }

    async fn way_to(&self, user: &str) -> Result<Room, SendError> {
        let options = JoinOptions { send_only: true, positions: Vec::new() };
        let room = Room::join(&self.guard, self.session, user, options);
        let room = room.await.map_err(SendError::Receiver)?;
        self.forget(user);
        let mut others = self.others.lock();
        others.push_back(room.clone());
        // Not one whose messages are still to be acknowledged.
        if others.len() > OTHERS_MAX
            && let Some(at) = others.iter().position(Room::is_idle)
            && let Some(oldest) = others.remove(at)
        {
            oldest.leave_quietly();
        }
        Ok(room)
    }

    /// This device has dealt with everything up to this message of the inbox, or of a topic of its Session. It is kept
    /// in the inbox, under the device's name, so it outlives the app:
    /// [`Client::inbox_from_cursor`](crate::Client::inbox_from_cursor) and [`topic`](Self::topic) go on behind it. It
    /// never goes back. For many messages that were dealt with together once is enough, for the last of them.
    ///
    /// The cursors of 32 devices are kept, those that were moved last, and of each 16 rooms and those that are joined.
    ///
    /// # Errors
    /// As [`Room::send_nowait`], and [`SendError::TooLarge`] where the device's name has more than 121 bytes.
    pub async fn acknowledge(&self, message: &Message) -> Result<Ack, SendError> {
        self.own.move_cursor(&message.room, message.seq).await
    }

    /// Where this device has got to, by what it acknowledged, in the inbox (`@me`), a topic (`topic/NAME`) or
    /// `@everyone`.
    #[must_use]
    pub fn cursor(&self, room: &str) -> Option<Seq> {
        self.own.cursor(room)
    }

    /// Listens to a topic on the inbox's Session, as [`Client::topic`](crate::Client::topic): what has come since this
    /// device [acknowledged](Self::acknowledge) is delivered first. Where it never did, it begins with what comes from
    /// now on.
    ///
    /// # Errors
    /// As [`Client::topic`](crate::Client::topic).
    pub async fn topic(&self, topic: &str) -> Result<Room, RequestError> {
        self.listen(&format!("topic/{topic}")).await
    }

    /// Listens to what is sent to everyone, as [`topic`](Self::topic) does.
    ///
    /// # Errors
    /// As [`Client::topic`](crate::Client::topic).
    pub async fn everyone(&self) -> Result<Room, RequestError> {
        self.listen("@everyone").await
    }

    async fn listen(&self, name: &str) -> Result<Room, RequestError> {
        let positions = self.cursor(name).map(|after| (Class::Signal, after)).into_iter().collect();
        let options = JoinOptions { positions, send_only: false };
        Room::join(&self.guard, self.session, name, options).await
    }

    /// Tells the user's other devices that everything up to `upto` was read.
    ///
    /// # Errors
    /// As [`Room::send`].
    pub async fn mark_read(&self, upto: Seq) -> Result<Ack, SendError> {
        self.own.send_signal_with(Bytes::from(upto.to_string()), READ_KEY, 0).await
    }
}

/// A Session of any type, and the way to its rooms. After a reconnect it is opened and its rooms are
/// joined again ([`Event::SessionOpened`](crate::Event::SessionOpened)).
#[derive(Debug, Clone)]
pub struct Rooms {
    guard: Arc<Guard>,
    id: SessionId,
}

impl Rooms {
    pub(crate) fn new(guard: &Arc<Guard>, id: SessionId) -> Self {
        Self { guard: Arc::clone(guard), id }
    }

    /// Its name, across reconnects: what its messages are known by.
    #[must_use]
    pub fn session(&self) -> SessionId {
        self.id
    }

    /// Joins a room, as [`Client::join`](crate::Client::join).
    ///
    /// # Errors
    /// The server refused it, or the client or the Session is closed.
    pub async fn join(&self, room: &str) -> Result<Room, RequestError> {
        self.join_with(room, JoinOptions::default()).await
    }

    /// Joins a room, from a position, or only to send.
    ///
    /// # Errors
    /// As [`join`](Self::join).
    pub async fn join_with(&self, room: &str, options: JoinOptions) -> Result<Room, RequestError> {
        Room::join(&self.guard, self.id, room, options).await
    }

    /// Joins many rooms in one call, as [`Client::join_all`](crate::Client::join_all).
    pub async fn join_all(&self, rooms: Vec<String>) -> Vec<Result<Room, RequestError>> {
        Room::join_all(&self.guard, self.id, rooms).await
    }

    /// Queues a frame of the backend's own, of a kind from 0x80, on the lane of a class. There is no
    /// answer, and it is not sent again. Those of the backend come as
    /// [`Event::Frame`](crate::Event::Frame).
    ///
    /// # Errors
    /// The queue is full, the frame too large or of a lower kind, or the Session not open.
    pub async fn send(&self, class: Class, frame: RawFrame) -> Result<(), SendError> {
        self.guard.shared.with(|core| core.send_raw(self.id, class, frame))
    }

    /// Closes the Session, and leaves its rooms.
    pub async fn close(&self) {
        self.guard.shared.with(|core| core.close_session(self.id));
    }
}

/// A Session whose frames are its backend's own. What arrives comes as
/// [`Event::Frame`](crate::Event::Frame). After a reconnect it is opened again
/// ([`Event::SessionOpened`](crate::Event::SessionOpened)); what was under way is lost.
#[derive(Debug, Clone)]
pub struct Session {
    guard: Arc<Guard>,
    id: SessionId,
}

impl Session {
    pub(crate) fn new(guard: &Arc<Guard>, id: SessionId) -> Self {
        Self { guard: Arc::clone(guard), id }
    }

    /// Its name, across reconnects.
    #[must_use]
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// Queues a frame, of a kind from 0x40, on the lane of a class. There is no answer, and it is not sent
    /// again.
    ///
    /// # Errors
    /// The queue is full, the frame too large or of a lower kind, or the Session not open.
    pub async fn send(&self, class: Class, frame: RawFrame) -> Result<(), SendError> {
        self.guard.shared.with(|core| core.send_raw(self.id, class, frame))
    }

    /// For an app that speaks of groups with its backend: it has everything up to `last`, so that
    /// deliveries go on. Where that is not the head, another [`Behind`](crate::Behind) comes.
    ///
    /// # Errors
    /// The queue is full, or the Session not open.
    pub async fn caught_up(&self, group: u64, class: Class, last: Seq) -> Result<(), SendError> {
        self.guard.shared.with(|core| core.send_caught_up(self.id, group, class, last))
    }

    /// Closes the Session.
    pub async fn close(&self) {
        self.guard.shared.with(|core| core.close_session(self.id));
    }
}
