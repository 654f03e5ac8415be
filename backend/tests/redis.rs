//! Backend processes on one Redis: what a room is does not go with its owner.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::time::Duration;

use common::{Gateway, Running, accepted, message, raw, signal};
use edgeway_backend::config::{RawConfig, RawRedis, RawStore};
use edgeway_proto::{
    Class, Frame, Seq,
    frame::{History, page_flag},
};
use edgeway_testredis::{Options, Server};
use tempfile::TempDir;

/// A process with all roles, and a directory of its own that it does not need.
async fn process(server: &Server) -> (Running, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let redis = RawRedis { url: Some(server.url()), ..RawRedis::default() };
    let store = RawStore { engine: Some("redis".to_owned()), redis };
    let raw = RawConfig { store, ..raw(dir.path()) };
    (Running::start(raw, "access,room,peer").await, dir)
}

/// How many signals a room has in all.
async fn signals(gateway: &mut Gateway, group: u64) -> usize {
    let request = gateway.request();
    let history = History { request, group, class: Class::Signal, after: Seq::ZERO, limit: 0 };
    gateway.frames(1, Class::Signal, [history.into()]);
    let pick = |frame: &Frame| match frame {
        Frame::Page(page) if page.request == request => Some(page.clone()),
        _ => None,
    };
    let page = gateway.expect_frame(1, "page", pick).await;
    assert_eq!(page.flags & page_flag::MORE, 0);
    common::parse(page.messages.0).len()
}

#[tokio::test]
async fn a_room_goes_on_in_another_process_with_its_history_and_ids() {
    let server = Server::start(&Options::default());
    let mut before: Option<(u64, Seq)> = None;
    for run in 1..=3 {
        let (backend, dir) = process(&server).await;
        let mut gateway = Gateway::dial(backend.addr, run).await;
        gateway.open(1, "chat", "ada", "phone", run);
        let joined = gateway.join(1, "maths").await;
        assert_eq!(joined.classes[0].1, run - 1, "the last accepted id is remembered");
        let seq = accepted(&gateway.send(1, signal(joined.group, run, "again")).await);
        if let Some((group, last)) = before.replace((joined.group, seq)) {
            assert_eq!(joined.group, group);
            assert!(seq.epoch > last.epoch, "{seq} after {last}");
        }
        assert_eq!(signals(&mut gateway, joined.group).await as u64, run);
        backend.stop().await;
        let there = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let there: Vec<_> = there.collect();
        assert_eq!(there, ["events"], "all of it is on Redis, but what others are to read");
    }
}

#[tokio::test]
async fn while_redis_is_away_chat_flows_and_a_signal_waits_and_is_stored_once() {
    let mut server = Server::start(&Options { durable: true, ..Options::default() });
    let (backend, _dir) = process(&server).await;
    let mut gateway = Gateway::dial(backend.addr, 1).await;
    gateway.open(1, "chat", "ada", "phone", 1);
    let group = gateway.join(1, "maths").await.group;
    accepted(&gateway.send(1, signal(group, 1, "before")).await);
    server.stop();
    gateway.frames(1, Class::Signal, [signal(group, 2, "meanwhile").into()]);
    let chat = accepted(&gateway.send(1, message(group, Class::Chat, 1, "hello")).await);
    gateway.delivery(group, Class::Chat, chat).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    server.resume();
    let ack = gateway.expect_frame(1, "ack", |frame| match frame {
        Frame::Ack(ack) if ack.class == Class::Signal && ack.id == 2 => Some(ack.clone()),
        _ => None,
    });
    let seq = accepted(&ack.await);
    gateway.delivery(group, Class::Signal, seq).await;
    assert_eq!(seq, Seq::new(1, 2));
    assert_eq!(signals(&mut gateway, group).await, 2);
    backend.stop().await;
}
