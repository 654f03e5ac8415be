use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

const KEYS: u64 = 100_000;

fn candidates(weights: &[u32]) -> Vec<Candidate> {
    let one = |(index, weight): (usize, &u32)| Candidate {
        index,
        seed: xxh3_64_with_seed(format!("gw-{index}").as_bytes(), 0),
        weight: *weight,
        connections: 0,
        busy: false,
    };
    weights.iter().enumerate().map(one).collect()
}

fn ask(user: Option<&str>, nonce: u64) -> Ask<'_> {
    Ask { user, nonce, loads: true, most: 3 }
}

/// Within 5% of what the weights say.
#[track_caller]
fn check_spread(counts: &HashMap<usize, u64>, weights: &[u32]) {
    let all: u32 = weights.iter().sum();
    for (index, weight) in weights.iter().enumerate() {
        let share = KEYS as f64 * f64::from(*weight) / f64::from(all);
        let count = counts.get(&index).copied().unwrap_or(0) as f64;
        assert!((count - share).abs() <= share * 0.05, "{index}: {count} of {share}");
    }
}

fn spread(policy: Policy, weights: &[u32], loads: bool, users: bool) -> HashMap<usize, u64> {
    let mut all = candidates(weights);
    let mut counts = HashMap::new();
    for nonce in 0..KEYS {
        let user = format!("user-{nonce}");
        let ask = Ask { loads, ..ask(users.then_some(&*user), nonce) };
        let first = order(policy, &all, ask)[0];
        // As the table does.
        all[first].connections += 1;
        *counts.entry(first).or_default() += 1;
    }
    counts
}

#[test]
fn each_policy_spreads_by_weights_with_loads_and_without() {
    let weights = [100, 100, 50, 250];
    for policy in [Policy::Weighted, Policy::LeastLoad, Policy::Sticky] {
        for (loads, users) in [(true, true), (true, false), (false, true), (false, false)] {
            check_spread(&spread(policy, &weights, loads, users), &weights);
        }
    }
}

#[test]
fn the_least_loaded_is_first_until_it_has_what_the_others_have() {
    let mut all = candidates(&[100, 100, 200]);
    (all[0].connections, all[1].connections, all[2].connections) = (50, 1_000, 900);
    assert_eq!(order(Policy::LeastLoad, &all, ask(None, 1)), [0, 2, 1]);
    for nonce in 0..3_000 {
        let first = order(Policy::LeastLoad, &all, ask(None, nonce))[0];
        all[first].connections += 1;
    }
    let per_weight: Vec<_> =
        all.iter().map(|one| one.connections / u64::from(one.weight)).collect();
    assert_eq!(per_weight, [12, 12, 12]);
}

#[test]
fn who_returns_meets_the_same_gateway_and_only_those_of_one_that_left_are_moved() {
    let all = candidates(&[100, 100, 100, 100]);
    let without: Vec<_> = all.iter().copied().filter(|one| one.index != 2).collect();
    let mut moved = 0;
    for n in 0..KEYS {
        let user = format!("user-{n}");
        let before = order(Policy::Sticky, &all, ask(Some(&user), n));
        assert_eq!(before[0], order(Policy::Sticky, &all, ask(Some(&user), n + 7))[0]);
        let after = order(Policy::Sticky, &without, ask(Some(&user), n))[0];
        if before[0] == 2 {
            moved += 1;
            assert_eq!(after, before[1], "to the next one of its list");
        } else {
            assert_eq!(after, before[0]);
        }
    }
    assert!((23_750..=26_250).contains(&moved), "{moved}");
}

#[test]
fn a_gateway_above_its_bound_or_busy_is_last_for_those_who_return() {
    let mut all = candidates(&[100, 100]);
    (all[0].connections, all[1].connections) = (1_400, 1_000);
    let first = |all: &[Candidate], n: u64| {
        order(Policy::Sticky, all, ask(Some(&format!("user-{n}")), n))[0]
    };
    // 1.25 times the mean, and the slack, is above 1,400.
    assert!((0..100).any(|n| first(&all, n) == 0));
    all[0].connections = 2_000;
    assert!((0..100).all(|n| first(&all, n) == 1));
    all[0].connections = 1_000;
    all[1].busy = true;
    assert!((0..100).all(|n| first(&all, n) == 0));
    all[0].busy = true;
    assert!((0..100).any(|n| first(&all, n) == 1), "all are busy: as if none were");
}

#[test]
fn without_loads_all_go_by_weights() {
    let mut all = candidates(&[100, 100]);
    (all[0].connections, all[0].busy) = (1_000_000, true);
    for policy in [Policy::Weighted, Policy::LeastLoad, Policy::Sticky] {
        let first = |n: u64| {
            order(policy, &all, Ask { loads: false, ..ask(Some(&format!("user-{n}")), n) })[0]
        };
        assert!((0..100).any(|n| first(n) == 0), "{policy:?}");
    }
}

#[test]
fn busy_is_by_cpu_lag_and_connections() {
    let load = |cpu_cores, loop_lag_ms| edgeway_stat::Load {
        cpu_cores,
        loop_lag_ms,
        ..edgeway_stat::Load::default()
    };
    assert!(!is_busy(&load(1.7, 10.0), 2, 5, 10));
    assert!(is_busy(&load(1.8, 10.0), 2, 5, 10));
    assert!(is_busy(&load(0.0, 250.0), 2, 5, 10));
    assert!(is_busy(&load(0.0, 0.0), 2, 10, 10));
    assert!(!is_busy(&load(9.0, 0.0), 0, 10, 0), "nothing is known of its bounds");
}

proptest! {
    #[test]
    fn each_is_given_once_and_as_many_as_are_wanted(
        weights in proptest::collection::vec(1..1_000_u32, 0..40),
        loads in proptest::collection::vec((0..10_000_u64, any::<bool>()), 40),
        user in proptest::option::of("[a-z]{1,8}"),
        nonce in any::<u64>(),
        known in any::<bool>(),
        most in 1..8_usize,
        which in 0..3_usize,
    ) {
        let mut all = candidates(&weights);
        for (one, (connections, busy)) in all.iter_mut().zip(loads) {
            (one.connections, one.busy) = (connections, busy);
        }
        let policy = [Policy::Weighted, Policy::LeastLoad, Policy::Sticky][which];
        let ask = Ask { user: user.as_deref(), nonce, loads: known, most };
        let some = order(policy, &all, ask);
        prop_assert_eq!(some.len(), most.min(all.len()));
        let whole = order(policy, &all, Ask { most: usize::MAX, ..ask });
        prop_assert_eq!(&whole[..some.len()], &some[..]);
        let mut sorted = whole.clone();
        sorted.sort_unstable();
        prop_assert_eq!(sorted, (0..all.len()).collect::<Vec<_>>());
        if known && policy != Policy::Weighted {
            let late: Vec<_> = whole.iter().map(|i| all[*i].busy).collect();
            let first_busy = late.iter().position(|busy| *busy).unwrap_or(late.len());
            prop_assert!(policy == Policy::Sticky || late[first_busy..].iter().all(|busy| *busy));
        }
    }
}
