//! What the outbox promises, example by example and for all inputs.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;

use edgeway_proto::{
    Frame, RawFrame,
    frame::{CloseSession, Deliver, Error, FrameBuffer, Ping},
};
use proptest::prelude::*;

use super::*;

const BOUND: usize = 20_000;
const WINDOW: [u64; 3] = [4000, 2000, 2000];

fn policy() -> Policy {
    let mut p = Policy::new(Limits { outbox_bytes: BOUND, uplink_credit: [1000, 500, 500] });
    p.set_window(WINDOW);
    p
}

/// A policy that is never out of credit.
fn roomy(sessions: &[u8]) -> Policy {
    let mut p = Policy::new(Limits { outbox_bytes: BOUND, uplink_credit: [1000, 500, 500] });
    p.set_window([(1 << 62) - 1; 3]);
    for s in sessions {
        p.open(*s);
    }
    p
}

fn deliver(group: u64, class: Class, counter: u64, size: usize) -> Bytes {
    let seq = Seq::new(1, counter);
    let payload = Bytes::from(vec![b'x'; size]).into();
    Deliver { group, class, seq, payload, ..Deliver::default() }.to_bytes()
}

/// Messages `first..first + n` of a group, in one segment.
fn segment(group: u64, class: Class, first: u64, n: u64, size: usize) -> Segment {
    let mut all = BytesMut::new();
    for counter in first..first + n {
        all.extend_from_slice(&deliver(group, class, counter, size));
    }
    let messages = u32::try_from(n).unwrap();
    Segment { frames: all.freeze(), group, upto: Seq::new(1, first + n - 1), messages }
}

fn frames(out: &[Bytes]) -> Vec<RawFrame> {
    let mut buffer = FrameBuffer::default();
    let mut all = Vec::new();
    for bytes in out {
        buffer.push(bytes.clone());
        while let Some(frame) = buffer.next_frame().unwrap() {
            all.push(frame);
        }
    }
    assert!(!buffer.mid_frame(), "what is written are whole frames");
    all
}

/// The next work of any class, as the writer would ask for it.
fn next(p: &mut Policy) -> Option<(Work, Vec<RawFrame>)> {
    let mut out = Vec::new();
    let work = p.next_high(&mut out).or_else(|| p.next_low(1500, &mut out))?;
    Some((work, frames(&out)))
}

fn lanes(p: &mut Policy) -> Vec<Lane> {
    let mut lanes = Vec::new();
    while let Some((Work::Write(lane), _)) = next(p) {
        lanes.push(lane);
    }
    lanes
}

#[test]
fn nothing_is_written_before_what_is_more_urgent() {
    let mut p = roomy(&[1]);
    p.push(1, Class::Chat, &[segment(1, Class::Chat, 1, 1, 10)]);
    p.push(1, Class::Binary, &[segment(1, Class::Binary, 1, 1, 10)]);
    p.push(1, Class::Signal, &[segment(1, Class::Signal, 1, 1, 10)]);
    p.push_control(Ping { token: 1 }.to_bytes());
    let expected = [
        Lane::CONTROL,
        Lane::new(1, Class::Signal),
        Lane::new(1, Class::Binary),
        Lane::new(1, Class::Chat),
    ];
    assert_eq!(lanes(&mut p), expected);
}

#[test]
fn a_signal_that_comes_between_two_turns_of_chat_goes_before_the_second() {
    let mut p = roomy(&[1]);
    for n in 1..=10 {
        p.push(1, Class::Chat, &[segment(1, Class::Chat, n, 1, 1000)]);
    }
    assert_eq!(next(&mut p).unwrap().0, Work::Write(Lane::new(1, Class::Chat)));
    p.push(1, Class::Signal, &[segment(1, Class::Signal, 1, 1, 10)]);
    assert!(p.high_ready());
    assert_eq!(next(&mut p).unwrap().0, Work::Write(Lane::new(1, Class::Signal)));
}

