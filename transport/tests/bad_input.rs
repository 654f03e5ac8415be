//! What a peer gets that breaks the carriage: the right code, and only its own connection down.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::net::SocketAddr;

use bytes::{BufMut, Bytes, BytesMut};
use common::{ANY, Peer, Seen, Via, connect, raw_pair, within};
use edgeway_proto::{
    Class, CloseCode, Lane,
    frame::{Close, Hello, LaneStart, Open, Ping},
    limits::RECORD_BYTES,
    record, varint,
};
use edgeway_transport::{End, TcpListener};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

fn hello() -> Bytes {
    Hello { version_min: 1, version_max: 1, ..Hello::default() }.to_bytes()
}

fn open(session: u64) -> Bytes {
    Open { session, kind: "chat".into(), headers: vec![] }.to_bytes()
}

fn record(lane: u8, content: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    out.put_u8(lane);
    varint::put(&mut out, content.len() as u64);
    out.put_slice(content);
    out.to_vec()
}

async fn tcp_pair() -> (TcpStream, Peer) {
    let listener = TcpListener::bind(ANY, None, true).unwrap();
    let addr: SocketAddr = listener.local_addr().unwrap();
    let (client, server) =
        within(async { tokio::join!(TcpStream::connect(addr), listener.accept()) }).await;
    (client.unwrap(), Peer::new(server.unwrap().handshake().await.unwrap()))
}

/// Writes bytes over plain TCP; how the server's end saw the connection end.
async fn end_of(bytes: &[u8]) -> End {
    let (mut client, server) = tcp_pair().await;
    client.write_all(bytes).await.unwrap();
    server.end().await
}

fn code(end: &End) -> CloseCode {
    match end {
        End::Stopped(stop) => stop.code,
        other => panic!("not stopped: {other:?}"),
    }
}

#[tokio::test]
async fn the_first_byte_says_whether_there_are_records() {
    let (mut client, mut server) = tcp_pair().await;
    client.write_all(&record(0, &hello())).await.unwrap();
    assert_eq!(server.frame().await, (Lane::CONTROL, hello()));
    let (mut client, mut server) = tcp_pair().await;
    client.write_all(&hello()).await.unwrap();
    assert_eq!(server.frame().await, (Lane::CONTROL, hello()));
    // One byte at a time, too.
    let (mut client, mut server) = tcp_pair().await;
    for byte in record(0, &hello()) {
        client.write_all(&[byte]).await.unwrap();
        client.flush().await.unwrap();
    }
    assert_eq!(server.frame().await, (Lane::CONTROL, hello()));
}

#[tokio::test]
async fn any_other_first_byte_is_a_protocol_error_and_the_reason_says_what_was_expected() {
    for first in [b'G', 0x02, 0x16, 0x41, 0xff] {
        let end = end_of(&[first, 0, 0]).await;
        assert_eq!(code(&end), CloseCode::Protocol);
        let End::Stopped(stop) = end else { unreachable!() };
        assert!(stop.reason.contains("0x00"), "{}", stop.reason);
    }
}

#[tokio::test]
async fn records_that_break_the_rules_end_the_connection_with_the_right_code() {
    let begin = record(0, &hello());
    let mut too_large = vec![4];
    let mut len = BytesMut::new();
    varint::put(&mut len, RECORD_BYTES as u64 + 1);
    too_large.extend_from_slice(&len);
    let mut frame_too_large = vec![0x41];
    let mut len = BytesMut::new();
    varint::put(&mut len, 65_537);
    frame_too_large.extend_from_slice(&len);
    let ping = Ping { token: 1 }.to_bytes();
    let cases: [(&str, Vec<u8>, CloseCode); 6] = [
        ("lane byte 1", record(1, &ping), CloseCode::Protocol),
        ("class 3", record(7, &ping), CloseCode::Protocol),
        ("record above the limit", too_large, CloseCode::TooLarge),
        ("frame above the limit", record(4, &frame_too_large), CloseCode::TooLarge),
        ("frame that spans records", record(0, &ping[..ping.len() - 1]), CloseCode::Protocol),
        ("a header that is cut", record(0, &ping[..1]), CloseCode::Protocol),
    ];
    for (what, bytes, expected) in cases {
        let mut all = begin.clone();
        all.extend_from_slice(&bytes);
        assert_eq!(code(&end_of(&all).await), expected, "{what}");
    }
}

#[tokio::test]
async fn an_empty_record_is_ignored() {
    let (mut client, mut server) = tcp_pair().await;
    client.write_all(&record(0, &[])).await.unwrap();
    client.write_all(&record(8, &[])).await.unwrap();
    client.write_all(&record(0, &hello())).await.unwrap();
    assert_eq!(server.frame().await, (Lane::CONTROL, hello()));
}

