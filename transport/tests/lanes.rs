//! Lanes between two ends that keep to the protocol.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use bytes::{Bytes, BytesMut};
use common::{Peer, Seen, Via, connect, raw_pair, within};
use edgeway_proto::{
    Class, CloseCode, Lane, Seq,
    frame::{Behind, CloseSession, Deliver, Gap, Hello, LaneStart, Login, Open, Ping, Pong, Send},
};
use edgeway_transport::{Dialer, End, Settings, TcpListener, Transport};

fn hello() -> Bytes {
    Hello { version_min: 1, version_max: 1, ..Hello::default() }.to_bytes()
}

fn open(session: u8) -> Bytes {
    Open { session: u64::from(session), kind: "chat".into(), headers: vec![] }.to_bytes()
}

fn send(class: Class, id: u64, size: usize) -> Bytes {
    let payload = Bytes::from(vec![7; size]).into();
    Send { group: 1, class, id, payload, ..Send::default() }.to_bytes()
}

fn deliver(class: Class, counter: u64, size: usize) -> Bytes {
    let payload = Bytes::from(vec![9; size]).into();
    let seq = Seq::new(1, counter);
    Deliver { group: 1, class, seq, payload, ..Deliver::default() }.to_bytes()
}

async fn peers(via: Via) -> (Peer, Peer, Dialer) {
    let pair = connect(via).await;
    let transport = if via == Via::Quic { Transport::Quic } else { Transport::Tcp };
    assert_eq!((pair.client.transport, pair.server.transport), (transport, transport));
    let (mut client, mut server) = (Peer::new(pair.client), Peer::new(pair.server));
    client.send(Lane::CONTROL, hello()).await;
    assert_eq!(server.frame().await, (Lane::CONTROL, hello()));
    (client, server, pair.dialer)
}

#[tokio::test]
async fn frames_of_every_lane_arrive_whole_and_in_the_lane_s_order_in_both_directions() {
    for via in Via::ALL {
        let (mut client, mut server, _dialer) = peers(via).await;
        client.send(Lane::new(1, Class::Signal), open(1)).await;
        assert_eq!(server.frame().await, (Lane::new(1, Class::Signal), open(1)));
        // Sizes from nothing to the largest payload, across every way of writing a length.
        let sizes = [0, 1, 40, 70, 3000, 20_000, 61_000];
        for up in [true, false] {
            let (from, to) =
                if up { (&mut client, &mut server) } else { (&mut server, &mut client) };
            let make = if up { send } else { deliver };
            for n in 0..60 {
                for class in Class::ALL {
                    let frame = make(class, n, sizes[usize::try_from(n).unwrap() % sizes.len()]);
                    from.send(Lane::new(1, class), frame).await;
                }
                from.send(Lane::CONTROL, Ping { token: n }.to_bytes()).await;
            }
            let mut next = [0; 4];
            for _ in 0..240 {
                let (lane, frame) = to.frame().await;
                let at = if lane.is_control() { 3 } else { lane.class.index() };
                let n = next[at];
                let expected = if lane.is_control() {
                    Ping { token: n }.to_bytes()
                } else {
                    make(lane.class, n, sizes[usize::try_from(n).unwrap() % sizes.len()])
                };
                assert!(frame == expected, "{via:?}: {lane:?} frame {n}");
                next[at] += 1;
            }
            assert_eq!(next, [60; 4], "{via:?}");
        }
    }
}

#[tokio::test]
async fn several_frames_may_be_written_at_once() {
    for via in Via::ALL {
        let (mut client, mut server, _dialer) = peers(via).await;
        let mut two = BytesMut::new();
        Ping { token: 1 }.encode(&mut two);
        Ping { token: 2 }.encode(&mut two);
        let mut writes = [two.freeze(), Ping { token: 3 }.to_bytes()];
        client.sender.send(Lane::CONTROL, &mut writes).await.unwrap();
        client.sender.flush().await.unwrap();
        for token in 1..=3 {
            assert_eq!(server.frame().await.1, Ping { token }.to_bytes(), "{via:?}");
        }
    }
}

#[tokio::test]
async fn what_goes_down_before_the_client_has_read_anything_arrives_too() {
    for via in Via::ALL {
        let pair = connect(via).await;
        let mut server = Peer::new(pair.server);
        let mut client = pair.client;
        for (lane, frame) in [
            (Lane::CONTROL, hello()),
            (Lane::new(1, Class::Signal), open(1)),
            (Lane::new(1, Class::Chat), send(Class::Chat, 1, 5)),
        ] {
            client.sender.send(lane, &mut [frame]).await.unwrap();
        }
        client.sender.flush().await.unwrap();
        for _ in 0..3 {
            server.frame().await;
        }
        server.send(Lane::CONTROL, Pong { token: 5 }.to_bytes()).await;
        for class in Class::ALL {
            server.send(Lane::new(1, class), deliver(class, 1, 100)).await;
        }
        let mut client = Peer::new(client);
        let mut lanes = Vec::new();
        for _ in 0..4 {
            lanes.push(client.frame().await.0);
        }
        lanes.sort();
        let expected = [
            Lane::CONTROL,
            Lane::new(1, Class::Signal),
            Lane::new(1, Class::Binary),
            Lane::new(1, Class::Chat),
        ];
        assert_eq!(lanes, expected, "{via:?}");
    }
}

