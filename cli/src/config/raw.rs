//! What the config file says: one struct a section, each owned by the crate that uses it. Unknown
//! keys are refused; nothing is checked yet.

use edgeway_backend::config::{
    RawAuth, RawBackend, RawDiscovery, RawEvents, RawFilter, RawHistory, RawRooms, RawStore,
};
use edgeway_dispatch::config::RawDispatch;
use edgeway_gateway::config::{RawBackends, RawGateway};
use edgeway_linktls::RawLinks;
use edgeway_push::config::RawPush;
use serde::Deserialize;

/// The whole file.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawFile {
    pub gateway: RawGateway,
    pub backend: RawBackend,
    pub store: RawStore,
    pub history: RawHistory,
    pub rooms: RawRooms,
    pub auth: RawAuth,
    pub filter: RawFilter,
    /// Where the backend processes are, by name; gateways dial all of them.
    pub backends: RawBackends,
    /// Certificates of the links between processes.
    pub links: RawLinks,
    pub discovery: RawDiscovery,
    pub dispatch: RawDispatch,
    pub events: RawEvents,
    pub push: RawPush,
    pub http: RawHttp,
    pub log: RawLog,
    pub runtime: RawRuntime,
}

/// `[http]`: metrics and health.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawHttp {
    /// IP:PORT; empty for none.
    pub listen: Option<String>,
}

/// `[log]`: what is written to standard error.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawLog {
    /// A level, and levels of single modules: `info,edgeway_gateway=debug`.
    pub level: Option<String>,
}

/// `[runtime]`: threads.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawRuntime {
    /// Worker threads; 0 for one a core.
    pub threads: Option<i64>,
}