#[test]
fn sessions_of_one_class_take_turns() {
    for class in Class::ALL {
        let mut p = roomy(&[1, 2, 3]);
        for session in 1..=3 {
            for n in 1..=3 {
                let size = if class == Class::Signal { 16_000 / 3 } else { 1400 };
                let bytes = if class == Class::Signal { 1000 } else { size };
                p.push(session, class, &[segment(session.into(), class, n, 1, bytes)]);
            }
        }
        // The first round serves everyone once, whatever one Session has waiting.
        let mut first: Vec<u8> = lanes(&mut p).into_iter().map(|l| l.session).take(3).collect();
        first.sort_unstable();
        assert_eq!(first, [1, 2, 3], "{class}");
    }
}

#[test]
fn a_lane_without_credit_is_not_written_and_does_not_hold_up_others() {
    let mut p = policy();
    p.open(1);
    p.open(2);
    for n in 1..=10 {
        p.push(1, Class::Signal, &[segment(1, Class::Signal, n, 1, 900)]);
    }
    p.push(2, Class::Signal, &[segment(2, Class::Signal, 1, 1, 900)]);
    p.push(1, Class::Chat, &[segment(1, Class::Chat, 1, 1, 900)]);
    let written = lanes(&mut p);
    assert!(written.contains(&Lane::new(2, Class::Signal)));
    assert!(written.contains(&Lane::new(1, Class::Chat)));
    assert!(!p.high_ready() && !p.low_ready(), "nothing to do until there is credit");
    p.credit(Lane::new(1, Class::Signal), 100);
    assert!(!p.high_ready(), "a total that shrinks is old news");
    p.credit(Lane::new(1, Class::Signal), 100_000);
    assert!(p.high_ready());
}

#[test]
fn a_frame_begins_only_within_the_credit_also_where_many_were_pushed_as_one() {
    let mut p = policy();
    p.open(1);
    // 60 frames of about 112 bytes in one segment; the credit is 4,000.
    p.push(1, Class::Signal, &[segment(1, Class::Signal, 1, 60, 100)]);
    let (mut sent, mut last) = (0, 0);
    while let Some((_, written)) = next(&mut p) {
        for frame in written {
            assert!(sent < WINDOW[0], "a frame begins at {sent}");
            sent += frame.whole.len() as u64;
            last = match frame.parse().unwrap() {
                Frame::Deliver(d) => d.seq.counter,
                other => unreachable!("{other:?}"),
            };
        }
    }
    assert!(sent >= WINDOW[0], "and all of the credit is used");
    p.credit(Lane::new(1, Class::Signal), 1_000_000);
    let (_, rest) = next(&mut p).unwrap();
    let Frame::Deliver(d) = rest[0].parse().unwrap() else { unreachable!() };
    assert_eq!(d.seq.counter, last + 1, "what was held back follows");
    assert_eq!(rest.len() as u64, 60 - last);
}

#[test]
fn what_is_written_at_once_fits_into_a_record() {
    let mut p = Policy::new(Limits { outbox_bytes: 1 << 20, uplink_credit: [1000; 3] });
    p.set_window([1 << 30; 3]);
    p.open(1);
    // A backend may hand over more at once than a record holds.
    let mut data = BytesMut::new();
    for n in 0..30 {
        data.extend_from_slice(&deliver(1, Class::Signal, n, 9000));
    }
    data.extend_from_slice(&deliver(1, Class::Signal, 30, 61_000));
    p.push_reply(1, Class::Signal, data.freeze());
    p.push(1, Class::Chat, &[segment(1, Class::Chat, 1, 1, 61_000)]);
    let mut counters = Vec::new();
    let mut out = Vec::new();
    while p.next_high(&mut out).or_else(|| p.next_low(6000, &mut out)).is_some() {
        assert!(out.iter().map(Bytes::len).sum::<usize>() <= RECORD_BYTES);
        for frame in frames(&out) {
            if let Frame::Deliver(Deliver { class: Class::Signal, seq, .. }) =
                frame.parse().unwrap()
            {
                counters.push(seq.counter);
            }
        }
        out.clear();
    }
    assert_eq!(counters, (0..=30).collect::<Vec<_>>());
}

