//! One commit in the making: what is asked for is checked against what there is, and becomes
//! operations on the tables.

use std::collections::HashMap;

use edgeway_proto::Seq;
use fjall::Readable;

use super::{
    Shared,
    codec::Tail,
    journal::record::{Ops, Table},
    keys::{self, COUNTER_KEY},
    lasts::Lasts,
    queue::{Done, Entry, Work},
    read,
    tables::{Tables, storing},
};
use crate::store::{LogId, StoreError};

/// Entries removed in one commit: a long trim lets appends in between.
const TRIMMED_ENTRIES: usize = 1_000;
/// Rooms that got their handle and may not be in the tables yet; at the bound the writer waits
/// until they are.
const NEW_ROOMS: usize = 10_000;
/// Group handles carry the slot of who allotted them in their low bits.
const SLOT_BITS: u32 = 6;

/// The handles that were allotted last, and the counter behind them.
#[derive(Default)]
pub(super) struct Rooms {
    new: HashMap<String, u64>,
    counter: Option<u64>,
    /// The record of the journal with the last of them.
    last: u64,
    /// What is not known here is in the tables, once they have this record.
    forgotten: u64,
    changed: bool,
}

impl Rooms {
    /// To be called after each commit, `record` being its record in the journal.
    pub(super) const fn committed(&mut self, record: u64) {
        if self.changed {
            self.last = record;
            self.changed = false;
        }
    }

    /// Forgets everything; the last commit was that of `record`.
    pub(super) fn clear(&mut self, record: u64) {
        *self = Self { forgotten: record, ..Self::default() };
    }
}

/// The commit.
pub(super) struct Group<'a> {
    shared: &'a Shared,
    lasts: &'a mut Lasts,
    rooms: &'a mut Rooms,
    pub ops: Ops,
}

impl<'a> Group<'a> {
    pub(super) fn new(shared: &'a Shared, lasts: &'a mut Lasts, rooms: &'a mut Rooms) -> Self {
        Self { shared, lasts, rooms, ops: Ops::new() }
    }

    /// Looks into the tables once they have record `number` of the journal.
    fn look<T>(
        &self,
        number: u64,
        f: impl FnOnce(&Tables) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.shared.backlog.wait_for(number)?;
        self.shared.with(f)
    }

    /// The same once they have everything that was committed.
    fn look_at_all<T>(
        &self,
        f: impl FnOnce(&Tables) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.look(self.shared.backlog.last(), f)
    }

    pub(super) fn stage(&mut self, work: &Work) -> Result<Done, StoreError> {
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
            let key = keys::entry(log, last);
            let found = self.look_at_all(|tables| tables.entries.get(key).map_err(storing))?;
            if let (Some(entry), Some(found)) = (batch.iter().find(same), found)
                && found[..] == entry.value[..]
            {
                return Ok((last, Seq::ZERO));
            }
        }
        Ok((Seq::ZERO, last))
    }

    fn put(&mut self, entry: &Entry) {
        self.ops.put(Table::Entries, &keys::entry(entry.log, entry.seq), &entry.value);
        if let Some((key, id)) = &entry.device {
            self.ops.put(Table::Devices, key, &id.to_be_bytes());
        }
        match &entry.state {
            Some((key, Some(value))) => self.ops.put(Table::State, key, value),
            Some((key, None)) => self.ops.remove(Table::State, key),
            None => {}
        }
    }

    fn last(&mut self, log: LogId) -> Result<Seq, StoreError> {
        if let Some(last) = self.lasts.get(log) {
            return Ok(last);
        }
        let last = self.look(self.lasts.forgotten(), |tables| read::last(tables, log))?;
        self.lasts.set(log, last);
        Ok(last)
    }

    fn room(&mut self, name: &str) -> Result<u64, StoreError> {
        if let Some(handle) = self.rooms.new.get(name) {
            return Ok(*handle);
        }
        if self.rooms.new.len() >= NEW_ROOMS && !self.rooms.changed {
            self.shared.backlog.wait_for(self.rooms.last)?;
            self.rooms.new.clear();
        }
        let forgotten = self.rooms.forgotten;
        if let Some(handle) = self.look(forgotten, |tables| read::room(tables, name))? {
            return Ok(handle);
        }
        let counter = match self.rooms.counter {
            Some(counter) => counter,
            None => self.look(forgotten, |tables| {
                let stored = tables.names.get(COUNTER_KEY).map_err(storing)?;
                stored.map_or(Ok(0), |value| read::number(&value, "names"))
            })?,
        } + 1;
        let handle = counter << SLOT_BITS | u64::from(self.shared.options.slot);
        self.ops.put(Table::Names, COUNTER_KEY, &counter.to_be_bytes());
        self.ops.put(Table::Names, &keys::room(name), &handle.to_be_bytes());
        self.rooms.counter = Some(counter);
        self.rooms.changed = true;
        self.rooms.new.insert(name.to_owned(), handle);
        Ok(handle)
    }

    /// Hides what is before `before` and removes a part of it; whether there is more to remove.
    fn trim(&mut self, log: LogId, before: Seq) -> Result<bool, StoreError> {
        let last = self.last(log)?;
        let (ops, more) = self.look_at_all(|tables| trim(tables, log, before, last))?;
        self.ops.append(&ops);
        Ok(more)
    }
}

fn trim(tables: &Tables, log: LogId, before: Seq, last: Seq) -> Result<(Ops, bool), StoreError> {
    let mut ops = Ops::new();
    let at = tables.db.snapshot();
    let old = tables.tail(&at, log)?;
    // What comes later than the last entry is not trimmed in advance.
    let mut tail = Tail { trimmed: before.min(last.next()).max(old.trimmed), ..old };
    if tail.trimmed == old.removed {
        return Ok((ops, false));
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
        ops.remove(Table::Entries, &key);
        removed += 1;
    }
    let more = removed == TRIMMED_ENTRIES;
    if !more {
        tail.removed = tail.trimmed;
    }
    if tail != old {
        ops.put(Table::Tails, &keys::log(log), &tail.write());
    }
    Ok((ops, more))
}
