#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::{Duration, Instant};

use bytes::Bytes;
use edgeway_proto::{
    AckStatus as WireStatus, Class, CloseCode, ErrorCode, Lane, Rest, Seq,
    frame::{self, Frame, split},
};
use tokio::sync::oneshot;

use super::{
    Core, Draft, FETCHES_MAX, Reads, RoomId, Write,
    sim::{config, welcome},
};
use crate::{
    Ack, AckStatus, Behind, Event, JoinOptions, LeftCause, Message, Outgoing, RawFrame,
    RequestError, SendError, SessionId,
};

mod cursor;

const SIGNAL: Lane = Lane::new(1, Class::Signal);
const CHAT: Lane = Lane::new(1, Class::Chat);

/// A core and what it says.
struct Bench {
    core: Core,
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        let mut core = Core::new(config());
        core.connected(&welcome(), 10);
        Self { core, now: Instant::now() }
    }

    fn give(&mut self, lane: Lane, frame: impl Into<Frame>) {
        let mut bytes = bytes::BytesMut::new();
        frame.into().encode(&mut bytes);
        let raw = split(&mut bytes.freeze()).unwrap().unwrap();
        self.core.frame(lane, &raw, self.now).unwrap();
    }

    fn written(&mut self) -> Vec<Frame> {
        let mut all = Vec::new();
        while let Some(write) = self.core.next_write(self.now, true) {
            if let Write::Frames(_, mut bytes) = write {
                while let Some(raw) = split(&mut bytes).unwrap() {
                    all.push(raw.parse().unwrap());
                }
            }
        }
        all
    }

    fn events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.core.arrived.events)
    }

    fn join(&mut self, name: &str, group: u64) -> RoomId {
        let (answer, mut joined) = oneshot::channel();
        self.core.join(SessionId::CHAT, name, &JoinOptions::default(), answer);
        self.answer_join(group, [Seq::new(1, 0); 3]);
        joined.try_recv().unwrap().unwrap()
    }

    fn answer_join(&mut self, group: u64, heads: [Seq; 3]) {
        for frame in self.written() {
            if let Frame::Join(join) = frame {
                self.give(SIGNAL, joined(&join, group, heads));
            }
        }
    }

    fn send(
        &mut self,
        room: RoomId,
        message: Outgoing,
    ) -> oneshot::Receiver<Result<Ack, SendError>> {
        let (waiter, waiting) = oneshot::channel();
        self.core.send(room, Draft::new(message).unwrap(), None, Some(waiter)).unwrap();
        waiting
    }

    fn at(&mut self, later: Duration) {
        self.now += later;
        self.core.timeout(self.now);
    }
}

fn joined(join: &frame::Join, group: u64, heads: [Seq; 3]) -> frame::Joined {
    frame::Joined {
        request: join.request,
        room: join.room.clone(),
        group,
        members: 3,
        presence_version: 1,
        classes: heads.map(|head| (head, 0)).to_vec(),
        state: Rest::default(),
    }
}

fn deliver(group: u64, class: Class, counter: u64) -> frame::Deliver {
    frame::Deliver {
        group,
        class,
        seq: Seq::new(1, counter),
        sender: "ann".into(),
        payload: Rest(Bytes::from_static(b"x")),
        ..frame::Deliver::default()
    }
}

fn messages(events: &[Event]) -> Vec<&Message> {
    events.iter().filter_map(message_of).collect()
}

fn message_of(event: &Event) -> Option<&Message> {
    match event {
        Event::Message(message) => Some(message),
        _ => None,
    }
}

#[test]
fn chat_that_overtakes_its_joined_is_held_and_given_after_it() {
    let mut bench = Bench::new();
    let (answer, _joined) = oneshot::channel();
    bench.core.join(SessionId::CHAT, "maths", &JoinOptions::default(), answer);
    bench.give(CHAT, deliver(7, Class::Chat, 1));
    bench.give(CHAT, deliver(8, Class::Chat, 1));
    assert!(bench.events().is_empty());
    bench.answer_join(7, [Seq::new(1, 0); 3]);
    let events = bench.events();
    assert_eq!(messages(&events).len(), 1);
    assert_eq!(&*messages(&events)[0].room, "maths");
}

