//! What a client sends to one room and class, from the call until its ack: numbered, kept, and
//! written again where a connection was lost.

use std::{collections::VecDeque, time::Instant};

use bytes::{Bytes, BytesMut};
use edgeway_proto::{
    AckStatus as WireStatus, Class, ErrorCode, Rest, Text,
    frame::{self, Ack as AckFrame},
};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::{Ack, AckStatus, SendError};

/// Where the answer to a message goes; `None` where nobody waits.
pub(crate) type Waiter = Option<oneshot::Sender<Result<Ack, SendError>>>;

/// What an entry costs beside its payload and key.
pub(crate) const ENTRY_BYTES: usize = 128;

/// A message that is not acknowledged yet.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) id: u64,
    pub(crate) expires_ms: u64,
    pub(crate) key: Text,
    pub(crate) payload: Bytes,
    pub(crate) waiter: Waiter,
    /// Its part of the bound on unacknowledged bytes (signal, binary).
    pub(crate) _permit: Option<OwnedSemaphorePermit>,
    /// When it was written last.
    pub(crate) written: Option<Instant>,
}

impl Entry {
    pub(crate) fn cost(&self) -> usize {
        self.payload.len() + self.key.len() + ENTRY_BYTES
    }

    pub(crate) fn resolve(self, result: Result<Ack, SendError>) {
        if let Some(waiter) = self.waiter {
            // Where nobody waits any more nobody needs to know.
            let _ = waiter.send(result);
        }
    }
}

/// The messages of a room and class.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    /// The id of the last message that was numbered.
    last_id: u64,
    entries: VecDeque<Entry>,
    /// The first of them that is not written on this connection.
    cursor: usize,
    /// The id that the owner last said it expects: one renumbering answers all the refusals that
    /// were under way.
    expected: Option<u64>,
}

/// What an ack did.
#[derive(Debug)]
pub(crate) enum Acked {
    /// The message is done: its bytes, whether it was counted as written, and what was answered.
    Done(Entry, Result<Ack, SendError>),
    /// Ids were out of step: everything is to be written again from the start.
    Again,
    /// No such message.
    Unknown,
}

