//! Lost connections, and those that take over from them, driven as gateways drive a backend.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::{Event, Gateway, Running, accepted, message, raw, signal};
use edgeway_proto::{
    AckStatus, Class, CloseCode, Frame, Seq, Text,
    auth::{LoginRequest, auth_client::AuthClient, login_response::Result as Verdict},
    frame::{Join, Joined, Presence, method},
    link::{Close, Confirm, Open, Stream, down_item, up_item::Item},
};

/// Longer than any test.
const LONG_MS: u64 = 600_000;

/// Above the interval at which rooms tell who came and went.
const PRESENCE: Duration = Duration::from_millis(2_500);

fn open(gateway: &Gateway, session: u64, generation: u64, grace_ms: u64, early: bool) {
    let open = Open {
        session,
        kind: "chat".into(),
        user: "ada".into(),
        device: "phone".into(),
        generation,
        grace_ms,
        early,
        ..Open::default()
    };
    gateway.push(Stream::Control, Item::Open(open));
}

fn lose(gateway: &Gateway, session: u64) {
    let close = Close { session, lost: true, ..Close::default() };
    gateway.push(Stream::Control, Item::Close(close));
}

fn confirm(gateway: &Gateway, session: u64) {
    gateway.push(Stream::Control, Item::Confirm(Confirm { session }));
}

/// Two gateways: ada's Session 1 is on the first, bob's on the second, both in a room.
struct Scene {
    _dir: tempfile::TempDir,
    backend: Running,
    ada: Gateway,
    bob: Gateway,
    group: u64,
}

impl Scene {
    async fn new(grace_ms: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let backend = Running::all(dir.path()).await;
        let (mut ada, mut bob) =
            (Gateway::dial(backend.addr, 1).await, Gateway::dial(backend.addr, 2).await);
        bob.open(1, "chat", "bob", "phone", 1);
        bob.join(1, "maths").await;
        open(&ada, 1, 10, grace_ms, false);
        let group = ada.join(1, "maths").await.group;
        let mut scene = Self { _dir: dir, backend, ada, bob, group };
        scene.expect_presence("ada comes", |joined, _| joined.contains(&"ada")).await;
        scene
    }

    async fn expect_presence(&mut self, what: &str, holds: impl Fn(&[&str], &[&str]) -> bool) {
        let group = self.group;
        let names = |names: &[Text]| names.iter().map(|n| n.to_string()).collect::<Vec<_>>();
        self.bob
            .expect_presence(group, what, |p| {
                let (joined, left) = (names(&p.joined), names(&p.left));
                let joined: Vec<&str> = joined.iter().map(String::as_str).collect();
                let left: Vec<&str> = left.iter().map(String::as_str).collect();
                holds(&joined, &left)
            })
            .await;
    }

    /// Nobody came or went, as bob sees it, up to a mark that is told after the interval.
    async fn nobody_moved(&mut self) {
        tokio::time::sleep(PRESENCE).await;
        self.bob.open(99, "chat", "mark", "phone", 1);
        self.bob.join(99, "maths").await;
        let group = self.group;
        loop {
            let presence = self.bob.expect("presence", |event| match event {
                Event::Publish { group: g, count: 0, frames, .. } if *g == group => {
                    frames.iter().find_map(|frame| match frame {
                        Frame::Presence(p) => Some(p.clone()),
                        _ => None,
                    })
                }
                _ => None,
            });
            let Presence { joined, left, .. } = presence.await;
            let ada = Text::from("ada");
            assert!(!joined.contains(&ada) && !left.contains(&ada), "{joined:?} {left:?}");
            if joined.contains(&Text::from("mark")) {
                return;
            }
        }
    }
}

async fn rejoin(gateway: &mut Gateway, session: u64, have: Seq) -> Joined {
    let positions = vec![(Class::Signal, have)];
    let join = Join { room: Text::from("maths"), positions, ..Join::default() };
    gateway.try_join(session, join).await.unwrap()
}

fn subscribed(session: u64) -> impl Fn(&Event) -> Option<(Option<Seq>, Seq)> {
    move |event| match event {
        Event::Other(Stream::Control, down_item::Item::Subscribe(s)) if s.session == session => {
            Some((s.have.map(Seq::from), s.head.map(Seq::from).unwrap()))
        }
        _ => None,
    }
}

