//! Dialling: channels of tonic over what the config says, TLS or in the clear.

use std::{
    error::Error,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use metrics::counter;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::{
    codegen::{BoxFuture, Service, http::Uri},
    transport::{Channel, Endpoint},
};

use crate::{
    address::{Address, AddressProblem},
    config::Links,
    fault::{Fault, no_http2},
    identity::{ALPN, Identity},
    stream::Stream,
};

/// Another process, as it is dialled. Nothing is, yet.
#[derive(Debug, Clone)]
pub struct Peer {
    endpoint: Endpoint,
    /// None in the clear.
    tls: Option<Connector>,
}

/// Why a process cannot be reached.
#[derive(Debug, thiserror::Error)]
#[error("{fault}{}", hint(.fault))]
pub struct DialError {
    /// What is wrong.
    #[from]
    pub fault: Fault,
}

/// A backend of one's own may be in the clear, and some servers hang up at the first byte of TLS.
const fn hint(fault: &Fault) -> &'static str {
    match fault {
        Fault::Clear | Fault::Gone => {
            " (a backend on this machine that is in the clear on purpose is written http://HOST:PORT)"
        }
        _ => "",
    }
}

impl Peer {
    /// `address` is HOST:PORT, TLS with an identity and else in the clear, or http://HOST:PORT, always in the clear.
    /// `limit` is for TCP and TLS together; `tune` sets what else HTTP/2 needs.
    ///
    /// # Errors
    /// No address, or one that is not of loopback and would be dialled in the clear: this is where that is
    /// impossible, whoever asks.
    pub fn new(
        address: &str,
        identity: Option<&Identity>,
        limit: Duration,
        tune: impl FnOnce(Endpoint) -> Endpoint,
    ) -> Result<Self, AddressProblem> {
        let links = identity.map_or(Links::Off, |identity| Links::On(identity.clone()));
        links.check(address)?;
        let Address { authority, clear, .. } = Address::parse(address)?;
        let no_uri =
            |e: &(dyn Error + 'static)| AddressProblem(format!("cannot be dialled: {}", causes(e)));
        let endpoint =
            Endpoint::from_shared(format!("http://{authority}")).map_err(|e| no_uri(&e))?;
        let endpoint = tune(endpoint);
        let Some(identity) = identity.filter(|_| !clear) else {
            return Ok(Self { endpoint: endpoint.connect_timeout(limit), tls: None });
        };
        // What requests say of themselves. (With https in its own address tonic would want to do TLS itself.)
        let origin = format!("https://{authority}").parse().map_err(|e| no_uri(&e))?;
        let (authority, keepalive) = (authority.into(), keepalive(&endpoint));
        let tls = Connector { authority, identity: identity.clone(), limit, keepalive };
        Ok(Self { endpoint: endpoint.origin(origin), tls: Some(tls) })
    }

    /// Connects. In TLS 1.3 a refusal of our certificate comes with the first answer, not here.
    ///
    /// # Errors
    /// With causes; see [`causes`].
    pub async fn connect(&self) -> Result<Channel, tonic::transport::Error> {
        match &self.tls {
            Some(tls) => self.endpoint.connect_with_connector(tls.clone()).await,
            None => self.endpoint.connect().await,
        }
    }

    /// Connects when it is first used, and again when that is lost. `tune` sets what this channel needs besides.
    #[must_use]
    pub fn connect_lazy(&self, tune: impl FnOnce(Endpoint) -> Endpoint) -> Channel {
        let endpoint = tune(self.endpoint.clone());
        match &self.tls {
            Some(tls) => endpoint.connect_with_connector_lazy(tls.clone()),
            None => endpoint.connect_lazy(),
        }
    }
}

/// Dials TCP and does the handshake, with the certificates of that moment.
#[derive(Debug, Clone)]
struct Connector {
    authority: Arc<str>,
    identity: Identity,
    limit: Duration,
    keepalive: Option<TcpKeepalive>,
}

/// What tonic does where it dials itself.
fn keepalive(endpoint: &Endpoint) -> Option<TcpKeepalive> {
    let mut keepalive = TcpKeepalive::new().with_time(endpoint.get_tcp_keepalive()?);
    if let Some(interval) = endpoint.get_tcp_keepalive_interval() {
        keepalive = keepalive.with_interval(interval);
    }
    if let Some(retries) = endpoint.get_tcp_keepalive_retries() {
        keepalive = keepalive.with_retries(retries);
    }
    Some(keepalive)
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = DialError;
    type Future = BoxFuture<Self::Response, DialError>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), DialError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let stream = this.dial().await.inspect_err(|fault| {
                counter!("edgeway_links_dial_failures_total", "cause" => fault.label())
                    .increment(1);
            })?;
            Ok(TokioIo::new(stream))
        })
    }
}

impl Connector {
    async fn dial(&self) -> Result<Stream, Fault> {
        let limit = self.limit;
        let late = |what: &str| Fault::Io(format!("{what} after {limit:?}"));
        let tcp = tokio::time::timeout(limit, TcpStream::connect(&*self.authority))
            .await
            .map_err(|_| late("no TCP connection"))?
            .map_err(|e| Fault::Io(format!("tcp connect error: {e}")))?;
        tcp.set_nodelay(true).map_err(|e| Fault::of(&e))?;
        if let Some(keepalive) = &self.keepalive {
            SockRef::from(&tcp).set_tcp_keepalive(keepalive).map_err(|e| Fault::of(&e))?;
        }
        let current = self.identity.current();
        let tls = TlsConnector::from(Arc::clone(&current.client));
        let connecting = Box::pin(tls.connect(current.name.clone(), tcp));
        let tls = tokio::time::timeout(limit, connecting)
            .await
            .map_err(|_| Fault::Silent)?
            .map_err(|e| Fault::of(&e))?;
        if tls.get_ref().1.alpn_protocol() != Some(ALPN) {
            return Err(no_http2());
        }
        Ok(Stream::Tls(Box::new(tls.into())))
    }
}

/// An error with its causes: tonic's own text says only "transport error". What is said is not said again.
#[must_use]
pub fn causes(error: &(dyn Error + 'static)) -> String {
    let first = match error.downcast_ref::<tonic::Status>() {
        // Its own text is for debugging.
        Some(status) => format!("{}: {}", status.code(), status.message()),
        None => error.to_string(),
    };
    let sources = std::iter::successors(error.source(), |cause| (*cause).source());
    sources.map(ToString::to_string).fold(first, |text, cause| {
        if text.contains(&cause) { text } else { format!("{text}: {cause}") }
    })
}