#[tokio::test]
async fn sessions_have_lanes_of_their_own() {
    for via in Via::LANES {
        let (mut client, mut server, _dialer) = peers(via).await;
        for session in 1..=5 {
            client.send(Lane::new(session, Class::Signal), open(session)).await;
            client
                .send(Lane::new(session, Class::Chat), send(Class::Chat, session.into(), 1))
                .await;
        }
        let mut seen = Vec::new();
        for _ in 0..10 {
            seen.push(server.frame().await);
        }
        for session in 1..=5 {
            let chat = send(Class::Chat, session.into(), 1);
            assert!(seen.contains(&(Lane::new(session, Class::Signal), open(session))), "{via:?}");
            assert!(seen.contains(&(Lane::new(session, Class::Chat), chat)), "{via:?}");
        }
        // And downwards, in any order of Sessions.
        for session in [4, 1, 5, 2, 3] {
            server
                .send(Lane::new(session, Class::Signal), Pong { token: session.into() }.to_bytes())
                .await;
        }
        for _ in 0..5 {
            let (lane, frame) = client.frame().await;
            assert_eq!(frame, Pong { token: lane.session.into() }.to_bytes(), "{via:?}");
        }
    }
}

#[tokio::test]
async fn a_legacy_client_s_frames_get_the_lane_that_their_kind_and_class_say() {
    let (mut client, mut server, _dialer) = peers(Via::Legacy).await;
    let signal = Lane::new(1, Class::Signal);
    let cases = [
        (
            Lane::CONTROL,
            Login { user: "ada".into(), device: "d".into(), ..Login::default() }.to_bytes(),
        ),
        (signal, open(1)),
        (Lane::new(1, Class::Binary), send(Class::Binary, 1, 9)),
        (Lane::new(1, Class::Chat), send(Class::Chat, 1, 9)),
        (signal, send(Class::Signal, 1, 9)),
        (signal, CloseSession { session: 1, ..CloseSession::default() }.to_bytes()),
    ];
    for (lane, frame) in cases {
        // Whatever lane the writer names: there are none on the wire.
        client.send(Lane::CONTROL, frame.clone()).await;
        assert_eq!(server.frame().await, (lane, frame));
    }
    let head = Seq::new(1, 3);
    for class in Class::ALL {
        for frame in [
            deliver(class, 1, 3),
            Behind { group: 700, class, head }.to_bytes(),
            Gap { group: 700, class, upto: head }.to_bytes(),
        ] {
            server.send(Lane::CONTROL, frame.clone()).await;
            assert_eq!(client.frame().await, (Lane::new(1, class), frame));
        }
    }
}

#[tokio::test]
async fn on_quic_a_stream_is_opened_when_its_lane_has_its_first_frame() {
    let (client, mut server, _listener) = raw_pair().await;
    let (mut control, _control_recv) = client.open_bi().await.unwrap();
    control.write_all(&hello()).await.unwrap();
    assert_eq!(server.frame().await.0, Lane::CONTROL);
    let (mut session, mut session_recv) = client.open_bi().await.unwrap();
    session.write_all(&open(3)).await.unwrap();
    assert_eq!(server.frame().await, (Lane::new(3, Class::Signal), open(3)));

    // Nothing has been said downwards: the server has opened no stream. What it says on the
    // signal lane comes on the Session's own stream, and chat opens one, which says whose it is.
    server.send(Lane::new(3, Class::Signal), Pong { token: 1 }.to_bytes()).await;
    let mut buf = vec![0; Pong { token: 1 }.to_bytes().len()];
    within(session_recv.read_exact(&mut buf)).await.unwrap();
    server.send(Lane::new(3, Class::Chat), deliver(Class::Chat, 1, 2)).await;
    let mut chat = within(client.accept_uni()).await.unwrap();
    assert_eq!(chat.id().index(), 0, "the first stream that the server opened");
    let start = LaneStart { session: 3, class: Class::Chat }.to_bytes();
    let mut expected = start.to_vec();
    expected.extend_from_slice(&deliver(Class::Chat, 1, 2));
    let mut got = vec![0; expected.len()];
    within(chat.read_exact(&mut got)).await.unwrap();
    assert_eq!(got, expected);
}

