//! What an owner promises, with its tasks running.

mod handover;

use std::{
    collections::HashMap,
    num::NonZeroUsize,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use edgeway_proto::{
    AckStatus, Class, ErrorCode, Frame, Rest, Seq, Text,
    frame::{self, page_flag},
    link::{self, Stream, down_item::Item},
    rooms::{self, from_owner_item, to_owner_item},
};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{memory_store::MemoryStore, *};
use crate::store::{Append, LogId, Origin, Record};

/// Gateways that remember what they got.
#[derive(Default)]
pub(super) struct Recorder {
    pub(super) items: Mutex<HashMap<(u64, Stream), Vec<Item>>>,
    pub(super) gone: Mutex<Vec<u64>>,
    pub(super) changed: Notify,
}

impl Gateways for Recorder {
    fn send(&self, gateway: u64, stream: Stream, item: Item) -> bool {
        self.items.lock().entry((gateway, stream)).or_default().push(item);
        self.changed.notify_waiters();
        self.connected(gateway)
    }

    fn connected(&self, gateway: u64) -> bool {
        !self.gone.lock().contains(&gateway)
    }
}

impl Recorder {
    /// Frames for a Session and those that were published, in order.
    pub(super) fn frames(&self, gateway: u64, session: u64) -> Vec<Frame> {
        let items = self.items.lock();
        let both = [Stream::Control, Stream::Bulk];
        let items = both.iter().filter_map(|s| items.get(&(gateway, *s))).flatten();
        let frames = items.filter_map(|item| match item {
            Item::Data(data) if data.session == session => Some(data.frames.clone()),
            Item::Publish(publish) => Some(publish.frames.clone()),
            _ => None,
        });
        frames.flat_map(decode).collect()
    }

    /// Waits until a frame is there, from the front, that `find` finds something in.
    pub(super) async fn wait<T>(&self, to: u64, find: impl Fn(&Frame) -> Option<T>) -> T {
        let look = async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if let Some(found) = self.frames(1, to).iter().find_map(&find) {
                    return found;
                }
                changed.await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), look).await.unwrap()
    }

    pub(super) async fn ack(&self, session: u64, class: Class, id: u64) -> frame::Ack {
        self.wait(session, |f| match f {
            Frame::Ack(ack) if (ack.class, ack.id) == (class, id) => Some(ack.clone()),
            _ => None,
        })
        .await
    }

    pub(super) fn delivered(&self, class: Class) -> Vec<frame::Deliver> {
        let delivers = self.frames(1, u64::MAX).into_iter().filter_map(|f| match f {
            Frame::Deliver(deliver) if deliver.class == class => Some(deliver),
            _ => None,
        });
        delivers.collect()
    }
}

pub(super) fn decode(mut frames: Bytes) -> Vec<Frame> {
    std::iter::from_fn(move || frame::split(&mut frames).unwrap())
        .map(|f| f.parse().unwrap())
        .collect()
}

struct Bench {
    owner: Owner,
    link: AccessLink,
    replies: mpsc::UnboundedReceiver<Reply>,
    gateways: Arc<Recorder>,
    store: Arc<MemoryStore>,
    tasks: TaskTracker,
    cancel: CancellationToken,
}

impl Bench {
    fn new(change: impl FnOnce(&mut OwnerConfig)) -> Self {
        Self::with_store(Arc::default(), change)
    }

    fn with_store(store: Arc<MemoryStore>, change: impl FnOnce(&mut OwnerConfig)) -> Self {
        let mut config = OwnerConfig {
            shards: NonZeroUsize::new(2).unwrap(),
            store_retry: Duration::from_millis(5),
            ..OwnerConfig::default()
        };
        change(&mut config);
        let gateways: Arc<Recorder> = Arc::default();
        let (tasks, cancel) = (TaskTracker::new(), CancellationToken::new());
        let environment = Environment::new(store.clone(), gateways.clone());
        let owner = Owner::start(config, Kind::Room, environment, &tasks, cancel.clone());
        let (tx, replies) = mpsc::unbounded_channel();
        let link = owner.attach(77, Arc::new(tx));
        Self { owner, link, replies, gateways, store, tasks, cancel }
    }

