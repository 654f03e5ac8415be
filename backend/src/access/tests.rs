#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeSet;

use bytes::{Bytes, BytesMut};
use edgeway_proto::{
    AckStatus, Class, CloseCode, ErrorCode, Frame, Text,
    frame::{self, History, Join, Leave, Members, Send, join_flag, split},
    link::Stream,
    rooms::{SessionRef, to_owner_item::Item},
};

use super::{
    out::{Fatal, Out},
    owners::OwnerId,
    rights::Rights,
    session::{Identity, Place, Route, Session},
    space::SessionType,
};
use crate::roles::Role;

struct TwoOwners;

const ROOMS: OwnerId = OwnerId::test(1);
const INBOXES: OwnerId = OwnerId::test(2);
/// Of the groups from here on.
const STROKES: OwnerId = OwnerId::test(3);
const APART: u64 = 1000;

impl Route for TwoOwners {
    fn owner(&self, role: Role, _: &str) -> OwnerId {
        if role == Role::Room { ROOMS } else { INBOXES }
    }

    fn strokes(&self, group: u64) -> Option<OwnerId> {
        (group >= APART).then_some(STROKES)
    }
}

fn session(kind: SessionType) -> Session {
    let identity = Identity {
        session: SessionRef { gateway: 1, session: 2 },
        kind,
        user: "ada".into(),
        device: "phone".into(),
        generation: 7,
        rights: Rights::default(),
    };
    Session::new(identity, std::sync::Arc::new(3.into()))
}

fn encode(frames: &[Frame]) -> Bytes {
    let mut bytes = BytesMut::new();
    for frame in frames {
        frame.encode(&mut bytes);
    }
    bytes.freeze()
}

/// What comes out, in short: the stream and item for an owner, or the frames for the client.
fn drive(session: &mut Session, class: Class, frames: &[Frame]) -> Vec<String> {
    let mut out = Vec::new();
    session.data(&TwoOwners, class, &encode(frames), &mut out).unwrap();
    out.iter().map(describe).collect()
}

fn describe(out: &Out) -> String {
    match out {
        Out::Owner(_, _, Item::Join(join)) => format!("join {} as {}", join.request, join.room),
        Out::Owner(_, _, Item::Leave(leave)) => format!("leave {}", leave.group),
        Out::Owner(_, stream, Item::Frames(frames)) => {
            let stream = if *stream == Stream::Control { "control" } else { "bulk" };
            format!("{} frames for {} on {stream}", parse(&frames.frames).len(), frames.group)
        }
        Out::Owner(STROKES, Stream::Bulk, Item::Strokes(strokes)) => {
            let (count, group) = (parse(&strokes.frames).len(), strokes.group);
            format!("{count} strokes of {}'s {} for {group}", strokes.user, strokes.device)
        }
        Out::Owner(_, _, item) => panic!("a Session never says {item:?}"),
        Out::Client(frames) => match &parse(frames)[..] {
            [Frame::Error(e)] => {
                format!("error {} {}", e.request, ErrorCode::from_code(e.code).name())
            }
            [Frame::Left(left)] => {
                assert_eq!(left.code, CloseCode::BackendLost.code());
                format!("left {}", left.group)
            }
            [Frame::Ack(ack)] if ack.status == AckStatus::Refused => format!("refused {}", ack.id),
            other => panic!("{other:?}"),
        },
    }
}

fn parse(frames: &Bytes) -> Vec<Frame> {
    let mut frames = frames.clone();
    std::iter::from_fn(|| split(&mut frames).unwrap()).map(|raw| raw.parse().unwrap()).collect()
}

fn join(request: u64, room: &str) -> Frame {
    Join { request, room: Text::from(room), ..Join::default() }.into()
}

fn send(group: u64, id: u64) -> Frame {
    Send { group, id, ..Send::default() }.into()
}

fn stroke(group: u64, id: u64) -> Frame {
    Send { group, id, class: Class::Binary, ..Send::default() }.into()
}

fn chat(group: u64, id: u64) -> Frame {
    Send { group, id, class: Class::Chat, ..Send::default() }.into()
}

