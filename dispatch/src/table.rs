//! Which gateways each cluster has, made anew when anything changes; answers only read it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use edgeway_stat::{Endpoint, Report};
use metrics::{Counter, counter};
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    config::{Live, Registry},
    policy::{Candidate, Policy, is_busy},
};

/// More than any gateway has: anybody may have written the number.
const CONNECTIONS: u64 = 1 << 40;

/// Who tells of gateways.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Source {
    /// A registry: it tells of all that live.
    Registry(Registry),
    /// This process, which has a gateway itself.
    Own,
    /// The HTTP of a gateway of a list, which it is asked at.
    Probe(String),
}

/// What a source has said, and when that was so.
pub type Said = (Vec<Report>, Instant);

/// Clients that were sent to a gateway, and are not in its load yet.
#[derive(Debug, Default)]
pub struct Given {
    since_load: AtomicU64,
    /// Of the load before: who was sent there late connects after the sample.
    before: AtomicU64,
    load_at_unix_ms: AtomicU64,
}

impl Given {
    fn count(&self) -> u64 {
        self.since_load.load(Ordering::Relaxed) + self.before.load(Ordering::Relaxed)
    }

    /// One more.
    pub fn add(&self) {
        self.since_load.fetch_add(1, Ordering::Relaxed);
    }

    fn sampled(&self, at_unix_ms: u64) {
        if self.load_at_unix_ms.swap(at_unix_ms, Ordering::Relaxed) != at_unix_ms {
            self.before.store(self.since_load.swap(0, Ordering::Relaxed), Ordering::Relaxed);
        }
    }
}

/// Those of all gateways, by address: kept where a table follows another one.
pub type AllGiven = HashMap<String, Arc<Given>>;

/// A gateway that may be given.
#[derive(Debug)]
pub struct Node {
    /// Names it.
    pub address: String,
    /// As clients read it, JSON.
    pub json: String,
    seed: u64,
    weight: u32,
    /// Connections at the last sample.
    connections: u64,
    busy: bool,
    /// When its load was so; none where it is not known.
    loaded_at: Option<Instant>,
    /// See [`Given`].
    pub given: Arc<Given>,
}

/// A cluster as it is now.
pub struct Cluster {
    /// Its name.
    pub name: String,
    /// How gateways are chosen.
    pub policy: Policy,
    /// Those that may be given: alive, not draining, with a weight.
    pub nodes: Vec<Node>,
    /// Those that may not.
    pub left_out: usize,
    /// The oldest of the loads; none where one is not known.
    loads_at: Option<Instant>,
    /// Answers.
    pub answered: Counter,
    /// Those by weights alone, since a load was not known.
    pub by_weights: Counter,
    /// Those that had no gateway to give.
    pub empty: Counter,
}

/// See the module.
#[derive(Default)]
pub struct Table {
    /// By name.
    pub clusters: BTreeMap<String, Cluster>,
}

impl Cluster {
    /// Whether the load of each gateway is known.
    #[must_use]
    pub fn knows_loads(&self, now: Instant, stale_after: Duration) -> bool {
        self.loads_at.is_some_and(|at| now.saturating_duration_since(at) <= stale_after)
    }

    /// For the policy.
    #[must_use]
    pub fn candidates(&self) -> Vec<Candidate> {
        let one = |(index, node): (usize, &Node)| Candidate {
            index,
            seed: node.seed,
            weight: node.weight,
            connections: node.connections + node.given.count(),
            busy: node.busy,
        };
        self.nodes.iter().enumerate().map(one).collect()
    }
}

