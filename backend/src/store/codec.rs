//! A record as bytes. Integers are big-endian and of fixed width; the times come first, so that a
//! scan by time need not decode what follows.

use bytes::{Buf, BufMut, Bytes};
use edgeway_proto::{Class, Seq, frame};

use super::{LogId, Origin, Record, StoreError};

/// Time, expiry, message id, and the lengths of the device and of the key.
const HEADER_BYTES: usize = 8 + 8 + 8 + 2 + 2;

/// A record without its place; `None` where the device or the key is above 65,535 bytes.
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

/// Who sent a record. Its front suffices, up to the end of the device's name.
pub(super) fn read_origin(mut value: &[u8]) -> Option<Origin> {
    front(&mut value).map(|(_, _, origin, _)| origin)
}

/// Milliseconds since 1970 after which a record is void; 0 for never.
pub(super) fn read_expires_ms(value: &[u8]) -> Option<u64> {
    value.get(8..)?.try_get_u64().ok()
}

/// Whether what expires then is void now.
pub(super) const fn void(expires_ms: u64, now_ms: u64) -> bool {
    expires_ms != 0 && expires_ms <= now_ms
}

/// What a record does to the room's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    None,
    /// It becomes the latest of its key.
    Set,
    /// Its key goes.
    Remove,
}

/// What a record does to the room's state; `None` where its frame does not tell, being no Deliver.
pub(super) fn change(log: LogId, record: &Record) -> Option<Change> {
    if log.class != Class::Signal || record.key.is_empty() {
        return Some(Change::None);
    }
    let raw = frame::split(&mut record.frame.clone()).ok()??;
    if raw.kind != frame::Deliver::KIND {
        return None;
    }
    let empty = frame::Deliver::parse(raw.body).ok()?.payload.0.is_empty();
    Some(if empty { Change::Remove } else { Change::Set })
}

/// [`record`] and [`change`] of what is to be appended.
///
/// # Errors
/// `Corrupt` where it could not be read again: names above 65,535 bytes, or a signal with a key
/// whose frame is no Deliver.
pub(super) fn encode(log: LogId, of: &Record) -> Result<(Vec<u8>, Change), StoreError> {
    let refused = |what: &str| StoreError::Corrupt {
        what: what.to_owned(),
        place: format!("an append to log {}/{} at {}", log.group, log.class, of.seq),
    };
    let value = record(of).ok_or_else(|| refused("a name above 65,535 bytes"))?;
    let change =
        change(log, of).ok_or_else(|| refused("a signal with a key whose frame is no Deliver"))?;
    Ok((value, change))
}

type Parts<'a> = (u64, u64, Origin, &'a [u8], &'a [u8]);

fn parts(mut value: &[u8]) -> Option<Parts<'_>> {
    let (time_ms, expires_ms, origin, key_bytes) = front(&mut value)?;
    let (key, frame) = value.split_at_checked(key_bytes)?;
    Some((time_ms, expires_ms, origin, key, frame))
}

/// Takes what comes before the key, whose length is the last of it.
fn front(value: &mut &[u8]) -> Option<(u64, u64, Origin, usize)> {
    let (time_ms, expires_ms) = (value.try_get_u64().ok()?, value.try_get_u64().ok()?);
    let id = value.try_get_u64().ok()?;
    let device_bytes = usize::from(value.try_get_u16().ok()?);
    let key_bytes = usize::from(value.try_get_u16().ok()?);
    let device;
    (device, *value) = value.split_at_checked(device_bytes)?;
    let device = String::from_utf8(device.to_vec()).ok()?;
    Some((time_ms, expires_ms, Origin { device, id }, key_bytes))
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    prop_compose! {
        pub(in crate::store) fn records()(
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
            // What `redis/open.lua` cuts off.
            let front = &value[..HEADER_BYTES + given.origin.device.len()];
            prop_assert_eq!(read_origin(front).unwrap(), given.origin.clone());
            let device = usize::from(front[24]) * 256 + usize::from(front[25]);
            prop_assert_eq!(device, given.origin.device.len());
            prop_assert_eq!(read_expires_ms(&value).unwrap(), given.expires_ms);
            prop_assert_eq!(read_record(given.seq, &value).unwrap(), given);
        }

        #[test]
        fn no_bytes_panic_the_reader(value in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = read_record(Seq::ZERO, &value);
        }
    }
}