fn fatal(session: &mut Session, class: Class, frames: Bytes) -> CloseCode {
    let Fatal { code, .. } = session.data(&TwoOwners, class, &frames, &mut Vec::new()).unwrap_err();
    code
}

#[test]
fn frames_of_a_joined_group_go_to_its_owner_in_one_piece_and_others_are_refused() {
    let mut session = session(SessionType::Chat);
    assert_eq!(drive(&mut session, Class::Signal, &[join(1, "maths")]), ["join 1 as chat:maths"]);
    assert_eq!(session.joined(ROOMS, 1, 7), Some(None));
    let frames = [send(7, 1), send(7, 2), send(8, 1), send(7, 3)];
    assert_eq!(
        drive(&mut session, Class::Signal, &frames),
        [
            "2 frames for 7 on control",
            "error 0 not_joined",
            "refused 1",
            "1 frames for 7 on control",
        ]
    );
    assert_eq!(drive(&mut session, Class::Chat, &[chat(7, 1)]), ["1 frames for 7 on bulk"]);
}

#[test]
fn strokes_go_to_their_own_owner_with_who_sends_them() {
    let mut session = session(SessionType::Chat);
    for (request, group) in [(1, 7), (2, APART)] {
        drive(&mut session, Class::Signal, &[join(request, "maths")]);
        session.joined(ROOMS, request, group);
    }
    let strokes = |group| [stroke(group, 1), stroke(group, 2)];
    assert_eq!(drive(&mut session, Class::Binary, &strokes(7)), ["2 frames for 7 on bulk"]);
    let apart = drive(&mut session, Class::Binary, &strokes(APART));
    assert_eq!(apart, ["2 strokes of ada's phone for 1000"]);
    assert_eq!(drive(&mut session, Class::Chat, &[chat(APART, 1)]), ["1 frames for 1000 on bulk"]);
    let refused = drive(&mut session, Class::Binary, &[stroke(APART + 1, 1)]);
    assert_eq!(refused, ["error 0 not_joined", "refused 1"], "not a member");
}

#[test]
fn who_has_drawn_is_told_once_to_join_again_when_strokes_may_be_lost() {
    let mut session = session(SessionType::Chat);
    drive(&mut session, Class::Signal, &[join(1, "maths")]);
    session.joined(ROOMS, 1, APART);
    let mut out = Vec::new();
    assert_eq!(session.draw_again(STROKES, &mut out), 0, "has not drawn");
    drive(&mut session, Class::Binary, &[stroke(APART, 1)]);
    assert_eq!(session.draw_again(OwnerId::test(9), &mut out), 0, "not there");
    assert_eq!(session.draw_again(STROKES, &mut out), 1);
    assert_eq!(session.draw_again(STROKES, &mut out), 0);
    assert_eq!(out.iter().map(describe).collect::<Vec<_>>(), ["left 1000"]);
    out.clear();
    assert_eq!(session.lose_owner(STROKES, &mut out), 0, "only the owner of the room has it");
    assert!(out.is_empty());
}

#[test]
fn who_has_drawn_where_strokes_have_another_owner_now_is_told_once_to_join_again() {
    struct Other;
    impl Route for Other {
        fn owner(&self, _: Role, _: &str) -> OwnerId {
            ROOMS
        }

        fn strokes(&self, group: u64) -> Option<OwnerId> {
            Some(if group == APART { INBOXES } else { STROKES })
        }
    }
    let mut session = session(SessionType::Chat);
    for (request, group) in [(1, APART), (2, APART + 1), (3, APART + 2)] {
        drive(&mut session, Class::Signal, &[join(request, "maths")]);
        session.joined(ROOMS, request, group);
    }
    drive(&mut session, Class::Binary, &[stroke(APART, 1), stroke(APART + 1, 1)]);
    let mut out = Vec::new();
    assert_eq!(session.draw_moved(&TwoOwners, &mut out), 0, "it is the same");
    assert_eq!(session.draw_moved(&Other, &mut out), 1);
    assert_eq!(session.draw_moved(&Other, &mut out), 0);
    assert_eq!(out.iter().map(describe).collect::<Vec<_>>(), ["left 1000"]);
}

