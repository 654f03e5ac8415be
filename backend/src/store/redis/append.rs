//! What is appended to one room, which is one call of a script.

use std::collections::HashMap;

use edgeway_proto::Seq;
use redis::{Cmd, Value};

use super::{
    Shared,
    error::{failed, unreadable},
    keys, values,
};
use crate::store::{
    Append, LogId, StoreError,
    codec::{self, Change},
    queue::JOB_BYTES,
};

/// What a batch has of one group: stored whole or not at all.
pub(super) struct Part {
    group: u64,
    logs: Vec<Log>,
    bytes: usize,
}

/// What it has of one log; never empty.
struct Log {
    id: LogId,
    entries: Vec<Entry>,
}

/// One entry, in the form of the script.
struct Entry {
    seq: Seq,
    record: Vec<u8>,
    device: String,
    message: u64,
    change: String,
}

/// A batch by its groups, in the order of their first entries.
///
/// # Errors
/// `Corrupt` where a record could not be read again, `Stale` where a log's entries are not in order.
pub(super) fn parts(batch: Vec<Append>) -> Result<Vec<Part>, StoreError> {
    let mut parts: Vec<Part> = Vec::new();
    let mut places = HashMap::new();
    for Append { log, record } in batch {
        let (value, change) = codec::encode(log, &record)?;
        let change = match change {
            Change::None => String::new(),
            Change::Set => format!("+{}", record.key),
            Change::Remove => format!("-{}", record.key),
        };
        let place = *places.entry(log.group).or_insert(parts.len());
        if place == parts.len() {
            parts.push(Part { group: log.group, logs: Vec::new(), bytes: 0 });
        }
        let part = &mut parts[place];
        part.bytes += value.len() + record.origin.device.len() + change.len() + JOB_BYTES;
        let entry = Entry {
            seq: record.seq,
            record: value,
            device: record.origin.device,
            message: record.origin.id,
            change,
        };
        part.push(log, entry)?;
    }
    Ok(parts)
}

impl Part {
    pub(super) fn group(&self) -> u64 {
        self.group
    }

    /// What it takes of the queue.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn entries(&self) -> usize {
        self.logs.iter().map(|log| log.entries.len()).sum()
    }

    fn push(&mut self, id: LogId, entry: Entry) -> Result<(), StoreError> {
        let Some(log) = self.logs.iter_mut().find(|log| log.id == id) else {
            self.logs.push(Log { id, entries: vec![entry] });
            return Ok(());
        };
        if let Some(last) = log.entries.last().filter(|last| entry.seq <= last.seq) {
            return Err(stale(id, last.seq, entry.seq));
        }
        log.entries.push(entry);
        Ok(())
    }

    /// Appends it.
    ///
    /// # Errors
    /// `Stale` where nothing was appended because a log is further; else that it is there or not.
    pub(super) async fn append(&self, shared: &Shared) -> Result<(), StoreError> {
        let names = &shared.keys;
        let logs = self.logs.iter().flat_map(|log| [names.log(log.id), names.meta(log.id)]);
        let keys: Vec<_> = logs.chain([names.state(self.group)]).collect();
        let answer = shared.append.call(&shared.history, &keys, |cmd| self.args(cmd)).await;
        let place = keys.first().map(String::as_str).unwrap_or_default();
        self.outcome(answer.map_err(|e| failed(&e, place))?)
            .unwrap_or_else(|| Err(unreadable("an answer of a script", place)))
    }

    fn args(&self, cmd: &mut Cmd) {
        for log in &self.logs {
            cmd.arg(log.entries.len());
            for Entry { seq, record, device, message, change } in &log.entries {
                cmd.arg(seq.to_string()).arg(&record[..]).arg(device).arg(*message).arg(change);
            }
        }
    }

    /// What the script said; `None` where it cannot have been the script.
    fn outcome(&self, answer: Value) -> Option<Result<(), StoreError>> {
        if let Value::Int(_) = answer {
            return Some(Ok(()));
        }
        let Value::Array(answer) = answer else { return None };
        let [which, last] = <[Value; 2]>::try_from(answer).ok()?;
        let which = usize::try_from(values::number(&which)?).ok()?.checked_sub(1)?;
        let log = self.logs.get(which)?;
        let got = log.entries.first()?.seq;
        Some(Err(stale(log.id, keys::seq(&values::bytes(last)?)?, got)))
    }
}

fn stale(LogId { group, class }: LogId, last: Seq, got: Seq) -> StoreError {
    metrics::counter!("edgeway_backend_store_stale_total").increment(1);
    StoreError::Stale { group, class, last, got }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use bytes::Bytes;
    use edgeway_proto::Class;

    use super::*;
    use crate::store::{Origin, Record};

    fn append(group: u64, class: Class, counter: u64) -> Append {
        let record = Record {
            seq: Seq::new(1, counter),
            origin: Origin::default(),
            time_ms: 1,
            expires_ms: 0,
            key: String::new(),
            frame: Bytes::new(),
        };
        Append { log: LogId { group, class }, record }
    }

    #[test]
    fn a_batch_is_one_part_for_each_group_and_keeps_the_order_of_each_log() {
        let batch = vec![
            append(7, Class::Signal, 1),
            append(9, Class::Signal, 1),
            append(7, Class::Chat, 5),
            append(7, Class::Signal, 2),
        ];
        let parts = parts(batch).unwrap();
        let found: Vec<_> = parts.iter().map(|part| (part.group(), part.entries())).collect();
        assert_eq!(found, [(7, 3), (9, 1)]);
        let counters: Vec<_> = parts[0].logs[0].entries.iter().map(|e| e.seq.counter).collect();
        assert_eq!(counters, [1, 2]);
        assert!(parts[0].bytes() > 3 * JOB_BYTES);
    }

    #[test]
    fn a_log_whose_entries_are_not_in_order_is_stale_in_itself() {
        let batch = vec![append(7, Class::Chat, 2), append(7, Class::Chat, 2)];
        let refused = parts(batch).err().unwrap();
        assert!(matches!(refused, StoreError::Stale { last, got, .. } if last == got));
    }

    #[test]
    fn an_answer_that_is_none_of_the_script_is_refused() {
        let part = parts(vec![append(7, Class::Chat, 2)]).unwrap().remove(0);
        let stale = |which, last: &str| {
            let last = Value::BulkString(last.as_bytes().to_vec());
            part.outcome(Value::Array(vec![Value::Int(which), last]))
        };
        assert!(matches!(part.outcome(Value::Int(1)), Some(Ok(()))));
        let expected = Seq::new(3, 4);
        let told = stale(1, "3-4");
        assert!(matches!(told, Some(Err(StoreError::Stale { last, .. })) if last == expected));
        assert!(stale(2, "3-4").is_none() && stale(0, "3-4").is_none() && stale(1, "x").is_none());
        assert!(part.outcome(Value::Okay).is_none());
    }
}
