//! A backend in the test's process, and a gateway as the backend sees it, over loopback.
#![allow(clippy::unwrap_used, clippy::panic, dead_code, missing_docs)]

use std::{
    collections::VecDeque,
    net::SocketAddr,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use edgeway_backend::{
    Backend, Readiness, Roles,
    config::{self, RawBackend, RawConfig, RawEvents, RawNodes},
};
use edgeway_linktls::Links;
use edgeway_proto::{
    AckStatus, Class, ErrorCode, Frame, Seq, Text,
    frame::{self, Ack, Deliver, Join, Joined, Presence, Send, join_flag, split},
    link::{
        Close, Data, Hello, Open, Stream, Up, UpItem, backend_client::BackendClient, down_item,
        up_item::Item,
    },
};
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::JoinHandle,
};
use tokio_stream::{StreamExt, wrappers::UnboundedReceiverStream};
use tokio_util::sync::CancellationToken;
use tonic::{
    Status,
    transport::{Channel, Endpoint},
};

/// Far beyond what anything takes: it only ends a test that would hang.
const GIVE_UP: Duration = Duration::from_secs(60);

/// A running backend.
pub struct Running {
    pub addr: SocketAddr,
    pub readiness: Readiness,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    pub async fn start(raw: RawConfig, roles: &str) -> Self {
        let config = config::validate(raw, config::LISTEN_UP, &Links::Off).unwrap();
        let backend = Backend::start(config, Roles::parse(roles).unwrap()).await.unwrap();
        let (addr, readiness) = (backend.local_addr(), backend.readiness());
        let stop = CancellationToken::new();
        let run = backend.run(stop.clone());
        let task = tokio::spawn(async move { run.await.unwrap() });
        let running = Self { addr, readiness, stop, task };
        running.ready().await;
        running
    }

    /// All roles in one process.
    pub async fn all(dir: &Path) -> Self {
        Self::start(raw(dir), "access,room,peer").await
    }

    async fn ready(&self) {
        let wait = async {
            while self.readiness.ready().is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(GIVE_UP, wait).await.unwrap();
    }

    pub async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(GIVE_UP, self.task).await.unwrap().unwrap();
    }
}

pub fn raw(dir: &Path) -> RawConfig {
    let data_dir = Some(dir.to_str().unwrap().to_owned());
    RawConfig { backend: RawBackend { data_dir, ..RawBackend::default() }, ..RawConfig::default() }
}

/// The config of a process that only holds Sessions.
pub fn raw_access(room: &[SocketAddr], peer: &[SocketAddr]) -> RawConfig {
    let list = |addrs: &[SocketAddr]| addrs.iter().map(ToString::to_string).collect();
    let nodes = RawNodes { room: list(room), peer: list(peer), ..RawNodes::default() };
    let events = RawEvents { sink: Some("off".to_owned()), ..RawEvents::default() };
    RawConfig { nodes, events, ..RawConfig::default() }
}

#[derive(Debug)]
pub enum Event {
    /// A frame for a Session.
    Frame(u64, Frame),
    /// Frames for a group.
    Publish {
        group: u64,
        class: Class,
        first: Seq,
        count: u32,
        frames: Vec<Frame>,
    },
    Other(Stream, down_item::Item),
    End(Stream, Option<Status>),
}

/// One link.
pub struct Gateway {
    control: UnboundedSender<UpItem>,
    bulk: UnboundedSender<UpItem>,
    events: UnboundedReceiver<Event>,
    seen: VecDeque<Event>,
    next_request: u64,
}

static LINKS: AtomicU64 = AtomicU64::new(1);

impl Gateway {
    pub async fn dial(addr: SocketAddr, gateway: u64) -> Self {
        let link = LINKS.fetch_add(1, Ordering::Relaxed);
        let (events, from_streams) = unbounded_channel();
        let control = stream(addr, gateway, link, Stream::Control, events.clone()).await.unwrap();
        let bulk = stream(addr, gateway, link, Stream::Bulk, events).await.unwrap();
        Self { control, bulk, events: from_streams, seen: VecDeque::new(), next_request: 1 }
    }

    pub fn push(&self, stream: Stream, item: Item) {
        let lane = if stream == Stream::Control { &self.control } else { &self.bulk };
        let _ = lane.send(UpItem { item: Some(item) });
    }

