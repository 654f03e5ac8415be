//! What the config file says: one struct a section, unknown keys refused, nothing checked yet.

use std::collections::BTreeMap;

use serde::Deserialize;

/// Every section that the backend reads.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawConfig {
    /// `[backend]`
    pub backend: RawBackend,
    /// `[history]`
    pub history: RawHistory,
    /// `[rooms]`
    pub rooms: RawRooms,
    /// `[auth]`
    pub auth: RawAuth,
    /// `[nodes]`
    pub nodes: RawNodes,
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
}

/// `[history]`: what an ack promises.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawHistory {
    /// `process` or `disk`.
    pub sync: Option<String>,
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

/// `[auth]`: who may log in.
#[derive(Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawAuth {
    /// `development` or `passwords`.
    pub mode: Option<String>,
    /// With `passwords`: argon2id hashes in PHC form, by user.
    pub users: BTreeMap<String, String>,
}

impl std::fmt::Debug for RawAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Hashes are secrets too: they do not belong into a log.
        f.debug_struct("RawAuth")
            .field("mode", &self.mode)
            .field("users", &self.users.len())
            .finish()
    }
}

/// `[nodes]`: the processes of each role, HOST:PORT. A role without any is this process.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawNodes {
    /// Owners of rooms.
    pub room: Vec<String>,
    /// Owners of inboxes.
    pub peer: Vec<String>,
    /// Holders of Sessions; gateways dial them.
    pub access: Vec<String>,
}