#[tokio::test]
async fn who_is_back_within_the_grace_time_has_never_left() {
    let mut scene = Scene::new(LONG_MS).await;
    let group = scene.group;
    let first = accepted(&scene.ada.send(1, signal(group, 1, "before")).await);
    lose(&scene.ada, 1);
    let missed = accepted(&scene.bob.send(1, signal(group, 1, "while away")).await);
    open(&scene.ada, 2, 11, LONG_MS, false);
    let joined = rejoin(&mut scene.ada, 2, first).await;
    assert_eq!(joined.classes[0], (missed, 1), "goes on with its message ids");
    assert_eq!(scene.ada.expect("subscription", subscribed(2)).await, (Some(first), missed));
    accepted(&scene.ada.send(2, signal(group, 2, "after")).await);
    scene.nobody_moved().await;
    // An orderly leave is seen.
    scene.ada.close(2);
    scene.expect_presence("ada goes", |_, left| left.contains(&"ada")).await;
    scene.backend.stop().await;
}

#[tokio::test]
async fn a_newer_connection_takes_over_from_one_that_is_not_known_to_be_lost() {
    let mut scene = Scene::new(LONG_MS).await;
    open(&scene.ada, 2, 11, LONG_MS, false);
    assert_eq!(scene.ada.closed(1).await, CloseCode::Replaced.code());
    rejoin(&mut scene.ada, 2, Seq::ZERO).await;
    // What its gateway says of the older one comes late.
    lose(&scene.ada, 1);
    scene.nobody_moved().await;
    scene.backend.stop().await;
}

#[tokio::test]
async fn after_the_grace_time_a_lost_connection_is_a_leave() {
    let mut scene = Scene::new(200).await;
    lose(&scene.ada, 1);
    scene.expect_presence("ada goes", |_, left| left.contains(&"ada")).await;
    scene.backend.stop().await;
}

#[tokio::test]
async fn a_place_that_is_not_taken_again_is_left_after_the_grace_time() {
    let mut scene = Scene::new(LONG_MS).await;
    lose(&scene.ada, 1);
    open(&scene.ada, 2, 11, 300, false);
    scene.ada.join(2, "elsewhere").await;
    scene.expect_presence("ada goes", |_, left| left.contains(&"ada")).await;
    scene.backend.stop().await;
}

#[tokio::test]
async fn without_a_grace_time_a_lost_connection_is_a_leave_at_once() {
    let mut scene = Scene::new(0).await;
    lose(&scene.ada, 1);
    scene.expect_presence("ada goes", |_, left| left.contains(&"ada")).await;
    scene.backend.stop().await;
}

#[tokio::test]
async fn an_older_generation_is_refused() {
    let mut scene = Scene::new(LONG_MS).await;
    for early in [false, true] {
        open(&scene.ada, 2 + u64::from(early), 9, LONG_MS, early);
        assert_eq!(scene.ada.closed(2 + u64::from(early)).await, CloseCode::Replaced.code());
    }
    let group = scene.group;
    accepted(&scene.ada.send(1, signal(group, 1, "still here")).await);
    scene.backend.stop().await;
}

#[tokio::test]
async fn early_data_reads_and_takes_over_only_when_it_is_confirmed() {
    let mut scene = Scene::new(LONG_MS).await;
    let group = scene.group;
    let head = accepted(&scene.ada.send(1, signal(group, 1, "one")).await);
    open(&scene.ada, 2, 11, LONG_MS, true);
    rejoin(&mut scene.ada, 2, Seq::ZERO).await;
    assert_eq!(scene.ada.expect("subscription", subscribed(2)).await, (Some(Seq::ZERO), head));
    // What it sends waits; the older one goes on.
    scene.ada.frames(2, Class::Signal, [signal(group, 2, "early").into()]);
    scene.ada.frames(2, Class::Binary, [message(group, Class::Binary, 1, "early").into()]);
    accepted(&scene.bob.send(1, signal(group, 1, "two")).await);
    accepted(&scene.ada.send(1, signal(group, 2, "older")).await);

    confirm(&scene.ada, 2);
    assert_eq!(scene.ada.closed(1).await, CloseCode::Replaced.code());
    for (class, status) in
        [(Class::Signal, AckStatus::Duplicate), (Class::Binary, AckStatus::Accepted)]
    {
        let ack = scene.ada.expect_frame(2, "ack", |frame| match frame {
            Frame::Ack(ack) if ack.class == class => Some(ack.clone()),
            _ => None,
        });
        assert_eq!(ack.await.status, status, "{class}: ids tell what was said twice");
    }
    scene.nobody_moved().await;
    scene.backend.stop().await;
}

