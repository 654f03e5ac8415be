//! What gateways may do wrong on a link, and what then happens.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use common::{Gateway, Running, accepted, raw_stream, signal, stream};
use edgeway_proto::{
    Class, CloseCode,
    frame::Join,
    link::{Data, Hello, Open, Stream, down_item, up_item::Item},
};
use tokio::sync::mpsc::unbounded_channel;
use tonic::Code;

fn hello(gateway: u64, link: u64, stream: Stream) -> Item {
    Item::Hello(Hello { gateway, name: "bad".into(), link, stream: stream.into() })
}

#[tokio::test]
async fn a_stream_that_does_not_begin_with_hello_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let backend = Running::all(dir.path()).await;
    let open = Item::Open(Open::default());
    let (events, _keep) = unbounded_channel();
    let refused = raw_stream(backend.addr, vec![open], Stream::Control, events).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("hello"));
    backend.stop().await;
}

#[tokio::test]
async fn a_link_that_breaks_the_protocol_ends_with_a_reason_and_others_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let backend = Running::all(dir.path()).await;
    let mut good = Gateway::dial(backend.addr, 1).await;
    good.open(1, "chat", "ada", "phone", 1);
    let group = good.join(1, "maths").await.group;

    let wrong: [(Stream, Item, &str); 4] = [
        (Stream::Control, hello(2, 1, Stream::Control), "second hello"),
        (Stream::Bulk, Item::Open(Open::default()), "CONTROL"),
        (Stream::Bulk, Item::Data(Data::default()), "signal data"),
        (Stream::Control, Item::Data(Data { class: 2, ..Data::default() }), "signal data"),
    ];
    for (stream, item, reason) in wrong {
        let mut bad = Gateway::dial(backend.addr, 2).await;
        bad.push(stream, item);
        let status = bad.ended(stream).await.unwrap();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains(reason), "{}", status.message());
        let other = if stream == Stream::Control { Stream::Bulk } else { Stream::Control };
        bad.ended(other).await;
    }
    accepted(&good.send(1, signal(group, 1, "undisturbed")).await);
    backend.stop().await;
}

#[tokio::test]
async fn both_streams_begin_with_a_welcome_of_the_same_backend() {
    let dir = tempfile::tempdir().unwrap();
    let backend = Running::all(dir.path()).await;
    let mut gateway = Gateway::dial(backend.addr, 1).await;
    let mut backends = Vec::new();
    for wanted in [Stream::Control, Stream::Bulk] {
        let welcome = gateway.expect("welcome", |event| match event {
            common::Event::Other(of, down_item::Item::Welcome(w)) if *of == wanted => {
                Some(w.backend)
            }
            _ => None,
        });
        backends.push(welcome.await);
    }
    assert_eq!(backends[0], backends[1]);
    backend.stop().await;
}

#[tokio::test]
async fn a_stream_that_is_open_already_is_refused_and_the_open_one_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let backend = Running::all(dir.path()).await;
    let (events, _keep) = unbounded_channel();
    let _first = stream(backend.addr, 3, 1, Stream::Control, events.clone()).await.unwrap();
    let _other = stream(backend.addr, 3, 1, Stream::Bulk, events.clone()).await.unwrap();
    let again = stream(backend.addr, 3, 1, Stream::Control, events).await.unwrap_err();
    assert_eq!(again.code(), Code::AlreadyExists);
    backend.stop().await;
}

#[tokio::test]
async fn a_newer_link_of_a_gateway_ends_the_older_one() {
    let dir = tempfile::tempdir().unwrap();
    let backend = Running::all(dir.path()).await;
    let mut older = Gateway::dial(backend.addr, 1).await;
    older.open(1, "chat", "ada", "phone", 1);
    older.join(1, "maths").await;
    let mut newer = Gateway::dial(backend.addr, 1).await;
    assert_eq!(older.ended(Stream::Control).await.unwrap().code(), Code::Aborted);
    newer.open(2, "chat", "ada", "phone", 1);
    let joined = newer.join(2, "maths").await;
    assert_eq!(joined.members, 1, "the older link's Sessions have left");
    accepted(&newer.send(2, signal(joined.group, 1, "here")).await);
    backend.stop().await;
}

#[tokio::test]
async fn the_end_of_one_stream_is_the_end_of_the_link() {
    let dir = tempfile::tempdir().unwrap();
    let backend = Running::all(dir.path()).await;
    let (control_events, mut control) = unbounded_channel();
    let (bulk_events, _keep) = unbounded_channel();
    let _control = stream(backend.addr, 3, 1, Stream::Control, control_events).await.unwrap();
    drop(stream(backend.addr, 3, 1, Stream::Bulk, bulk_events).await.unwrap());
    while let Some(event) = control.recv().await {
        if let common::Event::End(..) = event {
            backend.stop().await;
            return;
        }
    }
    panic!("the stream went on");
}

#[tokio::test]
async fn frames_for_a_session_that_is_not_open_are_answered_with_a_close() {
    let dir = tempfile::tempdir().unwrap();
    let backend = Running::all(dir.path()).await;
    let mut gateway = Gateway::dial(backend.addr, 1).await;
    gateway.frames(
        9,
        Class::Signal,
        [Join { request: 1, room: "maths".into(), ..Join::default() }.into()],
    );
    assert_eq!(gateway.closed(9).await, CloseCode::NotOpen.code());
    gateway.open(1, "chat", "ada", "phone", 1);
    gateway.join(1, "maths").await;
    backend.stop().await;
}
