//! Keys are big-endian, so that the order of bytes is the order of what they name: each log, the
//! devices of a log and the state of a room are one contiguous range each.

use std::ops::Bound;

use edgeway_proto::Seq;

use crate::store::LogId;

/// Version of the keys, of the codec of values and of the journal. A store of a later version is not
/// opened.
pub(super) const SCHEMA: u32 = 2;
/// The same without a journal before the tables: opened, and made one of [`SCHEMA`].
pub(super) const SCHEMA_WITHOUT_JOURNAL: u32 = 1;

/// In `names`: where [`SCHEMA`] is.
pub(super) const SCHEMA_KEY: &[u8] = b"v";
/// In `names`: the last counter of a group handle that was given out.
pub(super) const COUNTER_KEY: &[u8] = b"c";
/// In `names`: the number of the last record of the journal that is in the tables.
pub(super) const APPLIED_KEY: &[u8] = b"a";

/// Group 8, class 1, epoch 8, counter 8.
pub(super) type EntryKey = [u8; 25];
/// Group 8, class 1: where a log begins, and the key of its tail.
pub(super) type LogKey = [u8; 9];

/// In `names`: the handle of a room.
pub(super) fn room(name: &str) -> Vec<u8> {
    [b"r", name.as_bytes()].concat()
}

/// In `tails`: what is remembered of a log that was trimmed.
pub(super) fn log(log: LogId) -> LogKey {
    let mut key = [0; 9];
    key[..8].copy_from_slice(&log.group.to_be_bytes());
    key[8] = log.class as u8;
    key
}

/// In `entries`: one entry of a log.
pub(super) fn entry(id: LogId, seq: Seq) -> EntryKey {
    let mut key = [0; 25];
    key[..9].copy_from_slice(&log(id));
    key[9..17].copy_from_slice(&seq.epoch.to_be_bytes());
    key[17..].copy_from_slice(&seq.counter.to_be_bytes());
    key
}

/// Before all entries of a group.
pub(super) fn from_group(group: u64) -> EntryKey {
    let mut key = [0; 25];
    key[..8].copy_from_slice(&group.to_be_bytes());
    key
}

/// The group that an entry's key names; `None` where it is no such key.
pub(super) fn group(entry: &[u8]) -> Option<u64> {
    entry.first_chunk().copied().map(u64::from_be_bytes)
}

/// The place that an entry's key names; `None` where it is no such key.
pub(super) fn seq(entry: &[u8]) -> Option<Seq> {
    let (epoch, counter) = entry.get(9..)?.split_at_checked(8)?;
    Some(Seq {
        epoch: u64::from_be_bytes(epoch.try_into().ok()?),
        counter: u64::from_be_bytes(counter.try_into().ok()?),
    })
}

/// In `devices`: the last message id of a device.
pub(super) fn device(id: LogId, device: &str) -> Vec<u8> {
    [&log(id)[..], device.as_bytes()].concat()
}

/// In `state`: the latest record of a key.
pub(super) fn state(group: u64, key: &str) -> Vec<u8> {
    [&group.to_be_bytes()[..], key.as_bytes()].concat()
}

/// The entries of a log from a place on.
pub(super) fn from(id: LogId, from: Bound<Seq>) -> (Bound<EntryKey>, Bound<EntryKey>) {
    let end = Seq { epoch: u64::MAX, counter: u64::MAX };
    (from.map(|seq| entry(id, seq)), Bound::Included(entry(id, end)))
}

/// The entries of a log from `from` up to, and without, `before`.
pub(super) fn between(id: LogId, from: Seq, before: Seq) -> (Bound<EntryKey>, Bound<EntryKey>) {
    (Bound::Included(entry(id, from)), Bound::Excluded(entry(id, before)))
}

#[cfg(test)]
mod tests {
    use edgeway_proto::Class;
    use proptest::prelude::*;

    use super::*;

    fn place() -> impl Strategy<Value = (u64, u8, u64, u64)> {
        // Few distinct values beside the extremes, so that the later parts decide often.
        let part = || prop_oneof![0..3u64, Just(u64::MAX), any::<u64>()];
        (part(), 0..3u8, part(), part())
    }

    fn key_of((group, class, epoch, counter): (u64, u8, u64, u64)) -> EntryKey {
        let class = Class::from_wire(class).unwrap_or_default();
        entry(LogId { group, class }, Seq { epoch, counter })
    }

    proptest! {
        #[test]
        fn the_order_of_keys_is_the_order_of_group_class_epoch_counter(a in place(), b in place()) {
            prop_assert_eq!(key_of(a).cmp(&key_of(b)), a.cmp(&b));
            prop_assert_eq!(seq(&key_of(a)), Some(Seq { epoch: a.2, counter: a.3 }));
        }
    }
}
