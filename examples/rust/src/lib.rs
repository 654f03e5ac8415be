//! An Edgeway backend in Rust: quizzes, in which members ask, answer and chat. It serves a Session type
//! that no code of Edgeway knows; `docs/BACKENDS.md` says what such a backend must do.
//!
//! A member sends signals, which are commands (`ask QUESTION|CHOICE|CHOICE`, `answer N`, `end`), and chat,
//! which are remarks for everybody. A frame of kind 0x80 comes back as it went.

mod link;
mod quiz;
mod sessions;

use std::{collections::HashMap, sync::Arc, time::Duration};

use edgeway_proto::link::{
    Hello, Stream, Up, UpItem, Welcome,
    backend_server::{Backend, BackendServer},
    down_item, up_item,
};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Certificate, Identity, Server, ServerTlsConfig, server::TcpIncoming},
};

use crate::{
    link::{Drain, Link},
    sessions::Sessions,
};

/// How long a stream may take for its hello.
const HELLO: Duration = Duration::from_secs(10);

/// A gateway that hangs is given up after twice this.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// The most that a message of a gateway may take.
const MESSAGE_BYTES: usize = 16 * 1024 * 1024;

/// A handshake takes milliseconds; who connects and says nothing is cut.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// PEM texts of `[links]`, for gateways that have them: TLS with certificates of both sides.
#[derive(Clone)]
pub struct LinkPem {
    /// `links.ca`: whose gateways are let in.
    pub ca: Vec<u8>,
    /// `links.cert`: must carry `links.name`, which gateways look for.
    pub cert: Vec<u8>,
    /// `links.key`.
    pub key: Vec<u8>,
}

/// A server, in the clear without certificates.
///
/// # Errors
/// What is not PEM, or a key of another certificate.
fn server(links: Option<LinkPem>) -> Result<Server, tonic::transport::Error> {
    let server = Server::builder()
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE));
    let Some(LinkPem { ca, cert, key }) = links else { return Ok(server) };
    let tls = ServerTlsConfig::new()
        .identity(Identity::from_pem(cert, key))
        // With this one, a gateway without a certificate of that CA is refused.
        .client_ca_root(Certificate::from_pem(ca))
        .timeout(HANDSHAKE);
    server.tls_config(tls)
}

/// Serves gateways until `stop`; then tells every client to come back in a second.
///
/// # Errors
/// The certificates are not good, or the listener fails.
pub async fn serve(
    listener: TcpListener,
    links: Option<LinkPem>,
    stop: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let mut random = [0; 8];
    // Without randomness the clock has to tell runs apart.
    let random = getrandom::fill(&mut random)
        .map_or_else(|_| sessions::now_ms() << 23, |()| u64::from_le_bytes(random));
    let service = Service(Arc::new(Shared {
        run: random,
        sessions: Mutex::new(Sessions::new(random)),
        links: Mutex::default(),
    }));
    let shared = Arc::clone(&service.0);
    // Messages are batches already: to wait for more to come could only add delay.
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let backend = BackendServer::new(service).max_decoding_message_size(MESSAGE_BYTES);
    server(links)?
        .add_service(backend)
        .serve_with_incoming_shutdown(incoming, async move {
            stop.cancelled().await;
            shared.goodbye();
        })
        .await
}

struct Shared {
    /// Names this run to gateways.
    run: u64,
    sessions: Mutex<Sessions>,
    /// By gateway: each has one.
    links: Mutex<HashMap<u64, Arc<Link>>>,
}

impl Shared {
    /// The link that a hello names; a newer one of the same gateway ends the older.
    fn attach(&self, hello: &Hello) -> Arc<Link> {
        let current = self.links.lock().get(&hello.gateway).cloned();
        match current {
            Some(link) if link.number == hello.link => return link,
            Some(older) => self.end(&older),
            None => {}
        }
        let link = Link::new(hello);
        self.links.lock().insert(hello.gateway, Arc::clone(&link));
        link
    }

    /// Either stream has ended, so the link has. More than once is no harm.
    fn end(&self, link: &Arc<Link>) {
        link.cut();
        self.sessions.lock().link_gone(link);
        let mut links = self.links.lock();
        if links.get(&link.gateway).is_some_and(|current| Arc::ptr_eq(current, link)) {
            links.remove(&link.gateway);
        }
    }

    fn goodbye(&self) {
        self.sessions.lock().goodbye();
        // With CONTROL, which has said goodbye, the link ends.
        self.links.lock().values().for_each(|link| link.finish(Stream::Control));
    }

    /// Only as fast as it is worked off: HTTP/2 then slows the gateway, and that its clients.
    async fn read(&self, link: &Arc<Link>, first: Vec<UpItem>, mut up: Streaming<Up>) {
        let mut items = first;
        loop {
            for item in items.drain(..).filter_map(|item| item.item) {
                self.item(link, item);
            }
            let message = tokio::select! {
                message = up.message() => message,
                () = link.ended.cancelled() => return,
            };
            match message {
                Ok(Some(up)) => items = up.items,
                Ok(None) | Err(_) => return,
            }
        }
    }

    fn item(&self, link: &Arc<Link>, item: up_item::Item) {
        let mut sessions = self.sessions.lock();
        match item {
            up_item::Item::Hello(_) => {}
            up_item::Item::Open(open) => sessions.open(link, open),
            up_item::Item::Data(data) => sessions.data(link, data),
            up_item::Item::Close(close) => sessions.closed(link, close.session),
            up_item::Item::Confirm(confirm) => sessions.confirm(link, confirm.session),
            // What a login may do is of no account here.
            up_item::Item::Renewed(_) => {}
        }
    }
}

#[derive(Clone)]
struct Service(Arc<Shared>);

#[tonic::async_trait]
impl Backend for Service {
    type LinkStream = Drain;

    async fn link(&self, request: Request<Streaming<Up>>) -> Result<Response<Drain>, Status> {
        let mut up = request.into_inner();
        let first = tokio::time::timeout(HELLO, up.message())
            .await
            .map_err(|_| Status::deadline_exceeded("no hello"))??;
        let mut items = first.map(|up| up.items).unwrap_or_default().into_iter();
        let Some(up_item::Item::Hello(hello)) = items.next().and_then(|item| item.item) else {
            return Err(Status::invalid_argument("the first item must be hello"));
        };
        let stream = Stream::try_from(hello.stream)
            .map_err(|_| Status::invalid_argument("hello.stream must be CONTROL or BULK"))?;
        let link = self.0.attach(&hello);
        if !link.attach(stream) {
            return Err(Status::already_exists("this stream of the link is open already"));
        }
        let welcome = Welcome { backend: self.0.run, name: "quiz (rust)".into() };
        link.send(stream, down_item::Item::Welcome(welcome));
        let (shared, reading) = (Arc::clone(&self.0), Arc::clone(&link));
        tokio::spawn(async move {
            shared.read(&reading, items.collect(), up).await;
            shared.end(&reading);
        });
        Ok(Response::new(Drain { link, stream }))
    }
}
