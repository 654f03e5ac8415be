//! A store in memory that fails and waits on demand.

use std::{
    collections::{BTreeMap, HashMap},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
};

use edgeway_proto::{Class, Seq};
use parking_lot::Mutex;

use crate::store::{Append, LogHead, LogId, LogPage, Record, Store, StoreError, StoreFuture};

#[derive(Default)]
pub(crate) struct MemoryStore {
    pub(crate) inner: Mutex<Tables>,
    /// Everything fails while it is set.
    pub(crate) down: AtomicBool,
    /// The next append is stored, and says that it was not.
    pub(super) lie: AtomicBool,
    pub(super) appends: AtomicUsize,
    /// Of this room there is no handle that can be read.
    pub(super) bad_name: Mutex<Option<String>>,
    /// Of this log nothing can be read.
    pub(crate) bad_log: Mutex<Option<LogId>>,
    /// What another owner stores just before the next append.
    pub(super) late: Mutex<Vec<Append>>,
}

#[derive(Default)]
pub(crate) struct Tables {
    pub(super) groups: HashMap<String, u64>,
    pub(super) logs: HashMap<LogId, BTreeMap<Seq, Record>>,
    state: HashMap<(u64, String), Record>,
}

impl MemoryStore {
    fn up(&self) -> Result<(), StoreError> {
        if self.down.load(Ordering::SeqCst) {
            return Err(StoreError::Unavailable("switched off".into()));
        }
        Ok(())
    }

    pub(super) fn append_now(&self, batch: Vec<Append>) -> Result<(), StoreError> {
        self.up()?;
        if batch.is_empty() {
            return Ok(());
        }
        let mut tables = self.inner.lock();
        for Append { log, record } in &batch {
            let entries = tables.logs.entry(*log).or_default();
            let last = entries.last_key_value().map_or(Seq::ZERO, |(seq, _)| *seq);
            if record.seq <= last {
                let (group, class, got) = (log.group, log.class, record.seq);
                return Err(StoreError::Stale { group, class, last, got });
            }
        }
        for Append { log, record } in batch {
            if !record.key.is_empty() && log.class == Class::Signal {
                tables.state.insert((log.group, record.key.clone()), record.clone());
            }
            tables.logs.entry(log).or_default().insert(record.seq, record);
        }
        self.appends.fetch_add(1, Ordering::SeqCst);
        if self.lie.swap(false, Ordering::SeqCst) {
            return Err(StoreError::Unavailable("stored, but the answer was lost".into()));
        }
        Ok(())
    }

    fn messages(&self, log: LogId) -> Vec<Record> {
        let tables = self.inner.lock();
        let entries = tables.logs.get(&log).into_iter().flat_map(BTreeMap::values);
        entries.filter(|record| record.seq.counter > 0).cloned().collect()
    }
}

impl Store for MemoryStore {
    fn group(&self, room: &str, create: bool) -> StoreFuture<'_, Option<u64>> {
        if self.bad_name.lock().as_deref() == Some(room) {
            let (what, place) = ("a handle that cannot be read".to_owned(), room.to_owned());
            return Box::pin(async move { Err(StoreError::Corrupt { what, place }) });
        }
        let found = self.up().map(|()| {
            let mut tables = self.inner.lock();
            let next = tables.groups.len() as u64 + 1;
            match tables.groups.get(room) {
                None if create => {
                    tables.groups.insert(room.to_owned(), next);
                    Some(next)
                }
                found => found.copied(),
            }
        });
        Box::pin(async move { found })
    }

    fn append(&self, batch: Vec<Append>) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            tokio::task::yield_now().await;
            let late = std::mem::take(&mut *self.late.lock());
            self.append_now(late)?;
            self.append_now(batch)
        })
    }

    fn read(
        &self,
        log: LogId,
        after: Seq,
        limit: usize,
        _limit_bytes: usize,
        _now_ms: u64,
    ) -> StoreFuture<'_, LogPage> {
        Box::pin(async move {
            self.up()?;
            if *self.bad_log.lock() == Some(log) {
                let (what, place) = ("an entry that cannot be read".to_owned(), format!("{log:?}"));
                return Err(StoreError::Corrupt { what, place });
            }
            let mut records = self.messages(log);
            records.retain(|record| record.seq > after);
            let more = records.len() > limit;
            records.truncate(limit);
            let upto = records.last().map_or(after, |record| record.seq);
            Ok(LogPage { records, upto, more, truncated: false })
        })
    }

    fn head(&self, log: LogId) -> StoreFuture<'_, LogHead> {
        Box::pin(async move {
            self.up()?;
            let messages = self.messages(log);
            let tables = self.inner.lock();
            let last = tables.logs.get(&log).and_then(|l| l.last_key_value());
            Ok(LogHead {
                last: last.map_or(Seq::ZERO, |(seq, _)| *seq),
                last_message: messages.last().map_or(Seq::ZERO, |m| m.seq),
                last_ids: messages.iter().map(|m| m.origin.clone()).collect(),
                recent: messages.iter().map(|m| (m.origin.clone(), m.seq)).collect(),
            })
        })
    }

    fn last(&self, log: LogId) -> StoreFuture<'_, Seq> {
        Box::pin(async move { Ok(self.head(log).await?.last) })
    }

    fn last_of(&self, log: LogId, device: &str) -> StoreFuture<'_, (Seq, u64)> {
        let device = device.to_owned();
        Box::pin(async move {
            let head = self.head(log).await?;
            let of_device = head.last_ids.iter().filter(|origin| origin.device == device);
            Ok((head.last, of_device.map(|origin| origin.id).max().unwrap_or_default()))
        })
    }

    fn state(&self, group: u64, _now_ms: u64) -> StoreFuture<'_, Vec<Record>> {
        let tables = self.inner.lock();
        let state = tables.state.iter().filter(|((g, _), _)| *g == group);
        let state: Vec<Record> = state.map(|(_, record)| record.clone()).collect();
        Box::pin(async move { Ok(state) })
    }

    fn len(&self, log: LogId) -> StoreFuture<'_, u64> {
        let len = self.inner.lock().logs.get(&log).map_or(0, BTreeMap::len) as u64;
        Box::pin(async move { Ok(len) })
    }

    fn groups_after(&self, after: u64, limit: usize) -> StoreFuture<'_, Vec<u64>> {
        let mut groups: Vec<u64> = self.inner.lock().groups.values().copied().collect();
        groups.retain(|group| *group > after);
        groups.sort_unstable();
        groups.truncate(limit);
        Box::pin(async move { Ok(groups) })
    }

    fn trim(&self, log: LogId, before: Seq) -> StoreFuture<'_, ()> {
        if let Some(entries) = self.inner.lock().logs.get_mut(&log) {
            *entries = entries.split_off(&before);
        }
        Box::pin(async { Ok(()) })
    }
}