#[test]
fn chat_is_shed_oldest_first_and_a_gap_says_up_to_where() {
    let mut p = policy();
    p.open(1);
    let mut shed = 0;
    for n in 1..=50 {
        match p.push(1, Class::Chat, &[segment(9, Class::Chat, n, 1, 1000)]) {
            Push::Queued { shed: s } => shed += u64::from(s),
            other => unreachable!("chat is always taken: {other:?}"),
        }
    }
    assert!(shed > 20);
    let (_, written) = next(&mut p).unwrap();
    let Frame::Gap(gap) = written[0].parse().unwrap() else { unreachable!("the gap comes first") };
    assert_eq!((gap.group, gap.class, gap.upto), (9, Class::Chat, Seq::new(1, shed)));
    let Frame::Deliver(d) = written[1].parse().unwrap() else { unreachable!() };
    assert_eq!(d.seq.counter, shed + 1);
}

#[test]
fn what_is_reliable_is_refused_only_after_chat_has_made_room() {
    let mut p = policy();
    p.open(1);
    for n in 1..=19 {
        p.push(1, Class::Chat, &[segment(9, Class::Chat, n, 1, 1000)]);
    }
    let mut shed = 0;
    let mut n = 0;
    let full = loop {
        n += 1;
        match p.push(1, Class::Signal, &[segment(8, Class::Signal, n, 1, 1000)]) {
            Push::Queued { shed: s } => shed += s,
            other => break other,
        }
    };
    assert_eq!(full, Push::Full);
    assert_eq!(shed, 19, "all of the chat went first");
    assert!(p.used() <= BOUND);
    let used = p.used();
    assert_eq!(p.push(1, Class::Binary, &[segment(8, Class::Binary, 1, 1, 1000)]), Push::Full);
    assert_eq!(p.used(), used, "nothing was queued");
}

#[test]
fn chat_of_the_session_with_most_of_it_is_shed_first() {
    let mut p = policy();
    p.open(1);
    p.open(2);
    p.push(2, Class::Chat, &[segment(2, Class::Chat, 1, 1, 500)]);
    for n in 1..=60 {
        p.push(1, Class::Chat, &[segment(1, Class::Chat, n, 1, 1000)]);
    }
    p.credit(Lane::new(2, Class::Chat), 1 << 30);
    let mut of_two = 0;
    while let Some((Work::Write(lane), written)) = next(&mut p) {
        of_two += if lane.session == 2 { written.len() } else { 0 };
    }
    assert_eq!(of_two, 1, "the quiet Session lost nothing");
}

#[test]
fn replies_and_notices_are_never_shed_whatever_their_lane() {
    let mut p = policy();
    p.open(1);
    p.push_reply(1, Class::Chat, Error { detail: "notice".into(), ..Error::default() }.to_bytes());
    for n in 1..=100 {
        p.push(1, Class::Chat, &[segment(9, Class::Chat, n, 1, 1000)]);
    }
    p.credit(Lane::new(1, Class::Chat), 1 << 30);
    let mut notices = 0;
    while let Some((_, written)) = next(&mut p) {
        notices += written.iter().filter(|f| f.kind == Error::KIND).count();
    }
    assert_eq!(notices, 1);
}

#[test]
fn replies_may_take_as_much_again_and_then_the_reader_is_too_slow() {
    let mut p = policy();
    p.open(1);
    while p.push(1, Class::Signal, &[segment(8, Class::Signal, 1, 1, 1000)]) != Push::Full {}
    let reply = Error { detail: "x".repeat(200).into(), ..Error::default() }.to_bytes();
    while !p.is_closing() {
        assert!(p.used() <= 2 * BOUND);
        p.push_reply(1, Class::Signal, reply.clone());
    }
    assert!(p.used() <= 2 * BOUND);
    assert!(p.used() > 2 * BOUND - 2 * reply.len(), "not before");
    let mut out = Vec::new();
    let Some(Work::Close(closing)) = p.next_high(&mut out) else { unreachable!() };
    assert_eq!(closing.code, CloseCode::SlowReader);
}