    async fn ask(&self, session: u64, room: &str) {
        let name = format!("user{session}");
        let join = rooms::Join {
            session: Some(rooms::SessionRef { gateway: 1, session }),
            request: session,
            room: format!("room/{room}"),
            asked: room.to_owned(),
            user: name.clone(),
            device: name,
            ..Default::default()
        };
        self.link.send(Stream::Control, to_owner_item::Item::Join(join)).await;
    }

    async fn reply(&mut self) -> Reply {
        let reply = tokio::time::timeout(Duration::from_secs(30), self.replies.recv());
        reply.await.unwrap().unwrap()
    }

    async fn join(&mut self, session: u64, room: &str) -> u64 {
        self.ask(session, room).await;
        match self.reply().await {
            Reply::Item(from_owner_item::Item::Joined(joined)) => joined.group,
            other => panic!("{other:?}"),
        }
    }

    async fn frames(&self, session: u64, group: u64, frames: &[Frame]) {
        let mut out = BytesMut::new();
        frames.iter().for_each(|frame| frame.encode(&mut out));
        let session = Some(rooms::SessionRef { gateway: 1, session });
        let frames = rooms::Frames { session, group, frames: out.freeze() };
        self.link.send(Stream::Control, to_owner_item::Item::Frames(frames)).await;
    }

    /// Ends it and waits for all its tasks.
    async fn end(self) {
        self.cancel.cancel();
        self.tasks.close();
        tokio::time::timeout(Duration::from_secs(30), self.tasks.wait()).await.unwrap();
    }
}

pub(super) fn message(group: u64, class: Class, id: u64) -> Frame {
    let payload = Rest(Bytes::from_static(b"hello"));
    frame::Send { group, class, id, payload, ..Default::default() }.into()
}

pub(super) fn history(group: u64, class: Class, request: u64, after: Seq, limit: u64) -> Frame {
    frame::History { request, group, class, after, limit }.into()
}

pub(super) fn page(request: u64) -> impl Fn(&Frame) -> Option<frame::Page> {
    move |f| match f {
        Frame::Page(page) if page.request == request => Some(page.clone()),
        _ => None,
    }
}

#[tokio::test]
async fn a_signal_reaches_history_the_members_and_then_its_sender_s_ack() {
    let mut bench = Bench::new(|_| {});
    let group = bench.join(1, "a").await;
    assert_eq!(bench.join(2, "a").await, group);
    bench.frames(1, group, &[message(group, Class::Signal, 1)]).await;
    let ack = bench.gateways.ack(1, Class::Signal, 1).await;
    assert_eq!((ack.status, ack.seq), (AckStatus::Accepted, Seq::new(1, 1)));
    assert_eq!(bench.gateways.delivered(Class::Signal).len(), 1, "once for a gateway");
    let log = LogId { group, class: Class::Signal };
    let stored = bench.store.inner.lock().logs[&log].len();
    assert_eq!(stored, 2, "the seal and the message");
    let items = bench.gateways.items.lock();
    let control = &items[&(1, Stream::Control)];
    let joined = control.iter().position(|i| matches!(i, Item::Data(d) if d.session == 2));
    let subscribed = control.iter().position(|i| matches!(i, Item::Subscribe(s) if s.session == 2));
    assert!(joined < subscribed && subscribed.is_some());
}

#[tokio::test]
async fn while_the_store_is_away_chat_flows_and_signals_wait_for_it() {
    let mut bench = Bench::new(|_| {});
    let group = bench.join(1, "a").await;
    bench.store.down.store(true, Ordering::SeqCst);
    let both = [message(group, Class::Signal, 1), message(group, Class::Chat, 1)];
    bench.frames(1, group, &both).await;
    let ack = bench.gateways.ack(1, Class::Chat, 1).await;
    assert_eq!(ack.status, AckStatus::Accepted);
    assert!(bench.gateways.delivered(Class::Signal).is_empty());
    bench.ask(2, "another").await;
    assert!(matches!(bench.reply().await, Reply::Item(from_owner_item::Item::Refused(_))));
    bench.store.down.store(false, Ordering::SeqCst);
    bench.gateways.ack(1, Class::Signal, 1).await;
    assert_eq!(bench.gateways.delivered(Class::Signal).len(), 1);
    let store = bench.store.clone();
    bench.end().await;
    let log = LogId { group, class: Class::Chat };
    assert_eq!(store.inner.lock().logs[&log].len(), 2, "chat is stored later");
}

