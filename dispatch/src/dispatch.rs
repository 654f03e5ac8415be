//! What dispatch knows, and its answers.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use edgeway_stat::Report;
use metrics::{counter, gauge};
use parking_lot::{Mutex, RwLock};

use crate::{
    config::{Live, Registry},
    flood::Flood,
    policy::{Ask, Policy, order},
    table::{AllGiven, Said, Source, Table},
    ticket::Keys,
};

/// Gateways that a source may tell of.
const REPORTS: usize = 4096;

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct Dispatch(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    now: RwLock<Arc<Now>>,
    nonce: AtomicU64,
    /// Signs where the config has no keys.
    own_keys: Keys,
    flood: Flood,
}

struct State {
    live: Arc<Live>,
    said: HashMap<Source, Said>,
    given: AllGiven,
    /// Clusters of which it was told that their loads are not known, or that they have no gateway.
    stale: HashSet<String>,
    bare: HashSet<String>,
}

/// What answers read.
struct Now {
    table: Table,
    live: Arc<Live>,
    keys: Keys,
}

/// Where a client is to connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// JSON.
    pub body: String,
    /// How long it holds.
    pub ttl: Duration,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The app is none of the config.
    #[error("there is no app of this name")]
    UnknownApp,
    /// Its cluster has nobody to take clients.
    #[error("no gateway of the app's cluster takes clients now")]
    NoGateway,
}

impl Dispatch {
    /// With this config, and nothing known yet.
    ///
    /// # Errors
    /// The system gives no random numbers.
    pub fn new(live: Live) -> Result<Self, getrandom::Error> {
        let own_keys = Keys::random()?;
        let live = Arc::new(live);
        let mut nonce = [0; 8];
        getrandom::fill(&mut nonce)?;
        let state = State {
            live: Arc::clone(&live),
            said: HashMap::new(),
            given: AllGiven::new(),
            stale: HashSet::new(),
            bare: HashSet::new(),
        };
        let keys = live.keys.clone().unwrap_or_else(|| own_keys.clone());
        let now = Now { table: Table::default(), live, keys };
        let this = Self(Arc::new(Inner {
            state: Mutex::new(state),
            now: RwLock::new(Arc::new(now)),
            nonce: AtomicU64::new(u64::from_ne_bytes(nonce)),
            own_keys,
            flood: Flood::default(),
        }));
        this.0.renew(&mut this.0.state.lock());
        Ok(this)
    }

    /// Uses another config from now on.
    pub fn change(&self, live: Live) {
        let mut state = self.0.state.lock();
        state.live = Arc::new(live);
        self.0.renew(&mut state);
    }

    /// The keys that tickets are checked with.
    #[must_use]
    pub fn keys(&self) -> Keys {
        self.0.now().keys.clone()
    }

    /// What a source says now, as it was at `at`; its last word is forgotten.
    pub fn learn(&self, source: Source, mut reports: Vec<Report>, at: Instant) {
        reports.truncate(REPORTS);
        let mut state = self.0.state.lock();
        state.said.insert(source, (reports, at));
        self.0.renew(&mut state);
    }

    /// A source has nothing to say any more.
    pub fn forget(&self, source: &Source) {
        let mut state = self.0.state.lock();
        if state.said.remove(source).is_some() {
            self.0.renew(&mut state);
        }
    }

    /// The registries that it wants to be told of.
    #[must_use]
    pub fn registries(&self) -> HashSet<Registry> {
        let state = self.0.state.lock();
        state.live.clusters.values().filter_map(|cluster| cluster.registry.clone()).collect()
    }

    /// The HTTP of gateways of lists.
    pub(crate) fn probes(&self) -> HashSet<String> {
        let state = self.0.state.lock();
        let all = state.live.clusters.values().flat_map(|cluster| &cluster.gateways);
        all.filter_map(|one| one.http.clone()).collect()
    }

    pub(crate) fn flood(&self) -> &Flood {
        &self.0.flood
    }

    pub(crate) fn limits(&self) -> (u64, usize) {
        let now = self.0.now();
        (now.live.per_ip_per_second, now.live.connections)
    }

