use super::*;
use crate::weaknet::{
    profile::{Bursts, GilbertElliott, Jitter, Shape},
    units::Rate,
};

const MS: Duration = Duration::from_millis(1);

fn link(spec: &LinkSpec, seed: u64) -> Link {
    Link::new(spec, seed, 5, Direction::Up)
}

fn none(_: Duration) -> Option<Outage> {
    None
}

fn send(link: &mut Link, now: Duration, bytes: u64) -> Fate {
    link.send(now, Duration::ZERO, bytes, none)
}

fn weather() -> LinkSpec {
    LinkSpec {
        delay: 50 * MS,
        jitter: Some(Jitter { spread: 20 * MS, slot: 20 * MS, shape: Shape::Even, reorder: false }),
        loss: 0.05,
        gilbert_elliott: Some(GilbertElliott {
            good: 900 * MS,
            bad: 100 * MS,
            loss_good: 0.0,
            loss_bad: 0.7,
        }),
        bursts: Some(Bursts { length: 60 * MS, share: 0.05, together: false }),
        bottleneck: None,
        duplicate: 0.01,
    }
}

#[test]
fn the_same_seed_gives_the_same_fates_and_another_seed_gives_others() {
    let fates = |seed| {
        let mut link = link(&weather(), seed);
        (0..10_000).map(|step| send(&mut link, MS * step, 100)).collect::<Vec<_>>()
    };
    assert_eq!(fates(1), fates(1));
    assert_ne!(fates(1), fates(2));
}

#[test]
fn what_one_client_sends_changes_nothing_for_another() {
    let alone: Vec<_> = {
        let mut link = link(&weather(), 1);
        (0..5_000).map(|step| send(&mut link, 2 * MS * step, 100)).collect()
    };
    let mut this = link(&weather(), 1);
    let mut other = Link::new(&weather(), 1, 6, Direction::Up);
    let among_others: Vec<_> = (0..5_000)
        .map(|step| {
            for _ in 0..step % 4 {
                send(&mut other, 2 * MS * step, 1200);
            }
            send(&mut this, 2 * MS * step, 100)
        })
        .collect();
    assert_eq!(alone, among_others);
}

#[test]
fn a_restart_of_the_schedule_brings_the_same_fates_again() {
    let mut link = link(&weather(), 3);
    let mut run = |begun: Duration| -> Vec<_> {
        link.restart();
        (0..5_000)
            .map(|step| link.send(begun + MS * step, begun, 100, none))
            .map(|fate| match fate {
                Fate::Arrives { at, copy } => Ok((at - begun, copy.is_some())),
                Fate::Lost(cause) => Err(cause),
            })
            .collect()
    };
    let first = run(Duration::ZERO);
    assert_eq!(first, run(Duration::from_secs(7)));
}

#[test]
fn order_is_kept_unless_reordering_is_asked_for() {
    let overtakes = |reorder| {
        let mut spec = weather();
        spec.jitter = Some(Jitter { spread: 20 * MS, slot: MS, shape: Shape::Tail, reorder });
        let mut link = link(&spec, 1);
        let mut last = Duration::ZERO;
        (0..20_000)
            .filter_map(|step| match send(&mut link, MS * step, 100) {
                Fate::Arrives { at, .. } => Some(at),
                Fate::Lost(_) => None,
            })
            .filter(|at| std::mem::replace(&mut last, *at) > *at)
            .count()
    };
    assert_eq!(overtakes(false), 0);
    assert!(overtakes(true) > 1000);
}

#[test]
fn a_queue_drops_at_its_tail_and_delays_by_no_more_than_it_holds() {
    for queue in [Queue::Time(1000 * MS), Queue::Bytes(125_000)] {
        let bottleneck = Some(Bottleneck { rate: Rate(1e6), queue });
        let spec = LinkSpec { delay: 50 * MS, bottleneck, ..LinkSpec::default() };
        let mut link = link(&spec, 1);
        // 2000 packets of 10 ms at once, and one when a tenth of what fitted has left.
        let fates: Vec<_> = (0..2000).map(|_| send(&mut link, Duration::ZERO, 1250)).collect();
        let (fit, dropped) = fates.split_at(100);
        assert_eq!(fit[0], Fate::Arrives { at: 60 * MS, copy: None });
        assert_eq!(fit[99], Fate::Arrives { at: 1050 * MS, copy: None });
        assert!(dropped.iter().all(|fate| *fate == Fate::Lost(Cause::Queue)));
        let later = send(&mut link, 100 * MS, 1250);
        assert_eq!(later, Fate::Arrives { at: 1060 * MS, copy: None });
        assert_eq!(link.counters.lost.queue.packets, 1900);
        assert_eq!(link.counters.sent.bytes, 2001 * 1250);
    }
}

#[test]
fn a_blackout_loses_packets_or_holds_them_to_its_end() {
    let spec = LinkSpec { delay: 50 * MS, ..LinkSpec::default() };
    for held in [false, true] {
        let mut link = link(&spec, 1);
        let outage =
            |at| (at >= 100 * MS && at < 400 * MS).then_some(Outage { until: 400 * MS, held });
        let begun = 1000 * MS;
        let mut at = |after: u32| link.send(begun + MS * after, begun, 100, outage);
        assert_eq!(at(99), Fate::Arrives { at: 1149 * MS, copy: None });
        let expected = if held {
            Fate::Arrives { at: 1450 * MS, copy: None }
        } else {
            Fate::Lost(Cause::Blackout)
        };
        assert_eq!(at(100), expected);
        assert_eq!(at(399), expected);
        assert_eq!(at(400), Fate::Arrives { at: 1450 * MS, copy: None });
    }
}
