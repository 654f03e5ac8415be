//! What a payload says about itself: who sent it, as which of its messages, and when.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::{BufMut, BytesMut};
use rand::{Rng, SeedableRng, rngs::SmallRng};

/// Bytes that a stamp takes at the front of a payload, and so the smallest payload.
pub const STAMP_BYTES: usize = 16;

/// One monotonic clock for all senders and receivers of a run: they are in one process.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Instant,
    start_unix: Duration,
}

impl Clock {
    pub fn start() -> Self {
        let start_unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { start: Instant::now(), start_unix }
    }

    /// Milliseconds from `sent_ns` to a time of day in milliseconds since 1970, of a server on this
    /// machine; good to a millisecond or two.
    pub fn until_unix_ms(self, sent_ns: u64, unix_ms: u64) -> u64 {
        let sent = self.start_unix + Duration::from_nanos(sent_ns);
        let until = Duration::from_millis(unix_ms).saturating_sub(sent);
        u64::try_from(until.as_millis()).unwrap_or(u64::MAX)
    }

    /// Nanoseconds from the start to `instant`.
    pub fn at_ns(self, instant: Instant) -> u64 {
        let since = instant.saturating_duration_since(self.start);
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }

    /// Nanoseconds since the start; good for 584 years.
    pub fn now_ns(self) -> u64 {
        self.at_ns(Instant::now())
    }
}

/// The stamp of one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Number of the sender within its room, from 0.
    pub sender: u32,
    /// Number of the message within its sender and class, from 0.
    pub n: u32,
    /// When the sender called send.
    pub sent_ns: u64,
}

impl Stamp {
    /// The sender of messages that are not audited.
    pub const NOBODY: u32 = u32::MAX;

    /// Reads the front of a payload; `None` where it is too short.
    pub fn read(payload: &[u8]) -> Option<Self> {
        let stamp: &[u8; STAMP_BYTES] = payload.first_chunk()?;
        let (sender, rest) = stamp.split_first_chunk()?;
        let (n, rest) = rest.split_first_chunk()?;
        Some(Self {
            sender: u32::from_le_bytes(*sender),
            n: u32::from_le_bytes(*n),
            sent_ns: u64::from_le_bytes(*rest.first_chunk()?),
        })
    }

    /// Appends the stamp, and of `filler` what it covers less.
    pub fn write(self, out: &mut BytesMut, filler: &[u8]) {
        out.put_u32_le(self.sender);
        out.put_u32_le(self.n);
        out.put_u64_le(self.sent_ns);
        out.put_slice(filler);
    }
}

/// What follows the stamp in payloads of `size` bytes: noise, so that nothing can compress it,
/// and the same for the same seed.
pub fn filler(size: usize, seed: u64) -> Vec<u8> {
    let mut filler = vec![0; size.saturating_sub(STAMP_BYTES)];
    SmallRng::seed_from_u64(seed).fill_bytes(&mut filler);
    filler
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_comes_back_as_it_was_and_the_payload_has_its_size() {
        let stamp = Stamp { sender: 7, n: u32::MAX, sent_ns: 1 << 60 };
        let mut payload = BytesMut::new();
        stamp.write(&mut payload, &filler(100, 1));
        assert_eq!(payload.len(), 100);
        assert_eq!(Stamp::read(&payload), Some(stamp));
    }

    #[test]
    fn a_payload_without_a_stamp_is_none() {
        assert_eq!(Stamp::read(&[0; STAMP_BYTES - 1]), None);
    }
}