#[tokio::test]
async fn a_frame_above_the_limit_ends_the_connection_before_its_body_has_come() {
    let mut header = BytesMut::from(&[0x45][..]);
    varint::put(&mut header, 1 << 40);
    // Legacy.
    let mut bytes = hello().to_vec();
    bytes.extend_from_slice(&header);
    assert_eq!(code(&end_of(&bytes).await), CloseCode::TooLarge);
    // QUIC.
    let (client, mut server, _listener) = raw_pair().await;
    let (mut control, _recv) = client.open_bi().await.unwrap();
    control.write_all(&hello()).await.unwrap();
    server.frame().await;
    control.write_all(&header).await.unwrap();
    assert_eq!(code(&server.end().await), CloseCode::TooLarge);
}

#[tokio::test]
async fn a_legacy_client_has_session_1_and_no_other() {
    let mut bytes = hello().to_vec();
    bytes.extend_from_slice(&open(2));
    assert_eq!(code(&end_of(&bytes).await), CloseCode::TooManySessions);
}

#[tokio::test]
async fn a_close_frame_ends_a_connection_only_from_the_control_lane() {
    let close = Close { code: 1, retry_after_ms: 7, reason: "later".into() }.to_bytes();
    let mut bytes = record(0, &hello());
    bytes.extend_from_slice(&record(0, &close));
    let End::Peer { code, retry_after_ms, .. } = end_of(&bytes).await else { panic!("no close") };
    assert_eq!((code, retry_after_ms), (CloseCode::GoingAway, 7));
    // On a Session's lane it is a frame like any other, for the sink to refuse.
    let (mut client, mut server) = tcp_pair().await;
    client.write_all(&record(0, &hello())).await.unwrap();
    client.write_all(&record(4, &close)).await.unwrap();
    server.frame().await;
    assert_eq!(server.frame().await, (Lane::new(1, Class::Signal), close));
}

#[tokio::test]
async fn a_stream_whose_first_frame_is_not_open_or_lane_start_is_a_protocol_error() {
    for (bidirectional, first) in [
        (true, Ping { token: 1 }.to_bytes()),
        (true, LaneStart { session: 1, class: Class::Chat }.to_bytes()),
        (false, open(1)),
        (false, Ping { token: 1 }.to_bytes()),
        // A Session numbered 64, and a lane of class signal.
        (true, Bytes::from_static(&[0x10, 0x40, 0x06, 0x40, 64, 0x02, b'i', b'm', 0x00])),
        (false, Bytes::from_static(&[0x13, 0x40, 0x02, 0x01, 0x00])),
        // A body that ends inside a field.
        (true, Bytes::from_static(&[0x10, 0x40, 0x02, 0x01, 0x09])),
        (false, Bytes::from_static(&[0x13, 0x40, 0x00])),
    ] {
        let (client, mut server, _listener) = raw_pair().await;
        let (mut control, _recv) = client.open_bi().await.unwrap();
        control.write_all(&hello()).await.unwrap();
        server.frame().await;
        let mut stream = if bidirectional {
            client.open_bi().await.unwrap().0
        } else {
            client.open_uni().await.unwrap()
        };
        stream.write_all(&first).await.unwrap();
        assert_eq!(code(&server.end().await), CloseCode::Protocol, "{first:?}");
    }
}

#[tokio::test]
async fn a_stream_that_ends_inside_a_frame_is_a_protocol_error() {
    let (client, mut server, _listener) = raw_pair().await;
    let (mut control, _recv) = client.open_bi().await.unwrap();
    control.write_all(&hello()).await.unwrap();
    server.frame().await;
    let (mut session, _recv) = client.open_bi().await.unwrap();
    session.write_all(&open(1)).await.unwrap();
    server.frame().await;
    session.write_all(&[0x45, 0x40, 0x20, 1, 2]).await.unwrap();
    session.finish().unwrap();
    assert_eq!(code(&server.end().await), CloseCode::Protocol);
}

#[tokio::test]
async fn a_session_number_or_lane_used_again_is_refused_and_the_first_one_goes_on() {
    let (client, mut server, _listener) = raw_pair().await;
    let (mut control, _recv) = client.open_bi().await.unwrap();
    control.write_all(&hello()).await.unwrap();
    server.frame().await;
    let in_use = quinn::VarInt::from_u64(CloseCode::SessionInUse.code()).unwrap();
    let (mut first, _recv1) = client.open_bi().await.unwrap();
    first.write_all(&open(1)).await.unwrap();
    server.frame().await;

    let (mut again, mut recv) = client.open_bi().await.unwrap();
    again.write_all(&open(1)).await.unwrap();
    assert_eq!(within(again.stopped()).await.unwrap(), Some(in_use));
    let reset = within(recv.read(&mut [0; 8])).await.unwrap_err();
    assert_eq!(reset, quinn::ReadError::Reset(in_use));

    let start = LaneStart { session: 1, class: Class::Chat }.to_bytes();
    let mut lane = client.open_uni().await.unwrap();
    lane.write_all(&start).await.unwrap();
    // Different streams have no order: this one is known when its frame has come.
    lane.write_all(&Ping { token: 5 }.to_bytes()).await.unwrap();
    assert_eq!(server.frame().await.0, Lane::new(1, Class::Chat));
    let mut twice = client.open_uni().await.unwrap();
    twice.write_all(&start).await.unwrap();
    assert_eq!(within(twice.stopped()).await.unwrap(), Some(in_use));

    first.write_all(&Ping { token: 1 }.to_bytes()).await.unwrap();
    assert_eq!(server.frame().await.0, Lane::new(1, Class::Signal));

    // Also after the Session is over.
    first.finish().unwrap();
    assert_eq!(server.next().await, Seen::Ended(Lane::new(1, Class::Signal)));
    let (mut again, _recv) = client.open_bi().await.unwrap();
    again.write_all(&open(1)).await.unwrap();
    assert_eq!(within(again.stopped()).await.unwrap(), Some(in_use));
}

