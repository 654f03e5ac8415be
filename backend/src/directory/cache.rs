//! What was read lately, in memory: bounded, forgotten little by little, never older than it may be.
//! Of those who ask the same at the same time one reads. Whoever begins to read after a change of this
//! process was written sees the change.

#[cfg(test)]
mod tests;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use quick_cache::{
    DefaultHashBuilder, Lifecycle, Weighter,
    sync::{Cache as Quick, EntryAction, EntryResult},
};
use tokio::sync::Semaphore;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{Directory, DirectoryConfig, Found, Name};
use crate::store::StoreError;

/// Counts of changes, shared by names with the same hash: 512 KiB. A name that meets another one
/// is read once more than it had to be.
const STAMPS: usize = 1 << 16;
/// What an entry takes beside its bytes, and a line of it, roughly.
const ENTRY_BYTES: usize = 256;
const LINE_BYTES: usize = 32;

/// How often what is called so was changed by this process, about.
pub(crate) struct Stamps(Box<[AtomicU64]>);

impl Stamps {
    pub(crate) fn new() -> Self {
        Self((0..STAMPS).map(|_| AtomicU64::new(0)).collect())
    }

    /// A change of a listing was written.
    pub(crate) fn changed(&self, name: &Name) {
        self.of(name).fetch_add(1, Ordering::Release);
        if let Some((user, _)) = name.of_user() {
            self.of_user(user).fetch_add(1, Ordering::Release);
        }
    }

    fn of(&self, name: &Name) -> &AtomicU64 {
        match name {
            Name::Room(name) => self.at(name, 0),
            Name::Session(name) => self.at(name, 1),
        }
    }

    fn of_user(&self, user: &str) -> &AtomicU64 {
        self.at(user, 2)
    }

    fn at(&self, name: &str, kind: u64) -> &AtomicU64 {
        let hash = xxh3_64_with_seed(name.as_bytes(), kind);
        &self.0[usize::try_from(hash % STAMPS as u64).unwrap_or_default()]
    }
}

/// What can be asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Key {
    /// A listing, with lines.
    Listing { name: Name, after: Bytes, limit: usize },
    /// The names of a user's Sessions.
    Sessions { user: Arc<str>, limit: usize },
}

impl Key {
    fn len(&self) -> usize {
        match self {
            Self::Listing { name: Name::Room(name) | Name::Session(name), after, .. } => {
                name.len() + after.len()
            }
            Self::Sessions { user, .. } => user.len(),
        }
    }

    /// For metrics.
    fn kind(&self) -> usize {
        match self {
            Self::Listing { name: Name::Room(_), limit: 0, .. } => 0,
            Self::Listing { name: Name::Room(_), .. } => 1,
            Self::Listing { name: Name::Session(_), .. } => 2,
            Self::Sessions { .. } => 3,
        }
    }
}

const KINDS: [&str; 4] = ["route", "members", "session", "user"];

/// What was read.
#[derive(Debug, Clone)]
pub(super) enum Answer {
    Listing(Option<Arc<Found>>),
    Sessions(Arc<[String]>),
    Failed(StoreError),
}

impl Answer {
    fn len(&self) -> usize {
        match self {
            Self::Listing(Some(found)) => {
                let lines: usize = found.lines.iter().map(|line| line.len() + LINE_BYTES).sum();
                found.head.len() + lines
            }
            Self::Sessions(names) => names.iter().map(|name| name.len() + LINE_BYTES).sum(),
            Self::Listing(None) | Self::Failed(_) => 0,
        }
    }
}

#[derive(Debug, Clone)]
struct Cached {
    answer: Answer,
    /// The stamp when it was begun to be read.
    stamp: u64,
    until: Instant,
}

#[derive(Clone)]
struct Weigh;

impl Weighter<Key, Cached> for Weigh {
    fn weight(&self, key: &Key, cached: &Cached) -> u64 {
        (ENTRY_BYTES + key.len() + cached.answer.len()) as u64
    }
}

#[derive(Clone)]
struct Evicted(metrics::Counter);

