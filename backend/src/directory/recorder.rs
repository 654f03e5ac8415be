//! Writing to the directory: never waited for. Who holds a truth tells its [`Listing`] what changes;
//! one task gathers, writes and renews.

#[cfg(test)]
mod tests;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    Action, Directory, DirectoryConfig, Name, Outcome, Outcomes, Term, Write,
    cache::Stamps,
    pending::{Lines, Pending},
};
use crate::{store::StoreError, warn::WarnLimit};

/// Writes that are taken in one go, so that whoever has something to tell waits for a few
/// microseconds only.
const TAKEN: usize = 16;

/// Whoever holds the truth of listings.
pub(crate) trait Source: Send + Sync {
    /// Asks for a listing, by what it was opened with: [`Listing::anew`] is the answer. It may come
    /// later; none is needed for a listing that is dropped. Never waits.
    fn ask(&self, of: (u64, u64));
}

/// How a listing is asked for.
#[derive(Clone)]
struct Origin {
    source: Arc<dyn Source>,
    of: (u64, u64),
}

/// The way to the directory, for those who write. Cheap to clone.
#[derive(Clone)]
pub struct Recorder(Arc<Shared>);

struct Shared {
    pending: Mutex<Pending<Origin>>,
    wake: Notify,
    start: Instant,
    listings: metrics::Gauge,
    bytes: metrics::Gauge,
}

/// A listing that is kept. Dropping it closes it.
pub(crate) struct Listing {
    shared: Arc<Shared>,
    id: u64,
}

impl std::fmt::Debug for Listing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listing").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The task that writes.
pub(crate) struct Writing {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Recorder {
    /// Starts the task that writes. Must be called within a tokio runtime. `stamps`: what is told of what
    /// has changed.
    pub(crate) fn start(
        directory: Arc<dyn Directory>,
        config: DirectoryConfig,
        stamps: Arc<Stamps>,
    ) -> (Self, Writing) {
        let shared = Arc::new(Shared {
            pending: Mutex::new(Pending::new(config.clone())),
            wake: Notify::new(),
            start: Instant::now(),
            listings: metrics::gauge!("edgeway_directory_listings"),
            bytes: metrics::gauge!("edgeway_directory_pending_bytes"),
        });
        let stop = CancellationToken::new();
        let writer = Writer {
            shared: Arc::clone(&shared),
            directory,
            config,
            stamps,
            metrics: Metrics::new(),
            warn: WarnLimit::default(),
        };
        let task = tokio::spawn(writer.run(stop.clone()));
        (Self(shared), Writing { stop, task })
    }

    /// Begins a listing. `source` is asked for it, by `of`, where it has to be written anew.
    pub(crate) fn open(
        &self,
        name: Name,
        term: Term,
        head: Bytes,
        source: Arc<dyn Source>,
        of: (u64, u64),
    ) -> Listing {
        let origin = Origin { source, of };
        let id = self.0.with(|pending| pending.open(name, term, origin, head));
        Listing { shared: Arc::clone(&self.0), id }
    }
}

impl Shared {
    fn with<T>(&self, change: impl FnOnce(&mut Pending<Origin>) -> T) -> T {
        let mut pending = self.pending.lock();
        let had = pending.has_changes();
        let result = change(&mut pending);
        let wakes = !had && pending.has_changes();
        drop(pending);
        if wakes {
            self.wake.notify_one();
        }
        result
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }
}

impl Listing {
    /// A line comes. It is not there.
    pub(crate) fn add(&self, line: Bytes) {
        self.shared.with(|pending| pending.line(self.id, line, true));
    }

    /// A line goes. It is there.
    pub(crate) fn remove(&self, line: Bytes) {
        self.shared.with(|pending| pending.line(self.id, line, false));
    }

    /// The head changes.
    pub(crate) fn head(&self, head: Bytes) {
        self.shared.with(|pending| pending.head(self.id, head));
    }

    /// The answer to [`Source::ask`].
    pub(crate) fn anew(&self, head: Bytes, lines: impl Iterator<Item = Bytes>) {
        let lines: Lines = lines.collect();
        self.shared.with(|pending| pending.anew(self.id, head, lines));
    }
}

impl Drop for Listing {
    fn drop(&mut self) {
        self.shared.with(|pending| pending.close(self.id));
    }
}

impl Writing {
    /// Ends as if the process were killed.
    #[cfg(test)]
    pub(crate) fn abort(self) {
        self.task.abort();
    }

    /// Writes what waits, that listings have been closed above all, and ends; after `most` in any case.
    /// What is then left vanishes when its time is over.
    pub(crate) async fn finish(mut self, most: Duration) {
        self.stop.cancel();
        if timeout(most, &mut self.task).await.is_err() {
            tracing::warn!(
                "the directory was not told in time of all that has ended; it vanishes there by itself"
            );
            self.task.abort();
        }
    }
}

struct Writer {
    shared: Arc<Shared>,
    directory: Arc<dyn Directory>,
    config: DirectoryConfig,
    stamps: Arc<Stamps>,
    metrics: Metrics,
    warn: WarnLimit,
}

impl Writer {
    async fn run(self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            self.wait(&stop).await;
            if self.round().await < self.config.batch {
                tokio::select! {
                    () = sleep(self.config.gather) => {}
                    () = stop.cancelled() => {}
                }
            }
        }
        while self.shared.pending.lock().has_changes() {
            if self.round().await == 0 {
                sleep(self.config.gather).await;
            }
        }
    }

