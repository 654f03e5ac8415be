//! Rooms that become another owner's.

use super::*;
use crate::{registry::Tenure, ring::Ring, store};

const HERE: &str = "here:1";

fn ring(addresses: &[&str]) -> Option<Ring> {
    let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    Some(Ring::new(HERE, &addresses))
}

/// Nobody's but another one's.
fn elsewhere() -> Option<Ring> {
    ring(&["there:1"])
}

async fn left(bench: &Bench, session: u64) {
    let left = |f: &Frame| match f {
        Frame::Left(left) => Some(left.code),
        _ => None,
    };
    let code = bench.gateways.wait(session, left).await;
    assert_eq!(code, edgeway_proto::CloseCode::BackendLost.code());
}

async fn refused(bench: &mut Bench, session: u64, room: &str) {
    bench.ask(session, room).await;
    let error = |f: &Frame| match f {
        Frame::Error(error) if error.request == session => Some(error.clone()),
        _ => None,
    };
    let error = bench.gateways.wait(session, error).await;
    assert_eq!(error.code, ErrorCode::Unavailable.code());
    assert!(error.retry_after_ms > 0);
    assert!(matches!(bench.reply().await, Reply::Item(from_owner_item::Item::Refused(_))));
}

#[tokio::test]
async fn a_room_that_is_anothers_is_not_loaded() {
    let mut bench = Bench::new(|_| {});
    bench.owner.set_ring(elsewhere());
    refused(&mut bench, 1, "a").await;
    assert!(bench.store.inner.lock().logs.is_empty(), "nothing is sealed");
    bench.owner.set_ring(ring(&[HERE, "there:1"]));
    let (mut joined, mut sent_away) = (0, 0);
    for n in 0..32 {
        bench.ask(100 + n, &format!("room {n}")).await;
        match bench.reply().await {
            Reply::Item(from_owner_item::Item::Joined(_)) => joined += 1,
            _ => sent_away += 1,
        }
    }
    assert!(joined > 0 && sent_away > 0, "{joined} and {sent_away}");
    bench.owner.set_ring(None);
    bench.join(1, "a").await;
}

#[tokio::test]
async fn what_was_accepted_is_stored_and_acked_before_a_room_is_handed_over() {
    let mut bench = Bench::new(|_| {});
    let group = bench.join(1, "a").await;
    let other = bench.join(2, "b").await;
    bench.store.down.store(true, Ordering::SeqCst);
    let all = [message(group, Class::Signal, 1), message(group, Class::Binary, 1)];
    bench.frames(1, group, &all).await;
    // It is applied before the ring changes: both come by the same queue.
    bench.owner.set_ring(elsewhere());
    refused(&mut bench, 3, "a").await;
    bench.store.down.store(false, Ordering::SeqCst);
    for class in [Class::Signal, Class::Binary] {
        let ack = bench.gateways.ack(1, class, 1).await;
        assert_eq!((ack.status, ack.seq), (AckStatus::Accepted, Seq::new(1, 1)));
    }
    left(&bench, 1).await;
    left(&bench, 2).await;
    for _ in 0..2 {
        assert!(matches!(bench.reply().await, Reply::Item(from_owner_item::Item::Left(_))));
    }
    bench.owner.set_ring(None);
    let rejoined = bench.join(2, "b").await;
    assert_eq!(rejoined, other);
    assert_eq!(bench.owner.rooms_gauge().load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_store_that_is_away_holds_no_handover_up_for_long_and_nothing_is_acked() {
    let mut bench = Bench::new(|_| {});
    let group = bench.join(1, "a").await;
    bench.store.down.store(true, Ordering::SeqCst);
    bench.frames(1, group, &[message(group, Class::Signal, 1)]).await;
    bench.owner.set_ring(elsewhere());
    left(&bench, 1).await;
    assert!(bench.gateways.delivered(Class::Signal).is_empty());
    let acks = bench.gateways.frames(1, 1).iter().filter(|f| matches!(f, Frame::Ack(_))).count();
    assert_eq!(acks, 0);
}

#[tokio::test]
async fn what_is_sent_to_a_room_on_its_way_is_neither_taken_nor_refused() {
    let mut bench = Bench::new(|_| {});
    let group = bench.join(1, "a").await;
    bench.store.down.store(true, Ordering::SeqCst);
    bench.frames(1, group, &[message(group, Class::Signal, 1)]).await;
    bench.owner.set_ring(elsewhere());
    refused(&mut bench, 2, "a").await;
    bench.frames(1, group, &[message(group, Class::Signal, 2)]).await;
    bench.store.down.store(false, Ordering::SeqCst);
    left(&bench, 1).await;
    let acks = bench.gateways.frames(1, 1);
    let acks: Vec<_> = acks.iter().filter(|f| matches!(f, Frame::Ack(_))).collect();
    assert_eq!(acks.len(), 1, "{acks:?}");
}

#[tokio::test]
async fn who_is_still_here_at_the_end_is_told_to_find_the_next_owner() {
    let mut bench = Bench::new(|_| {});
    bench.join(1, "a").await;
    let gateways = bench.gateways.clone();
    bench.end().await;
    let is_left = |f: &Frame| matches!(f, Frame::Left(_));
    assert!(gateways.frames(1, 1).iter().any(is_left));
}

/// The next owner's seals of a room, as this one has it in its first epoch.
fn seal(bench: &Bench, group: u64) {
    let record = store::seal(Seq::new(1, 0), 0);
    let seal = |class| Append { log: LogId { group, class }, record: record.clone() };
    bench.store.append_now(Class::ALL.map(seal).to_vec()).unwrap();
}

#[tokio::test]
async fn after_a_lost_lease_rooms_that_others_have_sealed_are_left_and_no_others() {
    let mut bench = Bench::new(|_| {});
    let tenure = Arc::new(Tenure::new(Duration::from_secs(3600)));
    bench.owner.guard(tenure.clone());
    let group = bench.join(1, "a").await;
    bench.join(2, "b").await;
    seal(&bench, group);
    tenure.lost();
    // Any wake will do.
    bench.frames(2, 99, &[message(99, Class::Signal, 1)]).await;
    left(&bench, 1).await;
    assert!(matches!(bench.reply().await, Reply::Item(from_owner_item::Item::Left(_))));
    assert!(!bench.gateways.frames(1, 2).iter().any(|f| matches!(f, Frame::Left(_))));
    assert_eq!(bench.join(1, "a").await, group);
}

#[tokio::test]
async fn a_process_that_was_asleep_does_nothing_before_it_knows_what_it_has_lost() {
    let mut bench = Bench::new(|_| {});
    let tenure = Arc::new(Tenure::new(Duration::from_secs(3600)));
    bench.owner.guard(tenure.clone());
    let group = bench.join(1, "a").await;
    tenure.seen(Duration::ZERO, true);
    seal(&bench, group);
    bench.frames(1, group, &[message(group, Class::Chat, 1)]).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(bench.gateways.delivered(Class::Chat).is_empty());
    tenure.lost();
    tenure.seen(Duration::ZERO, false);
    left(&bench, 1).await;
    let frames = bench.gateways.frames(1, 1);
    let said = |f: &Frame| matches!(f, Frame::Ack(ack) if ack.status == AckStatus::Accepted);
    assert!(!frames.iter().any(said), "{frames:?}");
    assert!(bench.gateways.delivered(Class::Chat).is_empty());
}