#[test]
fn what_comes_for_a_room_that_was_left_is_ignored() {
    let mut bench = Bench::new();
    let room = bench.join("maths", 7);
    let (answer, mut left) = oneshot::channel();
    bench.core.leave(room, answer);
    bench.give(SIGNAL, deliver(7, Class::Signal, 1));
    assert!(bench.events().is_empty());
    let request = match bench.written().remove(0) {
        Frame::Leave(leave) => leave.request,
        other => panic!("{other:?}"),
    };
    bench.give(SIGNAL, frame::Left { request, group: 7, ..frame::Left::default() });
    left.try_recv().unwrap().unwrap();
}

#[test]
fn room_state_is_the_latest_of_each_key_and_empty_ones_are_not_set() {
    let mut bench = Bench::new();
    let room = bench.join("maths", 7);
    for (n, (key, payload)) in
        [("page", "1"), ("quiz", "a"), ("page", "2"), ("quiz", "")].into_iter().enumerate()
    {
        let mut signal = deliver(7, Class::Signal, n as u64 + 1);
        signal.key = key.into();
        signal.payload = Rest(Bytes::from_static(payload.as_bytes()));
        bench.give(SIGNAL, signal);
    }
    let state = bench.core.state(room);
    assert_eq!(state.len(), 1);
    assert_eq!(&*bench.core.state_of(room, "page").unwrap().payload, b"2");
    assert_eq!(bench.core.state_of(room, "quiz"), None);
}

#[test]
fn chat_beyond_its_queue_drops_the_oldest() {
    let mut bench = Bench::new();
    let room = bench.join("maths", 7);
    let mut answers: Vec<_> = (0..10)
        .map(|_| bench.send(room, Outgoing::chat(Bytes::from(vec![0; 10 * 1024]))))
        .collect();
    for answer in &mut answers[..4] {
        assert_eq!(answer.try_recv().unwrap(), Err(SendError::Dropped));
    }
    assert!(answers[4].try_recv().is_err());
    let ids: Vec<u64> = bench
        .written()
        .into_iter()
        .filter_map(|f| if let Frame::Send(send) = f { Some(send.id) } else { None })
        .collect();
    assert_eq!(ids, [5, 6, 7, 8, 9, 10]);
}

#[test]
fn chat_without_an_ack_counts_as_shed() {
    let mut bench = Bench::new();
    let room = bench.join("maths", 7);
    let mut answer = bench.send(room, Outgoing::chat(Bytes::from_static(b"hi")));
    bench.written();
    bench.at(Duration::from_secs(6));
    assert_eq!(answer.try_recv().unwrap().unwrap().status, AckStatus::Shed);
}

#[test]
fn a_refused_message_is_told_with_the_reason() {
    let mut bench = Bench::new();
    let room = bench.join("maths", 7);
    let mut answer = bench.send(room, Outgoing::signal(Bytes::from_static(b"hi")));
    bench.written();
    let code = ErrorCode::Forbidden.code();
    bench
        .give(SIGNAL, frame::Error { request: 0, code, retry_after_ms: 0, detail: "muted".into() });
    bench.give(
        SIGNAL,
        frame::Ack {
            group: 7,
            class: Class::Signal,
            id: 1,
            status: WireStatus::Refused,
            ..frame::Ack::default()
        },
    );
    let detail = "muted".to_owned();
    let refused = SendError::Refused { code: Some(ErrorCode::Forbidden), detail };
    assert_eq!(answer.try_recv().unwrap(), Err(refused));
}

#[test]
fn a_room_whose_owner_was_lost_is_joined_again_with_positions() {
    let mut bench = Bench::new();
    bench.join("maths", 7);
    bench.give(SIGNAL, deliver(7, Class::Signal, 1));
    let code = CloseCode::BackendLost.code();
    bench.give(SIGNAL, frame::Left { request: 0, group: 7, code, reason: "".into() });
    bench.at(Duration::from_secs(2));
    let join = match bench.written().remove(0) {
        Frame::Join(join) => join,
        other => panic!("{other:?}"),
    };
    assert_eq!(join.positions, [(Class::Signal, Seq::new(1, 1)), (Class::Binary, Seq::new(1, 0))]);
    assert!(bench.events().iter().all(|e| matches!(e, Event::Message(_))));
}