#[tokio::test]
async fn early_data_that_is_never_confirmed_leaves_no_trace() {
    let mut scene = Scene::new(LONG_MS).await;
    let group = scene.group;
    open(&scene.ada, 2, 11, LONG_MS, true);
    rejoin(&mut scene.ada, 2, Seq::ZERO).await;
    scene.ada.frames(2, Class::Signal, [signal(group, 1, "replayed").into()]);
    lose(&scene.ada, 2);
    scene.nobody_moved().await;
    let ack = scene.ada.send(1, signal(group, 1, "mine")).await;
    assert_eq!(ack.status, AckStatus::Accepted, "nothing was sent with that id");
    scene.backend.stop().await;
}

#[tokio::test]
async fn early_data_of_one_who_is_not_there_joins_when_it_is_confirmed() {
    let mut scene = Scene::new(LONG_MS).await;
    let group = scene.group;
    scene.ada.close(1);
    scene.expect_presence("ada goes", |_, left| left.contains(&"ada")).await;
    open(&scene.ada, 2, 11, LONG_MS, true);
    let join = Join { request: 1, room: Text::from("maths"), ..Join::default() };
    scene.ada.frames(2, Class::Signal, [join.into()]);
    scene.nobody_moved().await;
    confirm(&scene.ada, 2);
    let joined = scene.ada.expect_frame(2, "joined", |frame| match frame {
        Frame::Joined(joined) => Some(joined.group),
        _ => None,
    });
    assert_eq!(joined.await, group);
    scene.expect_presence("ada comes", |joined, _| joined.contains(&"ada")).await;
    scene.backend.stop().await;
}

async fn login(
    backend: &Running,
    method: u64,
    device: &str,
    secret: Bytes,
) -> Result<(u64, Bytes), u64> {
    let (user, device) = ("ada".to_owned(), device.to_owned());
    let request = LoginRequest { method, user, device, secret, ..LoginRequest::default() };
    let mut auth = AuthClient::new(common::channel(backend.addr).await);
    match auth.login(request).await.unwrap().into_inner().result.unwrap() {
        Verdict::Accepted(accepted) => Ok((accepted.generation, accepted.token)),
        Verdict::Rejected(rejected) => Err(u64::from(rejected.code)),
    }
}

#[tokio::test]
async fn a_session_token_holds_as_long_as_its_session_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let backend = Running::all(dir.path()).await;
    let mut gateway = Gateway::dial(backend.addr, 1).await;
    let failed = Err(CloseCode::LoginFailed.code());
    let (first, token) = login(&backend, method::DEVELOPMENT, "phone", Bytes::new()).await.unwrap();
    assert_eq!(login(&backend, method::RESUME, "phone", token.clone()).await, failed, "no Session");
    open(&gateway, 1, first, LONG_MS, false);
    gateway.join(1, "maths").await;
    assert_eq!(login(&backend, method::RESUME, "tablet", token.clone()).await, failed, "stolen");
    let mut garbled = token.to_vec();
    garbled[5] ^= 1;
    assert_eq!(login(&backend, method::RESUME, "phone", garbled.into()).await, failed, "garbled");

    lose(&gateway, 1);
    let (second, newer) = login(&backend, method::RESUME, "phone", token.clone()).await.unwrap();
    assert!(second > first);
    open(&gateway, 2, second, 200, false);
    gateway.join(2, "maths").await;
    let (third, _) = login(&backend, method::RESUME, "phone", newer.clone()).await.unwrap();
    assert!(third > second);
    assert_eq!(login(&backend, method::RESUME, "phone", token).await, failed, "replayed");

    lose(&gateway, 2);
    let expired = async {
        while login(&backend, method::RESUME, "phone", newer.clone()).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), expired).await.unwrap();
    backend.stop().await;
}

#[tokio::test]
async fn a_session_token_ends_with_an_orderly_leave() {
    let dir = tempfile::tempdir().unwrap();
    let backend = Running::start(raw(dir.path()), "access,room,peer").await;
    let mut gateway = Gateway::dial(backend.addr, 1).await;
    let (first, token) = login(&backend, method::DEVELOPMENT, "phone", Bytes::new()).await.unwrap();
    open(&gateway, 1, first, LONG_MS, false);
    gateway.join(1, "maths").await;
    gateway.close(1);
    // In order after the close.
    gateway.open(5, "chat", "bob", "phone", 1);
    gateway.join(5, "maths").await;
    let refused = login(&backend, method::RESUME, "phone", token).await;
    assert_eq!(refused, Err(CloseCode::LoginFailed.code()));
    backend.stop().await;
}