impl Lifecycle<Key, Cached> for Evicted {
    type RequestState = ();

    fn begin_request(&self) {}

    fn on_evict(&self, (): &mut (), _: Key, _: Cached) {
        self.0.increment(1);
    }
}

pub(super) struct Cache {
    directory: Arc<dyn Directory>,
    stamps: Arc<Stamps>,
    quick: Quick<Key, Cached, Weigh, DefaultHashBuilder, Evicted>,
    fresh: Duration,
    failed: Duration,
    reads: Semaphore,
    bytes: metrics::Gauge,
    /// Hits, misses and failures, by kind.
    counts: [[metrics::Counter; 3]; KINDS.len()],
}

impl Cache {
    pub(super) fn new(
        directory: Arc<dyn Directory>,
        config: &DirectoryConfig,
        stamps: Arc<Stamps>,
    ) -> Self {
        let count = |of, outcome| metrics::counter!("edgeway_directory_reads_total", "of" => of, "outcome" => outcome);
        let evicted = Evicted(metrics::counter!("edgeway_directory_cache_evicted_total"));
        let items = usize::try_from(config.cache_bytes).unwrap_or(usize::MAX) / (2 * ENTRY_BYTES);
        Self {
            directory,
            stamps,
            quick: Quick::with(items, config.cache_bytes, Weigh, Default::default(), evicted),
            fresh: config.fresh,
            failed: config.failed,
            reads: Semaphore::new(config.reads.max(1)),
            bytes: metrics::gauge!("edgeway_directory_cache_bytes"),
            counts: KINDS.map(|of| ["hit", "miss", "failed"].map(|outcome| count(of, outcome))),
        }
    }

    fn stamp(&self, key: &Key) -> u64 {
        let stamp = match key {
            Key::Listing { name, .. } => self.stamps.of(name),
            Key::Sessions { user, .. } => self.stamps.of_user(user),
        };
        stamp.load(Ordering::Acquire)
    }

    /// From memory where it is there and good; else from the directory.
    pub(super) async fn get(&self, key: Key) -> Answer {
        let (now, stamp) = (Instant::now(), self.stamp(&key));
        let [hits, misses, failures] = &self.counts[key.kind()];
        let good = |_: &Key, cached: &mut Cached| {
            if cached.stamp >= stamp && now < cached.until {
                EntryAction::Retain(cached.answer.clone())
            } else {
                EntryAction::ReplaceWithGuard
            }
        };
        let guard = match self.quick.entry_async(&key, good).await {
            EntryResult::Retained(answer) => {
                hits.increment(1);
                return answer;
            }
            EntryResult::Vacant(guard) | EntryResult::Replaced(guard, _) => Some(guard),
            // Not asked for.
            EntryResult::Removed(..) | EntryResult::Timeout => None,
        };
        misses.increment(1);
        // While it waited for its turn more may have changed: what is read now has all of it.
        let stamp = self.stamp(&key);
        let answer = self.read(key).await;
        let keep = match &answer {
            Answer::Failed(_) => {
                failures.increment(1);
                self.failed
            }
            _ => self.fresh,
        };
        if let Some(guard) = guard {
            let cached = Cached { answer: answer.clone(), stamp, until: Instant::now() + keep };
            // It may be too large to be kept.
            let _ = guard.insert(cached);
            #[allow(clippy::cast_precision_loss)] // a gauge
            self.bytes.set(self.quick.weight() as f64);
        }
        answer
    }

    async fn read(&self, key: Key) -> Answer {
        let _turn = self.reads.acquire().await;
        let read = match key {
            Key::Listing { name, after, limit } => {
                let found = self.directory.read(name, after, limit).await;
                found.map(|found| Answer::Listing(found.map(Arc::new)))
            }
            Key::Sessions { user, limit } => {
                let names = self.directory.sessions(&user, limit).await;
                names.map(|names| Answer::Sessions(names.into()))
            }
        };
        read.unwrap_or_else(Answer::Failed)
    }
}
