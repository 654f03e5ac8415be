//! The core by itself.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use super::*;

fn pending(change: impl FnOnce(&mut DirectoryConfig)) -> Pending<u64> {
    let mut config = DirectoryConfig::default();
    change(&mut config);
    Pending::new(config)
}

fn line(n: usize) -> Bytes {
    Bytes::from(format!("line {n}"))
}

fn open(pending: &mut Pending<u64>, room: &str) -> u64 {
    let source = pending.next;
    pending.open(Name::room(room), Term(1, 0), source, Bytes::from_static(b"head"))
}

const START: Duration = Duration::from_secs(1);

/// Everything that is to be written now, and is.
fn flush(pending: &mut Pending<u64>, now: Duration) -> Vec<Arc<Write>> {
    let mut writes = Vec::new();
    while let Some((id, write)) = pending.take(now) {
        pending.answered(id, Some(Outcome::Done), now);
        writes.push(write);
    }
    writes
}

#[test]
fn who_comes_and_goes_in_between_costs_nothing() {
    let mut pending = pending(|_| {});
    let room = open(&mut pending, "a");
    pending.line(room, line(1), true);
    let writes = flush(&mut pending, START);
    assert_eq!((writes.len(), writes[0].action), (1, Action::Anew));
    assert_eq!((&writes[0].added, writes[0].total), (&vec![line(1)], 1));
    for _ in 0..10 {
        pending.line(room, line(2), true);
        pending.line(room, line(1), false);
        pending.line(room, line(2), false);
        pending.line(room, line(1), true);
    }
    assert_eq!(flush(&mut pending, START), []);
    assert_eq!(pending.bytes(), 0);
    // What is on its way counts as there.
    pending.line(room, line(2), true);
    let (id, write) = pending.take(START).unwrap();
    pending.line(room, line(2), false);
    assert_eq!(pending.take(START), None, "one at a time");
    pending.answered(id, Some(Outcome::Done), START);
    let next = flush(&mut pending, START);
    assert_eq!((next.len(), next[0].before, &next[0].removed), (1, write.after, &vec![line(2)]));
}

#[test]
fn a_listing_that_was_never_written_ends_without_a_write() {
    let mut pending = pending(|_| {});
    let room = open(&mut pending, "a");
    pending.line(room, line(1), true);
    pending.close(room);
    assert_eq!(flush(&mut pending, START), []);
    assert_eq!((pending.bytes(), pending.len()), (0, 0));
}

#[test]
fn a_write_is_given_again_as_it_was_and_what_came_meanwhile_follows() {
    let mut pending = pending(|_| {});
    let room = open(&mut pending, "a");
    let (id, first) = pending.take(START).unwrap();
    pending.line(room, line(1), true);
    pending.answered(id, None, START);
    assert_eq!(pending.take(START), None, "not at once");
    let later = pending.due().unwrap();
    assert_eq!(later, START + DirectoryConfig::default().retry);
    assert_eq!(pending.take(later).unwrap().1, first);
    pending.answered(id, Some(Outcome::Done), later);
    assert_eq!(flush(&mut pending, later)[0].added, [line(1)]);
}

#[test]
fn a_large_listing_is_written_in_parts() {
    let mut pending = pending(|c| c.lines = 10);
    let room = open(&mut pending, "a");
    (0..25).for_each(|n| pending.line(room, line(n), true));
    let writes = flush(&mut pending, START);
    let totals: Vec<_> =
        writes.iter().map(|w| (w.added.len(), w.total, w.before, w.after)).collect();
    assert_eq!(totals, [(10, 10, 0, 1), (10, 20, 1, 2), (5, 25, 2, 3)]);
}

