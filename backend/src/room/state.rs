//! Room state: the latest signal of each key, for those who join later.

use std::collections::HashMap;

use bytes::{Bytes, BytesMut};
use edgeway_proto::{Seq, Text};

use super::rules::RESERVED;
use crate::store::Record;

/// What is published by key, and how large it will be once what is under way is published too.
#[derive(Debug)]
pub(crate) struct State {
    kept: HashMap<Text, Kept>,
    planned: HashMap<Text, Planned>,
    planned_bytes: usize,
    keys_max: usize,
    bytes_max: usize,
}

#[derive(Debug)]
struct Kept {
    seq: Seq,
    frame: Bytes,
    expires_ms: u64,
}

#[derive(Debug, Clone, Copy)]
struct Planned {
    len: usize,
    expires_ms: u64,
}

fn void(expires_ms: u64, wall_ms: u64) -> bool {
    expires_ms != 0 && expires_ms <= wall_ms
}

impl State {
    pub(crate) fn new(keys_max: usize, bytes_max: usize) -> Self {
        let (kept, planned) = (HashMap::new(), HashMap::new());
        Self { kept, planned, planned_bytes: 0, keys_max, bytes_max }
    }

    /// What the store kept. What is above the limits, where they were lowered, is left out.
    pub(crate) fn restore(&mut self, records: Vec<Record>) {
        for record in records {
            let key = Text::from(record.key);
            if self.fits(&key, record.frame.len()) {
                self.plan(&key, record.frame.len(), record.expires_ms);
                self.set(&key, record.seq, &record.frame, record.expires_ms, 0);
            }
        }
    }

    /// Whether the key may be set to a frame of `len` bytes; 0 removes it, which is always allowed.
    pub(crate) fn admits(&mut self, key: &Text, len: usize, wall_ms: u64) -> bool {
        if self.fits(key, len) {
            return true;
        }
        let bytes = &mut self.planned_bytes;
        self.planned.retain(|_, p| {
            let keep = !void(p.expires_ms, wall_ms);
            *bytes -= if keep { 0 } else { p.len };
            keep
        });
        self.kept.retain(|_, k| !void(k.expires_ms, wall_ms));
        self.fits(key, len)
    }

    fn fits(&self, key: &Text, len: usize) -> bool {
        // Rules have a bound of their own: a room that is full can still be moderated.
        if key.starts_with(RESERVED) {
            return true;
        }
        let old = self.planned.get(key).map(|p| p.len);
        let keys = self.planned.len() + usize::from(old.is_none());
        let bytes = self.planned_bytes - old.unwrap_or(0) + len;
        len == 0 || (keys <= self.keys_max && bytes <= self.bytes_max)
    }

    /// A signal with this key was accepted. A `len` of 0 removes the key.
    pub(crate) fn plan(&mut self, key: &Text, len: usize, expires_ms: u64) {
        let old = if len == 0 {
            self.planned.remove(key)
        } else {
            self.planned.insert(key.detached(), Planned { len, expires_ms })
        };
        self.planned_bytes = self.planned_bytes + len - old.map_or(0, |p| p.len);
    }

    /// A signal with this key was published. An empty frame removes the key.
    pub(crate) fn set(
        &mut self,
        key: &Text,
        seq: Seq,
        frame: &[u8],
        expires_ms: u64,
        wall_ms: u64,
    ) {
        if frame.is_empty() || void(expires_ms, wall_ms) {
            self.kept.remove(key);
        } else {
            // A copy: the frame is part of a batch that would be kept whole.
            let frame = Bytes::copy_from_slice(frame);
            self.kept.insert(key.detached(), Kept { seq, frame, expires_ms });
        }
    }

    /// All frames, in the order of their positions.
    pub(crate) fn frames(&self, wall_ms: u64) -> Bytes {
        let mut live: Vec<&Kept> =
            self.kept.values().filter(|k| !void(k.expires_ms, wall_ms)).collect();
        live.sort_unstable_by_key(|k| k.seq);
        let mut out = BytesMut::with_capacity(live.iter().map(|k| k.frame.len()).sum());
        for kept in live {
            out.extend_from_slice(&kept.frame);
        }
        out.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(state: &mut State, key: &str, len: usize, expires_ms: u64) -> bool {
        let key = Text::from(key);
        let fits = state.admits(&key, len, 100);
        if fits {
            state.plan(&key, len, expires_ms);
            state.set(&key, Seq::ZERO, &vec![b'x'; len], expires_ms, 100);
        }
        fits
    }

    #[test]
    fn keys_and_bytes_are_bounded_and_replacing_or_removing_makes_room() {
        let mut state = State::new(2, 100);
        assert!(set(&mut state, "a", 60, 0));
        assert!(!set(&mut state, "b", 50, 0), "bytes");
        assert!(set(&mut state, "a", 50, 0), "replaced by a smaller one");
        assert!(set(&mut state, "b", 50, 0));
        assert!(!set(&mut state, "c", 1, 0), "keys");
        assert!(set(&mut state, "a", 0, 0), "removed");
        assert!(set(&mut state, "c", 1, 0));
        assert_eq!(state.frames(100).len(), 51);
    }

    #[test]
    fn what_is_expired_is_left_out_and_makes_room() {
        let mut state = State::new(1, 100);
        assert!(set(&mut state, "a", 10, 150));
        assert_eq!(state.frames(149).len(), 10);
        assert_eq!(state.frames(150).len(), 0);
        assert!(!state.admits(&Text::from("b"), 10, 149));
        assert!(state.admits(&Text::from("b"), 10, 150));
    }
}