#[test]
fn what_a_lost_owner_was_asked_is_not_waited_for() {
    let mut bench = Bench::new();
    let room = bench.join("maths", 7);
    // A page that it will never send: as many as may be under way.
    for _ in 0..2 * FETCHES_MAX {
        bench.give(SIGNAL, deliver(7, Class::Signal, 9));
        let (answer, mut asked) = oneshot::channel();
        bench.core.history(room, Class::Signal, Seq::ZERO, 0, answer);
        let code = CloseCode::BackendLost.code();
        bench.give(SIGNAL, frame::Left { request: 0, group: 7, code, reason: "".into() });
        assert_eq!(asked.try_recv().unwrap().unwrap_err(), RequestError::ConnectionLost);
        bench.written();
        bench.at(Duration::from_secs(60));
        bench.answer_join(7, [Seq::new(1, 0); 3]);
    }
    bench.give(SIGNAL, deliver(7, Class::Signal, 9));
    assert!(matches!(&bench.written()[..], [Frame::History(_)]), "it can still ask");
}

#[test]
fn a_kick_is_told_and_not_undone() {
    let mut bench = Bench::new();
    let room = bench.join("maths", 7);
    let code = CloseCode::Kicked.code();
    bench.give(SIGNAL, frame::Left { request: 0, group: 7, code, reason: "out".into() });
    let events = bench.events();
    assert!(matches!(
        &events[..],
        [Event::Left { cause: LeftCause::Ended(CloseCode::Kicked), .. }]
    ));
    bench.at(Duration::from_secs(60));
    assert!(bench.written().is_empty());
    let draft = Draft::new(Outgoing::chat(Bytes::new())).unwrap();
    assert_eq!(bench.core.send(room, draft, None, None), Err(SendError::NotJoined));
}

#[test]
fn a_refused_join_is_the_callers_to_repeat() {
    let mut bench = Bench::new();
    let (answer, mut joined) = oneshot::channel();
    bench.core.join(SessionId::CHAT, "maths", &JoinOptions::default(), answer);
    let request = match bench.written().remove(0) {
        Frame::Join(join) => join.request,
        other => panic!("{other:?}"),
    };
    let code = ErrorCode::RoomFull.code();
    bench.give(SIGNAL, frame::Error { request, code, retry_after_ms: 500, detail: "full".into() });
    let error = joined.try_recv().unwrap().unwrap_err();
    assert!(error.may_retry());
    assert!(matches!(error, RequestError::Refused { code: ErrorCode::RoomFull, .. }));
}

#[test]
fn a_session_that_lost_its_backend_is_opened_again_under_a_new_number() {
    let mut bench = Bench::new();
    bench.join("maths", 7);
    bench.give(SIGNAL, frame::Opened { session: 1 });
    let code = CloseCode::BackendLost.code();
    bench.give(
        SIGNAL,
        frame::CloseSession { session: 1, code, retry_after_ms: 0, reason: "".into() },
    );
    assert!(matches!(&bench.events()[..], [Event::SessionClosed { reopening: true, .. }]));
    bench.at(Duration::from_secs(2));
    let written = bench.written();
    assert!(matches!(&written[0], Frame::Open(open) if open.session == 2 && &*open.kind == "chat"));
    assert!(matches!(&written[1], Frame::Join(join) if join.positions.len() == 2));
}

#[test]
fn a_connection_without_unused_session_numbers_is_given_up() {
    let mut bench = Bench::new();
    for n in 2..=63u8 {
        let (answer, mut opened) = oneshot::channel();
        bench.core.open("mine", &[], Reads::App, answer);
        bench.give(Lane::new(n, Class::Signal), frame::Opened { session: u64::from(n) });
        let id = opened.try_recv().unwrap().unwrap();
        bench.core.close_session(id);
        bench.written();
    }
    let (answer, _) = oneshot::channel();
    bench.core.open("mine", &[], Reads::App, answer);
    assert!(matches!(bench.core.next_write(bench.now, true), Some(Write::Close(_))));
    // It is opened on the next one.
    bench.core.disconnected();
    bench.core.connected(&welcome(), 10);
    assert!(matches!(&bench.written()[..], [Frame::Open(open)] if open.session == 2));
}

