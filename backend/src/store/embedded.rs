//! The store of one process, in a directory of its own: a journal, behind it the tables (a
//! log-structured store, fjall), a thread that writes each, and a bounded number of reads at a time.
//!
//! What is answered with success is in the journal and survives the death of the process; with
//! [`Durability::Disk`] the loss of power too. A read waits until the tables have what had been
//! answered before it. Where the disk is full or fails, appends are answered `Unavailable`, reads go
//! on, and each later append (once a second) tries to go on in a new segment of the journal.

mod applier;
mod backlog;
mod codec;
mod group;
mod journal;
mod keys;
mod lasts;
mod queue;
mod read;
mod syncer;
mod tables;
#[cfg(test)]
mod tests;
mod writer;

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    thread::JoinHandle,
};

use edgeway_proto::Seq;
use fjall::PersistMode;
use futures_util::future::try_join_all;
use parking_lot::RwLock;
use tokio::sync::{Semaphore, mpsc::UnboundedReceiver};

use self::{
    applier::{Applier, catch_up},
    backlog::Backlog,
    journal::Journal,
    queue::{Done, Entry, Job, Queue, Work},
    syncer::Syncer,
    tables::{Lock, Tables, storing, unavailable},
    writer::Writer,
};
use super::{
    Append, LogHead, LogId, LogPage, Record, Store, StoreError, StoreFuture, page::Wanted,
    queue::closed,
};

/// What an append that was answered with success survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// The death of this process: it was handed to the operating system, and is synced soon after.
    #[default]
    Process,
    /// The loss of power: each group commit is synced to the disk.
    Disk,
}

/// How a store is opened.
#[derive(Debug, Clone)]
pub struct EmbeddedOptions {
    /// What an append survives.
    pub durability: Durability,
    /// Which of the writers of a site this is, 0 to 63: the low 6 bits of the handles it allots.
    pub slot: u8,
    /// Memory for blocks read from disk.
    pub cache_bytes: u64,
    /// Appends that wait to be written; at the bound, further ones wait for space.
    pub queue_bytes: usize,
    /// Reads at a time; further ones wait. Each takes a thread and, for a page, its bytes.
    pub reads: usize,
}

impl Default for EmbeddedOptions {
    fn default() -> Self {
        Self {
            durability: Durability::default(),
            slot: 0,
            cache_bytes: 64 * 1024 * 1024,
            queue_bytes: 64 * 1024 * 1024,
            reads: 16,
        }
    }
}

/// The embedded store. Dropping it writes what is queued, brings it into the tables, syncs both, and
/// frees the directory; it blocks for that long.
pub struct Embedded {
    shared: Arc<Shared>,
    /// Taken when it is dropped, which ends the writer.
    queue: Option<Queue>,
    reads: Arc<Semaphore>,
    writer: Option<JoinHandle<()>>,
    syncer: Option<Syncer>,
    applier: Option<JoinHandle<()>>,
    /// Outlives the tables, which `drop` closes before.
    _lock: Lock,
}

/// What the threads and the reads share.
struct Shared {
    dir: PathBuf,
    options: EmbeddedOptions,
    /// The tables, or why there are none. Held for reading by whoever works with them, always on a
    /// thread that may block.
    tables: RwLock<Result<Tables, StoreError>>,
    backlog: Arc<Backlog>,
    /// So many writes of the journal break off half done.
    #[cfg(test)]
    fail_commits: std::sync::atomic::AtomicUsize,
    /// So many commits to the tables fail.
    #[cfg(test)]
    fail_applies: std::sync::atomic::AtomicUsize,
}

impl Shared {
    fn with<T>(&self, f: impl FnOnce(&Tables) -> Result<T, StoreError>) -> Result<T, StoreError> {
        match &*self.tables.read() {
            Ok(tables) => f(tables),
            Err(e) => Err(e.clone()),
        }
    }

    /// Closes and opens the tables. While the directory cannot be written to they stay as they
    /// are, for reading.
    fn reopen(&self) -> Result<(), StoreError> {
        tables::probe(&self.dir)?;
        let mut tables = self.tables.write();
        // The old ones are closed before the new ones are opened.
        *tables = Err(closed());
        *tables = self.open_again();
        tables.as_ref().map(|_| ()).map_err(Clone::clone)
    }

