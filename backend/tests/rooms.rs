//! One backend process, driven as gateways drive it.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::collections::HashSet;

use bytes::Bytes;
use common::{Event, Gateway, Running, accepted, message, parse, raw, signal};
use edgeway_proto::{
    AckStatus, Class, CloseCode, ErrorCode, Frame, Seq, Text,
    frame::{Deliver, History, Join, Leave, Members, Page, Send, page_flag},
    link::down_item,
};

#[tokio::test]
async fn a_message_reaches_the_members_behind_every_gateway_once_and_its_sender_gets_an_ack() {
    let dir = tempfile::tempdir().unwrap();
    let backend = Running::all(dir.path()).await;
    let mut one = Gateway::dial(backend.addr, 1).await;
    let mut two = Gateway::dial(backend.addr, 2).await;
    one.open(1, "chat", "ada", "phone", 1);
    two.open(1, "chat", "bob", "phone", 1);
    let group = one.join(1, "maths").await.group;
    assert_eq!(two.join(1, "maths").await.group, group, "a room is one group for everyone");

    for class in Class::ALL {
        let seq = accepted(&one.send(1, message(group, class, 1, class.name())).await);
        assert_eq!(seq.counter, 1);
        for gateway in [&mut one, &mut two] {
            let delivered = gateway.delivery(group, class, seq).await;
            assert_eq!(delivered.payload.0, class.name().as_bytes());
            assert_eq!(&*delivered.sender, "ada");
            assert_eq!(gateway.deliveries_seen(), 0, "once for all members of a gateway");
        }
    }
    backend.stop().await;
}

#[tokio::test]
async fn everything_of_the_first_flight_may_come_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let backend = Running::all(dir.path()).await;
    let mut gateway = Gateway::dial(backend.addr, 1).await;
    gateway.open(1, "chat", "ada", "phone", 1);
    let joins = (1..=20).map(|n| {
        Join { request: n, room: Text::from(format!("room-{n}")), ..Join::default() }.into()
    });
    gateway.frames(1, Class::Signal, joins);
    let mut groups = HashSet::new();
    for n in 1..=20 {
        groups.insert(
            gateway
                .expect_frame(1, "joined", |frame| match frame {
                    Frame::Joined(joined) if joined.request == n => Some(joined.group),
                    _ => None,
                })
                .await,
        );
    }
    assert_eq!(groups.len(), 20);
    backend.stop().await;
}

async fn page(gateway: &mut Gateway, session: u64, group: u64, after: Seq, limit: u64) -> Page {
    let request = gateway.request();
    let history = History { request, group, class: Class::Signal, after, limit };
    gateway.frames(session, Class::Signal, [history.into()]);
    gateway
        .expect_frame(session, "page", |frame| match frame {
            Frame::Page(page) if page.request == request => Some(page.clone()),
            _ => None,
        })
        .await
}

fn deliveries(frames: Bytes) -> Vec<Deliver> {
    let deliver = |frame| match frame {
        Frame::Deliver(deliver) => deliver,
        other => panic!("{other:?} among messages"),
    };
    parse(frames).into_iter().map(deliver).collect()
}

async fn whole_history(gateway: &mut Gateway, session: u64, group: u64) -> Vec<Deliver> {
    let mut all = Vec::new();
    let mut after = Seq::ZERO;
    loop {
        let page = page(gateway, session, group, after, 7).await;
        after = page.upto;
        all.extend(deliveries(page.messages.0));
        if page.flags & page_flag::MORE == 0 {
            return all;
        }
    }
}

#[tokio::test]
async fn a_late_joiner_gets_the_room_state_and_can_page_through_what_it_missed() {
    let dir = tempfile::tempdir().unwrap();
    let backend = Running::all(dir.path()).await;
    let mut gateway = Gateway::dial(backend.addr, 1).await;
    gateway.open(1, "chat", "ada", "phone", 1);
    let group = gateway.join(1, "maths").await.group;
    let mut last = Seq::ZERO;
    for id in 1..=30 {
        let key = if id % 10 == 0 { Text::from("page") } else { Text::default() };
        let send = Send { key, ..signal(group, id, &id.to_string()) };
        last = accepted(&gateway.send(1, send).await);
    }

    gateway.open(2, "chat", "bob", "phone", 1);
    let joined = gateway.join(2, "maths").await;
    assert_eq!(joined.classes[0], (last, 0));
    assert_eq!(joined.members, 2);
    let state = deliveries(joined.state.0);
    assert_eq!(state.len(), 1);
    assert_eq!((&*state[0].key, &state[0].payload.0[..]), ("page", &b"30"[..]));

    let all = whole_history(&mut gateway, 2, group).await;
    let payloads: Vec<_> =
        all.iter().map(|d| String::from_utf8_lossy(&d.payload.0).into_owned()).collect();
    assert_eq!(payloads, (1..=30).map(|id| id.to_string()).collect::<Vec<_>>());
    backend.stop().await;
}