#[tokio::test]
async fn a_commit_whose_answer_was_lost_is_not_published_twice() {
    let mut bench = Bench::new(|_| {});
    let group = bench.join(1, "a").await;
    bench.store.lie.store(true, Ordering::SeqCst);
    let both = [message(group, Class::Signal, 1), message(group, Class::Binary, 1)];
    bench.frames(1, group, &both).await;
    bench.gateways.ack(1, Class::Signal, 1).await;
    bench.gateways.ack(1, Class::Binary, 1).await;
    assert_eq!(bench.gateways.delivered(Class::Signal).len(), 1);
    assert_eq!(bench.gateways.delivered(Class::Binary).len(), 1);
}

#[tokio::test]
async fn when_another_owner_seals_the_log_everybody_is_sent_away_and_nothing_is_acked() {
    let mut bench = Bench::new(|_| {});
    let group = bench.join(1, "a").await;
    let log = LogId { group, class: Class::Signal };
    let (origin, key, frame) = (Origin::default(), String::new(), Bytes::new());
    let record = Record { seq: Seq::new(2, 0), origin, time_ms: 0, expires_ms: 0, key, frame };
    bench.store.append_now(vec![Append { log, record }]).unwrap();
    bench.frames(1, group, &[message(group, Class::Signal, 1)]).await;
    assert!(matches!(bench.reply().await, Reply::Item(from_owner_item::Item::Left(_))));
    let left = |f: &Frame| match f {
        Frame::Left(left) => Some(left.code),
        _ => None,
    };
    assert_eq!(bench.gateways.wait(1, left).await, edgeway_proto::CloseCode::BackendLost.code());
    assert!(bench.gateways.delivered(Class::Signal).is_empty());
    // Joining again takes the room back, in a later epoch.
    assert_eq!(bench.join(1, "a").await, group);
    bench.frames(1, group, &[message(group, Class::Signal, 1)]).await;
    let ack = bench.gateways.ack(1, Class::Signal, 1).await;
    assert_eq!((ack.status, ack.seq), (AckStatus::Accepted, Seq::new(3, 1)));
}

#[tokio::test]
async fn what_an_older_owner_stores_just_before_the_seal_is_known_to_the_new_one() {
    let mut bench = Bench::new(|_| {});
    // The first room has handle 1, and its older owner is in epoch 1.
    let log = LogId { group: 1, class: Class::Signal };
    let entry = |counter, device: &str| {
        let origin = Origin { device: device.to_owned(), id: counter };
        let (seq, key, frame) = (Seq::new(1, counter), String::new(), Bytes::new());
        vec![Append { log, record: Record { seq, origin, time_ms: 0, expires_ms: 0, key, frame } }]
    };
    bench.store.append_now(entry(0, "")).unwrap();
    *bench.store.late.lock() = entry(1, "user1/user1");
    let group = bench.join(1, "a").await;
    let both = [message(group, Class::Signal, 1), message(group, Class::Signal, 2)];
    bench.frames(1, group, &both).await;
    let ack = bench.gateways.ack(1, Class::Signal, 1).await;
    assert_eq!((ack.status, ack.seq), (AckStatus::Duplicate, Seq::new(1, 1)));
    let ack = bench.gateways.ack(1, Class::Signal, 2).await;
    assert_eq!((ack.status, ack.seq), (AckStatus::Accepted, Seq::new(2, 1)));
}