    pub fn open(&self, session: u64, kind: &str, user: &str, device: &str, generation: u64) {
        let (user, device) = (user.to_owned(), device.to_owned());
        let open =
            Open { session, kind: kind.to_owned(), user, device, generation, ..Open::default() };
        self.push(Stream::Control, Item::Open(open));
    }

    pub fn close(&self, session: u64) {
        self.push(Stream::Control, Item::Close(Close { session, ..Close::default() }));
    }

    pub fn bytes(&self, session: u64, class: Class, frames: Bytes) {
        let stream = if class == Class::Signal { Stream::Control } else { Stream::Bulk };
        let class = edgeway_proto::link::Class::from(class).into();
        self.push(stream, Item::Data(Data { session, class, frames, ..Data::default() }));
    }

    pub fn frames(&self, session: u64, class: Class, frames: impl IntoIterator<Item = Frame>) {
        let mut bytes = BytesMut::new();
        frames.into_iter().for_each(|frame| frame.encode(&mut bytes));
        self.bytes(session, class, bytes.freeze());
    }

    pub fn request(&mut self) -> u64 {
        self.next_request += 1;
        self.next_request
    }

    /// The first event, seen or to come, that `pick` takes; it is taken out.
    pub async fn expect<T>(&mut self, what: &str, pick: impl Fn(&Event) -> Option<T>) -> T {
        let mut at = 0;
        let wait = async {
            loop {
                while at < self.seen.len() {
                    if let Some(found) = pick(&self.seen[at]) {
                        self.seen.remove(at);
                        return found;
                    }
                    at += 1;
                }
                let Some(event) = self.events.recv().await else {
                    panic!("the link ended before {what}; seen: {:#?}", self.seen)
                };
                self.seen.push_back(event);
            }
        };
        match tokio::time::timeout(GIVE_UP, wait).await {
            Ok(found) => found,
            Err(_) => panic!("no {what}; seen: {:#?}", self.seen),
        }
    }

    pub async fn expect_frame<T>(
        &mut self,
        session: u64,
        what: &str,
        pick: impl Fn(&Frame) -> Option<T>,
    ) -> T {
        self.expect(what, |event| match event {
            Event::Frame(of, frame) if *of == session => pick(frame),
            _ => None,
        })
        .await
    }

    pub async fn try_join(&mut self, session: u64, join: Join) -> Result<Joined, (ErrorCode, u64)> {
        let request = self.request();
        self.frames(session, Class::Signal, [Join { request, ..join }.into()]);
        self.expect_frame(session, "answer to a join", |frame| match frame {
            Frame::Joined(joined) if joined.request == request => Some(Ok(joined.clone())),
            Frame::Error(e) if e.request == request => {
                Some(Err((ErrorCode::from_code(e.code), e.retry_after_ms)))
            }
            _ => None,
        })
        .await
    }

    pub async fn join(&mut self, session: u64, room: &str) -> Joined {
        self.try_join(session, Join { room: Text::from(room), ..Join::default() }).await.unwrap()
    }

    pub async fn join_to_send(&mut self, session: u64, user: &str) -> Joined {
        let join = Join { room: Text::from(user), flags: join_flag::SEND_ONLY, ..Join::default() };
        self.try_join(session, join).await.unwrap()
    }

    pub async fn send(&mut self, session: u64, message: Send) -> Ack {
        let (group, class, id) = (message.group, message.class, message.id);
        self.frames(session, class, [message.into()]);
        self.expect_frame(session, "ack", |frame| match frame {
            Frame::Ack(ack) if (ack.group, ack.class, ack.id) == (group, class, id) => {
                Some(ack.clone())
            }
            _ => None,
        })
        .await
    }

    /// The message of a position.
    pub async fn delivery(&mut self, group: u64, class: Class, seq: Seq) -> Deliver {
        self.expect("delivery", |event| match event {
            Event::Publish { group: g, class: c, frames, .. } if (*g, *c) == (group, class) => {
                frames.iter().find_map(|frame| match frame {
                    Frame::Deliver(deliver) if deliver.seq == seq => Some(deliver.clone()),
                    _ => None,
                })
            }
            _ => None,
        })
        .await
    }

