//! An owner of rooms and one of their strokes, with their tasks running.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{num::NonZeroUsize, sync::atomic::Ordering};

use bytes::BytesMut;
use edgeway_proto::{
    AckStatus,
    link::{self, Stream, down_item},
};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    super::{
        AccessLink, Environment, OwnerConfig, Replies, StrokeOwners,
        memory_store::MemoryStore,
        tests::{Recorder, history, message, page},
    },
    *,
};
use crate::{ring::Ring, store::Store};

/// The link of the owner of rooms with that of the strokes, while there is one.
#[derive(Default)]
struct Way(Mutex<Option<AccessLink>>);

impl StrokeOwners for Way {
    fn owner(&self, _: u64) -> Option<u64> {
        Some(0)
    }

    fn send(&self, _: u64, item: Item) -> bool {
        self.0.lock().as_ref().is_some_and(|link| link.offer(Stream::Control, item))
    }
}

struct Back(WeakOwner);

impl Replies for Back {
    fn send(&self, reply: Reply) -> bool {
        let Some(rooms) = self.0.upgrade() else { return false };
        if let Reply::Item(from_owner_item::Item::Answer(answer)) = reply {
            rooms.answered(answer);
        }
        true
    }
}

struct Bench {
    rooms: Owner,
    to_rooms: AccessLink,
    replies: mpsc::UnboundedReceiver<Reply>,
    strokes: Owner,
    to_strokes: AccessLink,
    stroke_replies: mpsc::UnboundedReceiver<Reply>,
    way: Arc<Way>,
    gateways: Arc<Recorder>,
    store: Arc<MemoryStore>,
}

impl Bench {
    fn new() -> Self {
        let config = OwnerConfig {
            shards: NonZeroUsize::new(2).unwrap(),
            store_retry: Duration::from_millis(5),
            ..OwnerConfig::default()
        };
        let (store, gateways, way) =
            (Arc::<MemoryStore>::default(), Arc::<Recorder>::default(), Arc::<Way>::default());
        let (tasks, cancel) = (TaskTracker::new(), CancellationToken::new());
        let start = |kind, strokes| {
            let (config, cancel) = (config.clone(), cancel.clone());
            let environment = Environment::new(store.clone(), gateways.clone());
            Owner::start(config, kind, Environment { strokes, ..environment }, &tasks, cancel)
        };
        let rooms = start(Kind::Apart, Some(way.clone() as Arc<dyn StrokeOwners>));
        let strokes = start(Kind::Strokes, None);
        let (tx, replies) = mpsc::unbounded_channel();
        let to_rooms = rooms.attach(77, Arc::new(tx));
        let (tx, stroke_replies) = mpsc::unbounded_channel();
        let to_strokes = strokes.attach(77, Arc::new(tx));
        let bench = Self {
            rooms,
            to_rooms,
            replies,
            strokes,
            to_strokes,
            stroke_replies,
            way,
            gateways,
            store,
        };
        bench.connect();
        bench
    }

    fn connect(&self) {
        let link = self.strokes.attach(88, Arc::new(Back(self.rooms.downgrade())));
        *self.way.0.lock() = Some(link);
        self.rooms.strokes_reached(0);
    }

    fn disconnect(&self) {
        *self.way.0.lock() = None;
        self.rooms.strokes_lost(0);
    }

    async fn ask(&self, session: u64) {
        let join = rooms::Join {
            session: Some(rooms::SessionRef { gateway: 1, session }),
            request: session,
            room: "room/a".to_owned(),
            user: "ann".to_owned(),
            device: "phone".to_owned(),
            ..Default::default()
        };
        self.to_rooms.send(Stream::Control, Item::Join(join)).await;
    }

    /// Joins: the group, and what is told of the strokes.
    async fn join(&mut self, session: u64) -> (u64, (Seq, u64)) {
        self.ask(session).await;
        let reply = tokio::time::timeout(Duration::from_secs(30), self.replies.recv());
        let reply = reply.await.unwrap().unwrap();
        let Reply::Item(from_owner_item::Item::Joined(joined)) = reply else { panic!("{reply:?}") };
        let told = |f: &Frame| match f {
            Frame::Joined(joined) => Some(joined.classes[Class::Binary.index()]),
            _ => None,
        };
        (joined.group, self.gateways.wait(session, told).await)
    }

    async fn draw(&self, session: u64, group: u64, ids: impl Iterator<Item = u64>) {
        let mut out = BytesMut::new();
        ids.for_each(|id| message(group, Class::Binary, id).encode(&mut out));
        let session = Some(rooms::SessionRef { gateway: 1, session });
        let (user, device, frames) = ("ann".to_owned(), "phone".to_owned(), out.freeze());
        let strokes = rooms::Strokes { session, group, user, device, frames };
        self.to_strokes.send(Stream::Bulk, Item::Strokes(strokes)).await;
    }

