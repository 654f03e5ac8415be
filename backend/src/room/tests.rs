//! What a room promises, one promise at a time.

mod filtering;
mod notes;
mod push;
mod rules;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use edgeway_proto::{
    AckStatus, Class, ErrorCode, Frame, Rest, Seq, Text, frame, frame::presence_flag,
    rooms::from_owner_item::Item,
};

use super::{simulation::decode, *};
use crate::store::Origin;

/// A room and a clock.
struct Bench {
    room: Room,
    now: Now,
    fx: Effects,
}

const A: SessionId = SessionId { gateway: 1, session: 1 };
const B: SessionId = SessionId { gateway: 2, session: 2 };
const C: SessionId = SessionId { gateway: 1, session: 3 };

impl Bench {
    fn new(kind: Kind, change: impl FnOnce(&mut RoomConfig)) -> Self {
        let mut config = RoomConfig::default();
        change(&mut config);
        let now = Now { since_start: Duration::from_secs(100), wall_ms: 1_000_000 };
        let room = Room::new(7, kind, Arc::new(config), Loaded::default(), now);
        Self { room, now, fx: Effects::default() }
    }

    /// With `ann` in it as A and `bob` as B.
    fn with_two(change: impl FnOnce(&mut RoomConfig)) -> Self {
        let mut bench = Self::new(Kind::Room, change);
        bench.join(A, "ann");
        bench.join(B, "bob");
        bench
    }

    fn apply(&mut self, event: Event) -> Vec<Effect> {
        self.room.apply(event, self.now, &mut self.fx);
        self.fx.list.drain(..).collect()
    }

    fn join_event(session: SessionId, user: &str, send_only: bool) -> Event {
        let device = Text::from(format!("{user}'s phone"));
        let (user, asked, name) = (Text::from(user), Text::from("r"), Text::from("chat:r"));
        let (access, request, have) = (5, 9, [None; 3]);
        let replaces = None;
        Event::Join(Join {
            session,
            access,
            request,
            name,
            asked,
            user,
            device,
            send_only,
            have,
            replaces,
            early: false,
            strokes: Default::default(),
        })
    }

    fn join(&mut self, session: SessionId, user: &str) -> Vec<Effect> {
        self.apply(Self::join_event(session, user, false))
    }

    fn send(&mut self, session: SessionId, send: frame::Send) -> Vec<Effect> {
        self.apply(Event::Send { session, send, store_full: false })
    }

    /// Stores what there is: the number of records, and what follows.
    fn store(&mut self) -> (usize, Vec<Effect>) {
        let mut batch = Vec::new();
        self.room.collect(&mut batch);
        let mut effects = self.apply(Event::Appended(Class::Signal));
        effects.extend(self.apply(Event::Appended(Class::Binary)));
        (batch.len(), effects)
    }

    fn pass(&mut self, time: Duration) -> Vec<Effect> {
        self.now.since_start += time;
        self.now.wall_ms += u64::try_from(time.as_millis()).unwrap();
        self.apply(Event::Tick)
    }
}

fn message(class: Class, id: u64, payload: &'static [u8]) -> frame::Send {
    let payload = Rest(Bytes::from_static(payload));
    frame::Send { group: 7, class, id, payload, ..Default::default() }
}

fn signal(id: u64) -> frame::Send {
    message(Class::Signal, id, b"hello")
}

fn keyed(id: u64, key: &str, payload: &'static [u8]) -> frame::Send {
    frame::Send { key: Text::from(key), ..message(Class::Signal, id, payload) }
}

fn frames_to(effects: &[Effect], to: SessionId) -> Vec<Frame> {
    let frames = effects.iter().filter_map(|e| match e {
        Effect::ToSession { session, frames, .. } if *session == to => Some(frames.clone()),
        _ => None,
    });
    frames.flat_map(decode).collect()
}

fn acks(effects: &[Effect], to: SessionId) -> Vec<(u64, AckStatus, Seq)> {
    let ack = |f| match f {
        Frame::Ack(ack) => Some((ack.id, ack.status, ack.seq)),
        _ => None,
    };
    frames_to(effects, to).into_iter().filter_map(ack).collect()
}

