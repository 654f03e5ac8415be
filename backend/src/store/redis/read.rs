//! Reading. What must agree is read in one transaction, so that it sees whole commits only.

use edgeway_proto::Seq;
use redis::{Cmd, Value, cmd};
use tokio::sync::Semaphore;

use super::{
    Shared,
    error::{failed, unreadable},
    keys::{self, DEVICE, LAST, MESSAGE, TRIMMED, TRIMMED_MESSAGE},
    values,
};
use crate::store::{
    LogHead, LogId, LogPage, Origin, RECENT_BYTES, RECENT_MESSAGES, Record, StoreError,
    codec::{read_origin, read_record, void},
    page::{PageMaker, Wanted},
    queue::closed,
};

/// Entries that are asked for before it is known how large they are: at 64 KiB each, 2 MiB.
pub(super) const FIRST_ENTRIES: usize = 32;
/// Entries that are asked for at most in one go: what a server does for one reader at a time.
const MOST_ENTRIES: usize = 1_000;
/// Bytes that are asked for at most in one go, roughly.
const MOST_BYTES: usize = 2 * 1024 * 1024;

/// A page of a log, read in parts that grow as it is seen how large the entries are.
pub(super) async fn page(shared: &Shared, wanted: Wanted) -> Result<LogPage, StoreError> {
    let Wanted { log, after, limit, limit_bytes, now_ms } = wanted;
    let (stream, meta) = (shared.keys.log(log), shared.keys.meta(log));
    let mut page = PageMaker::new(after, limit, limit_bytes, now_ms);
    let mut count = limit.saturating_add(1).min(FIRST_ENTRIES);
    // Nothing is later, and there is no id beyond it that a server would take.
    while page.upto() != (Seq { epoch: u64::MAX, counter: u64::MAX }) {
        let mut trims = cmd("HMGET");
        trims.arg(&meta).arg(TRIMMED).arg(TRIMMED_MESSAGE);
        let mut range = cmd("XRANGE");
        range.arg(&stream).arg(format!("({}", page.upto())).arg("+").arg("COUNT").arg(count);
        let answers = shared.history.transaction([trims, range]).await;
        let [trims, range] = answers.map_err(|e| failed(&e, &stream))?;
        let [trimmed, message] = values::places(trims).ok_or_else(|| unreadable("trims", &meta))?;
        page.trimmed(trimmed, message);
        let entries = entries(range, &stream)?;
        let (last, bytes) = (entries.len() < count, size(&entries));
        for (seq, record) in &entries {
            // Hidden, and not removed yet.
            if *seq <= trimmed {
                continue;
            }
            let goes_on = page.offer(*seq, record);
            if !goes_on.ok_or_else(|| unreadable(ENTRY, &format!("{stream} {seq}")))? {
                return Ok(page.finish());
            }
        }
        if last {
            break;
        }
        let (records, room) = page.room();
        count = next_count(records.saturating_add(1), room, bytes, entries.len());
    }
    Ok(page.finish())
}

/// The end of a log.
pub(super) async fn head(shared: &Shared, log: LogId) -> Result<LogHead, StoreError> {
    let (stream, meta_key) = (shared.keys.log(log), shared.keys.meta(log));
    let mut all = cmd("HGETALL");
    all.arg(&meta_key);
    let range = latest(&stream, "+", FIRST_ENTRIES);
    let answers = shared.history.transaction([all, range]).await;
    let [meta, tail] = answers.map_err(|e| failed(&e, &stream))?;
    let meta = Meta::read(meta).ok_or_else(|| unreadable("the ends of a log", &meta_key))?;
    let tail = fronts(tail, &stream)?;
    if tail.first().is_some_and(|front| front.seq > meta.last) {
        return Err(unreadable("ends of a log that are behind its entries", &meta_key));
    }
    rest_of_head(shared, log, meta, tail, None).await
}

/// An entry of the end of a log.
pub(super) struct Front {
    pub(super) seq: Seq,
    /// The record, or its front that tells its origin.
    pub(super) front: Vec<u8>,
    /// Of the whole record.
    pub(super) bytes: usize,
}

/// The end of a log whose latest entries are read: [`FIRST_ENTRIES`] of them, or all there are. Reads
/// more only when it is its turn.
pub(super) async fn rest_of_head(
    shared: &Shared,
    log: LogId,
    meta: Meta,
    mut tail: Vec<Front>,
    turns: Option<&Semaphore>,
) -> Result<LogHead, StoreError> {
    let stream = shared.keys.log(log);
    let mut count = FIRST_ENTRIES;
    let mut recent = Vec::new();
    let (mut messages, mut bytes) = (0, 0);
    let mut turn = None;
    'log: loop {
        for entry in &tail {
            let seq = entry.seq;
            if seq <= meta.trimmed || messages >= RECENT_MESSAGES || bytes >= RECENT_BYTES {
                break 'log;
            }
            if seq.counter == 0 {
                continue;
            }
            messages += 1;
            bytes += entry.bytes;
            let origin = read_origin(&entry.front);
            let origin = origin.ok_or_else(|| unreadable(ENTRY, &format!("{stream} {seq}")))?;
            if !origin.device.is_empty() {
                recent.push((origin, seq));
            }
        }
        let Some(first) = tail.last().filter(|_| tail.len() == count) else { break };
        if let (None, Some(turns)) = (&turn, turns) {
            turn = Some(turns.acquire().await.map_err(|_| closed())?);
        }
        let size = tail.iter().map(|entry| entry.bytes).sum();
        count = next_count(RECENT_MESSAGES - messages, RECENT_BYTES, size, tail.len());
        let range = latest(&stream, &format!("({}", first.seq), count);
        let answer = shared.history.command(&range).await;
        tail = fronts(answer.map_err(|e| failed(&e, &stream))?, &stream)?;
    }
    recent.reverse();
    Ok(LogHead { last: meta.last, last_message: meta.message, last_ids: meta.last_ids, recent })
}

