//! `[dispatch]`: as the file has it, and as the program uses it.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use edgeway_stat::{CLUSTER_BYTES, Endpoint, WEIGHT_MAX};
use serde::Deserialize;

use crate::{
    policy::Policy,
    ticket::{KEY_BYTES, KEYS, Keys},
};

/// Where `edgeway dispatch` listens by default.
pub const LISTEN: &str = "127.0.0.1:8090";
/// Of an app's or a user's name.
pub const NAME_BYTES: usize = 128;
/// The app of a request that names none.
pub const DEFAULT_APP: &str = "default";
/// Clusters behind one dispatch.
pub const CLUSTERS: usize = 256;
/// Apps.
const APPS: usize = 100_000;
/// Gateways of a cluster's list.
const GATEWAYS: usize = 1024;

/// `[dispatch]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawDispatch {
    /// IP:PORT for HTTP; empty for off.
    pub listen: Option<String>,
    /// IP:PORT for HTTPS; empty for off.
    pub tls_listen: String,
    /// The certificate for HTTPS; without, that of the gateway.
    pub tls: RawTls,
    /// How long clients use an answer before they ask again.
    pub ttl_ms: Option<u64>,
    /// Gateways of an answer.
    pub endpoints: Option<u64>,
    /// Loads that are older are not believed.
    pub stale_ms: Option<u64>,
    /// Secrets that tickets are signed with: the first signs, all are taken.
    pub ticket_keys: Vec<String>,
    /// How long a ticket holds.
    pub ticket_ttl_ms: Option<u64>,
    /// Requests a second from one address; 0 for any number.
    pub per_ip_per_second: Option<u64>,
    /// Connections at a time.
    pub connections: Option<u64>,
    /// The cluster of each app.
    pub apps: BTreeMap<String, String>,
    /// The clusters.
    pub clusters: BTreeMap<String, RawCluster>,
}

/// `[dispatch.tls]`: PEM files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawTls {
    /// Certificate chain.
    pub cert: String,
    /// Private key.
    pub key: String,
}

/// `[dispatch.clusters.NAME]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawCluster {
    /// How gateways are chosen.
    pub policy: Policy,
    /// Where its gateways say that they live: `store`, the URL of a Redis, or empty for nowhere.
    pub registry: Option<String>,
    /// In front of the keys there.
    pub registry_prefix: Option<String>,
    /// Gateways besides.
    pub gateways: Vec<RawStatic>,
}

/// A gateway of a list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawStatic {
    /// HOST:PORT for QUIC.
    pub quic: String,
    /// HOST:PORT for TCP with TLS.
    pub tcp: String,
    /// The name that its certificate holds.
    pub server_name: String,
    /// Its share.
    pub weight: Option<u32>,
    /// It takes no new clients.
    pub draining: bool,
    /// HOST:PORT of its HTTP, asked each second whether it lives and for its load; empty: it is taken to live.
    pub http: String,
}

/// What dispatch runs with.
#[derive(Debug, Clone)]
pub struct Config {
    /// For HTTP.
    pub listen: Option<SocketAddr>,
    /// For HTTPS.
    pub tls_listen: Option<SocketAddr>,
    /// What changes while it runs.
    pub live: Live,
}

/// What changes while it runs.
#[derive(Debug, Clone)]
pub struct Live {
    /// See [`RawDispatch`].
    pub ttl: Duration,
    /// See [`RawDispatch`].
    pub endpoints: usize,
    /// See [`RawDispatch`].
    pub stale_after: Duration,
    /// None: made up at random.
    pub keys: Option<Keys>,
    /// See [`RawDispatch`].
    pub ticket_ttl: Duration,
    /// See [`RawDispatch`].
    pub per_ip_per_second: u64,
    /// See [`RawDispatch`].
    pub connections: usize,
    /// See [`RawDispatch`].
    pub apps: BTreeMap<String, String>,
    /// See [`RawDispatch`].
    pub clusters: BTreeMap<String, Cluster>,
}

/// A cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// How gateways are chosen.
    pub policy: Policy,
    /// Where its gateways say that they live.
    pub registry: Option<Registry>,
    /// Gateways besides.
    pub gateways: Vec<Static>,
}

/// A registry that gateways are found by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Registry {
    /// That of `[store.redis]`.
    Store,
    /// Another one.
    Redis {
        /// Its URL; it may hold a password.
        url: String,
        /// In front of its keys.
        prefix: String,
    },
}

/// A gateway of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Static {
    /// Where clients reach it.
    pub endpoint: Endpoint,
    /// Where it says that it lives; none: it is taken to.
    pub http: Option<String>,
}

/// Something wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Dotted key.
    pub key: String,
    /// What is wrong, and what would be right.
    pub problem: String,
}

