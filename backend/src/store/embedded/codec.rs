//! Values. Integers are big-endian and of fixed width; the time of a record comes first, so that
//! a scan by time need not decode what follows.

use bytes::{Buf, BufMut, Bytes};
use edgeway_proto::{Seq, frame};

use crate::store::{Origin, Record};

/// Time, expiry, message id, and the lengths of the device and of the key.
const HEADER_BYTES: usize = 8 + 8 + 8 + 2 + 2;

/// The value of an entry; `None` where the device or the key is above 65,535 bytes.
pub(super) fn record(record: &Record) -> Option<Vec<u8>> {
    let (device, key) = (record.origin.device.as_bytes(), record.key.as_bytes());
    let bytes = HEADER_BYTES + device.len() + key.len() + record.frame.len();
    let mut out = Vec::with_capacity(bytes);
    out.put_u64(record.time_ms);
    out.put_u64(record.expires_ms);
    out.put_u64(record.origin.id);
    out.put_u16(u16::try_from(device.len()).ok()?);
    out.put_u16(u16::try_from(key.len()).ok()?);
    out.put_slice(device);
    out.put_slice(key);
    out.put_slice(&record.frame);
    Some(out)
}

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
    read_record(seq, value)
}

/// The inverse of [`record`].
pub(super) fn read_record(seq: Seq, value: &[u8]) -> Option<Record> {
    let (time_ms, expires_ms, origin, key, frame) = parts(value)?;
    Some(Record {
        seq,
        origin,
        time_ms,
        expires_ms,
        key: String::from_utf8(key.to_vec()).ok()?,
        frame: Bytes::copy_from_slice(frame),
    })
}

/// Who sent a record, without copying the record, and the bytes that it took.
pub(super) fn read_origin(value: &[u8]) -> Option<Origin> {
    parts(value).map(|(_, _, origin, ..)| origin)
}

/// Milliseconds since 1970 after which a record is void; 0 for never.
pub(super) fn read_expires_ms(value: &[u8]) -> Option<u64> {
    value.get(8..)?.try_get_u64().ok()
}

type Parts<'a> = (u64, u64, Origin, &'a [u8], &'a [u8]);

fn parts(mut value: &[u8]) -> Option<Parts<'_>> {
    let (time_ms, expires_ms) = (value.try_get_u64().ok()?, value.try_get_u64().ok()?);
    let id = value.try_get_u64().ok()?;
    let device_bytes = usize::from(value.try_get_u16().ok()?);
    let key_bytes = usize::from(value.try_get_u16().ok()?);
    let (device, rest) = value.split_at_checked(device_bytes)?;
    let (key, frame) = rest.split_at_checked(key_bytes)?;
    let device = String::from_utf8(device.to_vec()).ok()?;
    Some((time_ms, expires_ms, Origin { device, id }, key, frame))
}

/// Whether the payload of a Deliver frame is empty; `None` where the frame is no Deliver.
pub(super) fn payload_is_empty(frame: &Bytes) -> Option<bool> {
    let raw = frame::split(&mut frame.clone()).ok()??;
    if raw.kind != frame::Deliver::KIND {
        return None;
    }
    Some(frame::Deliver::parse(raw.body).ok()?.payload.0.is_empty())
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

    prop_compose! {
        fn records()(
            numbers in any::<[u64; 5]>(), device in ".{0,40}", key in ".{0,40}",
            frame in proptest::collection::vec(any::<u8>(), 0..200),
        ) -> Record {
            let [epoch, counter, time_ms, expires_ms, id] = numbers;
            let seq = Seq { epoch, counter };
            Record {
                seq, origin: Origin { device, id }, time_ms, expires_ms, key, frame: frame.into(),
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(given in records()) {
            let value = record(&given).unwrap();
            prop_assert_eq!(read_origin(&value).unwrap(), given.origin.clone());
            prop_assert_eq!(read_expires_ms(&value).unwrap(), given.expires_ms);
            prop_assert_eq!(read_state(&state(given.seq, &value)).unwrap(), given.clone());
            prop_assert_eq!(read_record(given.seq, &value).unwrap(), given);
        }

        #[test]
        fn no_bytes_panic_the_reader(value in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = (read_record(Seq::ZERO, &value), read_state(&value), Tail::read(&value));
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
