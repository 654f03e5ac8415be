//! What a room notes for the events (docs/EVENTS.md): who came and went, and what was said. Nothing that is not wanted is
//! noted.

use bytes::Bytes;
use edgeway_events::Cause;
use edgeway_proto::{Class, Seq, Text};

use super::{Effects, Event, Room};

/// What is wanted.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Wanted {
    /// Who comes and goes.
    pub(crate) presence: bool,
    /// Messages, by class.
    pub(crate) messages: [bool; 3],
}

/// Where it is noted.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    wanted: Wanted,
    pub(crate) list: Vec<Note>,
}

/// One thing that happened.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Note {
    /// A user is here, on the first device.
    Came(Text),
    /// A user is here on no device any more.
    Went(Text, Cause),
    /// A message is accepted.
    Message {
        class: Class,
        seq: Seq,
        /// As in its origin: user and device.
        device: Box<str>,
        id: u64,
        /// As members read it.
        frame: Bytes,
    },
}

impl Notes {
    pub(crate) fn new(wanted: Wanted) -> Self {
        Self { wanted, list: Vec::new() }
    }

    /// A message is accepted.
    pub(super) fn message(
        &mut self,
        class: Class,
        seq: Seq,
        device: &str,
        id: u64,
        frame: impl FnOnce() -> Bytes,
    ) {
        if self.wanted.messages[class.index()] {
            let frame = frame();
            self.list.push(Note::Message { class, seq, device: device.into(), id, frame });
        }
    }
}

/// Why users go, where they go by this.
pub(super) const fn cause(event: &Event) -> Cause {
    match event {
        Event::GatewayGone(_) | Event::AccessGone(_) => Cause::Lost,
        Event::Fenced => Cause::Moved,
        _ => Cause::Left,
    }
}

impl Room {
    /// Notes who is here and was not before the event, and the other way round. Who went and came again by the
    /// same event has done neither.
    pub(super) fn note_moves(&mut self, cause: Cause, fx: &mut Effects) {
        let moves = self.members.moves();
        if moves.is_empty() || !fx.notes.wanted.presence {
            return moves.clear();
        }
        // Of one user they alternate, and most often there is but one.
        moves.sort_by(|(a, _), (b, _)| a.cmp(b));
        for of_user in moves.chunk_by(|(a, _), (b, _)| a == b) {
            if let Some((user, came)) = of_user.first().filter(|_| of_user.len() % 2 == 1) {
                let user = user.clone();
                fx.notes.list.push(if *came { Note::Came(user) } else { Note::Went(user, cause) });
            }
        }
        moves.clear();
    }
}
