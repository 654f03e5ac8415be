//! Values that only this store has. Integers are big-endian and of fixed width.

use bytes::{Buf, BufMut};
use edgeway_proto::Seq;

use crate::store::{Record, codec};

/// The value of a key of room state: the place, then the record.
pub(super) fn state(seq: Seq, record: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(16 + record.len());
    out.put_u64(seq.epoch);
    out.put_u64(seq.counter);
    out.put_slice(record);
    out
}

/// The inverse of [`state`].
pub(super) fn read_state(mut value: &[u8]) -> Option<Record> {
    let seq = Seq { epoch: value.try_get_u64().ok()?, counter: value.try_get_u64().ok()? };
    codec::read_record(seq, value)
}

/// What is remembered of a log that was trimmed, because its entries no longer tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Tail {
    /// No entry before this is to be seen any more.
    pub trimmed: Seq,
    /// No entry before this is on disk any more: at most `trimmed`, and behind it while a long
    /// trim goes on or was broken off.
    pub removed: Seq,
    /// The last entry before `trimmed`, seals included.
    pub last_trimmed: Seq,
    /// The last message before `trimmed`.
    pub last_trimmed_message: Seq,
}

impl Tail {
    const FIELDS: usize = 4;

    pub(super) fn write(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(Self::FIELDS * 16);
        for seq in [self.trimmed, self.removed, self.last_trimmed, self.last_trimmed_message] {
            out.put_u64(seq.epoch);
            out.put_u64(seq.counter);
        }
        out
    }

    pub(super) fn read(mut value: &[u8]) -> Option<Self> {
        let mut seq =
            || Some(Seq { epoch: value.try_get_u64().ok()?, counter: value.try_get_u64().ok()? });
        Some(Self {
            trimmed: seq()?,
            removed: seq()?,
            last_trimmed: seq()?,
            last_trimmed_message: seq()?,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;
    use crate::store::codec::tests::records;

    proptest! {
        #[test]
        fn what_is_written_is_read(given in records()) {
            let value = codec::record(&given).unwrap();
            prop_assert_eq!(read_state(&state(given.seq, &value)).unwrap(), given);
        }

        #[test]
        fn no_bytes_panic_the_reader(value in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = (read_state(&value), Tail::read(&value));
        }
    }

    #[test]
    fn a_tail_that_is_written_is_read() {
        let tail = Tail {
            trimmed: Seq::new(1, 2),
            removed: Seq::new(3, 4),
            last_trimmed: Seq::new(5, 6),
            last_trimmed_message: Seq::new(7, 8),
        };
        assert_eq!(Tail::read(&tail.write()), Some(tail));
    }
}