#[tokio::test]
async fn on_quic_a_lane_that_comes_before_its_session_waits_for_it_and_loses_nothing() {
    let (client, mut server, _listener) = raw_pair().await;
    let (mut control, _recv) = client.open_bi().await.unwrap();
    control.write_all(&hello()).await.unwrap();
    server.frame().await;
    let mut chat = client.open_uni().await.unwrap();
    chat.write_all(&LaneStart { session: 2, class: Class::Chat }.to_bytes()).await.unwrap();
    for id in 1..=3 {
        chat.write_all(&send(Class::Chat, id, 2000)).await.unwrap();
    }
    // Control goes on meanwhile, and shows that the lane has been looked at.
    for token in 0..20 {
        control.write_all(&Ping { token }.to_bytes()).await.unwrap();
        assert_eq!(server.frame().await, (Lane::CONTROL, Ping { token }.to_bytes()));
    }
    let (mut session, _recv) = client.open_bi().await.unwrap();
    session.write_all(&open(2)).await.unwrap();
    assert_eq!(server.frame().await, (Lane::new(2, Class::Signal), open(2)));
    for id in 1..=3 {
        assert_eq!(server.frame().await, (Lane::new(2, Class::Chat), send(Class::Chat, id, 2000)));
    }
}

#[tokio::test]
async fn on_quic_the_control_lane_is_the_first_stream_though_another_arrives_first() {
    let (client, mut server, _listener) = raw_pair().await;
    let (mut control, _recv) = client.open_bi().await.unwrap();
    let (mut session, _recv2) = client.open_bi().await.unwrap();
    session.write_all(&open(1)).await.unwrap();
    assert_eq!(server.frame().await, (Lane::new(1, Class::Signal), open(1)));
    control.write_all(&hello()).await.unwrap();
    assert_eq!(server.frame().await, (Lane::CONTROL, hello()));
}

#[tokio::test]
async fn the_end_of_a_session_s_stream_is_told_after_its_frames_and_the_connection_goes_on() {
    let (mut client, mut server, _dialer) = peers(Via::Quic).await;
    let signal = Lane::new(1, Class::Signal);
    client.send(signal, open(1)).await;
    client.send(signal, send(Class::Signal, 1, 50_000)).await;
    client.sender.finish(1);
    assert_eq!(server.frame().await.1, open(1));
    assert_eq!(server.frame().await.1, send(Class::Signal, 1, 50_000));
    assert_eq!(server.next().await, Seen::Ended(signal));
    // The other direction is still open.
    server.send(signal, Pong { token: 3 }.to_bytes()).await;
    assert_eq!(client.frame().await, (signal, Pong { token: 3 }.to_bytes()));
    server.sender.finish(1);
    assert_eq!(client.next().await, Seen::Ended(signal));
    client.send(Lane::CONTROL, Ping { token: 4 }.to_bytes()).await;
    assert_eq!(server.frame().await.1, Ping { token: 4 }.to_bytes());
}

#[tokio::test]
async fn a_close_reaches_the_other_end_with_code_and_reason() {
    for via in Via::ALL {
        for server_closes in [true, false] {
            let (client, server, _dialer) = peers(via).await;
            let (closing, other) = if server_closes { (server, client) } else { (client, server) };
            closing.sender.close(CloseCode::GoingAway, "the night shift", 250).await;
            let End::Peer { code, reason, retry_after_ms } = other.end().await else {
                panic!("{via:?}: no close")
            };
            assert_eq!(
                (code, reason.as_str()),
                (CloseCode::GoingAway, "the night shift"),
                "{via:?}"
            );
            assert_eq!(retry_after_ms, 250, "{via:?}");
        }
    }
}

#[tokio::test]
async fn a_reason_that_is_too_long_for_the_wire_is_cut_and_the_close_still_arrives() {
    for via in Via::ALL {
        let (client, server, _dialer) = peers(via).await;
        server.sender.close(CloseCode::Kicked, &"ü".repeat(400), 0).await;
        let End::Peer { code, reason, .. } = client.end().await else {
            panic!("{via:?}: no close")
        };
        assert_eq!(code, CloseCode::Kicked, "{via:?}");
        assert!(reason.starts_with("üüü"), "{via:?}: {reason}");
    }
}

