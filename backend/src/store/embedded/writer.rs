//! The one thread that writes. It takes what is waiting into one commit, then answers all of it:
//! the slower the disk, the larger the commits.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use edgeway_proto::Seq;
use fjall::{OwnedWriteBatch, PersistMode, Readable};
use tokio::sync::mpsc;

use super::{
    Durability, Shared,
    codec::Tail,
    keys::{self, COUNTER_KEY},
    lasts::Lasts,
    queue::{Done, Entry, Job, Work},
    read,
    tables::{self, Tables, storing},
};
use crate::store::{LogId, StoreError};

/// Of one commit. More than this gains nothing, and what comes next waits for it.
const GROUP_BYTES: usize = 4 * 1024 * 1024;
/// Logs whose last entry is kept in memory, about 100 bytes each.
const LASTS: usize = 100_000;
/// Entries removed in one commit: a long trim lets appends in between.
const TRIMMED_ENTRIES: usize = 1_000;
/// How long after a failed attempt to open the store anew the next one may be.
const RETRY: Duration = Duration::from_secs(1);

/// Group handles carry the slot of who allotted them in their low bits.
const SLOT_BITS: u32 = 6;

pub(super) struct Writer {
    shared: Arc<Shared>,
    queue: mpsc::UnboundedReceiver<Job>,
    /// Taken out of the queue, and to be done by itself.
    held: Option<Job>,
    lasts: Lasts,
    broken: Option<Broken>,
}

/// A write failed. fjall takes no more until it is opened anew.
struct Broken {
    cause: StoreError,
    retry_at: Instant,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, queue: mpsc::UnboundedReceiver<Job>) -> Self {
        Self { shared, queue, held: None, lasts: Lasts::new(LASTS), broken: None }
    }

    /// Works until the queue is closed and empty.
    pub(super) fn run(mut self) {
        while let Some(first) = self.held.take().or_else(|| self.queue.blocking_recv()) {
            let jobs = self.gather(first);
            self.turn(jobs);
        }
        let closed = self.shared.with(|t| t.db.persist(PersistMode::SyncAll).map_err(storing));
        if let Err(error) = closed {
            tracing::warn!(%error, "the store could not be synced when it was closed");
        }
    }

    /// What is waiting, up to the size of a commit. A trim goes alone: it looks at what earlier
    /// appends have stored.
    fn gather(&mut self, first: Job) -> Vec<Job> {
        let alone = |job: &Job| matches!(job.work, Work::Trim { .. });
        let mut bytes = first.bytes;
        let mut jobs = vec![first];
        while bytes < GROUP_BYTES && !alone(&jobs[0]) {
            match self.queue.try_recv() {
                Ok(job) if alone(&job) => {
                    self.held = Some(job);
                    break;
                }
                Ok(job) => {
                    bytes += job.bytes;
                    jobs.push(job);
                }
                Err(_) => break,
            }
        }
        jobs
    }

    /// Commits and answers. Where the commit fails, all are told so, also what was refused: it may
    /// have been refused for an entry that is not there now.
    fn turn(&mut self, jobs: Vec<Job>) {
        let started = Instant::now();
        let committed = self.ready().and_then(|()| {
            self.commit(&jobs).map_err(|e| {
                // fjall only says that something failed before; the disk may say what.
                let cause = tables::probe(&self.shared.dir).err().unwrap_or(e);
                tracing::error!(%cause, "the store could not write");
                metrics::counter!("edgeway_backend_store_failed_commits_total").increment(1);
                self.lasts.clear();
                self.broken = Some(Broken { cause: cause.clone(), retry_at: started });
                cause
            })
        });
        match committed {
            Ok(outcomes) => {
                self.measure(&jobs, started);
                for (job, outcome) in jobs.into_iter().zip(outcomes) {
                    // Who asked may have gone.
                    let _ = job.reply.send(outcome);
                }
            }
            Err(e) => jobs.into_iter().for_each(|job| {
                let _ = job.reply.send(Err(e.clone()));
            }),
        }
    }

    /// Opens the store anew where it is broken.
    fn ready(&mut self) -> Result<(), StoreError> {
        let Some(broken) = &mut self.broken else { return Ok(()) };
        if Instant::now() < broken.retry_at {
            return Err(broken.cause.clone());
        }
        if let Err(cause) = self.shared.reopen() {
            *broken = Broken { cause: cause.clone(), retry_at: Instant::now() + RETRY };
            return Err(cause);
        }
        tracing::info!("the store can write again");
        metrics::counter!("edgeway_backend_store_reopened_total").increment(1);
        self.broken = None;
        Ok(())
    }

    fn commit(&mut self, jobs: &[Job]) -> Result<Vec<Result<Done, StoreError>>, StoreError> {
        let shared = Arc::clone(&self.shared);
        shared.with(|tables| {
            tables.wait_for_room()?;
            let mut group = Group::new(tables, shared.options.slot, &mut self.lasts);
            let outcomes = jobs.iter().map(|job| group.stage(&job.work)).collect();
            #[cfg(test)]
            shared.fail_if_told()?;
            let mode = match shared.options.durability {
                Durability::Process => PersistMode::Buffer,
                Durability::Disk => PersistMode::SyncData,
            };
            group.batch.durability(Some(mode)).commit().map_err(storing)?;
            shared.commits.fetch_add(1, Ordering::Relaxed);
            Ok(outcomes)
        })
    }

    fn measure(&self, jobs: &[Job], started: Instant) {
        let entries = jobs.iter().map(|job| match &job.work {
            Work::Append(entries) => entries.len(),
            Work::Room(_) | Work::Trim { .. } => 0,
        });
        let entries = entries.sum::<usize>();
        metrics::counter!("edgeway_backend_store_appended_total").increment(entries as u64);
        metrics::counter!("edgeway_backend_store_commits_total").increment(1);
        metrics::histogram!("edgeway_backend_store_commit_seconds").record(started.elapsed());
        #[allow(clippy::cast_precision_loss)] // a gauge
        metrics::gauge!("edgeway_backend_store_known_logs").set(self.lasts.len() as f64);
    }
}

