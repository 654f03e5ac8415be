//! Random events against a room, and what must hold whatever happens.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use edgeway_proto::{
    AckStatus, Class, ErrorCode, Frame, Rest, Seq, Text,
    frame::{self, presence_flag},
    rooms::{self, from_owner_item::Item},
};
use proptest::prelude::*;

use super::*;

/// Something that happens.
#[derive(Debug, Clone)]
enum Op {
    Join {
        session: u64,
        send_only: bool,
    },
    Leave {
        session: u64,
    },
    /// `skip`: how far the id is from the next one.
    Send {
        session: u64,
        class: Class,
        skip: i64,
        key: Option<u8>,
        len: usize,
        void: bool,
    },
    /// The system sends; `digest` tells apart what the same id is used for.
    Push {
        id: u64,
        class: Class,
        digest: u64,
    },
    Members {
        session: u64,
    },
    GatewayGone(u64),
    AccessGone(u64),
    Collect,
    Stored,
    Pass {
        ms: u64,
    },
}

fn ops() -> impl Strategy<Value = Op> {
    let session = || 0u64..8;
    let class = prop_oneof![Just(Class::Signal), Just(Class::Binary), Just(Class::Chat)];
    let skip = prop_oneof![8 => Just(0i64), 1 => -3i64..0, 1 => 1i64..3];
    let key = prop::option::weighted(0.3, 0u8..4);
    let send = (session(), class, skip, key, 0usize..40, prop::bool::weighted(0.05));
    prop_oneof![
        4 => (session(), prop::bool::weighted(0.1))
            .prop_map(|(session, send_only)| Op::Join { session, send_only }),
        2 => session().prop_map(|session| Op::Leave { session }),
        20 => send.prop_map(|(session, class, skip, key, len, void)| {
            Op::Send { session, class, skip, key, len, void }
        }),
        5 => (1u64..9, prop::bool::ANY, prop::bool::weighted(0.1)).prop_map(|(id, chat, other)| {
            let class = if chat { Class::Chat } else { Class::Signal };
            Op::Push { id, class, digest: 1 + u64::from(other) }
        }),
        1 => session().prop_map(|session| Op::Members { session }),
        1 => (0u64..3).prop_map(Op::GatewayGone),
        1 => (0u64..2).prop_map(Op::AccessGone),
        4 => Just(Op::Collect),
        4 => Just(Op::Stored),
        6 => prop_oneof![Just(1u64), Just(20), Just(500), Just(1500)].prop_map(|ms| Op::Pass { ms }),
    ]
}

/// A room, what is around it, and what it should be like.
struct Sim {
    room: Room,
    fx: Effects,
    now: Now,
    collected: Vec<Append>,
    stored: HashSet<(Class, Seq)>,
    published: [Seq; 3],
    /// Messages by device, class and id: published at most once.
    delivered: HashSet<(String, Class, u64)>,
    subscribed: BTreeMap<SessionId, [Seq; 3]>,
    /// What each subscribed Session got since it subscribed, by class.
    got: HashMap<(SessionId, Class), Seq>,
    last_ack: HashMap<(SessionId, Class), u64>,
    next_id: HashMap<(u64, Class), u64>,
    waiting_joins: i64,
    /// What the system asked for and was not answered, by number; and what became of each id.
    pushed: BTreeMap<u64, (u64, Class, u64)>,
    pushes: HashMap<u64, (Class, u64, Option<Seq>)>,
    last_push: u64,
    chat_offered: u64,
    chat_acked: u64,
    chat_shed: u64,
    chat_shed_told: u64,
    /// Users as presence tells them, from the beginning.
    users: BTreeSet<String>,
    presence_version: u64,
    wake: Option<Duration>,
    /// Members and gateways as they are told of to who wants to know.
    told: BTreeSet<(SessionId, String)>,
    gateways: BTreeSet<u64>,
}

fn id(session: u64) -> SessionId {
    SessionId { gateway: session % 3, session }
}

fn user(session: u64) -> String {
    format!("user{}", session % 5)
}

