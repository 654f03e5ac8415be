//! The store of many processes, on Redis or what speaks as it does: one server or a Cluster.
//!
//! Histories are streams whose entries have their places as ids, so that what is older than the
//! log's end is refused by the server itself. A commit is one call of a script for each room. The
//! handles of rooms are on the server of the state, all else on that of the history, which may be
//! another one; each has a connection of its own. What an append that was answered with success
//! survives is what that server survives.

mod append;
mod dial;
mod directory;
mod error;
mod groups;
mod keys;
mod link;
mod open;
mod read;
mod registry;
mod script;
#[cfg(test)]
mod tests;
mod trim;
mod url;
mod values;
mod writer;

use std::{fmt, path::Path, sync::Arc};

use edgeway_proto::{Class, Seq};
use redis::RedisError;
use tokio::sync::Semaphore;

pub(crate) use self::registry::{RedisCalls, RegistryCall};
use self::{
    append::{Part, parts},
    error::may_pass,
    keys::Keys,
    link::Link,
    script::Script,
    writer::{Queue, Writer},
};
pub use self::{directory::RedisDirectory, url::RedisUrl};
use super::{
    Append, LogHead, LogId, LogPage, Opened, Record, Store, StoreError, StoreFuture, page::Wanted,
    queue::closed,
};

/// One server, or a Cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisServer {
    /// The server; of a Cluster one or more nodes, by which the others are found. All log in alike.
    pub urls: Vec<RedisUrl>,
    /// Whether it is a Cluster.
    pub cluster: bool,
}

impl fmt::Display for RedisServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let urls: Vec<_> = self.urls.iter().map(ToString::to_string).collect();
        write!(f, "{}{}", if self.cluster { "the Cluster of " } else { "" }, urls.join(", "))
    }
}

/// How a store is opened.
#[derive(Debug, Clone)]
pub struct RedisOptions {
    /// Where the handles of rooms are.
    pub state: RedisServer,
    /// Where histories are, if not there too.
    pub history: Option<RedisServer>,
    /// In front of all keys: several clusters of Edgeway can share a server.
    pub prefix: String,
    /// The authorities that `rediss://` trusts; without, those of the system.
    pub ca_pem: Option<Vec<u8>>,
    /// Appends that wait to be sent; at the bound, further ones wait for space.
    pub queue_bytes: usize,
    /// Reads at a time; further ones wait. Each takes up to a few MiB.
    pub reads: usize,
}

impl RedisOptions {
    /// The defaults, on this server.
    #[must_use]
    pub fn new(state: RedisServer) -> Self {
        Self {
            state,
            history: None,
            prefix: "edgeway".to_owned(),
            ca_pem: None,
            queue_bytes: 64 * 1024 * 1024,
            reads: 32,
        }
    }
}

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct NotOpened {
    /// What happened.
    pub error: StoreError,
    /// Whether the servers may just not be there yet. Else it is for the operator: a password, a certificate,
    /// what the servers hold.
    pub may_pass: bool,
}

impl NotOpened {
    fn new(cause: &RedisError, error: StoreError) -> Self {
        Self { error, may_pass: may_pass(cause) }
    }
}

impl From<StoreError> for NotOpened {
    fn from(error: StoreError) -> Self {
        Self { error, may_pass: false }
    }
}

/// The store on Redis. Dropping it appends what is queued, as long as the runtime goes on.
pub struct Redis {
    shared: Arc<Shared>,
    queue: Queue,
    reads: Semaphore,
}

/// What the writer and the reads share.
struct Shared {
    keys: Keys,
    state: Link,
    history: Link,
    append: Script,
    open: Script,
    trim: Script,
}

impl Redis {
    /// Connects, and checks that the servers hold what this version can use. Must be called within
    /// a tokio runtime, which then runs the store's tasks.
    ///
    /// # Errors
    /// `Unavailable` where a server cannot be reached or does not let us in; `Corrupt` where it holds
    /// another schema. Both say what to do.
    pub async fn open(options: RedisOptions) -> Result<Self, NotOpened> {
        let RedisOptions { state, history, prefix, ca_pem, queue_bytes, reads } = options;
        let (keys, ca_pem) = (Keys::new(prefix), ca_pem.as_deref());
        let history = connect("history", history.as_ref().unwrap_or(&state), ca_pem).await?;
        let state = connect("state", &state, ca_pem).await?;
        groups::check(&keys, &state, &history).await?;
        let (append, open, trim) = (Script::append(), Script::open(), Script::trim());
        let shared = Arc::new(Shared { keys, state, history, append, open, trim });
        let (queue, jobs) = Queue::new(queue_bytes);
        tokio::spawn(Writer::new(Arc::clone(&shared), jobs).run());
        Ok(Self { shared, queue, reads: Semaphore::new(reads.max(1)) })
    }