#[test]
fn missed_presence_reads_the_list_anew_and_applies_what_came_meanwhile() {
    let mut bench = Bench::new();
    bench.join("maths", 7);
    let change = |version, joined: &[&str], left: &[&str]| frame::Presence {
        group: 7,
        version,
        flags: 0,
        members: 3,
        joined: joined.iter().map(|n| (*n).into()).collect(),
        left: left.iter().map(|n| (*n).into()).collect(),
    };
    bench.give(SIGNAL, change(2, &["bob"], &[]));
    assert!(matches!(&bench.events()[..], [Event::Presence(p)] if !p.complete));
    bench.give(SIGNAL, change(4, &["dan"], &[]));
    bench.give(SIGNAL, change(5, &["eve"], &["ann"]));
    assert!(bench.events().is_empty());
    let request = match bench.written().remove(0) {
        Frame::Members(members) => members.request,
        other => panic!("{other:?}"),
    };
    bench.give(
        SIGNAL,
        frame::MemberPage {
            request,
            group: 7,
            total: 3,
            presence_version: 4,
            more: 0,
            users: vec!["ann".into(), "bob".into(), "dan".into()],
        },
    );
    let events = bench.events();
    let [Event::Presence(presence)] = &events[..] else { panic!("{events:?}") };
    assert!(presence.complete);
    let names: Vec<&str> = presence.joined.iter().map(|n| n.as_str()).collect();
    assert_eq!(names, ["bob", "dan", "eve"]);
    bench.give(SIGNAL, change(6, &[], &["bob"]));
    assert!(
        matches!(&bench.events()[..], [Event::Presence(p)] if !p.complete && p.left.len() == 1)
    );
}

#[test]
fn history_that_is_gone_is_told() {
    let mut bench = Bench::new();
    bench.join("maths", 7);
    bench.give(SIGNAL, frame::Behind { group: 7, class: Class::Signal, head: Seq::new(1, 9) });
    let request = match bench.written().remove(0) {
        Frame::History(history) => history.request,
        other => panic!("{other:?}"),
    };
    let page = frame::Page {
        request,
        group: 7,
        class: Class::Signal,
        flags: frame::page_flag::TRUNCATED,
        upto: Seq::new(1, 9),
        head: Seq::new(1, 9),
        messages: Rest(deliver(7, Class::Signal, 9).to_bytes()),
    };
    bench.give(SIGNAL, page);
    let events = bench.events();
    assert!(matches!(
        &events[..],
        [Event::HistoryLost { after, .. }, Event::Message(_)] if *after == Seq::new(1, 0)
    ));
    assert!(matches!(&bench.written()[..], [Frame::CaughtUp(c)] if c.last == Seq::new(1, 9)));
}

#[test]
fn raw_sessions_pass_frames_both_ways() {
    let mut bench = Bench::new();
    let (answer, mut opened) = oneshot::channel();
    bench.core.open("mine", &[("k".into(), "v".into())], Reads::App, answer);
    assert!(matches!(&bench.written()[..], [Frame::Open(open)] if open.session == 2));
    let lane = Lane::new(2, Class::Signal);
    bench.give(lane, frame::Opened { session: 2 });
    let id = opened.try_recv().unwrap().unwrap();
    let frame = RawFrame { kind: 0x90, body: Bytes::from_static(b"body") };
    bench.core.send_raw(id, Class::Binary, frame.clone()).unwrap();
    let Some(Write::Frames(lane, mut bytes)) = bench.core.next_write(bench.now, true) else {
        panic!("nothing is written")
    };
    assert_eq!(lane, Lane::new(2, Class::Binary));
    let back = split(&mut bytes).unwrap().unwrap();
    bench.core.frame(lane, &back, bench.now).unwrap();
    let events = bench.events();
    assert_eq!(events, [Event::Frame { session: id, class: Class::Binary, frame }]);
    let low = RawFrame { kind: 0x10, body: Bytes::new() };
    assert_eq!(bench.core.send_raw(id, Class::Signal, low), Err(SendError::BadKind));

    // Groups of its own: it is told that it is behind, and says when it is not.
    let head = Seq::new(3, 9);
    let signal = Lane::new(2, Class::Signal);
    bench.give(signal, frame::Behind { group: 5, class: Class::Chat, head });
    let events = bench.events();
    let [Event::Frame { frame, .. }] = &events[..] else { panic!("{events:?}") };
    assert_eq!(frame.behind(), Some(Behind { group: 5, class: Class::Chat, head }));
    bench.core.send_caught_up(id, 5, Class::Chat, head).unwrap();
    let written = bench.written();
    assert!(matches!(&written[..], [Frame::CaughtUp(c)] if (c.group, c.last) == (5, head)));
}