/// One commit in the making.
struct Group<'a> {
    tables: &'a Tables,
    slot: u8,
    lasts: &'a mut Lasts,
    batch: OwnedWriteBatch,
    /// Handles allotted in this commit, and the counter behind them.
    rooms: HashMap<String, u64>,
    counter: Option<u64>,
}

impl<'a> Group<'a> {
    fn new(tables: &'a Tables, slot: u8, lasts: &'a mut Lasts) -> Self {
        let batch = tables.db.batch();
        Self { tables, slot, lasts, batch, rooms: HashMap::new(), counter: None }
    }

    fn stage(&mut self, work: &Work) -> Result<Done, StoreError> {
        match work {
            Work::Append(entries) => self.append(entries).map(|()| Done::Appended),
            Work::Room(name) => self.room(name).map(Done::Room),
            Work::Trim { log, before } => {
                self.trim(*log, *before).map(|more| Done::Trimmed { more })
            }
        }
    }

    fn append(&mut self, entries: &[Entry]) -> Result<(), StoreError> {
        // Of each log: what is stored of the batch already, and the entry before the next one.
        let mut logs: HashMap<LogId, (Seq, Seq)> = HashMap::new();
        let mut new = Vec::with_capacity(entries.len());
        for (index, entry) in entries.iter().enumerate() {
            let (stored, before) = match logs.get(&entry.log) {
                Some(known) => *known,
                None => self.standing(&entries[index..], entry)?,
            };
            if entry.seq <= before {
                metrics::counter!("edgeway_backend_store_stale_total").increment(1);
                let LogId { group, class } = entry.log;
                return Err(StoreError::Stale { group, class, last: before, got: entry.seq });
            }
            if entry.seq > stored {
                new.push(entry);
            }
            logs.insert(entry.log, (stored, entry.seq));
        }
        for (log, (_, last)) in logs {
            self.lasts.set(log, last);
        }
        new.into_iter().for_each(|entry| self.put(entry));
        Ok(())
    }

