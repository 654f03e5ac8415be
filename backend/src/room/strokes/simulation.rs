//! Both halves of a room, gateways and clients, with everything late, lost and begun anew at random: what pens
//! have drawn is in the log once and in their order, and each member sees all of it from its join on, once
//! and in the order of the log.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use edgeway_proto::{AckStatus, Frame, Rest, Seq};
use proptest::prelude::*;

use super::{super::simulation::decode, *};
use crate::{
    room::{Event, Join, Loaded, RoomConfig, SessionId, device_key},
    store::{Append, LogHead, LogId, Origin, Record},
};

const GATEWAYS: usize = 2;
const CLIENTS: usize = 5;

#[derive(Debug, Clone, Copy)]
enum Op {
    Join(usize),
    /// The connection is lost, and the client joins from another one.
    Lose(usize),
    Draw(usize),
    Page(usize),
    CatchUp(usize),
    Collect,
    Stored,
    /// So many items of a pipe arrive.
    Pump(usize, usize),
    /// The owner of the strokes is another one.
    Crash,
    /// Its link with a gateway, with the room's owner, or with access is another one.
    Cut(usize),
    Uncouple,
    Unplug,
}

fn ops() -> impl Strategy<Value = Op> {
    let client = || 0..CLIENTS;
    prop_oneof![
        4 => client().prop_map(Op::Join),
        1 => client().prop_map(Op::Lose),
        12 => client().prop_map(Op::Draw),
        6 => client().prop_map(Op::Page),
        6 => client().prop_map(Op::CatchUp),
        6 => Just(Op::Collect),
        6 => Just(Op::Stored),
        40 => (0..PIPES, 1usize..4).prop_map(|(pipe, count)| Op::Pump(pipe, count)),
        1 => Just(Op::Crash),
        1 => (0..GATEWAYS).prop_map(Op::Cut),
        1 => Just(Op::Uncouple),
        1 => Just(Op::Unplug),
    ]
}

/// What is on its way.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "some hundred of them, in a test")]
enum Item {
    Event(Event),
    Answer(rooms::Answer),
    Effect(Effect),
}

/// Pipes: from the room to the strokes and back, from access to the strokes, and for each gateway from the
/// strokes (deliveries, acks) and from the room (subscriptions, answers to joins).
const TO_STROKES: usize = 0;
const ANSWERS: usize = 1;
const DRAWN: usize = 2;
const FIRST: usize = 3;
const PIPES: usize = FIRST + 4 * GATEWAYS;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Standing {
    Live,
    Behind,
    Waiting,
}

/// As in `gateway/src/hub/sources.rs`.
#[derive(Debug, Default)]
struct Hub {
    announced: bool,
    head: Seq,
    members: BTreeMap<u64, Standing>,
}

#[derive(Debug, Default)]
struct Client {
    session: Option<SessionId>,
    joined: bool,
    asked: bool,
    /// What it has, and where it began.
    last: Option<Seq>,
    first: Seq,
    behind: bool,
    /// The gateway says so, and is told when it has caught up; otherwise the client has found a hole: it was
    /// behind when it joined again, and a delivery came before the gateway knew what it has.
    told: bool,
    /// The latest that it has seen of what it did not take.
    skipped: Seq,
    caught_up: bool,
    early: Vec<Effect>,
    seen: Vec<(Seq, Bytes)>,
    unacked: VecDeque<(u64, u64)>,
    next_id: u64,
    drawn: u64,
    drew: bool,
}

struct Sim {
    now: Now,
    room: Room,
    strokes: Room,
    log: Vec<Append>,
    collected: bool,
    pipes: [VecDeque<Item>; PIPES],
    asks: BTreeMap<u64, Join>,
    next: u64,
    hubs: [Hub; GATEWAYS],
    clients: [Client; CLIENTS],
}

fn at(gateway: u64) -> usize {
    usize::try_from(gateway).unwrap()
}

fn user(client: usize) -> Text {
    Text::from(format!("user{client}"))
}

