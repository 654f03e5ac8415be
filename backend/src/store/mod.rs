//! Where rooms live when their owner does not: history, room state, group handles. One trait, and
//! a conformance suite that every implementation passes.

mod by_time;
mod codec;
#[cfg(test)]
pub(crate) mod conformance;
mod embedded;
mod page;
mod queue;
mod redis;

use std::{future::Future, pin::Pin};

use bytes::Bytes;
use edgeway_proto::{Class, Seq};
use futures_util::future::try_join_all;

pub(crate) use self::by_time::place_before;
pub use self::redis::{NotOpened, Redis, RedisDirectory, RedisOptions, RedisServer, RedisUrl};
pub(crate) use self::redis::{RedisCalls, RegistryCall, read_ca};
pub use embedded::{Durability, Embedded, EmbeddedOptions};

/// Messages whose place a new owner gets: enough to answer the repeats of a reconnect.
const RECENT_MESSAGES: usize = 1_000;
/// Bytes read for them, where messages are large: the time that taking a room over takes.
const RECENT_BYTES: usize = 16 * 1024 * 1024;

/// A future of the store. Boxed, so that the store can be chosen by configuration.
pub type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// Why the store could not do it. The caller may try again, except where it says otherwise.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The disk or the server failed. What was to be appended is there or not; it may be given again.
    #[error("the store is not available: {0}")]
    Unavailable(String),
    /// What is stored cannot be read: not to be tried again.
    #[error("the store holds what cannot be read: {what} at {place}")]
    Corrupt {
        /// What is wrong.
        what: String,
        /// Key or file.
        place: String,
    },
    /// The entry is older than the log's last one: another owner has sealed the log.
    #[error("log {group}/{class} is at {last}; an entry {got} is older")]
    Stale {
        /// The log's group.
        group: u64,
        /// The log's class.
        class: Class,
        /// The last entry of the log.
        last: Seq,
        /// The entry that was refused.
        got: Seq,
    },
}

/// One log: the history of a group and class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LogId {
    /// The group's handle.
    pub group: u64,
    /// The class.
    pub class: Class,
}

/// Who sent a message, by which its repeats are known.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Origin {
    /// `user/device`; empty for the system and for seals.
    pub device: String,
    /// The message id.
    pub id: u64,
}

/// One entry of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its place. Counter 0 is the seal of an epoch: an entry without a frame.
    pub seq: Seq,
    /// Who sent it.
    pub origin: Origin,
    /// Milliseconds since 1970 when it was accepted.
    pub time_ms: u64,
    /// Milliseconds since 1970 after which it is void; 0 for never.
    pub expires_ms: u64,
    /// The key of room state that it sets; empty for none.
    pub key: String,
    /// The whole Deliver frame, as every member gets it.
    pub frame: Bytes,
}

/// A record and the log it goes to.
#[derive(Debug, Clone)]
pub struct Append {
    /// Which log.
    pub log: LogId,
    /// What.
    pub record: Record,
}

/// A page of a log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogPage {
    /// Oldest first. Seals are left out.
    pub records: Vec<Record>,
    /// Everything up to here has been looked at, seals, void and trimmed records included: where
    /// the next page starts. Never before `after`; at the end of the log its last entry.
    pub upto: Seq,
    /// There is more.
    pub more: bool,
    /// Records that followed `after` have been trimmed away.
    pub truncated: bool,
}

/// What a new owner needs to know of a log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogHead {
    /// The last entry, seals included; `Seq::ZERO` for a log that never was.
    pub last: Seq,
    /// The last entry that is a message.
    pub last_message: Seq,
    /// The last message id of each device.
    pub last_ids: Vec<Origin>,
    /// The place of recent messages, for answering repeats, oldest first: the log's tail, at most
    /// 1,000. Messages of no device are left out, as in `last_ids`.
    pub recent: Vec<(Origin, Seq)>,
}

/// What the new owner of a room's logs finds in them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Opened {
    /// The ends of the logs, in the order that they were asked for. `last` is the entry before the
    /// seal, so that the new epoch is the one after it.
    pub heads: Vec<LogHead>,
    /// The room's state, as [`Store::state`] tells it; empty where the log of signals was not opened.
    pub state: Vec<Record>,
}

