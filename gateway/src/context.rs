//! What every connection of a gateway shares.

use std::sync::Arc;

use edgeway_transport::tls::ServerTls;
use parking_lot::RwLock;
use tokio_util::task::TaskTracker;

use crate::{
    config::Limits, hub::Hub, limits::Buckets, metrics::Metrics, paths::PathMetrics,
    refuse::Refusals, registry::Registry, tickets::Tickets, turns::Turns, uplink::Links,
};

/// See the module.
#[derive(Debug)]
pub struct Context {
    /// Sessions and groups.
    pub hub: Arc<Hub>,
    /// Backends.
    pub links: Arc<Links>,
    /// Its certificate.
    pub tls: Option<ServerTls>,
    /// Rates of users.
    pub buckets: Buckets,
    /// All connections.
    pub registry: Arc<Registry>,
    /// Bounds and times. Looked at for connections and openings, never for a frame.
    pub limits: RwLock<Arc<Limits>>,
    /// Whose turn it is to write chat.
    pub turns: Turns,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Counters of paths.
    pub paths: PathMetrics,
    /// Connections that are told that they are too many.
    pub refusals: Refusals,
    /// Of dispatch, where they are wanted.
    pub tickets: Tickets,
    /// Every task of the gateway.
    pub tracker: TaskTracker,
}

impl Context {
    /// Bounds and times as they are now.
    #[must_use]
    pub fn limits(&self) -> Arc<Limits> {
        Arc::clone(&self.limits.read())
    }
}