    pub async fn expect_presence(
        &mut self,
        group: u64,
        what: &str,
        holds: impl Fn(&Presence) -> bool,
    ) {
        self.expect(what, |event| match event {
            Event::Publish { group: g, count: 0, frames, .. } if *g == group => frames
                .iter()
                .any(|frame| matches!(frame, Frame::Presence(p) if holds(p)))
                .then_some(()),
            _ => None,
        })
        .await;
    }

    /// The code that a Session was closed with.
    pub async fn closed(&mut self, session: u64) -> u64 {
        self.expect("close", |event| match event {
            Event::Other(_, down_item::Item::Close(close)) if close.session == session => {
                Some(u64::from(close.code))
            }
            _ => None,
        })
        .await
    }

    /// How a stream ended.
    pub async fn ended(&mut self, stream: Stream) -> Option<Status> {
        self.expect("end", |event| match event {
            Event::End(of, status) if *of == stream => Some(status.clone()),
            _ => None,
        })
        .await
    }

    pub fn presences_seen(&self) -> usize {
        let presence = |event: &&Event| matches!(event, Event::Publish { count: 0, .. });
        self.seen.iter().filter(presence).count()
    }

    pub fn deliveries_seen(&self) -> usize {
        self.seen.iter().filter(|event| matches!(event, Event::Publish { count: 1.., .. })).count()
    }
}

/// Opens one stream; what comes down goes to `events`.
pub async fn stream(
    addr: SocketAddr,
    gateway: u64,
    link: u64,
    stream: Stream,
    events: UnboundedSender<Event>,
) -> Result<UnboundedSender<UpItem>, Status> {
    let hello = Hello { gateway, name: format!("gw-{gateway}"), link, stream: stream.into() };
    raw_stream(addr, vec![Item::Hello(hello)], stream, events).await
}

pub async fn channel(addr: SocketAddr) -> Channel {
    Endpoint::from_shared(format!("http://{addr}")).unwrap().connect().await.unwrap()
}

/// The same, with any first items.
pub async fn raw_stream(
    addr: SocketAddr,
    first: Vec<Item>,
    stream: Stream,
    events: UnboundedSender<Event>,
) -> Result<UnboundedSender<UpItem>, Status> {
    let (up, items) = unbounded_channel();
    for item in first {
        up.send(UpItem { item: Some(item) }).unwrap();
    }
    let items = UnboundedReceiverStream::new(items).map(|item| Up { items: vec![item] });
    let mut client = BackendClient::new(channel(addr).await);
    let mut down = client.link(items).await?.into_inner();
    tokio::spawn(async move {
        loop {
            match down.message().await {
                Ok(Some(down)) => {
                    let items = down.items.into_iter().filter_map(|item| item.item);
                    items.for_each(|item| report(stream, item, &events));
                }
                Ok(None) => return events.send(Event::End(stream, None)),
                Err(status) => return events.send(Event::End(stream, Some(status))),
            }
        }
    });
    Ok(up)
}

fn report(stream: Stream, item: down_item::Item, events: &UnboundedSender<Event>) {
    let send = |event| {
        let _ = events.send(event);
    };
    match item {
        down_item::Item::Data(data) => {
            parse(data.frames)
                .into_iter()
                .for_each(|frame| send(Event::Frame(data.session, frame)));
        }
        down_item::Item::Publish(publish) => {
            let class = Class::from(publish.class());
            // A check that holds for all tests: each class travels on its stream.
            assert_eq!(class == Class::Signal, stream == Stream::Control);
            send(Event::Publish {
                group: publish.group,
                class,
                first: publish.first.map(Seq::from).unwrap_or_default(),
                count: publish.count,
                frames: parse(publish.frames),
            });
        }
        other => send(Event::Other(stream, other)),
    }
}

pub fn parse(mut frames: Bytes) -> Vec<Frame> {
    std::iter::from_fn(|| split(&mut frames).unwrap()).map(|raw| raw.parse().unwrap()).collect()
}

pub fn signal(group: u64, id: u64, payload: &str) -> Send {
    message(group, Class::Signal, id, payload)
}

pub fn message(group: u64, class: Class, id: u64, payload: &str) -> Send {
    let payload =
        frame::Send { payload: Bytes::from(payload.to_owned()).into(), ..Send::default() };
    Send { group, class, id, ..payload }
}

pub fn accepted(ack: &Ack) -> Seq {
    assert_eq!(ack.status, AckStatus::Accepted, "{ack:?}");
    ack.seq
}