fn load(log: &mut Vec<Append>, now: Now) -> Room {
    let mut loaded = Loaded::default();
    let head = &mut loaded.heads[Class::Binary.index()];
    let mut last_ids: BTreeMap<String, u64> = BTreeMap::new();
    for Append { record, .. } in log.iter() {
        *head = LogHead { last: record.seq, ..std::mem::take(head) };
        last_ids.insert(record.origin.device.clone(), record.origin.id);
        head.recent.push((record.origin.clone(), record.seq));
    }
    head.last_ids = last_ids.into_iter().map(|(device, id)| Origin { device, id }).collect();
    let seq = Seq::new(head.last.epoch + 1, 0);
    let (origin, key, frame) = (Origin::default(), String::new(), Bytes::new());
    let record = Record { seq, origin, time_ms: now.wall_ms, expires_ms: 0, key, frame };
    log.push(Append { log: LogId { group: 7, class: Class::Binary }, record });
    Room::new(7, Kind::Strokes, Arc::new(RoomConfig::default()), loaded, now)
}

impl Sim {
    fn new() -> Self {
        let now = Now { since_start: Duration::ZERO, wall_ms: 1_000_000 };
        let mut log = Vec::new();
        Self {
            now,
            room: Room::new(7, Kind::Apart, Arc::default(), Loaded::default(), now),
            strokes: load(&mut log, now),
            log,
            collected: false,
            pipes: Default::default(),
            asks: BTreeMap::new(),
            next: 0,
            hubs: Default::default(),
            clients: Default::default(),
        }
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn run(&mut self, op: Op) {
        match op {
            Op::Join(n) => self.join(n),
            Op::Lose(n) => self.lose(n),
            Op::Draw(n) => self.draw(n),
            Op::Page(n) => self.page(n),
            Op::CatchUp(n) => self.catch_up(n),
            Op::Collect if !self.collected => {
                let mut batch = Vec::new();
                self.strokes.collect(&mut batch);
                self.collected = !batch.is_empty();
                self.log.extend(batch);
            }
            Op::Stored if self.collected => {
                self.collected = false;
                self.apply_strokes(Event::Appended(Class::Binary));
            }
            Op::Collect | Op::Stored => {}
            Op::Pump(pipe, count) => self.pump(pipe, count),
            Op::Crash => self.crash(),
            Op::Cut(gateway) => {
                self.cut(gateway);
                self.apply_strokes(Event::GatewayCame(gateway as u64));
                self.draw_again(Some(gateway as u64));
            }
            Op::Uncouple => {
                self.apply_strokes(Event::AccessGone(1));
                self.couple();
            }
            Op::Unplug => {
                self.pipes[DRAWN].clear();
                self.draw_again(None);
            }
        }
    }

    /// What there is on its way is lost, and all links begin anew.
    fn crash(&mut self) {
        self.strokes = load(&mut self.log, self.now);
        self.collected = false;
        (0..GATEWAYS).for_each(|gateway| self.cut(gateway));
        self.pipes[DRAWN].clear();
        self.couple();
        self.draw_again(None);
    }

    fn cut(&mut self, gateway: usize) {
        self.pipes[FIRST + 4 * gateway].clear();
        self.pipes[FIRST + 4 * gateway + 1].clear();
        self.hubs[gateway].announced = false;
    }

    fn couple(&mut self) {
        self.pipes[TO_STROKES].clear();
        self.pipes[ANSWERS].clear();
        for (_, join) in std::mem::take(&mut self.asks) {
            self.ask_store(join);
        }
        self.apply_room(Event::TellRoute);
    }

    fn apply_room(&mut self, event: Event) {
        let mut fx = Effects::default();
        self.room.apply(event, self.now, &mut fx);
        for effect in fx.list {
            let pipe = match &effect {
                Effect::Route { epoch, gateways } => {
                    let route =
                        Event::Route { access: 1, epoch: *epoch, gateways: gateways.clone() };
                    self.pipes[TO_STROKES].push_back(Item::Event(route));
                    continue;
                }
                Effect::Subscribe { session, class: Class::Binary, .. }
                | Effect::Unsubscribe { session } => 4 * at(session.gateway) + 2,
                Effect::ToSession { session, .. } => 4 * at(session.gateway) + 3,
                _ => continue,
            };
            self.pipes[FIRST + pipe].push_back(Item::Effect(effect));
        }
    }

    fn apply_strokes(&mut self, event: Event) {
        let mut fx = Effects::default();
        self.strokes.apply(event, self.now, &mut fx);
        for effect in fx.list {
            let pipe = match &effect {
                Effect::ToAccess { item: super::Item::Answer(answer), .. } => {
                    self.pipes[ANSWERS].push_back(Item::Answer(*answer));
                    continue;
                }
                Effect::Publish { .. } => {
                    for gateway in self.strokes.route().collect::<Vec<_>>() {
                        let pipe = FIRST + 4 * at(gateway);
                        self.pipes[pipe].push_back(Item::Effect(effect.clone()));
                    }
                    continue;
                }
                Effect::Announce { gateway, .. } | Effect::Retract { gateway } => 4 * at(*gateway),
                Effect::ToSession { session, .. } => 4 * at(session.gateway) + 1,
                _ => continue,
            };
            self.pipes[FIRST + pipe].push_back(Item::Effect(effect));
        }
    }

    fn join(&mut self, n: usize) {
        if self.clients[n].asked || self.clients[n].joined {
            return;
        }
        let session = SessionId { gateway: (n % GATEWAYS) as u64, session: self.number() };
        let replaces = self.clients[n].session.replace(session);
        self.ask(n, session, replaces);
    }

    fn lose(&mut self, n: usize) {
        let Some(session) = self.clients[n].session else { return };
        self.hubs[n % GATEWAYS].members.remove(&session.session);
        let client = &mut self.clients[n];
        (client.joined, client.asked, client.behind, client.drew) = (false, false, false, false);
        client.early.clear();
        self.join(n);
    }

    fn ask(&mut self, n: usize, session: SessionId, replaces: Option<SessionId>) {
        let ask = self.number();
        let client = &mut self.clients[n];
        client.asked = true;
        let mut have = [None; 3];
        have[Class::Binary.index()] = client.last;
        let join = Join {
            session,
            access: 1,
            request: 1,
            name: Text::from("chat:r"),
            asked: Text::from("r"),
            user: user(n),
            device: Text::from("d"),
            send_only: false,
            have,
            replaces,
            early: false,
            strokes: Default::default(),
        };
        self.asks.insert(ask, join);
        let (user, device) = (user(n).to_string(), "d".to_owned());
        let ask = Event::Ask(Ask { access: 1, ask, session, user, device, early: false });
        self.pipes[TO_STROKES].push_back(Item::Event(ask));
    }

    fn ask_store(&mut self, mut join: Join) {
        let device = device_key(&join.user, &join.device);
        let of_device = self.log.iter().filter(|a| a.record.origin.device == device);
        let id = of_device.map(|a| a.record.origin.id).max().unwrap_or_default();
        join.strokes = (self.log.last().unwrap().record.seq, id);
        self.apply_room(Event::Join(join));
    }

    fn draw(&mut self, n: usize) {
        let client = &mut self.clients[n];
        if client.last.is_none() {
            return;
        }
        client.next_id += 1;
        client.unacked.push_back((client.next_id, client.drawn));
        client.drawn += 1;
        if client.joined {
            self.send(n, client_last(&self.clients[n]));
        }
    }

    fn send(&mut self, n: usize, (id, tag): (u64, u64)) {
        let Some(session) = self.clients[n].session else { return };
        self.clients[n].drew = true;
        let payload = Rest(Bytes::from(format!("{n} {tag}")));
        let send =
            frame::Send { group: 7, class: Class::Binary, id, payload, ..Default::default() };
        let (user, device) = (user(n), Text::from("d"));
        let stroke = Event::Stroke { session, user, device, send, store_full: false };
        self.pipes[DRAWN].push_back(Item::Event(stroke));
    }

    fn send_all(&mut self, n: usize) {
        for one in self.clients[n].unacked.clone() {
            self.send(n, one);
        }
    }

    /// Access has those join again who have drawn.
    fn draw_again(&mut self, gateway: Option<u64>) {
        for n in 0..CLIENTS {
            let on = gateway.is_none_or(|gateway| gateway == (n % GATEWAYS) as u64);
            if on && std::mem::take(&mut self.clients[n].drew) {
                self.join_again(n);
            }
        }
    }

    fn join_again(&mut self, n: usize) {
        let client = &mut self.clients[n];
        if let (true, Some(session)) = (client.joined, client.session) {
            (client.joined, client.behind) = (false, false);
            self.ask(n, session, None);
        }
    }

    fn pump(&mut self, pipe: usize, count: usize) {
        for _ in 0..count {
            let Some(item) = self.pipes[pipe].pop_front() else { return };
            match item {
                Item::Event(event) => self.apply_strokes(event),
                Item::Answer(answer) => {
                    let Some(mut join) = self.asks.remove(&answer.ask) else { continue };
                    match answer.head {
                        Some(head) => {
                            join.strokes = (head.into(), answer.last_id);
                            self.apply_room(Event::Join(join));
                        }
                        None => self.ask_store(join),
                    }
                }
                Item::Effect(effect) => self.gateway((pipe - FIRST) / 4, effect),
            }
        }
    }

    fn gateway(&mut self, at: usize, effect: Effect) {
        match effect {
            Effect::Announce { head, .. } => {
                let known = std::mem::replace(&mut self.hubs[at].head, head);
                assert!(head >= known);
                self.hubs[at].announced = true;
                let members = self.hubs[at].members.clone();
                for (session, standing) in members {
                    if standing == Standing::Waiting
                        || (standing == Standing::Live && head != known)
                    {
                        self.fall_behind(at, session);
                    }
                }
            }
            Effect::Retract { .. } => self.hubs[at].announced = false,
            Effect::Publish { first, count, .. } => {
                self.hubs[at].head = Seq::new(first.epoch, first.counter + u64::from(count) - 1);
                let members = self.hubs[at].members.clone();
                let live = members.into_iter().filter(|(_, s)| *s == Standing::Live);
                for (session, _) in live {
                    if let Some(n) = self.client_of(session) {
                        self.deliver(n, effect.clone());
                    }
                }
            }
            Effect::Subscribe { session, head, have, .. } => {
                self.subscribe(at, session, have.unwrap_or(head))
            }
            Effect::Unsubscribe { session } => drop(self.hubs[at].members.remove(&session.session)),
            Effect::ToSession { session, frames, .. } => {
                if let Some(n) = self.client_of(session.session) {
                    decode(frames).into_iter().for_each(|frame| self.frame(n, frame));
                }
            }
            other => panic!("{other:?}"),
        }
    }

    fn subscribe(&mut self, at: usize, session: SessionId, has: Seq) {
        if self.client_of(session.session).is_none() {
            return;
        }
        let hub = &mut self.hubs[at];
        let standing = if hub.announced { Standing::Live } else { Standing::Waiting };
        hub.members.insert(session.session, standing);
        if hub.announced && has < hub.head {
            self.fall_behind(at, session.session);
        }
    }

    fn fall_behind(&mut self, at: usize, session: u64) {
        self.hubs[at].members.insert(session, Standing::Behind);
        if let Some(n) = self.client_of(session) {
            // It comes as a frame, in order with deliveries.
            self.deliver(n, Effect::Retract { gateway: 0 });
        }
    }

    fn client_of(&self, session: u64) -> Option<usize> {
        self.clients.iter().position(|c| c.session.is_some_and(|s| s.session == session))
    }

    fn deliver(&mut self, n: usize, effect: Effect) {
        let client = &mut self.clients[n];
        if !client.joined {
            client.early.push(effect);
            return;
        }
        let Effect::Publish { frames, .. } = effect else {
            (client.behind, client.told, client.caught_up) = (true, true, false);
            return;
        };
        for frame in decode(frames) {
            let Frame::Deliver(deliver) = frame else { panic!("{frame:?}") };
            let last = client.last.unwrap();
            if deliver.seq <= last {
                continue;
            }
            let next = deliver.seq == last.next();
            if client.behind && (client.told || !next) {
                client.skipped = deliver.seq;
                continue;
            }
            if !next {
                (client.behind, client.told, client.caught_up) = (true, false, false);
                client.skipped = deliver.seq;
                continue;
            }
            client.last = Some(deliver.seq);
            client.seen.push((deliver.seq, deliver.payload.0));
        }
    }

    fn frame(&mut self, n: usize, frame: Frame) {
        match frame {
            Frame::Joined(joined) => self.joined(n, joined.classes[Class::Binary.index()]),
            Frame::Left(_) => self.join_again(n),
            // It knows no such group, and will hear of it by the ids that the join tells.
            Frame::Ack(_) if !self.clients[n].joined => {}
            Frame::Ack(ack) => {
                let client = &mut self.clients[n];
                match ack.status {
                    AckStatus::Accepted | AckStatus::Duplicate => {
                        client.unacked.retain(|(id, _)| *id != ack.id);
                    }
                    AckStatus::OutOfOrder => {
                        let first = client.unacked.front().map(|(id, _)| *id);
                        assert!(
                            first.is_none_or(|first| first <= ack.expected),
                            "never a new number"
                        );
                        self.send_all(n);
                    }
                    status => panic!("{status:?}"),
                }
            }
            other => panic!("{other:?}"),
        }
    }

    fn joined(&mut self, n: usize, (head, accepted): (Seq, u64)) {
        let client = &mut self.clients[n];
        (client.joined, client.asked) = (true, false);
        if client.last.is_none() {
            (client.last, client.first) = (Some(head), head);
        }
        match client.unacked.front() {
            None => client.next_id = accepted,
            Some((first, _)) => assert!(*first <= accepted + 1, "what was acked is known"),
        }
        for effect in std::mem::take(&mut client.early) {
            self.deliver(n, effect);
        }
        self.send_all(n);
    }

    fn page(&mut self, n: usize) {
        let client = &mut self.clients[n];
        if !client.behind || !client.joined {
            return;
        }
        let after = client.last.unwrap();
        for Append { record, .. } in self.log.iter().filter(|a| a.record.seq > after) {
            if record.seq.counter > 0 {
                let frames = decode(record.frame.clone());
                let [Frame::Deliver(deliver)] = &frames[..] else { panic!("{frames:?}") };
                client.seen.push((deliver.seq, deliver.payload.0.clone()));
            }
            client.last = Some(record.seq);
        }
        client.caught_up = true;
    }

    fn catch_up(&mut self, n: usize) {
        let client = &mut self.clients[n];
        if !client.behind || !client.joined || !std::mem::take(&mut client.caught_up) {
            return;
        }
        if client.last < Some(client.skipped) {
            return;
        }
        client.behind = false;
        if !client.told {
            return;
        }
        let (at, session, last) =
            (n % GATEWAYS, client.session.unwrap().session, client.last.unwrap());
        let hub = &mut self.hubs[at];
        if hub.members.get(&session) != Some(&Standing::Behind) {
            return;
        }
        if last < hub.head {
            return self.fall_behind(at, session);
        }
        let standing = if hub.announced { Standing::Live } else { Standing::Waiting };
        hub.members.insert(session, standing);
    }

    /// Lets everything arrive: all is as it should be.
    fn settle(&mut self) {
        for _ in 0..50 {
            (0..PIPES).for_each(|pipe| self.pump(pipe, usize::MAX));
            [Op::Collect, Op::Stored].into_iter().for_each(|op| self.run(op));
            (0..CLIENTS).for_each(|n| {
                self.page(n);
                self.catch_up(n);
            });
        }
        assert!(self.pipes.iter().all(VecDeque::is_empty), "{:?}", self.pipes);
        let log: Vec<(Seq, Bytes)> = self
            .log
            .iter()
            .filter(|a| a.record.seq.counter > 0)
            .map(|a| match &decode(a.record.frame.clone())[..] {
                [Frame::Deliver(deliver)] => (deliver.seq, deliver.payload.0.clone()),
                other => panic!("{other:?}"),
            })
            .collect();
        for (n, client) in self.clients.iter().enumerate().filter(|(_, c)| c.session.is_some()) {
            assert!(client.joined && client.unacked.is_empty(), "{client:?}");
            let drawn: Vec<String> = (0..client.drawn).map(|tag| format!("{n} {tag}")).collect();
            let own = format!("{n} ");
            let stored = log.iter().filter(|(_, stroke)| stroke.starts_with(own.as_bytes()));
            let stored: Vec<&[u8]> = stored.map(|(_, stroke)| &stroke[..]).collect();
            assert_eq!(stored, drawn.iter().map(String::as_bytes).collect::<Vec<_>>());
            let since = log.iter().filter(|(seq, _)| *seq > client.first);
            assert_eq!(client.seen, since.cloned().collect::<Vec<_>>(), "client {n}");
        }
    }
}

fn client_last(client: &Client) -> (u64, u64) {
    client.unacked.back().copied().unwrap_or_default()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn whatever_is_late_or_lost_strokes_are_whole_and_in_one_order(
        ops in prop::collection::vec(ops(), 1..400),
    ) {
        let mut sim = Sim::new();
        for op in ops {
            sim.run(op);
        }
        sim.settle();
    }
}