#[test]
fn rooms_of_another_type_are_kept_by_the_client_beside_frames_of_the_backend_s_own() {
    let mut bench = Bench::new();
    let open = |bench: &mut Bench, kind: &str| {
        let (answer, opened) = oneshot::channel();
        bench.core.open(kind, &[], Reads::Both, answer);
        opened
    };
    let (mut opened, mut again) = (open(&mut bench, "quiz"), open(&mut bench, "quiz"));
    assert!(matches!(&bench.written()[..], [Frame::Open(open)] if &*open.kind == "quiz"));
    let lane = Lane::new(2, Class::Signal);
    bench.give(lane, frame::Opened { session: 2 });
    let id = opened.try_recv().unwrap().unwrap();
    assert_eq!(again.try_recv().unwrap().unwrap(), id, "the same type is the same Session");

    let (answer, mut joined_room) = oneshot::channel();
    bench.core.join(id, "maths", &JoinOptions::default(), answer);
    for frame in bench.written() {
        if let Frame::Join(join) = frame {
            bench.give(lane, joined(&join, 7, [Seq::new(1, 0); 3]));
        }
    }
    joined_room.try_recv().unwrap().unwrap();
    bench.give(lane, deliver(7, Class::Signal, 1));
    bench.give(lane, deliver(7, Class::Signal, 1));
    let events = bench.events();
    let [Event::Message(message)] = &events[..] else { panic!("{events:?}") };
    assert_eq!((message.session, &*message.room), (id, "maths"));

    let own = split(&mut Bytes::from_static(b"\x80\x02hi")).unwrap().unwrap();
    bench.core.frame(Lane::new(2, Class::Chat), &own, bench.now).unwrap();
    let frame = RawFrame { kind: 0x80, body: Bytes::from_static(b"hi") };
    let expected = Event::Frame { session: id, class: Class::Chat, frame: frame.clone() };
    assert_eq!(bench.events(), [expected]);
    bench.core.send_raw(id, Class::Binary, frame).unwrap();
    let of_rooms = RawFrame { kind: 0x45, body: Bytes::new() };
    assert_eq!(bench.core.send_raw(id, Class::Signal, of_rooms), Err(SendError::BadKind));
}

#[test]
fn a_closed_client_answers_everyone() {
    let mut bench = Bench::new();
    let room = bench.join("maths", 7);
    let mut ack = bench.send(room, Outgoing::signal(Bytes::from_static(b"hi")));
    let (answer, mut page) = oneshot::channel();
    bench.core.history(room, Class::Signal, Seq::ZERO, 0, answer);
    bench.core.close(CloseCode::Kicked, "out".into());
    assert_eq!(ack.try_recv().unwrap(), Err(SendError::Closed));
    assert!(page.try_recv().unwrap().is_err());
    assert!(matches!(&bench.events()[..], [Event::Closed { code: CloseCode::Kicked, .. }]));
}

#[test]
fn hundreds_of_joins_go_together_and_of_rooms_with_much_state_few() {
    let mut bench = Bench::new();
    let ask = |bench: &mut Bench, rooms: std::ops::Range<u64>| {
        for n in rooms {
            let (answer, _) = oneshot::channel();
            bench.core.join(SessionId::CHAT, &n.to_string(), &JoinOptions::default(), answer);
        }
        bench.written()
    };
    let asked = ask(&mut bench, 0..300);
    assert_eq!(asked.len(), 300);
    let page = frame::Deliver {
        key: "page".into(),
        payload: Rest(Bytes::from_static(&[7; 8 * 1024])),
        ..deliver(0, Class::Signal, 1)
    };
    let state = Rest(page.to_bytes());
    for (n, frame) in asked.into_iter().enumerate() {
        let Frame::Join(join) = frame else { panic!("{frame:?}") };
        let joined = joined(&join, n as u64, [Seq::new(1, 1); 3]);
        bench.give(SIGNAL, frame::Joined { state: state.clone(), ..joined });
    }
    let more = ask(&mut bench, 300..600).len();
    assert!((20..40).contains(&more), "{more} answers of 8 KiB in 256 KiB");
}

