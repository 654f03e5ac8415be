//! One order for all: who has the place in a room's order is written down by the receiver that
//! gets there first, and compared by all others. So a hole (shed chat) hides no disagreement.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use edgeway_proto::{Class, Seq};
use parking_lot::RwLock;

use super::{SegmentKey, SegmentMap};
use crate::stamp::Stamp;

/// Places that are made at a time.
const SEGMENT_BITS: u32 = 12;

/// Places of consecutive counters: sender and number of the message there, 0 where not known yet.
pub type Places = Arc<[AtomicU64]>;

/// The segment that a receiver looked at last, so that it takes the shared lock once a segment.
pub struct Segment {
    key: SegmentKey,
    places: Places,
}

/// The orders of all rooms and classes. Grows with the messages that a run sends.
#[derive(Default)]
pub struct Order {
    segments: RwLock<SegmentMap>,
}

impl Order {
    /// Whether all who got `seq` so far got the same message there.
    pub fn agrees(
        &self,
        cache: &mut Option<Segment>,
        (room, class): (u32, Class),
        seq: Seq,
        stamp: Stamp,
    ) -> bool {
        let key = (room, class, seq.epoch, seq.counter >> SEGMENT_BITS);
        let segment = match cache {
            Some(segment) if segment.key == key => segment,
            other => other.insert(Segment { key, places: self.places(key) }),
        };
        let place = seq.counter & ((1 << SEGMENT_BITS) - 1);
        let Some(place) = usize::try_from(place).ok().and_then(|at| segment.places.get(at)) else {
            return false;
        };
        let message = (u64::from(stamp.sender) << 32 | u64::from(stamp.n)).saturating_add(1);
        match place.load(Relaxed) {
            0 => match place.compare_exchange(0, message, Relaxed, Relaxed) {
                Ok(_) => true,
                Err(other) => other == message,
            },
            other => other == message,
        }
    }

    fn places(&self, key: SegmentKey) -> Places {
        if let Some(places) = self.segments.read().get(&key) {
            return Arc::clone(places);
        }
        let make = || (0..1u32 << SEGMENT_BITS).map(|_| AtomicU64::new(0)).collect();
        Arc::clone(self.segments.write().entry(key).or_insert_with(make))
    }
}