#[tokio::test]
async fn a_restart_keeps_history_and_ids_and_begins_a_new_epoch() {
    let dir = tempfile::tempdir().unwrap();
    let mut before: Option<(u64, Seq)> = None;
    for run in 1..=3 {
        let backend = Running::all(dir.path()).await;
        let mut gateway = Gateway::dial(backend.addr, run).await;
        gateway.open(1, "chat", "ada", "phone", run);
        let joined = gateway.join(1, "maths").await;
        let group = joined.group;
        assert_eq!(joined.classes[0].1, run - 1, "the last accepted id is remembered");
        let seq = accepted(&gateway.send(1, signal(group, run, "again")).await);
        if let Some((group_before, seq_before)) = before.replace((group, seq)) {
            assert_eq!(group, group_before);
            assert!(seq.epoch > seq_before.epoch, "{seq} after {seq_before}");
        }
        assert_eq!(whole_history(&mut gateway, 1, group).await.len() as u64, run);
        backend.stop().await;
        gateway.ended(edgeway_proto::link::Stream::Control).await;
    }
}

#[tokio::test]
async fn a_repeated_id_is_answered_with_the_original_position_and_not_delivered_again() {
    let dir = tempfile::tempdir().unwrap();
    let backend = Running::all(dir.path()).await;
    let mut gateway = Gateway::dial(backend.addr, 1).await;
    gateway.open(1, "chat", "ada", "phone", 1);
    let group = gateway.join(1, "maths").await.group;
    let seq = accepted(&gateway.send(1, signal(group, 1, "once")).await);
    let repeat = gateway.send(1, signal(group, 1, "once")).await;
    assert_eq!((repeat.status, repeat.seq), (AckStatus::Duplicate, seq));
    let gap = gateway.send(1, signal(group, 3, "too early")).await;
    assert_eq!((gap.status, gap.expected), (AckStatus::OutOfOrder, 2));
    accepted(&gateway.send(1, signal(group, 2, "twice")).await);
    assert_eq!(whole_history(&mut gateway, 1, group).await.len(), 2);
    backend.stop().await;
}

#[tokio::test]
async fn a_bad_frame_closes_its_session_and_disturbs_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    let backend = Running::all(dir.path()).await;
    let mut gateway = Gateway::dial(backend.addr, 1).await;
    gateway.open(1, "chat", "ada", "phone", 1);
    gateway.open(2, "chat", "bob", "phone", 1);
    let group = gateway.join(1, "maths").await.group;
    gateway.join(2, "maths").await;
    gateway.bytes(2, Class::Signal, Bytes::from_static(&[0x45, 1, 0xff]));
    assert_eq!(gateway.closed(2).await, CloseCode::Protocol.code());
    gateway.open(3, "chat", "eve", "phone", 1);
    gateway.bytes(3, Class::Signal, Bytes::from_static(&[0x7f, 0]));
    assert_eq!(gateway.closed(3).await, CloseCode::UnknownFrame.code());
    accepted(&gateway.send(1, signal(group, 1, "still here")).await);

    let request = gateway.request();
    let members = Members { request, group, ..Members::default() };
    gateway.frames(1, Class::Signal, [members.into()]);
    let users = gateway
        .expect_frame(1, "members", |frame| match frame {
            Frame::MemberPage(page) if page.request == request => Some(page.users.clone()),
            _ => None,
        })
        .await;
    assert_eq!(users, [Text::from("ada")], "a closed Session has left its rooms");
    backend.stop().await;
}

#[tokio::test]
async fn what_is_not_joined_cannot_be_sent_to_or_asked_about() {
    let dir = tempfile::tempdir().unwrap();
    let backend = Running::all(dir.path()).await;
    let mut gateway = Gateway::dial(backend.addr, 1).await;
    gateway.open(1, "chat", "ada", "phone", 1);
    gateway.open(2, "chat", "bob", "phone", 1);
    let group = gateway.join(1, "maths").await.group;

    assert_eq!(gateway.send(2, signal(group, 1, "hi")).await.status, AckStatus::Refused);
    for (request, frame) in [
        (71, History { request: 71, group, ..History::default() }.into()),
        (72, Members { request: 72, group, ..Members::default() }.into()),
        (73, Leave { request: 73, group }.into()),
    ] {
        gateway.frames(2, Class::Signal, [frame]);
        let code = gateway
            .expect_frame(2, "error", |frame| match frame {
                Frame::Error(e) if e.request == request => Some(e.code),
                _ => None,
            })
            .await;
        assert_eq!(code, ErrorCode::NotJoined.code());
    }
    backend.stop().await;
}

#[tokio::test]
async fn a_session_may_be_in_a_thousand_rooms_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let backend = Running::all(dir.path()).await;
    let mut gateway = Gateway::dial(backend.addr, 1).await;
    gateway.open(1, "chat", "ada", "phone", 1);
    for n in 1..=1_001 {
        let room = Text::from(format!("room-{n}"));
        gateway.frames(1, Class::Signal, [Join { request: n, room, ..Join::default() }.into()]);
    }
    let refused = gateway
        .expect_frame(1, "error", |frame| match frame {
            Frame::Error(e) => Some((e.request, ErrorCode::from_code(e.code))),
            _ => None,
        })
        .await;
    assert_eq!(refused, (1_001, ErrorCode::TooManyRooms));
    for _ in 1..=1_000 {
        gateway.expect_frame(1, "joined", |f| matches!(f, Frame::Joined(_)).then_some(())).await;
    }
    backend.stop().await;
}

