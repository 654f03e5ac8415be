//! The config: raw as it stands in the file, and [`Config`] as the program uses it. What is wrong
//! is reported all at once, each problem with its key and what would be right.

mod auth;
mod check;
mod discovery;
mod events;
mod filter;
mod nodes;
mod raw;
mod store;
#[cfg(test)]
mod tests;

use std::{fmt, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use edgeway_linktls::{Identity, Links};

pub use auth::{Auth, Checked, Listed, RawAuth, RawCallback, RawKey, RawTokens};
pub use discovery::Discovery;
use edgeway_events::config::Config as Events;
pub use edgeway_events::config::RawEvents;
pub use filter::{Filter, RawFilter};
pub use nodes::{Place, parse_places};
pub use raw::{
    RawBackend, RawConfig, RawDiscovery, RawHistory, RawNodes, RawRedis, RawRooms, RawStore,
};

use crate::{roles::Role, store::RedisServer};

/// Where `edgeway up` listens for its own gateway: any free port of loopback.
pub const LISTEN_UP: SocketAddr = loopback(0);

/// Where `edgeway backend` listens by default.
pub const LISTEN_BACKEND: SocketAddr = loopback(7400);

const fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), port)
}

/// One thing that is wrong with the config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigProblem {
    /// The dotted key, such as `rooms.chat_per_second`; of a list's item with its index,
    /// `nodes.room.1`.
    pub key: String,
    /// What is wrong and what would be right.
    pub problem: String,
}

impl fmt::Display for ConfigProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.problem)
    }
}

/// What a backend process runs with.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where gateways and other backends dial to.
    pub listen: SocketAddr,
    /// Directory of the embedded store.
    pub data_dir: PathBuf,
    /// Number of this process among those with embedded stores of their own: it keeps the group
    /// handles that they allot apart.
    pub slot: u8,
    /// For logs, and told to gateways.
    pub name: String,
    /// Where rooms live when their owner does not.
    pub store: StoreConfig,
    /// What an ack promises, with the embedded store.
    pub history_sync: HistorySync,
    /// Whether chat is kept in history, as signals and strokes always are.
    pub history_chat: bool,
    /// How long histories are kept, and how much of each.
    pub retention: Retention,
    /// The policy of rooms.
    pub rooms: Rooms,
    /// Who may log in.
    pub auth: Auth,
    /// What users may say, and who may say it.
    pub filter: Filter,
    /// The processes of each role.
    pub nodes: Nodes,
    /// With which links are served and dialled; none in the clear.
    pub links: Option<Identity>,
    /// Where others dial to, where that is not the address that is listened on.
    pub advertise: Option<String>,
    /// How instances are found.
    pub discovery: Discovery,
    /// Where it is recorded what users do.
    pub events: Events,
    /// Whether others find this process in the registry.
    pub registers: bool,
    /// What it tells there of itself, beside its load.
    pub report: Report,
}

/// What a process tells of itself in the registry, asked for with each heartbeat.
#[derive(Clone, Default)]
pub struct Report(Option<Arc<dyn Fn() -> String + Send + Sync>>);

impl Report {
    /// Told by this.
    pub fn new(report: impl Fn() -> String + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(report)))
    }

    pub(crate) fn text(&self) -> String {
        self.0.as_ref().map(|report| report()).unwrap_or_default()
    }
}

impl fmt::Debug for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Report")
    }
}

/// Which store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreConfig {
    /// In `data_dir`, of this process alone.
    Embedded,
    /// On Redis, shared.
    Redis(RedisConfig),
}

/// The servers of a store that processes share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisConfig {
    /// Where the handles of rooms are, and histories too unless `history` says otherwise.
    pub state: RedisServer,
    /// Where histories are.
    pub history: Option<RedisServer>,
    /// In front of all keys.
    pub prefix: String,
    /// PEM file of the authorities that `rediss://` trusts; without, those of the system.
    pub ca: Option<PathBuf>,
}

/// What of history is removed; nothing where nothing is set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retention {
    /// What was accepted longer ago.
    pub age: Option<Duration>,
    /// What is more than this of one room and class, the oldest.
    pub messages: Option<u64>,
}

/// What history survives once a message is acked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HistorySync {
    /// The death of the process.
    Process,
    /// The loss of power: each group commit waits for the disk.
    Disk,
}

/// The policy of rooms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rooms {
    /// Chat messages that a room forwards each second; 0 for all.
    pub chat_per_second: u32,
    /// Chat of a busy room goes out once in this time.
    pub chat_batch: Duration,
    /// Whether the first join brings a room into being.
    pub create_on_join: bool,
    /// Members of a room at most.
    pub max_members: usize,
    /// Rooms of a Session at most.
    pub per_session: usize,
}

/// The processes of each role, as configured. An empty role is this process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Nodes {
    /// Owners of rooms.
    pub room: Vec<Place>,
    /// Owners of strokes. Without any, those of rooms have them.
    pub binary: Vec<Place>,
    /// Owners of inboxes.
    pub peer: Vec<Place>,
    /// Holders of Sessions.
    pub access: Vec<Place>,
}

impl Nodes {
    /// Those of a role.
    #[must_use]
    pub fn of(&self, role: Role) -> &[Place] {
        match role {
            Role::Access => &self.access,
            Role::Room => &self.room,
            Role::Binary => &self.binary,
            Role::Peer => &self.peer,
            // Nobody dials it.
            Role::Push => &[],
        }
    }
}

/// Turns what the file says into what the program uses. `default_listen` is [`LISTEN_UP`] or
/// [`LISTEN_BACKEND`]; `links` says which addresses can be linked.
///
/// # Errors
/// Everything that is wrong, in the order of the sections.
pub fn validate(
    raw: RawConfig,
    default_listen: SocketAddr,
    links: &Links,
) -> Result<Config, Vec<ConfigProblem>> {
    let mut check = check::Check::new(links);
    let listen = check.listen(raw.backend.listen, default_listen);
    let data_dir = check.data_dir(raw.backend.data_dir);
    let slot = check.slot(raw.backend.slot);
    let name = check.name(raw.backend.name);
    let store = check.store(raw.store);
    let events = check.events(raw.events, &data_dir, &name);
    let on_redis = matches!(store, StoreConfig::Redis(_));
    let config = Config {
        listen,
        advertise: check.advertise(raw.backend.advertise, listen, on_redis),
        data_dir,
        slot,
        name,
        store,
        history_sync: check.history_sync(raw.history.sync.as_deref()),
        history_chat: raw.history.chat.unwrap_or(true),
        retention: check.retention(&raw.history),
        rooms: check.rooms(&raw.rooms),
        auth: check.auth(raw.auth),
        filter: check.filter(raw.filter),
        nodes: check.nodes(&raw.nodes, on_redis),
        links: links.identity().cloned(),
        discovery: check.discovery(&raw.discovery),
        events,
        registers: on_redis,
        report: Report::default(),
    };
    check.finish(config)
}