    async fn acked(&self, session: u64, id: u64) -> (AckStatus, Seq) {
        let ack = self.gateways.ack(session, Class::Binary, id).await;
        (ack.status, ack.seq)
    }

    /// The heads that gateway 1 was told, as soon as there are so many.
    async fn announced(&self, count: usize) -> Vec<Seq> {
        loop {
            let changed = self.gateways.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let heads: Vec<Seq> = self.heads();
            if heads.len() >= count {
                return heads;
            }
            tokio::time::timeout(Duration::from_secs(30), changed).await.unwrap();
        }
    }

    fn heads(&self) -> Vec<Seq> {
        let items = self.gateways.items.lock();
        let bulk = items.get(&(1, Stream::Bulk)).into_iter().flatten();
        let heads = bulk.filter_map(|item| match item {
            down_item::Item::Announce(announce) => announce.head.map(Seq::from),
            _ => None,
        });
        heads.collect()
    }
}

#[tokio::test]
async fn a_stroke_goes_by_its_own_owner_and_all_else_by_that_of_the_room() {
    let mut bench = Bench::new();
    let (group, told) = bench.join(1).await;
    assert_eq!(told, (Seq::new(1, 0), 0));
    assert_eq!(bench.announced(1).await, [Seq::new(1, 0)]);
    bench.draw(1, group, 1..=3).await;
    assert_eq!(bench.acked(1, 3).await, (AckStatus::Accepted, Seq::new(1, 3)));
    assert_eq!(bench.gateways.delivered(Class::Binary).len(), 3);
    let mut frames = BytesMut::new();
    message(group, Class::Signal, 1).encode(&mut frames);
    history(group, Class::Binary, 9, Seq::new(1, 1), 0).encode(&mut frames);
    let session = Some(rooms::SessionRef { gateway: 1, session: 1 });
    let frames = Item::Frames(rooms::Frames { session, group, frames: frames.freeze() });
    bench.to_rooms.send(Stream::Control, frames).await;
    bench.gateways.ack(1, Class::Signal, 1).await;
    let page = bench.gateways.wait(1, page(9)).await;
    assert_eq!((page.upto, page.head), (Seq::new(1, 3), Seq::new(1, 3)), "read from the store");
    // One who joins on a gateway that is on the route changes nothing there.
    let (_, told) = bench.join(2).await;
    assert_eq!(told, (Seq::new(1, 3), 3));
    assert_eq!(bench.heads(), [Seq::new(1, 0)]);
    let items = bench.gateways.items.lock();
    let elsewhere = |item: &&down_item::Item| matches!(item, down_item::Item::Subscribe(s) if s.elsewhere && s.class() == link::Class::Binary);
    assert_eq!(items[&(1, Stream::Bulk)].iter().filter(elsewhere).count(), 2);
}

#[tokio::test]
async fn while_the_owner_of_the_strokes_is_away_joins_go_on_and_know_what_is_stored() {
    let mut bench = Bench::new();
    let (group, _) = bench.join(1).await;
    bench.draw(1, group, 1..=5).await;
    bench.acked(1, 5).await;
    bench.disconnect();
    assert_eq!(bench.join(2).await.1, (Seq::new(1, 5), 5));
    bench.connect();
    assert_eq!(
        bench.announced(2).await,
        [Seq::new(1, 0), Seq::new(1, 5)],
        "the route is said again"
    );
    // It has not been told of the Session, and has it join again.
    bench.draw(2, group, 6..=6).await;
    let left = |f: &Frame| matches!(f, Frame::Left(left) if left.request == 0).then_some(());
    bench.gateways.wait(2, left).await;
    bench.join(2).await;
    bench.draw(2, group, 6..=6).await;
    assert_eq!(bench.acked(2, 6).await, (AckStatus::Accepted, Seq::new(1, 6)));
}

#[tokio::test]
async fn one_that_does_not_answer_holds_nobody_up_for_long() {
    let mut bench = Bench::new();
    let (group, _) = bench.join(1).await;
    bench.draw(1, group, 1..=1).await;
    bench.acked(1, 1).await;
    // It gets what it is asked, and what it answers gets nowhere.
    let link = bench.strokes.attach(89, Arc::new(mpsc::unbounded_channel().0));
    *bench.way.0.lock() = Some(link);
    assert_eq!(bench.join(2).await.1, (Seq::new(1, 1), 1));
}

#[tokio::test]
async fn strokes_wait_for_a_store_that_is_away() {
    let bench = Bench::new();
    bench.store.down.store(true, Ordering::SeqCst);
    bench.draw(1, 7, 1..=2).await;
    tokio::time::sleep(Duration::from_millis(30)).await;
    bench.store.down.store(false, Ordering::SeqCst);
    assert_eq!(bench.acked(1, 2).await, (AckStatus::Accepted, Seq::new(1, 2)));
}