/// Checks everything and reports all that is wrong. Where no cluster is named there is one, `own`, with the registry of
/// the store where that is on Redis (`on_redis`).
///
/// # Errors
/// Every problem, with its key.
pub fn validate(raw: &RawDispatch, own: &str, on_redis: bool) -> Result<Config, Vec<Problem>> {
    let mut check = Checker { problems: Vec::new(), on_redis };
    let listen = raw.listen.as_deref().unwrap_or(LISTEN);
    let (listen, tls_listen) =
        (check.addr("listen", listen), check.addr("tls_listen", &raw.tls_listen));
    if listen.is_some() && listen == tls_listen && listen.is_some_and(|addr| addr.port() != 0) {
        check.add("tls_listen", "the same address as listen; give it a port of its own");
    }
    const DAY_MS: u64 = 24 * 3_600_000;
    let clusters = check.clusters(raw, own);
    let live = Live {
        ttl: check.ms("ttl_ms", raw.ttl_ms, 60_000, 100, DAY_MS),
        endpoints: check.number("endpoints", raw.endpoints, 3, 1, 16),
        stale_after: check.ms("stale_ms", raw.stale_ms, 5_000, 1_000, 600_000),
        keys: check.keys(&raw.ticket_keys),
        ticket_ttl: check.ms("ticket_ttl_ms", raw.ticket_ttl_ms, 600_000, 1_000, DAY_MS),
        per_ip_per_second: check.number(
            "per_ip_per_second",
            raw.per_ip_per_second,
            1_000,
            0,
            10_000_000,
        ) as u64,
        connections: check.number("connections", raw.connections, 10_000, 1, 1_000_000),
        apps: check.apps(raw, &clusters),
        clusters,
    };
    if check.problems.is_empty() {
        Ok(Config { listen, tls_listen, live })
    } else {
        Err(check.problems)
    }
}

struct Checker {
    problems: Vec<Problem>,
    on_redis: bool,
}

impl Checker {
    fn add(&mut self, key: &str, problem: impl Into<String>) {
        self.problems.push(Problem { key: format!("dispatch.{key}"), problem: problem.into() });
    }

    fn addr(&mut self, key: &str, text: &str) -> Option<SocketAddr> {
        if text.is_empty() {
            return None;
        }
        let addr = text.parse();
        if addr.is_err() {
            self.add(
                key,
                format!(
                    "`{text}` is no address; expected IP:PORT such as \"{LISTEN}\", or \"\" for off"
                ),
            );
        }
        addr.ok()
    }

    fn range(&mut self, key: &str, value: u64, min: u64, max: u64) -> u64 {
        if !(min..=max).contains(&value) {
            self.add(key, format!("{value} is out of range; expected {min} to {max}"));
        }
        value.clamp(min, max)
    }

    fn ms(&mut self, key: &str, raw: Option<u64>, default: u64, min: u64, max: u64) -> Duration {
        Duration::from_millis(self.range(key, raw.unwrap_or(default), min, max))
    }

    fn number(&mut self, key: &str, raw: Option<u64>, default: u64, min: u64, max: u64) -> usize {
        usize::try_from(self.range(key, raw.unwrap_or(default), min, max)).unwrap_or(usize::MAX)
    }

    fn keys(&mut self, raw: &[String]) -> Option<Keys> {
        if raw.len() > KEYS {
            self.add(
                "ticket_keys",
                format!(
                    "{} keys; at most {KEYS}: the new one, and those that are going",
                    raw.len()
                ),
            );
        }
        for (i, _) in raw.iter().enumerate().filter(|(_, key)| key.len() < KEY_BYTES) {
            self.add(
                &format!("ticket_keys.{i}"),
                format!(
                    "is too short for a secret; expected {KEY_BYTES} characters or more, such as \
                     `openssl rand -hex 32` gives"
                ),
            );
        }
        Keys::new(raw.iter().map(String::as_bytes))
    }

    fn clusters(&mut self, raw: &RawDispatch, own: &str) -> BTreeMap<String, Cluster> {
        if raw.clusters.is_empty() {
            let registry = self.on_redis.then_some(Registry::Store);
            let one = Cluster { policy: Policy::default(), registry, gateways: Vec::new() };
            return BTreeMap::from([(own.to_owned(), one)]);
        }
        if raw.clusters.len() > CLUSTERS {
            self.add("clusters", format!("{} clusters; at most {CLUSTERS}", raw.clusters.len()));
        }
        let mut clusters = BTreeMap::new();
        for (name, raw) in &raw.clusters {
            let at = format!("clusters.{name}");
            if name.is_empty() || name.len() > CLUSTER_BYTES || name.contains(char::is_control) {
                self.add(&at, format!("a cluster is named by 1 to {CLUSTER_BYTES} bytes"));
            }
            let registry = self.registry(&at, raw);
            if raw.gateways.len() > GATEWAYS {
                self.add(
                    &format!("{at}.gateways"),
                    format!("{} gateways; at most {GATEWAYS}", raw.gateways.len()),
                );
            }
            let one = |(i, one)| self.gateway(&format!("{at}.gateways.{i}"), one);
            let gateways = raw.gateways.iter().enumerate().map(one).collect();
            clusters.insert(name.clone(), Cluster { policy: raw.policy, registry, gateways });
        }
        clusters
    }

