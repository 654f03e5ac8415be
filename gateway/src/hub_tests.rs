//! Groups: who gets what, and who does not.
#![allow(clippy::unwrap_used)]

use edgeway_proto::{
    Frame,
    frame::{Deliver, FrameBuffer},
};

use super::*;
use crate::{
    outbox::Limits,
    routing::{Key, Policy},
};

pub(super) const GROUP: u64 = 7;

pub(super) fn hub() -> Arc<Hub> {
    Hub::new(Metrics::default())
}

fn outbox(bytes: usize) -> Arc<Outbox> {
    let outbox = Outbox::new(Limits { outbox_bytes: bytes, uplink_credit: [1000; 3] });
    outbox.with(|p| {
        p.set_window([(1 << 62) - 1; 3]);
        p.open(1);
    });
    Arc::new(outbox)
}

/// A Session of a connection of its own.
pub(super) fn session(hub: &Arc<Hub>, link: u64) -> Registration {
    member(hub, 256 * 1024, link)
}

/// The same, with an outbox of so many bytes.
fn member(hub: &Arc<Hub>, bytes: usize, link: u64) -> Registration {
    let route = Route {
        kind: "chat".into(),
        backend: "access".into(),
        policy: Policy::default(),
        key: Key::User,
    };
    let keys = Keys::new("ada", [].into_iter());
    hub.register(outbox(bytes), 1, link, Arc::new(route), keys, Instant::now())
}

pub(super) fn seq(counter: u64) -> Seq {
    Seq::new(1, counter)
}

pub(super) fn publish_at(hub: &Hub, class: Class, first: Seq, count: u32, size: usize) {
    let mut frames = bytes::BytesMut::new();
    for n in 0..u64::from(count.max(1)) {
        let payload = Bytes::from(vec![0; size]).into();
        let seq = Seq::new(first.epoch, first.counter + n);
        Deliver { group: GROUP, class, seq, payload, ..Deliver::default() }.encode(&mut frames);
    }
    hub.publish(GROUP, class, first, count, &frames.freeze());
}

pub(super) fn publish(hub: &Hub, class: Class, first: u64, count: u32) {
    publish_at(hub, class, seq(first), count, 10);
}

/// All that waits for a Session's client.
pub(super) fn read(session: &Session) -> Vec<Frame> {
    let (mut frames, mut out) = (Vec::new(), Vec::new());
    loop {
        let mut buffer = FrameBuffer::default();
        let work = session.outbox.with(|p| p.next_high(&mut out));
        if work.or_else(|| session.outbox.take_low(6000, &mut out)).is_none() {
            return frames;
        }
        for bytes in out.drain(..) {
            buffer.push(bytes);
            while let Some(frame) = buffer.next_frame().unwrap() {
                frames.push(frame.parse().unwrap());
            }
        }
    }
}

/// Counters of the deliveries among them; `0` stands for anything else.
fn counters(session: &Session) -> Vec<u64> {
    let counter = |f: Frame| if let Frame::Deliver(d) = f { d.seq.counter } else { 0 };
    read(session).into_iter().map(counter).collect()
}

fn behind(frames: &[Frame]) -> Option<Seq> {
    frames.iter().find_map(|f| if let Frame::Behind(b) = f { Some(b.head) } else { None })
}

#[test]
fn a_member_gets_what_is_published_after_its_subscription_and_nothing_before() {
    let hub = hub();
    let (early, late) = (session(&hub, 1), session(&hub, 1));
    hub.subscribe(1, early.id, GROUP, Class::Signal, Seq::new(1, 0), None);
    publish(&hub, Class::Signal, 1, 3);
    hub.subscribe(1, late.id, GROUP, Class::Signal, seq(3), None);
    publish(&hub, Class::Signal, 4, 2);
    assert_eq!(counters(&early), [1, 2, 3, 4, 5]);
    assert_eq!(counters(&late), [4, 5]);
}

