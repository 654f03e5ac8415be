//! The numbers of an owner, each with its reason.

use std::{
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use edgeway_events::Events;
use parking_lot::RwLock;

use crate::room::RoomConfig;

/// What an owner of rooms or inboxes goes by. The values are valid.
#[derive(Debug, Clone)]
pub struct OwnerConfig {
    /// Tasks that share the rooms: one a core.
    pub shards: NonZeroUsize,
    /// Whether a room comes into being at its first join. Inboxes always do.
    pub create_rooms: bool,
    /// Rooms in memory, over all shards. Above, those that are not there yet are `unavailable`.
    pub rooms_max: usize,
    /// The numbers of each room.
    pub room: RoomConfig,
    /// Joins, leaves, requests and signals that wait for one shard. Above: access waits, and with it
    /// the clients' credit.
    pub control_queue_bytes: usize,
    /// The same for strokes and chat.
    pub bulk_queue_bytes: usize,
    /// Signals and strokes of one shard that wait for the store. Above: refused with `unavailable`.
    pub append_queue_bytes: usize,
    /// Bytes of one group commit, roughly.
    pub commit_bytes: usize,
    /// Chat of one shard that waits for the store. Above: the oldest is missing in history.
    pub chat_append_bytes: usize,
    /// Chat is stored in batches that are at least this far apart.
    pub chat_append_interval: Duration,
    /// How long to wait before what the store did not take is tried again.
    pub store_retry: Duration,
    /// History pages that are read at the same time.
    pub history_reads: usize,
    /// History requests that may wait for their turn. Above: `rate_limited`.
    pub history_waiting: usize,
    /// Rooms that are loaded at the same time, beyond which they wait: as many as one Session may join in
    /// one call, so that those do not wait for each other. What each reads of a store on Redis is 100
    /// KB at most, beside the last message id of each device that it knows.
    pub loads: usize,
    /// Bytes of names whose handles are remembered; the names that nobody has used for longest are
    /// looked up again.
    pub names_bytes: usize,
    /// Joins that wait for one room to be loaded. Above: `unavailable`.
    pub joins_waiting: usize,
    /// How long a shard that is to end may take to store what it has accepted.
    pub drain: Duration,
    /// Where it is recorded who comes and goes, and what is said.
    pub events: Events,
}

impl Default for OwnerConfig {
    fn default() -> Self {
        Self {
            shards: thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            create_rooms: true,
            // A million members alone each in a room; an empty room takes about 2 KB.
            rooms_max: 1_000_000,
            room: RoomConfig::default(),
            control_queue_bytes: 8 << 20,
            bulk_queue_bytes: 4 << 20,
            append_queue_bytes: 64 << 20,
            commit_bytes: 4 << 20,
            chat_append_bytes: 8 << 20,
            // A tenth of what a person notices, and few commits even where each is a disk sync.
            chat_append_interval: Duration::from_millis(20),
            store_retry: Duration::from_millis(100),
            history_reads: 64,
            history_waiting: 4096,
            loads: 1000,
            // Of some 200,000 rooms.
            names_bytes: 16 << 20,
            joins_waiting: 10_000,
            drain: Duration::from_secs(5),
            events: Events::default(),
        }
    }
}

/// The part of an owner's config that may change while it runs. Clones are the same one, and keep nothing else
/// of the owner.
#[derive(Debug, Clone)]
pub struct LiveConfig(Arc<Live>);

#[derive(Debug)]
struct Live {
    create_rooms: AtomicBool,
    room: RwLock<Arc<RoomConfig>>,
}

impl LiveConfig {
    pub(super) fn new(config: &OwnerConfig) -> Self {
        Self(Arc::new(Live {
            create_rooms: AtomicBool::new(config.create_rooms),
            room: RwLock::new(Arc::new(config.room.clone())),
        }))
    }

    /// Uses other numbers from now on: a room does from the next thing that happens to it.
    pub fn set(&self, create_rooms: bool, room: RoomConfig) {
        self.0.create_rooms.store(create_rooms, Ordering::Relaxed);
        *self.0.room.write() = Arc::new(room);
    }

    /// Whether a room comes into being at its first join.
    #[must_use]
    pub fn create_rooms(&self) -> bool {
        self.0.create_rooms.load(Ordering::Relaxed)
    }

    /// The numbers of each room.
    #[must_use]
    pub fn room(&self) -> Arc<RoomConfig> {
        Arc::clone(&self.0.room.read())
    }
}
