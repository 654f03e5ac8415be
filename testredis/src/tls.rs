//! TLS in front of a server. Few builds of the server come with TLS of their own, and to a client
//! this is the same.

use std::{
    net::{Ipv4Addr, TcpListener as StdListener},
    sync::{Arc, OnceLock},
    thread,
};

use edgeway_certs::{DevCa, DevCerts};
use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::oneshot,
};
use tokio_rustls::TlsAcceptor;

/// Takes TLS connections on a port of loopback and passes on what is in them.
pub struct TlsFront {
    port: u16,
    target: Option<oneshot::Sender<u16>>,
    /// Ends the front when it is dropped.
    _stop: oneshot::Sender<()>,
}

impl TlsFront {
    /// A front of a server that listens on this port.
    ///
    /// # Panics
    /// Where it cannot listen.
    #[must_use]
    pub fn start(target: u16) -> Self {
        let mut front = Self::bind();
        front.forward_to(target);
        front
    }

    /// Binds a port. Connections wait until [`Self::forward_to`] says where they go.
    pub(crate) fn bind() -> Self {
        let listener = StdListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (target, targeted) = oneshot::channel();
        let (stop, stopped) = oneshot::channel();
        // A runtime of its own: those of tests end with the tests, and servers may be shared.
        thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                tokio::select! {
                    () = serve(listener, targeted) => {}
                    // Nothing is ever sent: the sender is dropped.
                    _ = stopped => {}
                }
            });
        });
        Self { port, target: Some(target), _stop: stop }
    }

    pub(crate) fn forward_to(&mut self, target: u16) {
        if let Some(sender) = self.target.take() {
            let _ = sender.send(target);
        }
    }

    /// Its port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The authority of its certificate; the same for all fronts of this process.
    #[must_use]
    pub fn ca_pem() -> &'static str {
        &certs().ca_pem
    }
}

async fn serve(listener: StdListener, targeted: oneshot::Receiver<u16>) {
    let acceptor = acceptor();
    let listener = TcpListener::from_std(listener).unwrap();
    let Ok(target) = targeted.await else { return };
    while let Ok((client, _)) = listener.accept().await {
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            let _ = client.set_nodelay(true);
            // Whoever does not speak TLS, and a server that is away, sees the connection close.
            let Ok(mut client) = acceptor.accept(client).await else { return };
            let server = TcpStream::connect((Ipv4Addr::LOCALHOST, target)).await;
            let Ok(mut server) = server else { return };
            let _ = server.set_nodelay(true);
            let _ = copy_bidirectional(&mut client, &mut server).await;
        });
    }
}

fn acceptor() -> TlsAcceptor {
    let certs = certs();
    let chain = CertificateDer::pem_slice_iter(certs.cert_pem.as_bytes());
    let chain = chain.collect::<Result<Vec<_>, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_slice(certs.key_pem.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

fn certs() -> &'static DevCerts {
    static CERTS: OnceLock<DevCerts> = OnceLock::new();
    CERTS.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        // What it made is in memory, too.
        DevCa::ensure(dir.path(), &["127.0.0.1", "localhost"]).unwrap()
    })
}