    /// Reads when it is its turn.
    async fn look<T>(
        &self,
        reading: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let _turn = self.reads.acquire().await.map_err(|_| closed())?;
        metrics::counter!("edgeway_backend_store_reads_total").increment(1);
        reading.await
    }
}

/// The authorities to trust, where a file of them is named.
///
/// # Errors
/// The file cannot be read.
pub(crate) async fn read_ca(ca: Option<&Path>) -> Result<Option<Vec<u8>>, StoreError> {
    let Some(ca) = ca else { return Ok(None) };
    tokio::fs::read(ca).await.map(Some).map_err(|e| {
        let ca = ca.display();
        StoreError::Unavailable(format!("cannot read {ca} (store.redis.ca): {e}"))
    })
}

async fn connect(
    name: &'static str,
    server: &RedisServer,
    ca_pem: Option<&[u8]>,
) -> Result<Link, NotOpened> {
    let told = |e: RedisError| {
        NotOpened::new(&e, StoreError::Unavailable(format!("cannot connect to {server}: {e}")))
    };
    Link::open(name, server, ca_pem).await.map_err(told)
}

impl Store for Redis {
    fn group(&self, room: &str, create: bool) -> StoreFuture<'_, Option<u64>> {
        let rooms = vec![room.to_owned()];
        Box::pin(async move {
            let handles = groups::handles(&self.shared, &rooms, create).await?;
            Ok(handles.into_iter().next().flatten())
        })
    }

    fn groups(&self, rooms: Vec<String>, create: bool) -> StoreFuture<'_, Vec<Option<u64>>> {
        Box::pin(async move { groups::handles(&self.shared, &rooms, create).await })
    }

    fn open(&self, group: u64, classes: &'static [Class], now_ms: u64) -> StoreFuture<'_, Opened> {
        metrics::counter!("edgeway_backend_store_reads_total").increment(1);
        Box::pin(open::open(&self.shared, &self.reads, group, classes, now_ms))
    }

    fn append(&self, batch: Vec<Append>) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            if batch.is_empty() {
                return Ok(());
            }
            let parts = parts(batch)?;
            let bytes = parts.iter().map(Part::bytes).sum();
            self.queue.ask(parts, bytes).await
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
        Box::pin(self.look(read::page(&self.shared, wanted)))
    }

    fn head(&self, log: LogId) -> StoreFuture<'_, LogHead> {
        Box::pin(self.look(read::head(&self.shared, log)))
    }

    fn last_of(&self, log: LogId, device: &str) -> StoreFuture<'_, (Seq, u64)> {
        let device = device.to_owned();
        Box::pin(self.look(read::last_of(&self.shared, log, device)))
    }

    fn state(&self, group: u64, now_ms: u64) -> StoreFuture<'_, Vec<Record>> {
        Box::pin(self.look(read::state(&self.shared, group, now_ms)))
    }

    fn last(&self, log: LogId) -> StoreFuture<'_, Seq> {
        Box::pin(self.look(read::last(&self.shared, log)))
    }

    fn len(&self, log: LogId) -> StoreFuture<'_, u64> {
        Box::pin(self.look(read::len(&self.shared, log)))
    }

    fn groups_after(&self, after: u64, limit: usize) -> StoreFuture<'_, Vec<u64>> {
        Box::pin(self.look(async move {
            // Handles are numbers in a row, of which a few were drawn in vain.
            let last = groups::drawn(&self.shared).await?;
            Ok((after.saturating_add(1)..=last).take(limit).collect())
        }))
    }

    fn trim(&self, log: LogId, before: Seq) -> StoreFuture<'_, ()> {
        Box::pin(trim::trim(&self.shared, log, before))
    }
}