/// The store of one backend process, or of many.
pub trait Store: Send + Sync + 'static {
    /// The handle of a room, allotted once to its name and kept. `create`: whether a room that
    /// has none gets one; `None` where it has none and may not.
    fn group(&self, room: &str, create: bool) -> StoreFuture<'_, Option<u64>>;

    /// The same for several names, in their order; one may be there twice. Asked for together, they
    /// take no longer than one does.
    fn groups(&self, rooms: Vec<String>, create: bool) -> StoreFuture<'_, Vec<Option<u64>>> {
        Box::pin(async move { try_join_all(rooms.iter().map(|r| self.group(r, create))).await })
    }

    /// Takes logs of a room over: each gets the seal of the epoch after its last one, after which
    /// entries of older epochs are refused; then everything is read, so that nothing that an older
    /// owner still stored can be missed. After an error some may be sealed, and it may be asked again.
    fn open(&self, group: u64, classes: &'static [Class], now_ms: u64) -> StoreFuture<'_, Opened> {
        Box::pin(open_in_steps(self, group, classes, now_ms))
    }

    /// Appends, in one group commit with what others append at the same time. Each entry must be
    /// later than its log's last one. The latest signal of each key becomes room state (an empty
    /// payload removes the key), in the same commit. What a batch has of one group is stored whole
    /// or not at all; of several groups, which may be on different servers, some may be stored where
    /// the batch fails.
    ///
    /// After an error the same batch may be given again: what is there already, unchanged and up to
    /// the end of its log, counts as stored. Never so a seal, since two owners may write the same
    /// one and only one of them may have it.
    ///
    /// Nothing happens before the future is first polled; once it has been, dropping it takes
    /// nothing back.
    fn append(&self, batch: Vec<Append>) -> StoreFuture<'_, ()>;

    /// What follows `after`, at most `limit` records and about `limit_bytes` of frames (one record
    /// at least). Void records (expired at `now_ms`) are left out and `upto` steps over them.
    fn read(
        &self,
        log: LogId,
        after: Seq,
        limit: usize,
        limit_bytes: usize,
        now_ms: u64,
    ) -> StoreFuture<'_, LogPage>;

    /// The end of a log and what its owner must remember.
    fn head(&self, log: LogId) -> StoreFuture<'_, LogHead>;

    /// The last entry of a log, seals included; `Seq::ZERO` for a log that never was. Cheaper than
    /// [`Self::head`].
    fn last(&self, log: LogId) -> StoreFuture<'_, Seq>;

    /// The last entry of a log, and the last message id of one device in it; zeros where there is none.
    fn last_of(&self, log: LogId, device: &str) -> StoreFuture<'_, (Seq, u64)>;

    /// The room's state: the latest record of each key, by byte order of the keys, void ones left
    /// out.
    fn state(&self, group: u64, now_ms: u64) -> StoreFuture<'_, Vec<Record>>;

    /// How many entries a log has, seals included; for a moment also some that are trimmed already.
    fn len(&self, log: LogId) -> StoreFuture<'_, u64>;

    /// Groups that may have logs, those with handles above `after` in the order of handles, `limit` of them. None
    /// where there are no more.
    fn groups_after(&self, after: u64, limit: usize) -> StoreFuture<'_, Vec<u64>>;

    /// Removes records of a log before a position. What was removed is remembered as truncated; the
    /// head, the last message ids and the room state stay.
    fn trim(&self, log: LogId, before: Seq) -> StoreFuture<'_, ()>;
}

/// Opens a room by what any store can do. Of two that do so at the same time one is told that it is
/// stale.
async fn open_in_steps<S: Store + ?Sized>(
    store: &S,
    group: u64,
    classes: &[Class],
    now_ms: u64,
) -> Result<Opened, StoreError> {
    let logs: Vec<LogId> = classes.iter().map(|class| LogId { group, class: *class }).collect();
    let mut lasts = Vec::with_capacity(logs.len());
    for log in &logs {
        lasts.push(store.head(*log).await?.last);
    }
    let sealed = logs.iter().zip(&lasts);
    let seals = sealed.clone().map(|(log, last)| Append { log: *log, record: seal(*last, now_ms) });
    store.append(seals.collect()).await?;
    let mut opened = Opened::default();
    for (log, last) in sealed {
        opened.heads.push(LogHead { last: *last, ..store.head(*log).await? });
    }
    if classes.contains(&Class::Signal) {
        opened.state = store.state(group, now_ms).await?;
    }
    Ok(opened)
}

/// The entry that begins the epoch after `last`.
pub(crate) fn seal(last: Seq, time_ms: u64) -> Record {
    let (origin, key, frame) = (Origin::default(), String::new(), Bytes::new());
    let seq = Seq::new(last.epoch.saturating_add(1), 0);
    Record { seq, origin, time_ms, expires_ms: 0, key, frame }
}
