//! What is kept of one room.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use edgeway_proto::{Class, Seq, Text, limits};

use super::{Answer, cursor::Cursor, order::Order, outgoing::Outgoing, presence::Members};
use crate::{Message, SessionId};

/// Names a room for as long as it is joined; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct RoomId {
    pub(super) index: usize,
    pub(super) generation: u32,
}

/// How far the joining of a room is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// It waits for its Session, its turn, or a delay.
    Waiting,
    /// Asked for.
    Asked,
    /// Joined on this connection.
    Joined,
}

/// One class of a room.
#[derive(Debug)]
pub(super) struct ClassState {
    pub(super) order: Order,
    /// Whether what is missing is fetched from history; otherwise it is reported as a gap.
    pub(super) refill: bool,
    pub(super) out: Outgoing,
}

/// A room, or an inbox.
#[derive(Debug)]
pub(super) struct Room {
    pub(super) generation: u32,
    pub(super) session: SessionId,
    pub(super) name: Arc<str>,
    pub(super) send_only: bool,
    pub(super) phase: Phase,
    /// Whether it was joined before: then joining again continues from the positions.
    pub(super) known: bool,
    /// Tries to join in a row that failed.
    pub(super) attempts: u32,
    /// What the answer to its join was taken to need, while it is asked for.
    pub(super) join_bytes: usize,
    pub(super) group: u64,
    pub(super) members: Members,
    pub(super) classes: [ClassState; 3],
    pub(super) state: BTreeMap<Text, Message>,
    pub(super) state_bytes: usize,
    /// Of an inbox: how far this device is in it, and in topics.
    pub(super) cursor: Option<Cursor>,
    pub(super) waiters: Vec<Answer<RoomId>>,
}

impl Room {
    pub(super) fn class(&mut self, class: Class) -> &mut ClassState {
        &mut self.classes[class.index()]
    }

    /// Whether ids of a class must grow by exactly one. In inboxes they may have holes.
    pub(super) const fn contiguous(&self, class: Class) -> bool {
        class.reliable()
    }

    /// What is asked for in a join: the positions of the classes that are to be continued.
    pub(super) fn positions(&self) -> Vec<(Class, Seq)> {
        Class::ALL
            .into_iter()
            .filter(|class| self.classes[class.index()].refill)
            .map(|class| (class, self.classes[class.index()].order.last))
            .collect()
    }

    /// Takes a keyed signal into the room's state.
    pub(super) fn set_state(&mut self, message: &Message) {
        if let Some(before) = self.state.get(&message.key) {
            if before.seq >= message.seq {
                return;
            }
            self.state_bytes -= state_cost(before);
        } else if self.state.len() >= limits::STATE_KEYS {
            // The owner keeps the same bound: only a broken one comes here.
            return;
        }
        let cost = state_cost(message);
        if self.state_bytes + cost > STATE_MAX_BYTES {
            if let Some(before) = self.state.remove(&message.key) {
                drop(before);
            }
            return;
        }
        self.state_bytes += cost;
        // Kept for long: in memory of its own.
        let kept = Message {
            sender: message.sender.detached(),
            key: message.key.detached(),
            payload: Bytes::copy_from_slice(&message.payload),
            ..message.clone()
        };
        self.state.insert(kept.key.clone(), kept);
    }

    pub(super) fn clear_state(&mut self) {
        self.state.clear();
        self.state_bytes = 0;
    }
}

/// Above what an owner allows ([`limits::STATE_BYTES`]) by what the counting of both may differ.
const STATE_MAX_BYTES: usize = 2 * limits::STATE_BYTES;

fn state_cost(message: &Message) -> usize {
    message.payload.len() + message.key.len() + message.sender.len()
}