#[test]
fn what_was_sent_before_a_leave_arrives_before_it_and_what_comes_after_is_refused() {
    let mut session = session(SessionType::Chat);
    drive(&mut session, Class::Signal, &[join(1, "maths")]);
    session.joined(ROOMS, 1, 7);
    let leave = || Leave { request: 2, group: 7 }.into();
    assert_eq!(
        drive(&mut session, Class::Signal, &[send(7, 1), leave(), send(7, 2), leave()]),
        [
            "1 frames for 7 on control",
            "leave 7",
            "error 0 not_joined",
            "refused 2",
            "error 2 not_joined",
        ]
    );
}

#[test]
fn frames_that_come_before_the_owners_answer_wait_for_it_in_order() {
    let mut session = session(SessionType::Chat);
    let frames = [join(1, "maths"), send(7, 1), join(2, "physics"), send(7, 2)];
    assert_eq!(drive(&mut session, Class::Signal, &frames), ["join 1 as chat:maths"]);
    assert_eq!(session.parked().collect::<Vec<_>>(), [Stream::Control]);
    session.joined(ROOMS, 1, 7);
    let mut out = Vec::new();
    session.unpark(&TwoOwners, Stream::Control, &mut out).unwrap();
    assert_eq!(
        out.iter().map(describe).collect::<Vec<_>>(),
        ["1 frames for 7 on control", "join 2 as chat:physics", "1 frames for 7 on control"]
    );
    assert_eq!(session.parked().count(), 0);
}

#[test]
fn frames_that_waited_for_a_join_that_fails_are_refused() {
    let mut session = session(SessionType::Chat);
    drive(&mut session, Class::Signal, &[join(1, "maths"), send(7, 1)]);
    assert!(session.refused(ROOMS, 1));
    assert!(!session.refused(ROOMS, 1), "each join is answered once");
    let mut out = Vec::new();
    session.unpark(&TwoOwners, Stream::Control, &mut out).unwrap();
    assert_eq!(out.iter().map(describe).collect::<Vec<_>>(), ["error 0 not_joined", "refused 1"]);
}

#[test]
fn a_session_that_pipelines_without_end_is_closed_and_not_buffered() {
    let mut session = session(SessionType::Chat);
    drive(&mut session, Class::Signal, &[join(1, "maths")]);
    let payload =
        frame::Send { group: 7, payload: Bytes::from(vec![0; 50_000]).into(), ..Send::default() };
    let frames = encode(&[payload.clone().into(), payload.clone().into(), payload.into()]);
    assert_eq!(fatal(&mut session, Class::Signal, frames), CloseCode::BackendUnavailable);
}

#[test]
fn rooms_above_the_limit_are_refused_until_one_is_left() {
    let mut session = session(SessionType::Chat);
    for n in 1..=3 {
        drive(&mut session, Class::Signal, &[join(n, &format!("room-{n}"))]);
        session.joined(ROOMS, n, n);
    }
    assert_eq!(drive(&mut session, Class::Signal, &[join(4, "more")]), ["error 4 too_many_rooms"]);
    let again = drive(&mut session, Class::Signal, &[join(9, "room-1")]);
    assert_eq!(again, ["join 9 as chat:room-1"], "which is no more");
    session.joined(ROOMS, 9, 1);
    drive(&mut session, Class::Signal, &[Leave { request: 5, group: 1 }.into()]);
    assert_eq!(drive(&mut session, Class::Signal, &[join(6, "more")]), ["join 6 as chat:more"]);
}

#[test]
fn another_users_inbox_can_be_sent_to_and_not_be_looked_into() {
    let mut session = session(SessionType::Im);
    let to_bob =
        Join { request: 1, flags: join_flag::SEND_ONLY, room: "bob".into(), positions: vec![] };
    assert_eq!(drive(&mut session, Class::Signal, &[to_bob.into()]), ["join 1 as im:bob"]);
    session.joined(INBOXES, 1, 9);
    let history = History { request: 2, group: 9, ..History::default() };
    let members = Members { request: 3, group: 9, ..Members::default() };
    assert_eq!(
        drive(&mut session, Class::Signal, &[send(9, 1), history.into(), members.into()]),
        ["1 frames for 9 on control", "error 2 forbidden", "error 3 forbidden"]
    );
    assert_eq!(drive(&mut session, Class::Signal, &[join(4, "bob")]), ["error 4 forbidden"]);
}