/// The rooms and positions of joins.
fn rooms_of(joins: &[Bytes]) -> Vec<(String, Vec<(Class, Seq)>)> {
    let join = |frame| match frame {
        Frame::Join(join) => Some((join.room.to_string(), join.positions)),
        _ => None,
    };
    flown(joins).into_iter().filter_map(join).collect()
}

fn flown(frames: &[Bytes]) -> Vec<Frame> {
    frames.iter().map(|f| split(&mut f.clone()).unwrap().unwrap().parse().unwrap()).collect()
}

/// The requests for pages, with their class and position.
fn pages_of(frames: &[Bytes]) -> Vec<(u64, u64, Class, Seq)> {
    let page = |frame| match frame {
        Frame::History(h) => Some((h.request, h.group, h.class, h.after)),
        _ => None,
    };
    flown(frames).into_iter().filter_map(page).collect()
}

#[test]
fn rooms_are_joined_again_in_the_first_flight_and_not_once_more() {
    let mut bench = Bench::new();
    bench.join("maths", 7);
    bench.give(SIGNAL, deliver(7, Class::Signal, 1));
    bench.core.disconnected();
    let joins = bench.core.first_frames();
    let positions = vec![(Class::Signal, Seq::new(1, 1)), (Class::Binary, Seq::new(1, 0))];
    assert_eq!(rooms_of(&joins), [("maths".to_owned(), positions)]);
    bench.core.connected(&welcome(), 10 + joins.iter().map(Bytes::len).sum::<usize>());
    assert!(!bench.written().iter().any(|f| matches!(f, Frame::Join(_))), "it is under way");
    let Frame::Join(join) = split(&mut joins[0].clone()).unwrap().unwrap().parse().unwrap() else {
        panic!()
    };
    bench.events();
    bench.give(SIGNAL, joined(&join, 8, [Seq::new(1, 1), Seq::new(1, 0), Seq::new(1, 0)]));
    bench.give(SIGNAL, deliver(8, Class::Signal, 2));
    assert!(matches!(&bench.events()[..], [Event::Message(m)] if m.seq == Seq::new(1, 2)));
}

#[test]
fn a_first_flight_that_led_nowhere_is_flown_again() {
    let mut bench = Bench::new();
    bench.join("maths", 7);
    bench.core.disconnected();
    let first = rooms_of(&bench.core.first_frames());
    assert!(bench.core.first_frames().is_empty(), "asked once");
    bench.core.flight_failed();
    let again = bench.core.first_frames();
    assert_eq!((rooms_of(&again), pages_of(&again).len()), (first, 2));
    // A room that is left meanwhile is left when the answer comes.
    bench.core.flight_failed();
    let (answer, mut joined) = oneshot::channel();
    bench.core.join(SessionId::CHAT, "physics", &JoinOptions::default(), answer);
    assert_eq!(rooms_of(&bench.core.first_frames()).len(), 2);
    bench.core.connected(&welcome(), 10);
    assert!(joined.try_recv().is_err());
}

#[test]
fn a_first_flight_is_short_and_the_rest_follows() {
    let mut core = Core::new(config());
    for n in 0..1_000 {
        let (answer, _) = oneshot::channel();
        core.join(SessionId::CHAT, &format!("room-{n:0100}"), &JoinOptions::default(), answer);
    }
    let joins = core.first_frames();
    let bytes: usize = joins.iter().map(Bytes::len).sum();
    assert!((4_096..=8_192).contains(&bytes), "{bytes} bytes");
    core.connected(&welcome(), 10 + bytes);
    let mut bench = Bench { core, now: Instant::now() };
    let more = bench.written().iter().filter(|f| matches!(f, Frame::Join(_))).count();
    assert!(more > 0 && joins.len() + more <= 1_000);
}

/// A client that has signal 1-1 of a room that was 7, and comes back.
fn comes_back() -> (Bench, frame::Join, u64) {
    let mut bench = Bench::new();
    bench.join("maths", 7);
    bench.give(SIGNAL, deliver(7, Class::Signal, 1));
    bench.core.disconnected();
    let flight = bench.core.first_frames();
    let pages = pages_of(&flight);
    let (signal, zero) = (Seq::new(1, 1), Seq::new(1, 0));
    assert_eq!((pages[0].1, pages[0].2, pages[0].3), (7, Class::Signal, signal));
    assert_eq!((pages[1].1, pages[1].2, pages[1].3), (7, Class::Binary, zero));
    bench.core.connected(&welcome(), 10);
    let joins = flown(&flight).into_iter();
    let mut joins = joins.filter_map(|f| if let Frame::Join(join) = f { Some(join) } else { None });
    bench.events();
    (bench, joins.next().unwrap(), pages[0].0)
}

