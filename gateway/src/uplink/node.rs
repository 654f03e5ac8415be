//! One backend instance: dialling it, and keeping a link to it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use edgeway_linktls::{Identity, Paced, Peer, causes};
use edgeway_proto::{
    CloseCode,
    link::{self, Hello, backend_client::BackendClient, up_item::Item},
};
use metrics::{counter, gauge};
use parking_lot::Mutex;
use tonic::transport::Channel;
use tracing::{info, warn};

use super::{
    AddressError, Link, Links, pulse,
    queue::{Queue, Requests},
};
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
/// After the end of BULK, for what CONTROL still brings: a backend that goes in order has said there why, and when to
/// come back. There is no order between the two.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// While a login is being checked. Never on an idle connection, see [`pulse`].
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// The kernel's own question to a machine that is gone: what it takes in all is this, and [`TCP_PROBES`] times a
/// second.
const TCP_IDLE: Duration = Duration::from_secs(5);
const TCP_PROBES: u32 = 5;
/// Between tries to reach a backend; doubles up to the second. A link that stood for less than that is
/// such a try: a backend that breaks the contract with its first words is not dialled 20 times a second.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// One backend instance.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) addr: String,
    peer: Peer,
    /// For requests beside the link; connects when it is first used.
    pub(super) channel: Channel,
    link: Mutex<Option<Arc<Link>>>,
    /// Whether a task keeps its link.
    pub(super) kept: AtomicBool,
}

impl Node {
    /// Nothing is dialled yet.
    ///
    /// # Errors
    /// An address that is none, or one on another machine without an identity.
    pub(super) fn new(addr: &str, identity: Option<&Identity>) -> Result<Self, AddressError> {
        let peer = Peer::new(addr, identity, CONNECT_TIMEOUT, |endpoint| {
            endpoint
                .tcp_nodelay(true)
                .tcp_keepalive(Some(TCP_IDLE))
                .tcp_keepalive_interval(Some(Duration::from_secs(1)))
                .tcp_keepalive_retries(Some(TCP_PROBES))
                .initial_stream_window_size(WINDOW_BYTES)
                .initial_connection_window_size(WINDOW_BYTES)
        })
        .map_err(|problem| AddressError { addr: addr.to_owned(), problem })?;
        let channel = peer.connect_lazy(|endpoint| {
            endpoint.http2_keep_alive_interval(KEEP_ALIVE).keep_alive_timeout(KEEP_ALIVE)
        });
        Ok(Self {
            addr: addr.to_owned(),
            peer,
            channel,
            link: Mutex::new(None),
            kept: AtomicBool::new(false),
        })
    }

    /// The link, while it stands.
    pub(super) fn link(&self) -> Option<Arc<Link>> {
        self.link.lock().clone()
    }

    /// Ends the link.
    pub(super) fn cut(&self) {
        if let Some(link) = self.link.lock().take() {
            link.control.close();
            link.bulk.close();
        }
    }
}

impl Links {
    /// Dials a backend again and again.
    pub(super) async fn keep(&self, node: &Node, hub: &Arc<Hub>) {
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
        let (control, its_pulse) = open(node, link::Stream::Control, &link.control).await?;
        let (bulk, pulse_of_bulk) = open(node, link::Stream::Bulk, &link.bulk).await?;
        *node.link.lock() = Some(Arc::clone(&link));
        info!(backend = node.addr, "link stands");
        // Keys that are its own come back to it.
        self.changed.notify_one();
        let control = downlink::run(control, id, link::Stream::Control, Arc::clone(hub));
        let bulk = downlink::run(bulk, id, link::Stream::Bulk, Arc::clone(hub));
        // Two tasks, so that signals are dealt with while chat is.
        let (mut control, mut bulk) = (Guard(tokio::spawn(control)), Guard(tokio::spawn(bulk)));
        let reason = tokio::select! {
            r = &mut control.0 => r,
            r = &mut bulk.0 => {
                node.link.lock().take();
                let _ = tokio::time::timeout(LAST_WORDS, &mut control.0).await;
                r
            }
            silent = pulse::silence(its_pulse) => Ok(silent),
            silent = pulse::silence(pulse_of_bulk) => Ok(silent),
        };
        node.link.lock().take();
        link.control.close();
        link.bulk.close();
        // At its end before what it announced is taken back.
        if !bulk.0.is_finished() {
            bulk.0.abort();
            let _ = (&mut bulk.0).await;
        }
        hub.retract_all(id);
        for session in hub.link_lost(id) {
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

/// Opens one stream, on a TCP connection of its own: bulk must not hold up control. Gives the connection
/// too, for its pulse.
async fn open(
    node: &Node,
    stream: link::Stream,
    queue: &Arc<Queue>,
) -> Result<(tonic::Streaming<link::Down>, Channel), String> {
    let channel = node.peer.connect().await.map_err(|e| causes(&e))?;
    let mut client = BackendClient::new(channel.clone())
        .max_decoding_message_size(MESSAGE_BYTES)
        .max_encoding_message_size(MESSAGE_BYTES);
    let requests = Requests(Arc::clone(queue));
    let response = async {
        match stream {
            link::Stream::Control => client.link(requests).await,
            link::Stream::Bulk => client.link(Paced::new(requests)).await,
        }
    };
    match tokio::time::timeout(ANSWER_TIMEOUT, response).await {
        Ok(Ok(response)) => Ok((response.into_inner(), channel)),
        Ok(Err(status)) => Err(causes(&status)),
        Err(_) => Err(format!("it has not answered Hello for {ANSWER_TIMEOUT:?}")),
    }
}
