//! The one task that appends. It takes what is waiting into one commit, sends all of it at once,
//! and answers: the further the server, the larger the commits.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use tokio::sync::mpsc;

use super::{Shared, append::Part};
use crate::store::{StoreError, queue};

/// Of one commit. More than this gains nothing, and what comes next waits for it.
const GROUP_BYTES: usize = 4 * 1024 * 1024;

/// The way to the task that appends.
pub(super) type Queue = queue::Queue<Vec<Part>, ()>;
type Job = queue::Job<Vec<Part>, ()>;

pub(super) struct Writer {
    shared: Arc<Shared>,
    jobs: mpsc::UnboundedReceiver<Job>,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, jobs: mpsc::UnboundedReceiver<Job>) -> Self {
        Self { shared, jobs }
    }

    /// Works until the queue is closed and empty.
    pub(super) async fn run(mut self) {
        while let Some(first) = self.jobs.recv().await {
            let mut bytes = first.bytes;
            let mut jobs = vec![first];
            while bytes < GROUP_BYTES
                && let Ok(job) = self.jobs.try_recv()
            {
                bytes += job.bytes;
                jobs.push(job);
            }
            self.commit(jobs).await;
        }
    }

    /// Appends and answers. Of one group the jobs follow each other, since a log takes its entries
    /// only in order; all groups go at the same time.
    async fn commit(&self, jobs: Vec<Job>) {
        let started = Instant::now();
        let mut groups: HashMap<u64, Vec<(usize, &Part)>> = HashMap::new();
        for (index, job) in jobs.iter().enumerate() {
            for part in &job.work {
                groups.entry(part.group()).or_default().push((index, part));
            }
        }
        let appending = groups.into_values().map(|parts| async move {
            let mut outcomes = Vec::with_capacity(parts.len());
            for (index, part) in parts {
                outcomes.push((index, part.append(&self.shared).await, part.entries()));
            }
            outcomes
        });
        let mut answers: Vec<Result<(), StoreError>> = jobs.iter().map(|_| Ok(())).collect();
        let mut entries = 0;
        for (index, outcome, appended) in join_all(appending).await.into_iter().flatten() {
            match outcome {
                Ok(()) => entries += appended,
                Err(e) => note(&mut answers[index], e),
            }
        }
        measure(entries, &answers, started.elapsed());
        for (job, answer) in jobs.into_iter().zip(answers) {
            // Who asked may have gone.
            let _ = job.reply.send(answer);
        }
    }
}

/// Of several failures the one that is told: that a log is stale will not change, and the caller
/// gives the other groups again in any case.
fn note(answer: &mut Result<(), StoreError>, e: StoreError) {
    if answer.is_ok() || matches!(e, StoreError::Stale { .. }) {
        *answer = Err(e);
    }
}

fn measure(entries: usize, answers: &[Result<(), StoreError>], took: Duration) {
    let failed = |answer: &Result<(), StoreError>| {
        matches!(answer, Err(StoreError::Unavailable(_) | StoreError::Corrupt { .. }))
    };
    if answers.iter().any(failed) {
        metrics::counter!("edgeway_backend_store_failed_commits_total").increment(1);
    }
    metrics::counter!("edgeway_backend_store_appended_total").increment(entries as u64);
    metrics::counter!("edgeway_backend_store_commits_total").increment(1);
    metrics::histogram!("edgeway_backend_store_commit_seconds").record(took);
}
