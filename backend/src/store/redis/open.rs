//! Taking a room over: one call of a script that seals its logs and reads their ends.

use edgeway_proto::{Class, Seq};
use futures_util::future::try_join_all;
use redis::{Cmd, Value};
use tokio::sync::Semaphore;

use super::{
    Shared,
    error::{failed, unreadable},
    keys,
    read::{FIRST_ENTRIES, Front, Meta, rest_of_head, state_records},
    values,
};
use crate::store::{LogHead, LogId, Opened, StoreError, codec, seal};

/// Opens a room. What its logs have beyond [`FIRST_ENTRIES`] is read when it is its turn.
pub(super) async fn open(
    shared: &Shared,
    turns: &Semaphore,
    group: u64,
    classes: &[Class],
    now_ms: u64,
) -> Result<Opened, StoreError> {
    let names = &shared.keys;
    let logs: Vec<LogId> = classes.iter().map(|class| LogId { group, class: *class }).collect();
    let with_state = classes.contains(&Class::Signal);
    let keys = logs.iter().flat_map(|log| [names.log(*log), names.meta(*log)]);
    let keys: Vec<String> = keys.chain(with_state.then(|| names.state(group))).collect();
    let place = keys.first().map(String::as_str).unwrap_or_default();
    // The place of an entry is not in its record, so that this is the seal of any epoch.
    let record = codec::record(&seal(Seq::ZERO, now_ms)).unwrap_or_default();
    let args = |cmd: &mut Cmd| {
        cmd.arg(&record[..]).arg(FIRST_ENTRIES);
    };
    let answer = shared.open.call_again(&shared.history, &keys, args).await;
    let answer = answer.map_err(|e| failed(&e, place))?;
    let (ends, state) =
        ends(answer, &logs).ok_or_else(|| unreadable("an answer of a script", place))?;
    let heads = ends.into_iter().zip(&logs).map(|(end, log)| async move {
        let meta_key = || names.meta(*log);
        let meta = Meta::read(end.meta);
        let meta = meta.ok_or_else(|| unreadable("the ends of a log", &meta_key()))?;
        let head = rest_of_head(shared, *log, meta, end.tail, Some(turns)).await?;
        Ok(LogHead { last: end.last, ..head })
    });
    let heads = try_join_all(heads).await?;
    let state = match state {
        Some(state) => state_records(state, &names.state(group), now_ms)?,
        None => Vec::new(),
    };
    Ok(Opened { heads, state })
}

/// What the script says of one log.
struct End {
    /// The last entry before the seal.
    last: Seq,
    meta: Value,
    tail: Vec<Front>,
}

/// The answer of the script; `None` where it cannot have been the script.
fn ends(answer: Value, logs: &[LogId]) -> Option<(Vec<End>, Option<Value>)> {
    let Value::Array(mut answer) = answer else { return None };
    let rest = answer.split_off(logs.len().min(answer.len()));
    let end = |value: Value| {
        let Value::Array(end) = value else { return None };
        let [last, meta, tail] = <[Value; 3]>::try_from(end).ok()?;
        let Value::Array(tail) = tail else { return None };
        let last = keys::seq(&values::bytes(last)?)?;
        Some(End { last, meta, tail: tail.into_iter().map(front).collect::<Option<_>>()? })
    };
    let ends = answer.into_iter().map(end).collect::<Option<Vec<_>>>()?;
    (ends.len() == logs.len()).then(|| (ends, rest.into_iter().next()))
}

fn front(value: Value) -> Option<Front> {
    let Value::Array(entry) = value else { return None };
    let [id, front, bytes] = <[Value; 3]>::try_from(entry).ok()?;
    let bytes = usize::try_from(values::number(&bytes)?).ok()?;
    Some(Front { seq: keys::seq(&values::bytes(id)?)?, front: values::bytes(front)?, bytes })
}