#[test]
fn classes_are_subscribed_apart() {
    let hub = hub();
    let a = session(&hub, 1);
    hub.subscribe(1, a.id, GROUP, Class::Chat, seq(0), None);
    publish(&hub, Class::Signal, 1, 1);
    publish(&hub, Class::Binary, 1, 1);
    assert_eq!(counters(&a), Vec::<u64>::new());
    publish(&hub, Class::Chat, 1, 1);
    assert_eq!(counters(&a), [1]);
}

#[test]
fn a_member_that_has_everything_is_live_and_one_that_has_less_is_behind() {
    for class in Class::ALL {
        let hub = hub();
        let (has_all, has_less) = (session(&hub, 1), session(&hub, 1));
        hub.subscribe(1, has_all.id, GROUP, class, seq(5), Some(seq(5)));
        hub.subscribe(1, has_less.id, GROUP, class, seq(5), Some(seq(2)));
        publish(&hub, class, 6, 1);
        assert_eq!(counters(&has_all), [6], "{class}");
        let frames = read(&has_less);
        assert_eq!((frames.len(), behind(&frames)), (1, Some(seq(5))), "{class}");
    }
}

#[test]
fn who_has_caught_up_goes_on_with_the_next_and_who_has_not_is_told_the_new_head() {
    let hub = hub();
    let a = session(&hub, 1);
    hub.subscribe(1, a.id, GROUP, Class::Signal, seq(5), Some(seq(2)));
    publish(&hub, Class::Signal, 6, 2);
    assert_eq!(behind(&read(&a)), Some(seq(5)));
    hub.caught_up(a.id, GROUP, Class::Signal, seq(5));
    assert_eq!(behind(&read(&a)), Some(seq(7)), "6 and 7 came meanwhile");
    publish(&hub, Class::Signal, 8, 1);
    assert_eq!(read(&a), []);
    hub.caught_up(a.id, GROUP, Class::Signal, seq(8));
    publish(&hub, Class::Signal, 9, 1);
    assert_eq!(counters(&a), [9]);
    // One who is not behind changes nothing by saying so.
    hub.caught_up(a.id, GROUP, Class::Signal, seq(1));
    publish(&hub, Class::Signal, 10, 1);
    assert_eq!(counters(&a), [10]);
}

#[test]
fn catching_up_while_others_publish_neither_loses_nor_repeats() {
    let hub = hub();
    let a = member(&hub, 1 << 30, 1);
    hub.subscribe(1, a.id, GROUP, Class::Signal, seq(0), Some(Seq::ZERO));
    assert_eq!(behind(&read(&a)), Some(seq(0)));
    const LAST: u64 = 20_000;
    std::thread::scope(|scope| {
        scope.spawn(|| (1..=LAST).for_each(|n| publish(&hub, Class::Signal, n, 1)));
        // The client pages up to whatever head it is told, as history would.
        let mut have = 0;
        hub.caught_up(a.id, GROUP, Class::Signal, seq(have));
        while have < LAST {
            for frame in read(&a) {
                match frame {
                    Frame::Behind(b) => {
                        assert!(b.head.counter > have);
                        have = b.head.counter;
                        hub.caught_up(a.id, GROUP, Class::Signal, seq(have));
                    }
                    Frame::Deliver(d) => {
                        assert_eq!(d.seq.counter, have + 1);
                        have += 1;
                    }
                    other => unreachable!("{other:?}"),
                }
            }
        }
    });
}