fn errors(effects: &[Effect], to: SessionId) -> Vec<ErrorCode> {
    let error = |f| match f {
        Frame::Error(error) => Some(ErrorCode::from_code(error.code)),
        _ => None,
    };
    frames_to(effects, to).into_iter().filter_map(error).collect()
}

fn published(effects: &[Effect]) -> Vec<Frame> {
    let frames = effects.iter().filter_map(|e| match e {
        Effect::Publish { frames, .. } => Some(frames.clone()),
        _ => None,
    });
    frames.flat_map(decode).collect()
}

fn delivered(effects: &[Effect]) -> Vec<frame::Deliver> {
    let deliver = |f| match f {
        Frame::Deliver(deliver) => Some(deliver),
        _ => None,
    };
    published(effects).into_iter().filter_map(deliver).collect()
}

fn joined(effects: &[Effect], to: SessionId) -> Option<frame::Joined> {
    frames_to(effects, to).into_iter().find_map(|f| match f {
        Frame::Joined(joined) => Some(joined),
        _ => None,
    })
}

#[test]
fn a_signal_is_published_and_acked_only_when_it_is_stored() {
    let mut bench = Bench::with_two(|_| {});
    let effects = bench.send(A, signal(1));
    assert!(published(&effects).is_empty() && frames_to(&effects, A).is_empty());
    let (stored, effects) = bench.store();
    assert_eq!(stored, 1);
    let place = Seq::new(1, 1);
    let deliveries = delivered(&effects);
    assert_eq!((deliveries[0].seq, &*deliveries[0].sender), (place, "ann"));
    assert_eq!(acks(&effects, A), [(1, AckStatus::Accepted, place)]);
    let publish = effects.iter().position(|e| matches!(e, Effect::Publish { .. }));
    let ack = effects.iter().position(|e| matches!(e, Effect::ToSession { .. }));
    assert!(publish < ack);
}

#[test]
fn what_is_accepted_while_the_store_works_makes_one_batch() {
    let mut bench = Bench::with_two(|_| {});
    bench.send(A, signal(1));
    let mut first = Vec::new();
    bench.room.collect(&mut first);
    (2..=10).for_each(|id| drop(bench.send(A, signal(id))));
    let mut again = Vec::new();
    bench.room.collect(&mut again);
    assert_eq!(again.len(), 1, "another try is the same batch");
    assert_eq!(delivered(&bench.apply(Event::Appended(Class::Signal))).len(), 1);
    let (stored, effects) = bench.store();
    assert_eq!(stored, 9);
    let publishes = effects.iter().filter(|e| matches!(e, Effect::Publish { .. })).count();
    assert_eq!((publishes, delivered(&effects).len()), (1, 9));
}

#[test]
fn a_repeat_is_answered_with_the_place_of_the_first_and_never_before_it_is_stored() {
    let mut bench = Bench::with_two(|_| {});
    bench.send(A, signal(1));
    assert!(frames_to(&bench.send(A, signal(1)), A).is_empty());
    let place = Seq::new(1, 1);
    let (_, effects) = bench.store();
    let expected = [(1, AckStatus::Accepted, place), (1, AckStatus::Duplicate, place)];
    assert_eq!(acks(&effects, A), expected);
    assert_eq!(delivered(&effects).len(), 1);
    let effects = bench.send(A, signal(1));
    assert_eq!(acks(&effects, A), [(1, AckStatus::Duplicate, place)]);
}

#[test]
fn an_id_out_of_order_is_told_which_one_is_next_after_the_acks_before_it() {
    let mut bench = Bench::with_two(|_| {});
    bench.send(A, signal(1));
    assert!(frames_to(&bench.send(A, signal(5)), A).is_empty());
    let (_, effects) = bench.store();
    let frames = frames_to(&effects, A);
    assert!(matches!(&frames[0], Frame::Ack(a) if a.id == 1 && a.status == AckStatus::Accepted));
    assert!(matches!(&frames[1], Frame::Ack(a)
        if (a.id, a.status, a.expected) == (5, AckStatus::OutOfOrder, 2)));
}