#[test]
fn what_is_not_as_thought_is_asked_for_and_written_anew() {
    let mut pending = pending(|_| {});
    let room = open(&mut pending, "a");
    flush(&mut pending, START);
    pending.line(room, line(1), true);
    let (id, _) = pending.take(START).unwrap();
    pending.answered(id, Some(Outcome::Behind), START);
    assert_eq!(pending.take_dropped(), Dropped { behind: 1, ..Dropped::default() });
    // What changes before its writer answers is in the answer.
    pending.line(room, line(2), true);
    assert_eq!((pending.want(), pending.want()), (Some(0), None));
    assert_eq!(pending.take(START), None);
    pending.anew(room, Bytes::from_static(b"new"), [line(1), line(2)].into_iter().collect());
    pending.line(room, line(2), false);
    let writes = flush(&mut pending, START);
    assert_eq!((writes.len(), writes[0].action, writes[0].after), (1, Action::Anew, 3));
    assert_eq!((&writes[0].added, &writes[0].head), (&vec![line(1)], &Some(Bytes::from("new"))));
    assert_eq!(pending.bytes(), 0);
}

#[test]
fn at_the_bound_changes_are_dropped_and_the_listing_is_asked_for_when_there_is_room() {
    const BOUND: usize = 20_000;
    let mut pending = pending(|c| c.pending_bytes = BOUND);
    let rooms: Vec<_> = (0..10).map(|n| open(&mut pending, &n.to_string())).collect();
    flush(&mut pending, START);
    // The directory is away.
    for n in 0..10_000 {
        pending.line(rooms[n % 10], line(n), true);
        assert!(pending.bytes() <= BOUND);
        if let Some((id, _)) = pending.take(START).filter(|_| n % 7 == 0) {
            pending.answered(id, None, START);
        }
    }
    let lost = pending.take_dropped().full;
    assert!((1..=10).contains(&lost), "{lost}");
    // Those whose writes are on their way hold some of it.
    for room in &rooms {
        pending.answered(*room, Some(Outcome::Done), START);
    }
    let late = START * 2;
    flush(&mut pending, late);
    let mut wanted = BTreeSet::new();
    while let Some(source) = pending.want() {
        assert!(wanted.insert(source));
        pending.anew(source, Bytes::new(), [line(1)].into_iter().collect());
        let writes = flush(&mut pending, late);
        assert_eq!((writes.len(), writes[0].action, writes[0].total), (1, Action::Anew, 1));
    }
    assert_eq!((wanted.len() as u64, pending.bytes()), (lost, 0));
}

#[test]
fn of_large_listings_few_are_asked_for_at_a_time() {
    let mut pending = pending(|c| c.anew_lines = 100);
    for n in 0..5 {
        let room = open(&mut pending, &n.to_string());
        (0..60).for_each(|n| pending.line(room, line(n), true));
    }
    let mut ids = Vec::new();
    while let Some((id, _)) = pending.take(START) {
        ids.push(id);
    }
    ids.iter().for_each(|id| pending.answered(*id, Some(Outcome::Behind), START));
    assert_eq!((pending.want(), pending.want()), (Some(0), None));
    pending.anew(0, Bytes::new(), Lines::default());
    assert_eq!((pending.want(), pending.want()), (Some(1), None));
    // One that ends instead of answering makes room as well.
    pending.close(1);
    assert_eq!((pending.want(), pending.want()), (Some(2), None));
}

#[test]
fn an_earlier_term_writes_nothing_more_and_leaves_quietly() {
    let mut pending = pending(|_| {});
    let room = open(&mut pending, "a");
    let (id, _) = pending.take(START).unwrap();
    pending.answered(id, Some(Outcome::Stale), START);
    pending.line(room, line(1), true);
    assert_eq!((pending.take(START), pending.want()), (None, None));
    assert_eq!(pending.take_dropped().stale, 1);
    pending.close(room);
    assert_eq!((pending.take(START), pending.len(), pending.bytes()), (None, 0, 0));
}

