//! The thread that brings what is in the journal into the tables, in order and many records at a
//! time. Reads wait for it, appends do not.

use std::{
    fs, io,
    ops::ControlFlow,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use fjall::{OwnedWriteBatch, PersistMode};

use super::{
    Shared,
    backlog::{Backlog, Ending, Staged},
    journal::{
        self,
        record::{HEADER_BYTES, ops},
        replay::replay,
    },
    keys::APPLIED_KEY,
    tables::{self, Tables, storing, unavailable},
};
use crate::store::StoreError;

/// Records of the journal that are read again in one commit.
const REPLAYED_BYTES: usize = 4 * 1024 * 1024;
/// How long after a failed attempt the next one may be; the first one is at once.
const RETRY: Duration = Duration::from_secs(1);

pub(super) struct Applier {
    shared: Arc<Shared>,
}

impl Applier {
    pub(super) const fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Works until the backlog is closed and empty. Where it cannot, the journal has the rest.
    pub(super) fn run(self) {
        let backlog = &self.shared.backlog;
        let _ending = Ending(Arc::clone(backlog));
        while let Some(staged) = backlog.next() {
            if self.apply_at_last(backlog, &staged).is_break() {
                break;
            }
        }
        let synced = self.shared.with(|t| t.db.persist(PersistMode::SyncAll).map_err(storing));
        if let Err(error) = synced {
            tracing::warn!(%error, "the store could not be synced when it was closed");
        }
    }

    /// Applies until it succeeds. Breaks where the store is being closed and it does not.
    fn apply_at_last(&self, backlog: &Backlog, staged: &[Staged]) -> ControlFlow<()> {
        let mut failures = 0;
        // What is in the tables already may be applied again.
        while let Err(cause) = self.apply(backlog, staged) {
            failures += 1;
            self.recover(backlog, cause, failures)?;
        }
        ControlFlow::Continue(())
    }

    fn apply(&self, backlog: &Backlog, staged: &[Staged]) -> Result<(), StoreError> {
        let Some(last) = staged.last() else { return Ok(()) };
        let started = Instant::now();
        self.shared.with(|tables| {
            tables.wait_for_room()?;
            let mut commit = Commit::new(tables);
            for staged in staged {
                commit.add(staged.number, staged.record.get(HEADER_BYTES..).unwrap_or_default())?;
            }
            #[cfg(test)]
            super::fail_if_told(&self.shared.fail_applies)?;
            commit.end()
        })?;
        backlog.set_applied(last.number);
        metrics::histogram!("edgeway_backend_store_apply_seconds").record(started.elapsed());
        self.remove_segments(backlog)
    }

    /// Removes segments of the journal that are not needed any more.
    fn remove_segments(&self, backlog: &Backlog) -> Result<(), StoreError> {
        let finished = backlog.finished();
        if finished.is_empty() {
            return Ok(());
        }
        self.shared.with(|tables| tables.db.persist(PersistMode::SyncAll).map_err(storing))?;
        for path in &finished {
            match fs::remove_file(path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    return Err(unavailable("cannot remove", path, &e));
                }
                _ => backlog.removed(1),
            }
        }
        let dir = journal::directory(&self.shared.dir);
        tables::sync_dir(&dir).map_err(|e| unavailable("cannot sync", &dir, &e))
    }

    /// Opens the tables anew, since fjall takes no more after a failure. What was to be applied is
    /// still there. Breaks where the store is being closed and this goes on.
    fn recover(&self, backlog: &Backlog, cause: StoreError, failures: usize) -> ControlFlow<()> {
        // fjall only says that something failed before; the disk may say what.
        let cause = tables::probe(&self.shared.dir).err().unwrap_or(cause);
        tracing::error!(%cause, "the store could not bring its journal into its tables");
        metrics::counter!("edgeway_backend_store_failed_applies_total").increment(1);
        if failures > 1 {
            backlog.fail(cause);
            if backlog.pause(RETRY) {
                return ControlFlow::Break(());
            }
        }
        match self.shared.reopen() {
            Ok(()) => metrics::counter!("edgeway_backend_store_reopened_total").increment(1),
            Err(cause) => backlog.fail(cause),
        }
        ControlFlow::Continue(())
    }
}

/// Brings the tables up to record `upto` of the journal, or its end; the last one they have then.
pub(super) fn catch_up(tables: &Tables, dir: &Path, upto: u64) -> Result<u64, StoreError> {
    let applied = tables.applied()?;
    if applied >= upto {
        return Ok(applied);
    }
    let mut commit = Commit::new(tables);
    let last = replay(&journal::directory(dir), applied, upto, |number, ops| {
        commit.add(number, ops)?;
        if commit.bytes >= REPLAYED_BYTES {
            let full = std::mem::replace(&mut commit, Commit::new(tables));
            tables.wait_for_room()?;
            full.end()?;
        }
        Ok(())
    })?;
    commit.end()?;
    if last > applied {
        tracing::info!(records = last - applied, "brought the journal into the tables");
    }
    Ok(last)
}

/// A commit to the tables in the making. It is not handed to the operating system by itself: until
/// the tables are synced the journal has it too.
struct Commit<'a> {
    tables: &'a Tables,
    batch: OwnedWriteBatch,
    last: u64,
    bytes: usize,
}

impl<'a> Commit<'a> {
    fn new(tables: &'a Tables) -> Self {
        Self { tables, batch: tables.db.batch(), last: 0, bytes: 0 }
    }

    fn add(&mut self, number: u64, bytes: &[u8]) -> Result<(), StoreError> {
        for op in ops(bytes) {
            let op = op.ok_or_else(|| StoreError::Corrupt {
                what: "an operation that cannot be read".to_owned(),
                place: format!("record {number} of the journal"),
            })?;
            let table = self.tables.table(op.table);
            match op.value {
                Some(value) => self.batch.insert(table, op.key, value),
                None => self.batch.remove(table, op.key),
            }
        }
        self.last = number;
        self.bytes += bytes.len();
        Ok(())
    }

    fn end(mut self) -> Result<(), StoreError> {
        if self.last == 0 {
            return Ok(());
        }
        self.batch.insert(&self.tables.names, APPLIED_KEY, self.last.to_be_bytes());
        self.batch.commit().map_err(storing)
    }
}
