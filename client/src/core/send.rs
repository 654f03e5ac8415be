//! What the app sends to rooms, and the bounds on it.

use std::time::{Duration, Instant};

use bytes::Bytes;
use edgeway_proto::{Class, Lane, Seq, Text, limits};
use tokio::sync::OwnedSemaphorePermit;

use super::{Core, ENTRY_BYTES, RoomId, Waiter, outgoing::Entry, room::Phase, timers::Timer};
use crate::{Ack, AckStatus, Outgoing, SendError};

/// Chat without an ack for so long was shed on its way up (WIRE.md, section 9).
const CHAT_ACK: Duration = Duration::from_secs(5);

/// A message that may be queued: its sizes are within the limits.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) class: Class,
    expires_ms: u64,
    key: Text,
    payload: Bytes,
}

impl Draft {
    /// # Errors
    /// [`SendError::TooLarge`].
    pub(crate) fn new(message: Outgoing) -> Result<Self, SendError> {
        if message.payload.len() > limits::PAYLOAD_BYTES || message.key.len() > limits::NAME_BYTES {
            return Err(SendError::TooLarge);
        }
        let Outgoing { class, payload, key, expires_ms } = message;
        Ok(Self { class, expires_ms, key: key.into(), payload })
    }

    /// What it counts for the bounds.
    pub(crate) fn cost(&self) -> usize {
        self.payload.len() + self.key.len() + ENTRY_BYTES
    }
}

impl Core {
    /// Queues a message; its number.
    pub(crate) fn send(
        &mut self,
        id: RoomId,
        draft: Draft,
        permit: Option<OwnedSemaphorePermit>,
        waiter: Waiter,
    ) -> Result<u64, SendError> {
        if self.closed {
            return Err(SendError::Closed);
        }
        let cost = draft.cost();
        let class = draft.class;
        let room = self.room(id).ok_or(SendError::NotJoined)?;
        let (session, joined) = (room.session, room.phase == Phase::Joined);
        if class == Class::Chat {
            self.make_room_for_chat(id, cost)?;
        }
        let Some(room) = self.room_mut(id) else { return Err(SendError::NotJoined) };
        let Draft { expires_ms, key, payload, .. } = draft;
        let entry =
            Entry { id: 0, expires_ms, key, payload, waiter, _permit: permit, written: None };
        let number = room.class(class).out.push(entry);
        if joined && let Some(wire) = self.wire_of(session) {
            self.lanes.messages(Lane::new(wire, class), id, 1);
        }
        Ok(number)
    }

    /// Drops the oldest of a room's chat that is not written until `cost` fits.
    fn make_room_for_chat(&mut self, id: RoomId, cost: usize) -> Result<(), SendError> {
        while self.chat_unwritten_bytes + cost > self.config.chat_queue_bytes {
            let oldest = self.room_mut(id).and_then(|r| r.class(Class::Chat).out.drop_unwritten());
            // What other rooms have waiting is theirs.
            let Some(oldest) = oldest else { return Err(SendError::Dropped) };
            self.chat_unwritten_bytes = self.chat_unwritten_bytes.saturating_sub(oldest.cost());
            self.stats.failed += 1;
            oldest.resolve(Err(SendError::Dropped));
        }
        self.chat_unwritten_bytes += cost;
        Ok(())
    }

    /// Chat was written and waits for its ack: that is bounded as well.
    pub(super) fn chat_written(&mut self, id: RoomId, cost: usize, now: Instant) {
        self.timers.set(now + CHAT_ACK, Timer::Chat);
        self.chat_unwritten_bytes = self.chat_unwritten_bytes.saturating_sub(cost);
        self.chat_written_bytes += cost;
        while self.chat_written_bytes > self.config.chat_queue_bytes {
            let oldest = self.room_mut(id).and_then(|r| r.class(Class::Chat).out.forget_written());
            let Some(oldest) = oldest else { return };
            self.chat_written_bytes = self.chat_written_bytes.saturating_sub(oldest.cost());
            self.stats.failed += 1;
            oldest.resolve(Err(SendError::NoAnswer));
        }
    }

    /// Chat without an ack for so long was shed on its way up.
    pub(super) fn chat_unanswered(&mut self, now: Instant) {
        let mut waiting = false;
        for (_, room) in &mut self.rooms {
            let out = &mut room.class(Class::Chat).out;
            while let Some(entry) = now.checked_sub(CHAT_ACK).and_then(|then| out.unanswered(then))
            {
                self.chat_written_bytes = self.chat_written_bytes.saturating_sub(entry.cost());
                self.stats.shed += 1;
                entry.resolve(Ok(Ack { status: AckStatus::Shed, seq: Seq::ZERO }));
            }
            waiting |= out.written_bytes() > 0;
        }
        if waiting {
            self.timers.set(now + CHAT_ACK / 4, Timer::Chat);
        }
    }

    /// Joined again: chat that was written so long ago that it counts as shed is not written again.
    pub(super) fn forget_old_chat(&mut self, id: RoomId, now: Instant) {
        let Some(then) = now.checked_sub(CHAT_ACK) else { return };
        let old = |core: &mut Self| {
            core.room_mut(id).and_then(|r| r.class(Class::Chat).out.written_before(then))
        };
        while let Some(entry) = old(self) {
            self.stats.failed += 1;
            entry.resolve(Err(SendError::NoAnswer));
        }
    }

    /// The room is over: what became of chat that was written and not answered will not be known.
    pub(super) fn forget_chat(&mut self, id: RoomId) {
        let forget = |core: &mut Self| {
            core.room_mut(id).and_then(|r| r.class(Class::Chat).out.forget_written())
        };
        while let Some(entry) = forget(self) {
            self.stats.failed += 1;
            entry.resolve(Err(SendError::NoAnswer));
        }
    }

    pub(super) fn chat_acked(&mut self, class: Class, cost: usize) {
        if class == Class::Chat {
            self.chat_written_bytes = self.chat_written_bytes.saturating_sub(cost);
        }
    }

    /// Counts what chat has waiting: after what was written is to be written again.
    pub(super) fn recount_chat(&mut self) {
        let (mut written, mut unwritten) = (0, 0);
        for (_, room) in &self.rooms {
            let out = &room.classes[Class::Chat.index()].out;
            written += out.written_bytes();
            unwritten += out.unwritten_bytes();
        }
        (self.chat_written_bytes, self.chat_unwritten_bytes) = (written, unwritten);
    }
}