#[test]
fn a_client_that_does_not_read_its_control_lane_is_closed_as_a_slow_reader() {
    let mut p = policy();
    let pong = Ping { token: 1 }.to_bytes();
    for _ in 0..=CONTROL_BYTES / pong.len() {
        p.push_control(pong.clone());
    }
    assert!(p.is_closing());
}

#[test]
fn the_end_comes_after_control_and_before_everything_else_and_is_the_last() {
    let mut p = roomy(&[1]);
    p.push(1, Class::Signal, &[segment(1, Class::Signal, 1, 1, 10)]);
    let closing = |code| Closing { code, reason: String::new(), retry_after_ms: 5 };
    p.push_control(Ping { token: 1 }.to_bytes());
    p.close(closing(CloseCode::GoingAway));
    p.close(closing(CloseCode::Internal));
    p.push_control(Ping { token: 2 }.to_bytes());
    let (work, written) = next(&mut p).unwrap();
    assert_eq!((work, written.len()), (Work::Write(Lane::CONTROL), 1));
    let (work, _) = next(&mut p).unwrap();
    assert_eq!(work, Work::Close(closing(CloseCode::GoingAway)), "the first reason stands");
    p.push(1, Class::Signal, &[segment(1, Class::Signal, 2, 1, 10)]);
    p.push_control(Ping { token: 2 }.to_bytes());
    assert!(next(&mut p).is_none() && !p.high_ready() && !p.low_ready());
}

fn last(session: u8) -> Bytes {
    CloseSession { session: session.into(), ..CloseSession::default() }.to_bytes()
}

#[test]
fn closing_a_session_writes_its_signals_then_the_close_then_ends_its_lanes() {
    let mut p = roomy(&[1, 2]);
    p.push(1, Class::Signal, &[segment(1, Class::Signal, 1, 1, 10)]);
    p.push(1, Class::Chat, &[segment(1, Class::Chat, 1, 1, 1000)]);
    p.push(1, Class::Binary, &[segment(1, Class::Binary, 1, 1, 1000)]);
    p.push(2, Class::Chat, &[segment(2, Class::Chat, 1, 1, 10)]);
    p.close_session(1, last(1));
    p.close_session(1, last(1));
    assert_eq!(p.push(1, Class::Signal, &[segment(1, Class::Signal, 2, 1, 10)]), Push::Gone);
    let (work, written) = next(&mut p).unwrap();
    assert_eq!(work, Work::Write(Lane::new(1, Class::Signal)));
    let kinds: Vec<_> = written.iter().map(|f| f.kind).collect();
    assert_eq!(kinds, [Deliver::KIND, CloseSession::KIND]);
    assert_eq!(next(&mut p).unwrap().0, Work::Finish(1));
    // The other Session goes on, and nothing of this one is left.
    assert_eq!(lanes(&mut p), [Lane::new(2, Class::Chat)]);
    assert_eq!(p.used(), 0);
}

#[test]
fn the_close_of_a_session_keeps_to_the_credit_too() {
    let mut p = policy();
    p.open(1);
    for n in 1..=10 {
        p.push(1, Class::Signal, &[segment(1, Class::Signal, n, 1, 900)]);
    }
    p.close_session(1, last(1));
    let before: Vec<_> = lanes(&mut p);
    assert_eq!(before, [Lane::new(1, Class::Signal)]);
    p.credit(Lane::new(1, Class::Signal), 1 << 20);
    let (_, written) = next(&mut p).unwrap();
    assert_eq!(written.last().unwrap().kind, CloseSession::KIND);
    assert_eq!(next(&mut p).unwrap().0, Work::Finish(1));
}