impl Outgoing {
    pub(crate) fn push(&mut self, mut entry: Entry) -> u64 {
        self.last_id += 1;
        entry.id = self.last_id;
        self.entries.push_back(entry);
        self.last_id
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn unwritten(&self) -> usize {
        self.entries.len() - self.cursor
    }

    /// The owner has accepted ids up to `accepted` from this device: called at each join.
    pub(crate) fn joined(&mut self, accepted: u64, contiguous: bool) {
        self.rewind();
        match self.entries.front().map(|e| e.id) {
            None => self.last_id = accepted,
            // Ids in between were given to messages that were refused or given up.
            Some(first) if contiguous && first > accepted + 1 => self.renumber(accepted + 1),
            // Numbered before it was known what had been accepted.
            Some(_) => {}
        }
    }

    /// Everything is to be written again.
    pub(crate) fn rewind(&mut self) {
        self.cursor = 0;
        self.expected = None;
    }

    fn renumber(&mut self, first: u64) {
        let mut id = first;
        for entry in &mut self.entries {
            entry.id = id;
            id += 1;
        }
        self.last_id = id - 1;
    }

    /// The next message that is not written on this connection, as a whole frame; and whether it was
    /// written on another before.
    pub(crate) fn write(
        &mut self,
        group: u64,
        class: Class,
        now: Instant,
        out: &mut BytesMut,
    ) -> Option<(usize, bool)> {
        let entry = self.entries.get_mut(self.cursor)?;
        self.cursor += 1;
        frame::Send {
            group,
            class,
            id: entry.id,
            expires_ms: entry.expires_ms,
            key: entry.key.clone(),
            payload: Rest(entry.payload.clone()),
        }
        .encode(out);
        let again = entry.written.replace(now).is_some();
        Some((entry.cost(), again))
    }

    /// The ack of a message. `refusal` is what the server said last about a refused message.
    pub(crate) fn ack(
        &mut self,
        ack: &AckFrame,
        refusal: impl FnOnce() -> (Option<ErrorCode>, String),
    ) -> Acked {
        if ack.status == WireStatus::OutOfOrder {
            return self.out_of_order(ack.expected);
        }
        let Some(at) = self.entries.iter().position(|e| e.id == ack.id) else {
            return Acked::Unknown;
        };
        self.expected = None;
        let Some(entry) = self.take(at) else { return Acked::Unknown };
        let done = |status| Ok(Ack { status, seq: ack.seq });
        let result = match ack.status {
            WireStatus::Accepted => done(AckStatus::Accepted),
            WireStatus::Duplicate => done(AckStatus::Duplicate),
            WireStatus::Shed => done(AckStatus::Shed),
            WireStatus::Refused | WireStatus::OutOfOrder => {
                let (code, detail) = refusal();
                Err(SendError::Refused { code, detail })
            }
        };
        Acked::Done(entry, result)
    }

    fn out_of_order(&mut self, expected: u64) -> Acked {
        let Some(first) = self.entries.front().map(|e| e.id) else { return Acked::Unknown };
        if self.expected == Some(expected) {
            return Acked::Unknown;
        }
        // The owner has accepted nothing from `expected` on, so no message that is kept here was
        // accepted under its old number: a new number makes no duplicate.
        if expected < first {
            self.renumber(expected);
        }
        self.cursor = 0;
        self.expected = Some(expected);
        Acked::Again
    }

    fn take(&mut self, at: usize) -> Option<Entry> {
        let entry = self.entries.remove(at)?;
        if at < self.cursor {
            self.cursor -= 1;
        }
        Some(entry)
    }

    /// Takes out the oldest that is not written yet.
    pub(crate) fn drop_unwritten(&mut self) -> Option<Entry> {
        self.take(self.cursor)
    }

    /// Takes out the oldest where it was written at or before `then`, on whichever connection.
    pub(crate) fn written_before(&mut self, then: Instant) -> Option<Entry> {
        let old = self.entries.front()?.written.is_some_and(|at| at <= then);
        if old { self.take(0) } else { None }
    }

    /// Takes out one that was written at or before `then` and not answered.
    pub(crate) fn unanswered(&mut self, then: Instant) -> Option<Entry> {
        let old = |e: &Entry| e.written.is_some_and(|at| at <= then);
        if self.cursor > 0 && self.entries.front().is_some_and(old) { self.take(0) } else { None }
    }

    /// Takes out the oldest that was written and not answered.
    pub(crate) fn forget_written(&mut self) -> Option<Entry> {
        if self.cursor == 0 { None } else { self.take(0) }
    }

    pub(crate) fn written_bytes(&self) -> usize {
        self.entries.iter().take(self.cursor).map(Entry::cost).sum()
    }

    pub(crate) fn unwritten_bytes(&self) -> usize {
        self.entries.iter().skip(self.cursor).map(Entry::cost).sum()
    }

    /// Takes all out: the room is left.
    pub(crate) fn clear(&mut self) -> VecDeque<Entry> {
        self.cursor = 0;
        std::mem::take(&mut self.entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use edgeway_proto::{RawFrame, Seq, frame::split};

    fn entry(n: u8) -> Entry {
        Entry {
            id: 0,
            expires_ms: 0,
            key: Text::default(),
            payload: Bytes::copy_from_slice(&[n]),
            waiter: None,
            _permit: None,
            written: None,
        }
    }

    fn written(out: &mut Outgoing) -> Vec<(u64, u8)> {
        let mut bytes = BytesMut::new();
        while out.write(7, Class::Signal, Instant::now(), &mut bytes).is_some() {}
        let mut bytes = bytes.freeze();
        let mut all = Vec::new();
        while let Some(RawFrame { body, .. }) = split(&mut bytes).unwrap() {
            let send = frame::Send::parse(body).unwrap();
            all.push((send.id, send.payload.0[0]));
        }
        all
    }

    fn ack(id: u64, status: WireStatus, expected: u64) -> AckFrame {
        AckFrame { group: 7, class: Class::Signal, id, status, seq: Seq::ZERO, expected }
    }

    fn no_words() -> (Option<ErrorCode>, String) {
        (None, String::new())
    }

    #[test]
    fn numbering_goes_on_where_the_owner_says() {
        let mut out = Outgoing::default();
        out.joined(41, true);
        assert_eq!(out.push(entry(1)), 42);
        assert_eq!(written(&mut out), [(42, 1)]);
    }

    #[test]
    fn a_rejoin_writes_what_has_no_ack_again_in_order() {
        let mut out = Outgoing::default();
        out.joined(0, true);
        for n in 1..=3 {
            out.push(entry(n));
        }
        assert_eq!(written(&mut out), [(1, 1), (2, 2), (3, 3)]);
        assert!(matches!(out.ack(&ack(1, WireStatus::Accepted, 0), no_words), Acked::Done(..)));
        out.joined(2, true);
        assert_eq!(written(&mut out), [(2, 2), (3, 3)]);
    }

    #[test]
    fn a_refused_message_frees_its_number_and_the_next_are_numbered_anew() {
        let mut out = Outgoing::default();
        out.joined(0, true);
        for n in 1..=3 {
            out.push(entry(n));
        }
        written(&mut out);
        assert!(matches!(
            out.ack(&ack(1, WireStatus::Refused, 0), no_words),
            Acked::Done(_, Err(SendError::Refused { .. }))
        ));
        assert!(matches!(out.ack(&ack(2, WireStatus::OutOfOrder, 1), no_words), Acked::Again));
        assert_eq!(written(&mut out), [(1, 2), (2, 3)]);
        // The refusal of what was under way as 3 changes nothing any more.
        assert!(matches!(out.ack(&ack(3, WireStatus::OutOfOrder, 1), no_words), Acked::Unknown));
        assert_eq!(written(&mut out), []);
    }
}
