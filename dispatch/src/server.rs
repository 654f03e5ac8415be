//! HTTP and HTTPS.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::RwLock;
use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{Dispatch, service::respond};

/// A connection that says nothing for so long is closed.
const SILENCE: Duration = Duration::from_secs(30);
/// A TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long answers that are under way may take when it stops.
const FLUSH: Duration = Duration::from_secs(1);
/// After an accept that failed for want of files.
const PAUSE: Duration = Duration::from_millis(100);
/// A request's head.
const HEAD_BYTES: usize = 16 * 1024;

/// The certificate of HTTPS, which can be replaced while it runs. Cheap to clone.
#[derive(Clone)]
pub struct Tls(Arc<RwLock<Arc<ServerConfig>>>);

impl Tls {
    /// Of PEM texts.
    ///
    /// # Errors
    /// Says what is wrong with them.
    pub fn new(cert: &[u8], key: &[u8]) -> Result<Self, String> {
        Ok(Self(Arc::new(RwLock::new(server_config(cert, key)?))))
    }

    /// Shows new clients another one.
    ///
    /// # Errors
    /// Says what is wrong with it; the old one stays.
    pub fn replace(&self, cert: &[u8], key: &[u8]) -> Result<(), String> {
        *self.0.write() = server_config(cert, key)?;
        Ok(())
    }
}

fn server_config(cert: &[u8], key: &[u8]) -> Result<Arc<ServerConfig>, String> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(cert).collect();
    let chain = chain.map_err(|e| format!("the certificate is no PEM: {e}"))?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|e| format!("the key is no PEM: {e}"))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|e| format!("certificate and key do not fit: {e}"))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// A listener that is bound.
pub struct Listener {
    listener: TcpListener,
    tls: Option<Tls>,
}

impl Listener {
    /// Binds an address; with `tls` for HTTPS.
    ///
    /// # Errors
    /// What the system says.
    pub async fn bind(addr: SocketAddr, tls: Option<Tls>) -> io::Result<Self> {
        Ok(Self { listener: TcpListener::bind(addr).await?, tls })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// What the system says.
    pub fn addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// Serves on all of `listeners` and asks those that are to be asked, until `stop`.
pub async fn run(dispatch: Dispatch, listeners: Vec<Listener>, stop: CancellationToken) {
    let tasks = TaskTracker::new();
    for listener in listeners {
        tasks.spawn(accept(dispatch.clone(), listener, tasks.clone(), stop.clone()));
    }
    tokio::select! {
        () = watch(&dispatch) => {}
        () = crate::probe::run(&dispatch) => {}
        () = stop.cancelled() => {}
    }
    tasks.close();
    let _ = timeout(FLUSH, tasks.wait()).await;
}

async fn watch(dispatch: &Dispatch) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    // At first nothing is known yet, which is nothing to warn of.
    ticks.tick().await;
    loop {
        ticks.tick().await;
        dispatch.watch();
    }
}

async fn accept(
    dispatch: Dispatch,
    listener: Listener,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    let Listener { listener, tls } = listener;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                let is_full = matches!(error.raw_os_error(), Some(23 | 24));
                if is_full {
                    tracing::warn!(%error, "no connection can be accepted");
                    tokio::time::sleep(PAUSE).await;
                }
                continue;
            }
        };
        let (_, most) = dispatch.limits();
        // The listeners are tasks too, which is of no matter here.
        if tasks.len() > most {
            metrics::counter!("edgeway_dispatch_connections_refused_total").increment(1);
            continue;
        }
        let _ = stream.set_nodelay(true);
        let config = tls.as_ref().map(|tls| Arc::clone(&tls.0.read()));
        tasks.spawn(connection(dispatch.clone(), stream, peer, config, stop.clone()));
    }
}

async fn connection(
    dispatch: Dispatch,
    stream: TcpStream,
    peer: SocketAddr,
    tls: Option<Arc<ServerConfig>>,
    stop: CancellationToken,
) {
    match tls {
        None => serve(dispatch, stream, peer, stop).await,
        Some(config) => {
            let handshake = TlsAcceptor::from(config).accept(stream);
            match timeout(HANDSHAKE, handshake).await {
                Ok(Ok(stream)) => serve(dispatch, stream, peer, stop).await,
                Ok(Err(error)) => tracing::debug!(%peer, %error, "no TLS"),
                Err(_) => tracing::debug!(%peer, "no TLS in time"),
            }
        }
    }
}

async fn serve<S>(dispatch: Dispatch, stream: S, peer: SocketAddr, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let dispatch = dispatch.clone();
        async move { Ok::<_, Infallible>(respond(&dispatch, peer.ip(), request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(SILENCE)
        .max_buf_size(HEAD_BYTES)
        .pipeline_flush(true)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "a connection has ended");
    }
}