#[tokio::test]
async fn a_newer_connection_of_a_device_takes_over_and_an_older_one_cannot() {
    let dir = tempfile::tempdir().unwrap();
    let backend = Running::all(dir.path()).await;
    let mut one = Gateway::dial(backend.addr, 1).await;
    let mut two = Gateway::dial(backend.addr, 2).await;
    one.open(1, "chat", "ada", "phone", 5);
    one.open(2, "im", "ada", "phone", 5);
    one.open(3, "chat", "ada", "tablet", 5);
    let group = one.join(1, "maths").await.group;
    two.open(1, "chat", "ada", "phone", 6);
    two.join(1, "maths").await;
    assert_eq!(one.closed(1).await, CloseCode::Replaced.code());
    one.open(4, "chat", "ada", "phone", 5);
    assert_eq!(one.closed(4).await, CloseCode::Replaced.code());
    one.join(2, "@me").await;
    one.join(3, "maths").await;
    accepted(&two.send(1, signal(group, 1, "from the new one")).await);
    backend.stop().await;
}

#[tokio::test]
async fn an_inbox_takes_from_others_and_shows_only_to_its_owner() {
    let dir = tempfile::tempdir().unwrap();
    let backend = Running::all(dir.path()).await;
    let mut gateway = Gateway::dial(backend.addr, 1).await;
    gateway.open(1, "im", "ada", "phone", 1);
    gateway.open(2, "im", "bob", "phone", 1);
    let inbox = gateway.join(2, "@me").await.group;
    let room = |name| Join { room: Text::from(name), ..Join::default() };
    assert_eq!(gateway.try_join(1, room("bob")).await.unwrap_err().0, ErrorCode::Forbidden);
    assert_eq!(gateway.join_to_send(1, "bob").await.group, inbox);
    let seq = accepted(&gateway.send(1, signal(inbox, 1, "hi bob")).await);
    let delivered = gateway.delivery(inbox, Class::Signal, seq).await;
    assert_eq!((&*delivered.sender, &delivered.payload.0[..]), ("ada", &b"hi bob"[..]));
    // A hole in the ids is none in an inbox.
    accepted(&gateway.send(1, signal(inbox, 9, "again")).await);

    gateway.open(3, "push", "ada", "phone", 1);
    assert_eq!(gateway.try_join(3, room("bob")).await.unwrap_err().0, ErrorCode::Forbidden);
    assert_ne!(gateway.join(3, "@me").await.group, gateway.join(1, "@me").await.group);
    backend.stop().await;
}

#[tokio::test]
async fn rooms_that_only_the_api_creates_cannot_be_made_by_joining() {
    let dir = tempfile::tempdir().unwrap();
    let mut raw = raw(dir.path());
    raw.rooms.create = Some("api".into());
    let backend = Running::start(raw, "access,room,peer").await;
    let mut gateway = Gateway::dial(backend.addr, 1).await;
    gateway.open(1, "chat", "ada", "phone", 1);
    let join = Join { room: Text::from("maths"), ..Join::default() };
    assert_eq!(gateway.try_join(1, join).await.unwrap_err().0, ErrorCode::NoSuchRoom);
    backend.stop().await;
}

#[tokio::test]
async fn a_gateway_that_goes_takes_its_members_along() {
    let dir = tempfile::tempdir().unwrap();
    let backend = Running::all(dir.path()).await;
    let mut one = Gateway::dial(backend.addr, 1).await;
    let mut two = Gateway::dial(backend.addr, 2).await;
    one.open(1, "chat", "ada", "phone", 1);
    two.open(1, "chat", "bob", "phone", 1);
    let group = one.join(1, "maths").await.group;
    two.join(1, "maths").await;
    // Presence says so, once a second; who comes and goes within one is not told at all.
    one.expect_presence(group, "bob coming", |p| p.joined.contains(&Text::from("bob"))).await;
    drop(two);
    one.expect_presence(group, "bob leaving", |p| p.left == [Text::from("bob")]).await;
    backend.stop().await;
}

#[tokio::test]
async fn session_types_that_access_does_not_have_are_refused_with_the_list_of_those_it_has() {
    let dir = tempfile::tempdir().unwrap();
    let backend = Running::all(dir.path()).await;
    let mut gateway = Gateway::dial(backend.addr, 1).await;
    gateway.open(1, "passthrough", "ada", "phone", 1);
    let close = gateway
        .expect("close", |event| match event {
            Event::Other(_, down_item::Item::Close(close)) => Some(close.clone()),
            _ => None,
        })
        .await;
    assert_eq!(u64::from(close.code), CloseCode::NoRoute.code());
    assert!(close.reason.contains("research_push"), "{}", close.reason);
    backend.stop().await;
}