#[test]
fn a_member_whose_outbox_is_full_falls_behind_and_others_do_not() {
    let hub = hub();
    let slow = member(&hub, 4000, 1);
    let quick = session(&hub, 1);
    for s in [&slow, &quick] {
        hub.subscribe(1, s.id, GROUP, Class::Signal, seq(0), None);
    }
    for n in 1..=10 {
        publish_at(&hub, Class::Signal, seq(n), 1, 1000);
    }
    assert_eq!(counters(&quick), (1..=10).collect::<Vec<_>>());
    let frames = read(&slow);
    // 3 fit; then it was told, once, in order after what it got.
    assert_eq!(frames.len(), 4);
    assert_eq!(behind(&frames[3..]), Some(seq(4)));
    hub.caught_up(slow.id, GROUP, Class::Signal, seq(10));
    publish(&hub, Class::Signal, 11, 1);
    assert_eq!(counters(&slow), [11]);
}

#[test]
fn what_is_outside_of_the_sequence_is_not_for_those_who_are_behind_and_makes_nobody_so() {
    let hub = hub();
    let live = session(&hub, 1);
    let behind_one = session(&hub, 1);
    hub.subscribe(1, live.id, GROUP, Class::Signal, seq(5), None);
    hub.subscribe(1, behind_one.id, GROUP, Class::Signal, seq(5), Some(seq(1)));
    read(&behind_one);
    publish_at(&hub, Class::Signal, Seq::ZERO, 0, 10);
    assert_eq!(read(&live).len(), 1);
    assert_eq!(read(&behind_one), []);
    publish(&hub, Class::Signal, 6, 1);
    assert_eq!(counters(&live), [6], "the head did not move");
}

#[test]
fn an_owner_of_an_older_epoch_and_a_repeat_reach_nobody() {
    let hub = hub();
    let a = session(&hub, 1);
    hub.subscribe(1, a.id, GROUP, Class::Signal, Seq::new(2, 0), None);
    publish_at(&hub, Class::Signal, Seq::new(1, 90), 1, 1);
    publish_at(&hub, Class::Signal, Seq::new(2, 1), 2, 1);
    publish_at(&hub, Class::Signal, Seq::new(2, 2), 1, 1);
    publish_at(&hub, Class::Signal, Seq::new(3, 1), 1, 1);
    publish_at(&hub, Class::Signal, Seq::new(2, 3), 1, 1);
    let seqs: Vec<_> = read(&a)
        .into_iter()
        .map(|f| if let Frame::Deliver(d) = f { d.seq } else { Seq::ZERO })
        .collect();
    assert_eq!(seqs, [Seq::new(2, 1), Seq::new(2, 2), Seq::new(3, 1)]);
}

#[test]
fn dropping_a_registration_leaves_every_group_and_the_last_member_takes_the_group_along() {
    let hub = hub();
    let (a, b) = (session(&hub, 1), session(&hub, 1));
    for group in 1..=3 {
        hub.subscribe(1, a.id, group, Class::Signal, seq(0), None);
    }
    hub.subscribe(1, b.id, 3, Class::Chat, seq(0), None);
    assert_eq!((hub.sessions(), hub.groups()), (2, 3));
    drop(a);
    assert_eq!((hub.sessions(), hub.groups()), (1, 1));
    drop(b);
    assert_eq!((hub.sessions(), hub.groups()), (0, 0));
}

#[test]
fn unsubscribing_ends_the_classes_of_its_stream_and_with_the_last_the_membership() {
    let hub = hub();
    let a = session(&hub, 1);
    for class in Class::ALL {
        hub.subscribe(1, a.id, GROUP, class, seq(0), None);
    }
    hub.unsubscribe(1, a.id, GROUP, &[Class::Signal]);
    publish(&hub, Class::Signal, 1, 1);
    publish(&hub, Class::Chat, 1, 1);
    assert_eq!(counters(&a), [1], "chat goes on");
    hub.unsubscribe(1, a.id, GROUP, &[Class::Binary, Class::Chat]);
    assert_eq!(hub.groups(), 0);
    assert!(a.groups.lock().is_empty());
    publish(&hub, Class::Chat, 2, 1);
    assert_eq!(read(&a), []);
    // And may come back.
    hub.subscribe(1, a.id, GROUP, Class::Chat, seq(2), None);
    publish(&hub, Class::Chat, 3, 1);
    assert_eq!(counters(&a), [3]);
}

