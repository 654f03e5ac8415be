//! Reading: each from one snapshot, so that it sees whole commits only.

use std::ops::Bound;

use edgeway_proto::{Seq, limits};
use fjall::{Guard, Readable, Snapshot, UserValue};

use super::{
    codec::read_state,
    keys,
    tables::{Tables, corrupt, storing},
};
use crate::store::{
    LogHead, LogId, LogPage, Origin, RECENT_BYTES, RECENT_MESSAGES, Record, StoreError,
    codec::{read_origin, void},
    page::{PageMaker, Wanted},
};

/// The handle of a room.
pub(super) fn room(tables: &Tables, name: &str) -> Result<Option<u64>, StoreError> {
    let value = tables.names.get(keys::room(name)).map_err(storing)?;
    value.map(|value| number(&value, "names")).transpose()
}

/// A page of a log.
pub(super) fn page(tables: &Tables, wanted: &Wanted) -> Result<LogPage, StoreError> {
    let Wanted { log, after, limit, limit_bytes, now_ms } = *wanted;
    let at = tables.db.snapshot();
    let tail = tables.tail(&at, log)?;
    let mut page = PageMaker::new(after, limit, limit_bytes, now_ms);
    page.trimmed(tail.last_trimmed, tail.last_trimmed_message);
    let start =
        if after < tail.trimmed { Bound::Included(tail.trimmed) } else { Bound::Excluded(after) };
    for guard in at.range(&tables.entries, keys::from(log, start)) {
        let (seq, value) = entry(guard, log)?;
        if !page.offer(seq, &value).ok_or_else(|| corrupt(ENTRY, log, seq))? {
            break;
        }
    }
    Ok(page.finish())
}

/// The end of a log.
pub(super) fn head(tables: &Tables, log: LogId) -> Result<LogHead, StoreError> {
    let at = tables.db.snapshot();
    let tail = tables.tail(&at, log)?;
    let mut head = LogHead {
        last: tail.last_trimmed,
        last_message: tail.last_trimmed_message,
        ..LogHead::default()
    };
    let (mut messages, mut bytes) = (0, 0);
    let entries = at.range(&tables.entries, keys::from(log, Bound::Included(tail.trimmed)));
    for guard in entries.rev() {
        let (seq, value) = entry(guard, log)?;
        head.last = head.last.max(seq);
        if seq.counter == 0 {
            continue;
        }
        head.last_message = head.last_message.max(seq);
        messages += 1;
        bytes += value.len();
        let origin = read_origin(&value).ok_or_else(|| corrupt(ENTRY, log, seq))?;
        if !origin.device.is_empty() {
            head.recent.push((origin, seq));
        }
        if messages >= RECENT_MESSAGES || bytes >= RECENT_BYTES {
            break;
        }
    }
    head.recent.reverse();
    head.last_ids = last_ids(tables, &at, log)?;
    Ok(head)
}

/// The last entry of a log, seals included.
pub(super) fn last(tables: &Tables, log: LogId) -> Result<Seq, StoreError> {
    last_at(tables, &tables.db.snapshot(), log)
}

/// The same, and the last message id of a device.
pub(super) fn last_of(tables: &Tables, log: LogId, device: &str) -> Result<(Seq, u64), StoreError> {
    let at = tables.db.snapshot();
    let id = at.get(&tables.devices, keys::device(log, device)).map_err(storing)?;
    let id = id.map(|value| number(&value, "devices")).transpose()?;
    Ok((last_at(tables, &at, log)?, id.unwrap_or_default()))
}

fn last_at(tables: &Tables, at: &Snapshot, log: LogId) -> Result<Seq, StoreError> {
    let tail = tables.tail(at, log)?;
    let range = keys::from(log, Bound::Included(tail.trimmed));
    match at.range(&tables.entries, range).next_back() {
        Some(guard) => place(guard, log),
        None => Ok(tail.last_trimmed),
    }
}

fn last_ids(tables: &Tables, at: &Snapshot, log: LogId) -> Result<Vec<Origin>, StoreError> {
    let prefix = keys::log(log);
    at.prefix(&tables.devices, prefix)
        .map(|guard| {
            let (key, value) = guard.into_inner().map_err(storing)?;
            let device = key.get(prefix.len()..).unwrap_or_default();
            let device = std::str::from_utf8(device)
                .map_err(|_| corrupt("a device", log, Seq::ZERO))?
                .to_owned();
            Ok(Origin { device, id: number(&value, "devices")? })
        })
        .collect()
}

/// The state of a room.
pub(super) fn state(tables: &Tables, group: u64, now_ms: u64) -> Result<Vec<Record>, StoreError> {
    let mut records = Vec::with_capacity(limits::STATE_KEYS.min(16));
    let at = tables.db.snapshot();
    for guard in at.prefix(&tables.state, group.to_be_bytes()) {
        let value = guard.value().map_err(storing)?;
        let record = read_state(&value).ok_or_else(|| StoreError::Corrupt {
            what: "a record that cannot be read".to_owned(),
            place: format!("the state of group {group}"),
        })?;
        if !void(record.expires_ms, now_ms) {
            records.push(record);
        }
    }
    Ok(records)
}

/// How many entries a log has.
pub(super) fn len(tables: &Tables, log: LogId) -> Result<u64, StoreError> {
    let at = tables.db.snapshot();
    let tail = tables.tail(&at, log)?;
    let mut len = 0;
    for guard in at.range(&tables.entries, keys::from(log, Bound::Included(tail.trimmed))) {
        guard.key().map_err(storing)?;
        len += 1;
    }
    Ok(len)
}

/// Groups behind one that have entries: from each the way to the next is one look.
pub(super) fn groups_after(
    tables: &Tables,
    after: u64,
    limit: usize,
) -> Result<Vec<u64>, StoreError> {
    let at = tables.db.snapshot();
    let (mut groups, mut last) = (Vec::new(), after);
    while groups.len() < limit
        && let Some(next) = last.checked_add(1)
        && let Some(guard) = at.range(&tables.entries, keys::from_group(next)..).next()
    {
        let key = guard.key().map_err(storing)?;
        let Some(group) = keys::group(&key) else {
            let log = LogId { group: next, class: edgeway_proto::Class::Signal };
            return Err(corrupt("a key", log, Seq::ZERO));
        };
        groups.push(group);
        last = group;
    }
    Ok(groups)
}

/// The place of an entry.
pub(super) fn place(guard: Guard, log: LogId) -> Result<Seq, StoreError> {
    let key = guard.key().map_err(storing)?;
    keys::seq(&key).ok_or_else(|| corrupt("a key", log, Seq::ZERO))
}

/// A number of a table.
pub(super) fn number(value: &[u8], table: &str) -> Result<u64, StoreError> {
    value.try_into().map(u64::from_be_bytes).map_err(|_| StoreError::Corrupt {
        what: format!("a number of {} bytes", value.len()),
        place: table.to_owned(),
    })
}

fn entry(guard: Guard, log: LogId) -> Result<(Seq, UserValue), StoreError> {
    let (key, value) = guard.into_inner().map_err(storing)?;
    let seq = keys::seq(&key).ok_or_else(|| corrupt("a key", log, Seq::ZERO))?;
    Ok((seq, value))
}

const ENTRY: &str = "an entry";
