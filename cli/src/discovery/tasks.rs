//! The tasks that find out: one looks at the registry, one asks name servers.

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
    time::Duration,
};

use edgeway_backend::{
    config::{Place, RedisConfig, StoreConfig},
    registry::{Instance, Load, Registry, View},
    store::NotOpened,
};
use tokio::{net::lookup_host, sync::watch, time::timeout};
use tokio_util::sync::CancellationToken;

use super::Discovery;

/// Between two attempts to reach a registry that is not there.
const AGAIN: Duration = Duration::from_secs(1);
/// For an answer of a name server.
const ANSWER: Duration = Duration::from_secs(5);
/// The role of gateways in the registry.
const GATEWAY: &str = "gateway";
/// Addresses of a name: more than any backend has instances.
const ADDRESSES: usize = 1024;

impl Discovery {
    /// Finds out, again and again, until `stop`.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        self.learn(|_| {});
        tokio::select! {
            () = self.watch_registry(&stop) => {}
            () = self.watch_names() => {}
            () = stop.cancelled() => {}
        }
    }

    async fn watch_registry(&self, stop: &CancellationToken) {
        let mut view = match self.backend.as_ref().and_then(|backend| backend.view()) {
            Some(view) => view,
            None => self.look(stop).await,
        };
        loop {
            let now = view.borrow_and_update().clone();
            if now.is_known() {
                self.learn(|known| known.view = Some(now));
            }
            if view.changed().await.is_err() {
                // The registry has been left; the last list stays in use until the process has ended.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Opens the registry once it is needed, and there.
    async fn look(&self, stop: &CancellationToken) -> watch::Receiver<Arc<View>> {
        let mut told = false;
        loop {
            let StoreConfig::Redis(redis) = &self.store else {
                return std::future::pending().await;
            };
            if self.me.is_some() || self.places().contains(&Place::Registry) {
                match self.open(redis).await {
                    Ok(registry) => {
                        let view = registry.view();
                        self.stat.looks_through(registry.looker());
                        tokio::spawn(registry.run(stop.clone()));
                        return view;
                    }
                    Err(error) => {
                        if !std::mem::replace(&mut told, true) {
                            tracing::warn!(%error, "the registry cannot be reached; trying on");
                        }
                    }
                }
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// As who can be found, where this process has a gateway that clients can be sent to.
    async fn open(&self, redis: &RedisConfig) -> Result<Registry, NotOpened> {
        let lease = self.pace.lease;
        let Some(stat) = self.me.clone() else { return Registry::look(redis, lease).await };
        let Some(endpoint) = stat.report().gateway else {
            return Registry::look(redis, lease).await;
        };
        let address = if endpoint.quic.is_empty() { endpoint.tcp } else { endpoint.quic };
        let me = Instance {
            run: rand(),
            address,
            roles: vec![GATEWAY.to_owned()],
            name: stat.name().to_owned(),
            load: Load::default(),
            report: String::new(),
        };
        let measure = move || {
            let now = stat.now();
            let load =
                Load { connections: now.connections, sessions: now.sessions, rooms: now.rooms };
            (load, stat.report_text())
        };
        Registry::join(redis, lease, me, Box::new(measure)).await
    }

    async fn watch_names(&self) {
        let mut failing = HashSet::new();
        loop {
            let names: BTreeSet<_> = self.places().into_iter().filter_map(name).collect();
            for (host, port) in &names {
                self.resolve(host, *port, &mut failing).await;
            }
            self.learn(|known| known.names.retain(|name, _| names.contains(name)));
            tokio::select! {
                () = tokio::time::sleep(self.pace.dns) => {}
                () = self.changed.notified() => {}
            }
        }
    }

    /// Asks for the addresses of a name. Where there is no good answer, the last one stays.
    async fn resolve(&self, host: &str, port: u16, failing: &mut HashSet<String>) {
        let bare = host.trim_matches(['[', ']']);
        let problem = match timeout(ANSWER, lookup_host((bare, port))).await {
            Ok(Ok(found)) => {
                let all: BTreeSet<_> = found.take(ADDRESSES).collect();
                let good: Vec<_> = all
                    .iter()
                    .filter(|addr| self.has_links || addr.ip().is_loopback())
                    .map(ToString::to_string)
                    .collect();
                if !good.is_empty() {
                    if failing.remove(host) {
                        tracing::info!(host, "the name is found again");
                    }
                    self.learn(|known| drop(known.names.insert((host.to_owned(), port), good)));
                    return;
                }
                if all.is_empty() {
                    "it has no addresses".to_owned()
                } else {
                    "its addresses are on other machines, and links there need certificates ([links])"
                        .to_owned()
                }
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {ANSWER:?}"),
        };
        metrics::counter!("edgeway_discovery_names_failed_total").increment(1);
        if failing.insert(host.to_owned()) {
            tracing::warn!(
                host,
                problem,
                "a name of [backends] is not found; its last addresses stay"
            );
        }
    }
}

/// Names this run of the process.
fn rand() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id())
}

fn name(place: Place) -> Option<(String, u16)> {
    match place {
        Place::Dns { host, port } => Some((host, port)),
        Place::Address(_) | Place::Registry => None,
    }
}
