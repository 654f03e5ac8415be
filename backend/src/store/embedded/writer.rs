//! The one thread that writes the journal. It takes what is waiting into one commit, a record, then
//! answers all of it: the slower the disk, the larger the commits. It waits for the tables only where
//! it needs what they will have: never for a log that it knows.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::mpsc;

use super::{
    Shared,
    backlog::Staged,
    group::{Group, Rooms},
    journal::Journal,
    lasts::Lasts,
    queue::{Done, Job, Work},
    tables,
};
use crate::store::StoreError;

/// Of one commit. More than this gains nothing, and what comes next waits for it.
const GROUP_BYTES: usize = 4 * 1024 * 1024;
/// Logs whose last entry is kept in memory, about 100 bytes each.
const LASTS: usize = 100_000;
/// How long after a failed attempt to open the store anew the next one may be.
const RETRY: Duration = Duration::from_secs(1);

pub(super) struct Writer {
    shared: Arc<Shared>,
    queue: mpsc::UnboundedReceiver<Job>,
    /// Taken out of the queue, and to be done by itself.
    held: Option<Job>,
    journal: Journal,
    lasts: Lasts,
    rooms: Rooms,
    broken: Option<Broken>,
}

/// A write failed. The journal takes no more until what there is of it has been cut off.
struct Broken {
    cause: StoreError,
    retry_at: Instant,
}

impl Writer {
    pub(super) fn new(
        shared: Arc<Shared>,
        journal: Journal,
        queue: mpsc::UnboundedReceiver<Job>,
    ) -> Self {
        let (lasts, rooms) = (Lasts::new(LASTS), Rooms::default());
        Self { shared, queue, held: None, journal, lasts, rooms, broken: None }
    }

    /// Works until the queue is closed and empty.
    pub(super) fn run(mut self) {
        while let Some(first) = self.held.take().or_else(|| self.queue.blocking_recv()) {
            let jobs = self.gather(first);
            self.turn(jobs);
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
        // Where the tables fall behind for long it is not the journal that is broken.
        let ready = self.ready().and_then(|()| self.shared.backlog.wait_for_room());
        let committed = ready.and_then(|()| self.commit(&jobs).map_err(|e| self.fail(e, started)));
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

    fn fail(&mut self, cause: StoreError, at: Instant) -> StoreError {
        // The disk may say more than the write did.
        let cause = tables::probe(&self.shared.dir).err().unwrap_or(cause);
        tracing::error!(%cause, "the store could not write");
        metrics::counter!("edgeway_backend_store_failed_commits_total").increment(1);
        // What was staged is not to be known.
        self.lasts.clear(self.journal.last());
        self.rooms.clear(self.journal.last());
        self.broken = Some(Broken { cause: cause.clone(), retry_at: at });
        cause
    }

    /// Begins a new segment where a write failed.
    fn ready(&mut self) -> Result<(), StoreError> {
        let Some(broken) = &mut self.broken else { return Ok(()) };
        if Instant::now() < broken.retry_at {
            return Err(broken.cause.clone());
        }
        let renewed = tables::probe(&self.shared.dir).and_then(|()| self.journal.renew());
        if let Err(cause) = renewed {
            *broken = Broken { cause: cause.clone(), retry_at: Instant::now() + RETRY };
            return Err(cause);
        }
        tracing::info!("the store can write again");
        metrics::counter!("edgeway_backend_store_renewed_total").increment(1);
        self.broken = None;
        Ok(())
    }

    fn commit(&mut self, jobs: &[Job]) -> Result<Vec<Result<Done, StoreError>>, StoreError> {
        let shared = &self.shared;
        let mut group = Group::new(shared, &mut self.lasts, &mut self.rooms);
        let outcomes = jobs.iter().map(|job| group.stage(&job.work)).collect();
        let ops = group.ops;
        #[cfg(test)]
        let break_off = super::fail_if_told(&shared.fail_commits).is_err();
        #[cfg(not(test))]
        let break_off = false;
        if !ops.is_empty() || break_off {
            let record = Arc::new(self.journal.append(ops, break_off)?);
            let number = self.journal.last();
            let closed = self.journal.take_closed();
            let staged = Staged { number, record };
            shared.backlog.stage(staged, closed, self.journal.current_bytes());
        }
        self.lasts.committed(self.journal.last());
        self.rooms.committed(self.journal.last());
        Ok(outcomes)
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