/// Waits for the real time-out of 10 s, once for all cases.
#[tokio::test]
async fn streams_that_stay_silent_are_refused_and_the_connection_goes_on() {
    let (client, mut server, _listener) = raw_pair().await;
    let (mut control, _recv) = client.open_bi().await.unwrap();
    control.write_all(&hello()).await.unwrap();
    server.frame().await;
    let wire = |code: CloseCode| quinn::VarInt::from_u64(code.code()).unwrap();
    let (timeout, not_open) = (wire(CloseCode::OpenTimeout), wire(CloseCode::NotOpen));

    let (mut session, mut recv) = client.open_bi().await.unwrap();
    session.write_all(&open(1)[..1]).await.unwrap();
    let mut lane = client.open_uni().await.unwrap();
    lane.write_all(&LaneStart { session: 1, class: Class::Chat }.to_bytes()[..1]).await.unwrap();
    // Says whose it is, but that Session never opens.
    let mut orphan = client.open_uni().await.unwrap();
    orphan.write_all(&LaneStart { session: 9, class: Class::Chat }.to_bytes()).await.unwrap();

    let (a, b, c, d) = within(async {
        let mut buf = [0; 8];
        tokio::join!(session.stopped(), lane.stopped(), orphan.stopped(), recv.read(&mut buf))
    })
    .await;
    assert_eq!((a.unwrap(), b.unwrap()), (Some(timeout), Some(timeout)));
    assert_eq!(c.unwrap(), Some(not_open));
    assert_eq!(d.unwrap_err(), quinn::ReadError::Reset(timeout));

    control.write_all(&Ping { token: 1 }.to_bytes()).await.unwrap();
    assert_eq!(server.frame().await.1, Ping { token: 1 }.to_bytes());
    let (mut session, _recv) = client.open_bi().await.unwrap();
    session.write_all(&open(1)).await.unwrap();
    assert_eq!(server.frame().await, (Lane::new(1, Class::Signal), open(1)));
}

#[tokio::test]
async fn the_control_stream_s_end_is_told() {
    let (client, mut server, _listener) = raw_pair().await;
    let (mut control, _recv) = client.open_bi().await.unwrap();
    control.write_all(&hello()).await.unwrap();
    control.finish().unwrap();
    server.frame().await;
    assert_eq!(server.next().await, Seen::Ended(Lane::CONTROL));
}

#[tokio::test]
async fn what_the_sink_refuses_ends_the_run_with_the_sink_s_code() {
    struct Refuse;
    impl edgeway_transport::Sink for Refuse {
        fn frame(
            &mut self,
            _: Lane,
            _: edgeway_proto::RawFrame,
        ) -> Result<(), edgeway_transport::Stop> {
            Err(edgeway_transport::Stop::new(CloseCode::CreditExceeded, "too much"))
        }
        fn flush(&mut self) {}
        fn ended(&mut self, _: Lane) {}
    }
    for via in Via::ALL {
        let pair = connect(via).await;
        let (client, mut server) = (Peer::new(pair.client), pair.server);
        let mut client = client;
        client.send(Lane::CONTROL, hello()).await;
        let end = within(server.receiver.run(&mut Refuse)).await;
        assert_eq!(code(&end), CloseCode::CreditExceeded, "{via:?}");
        let close = async {
            server.sender.close(CloseCode::CreditExceeded, "too much", 0).await;
            server.receiver.drain().await;
        };
        let (end, ()) = within(async { tokio::join!(client.end(), close) }).await;
        assert!(
            matches!(end, End::Peer { code: CloseCode::CreditExceeded, .. }),
            "{via:?}: {end:?}"
        );
    }
}

#[tokio::test]
async fn a_half_closed_tcp_connection_is_lost_for_the_reader() {
    let (mut client, mut server) = tcp_pair().await;
    client.write_all(&record(0, &hello())).await.unwrap();
    server.frame().await;
    client.shutdown().await.unwrap();
    // The other direction still works until this end is done with it.
    server.send(Lane::CONTROL, Ping { token: 1 }.to_bytes()).await;
    let mut header = BytesMut::new();
    record::put_header(&mut header, Lane::CONTROL, Ping { token: 1 }.to_bytes().len());
    let mut buf = vec![0; header.len()];
    within(client.read_exact(&mut buf)).await.unwrap();
    assert_eq!(buf, header);
    assert!(matches!(server.end().await, End::Lost(_)));
}