#[tokio::test]
async fn a_gateway_whose_link_begins_anew_hears_the_heads_again_and_access_of_it() {
    let mut bench = Bench::new();
    let (group, _) = bench.join(1).await;
    bench.announced(1).await;
    bench.draw(1, group, 1..=1).await;
    bench.acked(1, 1).await;
    bench.strokes.gateway_came(1);
    assert_eq!(bench.announced(2).await, [Seq::new(1, 0), Seq::new(1, 1)]);
    let reached = from_owner_item::Item::Reached(rooms::Reached { gateway: 1 });
    assert_eq!(bench.stroke_replies.recv().await, Some(Reply::Item(reached)));
}

#[tokio::test]
async fn what_is_for_another_kind_of_owner_is_not_taken() {
    let mut bench = Bench::new();
    let (group, _) = bench.join(1).await;
    let route = rooms::Route { group, epoch: 9, gateways: vec![5] };
    bench.to_rooms.send(Stream::Control, Item::Route(route)).await;
    let join = rooms::Join { room: "room/b".to_owned(), ..Default::default() };
    bench.to_strokes.send(Stream::Control, Item::Join(join)).await;
    assert_eq!(bench.join(2).await.0, group, "all is as before");
}

/// Who has this process's strokes: itself, or another one.
fn rings() -> [Option<Ring>; 2] {
    let own = ["10.0.0.1:7400".to_owned()];
    let other = ["10.0.0.2:7400".to_owned()];
    [Ring::new(&own[0], &own), Ring::new(&own[0], &other)].map(Some)
}

#[tokio::test]
async fn strokes_that_are_another_owners_now_are_handed_over_and_who_draws_is_sent_there() {
    let mut bench = Bench::new();
    let [own, other] = rings();
    bench.strokes.set_ring(own.clone());
    let (group, _) = bench.join(1).await;
    bench.announced(1).await;
    bench.draw(1, group, 1..=2).await;
    bench.acked(1, 2).await;
    bench.strokes.set_ring(other);
    let retracted = |item: &down_item::Item| matches!(item, down_item::Item::Retract(_));
    while !bench.gateways.items.lock()[&(1, Stream::Bulk)].iter().any(retracted) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    bench.draw(1, group, 3..=3).await;
    let left = |f: &Frame| matches!(f, Frame::Left(left) if left.request == 0).then_some(());
    bench.gateways.wait(1, left).await;
    // Not asked to load what is not its own, it says so, and the store is asked.
    assert_eq!(bench.join(2).await.1, (Seq::new(1, 2), 2));
    let log = LogId { group, class: Class::Binary };
    assert_eq!(bench.store.last(log).await.unwrap(), Seq::new(1, 2), "not sealed again");
}

#[tokio::test]
async fn a_route_that_comes_before_the_owner_knows_that_it_is_one_counts_once_it_does() {
    let mut bench = Bench::new();
    let [own, other] = rings();
    bench.strokes.set_ring(other);
    bench.join(1).await;
    assert_eq!(bench.heads(), []);
    bench.strokes.set_ring(own);
    assert_eq!(bench.announced(1).await, [Seq::new(1, 0)]);
}

#[tokio::test]
async fn routes_are_told_again_when_the_owners_of_strokes_are_others() {
    let mut bench = Bench::new();
    bench.join(1).await;
    bench.announced(1).await;
    // One that takes the first one's place, and knows nothing.
    let tasks = TaskTracker::new();
    let environment = Environment::new(bench.store.clone(), bench.gateways.clone());
    let (config, cancel) = (OwnerConfig::default(), CancellationToken::new());
    let next = Owner::start(config, Kind::Strokes, environment, &tasks, cancel);
    let link = next.attach(88, Arc::new(Back(bench.rooms.downgrade())));
    *bench.way.0.lock() = Some(link);
    bench.rooms.strokes_moved();
    assert_eq!(bench.announced(2).await, [Seq::new(1, 0), Seq::new(2, 0)]);
}

#[test]
fn early_routes_are_kept_for_a_time_and_no_more_than_there_may_be() {
    let (mut routes, second) = (EarlyRoutes::default(), Duration::from_secs(1));
    let route = |group| rooms::Route { group, ..rooms::Route::default() };
    for group in 1..=4 {
        assert!(!routes.keep(second * group, 4, 77, route(u64::from(group))));
    }
    assert!(!routes.keep(second * 5, 4, 77, route(4)), "told again");
    assert!(routes.keep(second * 6, 4, 77, route(5)), "the oldest goes");
    let kept: Vec<_> = routes.0.iter().map(|(_, _, route)| route.group).collect();
    assert_eq!((routes.count(second * 7), &kept[..]), (4, &[2, 3, 4, 5][..]));
    assert_eq!(routes.count(second * 2 + EARLY), 3);
    assert_eq!(routes.count(second * 6 + EARLY), 0);
}
