//! A network in the way: forwards UDP and TCP on one port, until it is told otherwise.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    sync::Arc,
};

use parking_lot::Mutex;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream, UdpSocket},
    sync::watch,
    task::{AbortHandle, JoinSet},
};

#[derive(Debug, Default)]
struct State {
    /// Nothing of UDP passes.
    no_udp: bool,
    /// Nothing passes from or to these addresses of clients.
    dead: HashSet<SocketAddr>,
    /// The sockets that the server sees, by client.
    bindings: HashMap<SocketAddr, (Arc<UdpSocket>, AbortHandle)>,
    datagrams: u64,
    /// The first handshake's packets do not pass.
    stuck: Option<Stuck>,
}

/// A handshake that never ends: until the server has answered, the connection id to which a client writes
/// stays the same (RFC 9000, section 7.2).
#[derive(Debug, Default)]
struct Stuck {
    id: Option<Vec<u8>>,
    lost: u64,
}

impl Stuck {
    /// Whether a client's datagram is of the first handshake that came.
    fn takes(&mut self, datagram: &[u8]) -> bool {
        // The long header: flags, version, length of the id, id (section 17.2).
        let Some(id) = datagram.get(6..).and_then(|rest| rest.get(..usize::from(datagram[5])))
        else {
            return false;
        };
        let long = datagram[0] & 0x80 != 0;
        let takes = long && self.id.get_or_insert_with(|| id.to_vec()) == id;
        self.lost += u64::from(takes);
        takes
    }
}

/// See the module.
pub struct Proxy {
    pub addr: SocketAddr,
    server: SocketAddr,
    state: Arc<Mutex<State>>,
    udp: Arc<UdpSocket>,
    /// TCP connections that are made while this is false are closed at once.
    tcp: watch::Sender<bool>,
    tasks: Mutex<JoinSet<()>>,
}

impl Proxy {
    pub async fn to(server: SocketAddr) -> Arc<Self> {
        let (listener, udp) = loop {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            if let Ok(udp) = UdpSocket::bind(listener.local_addr().unwrap()).await {
                break (listener, Arc::new(udp));
            }
        };
        let proxy = Arc::new(Self {
            addr: udp.local_addr().unwrap(),
            server,
            state: Arc::default(),
            udp,
            tcp: watch::Sender::new(true),
            tasks: Mutex::default(),
        });
        let (udp, tcp) = (Arc::downgrade(&proxy), proxy.tcp.subscribe());
        let socket = Arc::clone(&proxy.udp);
        let mut tasks = proxy.tasks.lock();
        tasks.spawn(async move {
            let mut datagram = vec![0; 2048];
            while let Ok((len, from)) = socket.recv_from(&mut datagram).await {
                let Some(proxy) = udp.upgrade() else { return };
                proxy.up(&datagram[..len], from).await;
            }
        });
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut client, _)) = listener.accept().await {
                let mut open = tcp.clone();
                connections.spawn(async move {
                    if !*open.borrow() {
                        return;
                    }
                    let mut server = TcpStream::connect(server).await.unwrap();
                    tokio::select! {
                        _ = copy_bidirectional(&mut client, &mut server) => {}
                        _ = open.wait_for(|open| !open) => {}
                    }
                });
            }
        });
        drop(tasks);
        proxy
    }

    /// A datagram of a client.
    async fn up(&self, datagram: &[u8], from: SocketAddr) {
        let known = {
            let mut state = self.state.lock();
            state.datagrams += 1;
            if state.no_udp || state.dead.contains(&from) {
                return;
            }
            if state.stuck.as_mut().is_some_and(|stuck| stuck.takes(datagram)) {
                return;
            }
            state.bindings.get(&from).map(|(socket, _)| Arc::clone(socket))
        };
        let socket = match known {
            Some(socket) => socket,
            None => self.bind(from).await,
        };
        let _ = socket.send_to(datagram, self.server).await;
    }

    /// A socket for what comes from a client.
    async fn bind(&self, client: SocketAddr) -> Arc<UdpSocket> {
        let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let (from, to, state) =
            (Arc::clone(&socket), Arc::clone(&self.udp), Arc::clone(&self.state));
        let task = self.tasks.lock().spawn(async move {
            let mut datagram = vec![0; 2048];
            while let Ok(len) = from.recv(&mut datagram).await {
                let lost = {
                    let state = state.lock();
                    state.no_udp || state.dead.contains(&client)
                };
                if !lost {
                    let _ = to.send_to(&datagram[..len], client).await;
                }
            }
        });
        let old = self.state.lock().bindings.insert(client, (Arc::clone(&socket), task));
        if let Some((_, old)) = old {
            old.abort();
        }
        socket
    }

    /// Whether UDP passes.
    pub fn udp(&self, passes: bool) {
        self.state.lock().no_udp = !passes;
    }

    /// From now on the first handshake that begins does not get through.
    pub fn stick_first_handshake(&self) {
        self.state.lock().stuck = Some(Stuck::default());
    }

    /// Datagrams that were lost of it.
    pub fn stuck(&self) -> u64 {
        self.state.lock().stuck.as_ref().map_or(0, |stuck| stuck.lost)
    }

    /// Whether TCP passes; where not, connections end.
    pub fn tcp(&self, passes: bool) {
        self.tcp.send_replace(passes);
    }

    /// The server sees all clients at new ports from now on.
    pub async fn rebind(&self) {
        let clients: Vec<_> = self.state.lock().bindings.keys().copied().collect();
        for client in clients {
            self.bind(client).await;
        }
    }

    /// Nothing passes any more for the addresses that clients have now.
    pub fn forget_bindings(&self) {
        let mut state = self.state.lock();
        let clients: Vec<_> = state.bindings.keys().copied().collect();
        state.dead.extend(clients);
    }

    /// Datagrams that clients have sent.
    pub fn datagrams(&self) -> u64 {
        self.state.lock().datagrams
    }
}
