//! Connecting, over either transport.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use edgeway_proto::{CloseCode, Return};
use parking_lot::Mutex;
use quinn::{ClientConfig, Endpoint, EndpointConfig, TokioRuntime};
use rustls_pki_types::ServerName;
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;

use crate::{
    Connection, Settings, client_transport, quic, socket,
    tcp::{self, Stream},
    tls::ClientTls,
};

/// Why a connection could not be made.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The name cannot stand in a certificate.
    #[error("`{0}` is no host name or address")]
    Name(String),
    /// A local socket could not be made.
    #[error("local socket: {0}")]
    Socket(#[source] io::Error),
    /// QUIC could not be started.
    #[error("QUIC: {0}")]
    Connect(#[from] quinn::ConnectError),
    /// The QUIC handshake failed.
    #[error("QUIC handshake: {0}")]
    Quic(#[from] quinn::ConnectionError),
    /// TCP or its TLS handshake failed.
    #[error("TCP: {0}")]
    Tcp(#[source] io::Error),
}

impl DialError {
    /// The server's own word, where it gave one.
    #[must_use]
    pub fn close_code(&self) -> Option<CloseCode> {
        match self {
            Self::Quic(quinn::ConnectionError::ApplicationClosed(close)) => {
                Some(CloseCode::from_code(close.error_code.into_inner()))
            }
            _ => None,
        }
    }

    /// Whether another try may succeed.
    #[must_use]
    pub fn may_retry(&self) -> bool {
        match self {
            Self::Name(_) => false,
            other => other.close_code().is_none_or(|code| code.may_return() != Return::No),
        }
    }
}

/// Makes connections. One QUIC endpoint (a UDP socket) for each address family serves all
/// connections of a dialer.
#[derive(Debug)]
pub struct Dialer {
    tls: ClientTls,
    settings: Settings,
    bind: Option<IpAddr>,
    v4: Mutex<Option<Endpoint>>,
    v6: Mutex<Option<Endpoint>>,
}

impl Dialer {
    /// A dialer; sockets are made when they are first needed.
    #[must_use]
    pub fn new(tls: ClientTls, settings: Settings) -> Self {
        Self { tls, settings, bind: None, v4: Mutex::new(None), v6: Mutex::new(None) }
    }

    /// Has all sockets use this address of the machine, to peers of the same address family.
    #[must_use]
    pub fn bind(mut self, address: Option<IpAddr>) -> Self {
        self.bind = address;
        self
    }

    /// The address of a new socket for a peer.
    fn local(&self, to: SocketAddr) -> SocketAddr {
        let any: IpAddr = match to {
            SocketAddr::V4(_) => [0, 0, 0, 0].into(),
            SocketAddr::V6(_) => [0u16; 8].into(),
        };
        let bind = self.bind.filter(|address| address.is_ipv4() == to.is_ipv4());
        (bind.unwrap_or(any), 0).into()
    }

    fn endpoint(&self, to: SocketAddr) -> Result<Endpoint, DialError> {
        let slot = if to.is_ipv4() { &self.v4 } else { &self.v6 };
        let mut slot = slot.lock();
        if let Some(endpoint) = &*slot {
            return Ok(endpoint.clone());
        }
        let socket = socket::udp(self.local(to)).map_err(DialError::Socket)?;
        let config = EndpointConfig::default();
        let endpoint = Endpoint::new(config, None, socket, Arc::new(TokioRuntime))
            .map_err(DialError::Socket)?;
        *slot = Some(endpoint.clone());
        Ok(endpoint)
    }

    /// Moves all QUIC connections of this dialer to new sockets: for when the network has changed
    /// and the path of the old ones may be dead. The connections go on, and say at once where they
    /// are now. Nothing happens to TCP.
    ///
    /// # Errors
    /// A socket could not be made; the old ones stay.
    pub fn rebind(&self) -> io::Result<()> {
        let endpoints = [self.v4.lock().clone(), self.v6.lock().clone()];
        for endpoint in endpoints.into_iter().flatten() {
            endpoint.rebind(socket::udp(self.local(endpoint.local_addr()?))?)?;
        }
        Ok(())
    }

    /// Connects over QUIC. `name` is what the server's certificate must say.
    ///
    /// # Errors
    /// See [`DialError`].
    pub async fn quic(&self, addr: SocketAddr, name: &str) -> Result<Connection, DialError> {
        Ok(quic::connection(self.connecting(addr, name)?.await?))
    }

    /// The same, without waiting for the handshake where the server is known from before
    /// ([`Connection::early`]). What is written until then can be sent again by whoever records it: it
    /// must say nothing secret, and do nothing that must not be done twice.
    ///
    /// # Errors
    /// See [`DialError`].
    pub async fn quic_early(&self, addr: SocketAddr, name: &str) -> Result<Connection, DialError> {
        match self.connecting(addr, name)?.into_0rtt() {
            Ok((conn, accepted)) => Ok(quic::early::dialled(conn, accepted)),
            Err(connecting) => Ok(quic::connection(connecting.await?)),
        }
    }

    fn connecting(&self, addr: SocketAddr, name: &str) -> Result<quinn::Connecting, DialError> {
        let mut config = ClientConfig::new(Arc::clone(&self.tls.quic) as _);
        config.transport_config(client_transport(self.settings));
        Ok(self.endpoint(addr)?.connect_with(config, addr, name)?)
    }

    /// Connects over TCP with TLS.
    ///
    /// # Errors
    /// See [`DialError`].
    pub async fn tcp(&self, addr: SocketAddr, name: &str) -> Result<Connection, DialError> {
        let server =
            ServerName::try_from(name.to_owned()).map_err(|_| DialError::Name(name.to_owned()))?;
        let stream = self.connect(addr).await.map_err(DialError::Tcp)?;
        let tls = TlsConnector::from(Arc::clone(&self.tls.tcp));
        let stream = tls.connect(server, stream).await.map_err(DialError::Tcp)?;
        Ok(tcp::connection(Stream::tls(stream.into()), addr, Some(false)))
    }

    async fn connect(&self, addr: SocketAddr) -> io::Result<TcpStream> {
        let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if self.bind.is_some() {
            socket.bind(self.local(addr))?;
        }
        let stream = socket.connect(addr).await?;
        socket::tune(&stream, self.settings.tcp_bbr)?;
        Ok(stream)
    }

    /// Connects over TCP in the clear, speaking records, or bare frames where `legacy`.
    ///
    /// # Errors
    /// See [`DialError`].
    pub async fn plain(addr: SocketAddr, legacy: bool) -> Result<Connection, DialError> {
        let stream = TcpStream::connect(addr).await.map_err(DialError::Tcp)?;
        socket::tune(&stream, true).map_err(DialError::Tcp)?;
        Ok(tcp::connection(Stream::plain(stream), addr, Some(legacy)))
    }

    /// Waits until the peers of all closed connections have been told.
    pub async fn wait_idle(&self) {
        let endpoints = [self.v4.lock().clone(), self.v6.lock().clone()];
        for endpoint in endpoints.into_iter().flatten() {
            endpoint.wait_idle().await;
        }
    }
}