    /// Where a client of `app` is to connect.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn answer(&self, app: &str, user: Option<&str>) -> Result<Answer, Refusal> {
        let now = self.0.now();
        let cluster = now.live.apps.get(app).and_then(|name| now.table.clusters.get(name));
        let Some(cluster) = cluster else {
            counter!("edgeway_dispatch_unknown_apps_total").increment(1);
            return Err(Refusal::UnknownApp);
        };
        let candidates = cluster.candidates();
        let loads = cluster.knows_loads(Instant::now(), now.live.stale_after);
        let nonce = self.0.nonce.fetch_add(1, Ordering::Relaxed);
        let ask = Ask { user, nonce, loads, most: now.live.endpoints };
        let order = order(cluster.policy, &candidates, ask);
        let Some(first) = order.first() else {
            cluster.empty.increment(1);
            return Err(Refusal::NoGateway);
        };
        cluster.nodes[*first].given.add();
        let is_by_policy = loads || cluster.policy == Policy::Weighted;
        if is_by_policy { &cluster.answered } else { &cluster.by_weights }.increment(1);
        let (secs, ttl) = (unix_secs(), now.live.ttl);
        let exp = secs + now.live.ticket_ttl.as_secs();
        let ticket = now.keys.sign(&cluster.name, app, user, secs, exp);
        let mut body = String::with_capacity(512);
        body.push_str("{\"app\":");
        push_text(&mut body, app);
        body.push_str(",\"cluster\":");
        push_text(&mut body, &cluster.name);
        body.push_str(",\"endpoints\":[");
        for (n, index) in order.iter().enumerate() {
            if n > 0 {
                body.push(',');
            }
            body.push_str(&cluster.nodes[*index].json);
        }
        body.push_str("],\"ticket\":\"");
        body.push_str(&ticket);
        body.push_str("\",\"ticket_expires_unix_ms\":");
        body.push_str(&(exp * 1000).to_string());
        body.push_str(",\"ttl_ms\":");
        body.push_str(&ttl.as_millis().to_string());
        body.push('}');
        Ok(Answer { body, ttl })
    }

    /// Exports what is known, and says in the log what has changed for the worse or the better. Once a second.
    pub(crate) fn watch(&self) {
        let now = self.0.now();
        let mut state = self.0.state.lock();
        for cluster in now.table.clusters.values() {
            let name = &cluster.name;
            let knows = cluster.knows_loads(Instant::now(), now.live.stale_after);
            let is_bare = cluster.nodes.is_empty();
            let is_stale = !knows && !is_bare && cluster.policy != Policy::Weighted;
            let set = |metric: &'static str, value: usize| {
                #[allow(clippy::cast_precision_loss, reason = "a gauge")]
                gauge!(metric, "cluster" => name.clone()).set(value as f64);
            };
            set("edgeway_dispatch_gateways", cluster.nodes.len());
            set("edgeway_dispatch_gateways_left_out", cluster.left_out);
            set("edgeway_dispatch_stat_is_stale", usize::from(is_stale));
            match (is_stale, state.stale.contains(name)) {
                (true, false) => {
                    state.stale.insert(name.clone());
                    tracing::warn!(
                        cluster = name,
                        "the load of its gateways is not known; clients are sent by weights alone"
                    );
                }
                (false, true) => {
                    state.stale.remove(name);
                    tracing::info!(cluster = name, "the load of its gateways is known");
                }
                _ => {}
            }
            match (is_bare, state.bare.contains(name)) {
                (true, false) => {
                    state.bare.insert(name.clone());
                    tracing::warn!(cluster = name, "no gateway of it takes clients");
                }
                (false, true) => {
                    state.bare.remove(name);
                    tracing::info!(cluster = name, "gateways of it take clients");
                }
                _ => {}
            }
        }
        state.stale.retain(|name| now.live.clusters.contains_key(name));
        state.bare.retain(|name| now.live.clusters.contains_key(name));
    }
}

impl Inner {
    fn now(&self) -> Arc<Now> {
        Arc::clone(&self.now.read())
    }

    fn renew(&self, state: &mut State) {
        let State { live, said, given, .. } = state;
        // What nobody asks for any more says nothing.
        let is_wanted = |source: &Source| match source {
            Source::Registry(one) => {
                live.clusters.values().any(|cluster| cluster.registry.as_ref() == Some(one))
            }
            Source::Probe(http) => {
                let mut all = live.clusters.values().flat_map(|cluster| &cluster.gateways);
                all.any(|one| one.http.as_ref() == Some(http))
            }
            Source::Own => true,
        };
        said.retain(|source, _| is_wanted(source));
        let table = Table::new(live, said, given);
        let keys = live.keys.clone().unwrap_or_else(|| self.own_keys.clone());
        *self.now.write() = Arc::new(Now { table, live: Arc::clone(live), keys });
    }
}

fn push_text(body: &mut String, text: &str) {
    // A text can always be written.
    body.push_str(&serde_json::to_string(text).unwrap_or_default());
}

/// Seconds since 1970.
pub(crate) fn unix_secs() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
#[path = "dispatch_tests.rs"]
mod tests;
