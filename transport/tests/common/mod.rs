//! Both ends of a connection over real sockets, whichever way it is carried.
#![allow(clippy::unwrap_used, clippy::panic, dead_code)]

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use edgeway_proto::{CloseCode, Lane, RawFrame};
use edgeway_transport::{
    Connection, Dialer, End, QuicListener, Receiver, Sender, Settings, Sink, Stop, TcpListener,
    tls::{ClientTls, ServerTls, Trust},
};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

pub const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// How a connection is carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    Quic,
    Tls,
    Plain,
    Legacy,
}

impl Via {
    pub const ALL: [Self; 4] = [Self::Quic, Self::Tls, Self::Plain, Self::Legacy];
    /// Those that have lanes.
    pub const LANES: [Self; 3] = [Self::Quic, Self::Tls, Self::Plain];
}

/// A condition that a busy machine may take its time to meet.
pub async fn within<T>(what: impl Future<Output = T>) -> T {
    match tokio::time::timeout(Duration::from_secs(30), what).await {
        Ok(t) => t,
        Err(_) => panic!("it did not happen within 30 s"),
    }
}

/// A development certificate, and who trusts it.
pub struct Certs {
    pub server: ServerTls,
    pub client: ClientTls,
    pub ca: Vec<u8>,
}

pub fn certs() -> Certs {
    let dir = tempfile::tempdir().unwrap();
    let certs = edgeway_certs::DevCa::ensure(dir.path(), &["localhost", "127.0.0.1"]).unwrap();
    Certs {
        server: ServerTls::from_pem(certs.cert_pem.as_bytes(), certs.key_pem.as_bytes()).unwrap(),
        client: ClientTls::new(&Trust::Ca(certs.ca_pem.clone().into_bytes())).unwrap(),
        ca: certs.ca_pem.into_bytes(),
    }
}

/// What a sink was given.
#[derive(Debug, PartialEq, Eq)]
pub enum Seen {
    Frame(Lane, Bytes),
    Ended(Lane),
}

struct Collect(UnboundedSender<Seen>);

impl Sink for Collect {
    fn frame(&mut self, lane: Lane, frame: RawFrame) -> Result<(), Stop> {
        let _ = self.0.send(Seen::Frame(lane, frame.whole));
        Ok(())
    }
    fn flush(&mut self) {}
    fn ended(&mut self, lane: Lane) {
        let _ = self.0.send(Seen::Ended(lane));
    }
}

/// One end, reading in a task of its own.
pub struct Peer {
    pub sender: Sender,
    seen: UnboundedReceiver<Seen>,
    end: tokio::task::JoinHandle<(End, Receiver)>,
}

impl Peer {
    pub fn new(connection: Connection) -> Self {
        let Connection { mut receiver, sender, .. } = connection;
        let (to, seen) = unbounded_channel();
        let end = tokio::spawn(async move {
            let end = receiver.run(&mut Collect(to)).await;
            (end, receiver)
        });
        Self { sender, seen, end }
    }

    pub async fn send(&mut self, lane: Lane, frame: Bytes) {
        within(self.sender.send(lane, &mut [frame])).await.unwrap();
        self.sender.flush().await.unwrap();
    }

    /// What was seen next.
    pub async fn next(&mut self) -> Seen {
        match within(self.seen.recv()).await {
            Some(seen) => seen,
            None => panic!("it has ended: {:?}", (&mut self.end).await.unwrap().0),
        }
    }

    /// The next frame.
    pub async fn frame(&mut self) -> (Lane, Bytes) {
        match self.next().await {
            Seen::Frame(lane, frame) => (lane, frame),
            other => panic!("{other:?}"),
        }
    }

    /// How the connection ended, as this end saw it.
    pub async fn end(self) -> End {
        within(self.end).await.unwrap().0
    }

    /// Closes it; how it ended, as this end saw it.
    pub async fn close(self, code: CloseCode, reason: &str) -> End {
        self.sender.close(code, reason, 0).await;
        within(self.end).await.unwrap().0
    }

    /// What writes, and how it will end.
    pub fn halves(self) -> (Sender, tokio::task::JoinHandle<(End, Receiver)>) {
        (self.sender, self.end)
    }

    /// Is gone without a word.
    pub fn vanish(self) {
        self.end.abort();
    }
}

/// Client and server of a connection that stands.
pub struct Pair {
    pub client: Connection,
    pub server: Connection,
    pub dialer: Dialer,
    pub quic: Option<QuicListener>,
}

/// A connection. On QUIC the server sees it once the handshake is done, elsewhere as well.
pub async fn connect(via: Via) -> Pair {
    connect_with(via, Settings::default()).await
}

pub async fn connect_with(via: Via, settings: Settings) -> Pair {
    let certs = certs();
    let dialer = Dialer::new(certs.client, settings);
    if via == Via::Quic {
        let listener = QuicListener::bind(ANY, &certs.server, settings).unwrap();
        let addr = listener.local_addr().unwrap();
        let accept = async { listener.accept().await.unwrap().handshake().await.unwrap() };
        let (client, server) =
            within(async { tokio::join!(dialer.quic(addr, "localhost"), accept) }).await;
        return Pair { client: client.unwrap(), server, dialer, quic: Some(listener) };
    }
    let tls = (via == Via::Tls).then_some(&certs.server);
    let listener = TcpListener::bind(ANY, tls, true).unwrap();
    let addr = listener.local_addr().unwrap();
    let accept = async { listener.accept().await.unwrap().handshake().await.unwrap() };
    let dial = async {
        match via {
            Via::Tls => dialer.tcp(addr, "localhost").await.unwrap(),
            _ => Dialer::plain(addr, via == Via::Legacy).await.unwrap(),
        }
    };
    let (client, server) = within(async { tokio::join!(dial, accept) }).await;
    Pair { client, server, dialer, quic: None }
}

/// A QUIC client without this crate, to do what it would not do.
pub async fn raw_quic(addr: SocketAddr, ca: &[u8]) -> quinn::Connection {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![edgeway_proto::ALPN.to_vec()];
    let tls = quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
    let endpoint = quinn::Endpoint::client(ANY).unwrap();
    let config = quinn::ClientConfig::new(Arc::new(tls));
    within(endpoint.connect_with(config, addr, "localhost").unwrap()).await.unwrap()
}

/// A server's end of [`raw_quic`].
pub async fn raw_pair() -> (quinn::Connection, Peer, QuicListener) {
    let certs = certs();
    let listener = QuicListener::bind(ANY, &certs.server, Settings::default()).unwrap();
    let addr = listener.local_addr().unwrap();
    let accept = async { listener.accept().await.unwrap().handshake().await.unwrap() };
    let (client, server) = within(async { tokio::join!(raw_quic(addr, &certs.ca), accept) }).await;
    (client, Peer::new(server), listener)
}