    /// What is stored already of a log that `batch` begins with `first`, and the entry after which
    /// the batch must go on. It is given again where the log's last entry is in it, unchanged; but
    /// never a seal: two owners may write the same one, and only one of them may have it.
    fn standing(&mut self, batch: &[Entry], first: &Entry) -> Result<(Seq, Seq), StoreError> {
        let (log, last) = (first.log, self.last(first.log)?);
        if first.seq <= last && last.counter != 0 {
            let same = |entry: &&Entry| entry.log == log && entry.seq == last;
            let found = self.tables.entries.get(keys::entry(log, last)).map_err(storing)?;
            if let (Some(entry), Some(found)) = (batch.iter().find(same), found)
                && found[..] == entry.value[..]
            {
                return Ok((last, Seq::ZERO));
            }
        }
        Ok((Seq::ZERO, last))
    }

    fn put(&mut self, entry: &Entry) {
        let tables = self.tables;
        self.batch.insert(&tables.entries, keys::entry(entry.log, entry.seq), &entry.value);
        if let Some((key, id)) = &entry.device {
            self.batch.insert(&tables.devices, key, id.to_be_bytes());
        }
        match &entry.state {
            Some((key, Some(value))) => self.batch.insert(&tables.state, key, value),
            Some((key, None)) => self.batch.remove(&tables.state, key),
            None => {}
        }
    }

    fn last(&mut self, log: LogId) -> Result<Seq, StoreError> {
        if let Some(last) = self.lasts.get(log) {
            return Ok(last);
        }
        let last = read::last(self.tables, log)?;
        self.lasts.set(log, last);
        Ok(last)
    }

    fn room(&mut self, name: &str) -> Result<u64, StoreError> {
        if let Some(handle) = self.rooms.get(name) {
            return Ok(*handle);
        }
        if let Some(handle) = read::room(self.tables, name)? {
            return Ok(handle);
        }
        let counter = match self.counter {
            Some(counter) => counter,
            None => {
                let stored = self.tables.names.get(COUNTER_KEY).map_err(storing)?;
                stored.map_or(Ok(0), |value| read::number(&value, "names"))?
            }
        } + 1;
        let handle = counter << SLOT_BITS | u64::from(self.slot);
        self.batch.insert(&self.tables.names, COUNTER_KEY, counter.to_be_bytes());
        self.batch.insert(&self.tables.names, keys::room(name), handle.to_be_bytes());
        self.counter = Some(counter);
        self.rooms.insert(name.to_owned(), handle);
        Ok(handle)
    }

    /// Hides what is before `before` and removes a part of it; whether there is more to remove.
    fn trim(&mut self, log: LogId, before: Seq) -> Result<bool, StoreError> {
        let last = self.last(log)?;
        let tables = self.tables;
        let at = tables.db.snapshot();
        let old = tables.tail(&at, log)?;
        // What comes later than the last entry is not trimmed in advance.
        let mut tail = Tail { trimmed: before.min(last.next()).max(old.trimmed), ..old };
        if tail.trimmed == old.removed {
            return Ok(false);
        }
        let hidden = keys::between(log, old.trimmed, tail.trimmed);
        for guard in at.range(&tables.entries, hidden).rev() {
            let seq = read::place(guard, log)?;
            tail.last_trimmed = tail.last_trimmed.max(seq);
            if seq.counter != 0 {
                tail.last_trimmed_message = seq;
                break;
            }
        }
        let mut removed = 0;
        let all = keys::between(log, old.removed, tail.trimmed);
        for guard in at.range(&tables.entries, all).take(TRIMMED_ENTRIES) {
            let key = guard.key().map_err(storing)?;
            tail.removed = keys::seq(&key).unwrap_or(tail.removed).next();
            self.batch.remove(&tables.entries, key);
            removed += 1;
        }
        let more = removed == TRIMMED_ENTRIES;
        if !more {
            tail.removed = tail.trimmed;
        }
        if tail != old {
            self.batch.insert(&tables.tails, keys::log(log), tail.write());
        }
        Ok(more)
    }
}
