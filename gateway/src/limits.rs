//! How much a user may send: a token bucket for each user, in bytes and in frames. Who is over
//! it is not cut and loses nothing: it gets its credit back later, so that it sends slower.

use std::{
    collections::HashMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;

/// Rates of one user over all its connections to this gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rates {
    /// Bytes a second; twice as much may come at once.
    pub bytes_per_second: u64,
    /// Frames a second; twice as many may come at once.
    pub frames_per_second: u64,
}

/// The rates in use, which may change: read for each batch of frames.
#[derive(Debug)]
struct Current {
    bytes_per_second: AtomicU64,
    frames_per_second: AtomicU64,
}

impl Current {
    fn new(rates: Rates) -> Arc<Self> {
        Arc::new(Self {
            bytes_per_second: AtomicU64::new(rates.bytes_per_second),
            frames_per_second: AtomicU64::new(rates.frames_per_second),
        })
    }

    fn set(&self, rates: Rates) {
        self.bytes_per_second.store(rates.bytes_per_second, Ordering::Relaxed);
        self.frames_per_second.store(rates.frames_per_second, Ordering::Relaxed);
    }
}

/// The bucket of one user.
#[derive(Debug)]
pub struct Bucket {
    rates: Arc<Current>,
    /// When the bytes and the frames that were taken will have been earned.
    earned: Mutex<(Instant, Instant)>,
}

impl Bucket {
    fn new(rates: Arc<Current>) -> Self {
        let now = Instant::now();
        Self { rates, earned: Mutex::new((now, now)) }
    }

    /// Takes from the bucket. The time until which the user is over its rate, if it is.
    pub fn take(&self, bytes: u64, frames: u32) -> Option<Instant> {
        let now = Instant::now();
        let mut earned = self.earned.lock();
        let cost = |n: u64, per_second: u64| {
            Duration::from_nanos(n.saturating_mul(1_000_000_000) / per_second.max(1))
        };
        earned.0 =
            earned.0.max(now) + cost(bytes, self.rates.bytes_per_second.load(Ordering::Relaxed));
        let frames_per_second = self.rates.frames_per_second.load(Ordering::Relaxed);
        earned.1 = earned.1.max(now) + cost(u64::from(frames), frames_per_second);
        let until = earned.0.max(earned.1).checked_sub(BURST)?;
        (until > now).then_some(until)
    }
}

/// What may be taken ahead of what is earned.
const BURST: Duration = Duration::from_secs(2);

/// The buckets of all users that are connected.
#[derive(Debug)]
pub struct Buckets {
    rates: Arc<Current>,
    users: Mutex<HashMap<String, Weak<Bucket>>>,
}

impl Buckets {
    /// No buckets yet.
    #[must_use]
    pub fn new(rates: Rates) -> Self {
        Self { rates: Current::new(rates), users: Mutex::default() }
    }

    /// All users have these rates from now on. What was taken before was paid for at the old ones.
    pub fn set_rates(&self, rates: Rates) {
        self.rates.set(rates);
    }

    /// The bucket of a user. It lives as long as somebody holds it.
    pub fn of(&self, user: &str) -> Arc<Bucket> {
        let mut users = self.users.lock();
        if let Some(bucket) = users.get(user).and_then(Weak::upgrade) {
            return bucket;
        }
        if users.len() == users.capacity() {
            // Before it grows, those who left are forgotten: the map is bounded by who is here.
            users.retain(|_, bucket| bucket.strong_count() > 0);
        }
        let bucket = Arc::new(Bucket::new(Arc::clone(&self.rates)));
        users.insert(user.to_owned(), Arc::downgrade(&bucket));
        bucket
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_slowed_only_above_its_rate_and_by_as_much_as_it_is_above() {
        let rates = Rates { bytes_per_second: 1000, frames_per_second: 1000 };
        let bucket = Bucket::new(Current::new(rates));
        assert_eq!(bucket.take(1900, 1), None);
        let until = bucket.take(3000, 1).expect("4,900 bytes at once is above 2,000");
        let wait = until - Instant::now();
        assert!(
            wait > Duration::from_millis(2500) && wait < Duration::from_millis(2901),
            "{wait:?}"
        );
    }

    #[test]
    fn other_rates_hold_for_users_who_are_here_and_for_those_who_come() {
        let slow = Rates { bytes_per_second: 1, frames_per_second: 1000 };
        let fast = Rates { bytes_per_second: 1_000_000, frames_per_second: 1000 };
        let buckets = Buckets::new(slow);
        let ann = buckets.of("ann");
        buckets.set_rates(fast);
        for bucket in [ann, buckets.of("bob")] {
            assert_eq!(bucket.take(1_000_000, 1), None);
        }
        buckets.set_rates(slow);
        assert!(buckets.of("cid").take(1000, 1).is_some());
    }

    #[test]
    fn the_connections_of_a_user_share_a_bucket_and_it_is_forgotten_with_the_last() {
        let buckets = Buckets::new(Rates { bytes_per_second: 1, frames_per_second: 1 });
        let one = buckets.of("ann");
        assert!(Arc::ptr_eq(&one, &buckets.of("ann")));
        assert!(!Arc::ptr_eq(&one, &buckets.of("bob")));
        drop(one);
        for n in 0..1000 {
            buckets.of(&format!("user-{n}"));
        }
        assert!(buckets.users.lock().len() < 100);
    }
}
