//! Accepting connections. Accepting and handshaking are apart, so that a slow handshake holds up
//! nobody: the caller accepts in a loop and gives each handshake a task and a deadline.

use std::{io, net::SocketAddr, sync::Arc};

use parking_lot::Mutex;
use quinn::{Endpoint, EndpointConfig, ServerConfig, TokioRuntime};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use crate::{
    Connection, Settings, quic, server_transport, socket,
    tcp::{self, Stream},
    tls::ServerTls,
};

/// Handshakes that may be under way at a time; more are refused by quinn.
const MAX_INCOMING: usize = 4096;

/// First packets held for handshakes that were not accepted yet, over all.
const INCOMING_BYTES: u64 = 16 * 1024 * 1024;

/// Why a connection did not come about. The peer's fault or the network's; others are not
/// disturbed.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// The QUIC handshake failed.
    #[error("QUIC handshake: {0}")]
    Quic(#[from] quinn::ConnectionError),
    /// The TLS handshake failed, or the socket.
    #[error("TCP: {0}")]
    Tcp(#[from] io::Error),
}

/// Listens for QUIC.
#[derive(Debug, Clone)]
pub struct QuicListener {
    endpoint: Endpoint,
    tls: ServerTls,
    /// What new clients get; none where they are refused.
    settings: Arc<Mutex<Option<Settings>>>,
}

impl QuicListener {
    /// Binds a UDP socket.
    ///
    /// # Errors
    /// The address is in use or not ours.
    pub fn bind(addr: SocketAddr, tls: &ServerTls, settings: Settings) -> io::Result<Self> {
        let endpoint = Endpoint::new(
            EndpointConfig::default(),
            Some(config(tls, settings)),
            socket::udp(addr)?,
            Arc::new(TokioRuntime),
        )?;
        Ok(Self { endpoint, tls: tls.clone(), settings: Arc::new(Mutex::new(Some(settings))) })
    }

    /// Gives new clients other settings. Fewer Sessions take effect above the transport only: a client
    /// that comes with early data goes by the streams that it was permitted before, and would take fewer for a
    /// breach (RFC 9000, section 7.4.1).
    pub fn change(&self, settings: Settings) {
        let mut current = self.settings.lock();
        let Some(current) = &mut *current else { return };
        let settings = Settings { sessions: settings.sessions.max(current.sessions), ..settings };
        if settings == *current {
            return;
        }
        *current = settings;
        self.endpoint.set_server_config(Some(config(&self.tls, settings)));
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The socket is broken.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    /// The next client, or `None` after [`close`](Self::close).
    pub async fn accept(&self) -> Option<IncomingQuic> {
        self.endpoint.accept().await.map(IncomingQuic)
    }

    /// Refuses new clients; those that are connected stay.
    pub fn refuse_new(&self) {
        let mut settings = self.settings.lock();
        *settings = None;
        self.endpoint.set_server_config(None);
    }

    /// Waits until every connection has been closed and its peer told.
    pub async fn wait_idle(&self) {
        self.endpoint.wait_idle().await;
    }
}

fn config(tls: &ServerTls, settings: Settings) -> ServerConfig {
    let mut config = ServerConfig::with_crypto(Arc::clone(&tls.quic) as _);
    config
        .transport_config(server_transport(settings))
        .max_incoming(MAX_INCOMING)
        .incoming_buffer_size_total(INCOMING_BYTES);
    config
}

/// A client whose first packet has come.
#[derive(Debug)]
pub struct IncomingQuic(quinn::Incoming);

impl IncomingQuic {
    /// Its address, which may be forged as long as [`validated`](Self::validated) is false.
    #[must_use]
    pub fn remote(&self) -> SocketAddr {
        self.0.remote_address()
    }

    /// Whether the client has shown that it receives at its address.
    #[must_use]
    pub fn validated(&self) -> bool {
        self.0.remote_address_validated()
    }

    /// Refuses it, with one packet.
    pub fn refuse(self) {
        self.0.refuse();
    }

    /// Does the handshake. Where the client sends early data, that is given before the handshake is
    /// complete ([`Connection::early`]).
    ///
    /// # Errors
    /// The client went away or does not fit.
    pub async fn handshake(self) -> Result<Connection, AcceptError> {
        let (conn, mut complete) = match self.0.accept()?.into_0rtt() {
            Ok(both) => both,
            Err(connecting) => return Ok(quic::connection(connecting.await?)),
        };
        // A stream that comes before the end of the handshake can only be early data.
        tokio::select! {
            biased;
            _ = &mut complete => match conn.close_reason() {
                None => Ok(quic::connection(conn)),
                Some(reason) => Err(reason.into()),
            },
            stream = conn.accept_bi() => Ok(quic::early::accepted(conn.clone(), stream?, complete)),
        }
    }
}

/// Listens for TCP.
#[derive(Debug)]
pub struct TcpListener {
    listener: tokio::net::TcpListener,
    tls: Option<Arc<rustls::ServerConfig>>,
    bbr: bool,
}

impl TcpListener {
    /// Binds a TCP socket; without `tls` it speaks in the clear.
    ///
    /// # Errors
    /// The address is in use or not ours.
    pub fn bind(addr: SocketAddr, tls: Option<&ServerTls>, bbr: bool) -> io::Result<Self> {
        let listener = tokio::net::TcpListener::from_std(socket::tcp_listener(addr)?)?;
        let tls = tls.map(|tls| Arc::clone(&tls.tcp));
        Ok(Self { listener, tls, bbr })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The socket is broken.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// The next client.
    ///
    /// # Errors
    /// What `accept(2)` says. Those that name a connection (`ECONNABORTED`) pass; those that name
    /// the process (`EMFILE`) call for a pause.
    pub async fn accept(&self) -> io::Result<IncomingTcp> {
        let (stream, remote) = self.listener.accept().await?;
        Ok(IncomingTcp { stream, remote, tls: self.tls.clone(), bbr: self.bbr })
    }
}

/// A client whose TCP connection stands.
#[derive(Debug)]
pub struct IncomingTcp {
    stream: TcpStream,
    remote: SocketAddr,
    tls: Option<Arc<rustls::ServerConfig>>,
    bbr: bool,
}

impl IncomingTcp {
    /// Its address.
    #[must_use]
    pub fn remote(&self) -> SocketAddr {
        self.remote
    }

    /// Does the TLS handshake, where there is one.
    ///
    /// # Errors
    /// The client went away or does not fit.
    pub async fn handshake(self) -> Result<Connection, AcceptError> {
        socket::tune(&self.stream, self.bbr)?;
        let stream = match self.tls {
            Some(tls) => {
                let stream = TlsAcceptor::from(tls).accept(self.stream).await?;
                Stream::tls(stream.into())
            }
            None => Stream::plain(self.stream),
        };
        Ok(tcp::connection(stream, self.remote, None))
    }
}
