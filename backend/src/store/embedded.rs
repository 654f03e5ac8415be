//! The store of one process, in a directory of its own: a log-structured store under it (fjall),
//! one thread that writes, and a bounded number of reads at a time.
//!
//! What is answered with success survives the death of the process; with [`Durability::Disk`] the
//! loss of power too. Where the disk is full or fails, appends are answered `Unavailable`, reads go
//! on, and each later append (once a second) tries to open the store anew.

mod codec;
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
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicU64},
    thread::JoinHandle,
};

use edgeway_proto::Seq;
use parking_lot::RwLock;
use tokio::sync::Semaphore;

use self::{
    queue::{Done, Entry, Queue, Work},
    syncer::Syncer,
    tables::{Lock, Tables},
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

/// The embedded store. Dropping it writes what is queued, syncs it, and frees the directory; it
/// blocks for that long.
pub struct Embedded {
    shared: Arc<Shared>,
    /// Taken when it is dropped, which ends the writer.
    queue: Option<Queue>,
    reads: Arc<Semaphore>,
    writer: Option<JoinHandle<()>>,
    /// Where commits are not synced one by one.
    _syncer: Option<Syncer>,
    /// Outlives the tables, which `drop` closes before.
    _lock: Lock,
}

/// What the writer and the reads share.
struct Shared {
    dir: PathBuf,
    options: EmbeddedOptions,
    /// The tables, or why there are none. Held for reading by whoever works with them, always on a
    /// thread that may block.
    tables: RwLock<Result<Tables, StoreError>>,
    /// Commits made.
    commits: Arc<AtomicU64>,
    #[cfg(test)]
    fail_commits: std::sync::atomic::AtomicUsize,
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
        *tables = Tables::open(&self.dir, self.options.cache_bytes);
        tables.as_ref().map(|_| ()).map_err(Clone::clone)
    }

    #[cfg(test)]
    fn fail_if_told(&self) -> Result<(), StoreError> {
        use std::sync::atomic::Ordering::SeqCst;
        let told = self.fail_commits.fetch_update(SeqCst, SeqCst, |n| n.checked_sub(1));
        told.map_or(Ok(()), |_| Err(StoreError::Unavailable("told to fail".to_owned())))
    }
}

impl Embedded {
    /// Opens the store in `dir`, and makes it where there is none. Blocks; after a crash for as
    /// long as it takes to read up to 256 MiB again.
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
        let (queue, jobs) = Queue::new(options.queue_bytes);
        let reads = Arc::new(Semaphore::new(options.reads.max(1)));
        let shared = Arc::new(Shared {
            dir: dir.to_owned(),
            options,
            tables: RwLock::new(Ok(tables)),
            commits: Arc::default(),
            #[cfg(test)]
            fail_commits: 0.into(),
        });
        let no_thread = |e| StoreError::Unavailable(format!("cannot start a thread: {e}"));
        let syncer = match shared.options.durability {
            Durability::Process => {
                Some(Syncer::start(dir, Arc::clone(&shared.commits)).map_err(no_thread)?)
            }
            Durability::Disk => None,
        };
        let writer = Writer::new(Arc::clone(&shared), jobs);
        let writer = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || writer.run())
            .map_err(no_thread)?;
        let (queue, writer) = (Some(queue), Some(writer));
        Ok(Self { shared, queue, reads, writer, _syncer: syncer, _lock: lock })
    }

    async fn ask(&self, work: Work) -> Result<Done, StoreError> {
        let bytes = work.bytes();
        self.queue.as_ref().ok_or_else(closed)?.ask(work, bytes).await
    }

    /// Reads on a thread that may block.
    async fn look<T: Send + 'static>(
        &self,
        f: impl FnOnce(&Tables) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let turn = Arc::clone(&self.reads).acquire_owned().await.map_err(|_| closed())?;
        let shared = Arc::clone(&self.shared);
        let reading = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            metrics::counter!("edgeway_backend_store_reads_total").increment(1);
            shared.with(f)
        });
        reading.await.unwrap_or_else(|e| {
            Err(StoreError::Unavailable(format!("a read ended without an answer: {e}")))
        })
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(Err(_)) = self.writer.take().map(JoinHandle::join) {
            tracing::error!("the thread that writes the store had ended by a panic");
        }
        // Waits for reads under way, whose futures may be gone.
        *self.shared.tables.write() = Err(closed());
    }
}

impl Store for Embedded {
    fn group(&self, room: &str, create: bool) -> StoreFuture<'_, Option<u64>> {
        let room = room.to_owned();
        Box::pin(async move {
            let name = room.clone();
            let known = self.look(move |tables| read::room(tables, &name)).await?;
            if known.is_some() || !create {
                return Ok(known);
            }
            match self.ask(Work::Room(room)).await? {
                Done::Room(handle) => Ok(Some(handle)),
                Done::Appended | Done::Trimmed { .. } => Err(closed()),
            }
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

    fn state(&self, group: u64, now_ms: u64) -> StoreFuture<'_, Vec<Record>> {
        Box::pin(self.look(move |tables| read::state(tables, group, now_ms)))
    }

    fn trim(&self, log: LogId, before: Seq) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            // In parts, between which others append.
            while let Done::Trimmed { more: true } = self.ask(Work::Trim { log, before }).await? {}
            Ok(())
        })
    }
}