impl Sim {
    fn new() -> Self {
        let now = Now { since_start: Duration::ZERO, wall_ms: 1_000_000 };
        let config = RoomConfig { chat_per_second: 5, state_keys: 3, ..RoomConfig::default() };
        let room = Room::new(7, Kind::Room, Arc::new(config), Loaded::default(), now);
        let mut sim = Self {
            fx: Effects::default(),
            now,
            collected: Vec::new(),
            stored: HashSet::new(),
            published: Class::ALL.map(|class| room.head(class)),
            delivered: HashSet::new(),
            subscribed: BTreeMap::new(),
            got: HashMap::new(),
            last_ack: HashMap::new(),
            next_id: HashMap::new(),
            waiting_joins: 0,
            pushed: BTreeMap::new(),
            pushes: HashMap::new(),
            last_push: 0,
            chat_offered: 0,
            chat_acked: 0,
            chat_shed: 0,
            chat_shed_told: 0,
            users: BTreeSet::new(),
            presence_version: room.members.presence.version(),
            room,
            wake: None,
            told: BTreeSet::new(),
            gateways: BTreeSet::new(),
        };
        sim.fx.moves.wanted = true;
        sim
    }

    fn apply(&mut self, event: Event) {
        self.room.apply(event, self.now, &mut self.fx);
        let list: Vec<Effect> = self.fx.list.drain(..).collect();
        // Everything is published to the route as it is after the event.
        for effect in list {
            self.check(effect);
        }
        let route: BTreeSet<u64> = self.subscribed.keys().map(|session| session.gateway).collect();
        assert_eq!(route, self.room.route().collect());
        self.check_moves();
        let waiting = u64::try_from(self.room.chat.waiting_len()).unwrap();
        assert_eq!(self.chat_offered, self.chat_acked + waiting);
        assert_eq!(self.chat_acked, self.chat_shed + self.published[2].counter);
    }

    /// Those who came and went are those who are there.
    fn check_moves(&mut self) {
        let member = |session, user: &str, device: &str| (session, format!("{user} on {device}"));
        for Move { session, user, device, came } in self.fx.moves.list.drain(..) {
            let member = member(session, &user, &device);
            assert!(if came { self.told.insert(member) } else { self.told.remove(&member) });
        }
        let listed =
            self.room.listed().map(|(session, user, device)| member(session, user, device));
        assert_eq!(self.told, listed.collect());
        let gateways: BTreeSet<_> = self.room.route().collect();
        let rerouted = std::mem::take(&mut self.fx.moves.rerouted);
        assert!(rerouted || self.gateways == gateways);
        self.gateways = gateways;
    }

    fn run(&mut self, op: Op) {
        match op {
            Op::Join { session, send_only } => {
                self.waiting_joins += 1;
                let device = Text::from(format!("device{session}"));
                let (user, have) = (Text::from(user(session)), [None; 3]);
                let (access, asked) = (session % 2, Text::from("room"));
                let session = id(session);
                let join = Join {
                    session,
                    access,
                    request: 1,
                    name: Text::from("chat:room"),
                    asked,
                    user,
                    device,
                    send_only,
                    have,
                    replaces: None,
                    early: false,
                    strokes: Default::default(),
                };
                self.apply(Event::Join(join));
            }
            Op::Leave { session } => {
                self.apply(Event::Leave { session: id(session), access: session % 2, request: 0 });
            }
            Op::Send { session, class, skip, key, len, void } => {
                self.send(session, class, skip, key, len, void);
            }
            Op::Push { id, class, digest } => self.push(id, class, digest),
            Op::Members { session } => {
                let members = frame::Members { request: 1, group: 7, ..Default::default() };
                self.apply(Event::Members { session: id(session), members });
            }
            Op::GatewayGone(gateway) => {
                self.subscribed.retain(|session, _| session.gateway != gateway);
                self.apply(Event::GatewayGone(gateway));
            }
            Op::AccessGone(access) => self.apply(Event::AccessGone(access)),
            Op::Collect => {
                self.collected.clear();
                self.room.collect(&mut self.collected);
            }
            Op::Stored => {
                let stored: Vec<_> = self.collected.drain(..).collect();
                let classes: BTreeSet<Class> = stored.iter().map(|a| a.log.class).collect();
                self.stored.extend(stored.iter().map(|a| (a.log.class, a.record.seq)));
                classes.into_iter().for_each(|class| self.apply(Event::Appended(class)));
            }
            Op::Pass { ms } => self.pass(ms),
        }
    }