    fn registry(&mut self, at: &str, raw: &RawCluster) -> Option<Registry> {
        let key = format!("{at}.registry");
        match raw.registry.as_deref() {
            None | Some("") => None,
            Some("store") if self.on_redis => {
                if raw.registry_prefix.is_some() {
                    self.add(
                        &format!("{at}.registry_prefix"),
                        "has no effect with registry = \"store\", whose prefix is store.redis.prefix",
                    );
                }
                Some(Registry::Store)
            }
            Some("store") => {
                self.add(
                    &key,
                    "`store` needs store.engine = \"redis\"; or write the URL of a Redis",
                );
                None
            }
            Some(url) if url.starts_with("redis://") || url.starts_with("rediss://") => {
                let prefix = raw.registry_prefix.clone().unwrap_or_else(|| "edgeway".to_owned());
                Some(Registry::Redis { url: url.to_owned(), prefix })
            }
            Some(_) => {
                self.add(&key, "expected \"store\", or redis://HOST:PORT, or \"\" for none");
                None
            }
        }
    }

    fn gateway(&mut self, at: &str, raw: &RawStatic) -> Static {
        let endpoint = Endpoint {
            quic: raw.quic.clone(),
            tcp: raw.tcp.clone(),
            server_name: raw.server_name.clone(),
            weight: raw.weight.unwrap_or(100),
            draining: raw.draining,
        };
        if endpoint.weight > WEIGHT_MAX {
            self.add(
                &format!("{at}.weight"),
                format!("{} is out of range; expected 0 to {WEIGHT_MAX}", endpoint.weight),
            );
        } else if !endpoint.is_good() {
            self.add(at, "expected quic, tcp or both, each as \"HOST:PORT\"");
        }
        let http = Some(raw.http.clone()).filter(|http| !http.is_empty());
        let is_address =
            |text: &str| Endpoint { quic: text.to_owned(), ..Endpoint::default() }.is_good();
        if http.as_deref().is_some_and(|http| !is_address(http)) {
            self.add(&format!("{at}.http"), "expected \"HOST:PORT\", or \"\" for none");
        }
        Static { endpoint, http }
    }

    fn apps(
        &mut self,
        raw: &RawDispatch,
        clusters: &BTreeMap<String, Cluster>,
    ) -> BTreeMap<String, String> {
        if raw.apps.is_empty() {
            if let (Some((only, _)), 1) = (clusters.first_key_value(), clusters.len()) {
                return BTreeMap::from([(DEFAULT_APP.to_owned(), only.clone())]);
            }
            self.add("apps", "is missing: with several clusters, say which app has which");
        }
        if raw.apps.len() > APPS {
            self.add("apps", format!("{} apps; at most {APPS}", raw.apps.len()));
        }
        for (app, cluster) in &raw.apps {
            let at = format!("apps.{app}");
            if app.is_empty() || app.len() > NAME_BYTES {
                self.add(&at, format!("an app is named by 1 to {NAME_BYTES} bytes"));
            }
            if !clusters.contains_key(cluster) {
                let known: Vec<_> = clusters.keys().map(String::as_str).collect();
                let problem = format!(
                    "cluster `{cluster}` is not in [dispatch.clusters]; there are: {}",
                    known.join(", ")
                );
                self.add(&at, problem);
            }
        }
        raw.apps.clone()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn without_anything_there_is_one_cluster_and_one_app() {
        let config = validate(&RawDispatch::default(), "main", true).unwrap();
        assert_eq!(config.listen, Some(LISTEN.parse().unwrap()));
        assert_eq!(config.live.apps[DEFAULT_APP], "main");
        assert_eq!(config.live.clusters["main"].registry, Some(Registry::Store));
        let config = validate(&RawDispatch::default(), "main", false).unwrap();
        assert_eq!(config.live.clusters["main"].registry, None);
    }

    #[test]
    fn all_that_is_wrong_is_told_with_its_key() {
        let gateway = RawStatic { quic: "a".into(), http: "b".into(), ..RawStatic::default() };
        let cluster = RawCluster {
            registry: Some("store".into()),
            gateways: vec![gateway],
            ..RawCluster::default()
        };
        let raw = RawDispatch {
            listen: Some("nowhere".into()),
            endpoints: Some(0),
            ticket_keys: vec!["short".into()],
            apps: BTreeMap::from([("maths".into(), "banks".into())]),
            clusters: BTreeMap::from([("schools".into(), cluster)]),
            ..RawDispatch::default()
        };
        let problems = validate(&raw, "main", false).unwrap_err();
        let keys: Vec<_> = problems.iter().map(|p| p.key.as_str()).collect();
        assert_eq!(
            keys,
            [
                "dispatch.listen",
                "dispatch.clusters.schools.registry",
                "dispatch.clusters.schools.gateways.0",
                "dispatch.clusters.schools.gateways.0.http",
                "dispatch.endpoints",
                "dispatch.ticket_keys.0",
                "dispatch.apps.maths",
            ]
        );
    }
}