/// Asks for the latest entries of a log, the last one first.
fn latest(stream: &str, from: &str, count: usize) -> Cmd {
    let mut range = cmd("XREVRANGE");
    range.arg(stream).arg(from).arg("-").arg("COUNT").arg(count);
    range
}

fn fronts(value: Value, stream: &str) -> Result<Vec<Front>, StoreError> {
    let front = |(seq, record): (Seq, Vec<u8>)| Front { seq, bytes: record.len(), front: record };
    Ok(entries(value, stream)?.into_iter().map(front).collect())
}

/// The last entry of a log.
pub(super) async fn last(shared: &Shared, log: LogId) -> Result<Seq, StoreError> {
    let key = shared.keys.meta(log);
    let mut get = cmd("HMGET");
    get.arg(&key).arg(LAST);
    let answer = shared.history.command(&get).await.map_err(|e| failed(&e, &key))?;
    values::places(answer).map(|[last]| last).ok_or_else(|| unreadable("the end of a log", &key))
}

/// How many entries a log has.
pub(super) async fn len(shared: &Shared, log: LogId) -> Result<u64, StoreError> {
    let stream = shared.keys.log(log);
    let mut len = cmd("XLEN");
    len.arg(&stream);
    let answer = shared.history.command(&len).await.map_err(|e| failed(&e, &stream))?;
    values::number(&answer).ok_or_else(|| unreadable("a number of entries", &stream))
}

/// The last entry of a log, and the last message id of a device.
pub(super) async fn last_of(
    shared: &Shared,
    log: LogId,
    device: String,
) -> Result<(Seq, u64), StoreError> {
    let key = shared.keys.meta(log);
    let mut both = cmd("HMGET");
    both.arg(&key).arg(LAST).arg([DEVICE, device.as_bytes()].concat());
    let answer = shared.history.command(&both).await.map_err(|e| failed(&e, &key))?;
    values::place_and_number(answer).ok_or_else(|| unreadable("the end of a log", &key))
}

/// The state of a room.
pub(super) async fn state(
    shared: &Shared,
    group: u64,
    now_ms: u64,
) -> Result<Vec<Record>, StoreError> {
    let key = shared.keys.state(group);
    let mut all = cmd("HGETALL");
    all.arg(&key);
    let answer = shared.history.command(&all).await.map_err(|e| failed(&e, &key))?;
    state_records(answer, &key, now_ms)
}

/// The state of a room as its hash, which is that of `key`.
pub(super) fn state_records(
    hash: Value,
    key: &str,
    now_ms: u64,
) -> Result<Vec<Record>, StoreError> {
    let pairs = values::pairs(hash).ok_or_else(|| unreadable("a state", key))?;
    let mut records = Vec::with_capacity(pairs.len());
    for (name, value) in pairs {
        let record = state_record(&value).ok_or_else(|| {
            unreadable("a record", &format!("{key} {}", String::from_utf8_lossy(&name)))
        })?;
        if !void(record.expires_ms, now_ms) {
            records.push(record);
        }
    }
    records.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    Ok(records)
}

/// A value of the state: the place, a space, and the record.
fn state_record(value: &[u8]) -> Option<Record> {
    let space = value.iter().position(|byte| *byte == b' ')?;
    read_record(keys::seq(&value[..space])?, &value[space + 1..])
}

/// What a log's meta hash holds.
#[derive(Default)]
pub(super) struct Meta {
    pub(super) last: Seq,
    message: Seq,
    trimmed: Seq,
    last_ids: Vec<Origin>,
}

impl Meta {
    pub(super) fn read(value: Value) -> Option<Self> {
        let mut meta = Self::default();
        for (name, value) in values::pairs(value)? {
            if let Some(device) = name.strip_prefix(DEVICE) {
                let device = String::from_utf8(device.to_vec()).ok()?;
                let id = std::str::from_utf8(&value).ok()?.parse().ok()?;
                meta.last_ids.push(Origin { device, id });
            } else if name == LAST {
                meta.last = keys::seq(&value)?;
            } else if name == MESSAGE {
                meta.message = keys::seq(&value)?;
            } else if name == TRIMMED {
                meta.trimmed = keys::seq(&value)?;
            }
        }
        Some(meta)
    }
}

fn entries(value: Value, stream: &str) -> Result<Vec<(Seq, Vec<u8>)>, StoreError> {
    values::entries(value).ok_or_else(|| unreadable("entries", stream))
}

fn size(entries: &[(Seq, Vec<u8>)]) -> usize {
    entries.iter().map(|(_, record)| record.len()).sum()
}

/// How many entries to ask for next, where `count` took `bytes`: what is wanted, as far as it is
/// likely to fit into `room` bytes.
fn next_count(wanted: usize, room: usize, bytes: usize, count: usize) -> usize {
    let average = (bytes / count.max(1)).max(1);
    let fits = room.min(MOST_BYTES) / average + 1;
    wanted.min(fits).clamp(1, MOST_ENTRIES)
}

const ENTRY: &str = "an entry";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_entries_are_asked_for_as_are_likely_to_fit() {
        assert_eq!(next_count(169, 60_000, 32 * 100, 32), 169);
        assert_eq!(next_count(usize::MAX, usize::MAX, 32 * 100, 32), MOST_ENTRIES);
        assert_eq!(next_count(usize::MAX, usize::MAX, 32 * 65_536, 32), MOST_BYTES / 65_536 + 1);
        assert_eq!(next_count(200, 1_000, 32 * 65_536, 32), 1);
        assert_eq!(next_count(0, 0, 0, 0), 1);
    }
}