    fn pass(&mut self, ms: u64) {
        let until = self.now.since_start + Duration::from_millis(ms);
        while let Some(wake) = self.wake.filter(|wake| *wake <= until) {
            self.now.since_start = self.now.since_start.max(wake);
            self.wake = None;
            self.apply(Event::Tick);
        }
        self.now = Now { since_start: until, wall_ms: self.now.wall_ms + ms };
    }

    fn send(
        &mut self,
        session: u64,
        class: Class,
        skip: i64,
        key: Option<u8>,
        len: usize,
        void: bool,
    ) {
        let next = self.next_id.entry((session, class)).or_insert(1);
        let id_sent = next.saturating_add_signed(skip).max(1);
        let member = self.room.members.get(id(session)).is_some();
        let new = id_sent == *next || (class == Class::Chat && id_sent > *next);
        if member && new {
            *next = id_sent + 1;
            self.chat_offered += u64::from(class == Class::Chat);
        }
        let key = key.filter(|_| class == Class::Signal);
        let key = key.map_or(Text::default(), |k| Text::from(format!("k{}", k % 3)));
        let payload = Rest(Bytes::from(vec![b'x'; len]));
        let expires_ms = if void { self.now.wall_ms + 10 } else { 0 };
        let send = frame::Send { group: 7, class, id: id_sent, expires_ms, key, payload };
        self.apply(Event::Send { session: id(session), send, store_full: false });
    }

    fn push(&mut self, id: u64, class: Class, digest: u64) {
        self.last_push += 1;
        let push = self.last_push;
        self.pushed.insert(push, (id, class, digest));
        self.chat_offered += u64::from(class == Class::Chat && !self.room.knows_push(id));
        let payload = Rest(Bytes::from_static(b"news"));
        let send = frame::Send { group: 7, class, id, payload, ..frame::Send::default() };
        let from = Asker::System { link: 1, push };
        self.apply(Event::Push { push: Push { from, digest, send }, store_full: false });
    }

    fn pushed(&mut self, pushed: rooms::Pushed) {
        let (id, class, digest) = self.pushed.remove(&pushed.push).expect("one answer to each");
        let Some(rooms::pushed::Answer::Sent(sent)) = pushed.answer else {
            assert_eq!(
                (class, ErrorCode::from_code(pushed.code.into())),
                (Class::Chat, ErrorCode::Unavailable),
                "while the same chat waits"
            );
            return;
        };
        let place = sent.place.map(Seq::from);
        if sent.differs {
            let (first_class, first_digest, _) =
                self.pushes.get(&id).copied().unwrap_or((class, 0, None));
            assert!((class, digest) != (first_class, first_digest));
        } else if let Some(first) = self.pushes.get(&id) {
            assert_eq!(*first, (class, digest, place), "the answer of the first");
        } else {
            assert!(!sent.repeat);
            self.pushes.insert(id, (class, digest, place));
            if class == Class::Chat {
                self.chat_acked += 1;
                self.chat_shed += u64::from(place.is_none());
            }
        }
        if let Some(place) = place {
            assert!(place <= self.published[class.index()], "answered after published");
        }
    }

    fn check(&mut self, effect: Effect) {
        match effect {
            Effect::Subscribe { session, class, head, .. } => {
                assert_eq!(head, self.published[class.index()], "subscribed at the head");
                self.subscribed.entry(session).or_default()[class.index()] = head;
                self.got.insert((session, class), head);
            }
            Effect::Unsubscribe { session } => {
                self.subscribed.remove(&session);
            }
            Effect::Publish { class, first, count, frames } => {
                self.publish(class, first, count, frames);
            }
            Effect::ToSession { session, frames, .. } => {
                for frame in decode(frames) {
                    if let Frame::Ack(ack) = frame {
                        self.ack(session, &ack);
                    }
                }
            }
            Effect::ToAccess { item: Item::Joined(_) | Item::Refused(_), .. } => {
                self.waiting_joins -= 1;
                assert!(self.waiting_joins >= 0, "one answer to each join");
            }
            Effect::ToAccess { item: Item::Pushed(pushed), .. } => self.pushed(pushed),
            Effect::ToAccess { .. } | Effect::AppendBehind(_) => {}
            Effect::WakeAt(due) => self.wake = Some(self.wake.map_or(due, |wake| wake.min(due))),
            Effect::Route { .. } | Effect::Announce { .. } | Effect::Retract { .. } => {
                panic!("the strokes are here")
            }
        }
    }

