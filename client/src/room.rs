//! Rooms, as apps hold them.

use std::{sync::Arc, time::SystemTime};

use bytes::Bytes;
use edgeway_proto::{Class, Seq};
use tokio::sync::{OwnedSemaphorePermit, TryAcquireError, oneshot};

use crate::{
    Ack, HistoryPage, JoinOptions, MembersPage, Message, Outgoing, RequestError, SendError,
    SessionId,
    client::Guard,
    core::{Answer, Core, Draft, RoomId},
};

/// A room that was joined. Cheap to clone; dropping it does not leave the room.
///
/// The `send` family resolves with the server's answer. A future that is dropped before the message
/// was queued (it waits where much is unacknowledged) sends nothing; dropped later, the message
/// is sent all the same. Messages go in the order in which they were queued. The `nowait` family
/// queues at once or fails, and its answers are only counted.
#[derive(Debug, Clone)]
pub struct Room {
    guard: Arc<Guard>,
    session: SessionId,
    name: Arc<str>,
    id: RoomId,
}

impl Room {
    pub(crate) async fn join(
        guard: &Arc<Guard>,
        session: SessionId,
        name: &str,
        options: JoinOptions,
    ) -> Result<Self, RequestError> {
        let ask = |core: &mut Core, answer| core.join(session, name, &options, answer);
        Self::join_by(guard, session, name, ask).await
    }

    /// The same, by what is done with the core.
    pub(crate) async fn join_by(
        guard: &Arc<Guard>,
        session: SessionId,
        name: &str,
        ask: impl FnOnce(&mut Core, Answer<RoomId>),
    ) -> Result<Self, RequestError> {
        let id = guard.ask(ask).await?;
        Ok(Self { guard: Arc::clone(guard), session, name: name.into(), id })
    }

    /// Joins many in one go: what the server is asked leaves together, and no room waits for another.
    pub(crate) async fn join_all(
        guard: &Arc<Guard>,
        session: SessionId,
        names: Vec<String>,
    ) -> Vec<Result<Self, RequestError>> {
        let options = JoinOptions::default();
        let waiting: Vec<_> = guard.shared.with(|core| {
            let ask = |name: &String| {
                let (answer, waiting) = oneshot::channel();
                core.join(session, name, &options, answer);
                waiting
            };
            names.iter().map(ask).collect()
        });
        let mut rooms = Vec::with_capacity(names.len());
        for (name, waiting) in names.into_iter().zip(waiting) {
            let id = waiting.await.unwrap_or(Err(RequestError::Closed));
            let room = |id| Self { guard: Arc::clone(guard), session, name: name.into(), id };
            rooms.push(id.map(room));
        }
        rooms
    }

    /// The room's name.
    #[must_use]
    pub fn name(&self) -> Arc<str> {
        Arc::clone(&self.name)
    }

    /// The Session that it belongs to.
    #[must_use]
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// Members as last told, each user counted once.
    #[must_use]
    pub fn members_count(&self) -> u64 {
        self.guard.shared.with(|core| core.members_count(self.id))
    }

    /// The room's state: the latest signal of each key, by key.
    #[must_use]
    pub fn state(&self) -> Vec<Message> {
        let mut state = self.guard.shared.with(|core| core.state(self.id));
        state.retain(is_set);
        state
    }

    /// The latest signal of a key.
    #[must_use]
    pub fn state_of(&self, key: &str) -> Option<Message> {
        self.guard.shared.with(|core| core.state_of(self.id, key)).filter(is_set)
    }

    /// The position up to which messages of a class were put into [`Events`](crate::Events). An app
    /// that keeps messages keeps positions of its own.
    #[must_use]
    pub fn position(&self, class: Class) -> Seq {
        self.guard.shared.with(|core| core.position(self.id, class))
    }

    /// Sends a message; the answer.
    ///
    /// # Errors
    /// It was not sent, or what became of it is not known: see [`SendError`].
    pub async fn send(&self, message: Outgoing) -> Result<Ack, SendError> {
        let draft = Draft::new(message)?;
        let permit = self.permit(&draft).await?;
        let (waiter, waiting) = oneshot::channel();
        self.guard.shared.with(|core| core.send(self.id, draft, permit, Some(waiter)))?;
        waiting.await.unwrap_or(Err(SendError::Closed))
    }

    /// Queues a message at once; a number that grows with each of this room and class.
    ///
    /// # Errors
    /// [`SendError::Full`] where too much is unacknowledged; else as [`send`](Self::send).
    pub fn send_nowait(&self, message: Outgoing) -> Result<u64, SendError> {
        let draft = Draft::new(message)?;
        let permit = self.try_permit(&draft)?;
        self.guard.shared.with(|core| core.send(self.id, draft, permit, None))
    }

    /// Of one's own inbox: moves this device's cursor in a room.
    pub(crate) async fn move_cursor(&self, room: &str, place: Seq) -> Result<Ack, SendError> {
        let (waiter, waiting) = oneshot::channel();
        // Drawn up and queued in one go: of two at a time the later one says what both do.
        self.guard.shared.with(|core| {
            let mut messages = core.move_cursor(self.id, room, place);
            let last = messages.pop().ok_or(SendError::NotJoined)?;
            let mut queue = |message, waiter| {
                let draft = Draft::new(message)?;
                let permit = self.try_permit(&draft)?;
                core.send(self.id, draft, permit, waiter)
            };
            for message in messages {
                queue(message, None)?;
            }
            queue(last, Some(waiter))
        })?;
        waiting.await.unwrap_or(Err(SendError::Closed))
    }

