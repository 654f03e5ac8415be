//! Links to backends: dialling them, keeping them, and sending on them.

mod queue;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use edgeway_proto::{
    CloseCode,
    auth::{LoginRequest, LoginResponse, auth_client::AuthClient},
    link::{self, Hello, backend_client::BackendClient, up_item::Item},
};
use metrics::{counter, gauge};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::transport::{Channel, Endpoint};
use tracing::{info, warn};

pub use queue::Return;
use queue::{Queue, Requests};

use crate::{downlink, hub::Hub};

/// Bytes that may wait on one stream of a link. A backend that is away for a second at full load
/// fits; what is above is refused to clients rather than kept.
const QUEUE_BYTES: usize = 32 * 1024 * 1024;

/// A message of a link: a publication may carry a burst of a large room.
const MESSAGE_BYTES: usize = 16 * 1024 * 1024;

/// HTTP/2 windows: what a burst needs to travel without waiting for the peer.
const WINDOW_BYTES: u32 = 4 * 1024 * 1024;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// From Hello to the first sign that the backend has taken the stream. One that accepts calls and
/// answers none must look as away as it is.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// Between tries to reach a backend; doubles up to the second. A link that stood for less than that is
/// such a try: a backend that breaks the contract with its first words is not dialled 20 times a second.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// A link that stands.
#[derive(Debug)]
pub struct Link {
    /// Unique in the life of the gateway.
    pub id: u64,
    control: Arc<Queue>,
    bulk: Arc<Queue>,
}

impl Link {
    /// Sends an item of about `bytes` on a stream. False where there is no room or the link is
    /// gone.
    pub fn send(
        &self,
        stream: link::Stream,
        item: Item,
        bytes: usize,
        credit: Option<Return>,
    ) -> bool {
        // What an item takes beside its frames.
        let bytes = bytes.max(64);
        match stream {
            link::Stream::Control => self.control.push(item, bytes, credit),
            link::Stream::Bulk => self.bulk.push(item, bytes, credit),
        }
    }

    /// Whether it has ended.
    pub fn is_lost(&self) -> bool {
        self.control.is_closed() || self.bulk.is_closed()
    }
}

/// One backend instance.
#[derive(Debug)]
struct Node {
    addr: String,
    endpoint: Endpoint,
    /// For requests beside the link; connects when it is first used.
    channel: Channel,
    link: Mutex<Option<Arc<Link>>>,
}

/// All backends of a gateway.
#[derive(Debug)]
pub struct Links {
    nodes: Vec<Arc<Node>>,
    backends: HashMap<String, Vec<Arc<Node>>>,
    next: AtomicU64,
    gateway: u64,
    name: String,
}

/// Why the backends cannot be used as configured.
#[derive(Debug, thiserror::Error)]
#[error("backend address `{addr}`: {problem}; expected host:port")]
pub struct AddressError {
    addr: String,
    problem: String,
}

impl Links {
    /// The backends as configured; nothing is dialled yet.
    ///
    /// # Errors
    /// An address that is none.
    pub fn new(
        gateway: u64,
        name: &str,
        backends: &BTreeMap<String, Vec<String>>,
    ) -> Result<Arc<Self>, AddressError> {
        let mut nodes: BTreeMap<&String, Arc<Node>> = BTreeMap::new();
        let mut by_name = HashMap::new();
        for (backend, addrs) in backends {
            let mut of_backend = Vec::new();
            for addr in addrs {
                if !nodes.contains_key(addr) {
                    nodes.insert(addr, Arc::new(node(addr)?));
                }
                of_backend.extend(nodes.get(addr).cloned());
            }
            by_name.insert(backend.clone(), of_backend);
        }
        Ok(Arc::new(Self {
            nodes: nodes.into_values().collect(),
            backends: by_name,
            next: AtomicU64::new(1),
            gateway,
            name: name.to_owned(),
        }))
    }

    /// Keeps a link to every backend instance until `shutdown`.
    pub fn run(
        self: &Arc<Self>,
        hub: &Arc<Hub>,
        tracker: &TaskTracker,
        runtime: &Handle,
        shutdown: &CancellationToken,
    ) {
        for node in &self.nodes {
            let (links, node, hub) = (Arc::clone(self), Arc::clone(node), Arc::clone(hub));
            let shutdown = shutdown.clone();
            let keep = async move {
                tokio::select! {
                    () = links.keep(&node, &hub) => {}
                    () = shutdown.cancelled() => {}
                }
                if let Some(link) = node.link.lock().take() {
                    link.control.close();
                    link.bulk.close();
                }
            };
            tracker.spawn_on(keep, runtime);
        }
    }

