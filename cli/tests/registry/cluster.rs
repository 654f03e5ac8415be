//! Processes that find each other by the registry on a Redis of their own.

use std::{collections::BTreeMap, path::Path, time::Duration};

use edgeway_client::{Client, ClientConfig, Events, Login, TransportChoice, Trust};
use edgeway_testredis::{Options, Server};
use serde_json::Value;

use crate::support::{Up, free_ports, get, node::Node, write};

/// Far above what a busy machine takes.
pub const PATIENCE: Duration = Duration::from_secs(120);

const ANY: &str = "127.0.0.1:0";

pub async fn within<T>(what: &str, happens: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, happens).await {
        Ok(done) => done,
        Err(_) => panic!("not in time: {what}"),
    }
}

pub struct Cluster {
    pub dir: tempfile::TempDir,
    pub redis: Server,
    pub nodes: BTreeMap<String, Node>,
    /// Where the instances of rooms listen.
    rooms: Vec<String>,
}

impl Cluster {
    /// Two accesses, one peer, `rooms` of three instances of rooms, and two gateways. One of the gateways
    /// knows the rooms of the registry, the other one from its config, so that it never gives one up.
    pub fn start(rooms: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // `up` makes the certificates.
        drop(Up::start(dir.path()));
        let redis = Server::start(&Options { durable: true, ..Options::default() });
        let listed = free_ports::<3>().to_vec();
        let config = |rooms: &str| {
            format!(
                "[backends]\naccess = [\"registry\"]\npeer = [\"registry\"]\nroom = {rooms}\n\
                 [store]\nengine = \"redis\"\n[store.redis]\nurl = \"{}\"\n[rooms]\nchat_per_second = 0\n\
                 [gateway.tls]\ncert = \"edgeway-data/certs/server.pem\"\n\
                 key = \"edgeway-data/certs/server.key\"\n",
                redis.url()
            )
        };
        write(dir.path(), "edgeway.toml", &config("[\"registry\"]"));
        write(dir.path(), "listed.toml", &config(&format!("{:?}", &listed[..rooms])));
        let mut cluster = Self { dir, redis, nodes: BTreeMap::new(), rooms: listed };
        // Each is ready once it has found those that it needs.
        cluster.add_backend("peer-1", "peer", ANY);
        for n in 1..=rooms {
            cluster.add_room(n);
        }
        cluster.add_backend("access-1", "access", ANY);
        cluster.add_backend("access-2", "access", ANY);
        cluster.add(
            "gateway-1",
            &["gateway", "--config", "edgeway.toml", "--quic", ANY, "--tcp", ANY],
        );
        cluster
            .add("gateway-2", &["gateway", "--config", "listed.toml", "--quic", ANY, "--tcp", ANY]);
        cluster.wait_until("all are in the registry", |cluster| {
            let found = |node: &Node| node.metric("edgeway_registry_instances", "") as usize;
            cluster.nodes.values().all(|node| found(node) == 3 + rooms)
        });
        cluster
    }

    fn add(&mut self, name: &str, args: &[&str]) {
        let args = [args, &["--name", name, "--http", ANY]].concat();
        self.nodes.insert(name.to_owned(), Node::start(self.dir.path(), &args));
    }

    fn add_backend(&mut self, name: &str, role: &str, addr: &str) {
        self.add(name, &["backend", "--config", "edgeway.toml", "--roles", role, "--listen", addr]);
    }

    /// Adds a process with the role push, of the config `push.toml`.
    pub fn add_push(&mut self, name: &str) {
        let args = ["backend", "--config", "push.toml", "--roles", "push", "--listen", ANY];
        self.add(name, &args);
    }

    /// Adds the n-th instance of rooms.
    pub fn add_room(&mut self, n: usize) {
        let addr = self.rooms[n - 1].clone();
        self.add_backend(&format!("room-{n}"), "room", &addr);
    }

    pub fn node(&self, name: &str) -> &Node {
        &self.nodes[name]
    }

    /// Takes a process out of the cluster, as it is.
    pub fn take(&mut self, name: &str) -> Node {
        self.nodes.remove(name).unwrap()
    }

    /// How many rooms each instance has. One that does not answer is left out.
    pub fn rooms(&self, except: &str) -> BTreeMap<String, usize> {
        let rooms =
            self.nodes.iter().filter(|(name, _)| name.starts_with("room") && *name != except);
        rooms
            .map(|(name, node)| (name.clone(), node.metric("edgeway_owner_rooms", "") as usize))
            .collect()
    }

    /// The instance that has the only room.
    pub fn owner(&self) -> String {
        let rooms = self.rooms("");
        let owners: Vec<_> = rooms.iter().filter(|(_, rooms)| **rooms > 0).collect();
        assert_eq!(owners.len(), 1, "{rooms:?}");
        owners[0].0.clone()
    }

    /// Waits until the directory says that these members are in a room, each once, behind both gateways, by an owner
    /// of a later epoch; the epoch of that. The peer, who is asked, owns no rooms.
    pub fn wait_listed(&self, room: &str, members: usize, after: u64) -> u64 {
        let http = self.node("peer-1").at("http");
        let ask = |what: &str| -> Value {
            let answer = get(&http, &format!("/rooms/{room}/{what}"));
            serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
        };
        let start = std::time::Instant::now();
        loop {
            let (route, page) = (ask("route"), ask("members"));
            let users: Vec<_> = page["members"]
                .as_array()
                .map(|all| all.iter().map(|one| one["user"].as_str().unwrap().to_owned()).collect())
                .unwrap_or_default();
            let epoch = route["epoch"].as_u64().unwrap_or_default();
            let gateways = route["gateways"].as_array().map_or(0, Vec::len);
            if users == (0..members).map(|n| format!("user-{n}")).collect::<Vec<_>>()
                && gateways == 2
                && epoch > after
            {
                return epoch;
            }
            assert!(start.elapsed() < PATIENCE, "{room}, after {after}: {route} {page}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub fn wait_until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let start = std::time::Instant::now();
        while !holds(self) {
            assert!(start.elapsed() < PATIENCE, "not in time: {what}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Connects the n-th user, by either gateway and transport.
    pub async fn connect(&self, n: usize) -> (Client, Events) {
        let gateway = self.node(if n.is_multiple_of(2) { "gateway-1" } else { "gateway-2" });
        let quic = n % 4 < 2;
        let addr = gateway.at(if quic { "quic" } else { "tcp" });
        let mut config = ClientConfig::new(&addr, Login::Development { user: format!("user-{n}") });
        config.trust = Trust::Ca(std::fs::read(ca(self.dir.path())).unwrap());
        config.transport = if quic { TransportChoice::Quic } else { TransportChoice::Tcp };
        within("a connection", Client::connect(config)).await.unwrap()
    }

    /// Ends all processes in order; what each has logged.
    pub fn end(self) -> BTreeMap<String, String> {
        self.nodes.into_iter().rev().map(|(name, node)| (name, node.end())).collect()
    }
}

fn ca(dir: &Path) -> std::path::PathBuf {
    dir.join("edgeway-data/certs/ca.pem")
}
