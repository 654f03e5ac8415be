//! TLS sessions of QUIC that a server can continue. Early data needs them in memory (rustls gives none
//! with stateless tickets), and each is given once: that is what keeps early data from being replayed.
//!
//! Of all that a server holds for an idle connection this is the part that it could do without, so
//! it is held as tightly as may be: two maps and no queue. When the newer one is full the older one is
//! forgotten, and the clients of that do a handshake without early data.

use std::{collections::HashMap, mem};

use parking_lot::Mutex;
use rustls::server::StoresServerSessions;

/// Of tickets of TLS 1.3 as rustls draws them.
const KEY_BYTES: usize = 32;

type Kept = HashMap<[u8; KEY_BYTES], Box<[u8]>>;

#[derive(Debug, Default)]
struct Both {
    newer: Kept,
    older: Kept,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Tickets {
    kept: Mutex<Both>,
    /// Of each of the two maps.
    max: usize,
}

impl Tickets {
    /// Keeps up to `max`, and the latest half of them for sure.
    pub(crate) fn new(max: usize) -> Self {
        Self { kept: Mutex::default(), max: max / 2 }
    }
}

impl StoresServerSessions for Tickets {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        let Ok(key) = key.try_into() else { return false };
        let mut kept = self.kept.lock();
        if kept.newer.len() >= self.max {
            kept.older = mem::take(&mut kept.newer);
        }
        kept.newer.insert(key, value.into());
        true
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        let kept = self.kept.lock();
        kept.newer.get(key).or_else(|| kept.older.get(key)).map(|value| value.to_vec())
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        let mut kept = self.kept.lock();
        let taken = kept.newer.remove(key);
        taken.or_else(|| kept.older.remove(key)).map(Vec::from)
    }

    fn can_cache(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: usize) -> Vec<u8> {
        n.to_be_bytes().into_iter().cycle().take(KEY_BYTES).collect()
    }

    #[test]
    fn each_is_given_once() {
        let tickets = Tickets::new(10);
        assert!(tickets.put(key(1), vec![1, 2, 3]));
        assert_eq!(tickets.get(&key(1)), Some(vec![1, 2, 3]));
        assert_eq!(tickets.take(&key(1)), Some(vec![1, 2, 3]));
        assert_eq!(tickets.take(&key(1)), None);
        assert_eq!(tickets.get(&key(1)), None);
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let tickets = Tickets::new(10);
        for n in 0..1000 {
            tickets.put(key(n), vec![0; 100]);
        }
        let kept = (0..1000).filter(|n| tickets.get(&key(*n)).is_some()).collect::<Vec<_>>();
        assert!((5..=10).contains(&kept.len()), "{kept:?}");
        assert_eq!(kept.last(), Some(&999));
        assert_eq!(kept.first(), Some(&(1000 - kept.len())));
    }

    #[test]
    fn keys_of_another_kind_are_not_kept() {
        assert!(!Tickets::new(10).put(vec![1; 16], vec![1]));
    }
}
