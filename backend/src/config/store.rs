//! The rules of `[store]`.

use std::path::PathBuf;

use super::{RawRedis, RawStore, RedisConfig, StoreConfig, check::Check};
use crate::store::{RedisServer, RedisUrl};

/// Long enough to say which cluster it is; it is in every key.
const PREFIX_BYTES: usize = 64;

impl Check<'_> {
    pub(super) fn store(&mut self, raw: RawStore) -> StoreConfig {
        let has_redis = !raw.redis.is_empty();
        match raw.engine.as_deref() {
            None | Some("embedded") => {
                if has_redis {
                    self.problem(
                        "store.redis.url",
                        "has no effect with store.engine = \"embedded\"; set store.engine = \"redis\"",
                    );
                }
                StoreConfig::Embedded
            }
            Some("redis") => StoreConfig::Redis(self.redis(raw.redis)),
            Some(other) => {
                self.problem(
                    "store.engine",
                    format!(
                        "`{other}` is unknown; \"embedded\" is a store in backend.data_dir, \"redis\" \
                         one that many processes share"
                    ),
                );
                StoreConfig::Embedded
            }
        }
    }

    fn redis(&mut self, raw: RawRedis) -> RedisConfig {
        let url = raw.url.unwrap_or_default();
        if url.is_empty() {
            self.problem(
                "store.redis.url",
                "is empty; name the server, such as redis://127.0.0.1:6379",
            );
        }
        let cluster = raw.cluster.unwrap_or_default();
        if !cluster && !raw.nodes.is_empty() {
            self.problem(
                "store.redis.nodes",
                "has no effect without store.redis.cluster = true; a server is named by \
                 store.redis.url alone",
            );
        }
        let first = self.url("store.redis.url", &url, cluster);
        let nodes = raw.nodes.iter().enumerate();
        let nodes: Vec<_> = nodes
            .filter_map(|(i, node)| self.url(&format!("store.redis.nodes.{i}"), node, cluster))
            .collect();
        let state = RedisServer { urls: first.into_iter().chain(nodes).collect(), cluster };
        let history_url = raw.history_url.unwrap_or_default();
        let history_cluster = raw.history_cluster.unwrap_or_default();
        if history_url.is_empty() && history_cluster {
            self.problem(
                "store.redis.history_cluster",
                "has no effect without store.redis.history_url",
            );
        }
        let history = self.url("store.redis.history_url", &history_url, history_cluster);
        let history = history.map(|url| RedisServer { urls: vec![url], cluster: history_cluster });
        RedisConfig {
            state,
            history,
            prefix: self.prefix(raw.prefix),
            ca: raw.ca.filter(|ca| !ca.is_empty()).map(PathBuf::from),
        }
    }

    /// A URL, where there is one. What is told of a wrong one does not repeat it.
    fn url(&mut self, key: &str, url: &str, cluster: bool) -> Option<RedisUrl> {
        if url.is_empty() {
            return None;
        }
        match RedisUrl::parse(url) {
            Ok(url) if cluster && url.database() != 0 => {
                self.problem(key, "names a database, and a Cluster has only the database 0");
                None
            }
            Ok(url) => Some(url),
            Err(problem) => {
                self.problem(key, problem);
                None
            }
        }
    }

    fn prefix(&mut self, raw: Option<String>) -> String {
        let prefix = raw.unwrap_or_else(|| "edgeway".to_owned());
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
        if prefix.is_empty() || prefix.len() > PREFIX_BYTES || !prefix.chars().all(is_plain) {
            self.problem(
                "store.redis.prefix",
                format!(
                    "`{prefix}` cannot stand in front of keys; write 1 to {PREFIX_BYTES} letters, \
                     digits, and - _ . :"
                ),
            );
        }
        prefix
    }
}