fn histories(frames: &[Frame]) -> usize {
    frames.iter().filter(|f| matches!(f, Frame::History(_))).count()
}

#[test]
fn what_was_missed_is_asked_for_in_the_first_flight_and_once() {
    let (mut bench, join, request) = comes_back();
    let heads = [Seq::new(1, 3), Seq::new(1, 0), Seq::new(1, 0)];
    bench.give(SIGNAL, joined(&join, 7, heads));
    bench.give(SIGNAL, frame::Behind { group: 7, class: Class::Signal, head: heads[0] });
    assert_eq!(histories(&bench.written()), 0, "it is under way");
    let mut messages = bytes::BytesMut::new();
    for n in 2..=3 {
        Frame::from(deliver(7, Class::Signal, n)).encode(&mut messages);
    }
    let (group, class, messages) = (7, Class::Signal, Rest(messages.freeze()));
    let page =
        frame::Page { request, group, class, flags: 0, upto: heads[0], head: heads[0], messages };
    bench.give(SIGNAL, page);
    assert_eq!(bench.events().len(), 2);
    let caught_up = |f: &Frame| matches!(f, Frame::CaughtUp(c) if c.last == heads[0]);
    assert!(bench.written().iter().any(caught_up));
}

#[test]
fn where_a_room_has_another_handle_what_was_asked_for_is_asked_again() {
    let (mut bench, join, request) = comes_back();
    let heads = [Seq::new(1, 3), Seq::new(1, 0), Seq::new(1, 0)];
    bench.give(SIGNAL, joined(&join, 8, heads));
    let code = ErrorCode::NotJoined.code();
    bench.give(SIGNAL, frame::Error { request, code, retry_after_ms: 0, detail: "".into() });
    bench.give(SIGNAL, frame::Behind { group: 8, class: Class::Signal, head: heads[0] });
    assert_eq!(histories(&bench.written()), 1);
    assert!(bench.events().is_empty(), "nothing is lost");
}

#[test]
fn where_a_join_is_refused_for_now_what_was_asked_for_is_asked_after_the_next() {
    let (mut bench, join, request) = comes_back();
    let refused = |request, code: ErrorCode| frame::Error {
        request,
        code: code.code(),
        retry_after_ms: 0,
        detail: "".into(),
    };
    bench.give(SIGNAL, refused(join.request, ErrorCode::Unavailable));
    bench.give(SIGNAL, refused(request, ErrorCode::NotJoined));
    bench.at(Duration::from_secs(2));
    let heads = [Seq::new(1, 3), Seq::new(1, 0), Seq::new(1, 0)];
    bench.answer_join(7, heads);
    bench.give(SIGNAL, frame::Behind { group: 7, class: Class::Signal, head: heads[0] });
    assert_eq!(histories(&bench.written()), 1);
    assert!(bench.events().is_empty(), "nothing is lost");
}

#[test]
fn chat_that_was_on_its_way_is_written_again_unless_it_is_old() {
    let mut bench = Bench::new();
    let room = bench.join("maths", 7);
    let mut old = bench.send(room, Outgoing::chat(Bytes::from_static(b"old")));
    bench.written();
    bench.now += Duration::from_secs(4);
    let mut young = bench.send(room, Outgoing::chat(Bytes::from_static(b"young")));
    bench.written();
    bench.core.disconnected();
    bench.now += Duration::from_secs(2);
    bench.core.connected(&welcome(), 10);
    bench.answer_join(7, [Seq::new(1, 0); 3]);
    let sends: Vec<u64> = bench
        .written()
        .into_iter()
        .filter_map(|f| if let Frame::Send(send) = f { Some(send.id) } else { None })
        .collect();
    assert_eq!(sends, [2], "by its id");
    assert_eq!(old.try_recv().unwrap(), Err(SendError::NoAnswer));
    assert!(young.try_recv().is_err(), "it waits for its answer");
    assert_eq!((bench.core.stats.failed, bench.core.stats.resent), (1, 1));
}
