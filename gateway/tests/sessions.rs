//! Sessions and the backends behind them.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use bytes::{Bytes, BytesMut};
use common::{
    Backend, Client, Edge, Via,
    backend::Event,
    client::{ALL, hello, login},
    until, within,
};
use edgeway_proto::{
    Class, CloseCode, Frame, Lane, Seq,
    frame::{CloseSession, Join, Open, Opened},
    link,
};

const SIGNAL: Lane = Lane { session: 1, class: Class::Signal };

async fn start() -> (Backend, Edge) {
    let backend = Backend::start().await;
    let edge = Edge::start(&backend, |_| {}).await;
    (backend, edge)
}

/// Two backends: `chat` leads to the first, `im` to the second.
async fn start_two() -> (Backend, Backend, Edge) {
    let (first, second) = (Backend::start().await, Backend::start().await);
    let edge = Edge::with(&[("first", &first), ("second", &second)], |raw| {
        raw.routes.insert("im".into(), "second".into());
    })
    .await;
    (first, second, edge)
}

fn publication(class: Class) -> link::down_item::Item {
    link::down_item::Item::Publish(link::Publish {
        group: 5,
        class: link::Class::from(class).into(),
        first: Some(Seq::new(1, 1).into()),
        count: 1,
        frames: common::backend::deliver(5, class, 1, 50).to_bytes(),
    })
}

fn own(kind: u8, body: &[u8]) -> Bytes {
    let mut frame = vec![kind, u8::try_from(body.len()).unwrap()];
    frame.extend_from_slice(body);
    frame.into()
}

