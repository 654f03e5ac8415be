//! A CA, identities of it, a small gRPC server behind links, and whoever dials it.
#![allow(clippy::unwrap_used, clippy::panic, dead_code, missing_docs)]

use std::{
    io::Write,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use edgeway_certs::{DevCa, Request as CertRequest, Usage};
use edgeway_linktls::{DEFAULT_NAME, Identity, Limits, Peer, Pem, causes, incoming};
use edgeway_proto::auth::{
    LoginRequest, LoginResponse,
    auth_client::AuthClient,
    auth_server::{Auth, AuthServer},
};
use rustls::{
    ClientConfig, RootCertStore, SupportedProtocolVersion,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Request, Response, Status, transport::Channel};

/// Far beyond what anything takes: it only ends a test that would hang.
const GIVE_UP: Duration = Duration::from_secs(60);

pub async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(GIVE_UP, what).await.unwrap_or_else(|_| panic!("not within {GIVE_UP:?}"))
}

/// A CA in a directory of its own.
pub struct Ca {
    dir: tempfile::TempDir,
    ca: DevCa,
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

impl Ca {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ca = DevCa::make(dir.path(), "A CA", 365 * DAY, false).unwrap();
        Self { dir, ca }
    }

    pub fn pem(&self) -> Vec<u8> {
        self.ca.pem().into()
    }

    pub fn issue(&self, name: &str, usage: Usage, lifetime: Duration) -> Pem {
        let request = CertRequest { subject: "one", names: &[name], usage, lifetime };
        let saved = self.ca.issue_to(self.dir.path(), &request, true).unwrap();
        let read = |path: PathBuf| std::fs::read(path).unwrap();
        Pem { ca: self.pem(), cert: read(saved.cert_path), key: read(saved.key_path) }
    }

    pub fn member(&self) -> Pem {
        self.issue(DEFAULT_NAME, Usage::Peer, 30 * DAY)
    }

    pub fn identity(&self) -> Identity {
        Identity::from_pem(&self.member(), DEFAULT_NAME).unwrap()
    }

    /// An identity that trusts another CA too.
    pub fn identity_trusting(&self, other: &Self) -> Identity {
        let ca = [self.pem(), other.pem()].concat();
        Identity::from_pem(&Pem { ca, ..self.member() }, DEFAULT_NAME).unwrap()
    }
}

struct Echo;

#[tonic::async_trait]
impl Auth for Echo {
    async fn login(&self, _: Request<LoginRequest>) -> Result<Response<LoginResponse>, Status> {
        Ok(Response::new(LoginResponse::default()))
    }
}

/// A server that runs.
pub struct Server {
    pub addr: SocketAddr,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Server {
    pub async fn start(identity: Option<&Identity>) -> Self {
        Self::with(identity, Limits::default()).await
    }

    pub async fn with(identity: Option<&Identity>, limits: Limits) -> Self {
        log();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let incoming = incoming(listener, identity.cloned(), limits, &tasks, stop.clone());
        let stopped = stop.clone().cancelled_owned();
        let serving = tonic::transport::Server::builder()
            .add_service(AuthServer::new(Echo))
            .serve_with_incoming_shutdown(incoming, stopped);
        tasks.spawn(serving);
        Self { addr, stop, tasks }
    }

    /// A good peer is served.
    #[track_caller]
    pub fn dial(&self, identity: Option<&Identity>) -> impl Future<Output = Result<(), String>> {
        dial(&self.addr.to_string(), identity)
    }

    /// Ends with all that it began.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tasks.close();
        within(self.tasks.wait()).await;
    }
}

/// Connects as a gateway does.
pub async fn connect(addr: &str, identity: Option<&Identity>) -> Result<Channel, String> {
    let peer =
        Peer::new(addr, identity, GIVE_UP, |endpoint| endpoint).map_err(|e| e.to_string())?;
    within(peer.connect()).await.map_err(|e| causes(&e))
}

/// Asks for something.
pub async fn ask(channel: &Channel) -> Result<(), String> {
    let asked = AuthClient::new(channel.clone()).login(LoginRequest::default()).await;
    asked.map(|_| ()).map_err(|status| causes(&status))
}

/// Both, on a connection of its own.
pub fn dial(
    addr: &str,
    identity: Option<&Identity>,
) -> impl Future<Output = Result<(), String>> + use<> {
    let (addr, identity) = (addr.to_owned(), identity.cloned());
    async move { within(ask(&connect(&addr, identity.as_ref()).await?)).await }
}

/// A client of TLS that does what no process of Edgeway would; gives what it is told at the end.
pub struct Stranger {
    pub trusts: Vec<u8>,
    pub shows: Option<Pem>,
    pub version: &'static SupportedProtocolVersion,
    pub alpn: Option<&'static [u8]>,
}

impl Stranger {
    pub fn of(ca: &Ca) -> Self {
        let version = &rustls::version::TLS13;
        Self { trusts: ca.pem(), shows: None, version, alpn: Some(b"h2") }
    }

    pub fn showing(ca: &Ca, pem: Pem) -> Self {
        Self { shows: Some(pem), ..Self::of(ca) }
    }

    pub async fn dial(self, addr: SocketAddr) -> String {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(&self.trusts).unwrap()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[self.version])
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match self.shows {
            None => config.with_no_client_auth(),
            Some(pem) => {
                let chain = vec![CertificateDer::from_pem_slice(&pem.cert).unwrap()];
                let key = PrivateKeyDer::from_pem_slice(&pem.key).unwrap();
                config.with_client_auth_cert(chain, key).unwrap()
            }
        };
        config.alpn_protocols = self.alpn.iter().map(|alpn| alpn.to_vec()).collect();
        let tcp = TcpStream::connect(addr).await.unwrap();
        let name = ServerName::try_from(DEFAULT_NAME).unwrap();
        let talking = async {
            let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
            let mut tls = connector.connect(name, tcp).await?;
            tls.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await?;
            let mut got = Vec::new();
            tls.read_to_end(&mut got).await?;
            Ok::<_, std::io::Error>(got)
        };
        match within(talking).await {
            Ok(got) => format!("served {} bytes", got.len()),
            Err(e) => e.to_string(),
        }
    }
}

/// What has been logged in this process.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

pub fn log() -> &'static Log {
    static LOG: OnceLock<Log> = OnceLock::new();
    LOG.get_or_init(|| {
        let log = Log::default();
        let writer = log.clone();
        tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).init();
        log
    })
}

impl Log {
    /// Waits for a line that holds this.
    pub async fn wait_for(&self, what: &str) {
        within(async {
            while !String::from_utf8_lossy(&self.0.lock().unwrap()).contains(what) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }
}
