//! API keys: who asks, what they may, and how much. Only hashes are kept: a key is 32 random bytes, so a fast one will
//! do.

use std::{collections::HashMap, fmt, sync::Arc, time::Instant};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use parking_lot::Mutex;
use ring::digest::{SHA256, digest};

/// In front of each key, so that one that is where it should not be is found.
const PREFIX: &str = "edgeway_";
/// In front of each hash.
const HASH: &str = "sha256:";
const SECRET_BYTES: usize = 32;

/// What a key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// Send messages, and set room state.
    Send,
    /// Kick, mute, block, open and close.
    Moderate,
    /// See state, history, members, and where users are.
    Read,
}

impl Scope {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Send, Self::Moderate, Self::Read];

    /// As in the config.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Send => "send",
            Self::Moderate => "moderate",
            Self::Read => "read",
        }
    }

    /// The inverse of [`Self::name`].
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.name() == name)
    }
}

/// The hash of a key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyHash([u8; 32]);

impl KeyHash {
    /// Of the key as a caller sends it.
    pub(crate) fn of(key: &str) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, key.as_bytes()).as_ref());
        Self(hash)
    }

    /// As in the config; `None` where that is no hash.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let bytes = BASE64.decode(text.strip_prefix(HASH)?).ok()?;
        Some(Self(bytes.try_into().ok()?))
    }
}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{HASH}{}", BASE64.encode(self.0))
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyHash")
    }
}

/// A new key.
#[derive(Debug)]
pub struct Made {
    /// For the caller alone.
    pub key: String,
    /// For the config.
    pub hash: KeyHash,
}

/// Makes a key.
///
/// # Errors
/// Where the system gives no random numbers.
pub fn make_key() -> Result<Made, getrandom::Error> {
    let mut secret = [0; SECRET_BYTES];
    getrandom::fill(&mut secret)?;
    let key = format!("{PREFIX}{}", BASE64.encode(secret));
    Ok(Made { hash: KeyHash::of(&key), key })
}

/// A key, as the config has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// For logs and metrics.
    pub(crate) name: String,
    pub(crate) hash: KeyHash,
    /// By their number.
    pub(crate) scopes: [bool; Scope::ALL.len()],
    pub(crate) per_second: u32,
}

/// Keys that are in use, found by their hashes.
#[derive(Debug, Default)]
pub(crate) struct Keys(HashMap<KeyHash, Arc<InUse>>);

/// A key and what is left of its limit.
#[derive(Debug)]
pub(crate) struct InUse {
    pub(crate) key: Key,
    limit: Mutex<Limit>,
}

/// What may still be done. It fills up to what is allowed in a second.
#[derive(Debug)]
struct Limit {
    left: f64,
    at: Instant,
}

impl Keys {
    /// Those of a config; one that was there keeps what is left of its limit.
    pub(crate) fn new(keys: &[Key], before: &Self, now: Instant) -> Self {
        let in_use = |key: &Key| match before.0.get(&key.hash) {
            Some(one) if one.key == *key => Arc::clone(one),
            _ => {
                let limit = Limit { left: f64::from(key.per_second), at: now };
                Arc::new(InUse { key: key.clone(), limit: Mutex::new(limit) })
            }
        };
        Self(keys.iter().map(|key| (key.hash, in_use(key))).collect())
    }

    pub(crate) fn find(&self, key: &str) -> Option<Arc<InUse>> {
        self.0.get(&KeyHash::of(key)).cloned()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl InUse {
    pub(crate) fn may(&self, scope: Scope) -> bool {
        self.key.scopes[scope as usize]
    }

    /// Takes `count` from what is left. Where something is, it is enough: what is too much is taken from what comes,
    /// so that a request may be larger than what is allowed in a second.
    ///
    /// # Errors
    /// Milliseconds until there is something.
    pub(crate) fn take(&self, count: usize, now: Instant) -> Result<(), u64> {
        let per_second = f64::from(self.key.per_second);
        let mut limit = self.limit.lock();
        let since = now.saturating_duration_since(limit.at).as_secs_f64();
        limit.left = (limit.left + since * per_second).min(per_second);
        limit.at = now;
        if limit.left < 1.0 {
            let secs = (1.0 - limit.left) / per_second;
            return Err(std::time::Duration::from_secs_f64(secs)
                .as_millis()
                .try_into()
                .unwrap_or(u64::MAX)
                .max(1));
        }
        #[expect(clippy::cast_precision_loss, reason = "thousands")]
        {
            limit.left -= count as f64;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Duration;

    use super::*;

    fn in_use(per_second: u32, now: Instant) -> (Keys, Made) {
        let made = make_key().unwrap();
        let key =
            Key { name: "a".into(), hash: made.hash, scopes: [true, false, false], per_second };
        (Keys::new(&[key], &Keys::default(), now), made)
    }

    #[test]
    fn a_key_is_found_by_itself_alone_and_its_hash_is_read_back() {
        let (keys, made) = in_use(10, Instant::now());
        assert!(keys.find(&made.key).is_some_and(|k| k.may(Scope::Send) && !k.may(Scope::Read)));
        for other in ["", "edgeway_", &made.key[..made.key.len() - 1], &made.hash.to_string()] {
            assert!(keys.find(other).is_none());
        }
        assert_eq!(KeyHash::parse(&made.hash.to_string()), Some(made.hash));
        for bad in ["", "sha256:", "sha256:AAAA", &made.hash.to_string()[7..]] {
            assert_eq!(KeyHash::parse(bad), None);
        }
        assert_ne!(make_key().unwrap().key, made.key);
    }

    #[test]
    fn a_limit_lets_so_many_through_in_a_second_and_says_when_the_next_may_come() {
        let mut now = Instant::now();
        let (keys, made) = in_use(10, now);
        let key = keys.find(&made.key).unwrap();
        let passed = (0..100).filter(|_| key.take(1, now).is_ok()).count();
        assert_eq!(passed, 10);
        assert_eq!(key.take(1, now), Err(100));
        now += Duration::from_millis(100);
        assert_eq!(key.take(1, now), Ok(()));
        let mut passed = 0;
        for _ in 0..1000 {
            now += Duration::from_millis(1);
            passed += usize::from(key.take(1, now).is_ok());
        }
        assert!((9..=11).contains(&passed), "{passed}");
    }

    #[test]
    fn a_large_request_is_let_in_and_paid_for_afterwards() {
        let mut now = Instant::now();
        let (keys, made) = in_use(10, now);
        let key = keys.find(&made.key).unwrap();
        assert_eq!(key.take(100, now), Ok(()));
        let wait = key.take(1, now).unwrap_err();
        assert!((9_000..=9_100).contains(&wait), "{wait}");
        now += Duration::from_millis(wait + 1);
        assert_eq!(key.take(1, now), Ok(()));
    }

    #[test]
    fn a_key_that_stays_in_the_config_keeps_its_limit() {
        let now = Instant::now();
        let (keys, made) = in_use(10, now);
        let key = keys.find(&made.key).unwrap();
        key.take(100, now).unwrap();
        let again = Keys::new(std::slice::from_ref(&key.key), &keys, now);
        assert!(again.find(&made.key).unwrap().take(1, now).is_err());
        let other = Key { per_second: 20, ..key.key.clone() };
        let again = Keys::new(&[other], &keys, now);
        assert!(again.find(&made.key).unwrap().take(1, now).is_ok());
        assert!(Keys::new(&[], &keys, now).is_empty());
    }
}
