//! Several backend processes' worth: access in one, owners in others.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::collections::HashMap;

use common::{Gateway, Running, accepted, raw, raw_access, signal};
use edgeway_proto::{
    Class, CloseCode, ErrorCode, Frame, Seq, Text,
    frame::{Join, Send},
    link::Stream,
};

/// An owner of rooms and inboxes, its number keeping its handles apart.
async fn owner(dir: &tempfile::TempDir, slot: i64) -> Running {
    let mut raw = raw(dir.path());
    raw.backend.slot = Some(slot);
    Running::start(raw, "room,peer").await
}

/// One gateway process: a link with each backend process. Subscriptions and deliveries come from
/// the owner, so each step waits for whichever link it comes on.
struct Edge {
    access: Gateway,
    owners: Vec<Gateway>,
}

impl Edge {
    async fn dial(number: u64, access: &Running, owners: &[&Running]) -> Self {
        let access = Gateway::dial(access.addr, number).await;
        let mut links = Vec::new();
        for owner in owners {
            links.push(Gateway::dial(owner.addr, number).await);
        }
        Self { access, owners: links }
    }

    /// Joins, and says which owner answered.
    async fn join(&mut self, session: u64, room: &str) -> (u64, usize) {
        let request = self.access.request();
        let join = Join { request, room: Text::from(room), ..Join::default() };
        self.access.frames(session, Class::Signal, [join.into()]);
        let [one, two] = &mut self.owners[..] else { panic!("two owners") };
        let pick = |frame: &Frame| match frame {
            Frame::Joined(joined) if joined.request == request => Some(joined.group),
            _ => None,
        };
        tokio::select! {
            group = one.expect_frame(session, "joined", pick) => (group, 0),
            group = two.expect_frame(session, "joined", pick) => (group, 1),
        }
    }

    /// Sends, and waits for the ack and the delivery, both from the owner.
    async fn send(&mut self, owner: usize, session: u64, message: Send) {
        let (group, id) = (message.group, message.id);
        self.access.frames(session, message.class, [message.into()]);
        let owner = &mut self.owners[owner];
        let ack = owner.expect_frame(session, "ack", |frame| match frame {
            Frame::Ack(ack) if (ack.group, ack.id) == (group, id) => Some(ack.clone()),
            _ => None,
        });
        let seq = accepted(&ack.await);
        owner.delivery(group, Class::Signal, seq).await;
    }
}