    /// The tables, with all that they had before: what had not been synced may be gone, and is in the
    /// journal.
    fn open_again(&self) -> Result<Tables, StoreError> {
        let tables = Tables::open(&self.dir, self.options.cache_bytes)?;
        let applied = self.backlog.applied();
        let found = catch_up(&tables, &self.dir, applied)?;
        if found < applied {
            return Err(StoreError::Corrupt {
                what: format!("the journal ends at record {found}, where {applied} was applied"),
                place: journal::directory(&self.dir).display().to_string(),
            });
        }
        Ok(tables)
    }
}

/// Fails so many times as a test has told.
#[cfg(test)]
fn fail_if_told(times: &std::sync::atomic::AtomicUsize) -> Result<(), StoreError> {
    use std::sync::atomic::Ordering::SeqCst;
    let told = times.fetch_update(SeqCst, SeqCst, |n| n.checked_sub(1));
    told.map_or(Ok(()), |_| Err(StoreError::Unavailable("told to fail".to_owned())))
}

impl Embedded {
    /// Opens the store in `dir`, and makes it where there is none. Blocks; after a crash for as
    /// long as it takes to bring up to 256 MiB of the journal into the tables, and for fjall to read
    /// as much of its own.
    ///
    /// # Errors
    /// `Unavailable` where the directory cannot be written or another process holds it; `Corrupt`
    /// where it holds another schema or what cannot be read. Both say what to do.
    pub fn open(dir: &Path, options: EmbeddedOptions) -> Result<Self, StoreError> {
        if options.slot >= 64 {
            let slot = options.slot;
            return Err(StoreError::Unavailable(format!("slot {slot}; it must be 0 to 63")));
        }
        let lock = Lock::take(dir)?;
        let tables = Tables::open(dir, options.cache_bytes)?;
        let journal = begin_journal(&tables, dir, options.durability)?;
        let (queue, jobs) = Queue::new(options.queue_bytes);
        let reads = Arc::new(Semaphore::new(options.reads.max(1)));
        let shared = Arc::new(Shared {
            dir: dir.to_owned(),
            tables: RwLock::new(Ok(tables)),
            backlog: Arc::new(Backlog::new(journal.last())),
            #[cfg(test)]
            fail_commits: 0.into(),
            #[cfg(test)]
            fail_applies: 0.into(),
            options,
        });
        let mut store = Self {
            shared,
            queue: Some(queue),
            reads,
            writer: None,
            syncer: None,
            applier: None,
            _lock: lock,
        };
        // Where one cannot be started, dropping the store ends the others.
        store
            .start(journal, jobs)
            .map_err(|e| StoreError::Unavailable(format!("cannot start a thread: {e}")))?;
        Ok(store)
    }

    fn start(&mut self, journal: Journal, jobs: UnboundedReceiver<Job>) -> io::Result<()> {
        let shared = &self.shared;
        let thread = |name: &str| std::thread::Builder::new().name(name.to_owned());
        self.syncer = Some(Syncer::start(journal.files(), shared.options.durability)?);
        let applier = Applier::new(Arc::clone(shared));
        self.applier = Some(thread("store-applier").spawn(move || applier.run())?);
        let writer = Writer::new(Arc::clone(shared), journal, jobs);
        self.writer = Some(thread("store-writer").spawn(move || writer.run())?);
        Ok(())
    }

    async fn ask(&self, work: Work) -> Result<Done, StoreError> {
        let bytes = work.bytes();
        self.queue.as_ref().ok_or_else(closed)?.ask(work, bytes).await
    }

    /// Gives a room a handle, unless it has one.
    async fn make(&self, room: String) -> Result<u64, StoreError> {
        match self.ask(Work::Room(room)).await? {
            Done::Room(handle) => Ok(handle),
            Done::Appended | Done::Trimmed { .. } => Err(closed()),
        }
    }

    /// Reads on a thread that may block, what was answered before and maybe more.
    async fn look<T: Send + 'static>(
        &self,
        f: impl FnOnce(&Tables) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let answered = self.shared.backlog.last();
        let turn = Arc::clone(&self.reads).acquire_owned().await.map_err(|_| closed())?;
        let shared = Arc::clone(&self.shared);
        let reading = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            metrics::counter!("edgeway_backend_store_reads_total").increment(1);
            shared.backlog.wait_for(answered)?;
            shared.with(f)
        });
        reading.await.unwrap_or_else(|e| {
            Err(StoreError::Unavailable(format!("a read ended without an answer: {e}")))
        })
    }
}