#[tokio::test]
async fn pages_lead_to_the_head_in_the_order_they_were_asked_for() {
    let mut bench = Bench::new(|_| {});
    let group = bench.join(1, "a").await;
    let many: Vec<Frame> = (1..=250).map(|id| message(group, Class::Signal, id)).collect();
    bench.frames(1, group, &many).await;
    bench.gateways.ack(1, Class::Signal, 250).await;
    let members = frame::Members { request: 3, group, ..Default::default() };
    let asked = [
        history(group, Class::Signal, 1, Seq::ZERO, 0),
        history(group, Class::Signal, 2, Seq::new(1, 200), 0),
        members.into(),
        history(group, Class::Binary, 4, Seq::ZERO, 0),
    ];
    bench.frames(1, group, &asked).await;
    let empty = bench.gateways.wait(1, page(4)).await;
    assert_eq!((empty.upto, empty.head, empty.flags), (Seq::new(1, 0), Seq::new(1, 0), 0));
    let first = bench.gateways.wait(1, page(1)).await;
    let second = bench.gateways.wait(1, page(2)).await;
    assert_eq!((first.upto, first.flags), (Seq::new(1, 200), page_flag::MORE));
    assert_eq!((second.upto, second.flags), (Seq::new(1, 250), 0));
    assert_eq!((first.head, second.head), (Seq::new(1, 250), Seq::new(1, 250)));
    assert_eq!(decode(first.messages.0).len() + decode(second.messages.0).len(), 250);
    let order: Vec<u64> = bench
        .gateways
        .frames(1, 1)
        .iter()
        .filter_map(|f| match f {
            Frame::Page(page) => Some(page.request),
            Frame::MemberPage(page) => Some(page.request),
            _ => None,
        })
        .collect();
    assert_eq!(order, [1, 2, 3, 4]);
}

#[tokio::test]
async fn without_history_of_chat_its_pages_hold_what_was_there_before_and_lead_to_the_head() {
    let mut bench = Bench::new(|_| {});
    let group = bench.join(1, "a").await;
    bench.frames(1, group, &[message(group, Class::Chat, 1)]).await;
    bench.gateways.ack(1, Class::Chat, 1).await;
    let store = bench.store.clone();
    bench.end().await;

    let mut bench = Bench::with_store(store, |c| c.room.chat_history = false);
    let group = bench.join(1, "a").await;
    let chat = [message(group, Class::Chat, 2), message(group, Class::Chat, 3)];
    bench.frames(1, group, &chat).await;
    bench.gateways.ack(1, Class::Chat, 3).await;
    bench.frames(1, group, &[message(group, Class::Signal, 1)]).await;
    bench.gateways.ack(1, Class::Signal, 1).await;
    let (head, before) = (Seq::new(2, 2), Seq::new(1, 1));
    for (request, after, class, kept) in [
        (10, Seq::ZERO, Class::Chat, 1),
        (11, before, Class::Chat, 0),
        (12, head, Class::Chat, 0),
        (13, Seq::ZERO, Class::Signal, 1),
    ] {
        bench.frames(1, group, &[history(group, class, request, after, 0)]).await;
        let page = bench.gateways.wait(1, page(request)).await;
        assert_eq!(decode(page.messages.0).len(), kept, "{class} after {after}");
        let head = if class == Class::Chat { head } else { Seq::new(2, 1) };
        assert_eq!((page.upto, page.head, page.flags), (head, head, 0));
    }
    bench.end().await;
}

#[tokio::test]
async fn a_page_is_never_larger_than_a_frame_may_be() {
    let mut bench = Bench::new(|_| {});
    let group = bench.join(1, "a").await;
    let payload = Rest(Bytes::from(vec![0; 30_000]));
    for id in 1..=5 {
        let payload = payload.clone();
        let send = frame::Send { group, class: Class::Signal, id, payload, ..Default::default() };
        bench.frames(1, group, &[send.into()]).await;
    }
    bench.gateways.ack(1, Class::Signal, 5).await;
    bench.frames(1, group, &[history(group, Class::Signal, 1, Seq::ZERO, 0)]).await;
    let page = bench.gateways.wait(1, page(1)).await;
    assert_eq!((page.upto, page.flags), (Seq::new(1, 2), page_flag::MORE));
    assert_eq!(page.head, Seq::new(1, 5));
}

#[tokio::test]
async fn a_gateway_without_a_link_cannot_join_and_one_that_is_gone_has_left() {
    let mut bench = Bench::new(|_| {});
    let group = bench.join(1, "a").await;
    bench.gateways.gone.lock().push(1);
    bench.owner.gateway_gone(1);
    let left = rooms::Left { session: Some(rooms::SessionRef { gateway: 1, session: 1 }), group };
    assert_eq!(bench.reply().await, Reply::Item(from_owner_item::Item::Left(left)));
    bench.ask(2, "a").await;
    let Reply::Unreachable(refused) = bench.reply().await else { panic!() };
    let code = u32::try_from(ErrorCode::Unavailable.code()).unwrap();
    assert_eq!((refused.request, refused.code), (2, code));
}