#[test]
fn a_subscription_that_meets_its_session_s_end_leaves_nothing_behind() {
    for _ in 0..200 {
        let hub = hub();
        let a = session(&hub, 1);
        let id = a.id;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for group in 1..20 {
                    hub.subscribe(1, id, group, Class::Signal, seq(0), None);
                }
            });
            scope.spawn(move || drop(a));
        });
        assert_eq!((hub.sessions(), hub.groups()), (0, 0));
    }
}

#[test]
fn streams_that_leave_and_join_at_the_same_time_end_in_what_each_said_last() {
    let hub = hub();
    let a = session(&hub, 1);
    let low = [Class::Binary, Class::Chat];
    for round in 1..=2000 {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                hub.unsubscribe(1, a.id, GROUP, &[Class::Signal]);
                hub.subscribe(1, a.id, GROUP, Class::Signal, seq(round), None);
            });
            scope.spawn(|| {
                hub.unsubscribe(1, a.id, GROUP, &low);
                hub.subscribe(1, a.id, GROUP, Class::Chat, seq(round), None);
            });
        });
        publish(&hub, Class::Signal, round + 1, 1);
        publish(&hub, Class::Chat, round + 1, 1);
        assert_eq!(counters(&a), [round + 1, round + 1], "round {round}");
    }
}

#[test]
fn a_lost_link_takes_its_sessions_and_others_only_out_of_the_groups_it_owned() {
    let hub = hub();
    let (own, member, other) = (session(&hub, 1), session(&hub, 2), session(&hub, 2));
    hub.subscribe(1, own.id, GROUP, Class::Chat, seq(0), None);
    hub.subscribe(1, member.id, GROUP, Class::Chat, seq(0), None);
    hub.subscribe(2, member.id, GROUP + 1, Class::Chat, seq(0), None);
    hub.subscribe(2, other.id, GROUP + 1, Class::Chat, seq(0), None);
    assert!(hub.link_lost(3).is_empty());
    let lost = hub.link_lost(1);
    assert_eq!(lost.iter().map(|s| s.id).collect::<Vec<_>>(), [own.id]);
    let frames = read(&member);
    let [Frame::Left(left)] = &frames[..] else { unreachable!("{frames:?}") };
    assert_eq!((left.group, left.code), (GROUP, CloseCode::BackendLost.code()));
    assert_eq!(
        (read(&own), read(&other)),
        (vec![], vec![]),
        "a Session that ends is told that alone"
    );
    assert_eq!(hub.groups(), 1);
    // It may join again.
    hub.subscribe(2, member.id, GROUP, Class::Chat, seq(0), None);
    publish(&hub, Class::Chat, 1, 1);
    assert_eq!(counters(&member), [1]);
}

#[test]
fn who_is_with_the_next_owner_already_does_not_lose_it_with_the_link_of_the_last() {
    let hub = hub();
    let a = session(&hub, 3);
    for class in Class::ALL {
        hub.subscribe(1, a.id, GROUP, class, seq(4), None);
    }
    for class in Class::ALL {
        hub.subscribe(2, a.id, GROUP, class, Seq::new(2, 0), None);
    }
    assert!(hub.link_lost(1).is_empty());
    publish_at(&hub, Class::Signal, Seq::new(2, 1), 1, 10);
    assert_eq!(counters(&a), [1]);
}

