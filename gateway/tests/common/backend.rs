//! A backend of link.proto and auth.proto in a few lines: it opens every Session, sends back what
//! it gets, tells the test about it, and sends whatever the test wants.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use edgeway_proto::{
    Class, CloseCode, Seq,
    auth::{
        Accepted, LoginRequest, LoginResponse, Rejected,
        auth_server::{Auth, AuthServer},
        login_response,
    },
    frame::{Deliver, method},
    link::{
        self, Data, Down, DownItem, Opened, Publish, Subscribe, Up, Welcome,
        backend_server::{Backend as Service, BackendServer},
        down_item::Item,
        up_item,
    },
};
use parking_lot::Mutex;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_stream::{
    StreamExt,
    wrappers::{TcpListenerStream, UnboundedReceiverStream},
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::within;

/// What the gateway told it.
#[derive(Debug)]
pub enum Event {
    Open(link::Open),
    Data(Data),
    Close(link::Close),
    Renewed(link::Renewed),
    Confirm(link::Confirm),
}

type Out = UnboundedSender<Result<Down, Status>>;

#[derive(Debug)]
struct Shared {
    events: UnboundedSender<Event>,
    /// Both streams of each link.
    links: Mutex<HashMap<u64, HashMap<link::Stream, Out>>>,
    lost: Mutex<CancellationToken>,
    generation: AtomicU64,
    streams: AtomicU64,
    mute: AtomicBool,
}

impl Shared {
    fn send(&self, stream: link::Stream, items: Vec<Item>) {
        let items = items.into_iter().map(|item| DownItem { item: Some(item) }).collect();
        let links = self.links.lock();
        let out = links.keys().max().and_then(|link| links[link].get(&stream)).unwrap();
        let _ = out.send(Ok(Down { items }));
    }
}

/// See the module.
pub struct Backend {
    pub addr: SocketAddr,
    shared: Arc<Shared>,
    events: UnboundedReceiver<Event>,
    stop: CancellationToken,
    server: tokio::task::JoinHandle<()>,
}

impl Backend {
    pub async fn start() -> Self {
        Self::at("127.0.0.1:0".parse().unwrap()).await
    }

    /// At an address, such as one that another backend had.
    pub async fn at(addr: SocketAddr) -> Self {
        let listener = tokio::net::TcpListener::bind(addr).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (to, events) = unbounded_channel();
        let shared = Arc::new(Shared {
            events: to,
            links: Mutex::default(),
            lost: Mutex::default(),
            generation: AtomicU64::new(0),
            streams: AtomicU64::new(0),
            mute: AtomicBool::new(false),
        });
        let stop = CancellationToken::new();
        let handle = Handle(Arc::clone(&shared));
        let stopped = stop.clone();
        let server = tokio::spawn(async move {
            tonic::transport::Server::builder()
                .add_service(BackendServer::new(handle.clone()))
                .add_service(AuthServer::new(handle))
                .serve_with_incoming_shutdown(
                    TcpListenerStream::new(listener),
                    stopped.cancelled_owned(),
                )
                .await
                .unwrap();
        });
        Self { addr, shared, events, stop, server }
    }

    /// Sends an item on the stream that its class travels on.
    pub fn send(&self, class: Class, item: Item) {
        self.shared.send(stream(class), vec![item]);
    }

    /// Frames for one Session.
    pub fn data(&self, session: u64, class: Class, frames: Bytes) {
        let class_n = link::Class::from(class).into();
        self.send(class, Item::Data(Data { session, class: class_n, frames, ..Data::default() }));
    }

    /// Subscribes a Session from a head on.
    pub fn subscribe(&self, session: u64, group: u64, class: Class, head: Seq, have: Option<Seq>) {
        let class_n = link::Class::from(class).into();
        let (head, have) = (Some(head.into()), have.map(Into::into));
        self.send(
            class,
            Item::Subscribe(Subscribe {
                session,
                group,
                class: class_n,
                head,
                have,
                elsewhere: false,
            }),
        );
    }

    /// Publishes messages of epoch 1, in one item.
    pub fn publish(&self, group: u64, class: Class, first: u64, count: u32, size: usize) {
        let mut frames = bytes::BytesMut::new();
        for n in first..first + u64::from(count) {
            deliver(group, class, n, size).encode(&mut frames);
        }
        self.publish_frames(group, class, first, count, frames.freeze());
    }

    pub fn publish_frames(&self, group: u64, class: Class, first: u64, count: u32, frames: Bytes) {
        let class_n = link::Class::from(class).into();
        let first = Some(Seq::new(1, first).into());
        self.send(class, Item::Publish(Publish { group, class: class_n, first, count, frames }));
    }

    /// Ends a Session.
    pub fn close(&self, session: u64, code: CloseCode, reason: &str) {
        let code = u32::try_from(code.code()).unwrap();
        let reason = reason.into();
        let close = link::Close { session, code, reason, retry_after_ms: 70, lost: false };
        self.send(Class::Signal, Item::Close(close));
    }

    /// Breaks its links; it may be dialled again at once.
    pub fn lose_links(&self) {
        let lost = std::mem::take(&mut *self.shared.lost.lock());
        lost.cancel();
        self.shared.links.lock().clear();
    }

    /// What the gateway told it next.
    pub async fn event(&mut self) -> Event {
        within(self.events.recv()).await.unwrap()
    }

    /// The next Session to be opened, whatever else happens before.
    pub async fn opened(&mut self) -> link::Open {
        loop {
            if let Event::Open(open) = self.event().await {
                return open;
            }
        }
    }

    /// The next Session that ends.
    pub async fn closed(&mut self) -> u64 {
        loop {
            if let Event::Close(close) = self.event().await {
                return close.session;
            }
        }
    }

    /// Whether it leaves openings unanswered.
    pub fn mute(&self, mute: bool) {
        self.shared.mute.store(mute, Ordering::Release);
    }

    /// Streams of links that gateways have not ended.
    pub fn streams(&self) -> u64 {
        self.shared.streams.load(Ordering::Acquire)
    }

    /// Goes away; its address is free then.
    pub async fn stop(self) -> SocketAddr {
        self.stop.cancel();
        self.lose_links();
        within(self.server).await.unwrap();
        self.addr
    }
}

fn stream(class: Class) -> link::Stream {
    if class == Class::Signal { link::Stream::Control } else { link::Stream::Bulk }
}

pub fn deliver(group: u64, class: Class, counter: u64, size: usize) -> Deliver {
    let payload = Bytes::from(vec![b'p'; size]).into();
    Deliver { group, class, seq: Seq::new(1, counter), payload, ..Deliver::default() }
}

#[derive(Clone)]
struct Handle(Arc<Shared>);

#[tonic::async_trait]
impl Service for Handle {
    type LinkStream = UnboundedReceiverStream<Result<Down, Status>>;

    async fn link(
        &self,
        request: Request<Streaming<Up>>,
    ) -> Result<Response<Self::LinkStream>, Status> {
        let mut ups = request.into_inner();
        let first = ups.message().await?.unwrap();
        let mut items = first.items.into_iter().filter_map(|i| i.item);
        let Some(up_item::Item::Hello(hello)) = items.next() else {
            return Err(Status::invalid_argument("the first item is a Hello"));
        };
        let (out, downs) = unbounded_channel();
        let welcome = Item::Welcome(Welcome { backend: 1, name: "test".into() });
        let _ = out.send(Ok(Down { items: vec![DownItem { item: Some(welcome) }] }));
        self.0.links.lock().entry(hello.link).or_default().insert(hello.stream(), out.clone());
        self.0.streams.fetch_add(1, Ordering::AcqRel);
        let rest: Vec<_> = items.collect();
        let lost = self.0.lost.lock().clone();
        let this = self.clone();
        tokio::spawn(async move {
            rest.into_iter().for_each(|item| this.item(item, &out));
            loop {
                let up = tokio::select! {
                    up = ups.next() => up,
                    () = lost.cancelled() => return,
                };
                let Some(Ok(up)) = up else {
                    this.0.streams.fetch_sub(1, Ordering::AcqRel);
                    return;
                };
                up.items.into_iter().filter_map(|i| i.item).for_each(|item| this.item(item, &out));
            }
        });
        Ok(Response::new(UnboundedReceiverStream::new(downs)))
    }
}

impl Handle {
    fn item(&self, item: up_item::Item, out: &Out) {
        let answer = match item {
            up_item::Item::Hello(_) => return,
            up_item::Item::Open(open) => {
                let session = open.session;
                let _ = self.0.events.send(Event::Open(open));
                if self.0.mute.load(Ordering::Acquire) {
                    return;
                }
                Item::Opened(Opened { session })
            }
            up_item::Item::Data(data) => {
                let _ = self.0.events.send(Event::Data(data.clone()));
                Item::Data(data)
            }
            up_item::Item::Close(close) => {
                let _ = self.0.events.send(Event::Close(close));
                return;
            }
            up_item::Item::Renewed(renewed) => {
                let _ = self.0.events.send(Event::Renewed(renewed));
                return;
            }
            up_item::Item::Confirm(confirm) => {
                let _ = self.0.events.send(Event::Confirm(confirm));
                return;
            }
        };
        let _ = out.send(Ok(Down { items: vec![DownItem { item: Some(answer) }] }));
    }
}

#[tonic::async_trait]
impl Auth for Handle {
    /// The secret says what is to happen.
    async fn login(
        &self,
        request: Request<LoginRequest>,
    ) -> Result<Response<LoginResponse>, Status> {
        let request = request.into_inner();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let result = match &request.secret[..] {
            secret if request.method == method::RESUME && secret != b"good" => {
                let code = u32::try_from(CloseCode::LoginFailed.code()).unwrap();
                login_response::Result::Rejected(Rejected { code, reason: "no such token".into() })
            }
            b"wrong" => {
                let code = u32::try_from(CloseCode::LoginFailed.code()).unwrap();
                login_response::Result::Rejected(Rejected { code, reason: "wrong password".into() })
            }
            b"wait" => std::future::pending().await,
            secret => login_response::Result::Accepted(Accepted {
                user: request.user,
                expires_ms: if secret == b"short" {
                    u64::try_from(now.as_millis()).unwrap() + 300
                } else {
                    0
                },
                generation: self.0.generation.fetch_add(1, Ordering::Relaxed) + 1,
                token: Bytes::new(),
                // What is new of a login that is renewed.
                rights: (request.renews != 0).then(|| link::Rights {
                    rooms: Some(link::Names { names: vec!["renewed".into()] }),
                    ..link::Rights::default()
                }),
            }),
        };
        Ok(Response::new(LoginResponse { result: Some(result) }))
    }
}
