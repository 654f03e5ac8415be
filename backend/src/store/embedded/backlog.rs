//! What is in the journal and not in the tables yet, between the thread that writes the one and the
//! thread that writes the other; and the segments that are kept for it.

use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::journal::Closed;
use crate::store::{StoreError, queue::closed};

/// Records that wait to be applied; at the bound the writer waits. One more may come on top.
const STAGED_BYTES: usize = 64 * 1024 * 1024;
/// Segments of the journal; at the bound the writer waits until some are removed.
const JOURNAL_BYTES: u64 = 256 * 1024 * 1024;
/// Applied together: more gains nothing, and who reads waits for it.
const APPLIED_BYTES: usize = 1024 * 1024;
/// How long records wait for others while nobody asks for them: a commit for each would cost more
/// than what is in it.
const LINGER: Duration = Duration::from_millis(25);

/// A record of the journal that is to be applied.
#[derive(Clone)]
pub(super) struct Staged {
    pub number: u64,
    pub record: Arc<Vec<u8>>,
}

pub(super) struct Backlog {
    state: Mutex<State>,
    /// For who applies.
    work: Condvar,
    /// For who waits until something is applied, or removed.
    progress: Condvar,
}

struct State {
    staged: VecDeque<Staged>,
    staged_bytes: usize,
    since: Instant,
    /// The number of the last record that was staged, and of the last that is in the tables.
    last: u64,
    applied: u64,
    /// Who waits for records to be applied.
    waiting: usize,
    segments: VecDeque<Closed>,
    journal_bytes: u64,
    /// Why nothing is applied, where that goes on for longer.
    failing: Option<StoreError>,
    closing: bool,
    #[cfg(test)]
    held: bool,
}

impl Backlog {
    /// Nothing is waiting; everything up to `applied` is in the tables.
    pub(super) fn new(applied: u64) -> Self {
        let state = State {
            staged: VecDeque::new(),
            staged_bytes: 0,
            since: Instant::now(),
            last: applied,
            applied,
            waiting: 0,
            segments: VecDeque::new(),
            journal_bytes: 0,
            failing: None,
            closing: false,
            #[cfg(test)]
            held: false,
        };
        Self { state: Mutex::new(state), work: Condvar::new(), progress: Condvar::new() }
    }

    /// Waits until another record may be written.
    ///
    /// # Errors
    /// It is full, and nothing is applied because of this.
    pub(super) fn wait_for_room(&self) -> Result<(), StoreError> {
        let mut state = self.state.lock();
        let full = |s: &State| s.staged_bytes >= STAGED_BYTES || s.journal_bytes >= JOURNAL_BYTES;
        if !full(&state) {
            return Ok(());
        }
        metrics::counter!("edgeway_backend_store_staged_full_total").increment(1);
        self.wait(&mut state, |state| !full(state))
    }

    /// Waits until everything up to `number` is in the tables.
    pub(super) fn wait_for(&self, number: u64) -> Result<(), StoreError> {
        let mut state = self.state.lock();
        self.wait(&mut state, |state| state.applied >= number)
    }

    fn wait(
        &self,
        state: &mut MutexGuard<'_, State>,
        done: impl Fn(&State) -> bool,
    ) -> Result<(), StoreError> {
        while !done(state) {
            if let Some(cause) = &state.failing {
                return Err(cause.clone());
            }
            state.waiting += 1;
            self.work.notify_one();
            self.progress.wait(state);
            state.waiting -= 1;
        }
        Ok(())
    }

    /// Hands over a record that was written; and segments that were closed, `current_bytes` being
    /// those of the one that is written to.
    pub(super) fn stage(&self, staged: Staged, segments: Vec<Closed>, current_bytes: u64) {
        let mut state = self.state.lock();
        let first = state.staged.is_empty();
        if first {
            state.since = Instant::now();
        }
        state.last = staged.number;
        state.staged_bytes += staged.record.len();
        state.staged.push_back(staged);
        state.segments.extend(segments);
        state.journal_bytes = state.segments.iter().map(|s| s.bytes).sum::<u64>() + current_bytes;
        // Who lingers is not woken by each.
        if first || state.staged_bytes >= APPLIED_BYTES {
            self.work.notify_one();
        }
        state.measure();
    }

