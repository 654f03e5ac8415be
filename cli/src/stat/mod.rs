//! What this process has to do, measured once a second from its own metrics and from the system; over HTTP, and with
//! the heartbeats of the registry.

mod http;
mod measure;

use std::{
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use edgeway_backend::registry::Looker;
use edgeway_stat::{Endpoint, Load, Report, Ring};
use parking_lot::{Mutex, RwLock};

pub use http::{all, own};

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct Stat(Arc<Inner>);

struct Inner {
    name: String,
    roles: Vec<String>,
    cores: u64,
    about: RwLock<About>,
    ring: Mutex<Ring>,
    /// The longest since the last sample, in microseconds.
    lag_us: AtomicU64,
    /// It ends, and takes no new clients.
    leaving: AtomicBool,
    looker: OnceLock<Looker>,
}

/// What the config says of it.
#[derive(Debug, Clone, Default)]
pub struct About {
    pub cluster: String,
    pub http: String,
    pub connections_max: u64,
    pub gateway: Option<Endpoint>,
}

impl Stat {
    /// Of a process with this name and these roles. `threads`: how many it works with; none for one a core.
    pub fn new(name: &str, roles: Vec<String>, threads: Option<usize>) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self(Arc::new(Inner {
            name: name.to_owned(),
            roles,
            // Two runtimes, each with so many threads.
            cores: threads.map_or(cores, |threads| cores.min(2 * threads)) as u64,
            about: RwLock::default(),
            ring: Mutex::default(),
            lag_us: AtomicU64::new(0),
            leaving: AtomicBool::new(false),
            looker: OnceLock::new(),
        }))
    }

    /// Tells this from now on.
    pub fn change(&self, change: impl FnOnce(&mut About)) {
        change(&mut self.0.about.write());
    }

    /// It ends: no new clients are to be sent here.
    pub fn leave(&self) {
        self.0.leaving.store(true, Ordering::Relaxed);
    }

    /// Through this the others are seen.
    pub fn looks_through(&self, looker: Looker) {
        // There is one registry.
        let _ = self.0.looker.set(looker);
    }

    /// The last sample.
    pub fn now(&self) -> Load {
        self.0.ring.lock().now()
    }

    /// What it tells others.
    pub fn report(&self) -> Report {
        let About { cluster, http, connections_max, mut gateway } = self.0.about.read().clone();
        if let Some(gateway) = &mut gateway {
            gateway.draining |= self.0.leaving.load(Ordering::Relaxed);
        }
        Report { cluster, http, connections_max, cores: self.0.cores, gateway, load: self.now() }
    }

    /// The same as text, for the registry; empty where it would be too long.
    pub fn report_text(&self) -> String {
        self.report().text().unwrap_or_default()
    }

    pub fn name(&self) -> &str {
        &self.0.name
    }
}

/// Where clients reach a listener: as the config says, or where it listens.
pub fn reached_at(said: &str, listens: Option<SocketAddr>) -> String {
    match listens {
        None => String::new(),
        Some(_) if !said.is_empty() => said.to_owned(),
        // Of no use to anybody else.
        Some(addr) if addr.ip().is_unspecified() => String::new(),
        Some(addr) => addr.to_string(),
    }
}