#[test]
fn what_a_later_term_had_is_tried_again_once_a_round() {
    let renew = DirectoryConfig::default().renew;
    let mut pending = pending(|_| {});
    let room = open(&mut pending, "a");
    let mut now = START;
    let (id, _) = pending.take(now).unwrap();
    pending.answered(id, Some(Outcome::Stale), now);
    for outcome in [Outcome::Stale, Outcome::Stale, Outcome::Done] {
        pending.line(room, line(1), true);
        assert_eq!((pending.take(now), pending.want()), (None, None), "not at once");
        assert_eq!(pending.due(), Some(now + renew));
        now += renew;
        assert_eq!((pending.take(now), pending.due()), (None, Some(Duration::ZERO)));
        assert_eq!((pending.want(), pending.want()), (Some(0), None));
        pending.anew(room, Bytes::from_static(b"head"), [line(1)].into_iter().collect());
        let (id, write) = pending.take(now).unwrap();
        assert_eq!((write.action, write.total), (Action::Anew, 1));
        pending.answered(id, Some(outcome), now);
    }
    pending.line(room, line(2), true);
    assert_eq!(flush(&mut pending, now).len(), 1);
    assert_eq!(pending.bytes(), 0);
}

#[test]
fn listings_are_renewed_in_time_and_not_all_at_once() {
    const RENEW: Duration = Duration::from_secs(20);
    let mut pending = pending(|c| {
        c.renewals_per_second = 100;
        c.renew = RENEW;
    });
    for n in 0..1_000 {
        open(&mut pending, &n.to_string());
    }
    assert_eq!(flush(&mut pending, START).len(), 1_000);
    assert_eq!(pending.due(), Some(START + RENEW));
    let (mut now, mut renewed) = (START + RENEW, 0);
    while renewed < 1_000 {
        let writes = flush(&mut pending, now);
        assert!(writes.len() <= BURST as usize + 1);
        for write in &writes {
            assert_eq!((write.action, write.before), (Action::Change, write.after));
            assert_eq!(write.lives, RENEW * ROUNDS);
        }
        renewed += writes.len();
        now += Duration::from_millis(100);
    }
    let took = now - START - RENEW;
    assert!((Duration::from_secs(9)..Duration::from_secs(11)).contains(&took), "{took:?}");
}

#[test]
fn a_renewal_that_gave_way_to_changes_comes_also_where_they_cancel_each_other() {
    let mut pending = pending(|_| {});
    let room = open(&mut pending, "a");
    flush(&mut pending, START);
    let now = START + DirectoryConfig::default().renew;
    pending.line(room, line(1), true);
    // Its renewal is due, and is left to the change.
    assert_eq!(pending.renewal(now), None);
    pending.line(room, line(1), false);
    let writes = flush(&mut pending, now);
    assert_eq!(writes.len(), 1);
    assert_eq!((writes[0].action, writes[0].before), (Action::Change, writes[0].after));
    assert_eq!(pending.due(), Some(now + DirectoryConfig::default().renew), "and again");
}

#[test]
fn with_many_listings_rounds_and_lives_are_longer() {
    let mut pending = pending(|c| c.renewals_per_second = 10);
    for n in 0..1_000 {
        open(&mut pending, &n.to_string());
    }
    let (_, write) = pending.take(START).unwrap();
    assert_eq!(write.lives, Duration::from_secs(100) * ROUNDS);
}

#[test]
fn what_is_written_again_and_again_is_looked_at_once_a_round_and_never_too_late() {
    let mut pending = pending(|_| {});
    let renew = DirectoryConfig::default().renew;
    let room = open(&mut pending, "a");
    let (mut now, mut last) = (START, START);
    for n in 0..10_000 {
        now += renew / 40;
        if n % 100 < 50 {
            pending.line(room, line(n), true);
        }
        if !flush(&mut pending, now).is_empty() {
            assert!(now - last <= renew * (ROUNDS - 1), "{:?}", now - last);
            last = now;
        }
        assert!(pending.renewals.len() <= 1);
    }
}