#[test]
fn frames_that_break_the_protocol_end_the_session() {
    let mut session = session(SessionType::Chat);
    let cut = encode(&[join(1, "maths")]);
    assert_eq!(fatal(&mut session, Class::Signal, cut.slice(..cut.len() - 1)), CloseCode::Protocol);
    let wrong_lane = encode(&[chat(7, 1)]);
    assert_eq!(fatal(&mut session, Class::Signal, wrong_lane), CloseCode::Protocol);
    let request_on_chat = encode(&[join(1, "maths")]);
    assert_eq!(fatal(&mut session, Class::Chat, request_on_chat), CloseCode::Protocol);
    let answer = encode(&[frame::Left::default().into()]);
    assert_eq!(fatal(&mut session, Class::Signal, answer), CloseCode::UnknownFrame);
    let truncated = Bytes::from_static(&[Join::KIND, 1, 1]);
    assert_eq!(fatal(&mut session, Class::Signal, truncated), CloseCode::Protocol);
    let skipped = Bytes::from_static(&[0xc0, 1, 1]);
    assert!(session.data(&TwoOwners, Class::Signal, &skipped, &mut Vec::new()).is_ok());
}

fn lose(session: &mut Session, owner: OwnerId) -> Vec<String> {
    let mut out = Vec::new();
    session.lose_owner(owner, &mut out);
    out.iter().map(describe).collect()
}

#[test]
fn a_lost_owner_fails_its_joins_and_the_client_is_told_which_groups_to_join_again() {
    let mut session = session(SessionType::Chat);
    drive(&mut session, Class::Signal, &[join(1, "maths"), join(2, "physics")]);
    session.joined(ROOMS, 1, 7);
    assert!(lose(&mut session, INBOXES).is_empty());
    assert_eq!(lose(&mut session, ROOMS), ["error 2 unavailable", "left 7"]);
    assert!(session.leaves().is_empty() && lose(&mut session, ROOMS).is_empty());
}

#[test]
fn what_was_on_its_way_to_a_lost_group_is_not_refused_since_it_comes_again() {
    let mut session = session(SessionType::Chat);
    drive(&mut session, Class::Signal, &[join(1, "maths")]);
    session.joined(ROOMS, 1, 7);
    lose(&mut session, ROOMS);
    assert!(drive(&mut session, Class::Signal, &[send(7, 1)]).is_empty());
    let page = History { request: 3, group: 7, ..History::default() };
    assert_eq!(drive(&mut session, Class::Signal, &[page.into()]), ["error 3 unavailable"]);
    assert_eq!(drive(&mut session, Class::Signal, &[send(8, 1)]).len(), 2, "refused");
    // It may be ahead of the owner's answer: then it waits for it.
    drive(&mut session, Class::Signal, &[join(2, "maths")]);
    assert!(drive(&mut session, Class::Signal, &[send(7, 1)]).is_empty());
    assert_eq!(session.parked().count(), 1);
    session.joined(INBOXES, 2, 7);
    assert!(session.leaves().is_empty(), "not the owner that was asked");
    session.joined(ROOMS, 2, 7);
    let mut out = Vec::new();
    session.unpark(&TwoOwners, Stream::Control, &mut out).unwrap();
    assert_eq!(out.iter().map(describe).collect::<Vec<_>>(), ["1 frames for 7 on control"]);
}

#[test]
fn who_is_forced_out_by_the_owner_sends_again_and_who_left_is_refused() {
    let mut session = session(SessionType::Chat);
    drive(&mut session, Class::Signal, &[join(1, "maths"), join(2, "physics")]);
    session.joined(ROOMS, 1, 7);
    session.joined(ROOMS, 2, 8);
    session.left(INBOXES, 7);
    assert_eq!(session.leaves().len(), 2, "only the group's own owner can take it");
    session.left(ROOMS, 7);
    assert!(drive(&mut session, Class::Signal, &[send(7, 1)]).is_empty());
    drive(&mut session, Class::Signal, &[Leave { request: 3, group: 8 }.into()]);
    session.left(ROOMS, 8);
    assert_eq!(drive(&mut session, Class::Signal, &[send(8, 1)]).len(), 2, "refused");
}