    /// Of one's own inbox: where this device has got to in a room.
    pub(crate) fn cursor(&self, room: &str) -> Option<Seq> {
        self.guard.shared.with(|core| core.cursor(self.id, room))
    }

    /// The message's part of the bound on what is unacknowledged. Chat has a bound of its own.
    async fn permit(&self, draft: &Draft) -> Result<Option<OwnedSemaphorePermit>, SendError> {
        if draft.class == Class::Chat {
            return Ok(None);
        }
        let cost = u32::try_from(draft.cost()).unwrap_or(u32::MAX);
        let permits = Arc::clone(&self.guard.shared.permits);
        permits.acquire_many_owned(cost).await.map(Some).map_err(|_| SendError::Closed)
    }

    fn try_permit(&self, draft: &Draft) -> Result<Option<OwnedSemaphorePermit>, SendError> {
        if draft.class == Class::Chat {
            return Ok(None);
        }
        let cost = u32::try_from(draft.cost()).unwrap_or(u32::MAX);
        let permits = Arc::clone(&self.guard.shared.permits);
        permits.try_acquire_many_owned(cost).map(Some).map_err(|e| match e {
            TryAcquireError::Closed => SendError::Closed,
            TryAcquireError::NoPermits => SendError::Full,
        })
    }

    /// Sends a signal: high priority, never lost once this resolves.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn send_signal(&self, payload: Bytes) -> Result<Ack, SendError> {
        self.send(Outgoing::signal(payload)).await
    }

    /// Sends a signal that sets the room's state of `key` (empty for none), and is void after
    /// `expires_ms` (milliseconds since 1970; 0 for never).
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn send_signal_with(
        &self,
        payload: Bytes,
        key: &str,
        expires_ms: u64,
    ) -> Result<Ack, SendError> {
        let key = key.to_owned();
        self.send(Outgoing { key, expires_ms, ..Outgoing::signal(payload) }).await
    }

    /// Sends a whiteboard stroke.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn send_stroke(&self, payload: Bytes) -> Result<Ack, SendError> {
        self.send(Outgoing::stroke(payload)).await
    }

    /// Sends a chat message: low priority. Where the network is slow, the oldest that waits is dropped
    /// for newer ones.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn send_chat(&self, payload: Bytes) -> Result<Ack, SendError> {
        self.send(Outgoing::chat(payload)).await
    }

    /// Queues a signal at once.
    ///
    /// # Errors
    /// As [`send_nowait`](Self::send_nowait).
    pub fn send_signal_nowait(&self, payload: Bytes) -> Result<u64, SendError> {
        self.send_nowait(Outgoing::signal(payload))
    }

    /// Queues a stroke at once.
    ///
    /// # Errors
    /// As [`send_nowait`](Self::send_nowait).
    pub fn send_stroke_nowait(&self, payload: Bytes) -> Result<u64, SendError> {
        self.send_nowait(Outgoing::stroke(payload))
    }

    /// Queues a chat message at once.
    ///
    /// # Errors
    /// As [`send_nowait`](Self::send_nowait).
    pub fn send_chat_nowait(&self, payload: Bytes) -> Result<u64, SendError> {
        self.send_nowait(Outgoing::chat(payload))
    }

    /// A page of history: at most `limit` messages (0 for as many as fit) after a position, oldest
    /// first. Catching up needs no call: this is for what was before.
    ///
    /// # Errors
    /// The server refused it, or the connection was lost.
    pub async fn history(
        &self,
        class: Class,
        after: Seq,
        limit: u64,
    ) -> Result<HistoryPage, RequestError> {
        let ask = self.guard.ask(|core, answer| core.history(self.id, class, after, limit, answer));
        ask.await
    }

    /// A page of the member list: at most `limit` names (0 for as many as fit) after a name.
    ///
    /// # Errors
    /// The server refused it, or the connection was lost.
    pub async fn members(&self, after: &str, limit: u64) -> Result<MembersPage, RequestError> {
        self.guard.ask(|core, answer| core.members(self.id, after, limit, answer)).await
    }

    /// Whether nothing waits for an ack.
    pub(crate) fn is_idle(&self) -> bool {
        self.guard.shared.with(|core| core.is_idle(self.id))
    }

    /// Leaves without waiting for the answer.
    pub(crate) fn leave_quietly(&self) {
        let (answer, _) = oneshot::channel();
        self.guard.shared.with(|core| core.leave(self.id, answer));
    }

    /// Leaves the room. Messages without an ack are given up.
    ///
    /// # Errors
    /// The client is closed.
    pub async fn leave(&self) -> Result<(), RequestError> {
        self.guard.ask(|core, answer| core.leave(self.id, answer)).await
    }
}

/// Whether a message of the state is not void by this machine's clock.
fn is_set(message: &Message) -> bool {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    message.expires_ms == 0 || u128::from(message.expires_ms) > now.as_millis()
}