#[tokio::test]
async fn when_access_is_gone_its_sessions_leave() {
    let mut bench = Bench::new(|c| c.room.presence_interval = Duration::from_millis(1));
    let group = bench.join(1, "a").await;
    let (tx, mut replies) = mpsc::unbounded_channel();
    let other = bench.owner.attach(78, Arc::new(tx));
    let session = Some(rooms::SessionRef { gateway: 1, session: 2 });
    let (room, user) = ("room/a".to_owned(), "gone".to_owned());
    let join = rooms::Join { session, request: 1, room, user, ..Default::default() };
    other.send(Stream::Control, to_owner_item::Item::Join(join)).await;
    assert!(matches!(replies.recv().await, Some(Reply::Item(from_owner_item::Item::Joined(_)))));
    drop(other);
    let gone = |f: &Frame| match f {
        Frame::Presence(p) if p.left.contains(&Text::from("gone")) => Some(p.members),
        // Both changes may fall into one difference, which then says nothing of it.
        Frame::Presence(p) if p.members == 1 => Some(1),
        _ => None,
    };
    assert_eq!(bench.gateways.wait(1, gone).await, 1);
    bench.frames(1, group, &[message(group, Class::Signal, 1)]).await;
    bench.gateways.ack(1, Class::Signal, 1).await;
}

#[tokio::test]
async fn an_access_link_that_takes_no_replies_is_given_up() {
    let bench = Bench::new(|_| {});
    let (tx, replies) = mpsc::channel(1);
    drop(replies);
    let link = bench.owner.attach(79, Arc::new(tx));
    let session = Some(rooms::SessionRef { gateway: 1, session: 5 });
    let join = rooms::Join { session, request: 1, room: "x".into(), ..Default::default() };
    link.send(Stream::Control, to_owner_item::Item::Join(join)).await;
    tokio::time::timeout(Duration::from_secs(30), link.lost()).await.unwrap();
}

#[tokio::test]
async fn an_unknown_room_is_refused_where_rooms_are_not_created_by_joining() {
    let mut bench = Bench::new(|c| c.create_rooms = false);
    bench.ask(1, "a").await;
    assert!(matches!(bench.reply().await, Reply::Item(from_owner_item::Item::Refused(_))));
    let code = |f: &Frame| match f {
        Frame::Error(error) => Some(ErrorCode::from_code(error.code)),
        _ => None,
    };
    assert_eq!(bench.gateways.wait(1, code).await, ErrorCode::NoSuchRoom);
}

#[tokio::test]
async fn rooms_that_are_there_and_new_ones_go_by_numbers_that_were_changed() {
    let mut bench = Bench::new(|_| {});
    let room = bench.join(1, "a").await;
    let live = bench.owner.live_config();
    live.set(false, RoomConfig { members_max: 1, ..RoomConfig::default() });
    let code = |f: &Frame| match f {
        Frame::Error(error) => Some(ErrorCode::from_code(error.code)),
        _ => None,
    };
    bench.ask(2, "a").await;
    assert_eq!(bench.gateways.wait(2, code).await, ErrorCode::RoomFull);
    bench.reply().await;
    bench.ask(3, "b").await;
    assert_eq!(bench.gateways.wait(3, code).await, ErrorCode::NoSuchRoom);
    bench.reply().await;
    live.set(true, RoomConfig { members_max: 2, ..RoomConfig::default() });
    assert_eq!(bench.join(2, "a").await, room);
    bench.join(3, "b").await;
}

#[tokio::test]
async fn frames_for_a_room_that_is_not_joined_are_refused() {
    let bench = Bench::new(|_| {});
    bench.frames(3, 99, &[message(99, Class::Signal, 1)]).await;
    assert_eq!(bench.gateways.ack(3, Class::Signal, 1).await.status, AckStatus::Refused);
}