#[test]
fn a_device_that_comes_back_joins_when_the_fate_of_its_messages_is_known() {
    let mut bench = Bench::with_two(|_| {});
    bench.send(A, signal(1));
    bench.apply(Event::Leave { session: A, access: 5, request: 0 });
    let again = SessionId { gateway: 2, session: 9 };
    assert!(frames_to(&bench.join(again, "ann"), again).is_empty());
    let (_, effects) = bench.store();
    let joined = joined(&effects, again).unwrap();
    assert_eq!(joined.classes[0], (Seq::new(1, 1), 1));
    let refused = |effects: &[Effect]| {
        let refusal = |e: &Effect| match e {
            Effect::ToAccess { item: Item::Refused(refused), .. } => Some(refused.code),
            _ => None,
        };
        effects.iter().find_map(refusal)
    };
    bench.send(again, signal(2));
    bench.apply(Event::Leave { session: again, access: 5, request: 0 });
    bench.join(A, "ann");
    let code = u32::try_from(ErrorCode::Unavailable.code()).unwrap();
    assert_eq!(refused(&bench.apply(Event::GatewayGone(1))), Some(code));
}

#[test]
fn joined_comes_before_the_subscriptions_and_both_tell_the_head() {
    let mut bench = Bench::with_two(|_| {});
    bench.send(A, signal(1));
    bench.store();
    bench.send(A, signal(2));
    let c = SessionId { gateway: 1, session: 3 };
    let effects = bench.join(c, "cid");
    let joined = joined(&effects, c).unwrap();
    assert_eq!(joined.members, 3);
    let head = Seq::new(1, 1);
    assert_eq!(joined.classes[0], (head, 0), "what is not published yet arrives live");
    assert!(matches!(effects[0], Effect::ToSession { .. }));
    assert!(
        matches!(effects[1], Effect::Subscribe { class: Class::Signal, head: h, .. } if h == head)
    );
    assert_eq!(bench.room.route().collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn room_state_comes_in_the_order_of_positions_and_an_empty_payload_removes_a_key() {
    let mut bench = Bench::with_two(|_| {});
    for (id, key, payload) in
        [(1, "z", &b"1"[..]), (2, "a", b"2"), (3, "m", b"3"), (4, "z", b"4"), (5, "m", b"")]
    {
        bench.send(A, keyed(id, key, payload));
    }
    let c = SessionId { gateway: 1, session: 3 };
    assert!(joined(&bench.join(c, "cid"), c).unwrap().state.0.is_empty(), "not stored yet");
    bench.store();
    let state = decode(joined(&bench.join(c, "cid"), c).unwrap().state.0);
    let state: Vec<_> = state
        .iter()
        .map(|f| match f {
            Frame::Deliver(d) => (d.key.to_string(), d.seq.counter),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(state, [("a".to_owned(), 2), ("z".to_owned(), 4)]);
}

#[test]
fn what_is_refused_does_not_use_up_its_id() {
    let mut bench = Bench::with_two(|c| {
        c.state_keys = 1;
        c.payload_bytes = 10;
    });
    bench.send(A, keyed(1, "a", b"x"));
    bench.store();
    for (send, code) in [
        (keyed(2, "b", b"x"), ErrorCode::TooLarge),
        (message(Class::Signal, 2, b"more than ten bytes"), ErrorCode::TooLarge),
        (
            frame::Send { key: Text::from("k"), ..message(Class::Binary, 1, b"") },
            ErrorCode::BadRequest,
        ),
        (message(Class::Chat, 1, b"more than ten bytes"), ErrorCode::TooLarge),
    ] {
        let id = send.id;
        let effects = bench.send(A, send);
        assert_eq!(errors(&effects, A), [code]);
        assert_eq!(acks(&effects, A), [(id, AckStatus::Refused, Seq::ZERO)]);
    }
    bench.send(A, signal(2));
    assert_eq!(bench.store().0, 1);
}

#[test]
fn what_waits_for_the_store_is_bounded_and_refused_above() {
    let mut bench = Bench::with_two(|c| c.pending_bytes = 4000);
    let refused = (1..100).find(|id| !frames_to(&bench.send(A, signal(*id)), A).is_empty());
    assert!(refused.is_some_and(|id| id > 5), "{refused:?}");
    bench.store();
    assert_eq!(bench.room.pending_bytes(), 0);
    let send = signal(refused.unwrap());
    let effects = bench.apply(Event::Send { session: A, send, store_full: true });
    assert_eq!(errors(&effects, A), [ErrorCode::Unavailable]);
}

#[test]
fn a_signal_that_expired_before_it_could_be_published_leaves_a_void() {
    let mut bench = Bench::with_two(|_| {});
    let expires_ms = bench.now.wall_ms + 50;
    bench.send(A, signal(1));
    bench.send(A, frame::Send { expires_ms, ..keyed(2, "k", b"late") });
    bench.send(A, signal(3));
    bench.pass(Duration::from_millis(50));
    let (_, effects) = bench.store();
    let deliveries = delivered(&effects);
    assert_eq!(deliveries.iter().map(|d| d.seq.counter).collect::<Vec<_>>(), [1, 2, 3]);
    let void = &deliveries[1];
    assert_eq!((void.expires_ms, void.payload.0.len(), void.sender.len()), (1, 0, 0));
    assert_eq!(acks(&effects, A).len(), 3);
    assert_eq!(joined(&bench.join(A, "ann"), A).unwrap().state.0.len(), 0);
}

#[test]
fn an_inbox_takes_ids_with_holes_and_hides_itself_from_senders() {
    let mut bench = Bench::new(Kind::Inbox, |_| {});
    bench.join(A, "ann");
    let effects = bench.apply(Bench::join_event(B, "bob", true));
    let told = joined(&effects, B).unwrap();
    assert_eq!((told.members, told.state.0.len(), told.classes[0].1), (0, 0, 0));
    assert!(!effects.iter().any(|e| matches!(e, Effect::Subscribe { .. })));
    assert_eq!(bench.room.route().collect::<Vec<_>>(), [1]);
    assert_eq!(bench.room.may_read(B).unwrap_err().0, ErrorCode::Forbidden);
    bench.send(B, signal(5));
    bench.send(B, signal(9));
    let (stored, effects) = bench.store();
    assert_eq!((stored, acks(&effects, B).len()), (2, 2));
    let effects = bench.send(B, message(Class::Chat, 1, b""));
    assert_eq!(errors(&effects, B), [ErrorCode::BadRequest]);
}

#[test]
fn presence_is_one_difference_a_second_and_says_nothing_of_who_left_and_came_back() {
    let mut bench = Bench::with_two(|_| {});
    let c = SessionId { gateway: 1, session: 3 };
    bench.join(c, "ann");
    bench.apply(Event::Leave { session: A, access: 5, request: 0 });
    // At a moment of the room's own, within a second.
    let tenths: Vec<_> =
        (0..10).map(|_| published(&bench.pass(Duration::from_millis(100)))).collect();
    let told = tenths.concat();
    let [Frame::Presence(told)] = &told[..] else { panic!("{told:?}") };
    assert_eq!((told.members, told.joined.len(), told.left.len()), (2, 2, 0));
    bench.apply(Event::Leave { session: c, access: 5, request: 0 });
    bench.join(A, "ann");
    assert!(published(&bench.pass(Duration::from_secs(1))).is_empty());
}

#[test]
fn who_was_listed_and_left_before_the_next_difference_is_told_to_have_left() {
    let mut bench = Bench::with_two(|_| {});
    bench.pass(Duration::from_secs(1));
    let c = SessionId { gateway: 1, session: 3 };
    bench.join(c, "cid");
    let members = frame::Members { request: 1, group: 7, ..Default::default() };
    bench.apply(Event::Members { session: A, members });
    bench.apply(Event::Leave { session: c, access: 5, request: 0 });
    let told = published(&bench.pass(Duration::from_secs(1)));
    let [Frame::Presence(told)] = &told[..] else { panic!("{told:?}") };
    assert_eq!((told.members, told.joined.len(), &*told.left[0]), (2, 0, "cid"));
}

#[test]
fn presence_of_many_is_split_into_frames_and_above_the_bound_only_counted() {
    for (names_max, frames) in [(5000, 3), (1000, 1)] {
        let mut bench = Bench::new(Kind::Room, |c| c.presence_names_max = names_max);
        for session in 0..2500 {
            bench.join(SessionId { gateway: 1, session }, &format!("user{session:04}"));
        }
        let told = published(&bench.pass(Duration::from_secs(1)));
        assert_eq!(told.len(), frames);
        let Some(Frame::Presence(last)) = told.last() else { panic!() };
        assert_eq!(last.members, 2500);
        assert_eq!(last.flags == presence_flag::COUNT_ONLY, frames == 1);
    }
}

#[test]
fn the_member_list_is_paged_in_byte_order() {
    let mut bench = Bench::new(Kind::Room, |_| {});
    for session in 0..50 {
        bench.join(SessionId { gateway: 1, session }, &format!("user{:02}", (session * 7) % 50));
    }
    let (mut all, mut after) = (Vec::new(), Text::default());
    loop {
        let members = frame::Members { request: 1, group: 7, after, limit: 8 };
        let session = SessionId { gateway: 1, session: 0 };
        let effects = bench.apply(Event::Members { session, members });
        let frames = frames_to(&effects, session);
        let [Frame::MemberPage(page)] = &frames[..] else { panic!("{frames:?}") };
        assert_eq!(page.total, 50);
        all.extend(page.users.iter().map(|user| user.to_string()));
        after = page.users.last().unwrap().clone();
        if page.more == 0 {
            break;
        }
    }
    assert_eq!(all, (0..50).map(|i| format!("user{i:02}")).collect::<Vec<_>>());
}

#[test]
fn chat_after_a_pause_goes_at_once_and_then_in_batches() {
    let mut bench = Bench::with_two(|_| {});
    let due = |effects: &[Effect]| {
        effects.iter().find_map(|e| match e {
            Effect::WakeAt(due) => Some(*due),
            _ => None,
        })
    };
    let effects = bench.send(A, message(Class::Chat, 1, b"a"));
    assert!(due(&effects).unwrap() <= bench.now.since_start);
    bench.send(B, message(Class::Chat, 4, b"b"));
    let effects = bench.pass(Duration::ZERO);
    assert_eq!(delivered(&effects).len(), 2, "what came together goes together");
    assert_eq!(acks(&effects, B), [(4, AckStatus::Accepted, Seq::new(1, 2))]);
    let batch = bench.room.config.chat_batch;
    let effects = bench.send(A, message(Class::Chat, 2, b"a"));
    assert_eq!(due(&effects), Some(bench.now.since_start + batch));
    assert!(delivered(&bench.pass(batch / 2)).is_empty());
    assert_eq!(delivered(&bench.pass(batch / 2)).len(), 1);
    let effects = bench.send(A, message(Class::Chat, 2, b"a"));
    assert_eq!(acks(&effects, A), [(2, AckStatus::Duplicate, Seq::new(1, 3))]);
}

#[test]
fn without_history_chat_is_delivered_and_settled_and_nothing_of_it_is_stored() {
    for kept in [true, false] {
        let mut bench = Bench::with_two(|c| c.chat_history = kept);
        bench.send(A, message(Class::Chat, 1, b"a"));
        bench.send(B, message(Class::Chat, 1, b"b"));
        let effects = bench.pass(Duration::ZERO);
        assert_eq!(delivered(&effects).len(), 2);
        assert_eq!(acks(&effects, B), [(1, AckStatus::Accepted, Seq::new(1, 2))]);
        let stored = effects.iter().any(|e| matches!(e, Effect::AppendBehind(_)));
        assert_eq!(stored, kept);
        let settled = if kept { 0 } else { 2 };
        assert_eq!(bench.room.settled(Class::Chat), Some(Seq::new(1, settled)));
        // Repeats are known all the same, and signals stored.
        let effects = bench.send(A, message(Class::Chat, 1, b"a"));
        assert_eq!(acks(&effects, A), [(1, AckStatus::Duplicate, Seq::new(1, 1))]);
        bench.send(A, signal(1));
        assert_eq!(bench.store().0, 1);
    }
}

#[test]
fn what_policy_sheds_is_told_to_its_sender_and_counted_for_all() {
    let mut bench = Bench::with_two(|c| c.chat_per_second = 2);
    for id in 1..=10 {
        bench.send(if id % 2 == 0 { A } else { B }, message(Class::Chat, id, b"x"));
    }
    let effects = bench.pass(Duration::ZERO);
    let deliveries = delivered(&effects);
    assert_eq!(deliveries.len(), 2);
    assert_ne!(deliveries[0].sender, deliveries[1].sender, "one from each");
    assert_eq!(deliveries[1].shed, 8);
    let shed = |to| acks(&effects, to).iter().filter(|a| a.1 == AckStatus::Shed).count();
    assert_eq!((shed(A), shed(B)), (4, 4));
}

#[test]
fn a_large_batch_is_published_in_pieces_that_fit_into_the_link() {
    let mut bench = Bench::with_two(|_| {});
    let payload = Rest(Bytes::from(vec![0; 50_000]));
    for id in 1..=20 {
        let payload = payload.clone();
        bench.send(A, frame::Send { payload, ..message(Class::Signal, id, b"") });
    }
    let (_, effects) = bench.store();
    let mut next = Seq::new(1, 1);
    for effect in &effects {
        if let Effect::Publish { first, count, frames, .. } = effect {
            assert!(frames.len() <= 256 * 1024);
            assert_eq!(*first, next);
            next.counter += u64::from(*count);
        }
    }
    assert_eq!(next.counter, 21);
}

#[test]
fn a_full_room_refuses_and_a_room_without_members_becomes_idle() {
    let mut bench = Bench::new(Kind::Room, |c| c.members_max = 1);
    bench.join(A, "ann");
    assert_eq!(errors(&bench.join(B, "bob"), B), [ErrorCode::RoomFull]);
    assert!(joined(&bench.join(A, "ann"), A).is_some(), "who is in it may join again");
    assert!(!bench.room.is_idle(bench.now));
    let effects = bench.apply(Event::Leave { session: A, access: 5, request: 3 });
    assert!(matches!(&frames_to(&effects, A)[..], [Frame::Left(left)] if left.request == 3));
    bench.pass(Duration::from_secs(59));
    assert!(!bench.room.is_idle(bench.now));
    bench.pass(Duration::from_secs(1));
    assert!(bench.room.is_idle(bench.now));
}

#[test]
fn a_room_goes_by_other_numbers_from_the_next_thing_on_and_throws_nobody_out() {
    let mut bench = Bench::with_two(|c| c.chat_per_second = 0);
    let chat = |bench: &mut Bench, from: u64| {
        for id in from..from + 50 {
            bench.send(A, message(Class::Chat, id, b"hello"));
        }
        let effects = bench.pass(Duration::from_secs(1));
        acks(&effects, A).iter().filter(|(_, status, _)| *status == AckStatus::Accepted).count()
    };
    assert_eq!(chat(&mut bench, 1), 50);
    let fewer = RoomConfig { chat_per_second: 5, members_max: 1, ..RoomConfig::default() };
    bench.room.configure(&Arc::new(fewer), bench.now);
    assert!(chat(&mut bench, 51) <= 5);
    assert_eq!(bench.room.sessions(), 2);
    assert_eq!(errors(&bench.join(C, "cid"), C), [ErrorCode::RoomFull]);
}

#[test]
fn a_new_owner_goes_on_in_the_next_epoch_and_knows_what_was_accepted() {
    let origin = Origin { device: "ann/ann's phone".into(), id: 4 };
    let recent = vec![(origin.clone(), Seq::new(3, 9))];
    let last = Seq::new(3, 9);
    let head = LogHead { last, last_message: last, last_ids: vec![origin], recent };
    let loaded = Loaded { heads: [head, LogHead::default(), LogHead::default()], state: vec![] };
    let mut bench = Bench::new(Kind::Room, |_| {});
    let config = bench.room.config.clone();
    bench.room = Room::new(7, Kind::Room, config, loaded, bench.now);
    let effects = bench.join(A, "ann");
    assert_eq!(joined(&effects, A).unwrap().classes[0], (Seq::new(4, 0), 4));
    assert_eq!(acks(&bench.send(A, signal(4)), A), [(4, AckStatus::Duplicate, last)]);
    bench.send(A, signal(5));
    let (_, effects) = bench.store();
    assert_eq!(acks(&effects, A), [(5, AckStatus::Accepted, Seq::new(4, 1))]);
}

#[test]
fn a_repeat_whose_place_is_forgotten_is_answered_also_while_others_wait_for_the_store() {
    // Of a room with many senders the log's tail does not show the last message of each.
    let origin = Origin { device: "ann/ann's phone".into(), id: 4 };
    let last = Seq::new(3, 9);
    let head = LogHead { last, last_message: last, last_ids: vec![origin], recent: vec![] };
    let loaded = Loaded { heads: [head, LogHead::default(), LogHead::default()], state: vec![] };
    let mut bench = Bench::new(Kind::Room, |_| {});
    let config = bench.room.config.clone();
    bench.room = Room::new(7, Kind::Room, config, loaded, bench.now);
    bench.join(A, "ann");
    bench.join(B, "bob");
    bench.send(B, signal(1));
    assert_eq!(acks(&bench.send(A, signal(4)), A), [(4, AckStatus::Duplicate, Seq::ZERO)]);
}

#[test]
fn who_joins_again_is_told_only_of_messages_that_are_stored() {
    let mut bench = Bench::with_two(|_| {});
    bench.send(A, signal(1));
    bench.store();
    bench.send(A, signal(2));
    assert_eq!(joined(&bench.join(A, "ann"), A).unwrap().classes[0], (Seq::new(1, 1), 1));
    bench.send(A, signal(2));
    let (stored, effects) = bench.store();
    assert_eq!((stored, acks(&effects, A).len()), (1, 2), "stored once, and both are answered");
}

#[test]
fn a_session_that_takes_the_place_of_an_older_one_is_not_seen_to_come_or_go() {
    let mut bench = Bench::with_two(|config| config.members_max = 2);
    bench.pass(Duration::from_secs(5));
    let Event::Join(join) = Bench::join_event(C, "ann", false) else { unreachable!() };
    let effects = bench.apply(Event::Join(Join { replaces: Some(A), ..join }));
    assert!(
        effects.iter().any(|e| matches!(e, Effect::Subscribe { session, .. } if *session == C))
    );
    assert!(effects.iter().any(|e| matches!(e, Effect::Unsubscribe { session } if *session == A)));
    assert_eq!(errors(&effects, C), [], "a full room has room for who is in it");
    let effects = bench.pass(Duration::from_secs(5));
    assert!(!effects.iter().any(|e| matches!(e, Effect::Publish { .. })), "{effects:?}");
    // The older one's own leave comes late, and changes nothing.
    bench.apply(Event::Leave { session: A, access: 5, request: 0 });
    let effects = bench.pass(Duration::from_secs(5));
    assert!(!effects.iter().any(|e| matches!(e, Effect::Publish { .. })), "{effects:?}");
}

#[test]
fn nobody_takes_the_place_of_another_user() {
    let mut bench = Bench::with_two(|_| {});
    let Event::Join(join) = Bench::join_event(C, "eve", false) else { unreachable!() };
    let effects = bench.apply(Event::Join(Join { replaces: Some(A), ..join }));
    assert!(!effects.iter().any(|e| matches!(e, Effect::Unsubscribe { .. })));
    assert_eq!(bench.room.sessions(), 3);
}