    /// The backends that cannot be reached now, by address.
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        self.nodes.iter().filter(|n| n.link.lock().is_none()).map(|n| n.addr.clone()).collect()
    }

    /// The link for a key among the instances of a backend that can be reached: the one with the
    /// highest hash of (instance, key), so that an instance more or less moves only its own keys.
    #[must_use]
    pub fn pick(&self, backend: &str, key: &str) -> Option<Arc<Link>> {
        self.ranked(backend, key).find_map(|node| node.link.lock().clone())
    }

    /// Asks access who a login is.
    ///
    /// # Errors
    /// Access cannot be reached or does not answer in time.
    pub async fn login(
        &self,
        backend: &str,
        request: LoginRequest,
    ) -> Result<LoginResponse, String> {
        let node = self
            .ranked(backend, &request.user)
            .find(|node| node.link.lock().is_some())
            .ok_or_else(|| format!("no instance of backend `{backend}` can be reached"))?;
        AuthClient::new(node.channel.clone())
            .login(request)
            .await
            .map(tonic::Response::into_inner)
            .map_err(|status| format!("{}: {}", status.code(), status.message()))
    }

    fn ranked(&self, backend: &str, key: &str) -> impl Iterator<Item = &Arc<Node>> {
        let mut nodes: Vec<_> = self.backends.get(backend).into_iter().flatten().collect();
        nodes.sort_by_cached_key(|node| {
            let seed = xxhash_rust::xxh3::xxh3_64(node.addr.as_bytes());
            std::cmp::Reverse(xxhash_rust::xxh3::xxh3_64_with_seed(key.as_bytes(), seed))
        });
        nodes.into_iter()
    }

    /// Dials a backend again and again.
    async fn keep(&self, node: &Node, hub: &Arc<Hub>) {
        let mut backoff = BACKOFF.0;
        let mut told = false;
        loop {
            let begun = Instant::now();
            match self.link(node, hub).await {
                Ok(reason) => {
                    warn!(backend = node.addr, reason, "link lost");
                    counter!("edgeway_gateway_link_lost_total", "backend" => node.addr.clone())
                        .increment(1);
                    let stood = begun.elapsed() >= BACKOFF.1;
                    backoff = if stood { BACKOFF.0 } else { (backoff * 2).min(BACKOFF.1) };
                    told = false;
                }
                Err(problem) => {
                    // Once for each time that it goes away, not once for each try.
                    if !told {
                        warn!(backend = node.addr, problem, "backend cannot be reached; trying on");
                        told = true;
                    }
                    backoff = (backoff * 2).min(BACKOFF.1);
                }
            }
            tokio::time::sleep(backoff).await;
        }
    }

    /// One life of a link: `Ok` says why it ended, `Err` why it did not begin.
    async fn link(&self, node: &Node, hub: &Arc<Hub>) -> Result<String, String> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let queue = |stream: link::Stream| {
            let label = stream.as_str_name().to_lowercase();
            let gauge = gauge!("edgeway_gateway_link_bytes", "backend" => node.addr.clone(), "stream" => label);
            let queue = Queue::new(QUEUE_BYTES, gauge);
            let hello = Hello {
                gateway: self.gateway,
                name: self.name.clone(),
                link: id,
                stream: stream.into(),
            };
            queue.push(Item::Hello(hello), 64, None);
            queue
        };
        let link = Arc::new(Link {
            id,
            control: queue(link::Stream::Control),
            bulk: queue(link::Stream::Bulk),
        });
        let control = open(node, &link.control).await?;
        let bulk = open(node, &link.bulk).await?;
        *node.link.lock() = Some(Arc::clone(&link));
        info!(backend = node.addr, "link stands");
        let control = downlink::run(control, id, link::Stream::Control, Arc::clone(hub));
        let bulk = downlink::run(bulk, id, link::Stream::Bulk, Arc::clone(hub));
        // Two tasks, so that signals are dealt with while chat is.
        let (mut control, mut bulk) = (Guard(tokio::spawn(control)), Guard(tokio::spawn(bulk)));
        let reason = tokio::select! {
            r = &mut control.0 => r,
            r = &mut bulk.0 => r,
        };
        node.link.lock().take();
        link.control.close();
        link.bulk.close();
        for session in hub.depending_on(id) {
            session.close(CloseCode::BackendLost, "the link to the backend was lost", 0);
        }
        Ok(reason.unwrap_or_else(|e| e.to_string()))
    }
}

/// A task that ends with its owner.
struct Guard<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for Guard<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn node(addr: &str) -> Result<Node, AddressError> {
    let endpoint = Endpoint::from_shared(format!("http://{addr}"))
        .map_err(|e| AddressError { addr: addr.to_owned(), problem: e.to_string() })?
        .tcp_nodelay(true)
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES);
    let channel = endpoint.connect_lazy();
    Ok(Node { addr: addr.to_owned(), endpoint, channel, link: Mutex::new(None) })
}

/// Opens one stream, on a TCP connection of its own: bulk must not hold up control.
async fn open(node: &Node, queue: &Arc<Queue>) -> Result<tonic::Streaming<link::Down>, String> {
    let channel = node.endpoint.connect().await.map_err(|e| chain(&e))?;
    let mut client = BackendClient::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES)
        .max_encoding_message_size(MESSAGE_BYTES);
    let response = client.link(Requests(Arc::clone(queue)));
    match tokio::time::timeout(ANSWER_TIMEOUT, response).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(format!("{}: {}", status.code(), status.message())),
        Err(_) => Err(format!("it has not answered Hello for {ANSWER_TIMEOUT:?}")),
    }
}

/// An error with its causes: tonic's own text says only "transport error".
fn chain(e: &dyn std::error::Error) -> String {
    let mut text = e.to_string();
    let mut source = e.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