#[tokio::test]
async fn rooms_are_spread_over_owners_and_messages_go_straight_to_the_gateways() {
    let (dir_one, dir_two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (one, two) = (owner(&dir_one, 1).await, owner(&dir_two, 2).await);
    let nodes = [one.addr, two.addr];
    let access = Running::start(raw_access(&nodes, &nodes), "access").await;
    let mut edge = Edge::dial(1, &access, &[&one, &two]).await;
    let mut other_edge = Edge::dial(2, &access, &[&one, &two]).await;
    edge.access.open(1, "chat", "ada", "phone", 1);
    other_edge.access.open(1, "chat", "bob", "phone", 1);

    let mut by_owner: HashMap<usize, Vec<u64>> = HashMap::new();
    for n in 0..24 {
        let room = format!("room-{n}");
        let (group, owner) = edge.join(1, &room).await;
        assert_eq!(
            other_edge.join(1, &room).await,
            (group, owner),
            "everyone finds the same owner"
        );
        by_owner.entry(owner).or_default().push(group);
        edge.send(owner, 1, signal(group, 1, "hello")).await;
        let seq = Seq::new(1, 1);
        other_edge.owners[owner].delivery(group, Class::Signal, seq).await;
    }
    assert_eq!(by_owner.len(), 2, "each owner has some");
    let mut groups: Vec<_> = by_owner.into_values().flatten().collect();
    groups.sort_unstable();
    groups.dedup();
    assert_eq!(groups.len(), 24, "handles of different owners do not meet");
    for backend in [access, one, two] {
        backend.stop().await;
    }
}

#[tokio::test]
async fn a_lost_owner_costs_its_rooms_and_no_session_and_is_found_again() {
    let (dir_one, dir_two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (one, two) = (owner(&dir_one, 1).await, owner(&dir_two, 2).await);
    let nodes = [one.addr, two.addr];
    let access = Running::start(raw_access(&nodes, &nodes), "access").await;
    let mut edge = Edge::dial(1, &access, &[&one, &two]).await;
    edge.access.open(1, "chat", "ada", "phone", 1);
    edge.access.open(2, "chat", "bob", "phone", 1);
    // One Session in rooms of each owner; which names those are is the hash's business.
    let mut rooms: HashMap<usize, (String, u64)> = HashMap::new();
    for n in 0.. {
        let room = format!("room-{n}");
        let (group, owner) = edge.join(1, &room).await;
        rooms.entry(owner).or_insert((room, group));
        if rooms.len() == 2 {
            break;
        }
    }
    let (kept_room, _) = rooms[&0].clone();
    let (lost_room, lost_group) = rooms[&1].clone();
    let (kept_group, _) = edge.join(2, &kept_room).await;

    let addr = two.addr;
    two.stop().await;
    let left = |frame: &Frame| match frame {
        Frame::Left(left) if left.group == lost_group => Some(left.code),
        _ => None,
    };
    let code = edge.owners[1].expect_frame(1, "left", left).await;
    assert_eq!(code, CloseCode::BackendLost.code());
    edge.send(0, 1, signal(kept_group, 1, "the Session goes on")).await;
    let join = |room: &str| Join { room: Text::from(room), ..Join::default() };
    let (code, retry) = edge.access.try_join(2, join(&lost_room)).await.unwrap_err();
    assert_eq!(code, ErrorCode::Unavailable);
    assert!(retry > 0);
    edge.send(0, 2, signal(kept_group, 1, "still here")).await;

    let mut raw = raw(dir_two.path());
    raw.backend.slot = Some(2);
    raw.backend.listen = Some(addr.to_string());
    let two = Running::start(raw, "room,peer").await;
    while access.readiness.ready().is_err() {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    edge.owners[1] = Gateway::dial(addr, 1).await;
    assert_eq!(edge.join(1, &lost_room).await.1, 1);
    for backend in [access, one, two] {
        backend.stop().await;
    }
}

#[tokio::test]
async fn a_join_whose_owner_has_no_link_with_the_gateway_fails_and_may_be_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let owner = owner(&dir, 1).await;
    let access = Running::start(raw_access(&[owner.addr], &[owner.addr]), "access").await;
    let mut gateway = Gateway::dial(access.addr, 1).await;
    gateway.open(1, "chat", "ada", "phone", 1);
    let join = || Join { room: Text::from("maths"), ..Join::default() };
    let (code, retry) = gateway.try_join(1, join()).await.unwrap_err();
    assert_eq!((code, retry), (ErrorCode::Unavailable, 500));

    let mut link = Gateway::dial(owner.addr, 1).await;
    gateway.frames(1, Class::Signal, [Join { request: 99, ..join() }.into()]);
    link.expect_frame(1, "joined", |f| matches!(f, Frame::Joined(_)).then_some(())).await;
    access.stop().await;
    owner.stop().await;
}

#[tokio::test]
async fn the_end_of_access_makes_its_members_leave() {
    let dir = tempfile::tempdir().unwrap();
    let owner = owner(&dir, 1).await;
    let access = Running::start(raw_access(&[owner.addr], &[owner.addr]), "access").await;
    let other = Running::start(raw_access(&[owner.addr], &[owner.addr]), "access").await;
    let mut link = Gateway::dial(owner.addr, 1).await;
    let (first, second) = (Gateway::dial(access.addr, 1).await, Gateway::dial(other.addr, 1).await);
    let mut group = 0;
    for (number, gateway) in [(1, &first), (2, &second)] {
        let user = format!("user-{number}");
        gateway.open(number, "chat", &user, "phone", 1);
        let join = Join { request: 1, room: Text::from("maths"), ..Join::default() };
        gateway.frames(number, Class::Signal, [join.into()]);
        group = link
            .expect_frame(number, "joined", |frame| match frame {
                Frame::Joined(joined) => Some(joined.group),
                _ => None,
            })
            .await;
        let user = Text::from(user);
        link.expect_presence(group, "a user coming", |p| p.joined.contains(&user)).await;
    }
    access.stop().await;
    link.expect_presence(group, "user-1 leaving", |p| p.left == [Text::from("user-1")]).await;
    drop(first);
    other.stop().await;
    drop(second);
    owner.stop().await;
    link.ended(Stream::Control).await;
}
