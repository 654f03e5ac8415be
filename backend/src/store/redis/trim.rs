//! Trimming: first hidden in one step, then removed in parts, between which others are served.

use edgeway_proto::Seq;
use redis::{Cmd, Value, cmd};

use super::{
    Shared,
    error::{failed, unreadable},
    keys, values,
};
use crate::store::{LogId, StoreError};

/// Entries that are removed in one go.
const REMOVED_ENTRIES: usize = 1_000;

/// Trims a log before a position.
pub(super) async fn trim(shared: &Shared, log: LogId, before: Seq) -> Result<(), StoreError> {
    // Nothing is earlier, and servers take no range before it.
    if before == Seq::ZERO {
        return Ok(());
    }
    let (stream, meta) = (shared.keys.log(log), shared.keys.meta(log));
    let both = [stream.clone(), meta.clone()];
    let arg = |cmd: &mut Cmd| {
        cmd.arg(before.to_string());
    };
    let last = shared.trim.call(&shared.history, &both, arg).await;
    let last = match last.map_err(|e| failed(&e, &stream))? {
        Value::Nil => return Ok(()),
        id => values::bytes(id).and_then(|id| keys::seq(&id)),
    };
    // Not `before`: what is appended after the step above is not hidden.
    let kept = last.ok_or_else(|| unreadable("a trim", &meta))?.next().to_string();
    loop {
        // Whole nodes of the stream: of one node, all has to be written anew.
        let mut part = cmd("XTRIM");
        part.arg(&stream).arg("MINID").arg("~").arg(&kept).arg("LIMIT").arg(REMOVED_ENTRIES);
        let removed = shared.history.command(&part).await.map_err(|e| failed(&e, &stream))?;
        match values::number(&removed) {
            Some(0) => break,
            Some(_) => {}
            None => return Err(unreadable("a number of removed entries", &stream)),
        }
    }
    let mut rest = cmd("XTRIM");
    rest.arg(&stream).arg("MINID").arg(&kept);
    shared.history.command(&rest).await.map_err(|e| failed(&e, &stream)).map(|_| ())
}
