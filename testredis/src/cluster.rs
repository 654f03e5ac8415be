//! A Redis Cluster.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use redis::{Connection, cmd};

use crate::{Options, Server, TlsFront, server::url};

const NODES: usize = 3;
const SLOTS: usize = 16_384;
/// Nodes tell each other of the slots about once a second.
const FORM: Duration = Duration::from_secs(60);

/// A Cluster of three nodes, each with a third of the slots and no replica.
pub struct Cluster {
    nodes: Vec<Server>,
    /// In front of each node, where the Cluster speaks TLS.
    fronts: Vec<TlsFront>,
    password: Option<String>,
}

impl Cluster {
    /// Starts the nodes and waits until all of them serve.
    ///
    /// # Panics
    /// Where they do not.
    #[must_use]
    pub fn start(options: &Options) -> Self {
        let nodes: Vec<_> = (0..NODES).map(|_| node(options, None)).collect();
        Self::form(nodes, Vec::new(), options)
    }

    /// The same, reached over TLS only.
    ///
    /// # Panics
    /// Where the nodes do not start.
    #[must_use]
    pub fn start_tls(options: &Options) -> Self {
        let mut nodes = Vec::new();
        let mut fronts = Vec::new();
        for _ in 0..NODES {
            let mut front = TlsFront::bind();
            let node = node(options, Some(front.port()));
            front.forward_to(node.port());
            nodes.push(node);
            fronts.push(front);
        }
        Self::form(nodes, fronts, options)
    }

    fn form(nodes: Vec<Server>, fronts: Vec<TlsFront>, options: &Options) -> Self {
        let mut connections: Vec<_> = nodes.iter().map(connect).collect();
        for (index, connection) in connections.iter_mut().enumerate() {
            let mut slots = cmd("CLUSTER");
            slots.arg("ADDSLOTS");
            // Not ADDSLOTSRANGE, which servers before 7 lack.
            for slot in index * SLOTS / NODES..(index + 1) * SLOTS / NODES {
                slots.arg(slot);
            }
            ask(connection, &slots);
            let mut epoch = cmd("CLUSTER");
            epoch.arg("SET-CONFIG-EPOCH").arg(index + 1);
            ask(connection, &epoch);
        }
        for node in &nodes[1..] {
            let mut meet = cmd("CLUSTER");
            meet.arg("MEET").arg("127.0.0.1").arg(node.port());
            ask(&mut connections[0], &meet);
        }
        let mut info = cmd("CLUSTER");
        info.arg("INFO");
        let deadline = Instant::now() + FORM;
        for connection in &mut connections {
            loop {
                let told: String = info.query(connection).unwrap();
                let whole = told.contains("cluster_state:ok")
                    && told.contains(&format!("cluster_known_nodes:{NODES}"))
                    && told.contains(&format!("cluster_size:{NODES}"));
                if whole {
                    break;
                }
                assert!(Instant::now() < deadline, "the Cluster does not form: {told}");
                sleep(Duration::from_millis(50));
            }
        }
        Self { nodes, fronts, password: options.password.clone() }
    }

    /// Where its nodes are, with the password.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        if self.fronts.is_empty() {
            return self.nodes.iter().map(Server::url).collect();
        }
        let password = self.password.as_deref();
        self.fronts.iter().map(|front| url("rediss", password, front.port())).collect()
    }

    /// The authority of its certificates, where it speaks TLS.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        TlsFront::ca_pem()
    }

    /// Adds a node that has what the node `of` has, and takes its place when that is lost.
    ///
    /// # Panics
    /// Where it does not follow within a minute.
    #[must_use]
    pub fn add_replica(&self, options: &Options, of: usize) -> Server {
        let replica = node(options, None);
        let (master, mut to) = (&self.nodes[of], connect(&replica));
        let id: String = cmd("CLUSTER").arg("MYID").query(&mut connect(master)).unwrap();
        ask(&mut to, cmd("CLUSTER").arg("MEET").arg("127.0.0.1").arg(master.port()));
        let deadline = Instant::now() + FORM;
        let mut until = |what: &str, there: &mut dyn FnMut(&mut Connection) -> bool| {
            while !there(&mut to) {
                assert!(Instant::now() < deadline, "a replica: {what}");
                sleep(Duration::from_millis(50));
            }
        };
        until("is not taken", &mut |to| {
            cmd("CLUSTER").arg("REPLICATE").arg(&id).query::<()>(to).is_ok()
        });
        until("does not follow", &mut |to| {
            let told: String = cmd("INFO").arg("replication").query(to).unwrap();
            told.contains("master_link_status:up")
        });
        // The others have to know of it, or they do not vote for it.
        for other in &self.nodes {
            let mut to = connect(other);
            until("is not known", &mut |_| {
                let told: String = cmd("CLUSTER").arg("INFO").query(&mut to).unwrap();
                told.contains(&format!("cluster_known_nodes:{}", NODES + 1))
            });
        }
        replica
    }

    /// Its nodes.
    pub fn nodes(&mut self) -> &mut [Server] {
        &mut self.nodes
    }
}

/// `announced`: the port that clients and other nodes are told, where it is not its own.
fn node(options: &Options, announced: Option<u16>) -> Server {
    let text = |args: &[&str]| args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>();
    Server::start_with(options, |port| {
        let mut args = text(&["--cluster-enabled", "yes", "--cluster-node-timeout", "5000"]);
        if let Some(announced) = announced {
            let bus = (port + 10_000).to_string();
            args.extend(text(&["--cluster-announce-ip", "127.0.0.1"]));
            args.extend(text(&["--cluster-announce-port", &announced.to_string()]));
            args.extend(text(&["--cluster-announce-bus-port", &bus]));
        }
        args
    })
}

fn connect(node: &Server) -> Connection {
    redis::Client::open(node.url()).unwrap().get_connection().unwrap()
}

fn ask(connection: &mut Connection, cmd: &redis::Cmd) {
    cmd.query::<()>(connection).unwrap();
}