#[test]
fn a_session_that_its_client_ended_is_dropped_without_a_word() {
    let mut p = roomy(&[1]);
    for class in Class::ALL {
        p.push(1, class, &[segment(1, class, 1, 1, 100)]);
    }
    p.drop_session(1);
    p.drop_session(1);
    assert_eq!(next(&mut p).unwrap().0, Work::Finish(1));
    assert!(next(&mut p).is_none());
    assert_eq!(p.used(), 0);
}

#[test]
fn a_number_that_is_used_again_is_refused_and_the_open_session_goes_on() {
    let mut p = roomy(&[1]);
    p.refuse_reuse(1, last(1));
    assert_eq!(next(&mut p).unwrap().1[0].kind, CloseSession::KIND);
    assert!(matches!(
        p.push(1, Class::Signal, &[segment(1, Class::Signal, 1, 1, 1)]),
        Push::Queued { .. }
    ));
    assert_eq!(lanes(&mut p).len(), 1);
    p.drop_session(1);
    assert_eq!(next(&mut p).unwrap().0, Work::Finish(1));
    p.refuse_reuse(1, last(1));
    p.refuse_reuse(1, last(1));
    let (_, written) = next(&mut p).unwrap();
    assert_eq!(written.len(), 1, "one answer waits at a time");
    assert_eq!(next(&mut p).unwrap().0, Work::Finish(1));
    assert!(next(&mut p).is_none());
}

#[test]
fn credit_is_granted_anew_when_half_of_it_is_consumed() {
    let mut p = policy();
    p.open(3);
    let lane = Lane::new(3, Class::Signal);
    assert_eq!(p.granted(lane), 1000);
    p.consumed(lane, 499);
    assert!(next(&mut p).is_none());
    p.consumed(lane, 1);
    let (work, written) = next(&mut p).unwrap();
    assert_eq!(work, Work::Write(Lane::CONTROL));
    let credit = Credit { session: 3, class: Class::Signal, total: 1500 };
    assert_eq!(written[0].parse().unwrap(), Frame::Credit(credit));
    assert_eq!(p.granted(lane), 1500);
    assert!(next(&mut p).is_none());
}

#[test]
fn credit_of_strokes_and_chat_comes_back_by_quarters_where_it_is_asked_for() {
    let mut p = policy();
    p.grant_by_quarters();
    p.open(3);
    p.consumed(Lane::new(3, Class::Signal), 499);
    let lane = Lane::new(3, Class::Chat);
    p.consumed(lane, 124);
    assert!(next(&mut p).is_none());
    p.consumed(lane, 1);
    let (_, written) = next(&mut p).unwrap();
    let credit = Credit { session: 3, class: Class::Chat, total: 625 };
    assert_eq!(written[0].parse().unwrap(), Frame::Credit(credit));
}

#[test]
fn a_session_that_arrives_before_the_hello_gets_its_credit_with_it() {
    let mut p = Policy::new(Limits { outbox_bytes: BOUND, uplink_credit: [1000; 3] });
    p.open(1);
    p.push_reply(1, Class::Signal, Error::default().to_bytes());
    assert!(next(&mut p).is_none());
    p.set_window(WINDOW);
    assert_eq!(lanes(&mut p), [Lane::new(1, Class::Signal)]);
}

#[test]
fn a_client_that_never_returns_credit_because_it_granted_all_there_is_is_not_starved() {
    let mut p = roomy(&[1]);
    for n in 1..=1000 {
        assert_eq!(
            p.push(1, Class::Signal, &[segment(1, Class::Signal, n, 1, 1000)]),
            Push::Queued { shed: 0 }
        );
        assert_eq!(lanes(&mut p), [Lane::new(1, Class::Signal)]);
    }
}

