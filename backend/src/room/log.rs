//! The order of one reliable class: what has a place, and waits to be stored.

use bytes::{Bytes, BytesMut};
use edgeway_proto::{Class, ErrorCode, Seq, Text, frame};

use super::{Asker, senders::Senders};
use crate::store::{Append, LogId, Origin, Record};

/// Sequence numbers of a class, and its messages between acceptance and delivery.
#[derive(Debug)]
pub(crate) struct Log {
    id: LogId,
    epoch: u64,
    /// Counter of the last message that got a place.
    assigned: u64,
    /// Counter of the last message that was stored, and so published.
    published: u64,
    /// Collects while the batch before is being stored.
    open: Open,
    storing: Option<Batch>,
}

#[derive(Debug, Default)]
struct Open {
    frames: BytesMut,
    entries: Vec<Entry>,
}

/// Messages that are stored, published and acked together.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) first: Seq,
    pub(crate) frames: Bytes,
    pub(crate) entries: Vec<Entry>,
}

/// A message with a place.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Where its frame ends within the batch.
    pub(crate) end: usize,
    pub(crate) from: Asker,
    pub(crate) sender: usize,
    pub(crate) id: u64,
    pub(crate) time_ms: u64,
    pub(crate) expires_ms: u64,
    pub(crate) key: Text,
    /// An empty payload, which removes its key.
    pub(crate) removes: bool,
    /// Answers that come after its ack: to repeats of it, and to what its sender sent after it and
    /// was not accepted. So acks come in the order of ids, and none before its message is stored.
    pub(crate) later: Vec<Later>,
}

/// An answer that waits for the ack before it.
#[derive(Debug)]
pub(crate) struct Later {
    pub(crate) from: Asker,
    pub(crate) ack: frame::Ack,
    pub(crate) refusal: Option<Refusal>,
}

/// Why a message is refused.
pub(crate) type Refusal = (ErrorCode, &'static str);

/// What an entry costs beside its frame, roughly.
const ENTRY_BYTES: usize = 160;

/// What an answer that waits costs, roughly.
const LATER_BYTES: usize = 128;

impl Log {
    pub(crate) fn new(id: LogId, epoch: u64) -> Self {
        let open = Open::default();
        Self { id, epoch, assigned: 0, published: 0, open, storing: None }
    }

    /// The last position that is published.
    pub(crate) fn head(&self) -> Seq {
        Seq::new(self.epoch, self.published)
    }

    /// Whether there is something to store and nothing is being stored.
    pub(crate) fn wants_append(&self) -> bool {
        self.storing.is_none() && !self.open.entries.is_empty()
    }

    /// The last position of the batch that is being stored.
    pub(crate) fn storing(&self) -> Option<Seq> {
        let batch = self.storing.as_ref()?;
        Some(Seq::new(self.epoch, self.published + batch.entries.len() as u64))
    }

    /// Those whose messages are not stored yet.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = Asker> + '_ {
        let storing = self.storing.iter().flat_map(|batch| &batch.entries);
        storing.chain(&self.open.entries).flat_map(|entry| {
            std::iter::once(entry.from).chain(entry.later.iter().map(|later| later.from))
        })
    }

    pub(crate) fn is_settled(&self) -> bool {
        self.published == self.assigned
    }

    /// Gives the message the next place. `entry.end` is filled in here.
    pub(crate) fn push(&mut self, mut deliver: frame::Deliver, mut entry: Entry) -> (Seq, usize) {
        self.assigned += 1;
        deliver.seq = Seq::new(self.epoch, self.assigned);
        let before = self.open.frames.len();
        deliver.encode(&mut self.open.frames);
        entry.end = self.open.frames.len();
        self.open.entries.push(entry);
        (deliver.seq, self.open.frames.len() - before + ENTRY_BYTES)
    }

    /// Whether the message at this place is not stored yet.
    pub(crate) fn is_pending(&self, seq: Seq) -> bool {
        seq.epoch == self.epoch && self.published < seq.counter && seq.counter <= self.assigned
    }

    /// Puts an answer after the ack of a pending message. The bytes it takes.
    pub(crate) fn push_later(&mut self, seq: Seq, later: Later) -> usize {
        let index = seq.counter.saturating_sub(self.published + 1);
        let mut index = usize::try_from(index).unwrap_or(usize::MAX);
        let storing = self.storing.as_mut().map_or(&mut [][..], |b| &mut b.entries[..]);
        let entry = if index < storing.len() {
            storing.get_mut(index)
        } else {
            index -= storing.len();
            self.open.entries.get_mut(index)
        };
        let Some(entry) = entry else { return 0 };
        entry.later.push(later);
        LATER_BYTES
    }

    /// What is to be stored: the batch that was given before, until it is stored, else a new one.
    /// The bytes it takes.
    pub(crate) fn collect(&mut self, senders: &Senders, out: &mut Vec<Append>) -> usize {
        if self.wants_append() {
            let Open { frames, entries } = std::mem::take(&mut self.open);
            let first = Seq::new(self.epoch, self.published + 1);
            self.storing = Some(Batch { first, frames: frames.freeze(), entries });
        }
        let Some(batch) = &self.storing else { return 0 };
        let mut seq = batch.first;
        for (frame, e) in batch.cut().zip(&batch.entries) {
            let device = senders.key(e.sender);
            let record = device_record(seq, device, e.id, e.time_ms, e.expires_ms, &e.key, frame);
            out.push(Append { log: self.id, record });
            seq = seq.next();
        }
        batch.bytes()
    }

    /// The batch that [`Self::collect`] gave, now that it is stored.
    pub(crate) fn take_stored(&mut self) -> Option<Batch> {
        let batch = self.storing.take()?;
        self.published += batch.entries.len() as u64;
        Some(batch)
    }
}

