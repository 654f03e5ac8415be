//! What the SDK promises, over real sockets.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::{Listen, Server};
use edgeway_client::{
    AckStatus, Class, Client, CloseCode, ConnectError, Connector, ErrorCode, Event, Events, Fault,
    JoinOptions, Message, RawFrame, RequestError, Seq, SessionId, Transport, TransportChoice,
    Trust,
};

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

async fn connect(server: &Server, user: &str, transport: TransportChoice) -> (Client, Events) {
    let mut config = server.config(user);
    config.transport = transport;
    Client::connect(config).await.unwrap()
}

async fn event<T>(events: &mut Events, mut pick: impl FnMut(Event) -> Option<T>) -> T {
    let wanted = async {
        loop {
            let event = events.next().await.expect("events end");
            if let Some(found) = pick(event) {
                return found;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wanted).await.expect("the event does not come")
}

async fn message(events: &mut Events) -> Message {
    event(events, |e| if let Event::Message(m) = e { Some(m) } else { None }).await
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait).await.expect(what);
}

async fn speaks(transport: TransportChoice) {
    let server = Server::start(Listen::Both);
    let (ann, mut to_ann) = connect(&server, "ann", transport).await;
    let (bob, mut to_bob) = connect(&server, "bob", transport).await;
    let (at_ann, at_bob) = (ann.join("maths").await.unwrap(), bob.join("maths").await.unwrap());
    assert_eq!(at_bob.members_count(), 2);
    assert_eq!(ann.user(), "ann");
    let ack = at_ann.send_signal_with(bytes("3"), "page", 0).await.unwrap();
    assert_eq!((ack.status, ack.seq), (AckStatus::Accepted, Seq::new(1, 1)));
    at_ann.send_stroke(bytes("stroke")).await.unwrap();
    at_ann.send_chat(bytes("hello")).await.unwrap();
    for events in [&mut to_ann, &mut to_bob] {
        let mut got: Vec<_> = Vec::new();
        for _ in 0..3 {
            let message = message(events).await;
            assert_eq!((&*message.sender, &*message.room), ("ann", "maths"));
            got.push((message.class, message.payload));
        }
        // Between classes there is no order.
        got.sort();
        let all = [
            (Class::Signal, bytes("3")),
            (Class::Binary, bytes("stroke")),
            (Class::Chat, bytes("hello")),
        ];
        assert_eq!(got, all);
    }
    assert_eq!(at_bob.state_of("page").unwrap().payload, bytes("3"));
    assert_eq!(at_bob.members("", 0).await.unwrap().users.len(), 1);
    let page = at_bob.history(Class::Chat, Seq::ZERO, 0).await.unwrap();
    assert_eq!((page.messages.len(), page.more), (1, false));
    assert!(ann.ping().await.unwrap() > Duration::ZERO);
    assert!(ann.rtt().is_some());
    at_bob.leave().await.unwrap();
    ann.close().await;
    assert!(matches!(event(&mut to_ann, Some).await, Event::Closed { .. }));
    assert_eq!(to_ann.next().await, None);
    drop((bob, at_bob, to_bob));
    until("connections end with their clients", || server.connections() == 0).await;
}

#[tokio::test]
async fn messages_of_all_classes_reach_all_members_over_quic() {
    speaks(TransportChoice::Quic).await;
}

#[tokio::test]
async fn messages_of_all_classes_reach_all_members_over_tcp() {
    speaks(TransportChoice::Tcp).await;
}

#[tokio::test]
async fn quic_wins_where_it_works() {
    let server = Server::start(Listen::Both);
    let mut config = server.config("ann");
    // No luck of the scheduler lets TCP start.
    config.head_start = Duration::from_secs(8);
    let (client, _events) = Client::connect(config).await.unwrap();
    assert_eq!(client.transport(), Some(Transport::Quic));
    assert_eq!(server.logins(), 1);
}

#[tokio::test]
async fn tcp_takes_over_where_udp_is_blocked() {
    let server = Server::start(Listen::Tcp);
    let (client, _events) = connect(&server, "ann", TransportChoice::Auto).await;
    assert_eq!(client.transport(), Some(Transport::Tcp));
    assert_eq!(server.logins(), 1);
    client.join("maths").await.unwrap();
}

#[tokio::test]
async fn a_refused_login_is_the_callers_fault() {
    for transport in [TransportChoice::Quic, TransportChoice::Tcp, TransportChoice::Auto] {
        let server = Server::start(Listen::Both);
        server.switch(|s| s.refuse_logins = true);
        let mut config = server.config("ann");
        config.transport = transport;
        let error = Client::connect(config).await.unwrap_err();
        assert!(matches!(error, ConnectError::LoginFailed { .. }), "{error}");
        assert_eq!((error.fault(), error.may_retry()), (Fault::Caller, false));
    }
}

#[tokio::test]
async fn no_version_in_common_is_told() {
    let server = Server::start(Listen::Both);
    server.switch(|s| s.version = Some(9));
    for transport in [TransportChoice::Quic, TransportChoice::Tcp] {
        let mut config = server.config("ann");
        config.transport = transport;
        let error = Client::connect(config).await.unwrap_err();
        assert!(matches!(error, ConnectError::VersionUnsupported { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_the_networks_fault() {
    let server = Server::start(Listen::Tcp);
    let mut config = server.config("ann");
    drop(server);
    config.connect_timeout = Duration::from_secs(2);
    let error = Client::connect(config).await.unwrap_err();
    assert_eq!((error.fault(), error.may_retry()), (Fault::Network, true));
}

#[tokio::test]
async fn a_server_that_says_nothing_times_out() {
    let server = Server::start(Listen::Both);
    server.switch(|s| s.mute = true);
    let mut config = server.config("ann");
    config.connect_timeout = Duration::from_millis(700);
    assert_eq!(Client::connect(config).await.unwrap_err(), ConnectError::TimedOut);
    until("what was begun ends", || server.connections() == 0).await;
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused() {
    let (server, other) = (Server::start(Listen::Both), Server::start(Listen::Both));
    for transport in [TransportChoice::Quic, TransportChoice::Tcp, TransportChoice::Auto] {
        let mut config = server.config("ann");
        config.transport = transport;
        config.trust = other.config("ann").trust;
        let error = Client::connect(config).await.unwrap_err();
        assert!(matches!(error, ConnectError::Certificate { .. }), "{error}");
    }
}

#[tokio::test]
async fn nonsense_in_the_configuration_is_told() {
    let server = Server::start(Listen::Tcp);
    let mut config = server.config("ann");
    config.server = "no port".into();
    assert!(matches!(Client::connect(config).await, Err(ConnectError::Config { .. })));
    let mut config = server.config("ann");
    config.trust = Trust::Ca(b"no pem".to_vec());
    assert!(matches!(Client::connect(config).await, Err(ConnectError::Config { .. })));
}

async fn comes_back(transport: TransportChoice) {
    let server = Server::start(Listen::Both);
    let (ann, mut events) = connect(&server, "ann", transport).await;
    let room = ann.join("maths").await.unwrap();
    room.send_signal(bytes("0")).await.unwrap();
    // Stored, but the answers are lost with the connection.
    server.switch(|s| s.swallow_acks = true);
    let sending: Vec<_> = (1..=7)
        .map(|n| {
            let room = room.clone();
            let send = async move { room.send_signal(bytes(&n.to_string())).await };
            tokio::spawn(send)
        })
        .collect();
    until("the server has them", || server.log("maths", Class::Signal).len() == 8).await;
    server.switch(|s| s.swallow_acks = false);
    server.close_all(CloseCode::Internal);
    event(&mut events, |e| matches!(e, Event::Reconnecting { .. }).then_some(())).await;
    // While nobody is there more happens.
    for n in 8..20 {
        server.publish("maths", Class::Signal, bytes(&n.to_string()));
    }
    for send in sending {
        assert_eq!(send.await.unwrap().unwrap().status, AckStatus::Duplicate);
    }
    room.send_signal(bytes("last")).await.unwrap();
    let log = server.log("maths", Class::Signal);
    assert_eq!(log.len(), 21);
    // The events that were skipped above held the first ones: read again from history.
    let mut got = Vec::new();
    let mut after = Seq::ZERO;
    loop {
        let page = room.history(Class::Signal, after, 0).await.unwrap();
        got.extend(page.messages.into_iter().map(|m| m.payload));
        after = page.upto;
        if !page.more {
            break;
        }
    }
    assert_eq!(got, log);
    let mut last = Seq::ZERO;
    loop {
        let message = message(&mut events).await;
        assert!(message.seq > last, "once and in order");
        last = message.seq;
        if message.payload == bytes("last") {
            break;
        }
    }
    assert_eq!(last, Seq::new(1, 21));
    let stats = ann.stats();
    assert_eq!((stats.reconnects, stats.messages, stats.unacked_bytes), (1, 21, 0));
}

#[tokio::test]
async fn after_a_loss_nothing_is_missing_and_nothing_is_there_twice_over_quic() {
    comes_back(TransportChoice::Quic).await;
}

#[tokio::test]
async fn after_a_loss_nothing_is_missing_and_nothing_is_there_twice_over_tcp() {
    comes_back(TransportChoice::Tcp).await;
}

#[tokio::test]
async fn a_server_that_goes_away_is_left_and_come_back_to() {
    let server = Server::start(Listen::Both);
    let (ann, mut events) = connect(&server, "ann", TransportChoice::Quic).await;
    let room = ann.join("maths").await.unwrap();
    server.go_away();
    event(&mut events, |e| matches!(e, Event::GoingAway { .. }).then_some(())).await;
    event(&mut events, |e| matches!(e, Event::Reconnected { .. }).then_some(())).await;
    room.send_signal(bytes("still here")).await.unwrap();
    assert_eq!(message(&mut events).await.payload, bytes("still here"));
}

#[tokio::test]
async fn a_kicked_client_stays_away() {
    let server = Server::start(Listen::Both);
    let (ann, mut events) = connect(&server, "ann", TransportChoice::Tcp).await;
    let room = ann.join("maths").await.unwrap();
    server.close_all(CloseCode::Kicked);
    let code =
        event(&mut events, |e| if let Event::Closed { code, .. } = e { Some(code) } else { None });
    assert_eq!(code.await, CloseCode::Kicked);
    assert_eq!(events.next().await, None);
    assert!(room.send_signal(bytes("x")).await.is_err());
    assert_eq!(ann.join("physics").await.unwrap_err(), RequestError::Closed);
    assert_eq!(server.logins(), 1);
}

#[tokio::test]
async fn a_login_that_is_refused_on_the_way_back_ends_the_client() {
    let server = Server::start(Listen::Both);
    let (_ann, mut events) = connect(&server, "ann", TransportChoice::Tcp).await;
    server.switch(|s| s.refuse_logins = true);
    server.close_all(CloseCode::Internal);
    let code =
        event(&mut events, |e| if let Event::Closed { code, .. } = e { Some(code) } else { None });
    assert_eq!(code.await, CloseCode::LoginFailed);
}

#[tokio::test]
async fn an_app_that_reads_nothing_stops_the_server_and_loses_nothing() {
    for transport in [TransportChoice::Quic, TransportChoice::Tcp] {
        let server = Server::start(Listen::Both);
        let (ann, mut events) = connect(&server, "ann", transport).await;
        let _room = ann.join("maths").await.unwrap();
        for n in 0..100u32 {
            let mut payload = vec![0; 4096];
            payload[..4].copy_from_slice(&n.to_be_bytes());
            server.publish("maths", Class::Signal, payload.into());
        }
        until("credit runs out", || ann.stats().queued_event_bytes > 60_000).await;
        let queued = ann.stats().queued_event_bytes;
        assert!(queued < 72_000, "{queued}");
        assert!(server.waiting() > 300_000);
        for n in 0..100u64 {
            assert_eq!(message(&mut events).await.seq.counter, n + 1);
        }
    }
}

#[tokio::test]
async fn history_first_where_a_position_is_given() {
    let server = Server::start(Listen::Both);
    for n in 0..12 {
        server.publish("maths", Class::Signal, bytes(&n.to_string()));
    }
    let (ann, mut events) = connect(&server, "ann", TransportChoice::Quic).await;
    let positions = vec![(Class::Signal, Seq::ZERO)];
    let options = JoinOptions { positions, send_only: false };
    let room = ann.join_with("maths", options).await.unwrap();
    for n in 0..12 {
        assert_eq!(message(&mut events).await.payload, bytes(&n.to_string()));
    }
    assert_eq!(room.position(Class::Signal), Seq::new(1, 12));
}

#[tokio::test]
async fn messages_to_users_reach_their_inbox() {
    let server = Server::start(Listen::Both);
    let (ann, _to_ann) = connect(&server, "ann", TransportChoice::Quic).await;
    let (bob, mut to_bob) = connect(&server, "bob", TransportChoice::Tcp).await;
    let from_ann = ann.im().await.unwrap();
    let at_bob = bob.im().await.unwrap();
    for n in 0..3 {
        from_ann.send_to("bob", bytes(&n.to_string())).await.unwrap();
    }
    for n in 0..3 {
        let message = message(&mut to_bob).await;
        assert_eq!((&*message.room, message.session), ("@me", at_bob.session()));
        assert_ne!(message.session, SessionId::CHAT);
        assert_eq!(message.payload, bytes(&n.to_string()));
    }
    at_bob.mark_read(Seq::new(1, 3)).await.unwrap();
    assert_eq!(message(&mut to_bob).await.key.as_str(), "read");
}

#[tokio::test]
async fn a_refused_join_says_why() {
    let server = Server::start(Listen::Both);
    let (ann, _events) = connect(&server, "ann", TransportChoice::Quic).await;
    let error = ann.join("forbidden").await.unwrap_err();
    assert!(matches!(error, RequestError::Refused { code: ErrorCode::Forbidden, .. }));
    assert!(!error.may_retry());
}

#[tokio::test]
async fn sessions_of_other_types_carry_frames_and_are_opened_again() {
    let server = Server::start(Listen::Both);
    let (ann, mut events) = connect(&server, "ann", TransportChoice::Quic).await;
    let error = ann.open("none", Vec::new()).await.unwrap_err();
    assert!(matches!(error, RequestError::SessionClosed { code: CloseCode::NoRoute, .. }));
    let session = ann.open("echo", vec![("room".into(), "1".into())]).await.unwrap();
    let frame = RawFrame { kind: 0x80, body: bytes("raw") };
    session.send(Class::Binary, frame.clone()).await.unwrap();
    let back =
        event(&mut events, |e| if let Event::Frame { frame, .. } = e { Some(frame) } else { None });
    assert_eq!(back.await, frame);
    server.close_all(CloseCode::Internal);
    let opened =
        |e| matches!(e, Event::SessionOpened { session: s } if s == session.id()).then_some(());
    event(&mut events, opened).await;
    session.send(Class::Chat, frame.clone()).await.unwrap();
    let back =
        event(&mut events, |e| if let Event::Frame { class, .. } = e { Some(class) } else { None });
    assert_eq!(back.await, Class::Chat);
    session.close().await;
}

#[tokio::test]
async fn rooms_of_a_type_of_ones_own_work_as_those_of_chat_and_are_joined_again() {
    let server = Server::start(Listen::Both);
    let (ann, mut events) = connect(&server, "ann", TransportChoice::Tcp).await;
    let quizzes = ann.rooms("quiz", Vec::new()).await.unwrap();
    assert_ne!(quizzes.session(), SessionId::CHAT);
    let room = quizzes.join("maths").await.unwrap();
    room.send_signal(bytes("one")).await.unwrap();
    let first = message(&mut events).await;
    assert_eq!((first.session, &*first.room), (quizzes.session(), "maths"));
    let frame = RawFrame { kind: 0x80, body: bytes("own") };
    quizzes.send(Class::Signal, frame.clone()).await.unwrap();
    let back =
        event(&mut events, |e| if let Event::Frame { frame, .. } = e { Some(frame) } else { None });
    assert_eq!(back.await, frame);

    ann.reconnect();
    room.send_signal(bytes("two")).await.unwrap();
    assert_eq!(message(&mut events).await.payload, bytes("two"));
    quizzes.close().await;
    assert!(quizzes.join("physics").await.is_err());
}

#[tokio::test]
async fn an_app_may_ask_for_a_new_connection() {
    let server = Server::start(Listen::Both);
    let (ann, mut events) = connect(&server, "ann", TransportChoice::Quic).await;
    ann.reconnect();
    event(&mut events, |e| matches!(e, Event::Reconnected { .. }).then_some(())).await;
    assert_eq!(server.logins(), 2);
    assert!(ann.ping().await.is_ok());
}

#[tokio::test]
async fn many_clients_share_one_socket_and_keep_apart() {
    let server = Server::start(Listen::Both);
    let connector = Connector::new(&server.config("x").trust).unwrap();
    let mut clients = Vec::new();
    for n in 0..20 {
        let mut config = server.config(&format!("user{n}"));
        config.transport = TransportChoice::Quic;
        let (client, events) = Client::connect_through(&connector, config).await.unwrap();
        let room = client.join("maths").await.unwrap();
        clients.push((room, events));
    }
    clients[0].0.send_chat_nowait(bytes("all")).unwrap();
    for (_, events) in &mut clients {
        assert_eq!(message(events).await.payload, bytes("all"));
    }
}

#[tokio::test]
async fn a_client_that_only_sends_needs_no_reader() {
    let server = Server::start(Listen::Both);
    let (ann, events) = connect(&server, "ann", TransportChoice::Tcp).await;
    drop(events);
    let room = ann.join("maths").await.unwrap();
    for _ in 0..100 {
        room.send_signal(Bytes::from(vec![0; 4096])).await.unwrap();
    }
}

#[tokio::test]
async fn many_rooms_are_joined_in_one_call_and_each_has_an_answer_of_its_own() {
    for transport in [TransportChoice::Quic, TransportChoice::Tcp] {
        let server = Server::start(Listen::Both);
        let (ann, mut to_ann) = connect(&server, "ann", transport).await;
        let mut names: Vec<String> = (0..300).map(|n| format!("room-{n}")).collect();
        names[100] = String::new();
        names[200] = "room-7".to_owned();
        let rooms = ann.join_all(names.clone()).await;
        assert_eq!(rooms.len(), 300);
        for (name, room) in names.iter().zip(&rooms) {
            match room {
                Ok(room) => assert_eq!(*room.name(), **name),
                Err(error) => assert_eq!((&**name, error), ("", &RequestError::BadName)),
            }
        }
        server.publish("room-299", Class::Signal, bytes("hello"));
        assert_eq!(&*message(&mut to_ann).await.room, "room-299");
        assert!(ann.join_all(Vec::new()).await.is_empty());
        ann.close().await;
        let after = ann.join_all(vec!["room-0".to_owned(), "new".to_owned()]).await;
        assert!(after.iter().all(Result::is_err), "{after:?}");
    }
}