over! {
    [quic, tcp, plain]
    async fn all_five_session_types_on_one_connection_reach_their_own_backends(via: Via) {
        let kinds = ["chat", "im", "push", "research_push", "passthrough"];
        let mut backends = Vec::new();
        for _ in kinds {
            backends.push(Backend::start().await);
        }
        let named: Vec<_> = kinds.into_iter().zip(&backends).collect();
        let edge = Edge::with(&named, |raw| {
            for kind in kinds {
                raw.routes.insert(kind.into(), kind.into());
            }
        })
        .await;
        let mut client = Client::login(&edge, via, "ada").await;
        for (n, kind) in (1..).zip(kinds) {
            client.open(n, kind).await;
        }
        for (n, (kind, backend)) in (1..).zip(kinds.into_iter().zip(&mut backends)) {
            let open = backend.opened().await;
            assert_eq!((open.kind.as_str(), open.user.as_str(), open.device.as_str()), (kind, "ada", "device"));
            assert!(open.generation > 0 && open.remote.contains("127.0.0.1"));
            for class in Class::ALL {
                let frame = own(0xb0, format!("{kind} {class}").as_bytes());
                client.send(Lane::new(n, class), frame.clone()).await;
                assert_eq!({ let (lane, raw) = client.raw().await; (lane, raw.whole) }, (Lane::new(n, class), frame));
                let Event::Data(data) = backend.event().await else { panic!("no data") };
                assert_eq!((data.session, Class::from(data.class())), (open.session, class));
            }
        }
        edge.stop().await;
    }

    [legacy]
    async fn a_legacy_connection_carries_one_session_of_any_type(via: Via) {
        let (mut backend, edge) = start().await;
        for kind in ["chat", "im", "push"] {
            let mut client = Client::login(&edge, via, "ada").await;
            client.open(1, kind).await;
            assert_eq!(backend.opened().await.kind, kind);
            client.echoes(1).await;
        }
    }

    [quic, tcp, plain, legacy]
    async fn the_whole_first_flight_may_be_sent_without_waiting(via: Via) {
        let (mut backend, edge) = start().await;
        let mut client = Client::connect(&edge, via).await;
        client.control(hello([ALL; 3])).await;
        client.control(login("ada", "secret")).await;
        let headers = vec![("key".into(), "value".into())];
        client.send(SIGNAL, Open { session: 1, kind: "chat".into(), headers }.to_bytes()).await;
        let join = Join { request: 1, room: "maths".into(), ..Join::default() }.to_bytes();
        client.send(SIGNAL, join.clone()).await;
        let frame = own(0x80, b"more");
        client.send(SIGNAL, frame.clone()).await;
        let open = backend.opened().await;
        assert_eq!(open.headers["key"], "value");
        let mut data = BytesMut::new();
        while data.len() < join.len() + frame.len() {
            let Event::Data(d) = backend.event().await else { panic!("no data") };
            data.extend_from_slice(&d.frames);
        }
        assert_eq!(data, [&join[..], &frame[..]].concat());
        client.until(|f| matches!(f, Frame::Opened(_))).await;
    }

    [quic, tcp, legacy]
    async fn a_type_without_a_route_is_refused_and_the_connection_goes_on(via: Via) {
        let (_backend, edge) = start().await;
        let mut client = Client::login(&edge, via, "ada").await;
        client.ask(1, "no such thing").await;
        let close = client.session_end(1).await;
        assert_eq!(close.code, CloseCode::NoRoute.code());
        assert!(close.reason.contains("no such thing"));
        client.is_well().await;
        if via != Via::Legacy {
            client.open(2, "chat").await;
            client.echoes(2).await;
        }
    }

    [quic, tcp, plain]
    async fn a_second_session_of_a_type_is_refused_until_the_first_is_over(via: Via) {
        let (mut backend, edge) = start().await;
        let mut client = Client::login(&edge, via, "ada").await;
        client.open(1, "chat").await;
        client.ask(2, "chat").await;
        assert_eq!(client.session_code(2).await, CloseCode::SessionInUse);
        client.echoes(1).await;
        client.sender.finish(2);
        client.send(SIGNAL, CloseSession { session: 1, ..CloseSession::default() }.to_bytes()).await;
        client.sender.finish(1);
        backend.closed().await;
        client.open(3, "chat").await;
        client.echoes(3).await;
    }

    [tcp, plain]
    async fn more_sessions_than_a_connection_may_have_are_refused(via: Via) {
        let backend = Backend::start().await;
        let edge = Edge::start(&backend, |raw| raw.limits.sessions_per_connection = 2).await;
        let mut client = Client::login(&edge, via, "ada").await;
        client.open(1, "chat").await;
        client.open(2, "im").await;
        client.ask(3, "push").await;
        assert_eq!(client.session_code(3).await, CloseCode::TooManySessions);
        client.echoes(1).await;
        client.echoes(2).await;
        client.send(SIGNAL, CloseSession { session: 1, ..CloseSession::default() }.to_bytes()).await;
        client.open(4, "push").await;
        client.echoes(4).await;
    }

    [quic, tcp, plain, legacy]
    async fn a_number_that_was_used_is_refused_and_what_is_open_goes_on(via: Via) {
        let (mut backend, edge) = start().await;
        let mut client = Client::login(&edge, via, "ada").await;
        client.open(1, "chat").await;
        backend.opened().await;
        client.ask(1, "im").await;
        assert_eq!(client.session_code(1).await, CloseCode::SessionInUse);
        client.echoes(1).await;
        if via != Via::Quic {
            // Nor once it is over. (On QUIC its stream has ended, and a new one is refused.)
            client.send(SIGNAL, CloseSession { session: 1, ..CloseSession::default() }.to_bytes()).await;
            backend.closed().await;
            client.ask(1, "push").await;
            assert_eq!(client.session_code(1).await, CloseCode::SessionInUse);
            client.is_well().await;
        }
    }

    [quic, tcp, plain, legacy]
    async fn a_session_that_its_client_ends_is_not_answered_and_its_backend_is_told(via: Via) {
        let (mut backend, edge) = start().await;
        let mut client = Client::login(&edge, via, "ada").await;
        client.open(1, "chat").await;
        let open = backend.opened().await;
        let last = own(0x81, b"last words");
        client.send(SIGNAL, last.clone()).await;
        client.send(SIGNAL, CloseSession { session: 1, ..CloseSession::default() }.to_bytes()).await;
        let Event::Data(data) = backend.event().await else { panic!("no data") };
        assert_eq!(data.frames, last, "what was sent before the end arrives");
        assert_eq!(backend.closed().await, open.session);
        // What comes down for it now, and what it still sends, goes nowhere.
        backend.data(open.session, Class::Signal, own(0x82, b"late"));
        client.send(SIGNAL, own(0x81, b"late")).await;
        client.control(edgeway_proto::frame::Ping { token: 5 }.to_bytes()).await;
        loop {
            match client.next().await.1 {
                Frame::Pong(p) if p.token == 5 => break,
                Frame::CloseSession(_) => panic!("the end was answered"),
                _ => {}
            }
        }
    }

    [quic]
    async fn a_stream_that_is_ended_ends_its_session(via: Via) {
        let (mut backend, edge) = start().await;
        let mut client = Client::login(&edge, via, "ada").await;
        client.open(1, "chat").await;
        let open = backend.opened().await;
        client.sender.finish(1);
        assert_eq!(backend.closed().await, open.session);
        client.is_well().await;
    }

    [quic, tcp, plain, legacy]
    async fn a_connection_that_ends_ends_its_sessions_at_their_backends(via: Via) {
        let (mut backend, edge) = start().await;
        let mut client = Client::login(&edge, via, "ada").await;
        client.open(1, "chat").await;
        let open = backend.opened().await;
        client.sender.close(CloseCode::Normal, "bye", 0).await;
        assert_eq!(backend.closed().await, open.session);
    }

    [quic, tcp, plain, legacy]
    async fn a_session_that_its_backend_ends_says_why_and_what_still_comes_is_dropped(via: Via) {
        let (mut backend, edge) = start().await;
        let mut client = Client::login(&edge, via, "ada").await;
        client.open(1, "chat").await;
        let open = backend.opened().await;
        // Credit has grown by then: the end of the lane must not make it look exceeded.
        for _ in 0..40 {
            client.send_within_credit(SIGNAL, vec![0x90, 0x44, 0].into_iter().chain([7; 0x400]).collect(), 65_536).await;
        }
        backend.close(open.session, CloseCode::Kicked, &"why ".repeat(200));
        let close = client.session_end(1).await;
        assert_eq!((close.code, close.retry_after_ms), (CloseCode::Kicked.code(), 70));
        assert!(close.reason.starts_with("why why"));
        for _ in 0..100 {
            client.send_within_credit(SIGNAL, vec![0x90, 0x44, 0].into_iter().chain([7; 0x400]).collect(), 65_536).await;
            if client.sent[&SIGNAL] > 60_000 {
                break;
            }
        }
        client.is_well().await;
    }

    [quic, tcp, legacy]
    async fn a_backend_that_is_away_is_told_when_a_session_is_opened_and_it_works_when_it_is_back(via: Via) {
        let (first, second, edge) = start_two().await;
        let addr = second.stop().await;
        until("the link is lost", || !edge.readiness.missing().is_empty()).await;
        let mut client = Client::login(&edge, via, "ada").await;
        client.ask(1, "im").await;
        let close = client.session_end(1).await;
        assert_eq!(close.code, CloseCode::BackendUnavailable.code());
        assert!(close.retry_after_ms > 0 && close.reason.contains("second"));
        client.is_well().await;
        let _second = Backend::at(addr).await;
        until("the link stands again", || edge.readiness.missing().is_empty()).await;
        if via == Via::Legacy {
            client = Client::login(&edge, via, "ada").await;
            client.open(1, "im").await;
            client.echoes(1).await;
        } else {
            client.open(2, "im").await;
            client.echoes(2).await;
        }
        drop(first);
    }

    [quic, tcp]
    async fn a_link_that_is_lost_ends_its_sessions_only_and_they_can_be_opened_anew(via: Via) {
        let (mut first, second, edge) = start_two().await;
        let mut client = Client::login(&edge, via, "ada").await;
        client.open(1, "chat").await;
        client.open(2, "im").await;
        first.opened().await;
        second.lose_links();
        assert_eq!(client.session_code(2).await, CloseCode::BackendLost);
        client.echoes(1).await;
        until("the link stands again", || edge.readiness.missing().is_empty()).await;
        client.open(3, "im").await;
        client.echoes(3).await;
        client.echoes(1).await;
    }

    [quic, tcp]
    async fn members_of_a_group_whose_owner_is_lost_are_told_too(via: Via) {
        let (mut first, second, edge) = start_two().await;
        let mut client = Client::login(&edge, via, "ada").await;
        client.open(1, "chat").await;
        let open = first.opened().await;
        // A group's owner need not be the Session's backend.
        second.subscribe(open.session, 5, Class::Signal, Seq::new(1, 0), None);
        second.publish(5, Class::Signal, 1, 1, 10);
        client.until(|f| matches!(f, Frame::Deliver(_))).await;
        second.lose_links();
        let (_, left) = client.until(|f| matches!(f, Frame::Left(_))).await;
        assert!(matches!(left, Frame::Left(left) if (left.group, left.code) == (5, CloseCode::BackendLost.code())));
        client.echoes(1).await;
        client.is_well().await;
    }

    [quic, tcp]
    async fn a_backend_that_breaks_the_contract_takes_its_link_down_and_nothing_else(via: Via) {
        let (mut first, mut second, edge) = start_two().await;
        let mut client = Client::login(&edge, via, "ada").await;
        client.open(1, "chat").await;
        first.opened().await;
        let whole = common::backend::deliver(5, Class::Chat, 1, 50).to_bytes();
        let half = whole.slice(..20);
        let close = edgeway_proto::frame::Close::default().to_bytes();
        for (n, what) in (2u8..).zip(["half a frame", "a huge length", "a frame of the gateway's", "half a publication", "a wrong count", "chat on CONTROL", "signals on BULK", "no such class"]) {
            until("the link stands", || edge.readiness.missing().is_empty()).await;
            client.open(n, "im").await;
            let open = second.opened().await;
            second.subscribe(open.session, 5, Class::Chat, Seq::new(1, 0), None);
            match what {
                "half a frame" => second.data(open.session, Class::Signal, half.clone()),
                "a huge length" => second.data(open.session, Class::Chat, Bytes::from_static(&[0x80, 0xbf, 0xff, 0xff, 0xff])),
                "a frame of the gateway's" => second.data(open.session, Class::Signal, close.clone()),
                "half a publication" => second.publish_frames(5, Class::Chat, 1, 1, half.clone()),
                "a wrong count" => second.publish_frames(5, Class::Chat, 1, 2, whole.clone()),
                "chat on CONTROL" => second.send(Class::Signal, publication(Class::Chat)),
                "signals on BULK" => second.send(Class::Chat, publication(Class::Signal)),
                _ => second.send(Class::Chat, edgeway_proto::link::down_item::Item::Data(edgeway_proto::link::Data {
                    session: open.session,
                    class: 9,
                    frames: whole.clone(),
                    ..Default::default()
                })),
            }
            assert_eq!(client.session_code(n).await, CloseCode::BackendLost, "{what}");
            client.sender.finish(n);
            client.echoes(1).await;
        }
    }

    [quic, tcp, plain, legacy]
    async fn more_than_a_record_holds_in_one_answer_arrives_whole_and_in_order(via: Via) {
        let (mut backend, edge) = start().await;
        let mut client = Client::login(&edge, via, "ada").await;
        client.open(1, "chat").await;
        let open = backend.opened().await;
        let mut all = BytesMut::new();
        for n in 1..=40 {
            common::backend::deliver(5, Class::Signal, n, 5000).encode(&mut all);
        }
        backend.data(open.session, Class::Signal, all.freeze());
        for n in 1..=40 {
            let (_, Frame::Deliver(d)) = client.next().await else { panic!("no delivery") };
            assert_eq!(d.seq.counter, n);
        }
    }

    [quic, tcp]
    async fn what_a_backend_sends_for_sessions_that_are_gone_is_ignored(via: Via) {
        let (backend, edge) = start().await;
        backend.data(99, Class::Signal, own(0x80, b"nobody"));
        backend.subscribe(99, 1, Class::Chat, Seq::new(1, 0), None);
        backend.publish(1, Class::Chat, 1, 1, 10);
        backend.close(99, CloseCode::Kicked, "nobody");
        let opened = edgeway_proto::link::Opened { session: 99 };
        backend.send(Class::Signal, edgeway_proto::link::down_item::Item::Opened(opened));
        let mut client = Client::login(&edge, via, "ada").await;
        client.open(1, "chat").await;
        client.echoes(1).await;
    }
}

/// On QUIC the limit on streams keeps a client from opening one too many: it waits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_quic_one_session_more_than_permitted_waits_until_another_is_over() {
    let backend = Backend::start().await;
    let edge = Edge::start(&backend, |raw| raw.limits.sessions_per_connection = 2).await;
    let mut client = Client::login(&edge, Via::Quic, "ada").await;
    client.open(1, "chat").await;
    client.open(2, "im").await;
    let third = Open { session: 3, kind: "push".into(), headers: vec![] }.to_bytes();
    let lane = Lane::new(3, Class::Signal);
    let mut frames = [third.clone()];
    let early = client.sender.send(lane, &mut frames);
    let early = tokio::time::timeout(std::time::Duration::from_millis(300), early).await;
    assert!(early.is_err(), "a third Session was permitted");
    client.send(SIGNAL, CloseSession { session: 1, ..CloseSession::default() }.to_bytes()).await;
    client.sender.finish(1);
    within(client.sender.send(lane, &mut [third])).await.unwrap();
    client.until(|f| matches!(f, Frame::Opened(Opened { session: 3 }))).await;
    client.echoes(3).await;
}