#[tokio::test]
async fn an_idle_room_is_unloaded_and_comes_back_in_the_next_epoch() {
    let mut bench = Bench::new(|c| c.room.idle_unload = Duration::from_millis(1));
    let group = bench.join(1, "a").await;
    bench.frames(1, group, &[message(group, Class::Chat, 1)]).await;
    bench.gateways.ack(1, Class::Chat, 1).await;
    let mut epoch = 1;
    while epoch == 1 {
        let session = Some(rooms::SessionRef { gateway: 1, session: 1 });
        let leave = rooms::Leave { session, request: 0, group };
        bench.link.send(Stream::Control, to_owner_item::Item::Leave(leave)).await;
        assert!(matches!(bench.reply().await, Reply::Item(from_owner_item::Item::Left(_))));
        tokio::time::sleep(Duration::from_millis(5)).await;
        bench.join(1, "a").await;
        let epochs = bench.gateways.frames(1, 1).into_iter().filter_map(|f| match f {
            Frame::Joined(joined) => Some(joined.classes[2].0.epoch),
            _ => None,
        });
        epoch = epochs.last().unwrap();
    }
    assert_eq!(epoch, 2);
}

#[tokio::test]
async fn what_was_accepted_before_the_end_is_stored_and_acked() {
    let mut bench = Bench::new(|_| {});
    let group = bench.join(1, "a").await;
    let many: Vec<Frame> = (1..=100).map(|id| message(group, Class::Signal, id)).collect();
    bench.frames(1, group, &many).await;
    let gateways = bench.gateways.clone();
    bench.end().await;
    let acks = gateways.frames(1, 1).into_iter().filter(|f| matches!(f, Frame::Ack(_))).count();
    assert_eq!((acks, gateways.delivered(Class::Signal).len()), (100, 100));
}

#[tokio::test]
async fn what_comes_together_is_one_publication_and_few_commits() {
    let mut bench = Bench::new(|c| c.room.chat_per_second = 0);
    let mut group = 0;
    for session in 0..100 {
        group = bench.join(session, "a").await;
    }
    bench.store.appends.store(0, Ordering::SeqCst);
    // Nothing here waits, so the shard gets all of it in one go.
    for session in 0..100 {
        let mut out = BytesMut::new();
        message(group, Class::Chat, 1).encode(&mut out);
        message(group, Class::Signal, 1).encode(&mut out);
        let session = Some(rooms::SessionRef { gateway: 1, session });
        let frames = rooms::Frames { session, group, frames: out.freeze() };
        bench.link.try_send(Stream::Control, to_owner_item::Item::Frames(frames)).unwrap();
    }
    for session in 0..100 {
        bench.gateways.ack(session, Class::Signal, 1).await;
        bench.gateways.ack(session, Class::Chat, 1).await;
    }
    let items = bench.gateways.items.lock();
    let count = |stream, class: Class| {
        let class = i32::from(link::Class::from(class));
        let is = |i: &&Item| matches!(i, Item::Publish(p) if p.class == class && p.count > 0);
        items[&(1, stream)].iter().filter(is).count()
    };
    assert_eq!((count(Stream::Bulk, Class::Chat), count(Stream::Control, Class::Signal)), (1, 1));
    assert!(bench.store.appends.load(Ordering::SeqCst) <= 2, "one for chat, one for signals");
}

#[tokio::test]
async fn above_the_number_of_rooms_new_ones_are_refused() {
    let mut bench = Bench::new(|c| {
        c.shards = NonZeroUsize::MIN;
        c.rooms_max = 1;
    });
    bench.join(1, "a").await;
    bench.ask(2, "b").await;
    assert!(matches!(bench.reply().await, Reply::Item(from_owner_item::Item::Refused(_))));
    bench.join(3, "a").await;
}

#[tokio::test]
async fn a_name_that_cannot_be_looked_up_is_refused_and_those_beside_it_are_not() {
    let mut bench = Bench::new(|_| {});
    *bench.store.bad_name.lock() = Some("room/bad".to_owned());
    for (session, room) in [(1, "a"), (2, "bad"), (3, "b"), (4, "a")] {
        bench.ask(session, room).await;
    }
    let mut refused = Vec::new();
    for _ in 0..4 {
        match bench.reply().await {
            Reply::Item(from_owner_item::Item::Joined(_)) => {}
            Reply::Item(from_owner_item::Item::Refused(reply)) => refused.push(reply.request),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(refused, [2]);
    let code = |f: &Frame| if let Frame::Error(error) = f { Some(error.code) } else { None };
    assert_eq!(bench.gateways.wait(2, code).await, ErrorCode::Unavailable.code());
    bench.end().await;
}