    /// Until there may be something to do.
    async fn wait(&self, stop: &CancellationToken) {
        let due = self.shared.pending.lock().due();
        let due = due.map(|due| due.saturating_sub(self.shared.now()));
        if due.is_some_and(|due| due.is_zero()) {
            return;
        }
        tokio::select! {
            () = self.shared.wake.notified() => {}
            () = sleep(due.unwrap_or(self.config.renew)) => {}
            () = stop.cancelled() => {}
        }
    }

    /// Asks for what is to be written anew, and writes one batch; how many listings it had.
    async fn round(&self) -> usize {
        for _ in 0..self.config.batch {
            let Some(origin) = self.shared.pending.lock().want() else { break };
            origin.source.ask(origin.of);
        }
        let batch = self.take();
        if batch.is_empty() {
            self.measure();
            return 0;
        }
        let began = Instant::now();
        let writes = batch.iter().map(|(_, write)| Arc::clone(write)).collect();
        let outcomes = self.directory.write(writes).await;
        self.metrics.seconds.record(began.elapsed());
        let taken = batch.len();
        self.answered(batch, outcomes);
        self.measure();
        taken
    }

    fn take(&self) -> Vec<(u64, Arc<Write>)> {
        let (mut batch, now) = (Vec::new(), self.shared.now());
        while batch.len() < self.config.batch {
            let mut pending = self.shared.pending.lock();
            let before = batch.len();
            batch.extend(std::iter::from_fn(|| pending.take(now)).take(TAKEN));
            if batch.len() < before + TAKEN {
                break;
            }
        }
        batch
    }

    fn answered(&self, batch: Vec<(u64, Arc<Write>)>, outcomes: Outcomes) {
        let now = self.shared.now();
        let unknown = || Err(StoreError::Unavailable("no answer".to_owned()));
        let outcomes = outcomes.into_iter().chain(std::iter::repeat_with(unknown));
        for ((id, write), outcome) in batch.into_iter().zip(outcomes) {
            self.metrics.count(&outcome);
            let outcome = match outcome {
                Ok(outcome) => Some(outcome),
                Err(error @ StoreError::Unavailable(_)) => {
                    self.told(&error, "the directory cannot be written");
                    None
                }
                // Nothing that is tried again soon will help.
                Err(error) => {
                    self.told(&error, "a listing of the directory cannot be written");
                    Some(Outcome::Stale)
                }
            };
            let renews = write.action == Action::Change && write.before == write.after;
            if outcome == Some(Outcome::Done) && !renews {
                // Before it can be written again.
                self.stamps.changed(&write.name);
            }
            self.shared.pending.lock().answered(id, outcome, now);
        }
    }

    fn told(&self, error: &StoreError, problem: &str) {
        if let Some(held_back) = self.warn.pass() {
            tracing::warn!(%error, held_back, "{problem}");
        }
    }

    fn measure(&self) {
        let mut pending = self.shared.pending.lock();
        let (listings, bytes, dropped) = (pending.len(), pending.bytes(), pending.take_dropped());
        drop(pending);
        #[allow(clippy::cast_precision_loss)] // gauges
        {
            self.shared.listings.set(listings as f64);
            self.shared.bytes.set(bytes as f64);
        }
        self.metrics.full.increment(dropped.full);
        self.metrics.behind.increment(dropped.behind);
        self.metrics.stale.increment(dropped.stale);
    }
}

/// What the writer tells about itself.
struct Metrics {
    outcomes: [metrics::Counter; 4],
    full: metrics::Counter,
    behind: metrics::Counter,
    stale: metrics::Counter,
    seconds: metrics::Histogram,
}

impl Metrics {
    fn new() -> Self {
        let dropped =
            |why: &'static str| metrics::counter!("edgeway_directory_dropped_total", "why" => why);
        Self {
            outcomes: ["done", "behind", "stale", "failed"].map(
                |outcome| metrics::counter!("edgeway_directory_writes_total", "outcome" => outcome),
            ),
            full: dropped("full"),
            behind: dropped("behind"),
            stale: dropped("stale"),
            seconds: metrics::histogram!("edgeway_directory_write_seconds"),
        }
    }

    fn count(&self, outcome: &Result<Outcome, StoreError>) {
        let at = match outcome {
            Ok(Outcome::Done) => 0,
            Ok(Outcome::Behind) => 1,
            Ok(Outcome::Stale) => 2,
            Err(_) => 3,
        };
        self.outcomes[at].increment(1);
    }
}