#[test]
fn groups_that_another_owner_has_now_are_moved_and_their_old_owner_is_told() {
    struct Other;
    impl Route for Other {
        fn owner(&self, _: Role, room: &str) -> OwnerId {
            if room == "chat:maths" { INBOXES } else { ROOMS }
        }

        fn strokes(&self, _: u64) -> Option<OwnerId> {
            None
        }
    }
    let mut session = session(SessionType::Chat);
    drive(&mut session, Class::Signal, &[join(1, "maths"), join(2, "physics")]);
    session.joined(ROOMS, 1, 7);
    session.joined(ROOMS, 2, 8);
    let mut out = Vec::new();
    let (moved, leaves) = session.lose_moved(&Other, &mut out);
    assert_eq!(out.iter().map(describe).collect::<Vec<_>>(), ["left 7"]);
    let [(ROOMS, Item::Leave(leave))] = &leaves[..] else { panic!("{leaves:?}") };
    assert_eq!((moved, leave.group, leave.request), (1, 7, 0));
    assert_eq!(session.leaves().len(), 1);
}

#[test]
fn an_owner_that_lets_in_too_late_is_not_believed() {
    let mut session = session(SessionType::Chat);
    drive(&mut session, Class::Signal, &[join(1, "maths")]);
    lose(&mut session, ROOMS);
    assert_eq!(session.joined(ROOMS, 1, 7), None);
    let mut out = Vec::new();
    session.let_in_too_late(7, &mut out);
    assert_eq!(out.iter().map(describe).collect::<Vec<_>>(), ["left 7"]);
    assert!(drive(&mut session, Class::Signal, &[send(7, 1)]).is_empty());
}

fn older(session: &mut Session) -> Vec<Place> {
    drive(session, Class::Signal, &[join(1, "maths"), join(2, "physics")]);
    session.joined(ROOMS, 1, 7);
    session.joined(ROOMS, 2, 8);
    session.places()
}

const OLDER: SessionRef = SessionRef { gateway: 1, session: 1 };

