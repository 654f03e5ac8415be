//! What goes through the codec comes out the same, however it is cut.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use bytes::{Bytes, BytesMut};
use common::{encoded, examples, hex, name, strategies};
use edgeway_proto::{
    Class, DecodeError, Frame, FrameBuffer, Lane, RawFrame, Text,
    frame::{self, Close, Credit, Hello, Join, LaneStart, Login, Open, Opened, Ping, Presence},
    limits,
    record::{self, RecordBuffer},
};
use proptest::{collection::vec, prelude::*, strategy::ValueTree, test_runner::TestRunner};

fn parsed(bytes: Bytes) -> Result<Frame, DecodeError> {
    let mut input = bytes;
    let raw = frame::split(&mut input)?.expect("a whole frame");
    assert!(input.is_empty());
    raw.parse()
}

/// Takes out whatever is whole.
fn drain(buffer: &mut FrameBuffer, frames: &mut Vec<RawFrame>) {
    while let Some(frame) = buffer.next_frame().unwrap() {
        frames.push(frame);
    }
}

/// Cuts `stream` into chunks of the given sizes, over and over.
fn chunks(mut stream: Bytes, sizes: &[usize]) -> Vec<Bytes> {
    let mut out = Vec::new();
    for size in sizes.iter().cycle() {
        if stream.is_empty() {
            break;
        }
        out.push(stream.split_to((*size).min(stream.len())));
    }
    out
}

#[test]
fn one_example_of_every_frame_as_bytes() {
    let lines: Vec<_> =
        examples().iter().map(|f| format!("{:12} {}", name(f), hex(&encoded(f)))).collect();
    assert_eq!(lines.len(), Frame::KINDS.len(), "an example of each kind");
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn the_property_tests_make_every_kind_of_frame() {
    let mut runner = TestRunner::deterministic();
    let kinds: Vec<u8> = strategies::each_kind()
        .iter()
        .map(|s| encoded(&s.new_tree(&mut runner).unwrap().current())[0])
        .collect();
    let all: Vec<u8> = Frame::KINDS.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, all);
}

proptest! {
    #[test]
    fn every_frame_comes_back_as_it_was(frame in strategies::frame()) {
        prop_assert_eq!(parsed(encoded(&frame)).unwrap(), frame);
    }

    #[test]
    fn bytes_appended_to_the_fields_are_ignored(frame in strategies::frame(), more in vec(any::<u8>(), 1..20)) {
        // Frames that end in `rest` take the bytes as theirs; nothing can be appended to those.
        let whole = encoded(&frame);
        let (header, _) = frame::measure(&whole).unwrap().unwrap();
        let longer = Bytes::from([&whole[header..], &more].concat());
        match frame {
            Frame::Joined(_) | Frame::Send(_) | Frame::Deliver(_) | Frame::Page(_) => {}
            frame => prop_assert_eq!(Frame::parse(whole[0], longer).unwrap(), frame),
        }
    }

    #[test]
    fn a_body_cut_short_is_refused_and_not_guessed(frame in strategies::frame(), cut in any::<prop::sample::Index>()) {
        let whole = encoded(&frame);
        let (header, body) = frame::measure(&whole).unwrap().unwrap();
        prop_assume!(body > 0);
        let short = whole.slice(header..header + cut.index(body));
        match Frame::parse(whole[0], short) {
            Err(DecodeError::Truncated { .. }) => {}
            // What is left of a frame that ends in `rest` may be a shorter one.
            Ok(Frame::Joined(_) | Frame::Send(_) | Frame::Deliver(_) | Frame::Page(_)) => {}
            other => prop_assert!(false, "{other:?}"),
        }
    }

    #[test]
    fn frames_cut_anywhere_come_out_the_same(
        frames in vec(strategies::frame(), 1..12),
        sizes in vec(prop_oneof![1..10usize, 1..70_000usize], 1..20),
    ) {
        let mut stream = BytesMut::new();
        frames.iter().for_each(|f| f.encode(&mut stream));
        let mut buffer = FrameBuffer::default();
        let mut got = Vec::new();
        for chunk in chunks(stream.freeze(), &sizes) {
            buffer.push(chunk);
            drain(&mut buffer, &mut got);
        }
        prop_assert!(!buffer.mid_frame());
        prop_assert_eq!(got.iter().map(|f| f.whole.clone()).collect::<Vec<_>>(),
                        frames.iter().map(encoded).collect::<Vec<_>>());
        prop_assert_eq!(got.iter().map(|f| f.parse().unwrap()).collect::<Vec<_>>(), frames);
    }

    #[test]
    fn records_cut_anywhere_come_out_the_same(
        records in vec((0..=63u8, strategies::class(), vec(any::<u8>(), 0..300)), 1..20),
        sizes in vec(1..600usize, 1..20),
        keep in any::<bool>(),
    ) {
        let records: Vec<(Lane, Bytes)> = records
            .into_iter()
            .map(|(session, class, content)| {
                let lane = if session == 0 { Lane::CONTROL } else { Lane::new(session, class) };
                (lane, Bytes::from(content))
            })
            .collect();
        let mut stream = BytesMut::new();
        for (lane, content) in &records {
            record::put_header(&mut stream, *lane, content.len());
            stream.extend_from_slice(content);
        }
        let mut buffer = RecordBuffer::default();
        let mut got = Vec::new();
        for chunk in chunks(stream.freeze(), &sizes) {
            if keep { buffer.push_chunk(chunk) } else { buffer.push(&chunk) }
            while let Some(record) = buffer.next_record().unwrap() {
                got.push(record);
            }
        }
        prop_assert!(!buffer.mid_record());
        prop_assert_eq!(got, records);
    }
}