impl Batch {
    /// What the batch was counted as.
    pub(crate) fn bytes(&self) -> usize {
        let entry = |e: &Entry| ENTRY_BYTES + e.later.len() * LATER_BYTES;
        self.frames.len() + self.entries.iter().map(entry).sum::<usize>()
    }

    /// Each entry's frame.
    pub(crate) fn cut(&self) -> impl Iterator<Item = Bytes> + '_ {
        let starts = std::iter::once(0).chain(self.entries.iter().map(|e| e.end));
        starts.zip(&self.entries).map(|(start, entry)| self.frames.slice(start..entry.end))
    }

    /// The frames to publish at a time: void ones are replaced by placeholders, which keep their
    /// places in the sequence.
    pub(crate) fn into_live(mut self, group: u64, class: Class, wall_ms: u64) -> Self {
        let void = |e: &Entry| e.expires_ms != 0 && e.expires_ms <= wall_ms;
        if !self.entries.iter().any(void) {
            return self;
        }
        let cut: Vec<Bytes> = self.cut().collect();
        let mut frames = BytesMut::with_capacity(self.frames.len());
        let mut seq = self.first;
        for (entry, frame) in self.entries.iter_mut().zip(cut) {
            if void(entry) {
                let placeholder = frame::Deliver {
                    group,
                    class,
                    seq,
                    time_ms: entry.time_ms,
                    expires_ms: 1,
                    ..frame::Deliver::default()
                };
                placeholder.encode(&mut frames);
            } else {
                frames.extend_from_slice(&frame);
            }
            entry.end = frames.len();
            seq = seq.next();
        }
        self.frames = frames.freeze();
        self
    }
}

/// A record of a message.
pub(crate) fn device_record(
    seq: Seq,
    device: &str,
    id: u64,
    time_ms: u64,
    expires_ms: u64,
    key: &str,
    frame: Bytes,
) -> Record {
    let origin = Origin { device: device.to_owned(), id };
    Record { seq, origin, time_ms, expires_ms, key: key.to_owned(), frame }
}
