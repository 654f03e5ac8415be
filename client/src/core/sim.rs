//! A gateway and a room's owner in memory, driven against the core: whatever is cut, repeated,
//! delayed or shed in between, the app gets each signal and stroke once and in order, and can count
//! the chat that it did not get.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use edgeway_proto::{
    AckStatus, Class, Lane, Rest, Seq,
    frame::{self, Frame, page_flag, param, split},
};
use proptest::prelude::*;
use tokio::sync::oneshot;

use super::{Core, CoreConfig, Draft, RoomId, Write};
use crate::{Ack, Event, JoinOptions, Outgoing, SendError, SessionId};

const GROUP: u64 = 77;

/// Messages of a page: few, so that there are many pages.
const PAGE: usize = 3;

pub(super) fn config() -> CoreConfig {
    CoreConfig {
        chat_queue_bytes: 64 * 1024,
        backoff_min: Duration::from_millis(100),
        backoff_max: Duration::from_secs(1),
        seed: 7,
    }
}

pub(super) fn welcome() -> frame::Welcome {
    let params = vec![
        (param::CREDIT_SIGNAL, 1 << 40),
        (param::CREDIT_BINARY, 1 << 40),
        (param::CREDIT_CHAT, 1 << 40),
    ];
    frame::Welcome { version: 1, params, ..frame::Welcome::default() }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Standing {
    Out,
    Live,
    Behind,
}

#[derive(Debug)]
struct Log {
    messages: Vec<frame::Deliver>,
    head: Seq,
    standing: Standing,
    /// The last id accepted from the client.
    last_id: u64,
}

/// Both sides.
pub(super) struct Sim {
    pub(super) core: Core,
    pub(super) now: Instant,
    logs: [Log; 3],
    /// What is under way to the client, by lane.
    down: [VecDeque<Bytes>; 3],
    connected: bool,
    pub(super) room: Option<RoomId>,
    joined: Option<oneshot::Receiver<Result<RoomId, crate::RequestError>>>,
    pub(super) events: Vec<Event>,
    refuse: bool,
    sent: u8,
    acks: Vec<(u8, oneshot::Receiver<Result<Ack, SendError>>)>,
    chat_acks: Vec<(u8, oneshot::Receiver<Result<Ack, SendError>>)>,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Op {
    Publish(u8),
    Void,
    FallBehind(u8),
    /// The next frame of a lane is lost (only what the hub would never do to signals).
    Lose(u8),
    Repeat(u8),
    NewEpoch(u8),
    Shed,
    Step(u8),
    Up,
    Send,
    SendChat,
    Refuse,
    Cut,
    Connect,
    Fail,
}

fn class(n: u8) -> Class {
    Class::ALL[usize::from(n) % 3]
}

impl Sim {
    pub(super) fn new() -> Self {
        let log = |_| Log {
            messages: Vec::new(),
            head: Seq::new(1, 0),
            standing: Standing::Out,
            last_id: 0,
        };
        let mut sim = Self {
            core: Core::new(config()),
            now: Instant::now(),
            logs: Class::ALL.map(log),
            down: Default::default(),
            connected: false,
            room: None,
            joined: None,
            events: Vec::new(),
            refuse: false,
            sent: 0,
            acks: Vec::new(),
            chat_acks: Vec::new(),
        };
        sim.connect();
        let (answer, joined) = oneshot::channel();
        sim.core.join(SessionId::CHAT, "maths", &JoinOptions::default(), answer);
        sim.joined = Some(joined);
        sim.settle();
        sim.room = Some(sim.joined.take().unwrap().try_recv().unwrap().unwrap());
        sim
    }

    fn connect(&mut self) {
        if !self.connected {
            self.connected = true;
            let flight = self.core.first_frames();
            self.core.connected(&welcome(), 10 + flight.iter().map(Bytes::len).sum::<usize>());
            self.down[0].push_back(frame::Opened { session: 1 }.to_bytes());
            for mut bytes in flight {
                self.serve(split(&mut bytes).unwrap().unwrap().parse().unwrap());
            }
        }
    }

    /// A connection that does not come about.
    fn fail(&mut self) {
        if !self.connected {
            self.core.first_frames();
            self.core.flight_failed();
        }
    }

    fn cut(&mut self) {
        if self.connected {
            self.connected = false;
            self.core.disconnected();
            self.down.iter_mut().for_each(VecDeque::clear);
            self.logs.iter_mut().for_each(|log| log.standing = Standing::Out);
        }
    }

    fn publish(&mut self, class: Class, mut deliver: frame::Deliver) -> Seq {
        let log = &mut self.logs[class.index()];
        log.head = log.head.next();
        deliver.group = GROUP;
        deliver.class = class;
        deliver.seq = log.head;
        log.messages.push(deliver.clone());
        if log.standing == Standing::Live {
            self.down[class.index()].push_back(deliver.to_bytes());
        }
        log.head
    }

    fn text(payload: u8) -> frame::Deliver {
        frame::Deliver {
            sender: "ann".into(),
            payload: Rest(Bytes::copy_from_slice(&[payload])),
            ..frame::Deliver::default()
        }
    }

    fn fall_behind(&mut self, class: Class) {
        let log = &mut self.logs[class.index()];
        if log.standing != Standing::Out {
            log.standing = Standing::Behind;
            let behind = frame::Behind { group: GROUP, class, head: log.head };
            self.down[class.index()].push_back(behind.to_bytes());
        }
    }

    /// Gives the next frame of a lane to the client.
    fn step(&mut self, class: Class) -> bool {
        let Some(mut bytes) = self.down[class.index()].pop_front() else { return false };
        let frame = split(&mut bytes).unwrap().unwrap();
        self.core.frame(Lane::new(1, class), &frame, self.now).unwrap();
        self.events.append(&mut self.core.arrived.events);
        true
    }

    /// Takes all that the client has written.
    fn up(&mut self) -> bool {
        let mut any = false;
        while let Some(write) = self.core.next_write(self.now, true) {
            any = true;
            if let Write::Frames(_, mut bytes) = write {
                while let Some(frame) = split(&mut bytes).unwrap() {
                    if self.connected {
                        self.serve(frame.parse().unwrap());
                    }
                }
            }
        }
        any
    }

    fn reply(&mut self, frame: impl Into<Frame>) {
        let mut bytes = BytesMut::new();
        frame.into().encode(&mut bytes);
        self.down[0].push_back(bytes.freeze());
    }

    fn serve(&mut self, frame: Frame) {
        match frame {
            Frame::Join(join) => self.serve_join(join),
            Frame::History(history) => self.serve_history(&history),
            Frame::CaughtUp(caught) => {
                let log = &mut self.logs[caught.class.index()];
                if log.standing == Standing::Behind {
                    if caught.last == log.head {
                        log.standing = Standing::Live;
                    } else {
                        self.fall_behind(caught.class);
                    }
                }
            }
            Frame::Send(send) => self.serve_send(send),
            Frame::Open(_) | Frame::Ping(_) => {}
            other => panic!("{other:?}"),
        }
    }

    fn serve_join(&mut self, join: frame::Join) {
        let classes = self.logs.iter().map(|log| (log.head, log.last_id)).collect();
        self.reply(frame::Joined {
            request: join.request,
            room: join.room,
            group: GROUP,
            members: 1,
            presence_version: 1,
            classes,
            state: Rest::default(),
        });
        for class in Class::ALL {
            self.logs[class.index()].standing = Standing::Live;
            let have = join.positions.iter().find(|(c, _)| *c == class).map(|(_, seq)| *seq);
            if have.is_some_and(|have| have != self.logs[class.index()].head) {
                self.fall_behind(class);
            }
        }
    }

    fn serve_history(&mut self, history: &frame::History) {
        let log = &self.logs[history.class.index()];
        let after = log.messages.iter().filter(|m| m.seq > history.after);
        let taken: Vec<_> = after.clone().take(PAGE).cloned().collect();
        let more = after.count() > PAGE;
        let upto = if more { taken.last().unwrap().seq } else { log.head };
        let mut messages = BytesMut::new();
        // Voids are not in pages.
        taken.iter().filter(|m| m.expires_ms != 1).for_each(|m| m.encode(&mut messages));
        let page = frame::Page {
            request: history.request,
            group: GROUP,
            class: history.class,
            flags: if more { page_flag::MORE } else { 0 },
            upto,
            head: log.head,
            messages: Rest(messages.freeze()),
        };
        self.reply(page);
    }

    fn serve_send(&mut self, send: frame::Send) {
        let last = self.logs[send.class.index()].last_id;
        let mut ack = frame::Ack {
            group: GROUP,
            class: send.class,
            id: send.id,
            status: AckStatus::Accepted,
            seq: Seq::ZERO,
            expected: 0,
        };
        if send.id <= last {
            ack.status = AckStatus::Duplicate;
        } else if send.class.reliable() && send.id != last + 1 {
            ack.status = AckStatus::OutOfOrder;
            ack.expected = last + 1;
        } else if send.class.reliable() && std::mem::take(&mut self.refuse) {
            ack.status = AckStatus::Refused;
        } else {
            self.logs[send.class.index()].last_id = send.id;
            let mut deliver = Self::text(send.payload.0[0]);
            deliver.sender = "me".into();
            ack.seq = self.publish(send.class, deliver);
        }
        self.reply(ack);
    }

    fn send(&mut self, class: Class) {
        self.sent = self.sent.wrapping_add(1);
        let (waiter, waiting) = oneshot::channel();
        let payload = Bytes::copy_from_slice(&[self.sent]);
        let message = match class {
            Class::Chat => Outgoing::chat(payload),
            _ => Outgoing::signal(payload),
        };
        let draft = Draft::new(message).unwrap();
        self.core.send(self.room.unwrap(), draft, None, Some(waiter)).unwrap();
        let acks = if class == Class::Chat { &mut self.chat_acks } else { &mut self.acks };
        acks.push((self.sent, waiting));
    }

    pub(super) fn apply(&mut self, op: Op) {
        match op {
            Op::Publish(n) => drop(self.publish(class(n), Self::text(n))),
            Op::Void => {
                let void = frame::Deliver { expires_ms: 1, ..frame::Deliver::default() };
                self.publish(Class::Signal, void);
            }
            Op::FallBehind(n) => self.fall_behind(class(n % 2)),
            Op::Lose(n) => {
                // Strokes held for a room that is being joined may be dropped; chat is shed.
                let lane = &mut self.down[usize::from(n % 2) + 1];
                let deliver = lane.front().is_some_and(|f| f[0] == frame::Deliver::KIND);
                if deliver {
                    lane.pop_front();
                }
            }
            Op::Repeat(n) => {
                let log = &self.logs[class(n).index()];
                if log.standing == Standing::Live
                    && let Some(last) = log.messages.last()
                {
                    self.down[class(n).index()].push_back(last.to_bytes());
                }
            }
            Op::NewEpoch(n) => {
                let log = &mut self.logs[class(n % 2).index()];
                log.head = Seq::new(log.head.epoch + 1, 0);
            }
            Op::Shed => {
                // The tail of the chat is shed for this connection: a Gap tells.
                let log = &self.logs[Class::Chat.index()];
                if log.standing == Standing::Live {
                    let upto = log.head;
                    let gap = frame::Gap { group: GROUP, class: Class::Chat, upto };
                    self.down[2].clear();
                    self.down[2].push_back(gap.to_bytes());
                }
            }
            Op::Step(n) => drop(self.step(class(n))),
            Op::Up => drop(self.up()),
            Op::Send => self.send(Class::Signal),
            Op::SendChat => self.send(Class::Chat),
            Op::Refuse => self.refuse = true,
            Op::Cut => self.cut(),
            Op::Connect => self.connect(),
            Op::Fail => self.fail(),
        }
        self.events.append(&mut self.core.arrived.events);
    }

    /// Until nobody has anything to do.
    pub(super) fn settle(&mut self) {
        for _ in 0..10_000 {
            let mut any = self.up();
            for class in Class::ALL {
                any |= self.step(class);
            }
            if let Some(at) = self.core.next_timeout()
                && !any
            {
                self.now = at;
                self.core.timeout(at);
                any = true;
            }
            self.events.append(&mut self.core.arrived.events);
            if !any {
                return;
            }
        }
        panic!("it does not come to rest");
    }

    fn delivered(&self, class: Class) -> Vec<Seq> {
        self.events
            .iter()
            .filter_map(|event| match event {
                Event::Message(m) if m.class == class => Some(m.seq),
                _ => None,
            })
            .collect()
    }

    fn check_reliable(&self, class: Class) {
        let real = self.logs[class.index()].messages.iter().filter(|m| m.expires_ms != 1);
        let all: Vec<Seq> = real.map(|m| m.seq).collect();
        assert_eq!(self.delivered(class), all, "{class}");
    }

    fn check_chat(&self) {
        let delivered = self.delivered(Class::Chat);
        assert!(delivered.is_sorted(), "{delivered:?}");
        let missed: u64 = self
            .events
            .iter()
            .map(|event| match event {
                Event::Gap { missed, .. } => *missed,
                _ => 0,
            })
            .sum();
        assert_eq!(missed, self.core.stats.missed);
        let published = self.logs[Class::Chat.index()].messages.len() as u64;
        assert_eq!(delivered.len() as u64 + missed, published);
    }

    fn check_sent(&mut self) {
        let mine = self.logs[0].messages.iter().filter(|m| &*m.sender == "me");
        let accepted: Vec<u8> = mine.map(|m| m.payload.0[0]).collect();
        let mut expected = Vec::new();
        for (n, ack) in &mut self.acks {
            match ack.try_recv().expect("every message is answered") {
                Ok(_) => expected.push(*n),
                Err(SendError::Refused { .. }) => {}
                Err(e) => panic!("{e}"),
            }
        }
        assert_eq!(accepted, expected);
    }

    /// Chat that was on its way when a connection was lost arrives all the same, and once.
    fn check_sent_chat(&mut self) {
        let mine = self.logs[2].messages.iter().filter(|m| &*m.sender == "me");
        let accepted: Vec<u8> = mine.map(|m| m.payload.0[0]).collect();
        let mut expected = Vec::new();
        for (n, ack) in &mut self.chat_acks {
            ack.try_recv().expect("every message is answered").expect("time does not pass");
            expected.push(*n);
        }
        assert_eq!(accepted, expected);
    }
}

fn op() -> impl Strategy<Value = Op> {
    let n = 0u8..6;
    prop_oneof![
        6 => n.clone().prop_map(Op::Publish),
        1 => Just(Op::Void),
        2 => n.clone().prop_map(Op::FallBehind),
        2 => n.clone().prop_map(Op::Lose),
        1 => n.clone().prop_map(Op::Repeat),
        1 => n.clone().prop_map(Op::NewEpoch),
        1 => Just(Op::Shed),
        8 => n.prop_map(Op::Step),
        4 => Just(Op::Up),
        3 => Just(Op::Send),
        3 => Just(Op::SendChat),
        1 => Just(Op::Refuse),
        1 => Just(Op::Cut),
        2 => Just(Op::Connect),
        1 => Just(Op::Fail),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]
    #[test]
    fn signals_and_strokes_once_and_in_order_and_chat_counted(
        ops in prop::collection::vec(op(), 0..120)
    ) {
        let mut sim = Sim::new();
        for op in ops {
            sim.apply(op);
        }
        sim.connect();
        sim.settle();
        // The last hole may be at the tail of a class: one more message shows it.
        for n in 0..3 {
            sim.apply(Op::Publish(n));
        }
        sim.settle();
        sim.check_reliable(Class::Signal);
        sim.check_reliable(Class::Binary);
        sim.check_chat();
        sim.check_sent();
        sim.check_sent_chat();
    }

    #[test]
    fn whatever_a_peer_sends_nothing_panics(
        frames in prop::collection::vec((any::<u8>(), 0u8..4, prop::collection::vec(any::<u8>(), 0..40)), 0..40)
    ) {
        let mut sim = Sim::new();
        for (kind, lane, body) in frames {
            let mut bytes = vec![kind, u8::try_from(body.len()).unwrap()];
            bytes.extend(body);
            let frame = split(&mut Bytes::from(bytes)).unwrap().unwrap();
            let lane = if lane == 3 { Lane::CONTROL } else { Lane::new(1, class(lane)) };
            let _ = sim.core.frame(lane, &frame, sim.now);
            while sim.core.next_write(sim.now, true).is_some() {}
        }
    }
}