#[test]
fn a_client_that_has_consumed_all_but_not_said_so_yet_has_its_whole_outbox() {
    // 5 Sessions, each lane just below the half window after which a client speaks up.
    let mut p = Policy::new(Limits { outbox_bytes: 256 * 1024, uplink_credit: [1000; 3] });
    p.set_window([64 * 1024, 16 * 1024, 16 * 1024]);
    for session in 1..=5 {
        p.open(session);
        p.push(session, Class::Signal, &[segment(1, Class::Signal, 1, 1, 31 * 1024)]);
        p.push(session, Class::Binary, &[segment(1, Class::Binary, 1, 1, 7 * 1024)]);
        p.push(session, Class::Chat, &[segment(1, Class::Chat, 1, 1, 7 * 1024)]);
        lanes(&mut p);
    }
    assert_eq!(p.used(), 0);
}

/// What a test does to a policy.
#[derive(Debug, Clone)]
enum Step {
    Push { session: u8, class: Class, group: u64, messages: u64, size: usize },
    Reply { session: u8, class: Class, size: usize },
    Credit { session: u8, class: Class },
    High,
    Low { bytes: usize },
    Close { session: u8 },
}

fn step() -> impl Strategy<Value = Step> {
    let class =
        || prop_oneof![1 => Just(Class::Signal), 1 => Just(Class::Binary), 3 => Just(Class::Chat)];
    prop_oneof![
        8 => (1..4u8, class(), 0..3u64, 1..6u64, 0..1200usize).prop_map(
            |(session, class, g, messages, size)| Step::Push {
                session, class, group: u64::from(session) * 10 + g, messages, size,
            }
        ),
        1 => (1..4u8, class(), 0..200usize)
            .prop_map(|(session, class, size)| Step::Reply { session, class, size }),
        2 => (1..4u8, class()).prop_map(|(session, class)| Step::Credit { session, class }),
        3 => Just(Step::High),
        4 => (1..8000usize).prop_map(|bytes| Step::Low { bytes }),
        1 => (1..40u8).prop_map(|session| Step::Close { session }),
    ]
}

/// What a client that keeps count has seen.
#[derive(Debug, Default)]
struct Client {
    sent: HashMap<Lane, u64>,
    total: HashMap<Lane, u64>,
    /// By lane and group: the last position, what was delivered, and what a gap or a hole took.
    have: HashMap<(Lane, u64), (u64, u64, u64)>,
    replies: HashMap<Lane, u64>,
    closed: Vec<u8>,
}

impl Client {
    fn take(&mut self, lane: Lane, written: &[RawFrame]) {
        assert!(!self.closed.contains(&lane.session), "nothing follows the close of a Session");
        for frame in written {
            if !lane.is_control() {
                let sent = self.sent.entry(lane).or_default();
                let total = self.total.get(&lane).copied().unwrap_or(WINDOW[lane.class.index()]);
                assert!(*sent < total, "{lane:?}: a frame begins at {sent} of {total}");
                *sent += frame.whole.len() as u64;
            }
            match frame.parse().unwrap() {
                Frame::Deliver(d) => {
                    assert_eq!(d.class, lane.class);
                    let (have, got, lost) = self.have.entry((lane, d.group)).or_default();
                    assert!(d.seq.counter > *have, "in order and once");
                    *lost += d.seq.counter - *have - 1;
                    *got += 1;
                    *have = d.seq.counter;
                    assert!(d.class == Class::Chat || *lost == 0, "what is reliable has no holes");
                }
                Frame::Gap(g) => {
                    let (have, _, lost) = self.have.entry((lane, g.group)).or_default();
                    assert!(g.upto.counter >= *have, "a gap is never behind");
                    *lost += g.upto.counter - *have;
                    *have = g.upto.counter;
                }
                Frame::Error(_) => *self.replies.entry(lane).or_default() += 1,
                Frame::CloseSession(_) => self.closed.push(lane.session),
                _ => {}
            }
        }
    }
}

