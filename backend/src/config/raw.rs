//! What the config file says: one struct a section, unknown keys refused, nothing checked yet.

use edgeway_events::config::RawEvents;
use serde::Deserialize;

use super::{RawAuth, RawFilter};

/// Every section that the backend reads.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawConfig {
    /// `[backend]`
    pub backend: RawBackend,
    /// `[store]`
    pub store: RawStore,
    /// `[history]`
    pub history: RawHistory,
    /// `[rooms]`
    pub rooms: RawRooms,
    /// `[auth]`
    pub auth: RawAuth,
    /// `[filter]`
    pub filter: RawFilter,
    /// `[nodes]`
    pub nodes: RawNodes,
    /// `[discovery]`
    pub discovery: RawDiscovery,
    /// `[events]`
    pub events: RawEvents,
}

/// `[backend]`: this process.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawBackend {
    /// Where gateways and other backends dial to, IP:PORT.
    pub listen: Option<String>,
    /// Directory of the embedded store.
    pub data_dir: Option<String>,
    /// Number of this process among those with embedded stores of their own.
    pub slot: Option<i64>,
    /// Name of this process in logs and links.
    pub name: Option<String>,
    /// Where others dial to, HOST:PORT, where that is not `listen`.
    pub advertise: Option<String>,
}

/// `[store]`: where rooms live when their owner does not.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawStore {
    /// `embedded` or `redis`.
    pub engine: Option<String>,
    /// `[store.redis]`
    pub redis: RawRedis,
}

/// `[store.redis]`: the servers of a store that processes share.
#[derive(Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawRedis {
    /// The server, or a node of a Cluster.
    pub url: Option<String>,
    /// More nodes of the Cluster.
    pub nodes: Vec<String>,
    /// Whether it is a Cluster.
    pub cluster: Option<bool>,
    /// The server of histories, where it is another one.
    pub history_url: Option<String>,
    /// Whether that is a Cluster.
    pub history_cluster: Option<bool>,
    /// In front of all keys.
    pub prefix: Option<String>,
    /// PEM file of the authorities to trust.
    pub ca: Option<String>,
}

impl RawRedis {
    /// Whether it names no server.
    pub(super) fn is_empty(&self) -> bool {
        let empty = |url: &Option<String>| url.as_deref().is_none_or(str::is_empty);
        empty(&self.url) && empty(&self.history_url) && self.nodes.is_empty()
    }
}

impl std::fmt::Debug for RawRedis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // URLs hold passwords: they do not belong into a log.
        let set = |url: &Option<String>| if url.is_some() { "set" } else { "not set" };
        f.debug_struct("RawRedis")
            .field("url", &set(&self.url))
            .field("nodes", &self.nodes.len())
            .field("cluster", &self.cluster)
            .field("history_url", &set(&self.history_url))
            .field("history_cluster", &self.history_cluster)
            .field("prefix", &self.prefix)
            .field("ca", &self.ca)
            .finish()
    }
}

/// `[history]`: what an ack promises, whether chat is kept, and how long all of it is.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawHistory {
    /// `process` or `disk`.
    pub sync: Option<String>,
    /// Whether chat is kept; signals and strokes always are.
    pub chat: Option<bool>,
    /// Days after which what was said is removed; 0 for never.
    pub keep_days: Option<i64>,
    /// Messages of a room and class that are kept; 0 for all.
    pub keep_messages: Option<i64>,
}

/// `[rooms]`: the policy of rooms.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawRooms {
    /// Chat messages that a room forwards each second; 0 for all.
    pub chat_per_second: Option<i64>,
    /// Chat of a busy room goes out once in so many milliseconds.
    pub chat_batch_ms: Option<i64>,
    /// `on_join` or `api`.
    pub create: Option<String>,
    /// Members of a room at most.
    pub max_members: Option<i64>,
    /// Rooms of a Session at most.
    pub per_session: Option<i64>,
}

/// `[discovery]`: how instances are found.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawDiscovery {
    /// Milliseconds for which an instance may be silent in the registry.
    pub lease_ms: Option<i64>,
    /// Milliseconds after which names are resolved again.
    pub dns_ms: Option<i64>,
}

/// `[nodes]`: the processes of each role, as in [`Place`](super::Place). A role without any is this
/// process.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawNodes {
    /// Owners of rooms.
    pub room: Vec<String>,
    /// Owners of strokes; without any, those of rooms have them.
    pub binary: Vec<String>,
    /// Owners of inboxes.
    pub peer: Vec<String>,
    /// Holders of Sessions; gateways dial them.
    pub access: Vec<String>,
}