fn replaces(out: &Out) -> Option<SessionRef> {
    match out {
        Out::Owner(_, _, Item::Join(join)) => join.replaces,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_newer_session_takes_the_places_that_it_joins_and_keeps_the_others_for_a_while() {
    let mut old = session(SessionType::Chat);
    old.identity.session = OLDER;
    let places = older(&mut old);
    let mut new = session(SessionType::Chat);
    assert!(new.adopt(OLDER, places).is_empty() && new.keeps());
    let mut out = Vec::new();
    new.data(&TwoOwners, Class::Signal, &encode(&[join(1, "maths")]), &mut out).unwrap();
    assert_eq!(out.iter().map(replaces).collect::<Vec<_>>(), [Some(OLDER)]);
    assert_eq!(new.joined(ROOMS, 1, 7), Some(None), "the room has replaced the older one");
    assert_eq!(new.places().len(), 2);
    let left: Vec<_> = new.take_kept().iter().map(|place| (place.group, place.session)).collect();
    assert_eq!(left, [(8, OLDER)]);
    assert!(!new.keeps());
}

#[test]
fn what_ends_with_places_kept_leaves_them_as_well() {
    let mut old = session(SessionType::Chat);
    old.identity.session = OLDER;
    let mut new = session(SessionType::Chat);
    new.adopt(OLDER, older(&mut old));
    assert_eq!(new.leaves().len(), 2);
    lose(&mut new, ROOMS);
    assert!(new.leaves().is_empty(), "a lost owner keeps nothing");
}

#[test]
fn a_first_flight_that_may_be_a_replay_reads_and_does_nothing_else() {
    let mut old = session(SessionType::Chat);
    old.identity.session = OLDER;
    older(&mut old);
    let mut new = session(SessionType::Chat);
    new.begin_early(old.names());
    let frames = [join(1, "maths"), join(2, "elsewhere"), join(3, "physics")];
    assert_eq!(drive(&mut new, Class::Signal, &frames), ["join 1 as chat:maths"]);
    assert_eq!(drive(&mut new, Class::Binary, &[stroke(7, 1)]), [""; 0]);
    // The answer to a join takes up what was parked, and parks it again.
    new.joined(ROOMS, 1, 7);
    let mut out = Vec::new();
    new.unpark(&TwoOwners, Stream::Control, &mut out).unwrap();
    new.unpark(&TwoOwners, Stream::Bulk, &mut out).unwrap();
    assert!(out.is_empty());
    new.confirmed();
    let taken = new.adopt(OLDER, old.places());
    assert_eq!(taken.iter().map(|place| place.group).collect::<Vec<_>>(), [7]);
    new.unpark(&TwoOwners, Stream::Control, &mut out).unwrap();
    new.unpark(&TwoOwners, Stream::Bulk, &mut out).unwrap();
    assert_eq!(
        out.iter().map(describe).collect::<Vec<_>>(),
        ["join 2 as chat:elsewhere", "join 3 as chat:physics", "1 frames for 7 on bulk"]
    );
}

/// What the directory has been told, which is what the Session has.
#[derive(Default)]
struct Told(BTreeSet<Bytes>);

impl Told {
    fn of(&mut self, session: &mut Session) -> usize {
        for (line, comes) in session.take_moves() {
            let changed = if comes { self.0.insert(line) } else { self.0.remove(&line) };
            assert!(changed);
        }
        assert_eq!(self.0, session.lines().collect());
        self.0.len()
    }
}

#[test]
fn the_directory_is_told_of_each_place_that_comes_or_goes() {
    let (mut old, mut told) = (session(SessionType::Chat), Told::default());
    old.identity.session = OLDER;
    let places = older(&mut old);
    assert_eq!(told.of(&mut old), 2);
    drive(&mut old, Class::Signal, &[join(3, "maths")]);
    old.joined(ROOMS, 3, 7);
    assert_eq!(told.of(&mut old), 2, "joined again");
    drive(&mut old, Class::Signal, &[Leave { request: 4, group: 7 }.into()]);
    assert_eq!(told.of(&mut old), 1);
    old.left(ROOMS, 8);
    assert_eq!(told.of(&mut old), 0);

    let (mut new, mut told) = (session(SessionType::Chat), Told::default());
    new.adopt(OLDER, places);
    assert_eq!(told.of(&mut new), 2);
    drive(&mut new, Class::Signal, &[join(1, "maths"), join(2, "chemistry")]);
    new.joined(ROOMS, 1, 7);
    new.joined(ROOMS, 2, 9);
    assert_eq!(told.of(&mut new), 3, "one of them by itself now");
    new.take_kept();
    assert_eq!(told.of(&mut new), 2);
    new.adopt(OLDER, new.places().into_iter().map(|place| Place { group: 5, ..place }).collect());
    assert_eq!(told.of(&mut new), 3);
    drive(&mut new, Class::Binary, &[stroke(7, 1)]);
    assert_eq!(told.of(&mut new), 3, "who has drawn has the same place");
    assert_eq!(new.lose_owner(ROOMS, &mut Vec::new()), 2);
    assert_eq!(told.of(&mut new), 0, "what was kept is lost too");
}

#[test]
fn rooms_are_spread_over_owners_and_move_only_to_a_new_one() {
    use crate::ring::{rendezvous, seed};
    let spread = |names: &[&str], rooms: &[String]| -> Vec<usize> {
        let seeds: Vec<_> = names.iter().map(|name| seed(name)).collect();
        rooms
            .iter()
            .map(|room| rendezvous(seeds.iter().copied().enumerate(), room.as_bytes()).unwrap())
            .collect()
    };
    let two = ["127.0.0.1:1", "127.0.0.1:2"];
    let three = ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"];
    let rooms: Vec<_> = (0..3_000).map(|i| format!("chat:room-{i}")).collect();
    let (before, after) = (spread(&two, &rooms), spread(&three, &rooms));
    for owner in 0..3 {
        let share = after.iter().filter(|at| **at == owner).count();
        assert!((800..1_200).contains(&share), "{share} of 3,000 rooms on one of three owners");
    }
    assert!(before.iter().zip(&after).all(|(before, after)| before == after || *after == 2));
}