#[test]
fn nothing_of_an_owner_that_another_one_has_followed_has_an_effect() {
    for class in Class::ALL {
        let hub = hub();
        let (a, late) = (session(&hub, 3), session(&hub, 3));
        hub.subscribe(1, a.id, GROUP, class, seq(4), None);
        hub.subscribe(2, a.id, GROUP, class, Seq::new(2, 0), None);
        // The first one's link still stands, and it goes on.
        publish_at(&hub, class, seq(5), 3, 10);
        publish_at(&hub, class, seq(7), 0, 10);
        hub.unsubscribe(1, a.id, GROUP, &[class]);
        hub.subscribe(1, late.id, GROUP, class, seq(7), None);
        hub.subscribe(1, a.id, GROUP, class, seq(7), Some(seq(2)));
        assert_eq!((read(&a), read(&late)), (vec![], vec![]), "{class}");
        assert!(hub.is_stale(GROUP, class, 1) && !hub.is_stale(GROUP, class, 2));
        // The next one is not disturbed.
        publish_at(&hub, class, Seq::new(2, 1), 1, 10);
        publish_at(&hub, class, Seq::new(2, 1), 0, 10);
        assert_eq!((read(&a).len(), read(&late).len()), (2, 0), "{class}");
    }
}

#[test]
fn who_says_nothing_of_epochs_is_never_stale() {
    let hub = hub();
    let a = session(&hub, 1);
    hub.subscribe(1, a.id, GROUP, Class::Signal, seq(4), None);
    publish_at(&hub, Class::Signal, Seq::ZERO, 0, 10);
    assert_eq!(read(&a).len(), 1);
    assert!(!hub.is_stale(GROUP, Class::Signal, 0) && !hub.is_stale(GROUP + 1, Class::Signal, 1));
}

#[test]
fn the_first_reason_for_a_session_s_end_is_told_and_cut_to_what_the_wire_allows() {
    let hub = hub();
    let a = session(&hub, 1);
    a.close(CloseCode::Kicked, &"é".repeat(300), 9);
    a.close(CloseCode::Internal, "late", 0);
    assert!(a.is_closed());
    let frames = read(&a);
    let [Frame::CloseSession(close)] = &frames[..] else { unreachable!("{frames:?}") };
    assert_eq!((close.code, close.retry_after_ms), (CloseCode::Kicked.code(), 9));
    assert_eq!(close.reason.len(), 256);
    // What is published now finds nobody.
    hub.subscribe(1, a.id, GROUP, Class::Signal, seq(0), None);
    publish(&hub, Class::Signal, 1, 1);
    assert_eq!(read(&a), []);
}

#[test]
fn a_large_publication_is_cut_at_frames_and_arrives_whole() {
    let hub = hub();
    let a = session(&hub, 1);
    hub.subscribe(1, a.id, GROUP, Class::Chat, seq(0), None);
    publish_at(&hub, Class::Chat, seq(1), 100, 700);
    assert_eq!(counters(&a), (1..=100).collect::<Vec<_>>());
    let mut frames = bytes::BytesMut::new();
    for n in 1..=100u64 {
        Deliver {
            group: GROUP,
            seq: seq(n),
            payload: Bytes::from(vec![0; 700]).into(),
            ..Deliver::default()
        }
        .encode(&mut frames);
    }
    let segments = segments(GROUP, seq(1), 100, &frames.freeze());
    assert!(segments.iter().all(|s| s.frames.len() <= SEGMENT_BYTES));
    assert_eq!(segments.iter().map(|s| s.messages).sum::<u32>(), 100);
    assert_eq!(segments.last().unwrap().upto, seq(100));
}

#[test]
fn sessions_whose_backends_do_not_answer_are_given_once_and_others_never() {
    let (hub, patience) = (hub(), Duration::from_secs(10));
    let [silent, answered, gone, ended] = [(); 4].map(|()| session(&hub, 1));
    let begun = Instant::now();
    hub.opened(answered.id);
    drop(gone);
    ended.close(CloseCode::Protocol, "no", 0);
    assert!(hub.unanswered(patience, begun).is_empty());
    let overdue = hub.unanswered(patience, begun + patience);
    assert_eq!(overdue.iter().map(|one| one.id).collect::<Vec<_>>(), [silent.id]);
    assert!(hub.unanswered(patience, begun + 2 * patience).is_empty());
}
