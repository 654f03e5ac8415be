//! A cluster of processes of each role that find each other on a Redis; history is on one of its own.

use edgeway_client::{Client, Events, TransportChoice};
use edgeway_testredis::{Options, Server};

use crate::{
    ANY, connect,
    support::{Up, node::Node, write},
    user,
};

pub struct Cluster {
    pub dir: tempfile::TempDir,
    pub redis: Server,
    pub history: Server,
    pub gateways: [Node; 2],
    pub rooms: [Node; 2],
    pub binary: Node,
    pub access: Node,
    pub peer: Node,
}

impl Cluster {
    pub fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path();
        // `up` makes the certificates.
        drop(Up::start(path));
        let [redis, history] = [(); 2].map(|()| Server::start(&Options::default()));
        let text = format!(
            "[backends]\naccess = [\"registry\"]\nroom = [\"registry\"]\nbinary = [\"registry\"]\n\
             peer = [\"registry\"]\n[store]\nengine = \"redis\"\n[store.redis]\nurl = \"{}\"\n\
             history_url = \"{}\"\n[rooms]\nchat_per_second = 0\n\
             [gateway.tls]\ncert = \"edgeway-data/certs/server.pem\"\n\
             key = \"edgeway-data/certs/server.key\"\n",
            redis.url(),
            history.url()
        );
        write(path, "edgeway.toml", &text);
        let backend = |role: &str, name: &str| {
            let args = ["backend", "--config", "edgeway.toml", "--roles", role, "--name", name];
            Node::start(path, &[&args[..], &["--listen", ANY, "--http", ANY]].concat())
        };
        let peer = backend("peer", "peer-1");
        let binary = backend("binary", "binary-1");
        let rooms = ["room-1", "room-2"].map(|name| backend("room", name));
        let access = backend("access", "access-1");
        let gateways = ["gateway-1", "gateway-2"].map(|name| {
            let args = ["gateway", "--config", "edgeway.toml", "--name", name, "--http", ANY];
            Node::start(path, &[&args[..], &["--quic", ANY, "--tcp", ANY]].concat())
        });
        Self { dir, redis, history, gateways, rooms, binary, access, peer }
    }

    /// A user by QUIC at the first gateway, or by TCP at the second one.
    pub async fn connect(&self, name: &str, gateway: usize) -> (Client, Events) {
        let (at, transport) =
            [("quic", TransportChoice::Quic), ("tcp", TransportChoice::Tcp)][gateway];
        let addr = self.gateways[gateway].at(at);
        connect(self.dir.path(), &addr, transport, user(name)).await.unwrap()
    }

    /// Ends all in order.
    pub fn end(self) {
        let Self { gateways, rooms, binary, access, peer, .. } = self;
        for node in gateways.into_iter().chain([access]).chain(rooms).chain([binary, peer]) {
            node.end();
        }
    }
}
