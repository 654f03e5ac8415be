//! Generations: each login of a user's device has a higher one than the login before.

use std::collections::HashMap;

use parking_lot::Mutex;

/// Devices that are remembered: at about 100 bytes each, 10 MB.
const DEVICES: usize = 100_000;

/// The last generation of each device. Time carries the order across restarts and over what was
/// forgotten; memory carries it through a clock that stands still or goes back.
#[derive(Debug, Default)]
pub(super) struct Generations {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    last: HashMap<(String, String), u64>,
    /// No generation of a forgotten device was above this.
    floor: u64,
}

impl Generations {
    pub(super) fn next(&self, user: &str, device: &str, now_ms: u64) -> u64 {
        let mut inner = self.inner.lock();
        let key = (user.to_owned(), device.to_owned());
        let last = inner.last.get(&key).copied().unwrap_or(inner.floor);
        let generation = now_ms.max(last.saturating_add(1));
        if inner.last.len() >= DEVICES && !inner.last.contains_key(&key) {
            let highest = inner.last.values().copied().max().unwrap_or_default();
            inner.floor = inner.floor.max(highest);
            inner.last.clear();
        }
        inner.last.insert(key, generation);
        metrics::gauge!("edgeway_auth_devices").set(inner.last.len() as f64);
        generation
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_login_has_a_higher_generation_even_when_the_clock_goes_back() {
        let generations = Generations::default();
        assert_eq!(generations.next("ada", "phone", 1_000), 1_000);
        assert_eq!(generations.next("ada", "phone", 1_000), 1_001);
        assert_eq!(generations.next("ada", "phone", 500), 1_002);
        assert_eq!(generations.next("ada", "tablet", 500), 500);
        assert_eq!(generations.next("ada", "phone", 2_000), 2_000);
    }

    #[test]
    fn forgetting_devices_does_not_lower_generations() {
        let generations = Generations::default();
        let first = generations.next("ada", "phone", 5_000);
        for i in 0..=DEVICES {
            generations.next("many", &i.to_string(), 1);
        }
        assert!(generations.inner.lock().last.len() <= DEVICES);
        assert!(generations.next("ada", "phone", 1) > first);
    }
}