/// Brings what a journal holds into the tables, and begins a new one.
fn begin_journal(
    tables: &Tables,
    dir: &Path,
    durability: Durability,
) -> Result<Journal, StoreError> {
    let journal = journal::directory(dir);
    fs::create_dir_all(&journal)
        .and_then(|()| tables::sync_dir(dir))
        .map_err(|e| unavailable("cannot make", &journal, &e))?;
    let last = catch_up(tables, dir, u64::MAX)?;
    tables.db.persist(PersistMode::SyncAll).map_err(storing)?;
    Journal::begin(&journal, last, durability)
}

impl Drop for Embedded {
    fn drop(&mut self) {
        let ended = |thread: Option<JoinHandle<()>>| {
            if let Some(Err(_)) = thread.map(JoinHandle::join) {
                tracing::error!("a thread of the store had ended by a panic");
            }
        };
        // The writer ends with what is queued; then all of it is synced, and applied.
        drop(self.queue.take());
        ended(self.writer.take());
        drop(self.syncer.take());
        self.shared.backlog.close();
        ended(self.applier.take());
        // Waits for reads under way, whose futures may be gone.
        *self.shared.tables.write() = Err(closed());
    }
}

impl Store for Embedded {
    fn group(&self, room: &str, create: bool) -> StoreFuture<'_, Option<u64>> {
        let asked = self.groups(vec![room.to_owned()], create);
        Box::pin(async move { Ok(asked.await?.into_iter().next().flatten()) })
    }

    fn groups(&self, rooms: Vec<String>, create: bool) -> StoreFuture<'_, Vec<Option<u64>>> {
        Box::pin(async move {
            let looking = self.look(move |tables| {
                let found = rooms.iter().map(|room| read::room(tables, room));
                let found: Vec<_> = found.collect::<Result<_, _>>()?;
                Ok((rooms, found))
            });
            let (rooms, mut handles) = looking.await?;
            if create {
                let missing = rooms.into_iter().zip(&mut handles).filter(|(_, h)| h.is_none());
                try_join_all(missing.map(|(room, handle)| async move {
                    *handle = Some(self.make(room).await?);
                    Ok::<_, StoreError>(())
                }))
                .await?;
            }
            Ok(handles)
        })
    }

    fn append(&self, batch: Vec<Append>) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            if batch.is_empty() {
                return Ok(());
            }
            let entries = batch.iter().map(Entry::new).collect::<Result<_, _>>()?;
            // Only the encoded copy is held while it waits.
            drop(batch);
            self.ask(Work::Append(entries)).await.map(|_| ())
        })
    }

    fn read(
        &self,
        log: LogId,
        after: Seq,
        limit: usize,
        limit_bytes: usize,
        now_ms: u64,
    ) -> StoreFuture<'_, LogPage> {
        let wanted = Wanted { log, after, limit, limit_bytes, now_ms };
        Box::pin(self.look(move |tables| read::page(tables, &wanted)))
    }

    fn head(&self, log: LogId) -> StoreFuture<'_, LogHead> {
        Box::pin(self.look(move |tables| read::head(tables, log)))
    }

    fn last(&self, log: LogId) -> StoreFuture<'_, Seq> {
        Box::pin(self.look(move |tables| read::last(tables, log)))
    }

    fn last_of(&self, log: LogId, device: &str) -> StoreFuture<'_, (Seq, u64)> {
        let device = device.to_owned();
        Box::pin(self.look(move |tables| read::last_of(tables, log, &device)))
    }

    fn state(&self, group: u64, now_ms: u64) -> StoreFuture<'_, Vec<Record>> {
        Box::pin(self.look(move |tables| read::state(tables, group, now_ms)))
    }

    fn len(&self, log: LogId) -> StoreFuture<'_, u64> {
        Box::pin(self.look(move |tables| read::len(tables, log)))
    }

    fn groups_after(&self, after: u64, limit: usize) -> StoreFuture<'_, Vec<u64>> {
        Box::pin(self.look(move |tables| read::groups_after(tables, after, limit)))
    }

    fn trim(&self, log: LogId, before: Seq) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            // In parts, between which others append.
            while let Done::Trimmed { more: true } = self.ask(Work::Trim { log, before }).await? {}
            Ok(())
        })
    }
}
