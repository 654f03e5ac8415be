//! QUIC endpoints with the settings of Edgeway's own.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use anyhow::{Context, Result};
use edgeway_certs::DevCerts;
use edgeway_transport::{Settings, client_transport, server_transport};
use quinn::{
    ClientConfig, Endpoint, EndpointConfig, ServerConfig, TokioRuntime,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use socket2::{Domain, Protocol, Socket, Type};

use crate::tls;

/// What Edgeway's transport asks of the kernel for its UDP sockets.
const UDP_BUFFER_BYTES: usize = 8 * 1024 * 1024;

/// An endpoint that takes connections, on a free port of the loopback.
pub fn server(certs: &DevCerts) -> Result<Endpoint> {
    let crypto = QuicServerConfig::try_from(tls::quic_server(certs)?)?;
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    config.transport_config(server_transport(Settings::default()));
    endpoint(Some(config))
}

/// `sockets` endpoints that make connections.
pub fn clients(ca_pem: &str, sockets: u32) -> Result<Vec<Endpoint>> {
    let crypto = QuicClientConfig::try_from(tls::quic_client(ca_pem)?)?;
    let mut config = ClientConfig::new(Arc::new(crypto));
    config.transport_config(client_transport(Settings::default()));
    (0..sockets)
        .map(|_| {
            let mut endpoint = endpoint(None)?;
            endpoint.set_default_client_config(config.clone());
            Ok(endpoint)
        })
        .collect()
}

/// Connects over the endpoint whose turn it is.
pub fn connect(
    endpoints: &[Endpoint],
    n: u32,
    addr: SocketAddr,
) -> impl Future<Output = Result<quinn::Connection>> + Send + 'static {
    let connecting = endpoints[n as usize % endpoints.len()].connect(addr, tls::SERVER_NAME);
    async move { Ok(connecting?.await?) }
}

fn endpoint(server: Option<ServerConfig>) -> Result<Endpoint> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    // Smaller buffers work too: the kernel grants what net.core.rmem_max allows.
    let _ = socket.set_recv_buffer_size(UDP_BUFFER_BYTES);
    let _ = socket.set_send_buffer_size(UDP_BUFFER_BYTES);
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    socket.set_nonblocking(true)?;
    let config = EndpointConfig::default();
    Endpoint::new(config, server, socket.into(), Arc::new(TokioRuntime))
        .context("cannot open a QUIC endpoint")
}
