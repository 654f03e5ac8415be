//! How often an address may ask. Coarse on purpose: a count for each address and second.

use std::{collections::HashMap, net::IpAddr, time::Instant};

use parking_lot::Mutex;

/// Addresses that are counted in a second; those beyond are counted together.
const ADDRESSES: usize = 65_536;

/// See the module.
pub(crate) struct Flood {
    begun: Instant,
    window: Mutex<Window>,
}

#[derive(Default)]
struct Window {
    second: u64,
    counts: HashMap<IpAddr, u64>,
    others: u64,
}

impl Default for Flood {
    fn default() -> Self {
        Self { begun: Instant::now(), window: Mutex::default() }
    }
}

impl Flood {
    /// Counts a request of an address; whether it is one of the first `most` of this second. 0 for any number.
    pub(crate) fn admits(&self, ip: IpAddr, most: u64) -> bool {
        most == 0 || self.admits_at(ip, most, self.begun.elapsed().as_secs())
    }

    fn admits_at(&self, ip: IpAddr, most: u64, second: u64) -> bool {
        let ip = network(ip);
        let mut window = self.window.lock();
        if window.second != second {
            window.second = second;
            window.counts.clear();
            window.others = 0;
        }
        let Window { counts, others, .. } = &mut *window;
        let is_full = counts.len() >= ADDRESSES;
        let count = match counts.get_mut(&ip) {
            Some(count) => count,
            None if is_full => others,
            None => counts.entry(ip).or_default(),
        };
        *count += 1;
        *count <= most
    }
}

/// Whoever has an IPv6 address has all of its /64.
fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6((ip.to_bits() & !u128::from(u64::MAX)).into()),
        ip => ip,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn ip(n: u32) -> IpAddr {
        IpAddr::V4(n.into())
    }

    #[test]
    fn an_address_has_so_many_requests_in_a_second() {
        let flood = Flood::default();
        let admitted =
            |of: IpAddr, second| (0..10).filter(|_| flood.admits_at(of, 4, second)).count();
        assert_eq!((admitted(ip(1), 0), admitted(ip(2), 0), admitted(ip(1), 1)), (4, 4, 4));
        assert!(flood.admits(ip(1), 0));
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let (a, b) = ("2001:db8::1", "2001:db8::ffff:1");
        assert_eq!(network(a.parse().unwrap()), network(b.parse().unwrap()));
        assert_ne!(network(a.parse().unwrap()), network("2001:db8:0:1::1".parse().unwrap()));
        assert_eq!(network("::ffff:10.0.0.1".parse().unwrap()), ip(0x0a00_0001));
    }

    #[test]
    fn more_addresses_than_are_counted_share_what_one_has() {
        let flood = Flood::default();
        let admitted = (0..2 * 65_536).filter(|n| flood.admits_at(ip(*n), 4, 0)).count();
        assert_eq!(admitted, ADDRESSES + 4);
        assert_eq!(flood.window.lock().counts.len(), ADDRESSES);
    }
}