    fn publish(&mut self, class: Class, first: Seq, count: u32, frames: Bytes) {
        let frames = decode(frames);
        if count == 0 {
            frames.into_iter().for_each(|frame| self.presence(frame));
            return;
        }
        assert_eq!(frames.len(), count as usize);
        assert_eq!(first, self.published[class.index()].next(), "no hole between publications");
        for frame in frames {
            let Frame::Deliver(deliver) = frame else { panic!("not a delivery: {frame:?}") };
            assert_eq!(deliver.seq, self.published[class.index()].next());
            self.published[class.index()] = deliver.seq;
            if class == Class::Chat {
                assert!(deliver.shed >= self.chat_shed_told, "the count of shed chat only grows");
                self.chat_shed_told = deliver.shed;
            } else {
                assert!(self.stored.contains(&(class, deliver.seq)), "stored before published");
            }
            if deliver.expires_ms == 1 {
                assert!(deliver.payload.0.is_empty() && deliver.sender.is_empty());
            }
            for session in self.subscribed.keys() {
                let got = self.got.get_mut(&(*session, class)).unwrap();
                assert_eq!(got.next(), deliver.seq, "a member misses nothing, sees nothing twice");
                *got = deliver.seq;
            }
        }
    }

    fn ack(&mut self, session: SessionId, ack: &frame::Ack) {
        let known = format!("{}/device{}", user(session.session), session.session);
        match ack.status {
            AckStatus::Accepted => {
                assert!(ack.seq <= self.published[ack.class.index()], "acked after published");
                let first = self.delivered.insert((known, ack.class, ack.id));
                assert!(first, "a message is published once");
                self.chat_acked += u64::from(ack.class == Class::Chat);
            }
            AckStatus::Shed => {
                self.chat_acked += 1;
                self.chat_shed += 1;
            }
            AckStatus::Duplicate => {
                assert!(ack.class == Class::Chat || ack.seq <= self.published[ack.class.index()]);
                return;
            }
            AckStatus::OutOfOrder => assert_ne!(ack.id, ack.expected),
            AckStatus::Refused => return,
        }
        if ack.class.reliable() && ack.status == AckStatus::Accepted {
            let last = self.last_ack.insert((session, ack.class), ack.id).unwrap_or(0);
            assert_eq!(ack.id, last + 1, "acks come in the order of ids, none is left out");
        }
    }

    fn presence(&mut self, frame: Frame) {
        let Frame::Presence(p) = frame else { panic!("not presence: {frame:?}") };
        assert_eq!(p.version, self.presence_version + 1);
        assert_eq!(p.flags & presence_flag::COUNT_ONLY, 0);
        self.presence_version = p.version;
        p.left.iter().for_each(|user| {
            self.users.remove(user.as_str());
        });
        self.users.extend(p.joined.iter().map(|user| user.to_string()));
        assert_eq!(p.members, self.users.len() as u64);
    }

    /// Stores everything and lets time pass: then nothing waits any more.
    fn settle(&mut self) {
        for _ in 0..3 {
            self.run(Op::Collect);
            self.run(Op::Stored);
        }
        self.pass(2000);
        assert_eq!(self.room.pending_bytes(), 0);
        assert_eq!(self.waiting_joins, 0);
        assert!(self.pushed.is_empty(), "all are answered");
        assert!(self.room.logs.iter().all(log::Log::is_settled));
        let members: BTreeSet<String> =
            self.room.members.users().keys().map(|user| user.to_string()).collect();
        assert_eq!(self.users, members, "presence gives the list of members");
        assert_eq!(self.chat_offered, self.chat_shed + self.published[2].counter);
    }
}

pub(super) fn decode(mut frames: Bytes) -> Vec<Frame> {
    let mut out = Vec::new();
    while let Some(raw) = frame::split(&mut frames).unwrap() {
        out.push(raw.parse().unwrap());
    }
    assert!(frames.is_empty(), "whole frames");
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn whatever_happens_the_promises_hold(ops in prop::collection::vec(ops(), 1..200)) {
        let mut sim = Sim::new();
        for op in ops {
            sim.run(op);
        }
        sim.settle();
    }
}
