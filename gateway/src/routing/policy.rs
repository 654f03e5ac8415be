//! Which instance of a backend serves a key: pure functions, the same on every gateway.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// How a Session finds its instance (SOURCE.md, TcpProxyServer).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// One after the other, whoever it is.
    RoundRobin,
    /// The key's hash modulo the number of instances. Nearly every key moves when that number changes.
    Hash,
    /// The instance with the highest hash of (instance, key) (rendezvous hashing, Thaler and Ravishankar
    /// 1998): an instance more or less moves only its own keys.
    #[default]
    ConsistentHash,
}

impl Policy {
    /// Whether a key belongs to one instance.
    #[must_use]
    pub fn is_keyed(self) -> bool {
        self != Self::RoundRobin
    }

    /// Indexes of all instances, in the order in which they are to be tried. `instances` are hashes of
    /// their addresses ([`hash`]); `turn` grows with each Session.
    #[must_use]
    pub fn order(self, instances: &[u64], key: u64, turn: u64) -> Vec<usize> {
        let count = instances.len();
        let from = |start: u64| {
            // Below the count, which is one of a list in memory.
            #[allow(clippy::cast_possible_truncation)]
            let start = start.checked_rem(count as u64).unwrap_or(0) as usize;
            (start..count).chain(0..start).collect()
        };
        match self {
            Self::RoundRobin => from(turn),
            Self::Hash => from(key),
            Self::ConsistentHash => {
                let mut order: Vec<_> = (0..count).collect();
                order.sort_by_cached_key(|at| std::cmp::Reverse(weight(instances[*at], key)));
                order
            }
        }
    }

    /// The first of [`order`](Self::order), without looking at the rest.
    #[must_use]
    pub fn first(self, instances: &[u64], key: u64, turn: u64) -> Option<usize> {
        match self {
            Self::ConsistentHash => {
                (0..instances.len()).rev().max_by_key(|at| weight(instances[*at], key))
            }
            Self::RoundRobin | Self::Hash => self.order(instances, key, turn).first().copied(),
        }
    }
}

/// The hash of a key or of an address.
#[must_use]
pub fn hash(text: &str) -> u64 {
    xxh3_64(text.as_bytes())
}

fn weight(instance: u64, key: u64) -> u64 {
    xxh3_64_with_seed(&key.to_le_bytes(), instance)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const KEYS: u64 = 100_000;

    fn instances(count: u64) -> Vec<u64> {
        (0..count).map(|n| hash(&format!("10.0.0.{n}:7400"))).collect()
    }

    fn key(n: u64) -> u64 {
        hash(&format!("user-{n}"))
    }

    fn shares(policy: Policy, instances: &[u64]) -> Vec<u64> {
        let mut shares = vec![0; instances.len()];
        for n in 0..KEYS {
            shares[policy.first(instances, key(n), n).unwrap()] += 1;
        }
        shares
    }

    #[test]
    fn every_policy_tries_every_instance_once_and_begins_with_the_first() {
        for policy in [Policy::RoundRobin, Policy::Hash, Policy::ConsistentHash] {
            for count in 0..9 {
                let instances = instances(count);
                for n in 0..200 {
                    let order = policy.order(&instances, key(n), n);
                    assert_eq!(order.first().copied(), policy.first(&instances, key(n), n));
                    let mut sorted = order.clone();
                    sorted.sort_unstable();
                    assert_eq!(sorted, (0..instances.len()).collect::<Vec<_>>());
                }
            }
        }
    }

    #[test]
    fn round_robin_takes_turns() {
        let instances = instances(7);
        for n in 0..KEYS {
            let first = Policy::RoundRobin.first(&instances, key(n / 3), n);
            assert_eq!(first.unwrap() as u64, n % 7);
        }
    }

    #[test]
    fn hash_is_the_key_modulo_the_count() {
        let instances = instances(7);
        for n in 0..KEYS {
            let first = Policy::Hash.first(&instances, key(n), 0);
            assert_eq!(first.unwrap() as u64, key(n) % 7);
        }
    }

    #[test]
    fn keys_spread_evenly() {
        for policy in [Policy::Hash, Policy::ConsistentHash] {
            for count in [2, 5, 16] {
                let even = KEYS / count;
                for share in shares(policy, &instances(count)) {
                    // Five standard deviations of a fair draw.
                    let spread = 5 * even.isqrt();
                    assert!(
                        share.abs_diff(even) < spread,
                        "{policy:?} of {count}: {share}, not {even}"
                    );
                }
            }
        }
    }

    #[test]
    fn without_one_of_n_instances_a_consistent_hash_moves_its_keys_and_no_others() {
        for count in [2, 3, 5, 10, 20] {
            let before = instances(count);
            for gone in 0..before.len() {
                let after: Vec<_> = before
                    .iter()
                    .enumerate()
                    .filter(|(at, _)| *at != gone)
                    .map(|(_, i)| *i)
                    .collect();
                let mut moved = 0;
                for n in 0..KEYS / 4 {
                    let was = Policy::ConsistentHash.first(&before, key(n), 0).unwrap();
                    let is = Policy::ConsistentHash.first(&after, key(n), 0).unwrap();
                    if before[was] != after[is] {
                        assert_eq!(was, gone, "a key of an instance that stays");
                        moved += 1;
                    }
                }
                let most = 1.2 * (KEYS / 4) as f64 / count as f64;
                assert!(f64::from(moved) <= most, "{moved} of {} moved, of {count}", KEYS / 4);
            }
        }
    }

    #[test]
    fn the_order_of_the_list_is_no_part_of_a_consistent_hash() {
        let list = instances(6);
        let turned: Vec<_> = list.iter().rev().copied().collect();
        for n in 0..1000 {
            let one = Policy::ConsistentHash.first(&list, key(n), 0).unwrap();
            let other = Policy::ConsistentHash.first(&turned, key(n), 0).unwrap();
            assert_eq!(list[one], turned[other]);
        }
    }
}