#[test]
fn frames_pushed_before_the_earlier_ones_were_taken_keep_their_order() {
    let mut buffer = FrameBuffer::default();
    for token in 0..50 {
        buffer.push(Ping { token }.to_bytes());
    }
    let mut got = Vec::new();
    drain(&mut buffer, &mut got);
    let expected: Vec<Frame> = (0..50).map(|token| Ping { token }.into()).collect();
    assert_eq!(got.iter().map(|f| f.parse().unwrap()).collect::<Vec<_>>(), expected);
}

#[test]
fn frames_within_a_chunk_are_not_copied() {
    let mut stream = BytesMut::new();
    (0..100).for_each(|token| Ping { token }.encode(&mut stream));
    let stream = stream.freeze();
    let mut buffer = FrameBuffer::default();
    buffer.push(stream.clone());
    let mut got = Vec::new();
    drain(&mut buffer, &mut got);
    let range = stream.as_ptr_range();
    assert_eq!(got.len(), 100);
    assert!(got.iter().all(|f| range.contains(&f.body.as_ptr())));
}

/// Copying what is held with each chunk would move 34 GB here, and be noticed.
#[test]
fn large_frames_in_chunks_of_one_byte_are_put_together() {
    let mut frame = BytesMut::from(&[0xc0, 0x80, 0x01, 0x00, 0x00][..]);
    frame.resize(5 + limits::FRAME_BODY_BYTES, 7);
    let frame = frame.freeze();
    let mut buffer = FrameBuffer::default();
    for _ in 0..16 {
        for at in 0..frame.len() {
            assert_eq!(buffer.next_frame().unwrap(), None);
            buffer.push(frame.slice(at..=at));
        }
        assert_eq!(buffer.next_frame().unwrap().unwrap().whole, frame);
    }
}

#[test]
fn a_frame_or_record_announced_above_the_limit_is_refused_before_it_is_there() {
    let mut buffer = FrameBuffer::default();
    buffer.push(Bytes::from_static(&[0x47, 0x80, 0x01, 0x00, 0x01]));
    let too_large = DecodeError::TooLarge { what: "frame", len: 65537, max: 65536 };
    assert_eq!(buffer.next_frame().unwrap_err(), too_large);
    assert_eq!(buffer.next_frame().unwrap_err(), too_large, "and again when asked again");
    let mut buffer = RecordBuffer::default();
    buffer.push(&[0x04, 0x80, 0x01, 0x00, 0x11]);
    let too_large = DecodeError::TooLarge { what: "record", len: 65553, max: 65552 };
    assert_eq!(buffer.next_record().unwrap_err(), too_large);
}

#[test]
fn a_byte_that_names_no_lane_is_refused_at_once() {
    for byte in [0x01, 0x02, 0x03, 0x07, 0xff] {
        let mut buffer = RecordBuffer::default();
        buffer.push(&[byte]);
        assert!(matches!(buffer.next_record(), Err(DecodeError::Invalid { field: "lane", .. })));
    }
}

#[test]
fn the_largest_frame_fits_a_record() {
    const { assert!(1 + 4 + limits::FRAME_BODY_BYTES <= limits::RECORD_BYTES) };
}

#[test]
fn fields_beyond_their_limits_are_refused_with_their_name() {
    fn check(frame: impl Into<Frame>, frame_name: &str, field_name: &str) {
        let frame = frame.into();
        match parsed(encoded(&frame)) {
            Err(DecodeError::Invalid { frame, field, .. }) => {
                assert_eq!((frame, field), (frame_name, field_name));
            }
            other => panic!("{frame_name}.{field_name}: {other:?}"),
        }
    }
    let long = |n: usize| Text::from("x".repeat(n));
    check(Join { room: long(129), ..Join::default() }, "Join", "room");
    check(Close { reason: long(257), ..Close::default() }, "Close", "reason");
    check(Login { secret: vec![0; 8193].into(), ..Login::default() }, "Login", "secret");
    check(Login { device: long(129), ..Login::default() }, "Login", "device");
    check(Hello { params: vec![(9, 9); 65], ..Hello::default() }, "Hello", "params");
    let headers = vec![(Text::default(), Text::default()); 65];
    check(Open { session: 1, headers, ..Open::default() }, "Open", "headers");
    check(Open { session: 64, ..Open::default() }, "Open", "session");
    check(Opened { session: 0 }, "Opened", "session");
    check(Credit { session: 0, class: Class::Signal, total: 1 }, "Credit", "session");
    check(LaneStart { session: 1, class: Class::Signal }, "LaneStart", "class");
    let positions = vec![Default::default(); 4];
    check(Join { positions, ..Join::default() }, "Join", "positions");
    check(Presence { joined: vec![long(129)], ..Presence::default() }, "Presence", "joined");
    let left = vec![Text::default(); 1025];
    check(Presence { left, ..Presence::default() }, "Presence", "left");
}