/// Runs the steps; then lets the client take everything, and counts.
fn run(steps: Vec<Step>) {
    let mut p = policy();
    let mut client = Client::default();
    for session in 1..4 {
        p.open(session);
    }
    // By lane and group: the last position that was accepted.
    let mut pushed: HashMap<(Lane, u64), u64> = HashMap::new();
    let mut replies: HashMap<Lane, u64> = HashMap::new();
    let mut closed = Vec::new();
    for step in steps {
        match step {
            Step::Push { session, class, group, messages, size } => {
                let lane = Lane::new(session, class);
                let head = pushed.entry((lane, group)).or_default();
                let before = p.used();
                match p.push(session, class, &[segment(group, class, *head + 1, messages, size)]) {
                    Push::Queued { shed } => {
                        *head += messages;
                        // Replies may have taken it beyond.
                        assert!(p.used() <= BOUND.max(before), "the bound holds: {}", p.used());
                        assert!(class == Class::Chat || before.max(BOUND) >= p.used());
                        let _ = shed;
                    }
                    Push::Full => {
                        assert!(class.reliable());
                        assert!(
                            p.lanes.iter().all(|l| l.lane.class != Class::Chat
                                || l.queue.iter().all(|s| s.messages == 0)),
                            "chat makes room first"
                        );
                    }
                    Push::Gone => assert!(closed.contains(&session)),
                }
            }
            Step::Reply { session, class, size } => {
                let detail = "x".repeat(size).into();
                let frame = Error { detail, ..Error::default() }.to_bytes();
                p.push_reply(session, class, frame);
                assert!(p.used() <= 2 * BOUND);
                if p.is_closing() {
                    return;
                }
                if !closed.contains(&session) {
                    *replies.entry(Lane::new(session, class)).or_default() += 1;
                }
            }
            Step::Credit { session, class } => {
                let lane = Lane::new(session, class);
                let total = client.sent.get(&lane).copied().unwrap_or(0) + WINDOW[class.index()];
                client.total.insert(lane, total);
                p.credit(lane, total);
            }
            Step::High => {
                let mut out = Vec::new();
                if let Some(Work::Write(lane)) = p.next_high(&mut out) {
                    client.take(lane, &frames(&out));
                }
            }
            Step::Low { bytes } => {
                let mut out = Vec::new();
                let ready = p.low_ready();
                let work = p.next_low(bytes, &mut out);
                assert_eq!(work.is_some(), ready);
                if let Some(Work::Write(lane)) = work {
                    client.take(lane, &frames(&out));
                }
            }
            Step::Close { session } => {
                if session < 4 {
                    p.close_session(session, last(session));
                    closed.push(session);
                }
            }
        }
        let queued: usize = p.lanes.iter().map(|l| l.queued).sum();
        assert_eq!(p.queued, queued);
        for lane in &p.lanes {
            assert_eq!(lane.queued, lane.queue.iter().map(|s| s.frames.len()).sum::<usize>());
        }
    }
    // The client wakes up and reads all there is.
    for session in 1..4 {
        for class in Class::ALL {
            client.total.insert(Lane::new(session, class), 1 << 40);
            p.credit(Lane::new(session, class), 1 << 40);
        }
    }
    while let Some((work, written)) = next(&mut p) {
        if let Work::Write(lane) = work {
            client.take(lane, &written);
        }
    }
    assert_eq!(p.queued, 0);
    for ((lane, group), head) in pushed {
        if closed.contains(&lane.session) {
            continue;
        }
        let (have, got, lost) = client.have.get(&(lane, group)).copied().unwrap_or_default();
        assert_eq!(have, head, "{lane:?} group {group}: every message is delivered or in a gap");
        assert_eq!(got + lost, head);
    }
    for (lane, n) in replies {
        if !closed.contains(&lane.session) {
            assert_eq!(
                client.replies.get(&lane).copied().unwrap_or(0),
                n,
                "{lane:?}: no reply is lost"
            );
        }
    }
    for session in closed {
        assert!(client.closed.contains(&session), "its client learns that it is over");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_bound_the_credit_and_the_order_hold_and_everything_adds_up(
        steps in prop::collection::vec(step(), 1..300)
    ) {
        run(steps);
    }
}
