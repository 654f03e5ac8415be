//! Who owns a name or a handle: rendezvous hashing over the addresses of the instances that have a role.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// What stands for an instance in [`rendezvous`].
pub(crate) fn seed(address: &str) -> u64 {
    xxh3_64(address.as_bytes())
}

/// The instance whose hash with the key, a name or a handle, is the highest: one that is added takes keys over,
/// and no key moves between the others.
pub(crate) fn rendezvous<T>(nodes: impl Iterator<Item = (T, u64)>, key: &[u8]) -> Option<T> {
    let weight = |(_, seed): &(T, u64)| (xxh3_64_with_seed(key, *seed), *seed);
    nodes.max_by_key(weight).map(|(node, _)| node)
}

/// The instances of a role, as one of them sees them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ring {
    own: u64,
    all: Vec<u64>,
}

impl Ring {
    /// Of the instance at `own`, which may be missing in the list: then it owns nothing.
    pub(crate) fn new(own: &str, addresses: &[String]) -> Self {
        Self { own: seed(own), all: addresses.iter().map(|address| seed(address)).collect() }
    }

    /// Whether the key is this instance's.
    pub(crate) fn owns(&self, key: &[u8]) -> bool {
        rendezvous(self.all.iter().map(|seed| (*seed, *seed)), key) == Some(self.own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(n: usize) -> Vec<String> {
        (0..n).map(|n| format!("10.0.0.{n}:7400")).collect()
    }

    #[test]
    fn each_name_has_one_owner_and_a_new_instance_takes_only_its_share() {
        let owner = |all: &[String], name: &str| {
            let owners = all.iter().filter(|own| Ring::new(own, all).owns(name.as_bytes()));
            owners.cloned().collect::<Vec<_>>()
        };
        let (four, five) = (addresses(4), addresses(5));
        let mut moved = 0;
        for n in 0..2_000 {
            let name = format!("chat:room-{n}");
            let (before, after) = (owner(&four, &name), owner(&five, &name));
            assert_eq!((before.len(), after.len()), (1, 1));
            if before != after {
                assert_eq!(after[0], five[4], "only to the new one");
                moved += 1;
            }
        }
        assert!((300..500).contains(&moved), "{moved} of 2,000 moved to one of five");
    }

    #[test]
    fn who_is_not_in_the_list_owns_nothing() {
        let ring = Ring::new("10.0.0.9:7400", &addresses(2));
        assert!((0..100).all(|n| !ring.owns(format!("room-{n}").as_bytes())));
        assert!(!Ring::new("a:1", &[]).owns(b"room"));
    }
}