#[tokio::test]
async fn a_close_arrives_though_the_closing_end_has_not_read_all_that_was_sent_to_it() {
    for via in Via::ALL {
        let pair = connect(via).await;
        let (client, server) = (Peer::new(pair.client), pair.server);
        let (mut client_sender, client_end) = client.halves();
        let flood = tokio::spawn(async move {
            // More than any buffer holds; ends when the connection does.
            let frame = send(Class::Signal, 1, 60_000);
            client_sender.send(Lane::CONTROL, &mut [hello()]).await.unwrap();
            while client_sender.send(Lane::CONTROL, &mut [frame.clone()]).await.is_ok()
                && client_sender.flush().await.is_ok()
            {}
        });
        let (mut receiver, mut sender) = (server.receiver, server.sender);
        // The reply of a carriage needs to know it: the first frame is read, and no more.
        let mut first = StopAtFirst;
        let end = within(receiver.run(&mut first)).await;
        assert!(matches!(end, End::Stopped(_)), "{via:?}: {end:?}");
        sender.send(Lane::CONTROL, &mut [Pong { token: 1 }.to_bytes()]).await.unwrap();
        let close = async {
            sender.close(CloseCode::SlowReader, "enough", 0).await;
            receiver.drain().await;
            std::future::pending::<()>().await;
        };
        let end = within(async {
            tokio::select! {
                end = client_end => end,
                () = close => unreachable!(),
            }
        })
        .await;
        let (end, _receiver) = end.unwrap();
        let End::Peer { code, .. } = end else { panic!("{via:?}: {end:?}") };
        assert_eq!(code, CloseCode::SlowReader, "{via:?}");
        flood.abort();
    }
}

struct StopAtFirst;

impl edgeway_transport::Sink for StopAtFirst {
    fn frame(
        &mut self,
        _: Lane,
        _: edgeway_proto::RawFrame,
    ) -> Result<(), edgeway_transport::Stop> {
        Err(edgeway_transport::Stop::new(CloseCode::SlowReader, "enough"))
    }
    fn flush(&mut self) {}
    fn ended(&mut self, _: Lane) {}
}

#[tokio::test]
async fn a_peer_that_vanishes_is_lost_not_closed() {
    for via in [Via::Tls, Via::Plain, Via::Legacy] {
        let (client, server, _dialer) = peers(via).await;
        client.vanish();
        let end = server.end().await;
        assert!(matches!(end, End::Lost(_)), "{via:?}: {end:?}");
    }
}

#[tokio::test]
async fn the_end_that_closes_learns_that_it_did() {
    let pair = connect(Via::Quic).await;
    let (client, server) = (Peer::new(pair.client), Peer::new(pair.server));
    assert_eq!(client.close(CloseCode::Normal, "bye").await, End::Local);
    assert!(matches!(server.end().await, End::Peer { code: CloseCode::Normal, .. }));
    within(pair.dialer.wait_idle()).await;
}

#[tokio::test]
async fn a_client_opens_no_more_sessions_than_the_server_permits_and_may_when_one_is_over() {
    let settings = Settings { sessions: 1, ..Settings::default() };
    let pair = common::connect_with(Via::Quic, settings).await;
    let (mut client, mut server) = (Peer::new(pair.client), Peer::new(pair.server));
    client.send(Lane::CONTROL, hello()).await;
    client.send(Lane::new(1, Class::Signal), open(1)).await;
    for _ in 0..2 {
        server.frame().await;
    }
    let second = tokio::spawn(async move {
        client.sender.finish(1);
        client.send(Lane::new(2, Class::Signal), open(2)).await;
        client
    });
    assert_eq!(server.next().await, Seen::Ended(Lane::new(1, Class::Signal)));
    assert!(!second.is_finished(), "a second Session was permitted");
    server.send(Lane::new(1, Class::Signal), Pong { token: 1 }.to_bytes()).await;
    server.sender.finish(1);
    assert_eq!(server.frame().await, (Lane::new(2, Class::Signal), open(2)));
    within(second).await.unwrap();
}

#[tokio::test]
async fn clients_without_the_authority_do_not_connect() {
    let (ours, theirs) = (common::certs(), common::certs());
    let dialer = Dialer::new(theirs.client, Settings::default());
    let tcp = TcpListener::bind(common::ANY, Some(&ours.server), true).unwrap();
    let addr = tcp.local_addr().unwrap();
    let accept = async { tcp.accept().await.unwrap().handshake().await };
    let (dialed, accepted) =
        within(async { tokio::join!(dialer.tcp(addr, "localhost"), accept) }).await;
    assert!(dialed.is_err() && accepted.is_err());
    let quic =
        edgeway_transport::QuicListener::bind(common::ANY, &ours.server, Settings::default())
            .unwrap();
    let addr = quic.local_addr().unwrap();
    let accept = async { quic.accept().await.unwrap().handshake().await };
    let (dialed, accepted) =
        within(async { tokio::join!(dialer.quic(addr, "localhost"), accept) }).await;
    assert!(dialed.is_err() && accepted.is_err());
}