    /// The number of the last record that was written.
    pub(super) fn last(&self) -> u64 {
        self.state.lock().last
    }

    /// The number of the last record that is in the tables.
    pub(super) fn applied(&self) -> u64 {
        self.state.lock().applied
    }

    /// Waits for records and gives some, oldest first, which stay here until they are applied.
    /// None when the store is being closed and there are no more.
    pub(super) fn next(&self) -> Option<Vec<Staged>> {
        let mut state = self.state.lock();
        while !state.ready() {
            if state.staged.is_empty() || state.is_held() {
                if state.closing && !state.is_held() {
                    return None;
                }
                self.work.wait(&mut state);
            } else {
                let until = state.since + LINGER;
                self.work.wait_until(&mut state, until);
            }
        }
        let mut bytes = 0;
        let more = |staged: &&Staged| {
            let more = bytes < APPLIED_BYTES;
            bytes += staged.record.len();
            more
        };
        Some(state.staged.iter().take_while(more).cloned().collect())
    }

    /// Everything up to `number` is in the tables.
    pub(super) fn set_applied(&self, number: u64) {
        let mut state = self.state.lock();
        let count = state.staged.partition_point(|staged| staged.number <= number);
        let done: Vec<_> = state.staged.drain(..count).collect();
        state.staged_bytes -= done.iter().map(|staged| staged.record.len()).sum::<usize>();
        state.applied = number;
        state.since = Instant::now();
        state.failing = None;
        state.measure();
        drop(state);
        self.progress.notify_all();
    }

    /// Segments that may be removed once the tables are on the disk.
    pub(super) fn finished(&self) -> Vec<PathBuf> {
        let state = self.state.lock();
        let finished = state.segments.iter().take_while(|s| s.last <= state.applied);
        finished.map(|s| s.path.clone()).collect()
    }

    /// So many of [`Self::finished`] have been removed.
    pub(super) fn removed(&self, count: usize) {
        let mut state = self.state.lock();
        let bytes = state.segments.drain(..count).map(|s| s.bytes).sum::<u64>();
        state.journal_bytes -= bytes;
        state.measure();
        drop(state);
        self.progress.notify_all();
    }

    /// Nothing is applied for now, because of this: who waits is told.
    pub(super) fn fail(&self, cause: StoreError) {
        self.state.lock().failing = Some(cause);
        self.progress.notify_all();
    }

    /// Waits for so long, or less where the store is being closed; whether it is.
    pub(super) fn pause(&self, pause: Duration) -> bool {
        let until = Instant::now() + pause;
        let mut state = self.state.lock();
        while !state.closing && !self.work.wait_until(&mut state, until).timed_out() {}
        state.closing
    }

    /// No more records will come.
    pub(super) fn close(&self) {
        self.state.lock().closing = true;
        self.work.notify_all();
    }

    #[cfg(test)]
    pub(super) fn hold(&self, held: bool) {
        self.state.lock().held = held;
        self.work.notify_all();
    }

    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.state.lock().waiting
    }
}

impl State {
    fn ready(&self) -> bool {
        let full = self.staged_bytes >= APPLIED_BYTES || self.since.elapsed() >= LINGER;
        let now = full || self.waiting > 0 || self.closing;
        now && !self.staged.is_empty() && !self.is_held()
    }

    #[cfg(test)]
    const fn is_held(&self) -> bool {
        self.held
    }

    #[cfg(not(test))]
    #[allow(clippy::unused_self)] // as in tests
    const fn is_held(&self) -> bool {
        false
    }

    #[allow(clippy::cast_precision_loss)] // gauges
    fn measure(&self) {
        metrics::gauge!("edgeway_backend_store_staged_bytes").set(self.staged_bytes as f64);
        metrics::gauge!("edgeway_backend_store_journal_bytes").set(self.journal_bytes as f64);
    }
}

/// Tells who waits when the thread that applies has ended, however it did.
pub(super) struct Ending(pub Arc<Backlog>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.fail(closed());
    }
}
