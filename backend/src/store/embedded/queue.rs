//! What the thread that writes is asked to do, encoded by whoever asks.

use edgeway_proto::Seq;

use super::{codec, keys};
use crate::store::{
    Append, LogId, StoreError,
    codec::{Change, encode},
    queue::{self, JOB_BYTES},
};

/// The way to the thread that writes.
pub(super) type Queue = queue::Queue<Work, Done>;
/// What comes out of it.
pub(super) type Job = queue::Job<Work, Done>;

/// One entry, encoded by the caller so that the writer only has to hand it on.
pub(super) struct Entry {
    pub log: LogId,
    pub seq: Seq,
    pub value: Vec<u8>,
    /// Key of the device, and its message id.
    pub device: Option<(Vec<u8>, u64)>,
    /// Key of room state, and the value; none removes the key.
    pub state: Option<(Vec<u8>, Option<Vec<u8>>)>,
}

impl Entry {
    /// # Errors
    /// Those of [`encode`].
    pub(super) fn new(append: &Append) -> Result<Self, StoreError> {
        let Append { log, record } = append;
        let (value, change) = encode(*log, record)?;
        let origin = &record.origin;
        let device =
            (!origin.device.is_empty()).then(|| (keys::device(*log, &origin.device), origin.id));
        let key = || keys::state(log.group, &record.key);
        let state = match change {
            Change::None => None,
            Change::Set => Some((key(), Some(codec::state(record.seq, &value)))),
            Change::Remove => Some((key(), None)),
        };
        Ok(Self { log: *log, seq: record.seq, value, device, state })
    }

    fn bytes(&self) -> usize {
        let state = self.state.as_ref().and_then(|(_, value)| value.as_ref());
        self.value.len() + state.map_or(0, Vec::len) + JOB_BYTES
    }
}

/// What the writer is asked to do.
pub(super) enum Work {
    /// All of these, or none.
    Append(Vec<Entry>),
    /// Allots a handle to a room that may have none.
    Room(String),
    /// Hides what is before, and removes a part of it.
    Trim { log: LogId, before: Seq },
}

impl Work {
    /// What it takes of the queue.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Append(entries) => entries.iter().map(Entry::bytes).sum(),
            Self::Room(name) => name.len() + JOB_BYTES,
            Self::Trim { .. } => JOB_BYTES,
        }
    }
}

/// What came of it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Done {
    Appended,
    Room(u64),
    Trimmed {
        /// There is more to be removed: ask again.
        more: bool,
    },
}