impl Table {
    /// Of the config and of what was said.
    #[must_use]
    pub fn new(live: &Live, said: &HashMap<Source, Said>, given: &mut AllGiven) -> Self {
        let mut clusters = BTreeMap::new();
        let mut kept = AllGiven::new();
        for (name, config) in &live.clusters {
            let mut found = Found::default();
            for one in &config.gateways {
                let told = match &one.http {
                    None => None,
                    Some(http) => match said.get(&Source::Probe(http.clone())) {
                        // A load of a gateway that is another cluster's by its own word says nothing of this one.
                        Some((reports, at)) => reports.first().map(|report| (report, *at)),
                        None => {
                            found.left_out += 1;
                            continue;
                        }
                    },
                };
                if let Some((report, _)) = told
                    && (report.cluster != *name
                        || report.gateway.as_ref().is_some_and(|own| own.draining))
                {
                    found.left_out += 1;
                    continue;
                }
                found.add(&one.endpoint, told, given, &mut kept);
            }
            let registry = config.registry.clone().map(Source::Registry);
            for source in registry.into_iter().chain([Source::Own]) {
                let Some((reports, at)) = said.get(&source) else { continue };
                // Whatever else is in that registry: clusters never mix.
                for report in reports.iter().filter(|report| report.cluster == *name) {
                    if let Some(endpoint) = &report.gateway {
                        found.add(endpoint, Some((report, *at)), given, &mut kept);
                    }
                }
            }
            clusters.insert(name.clone(), found.finish(name, config.policy));
        }
        *given = kept;
        Self { clusters }
    }
}

#[derive(Default)]
struct Found {
    nodes: Vec<Node>,
    left_out: usize,
}

impl Found {
    /// The first that tells of an address is believed.
    fn add(
        &mut self,
        endpoint: &Endpoint,
        told: Option<(&Report, Instant)>,
        given: &AllGiven,
        kept: &mut AllGiven,
    ) {
        let address = if endpoint.quic.is_empty() { &endpoint.tcp } else { &endpoint.quic };
        if self.nodes.iter().any(|node| node.address == *address) {
            return;
        }
        if endpoint.draining || endpoint.weight == 0 || !endpoint.is_good() {
            self.left_out += 1;
            return;
        }
        let of = given.get(address).cloned().unwrap_or_default();
        kept.insert(address.clone(), Arc::clone(&of));
        let (mut connections, mut busy) = (0, false);
        if let Some((report, _)) = told {
            of.sampled(report.load.at_unix_ms);
            connections = report.load.connections.min(CONNECTIONS);
            busy = is_busy(&report.load, report.cores, connections, report.connections_max);
        }
        self.nodes.push(Node {
            json: json(endpoint),
            seed: xxh3_64(address.as_bytes()),
            address: address.clone(),
            weight: endpoint.weight,
            connections,
            busy,
            loaded_at: told.map(|(_, at)| at),
            given: of,
        });
    }

    fn finish(self, name: &str, policy: Policy) -> Cluster {
        let Self { nodes, left_out } = self;
        let all: Option<Vec<_>> = nodes.iter().map(|node| node.loaded_at).collect();
        let of = |outcome: &'static str| {
            let cluster = name.to_owned();
            counter!("edgeway_dispatch_answers_total", "cluster" => cluster, "outcome" => outcome)
        };
        Cluster {
            name: name.to_owned(),
            policy,
            loads_at: all.and_then(|all| all.into_iter().min()),
            nodes,
            left_out,
            answered: of("by_policy"),
            by_weights: of("by_weights"),
            empty: of("no_gateway"),
        }
    }
}

fn json(endpoint: &Endpoint) -> String {
    let Endpoint { quic, tcp, server_name, .. } = endpoint;
    let host = |address: &str| {
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        host.trim_matches(['[', ']']).to_owned()
    };
    let name = match server_name.is_empty() {
        true => host(if quic.is_empty() { tcp } else { quic }),
        false => server_name.clone(),
    };
    let mut fields = serde_json::Map::new();
    for (key, value) in [("quic", quic), ("tcp", tcp), ("server_name", &name)] {
        if !value.is_empty() {
            fields.insert(key.to_owned(), value.clone().into());
        }
    }
    serde_json::Value::Object(fields).to_string()
}
