//! The records of the journal: what one group commit changes in the tables. Integers are big-endian
//! and of fixed width.
//!
//! A record begins with the mark of its segment, which is random: it is found again behind bytes that
//! cannot be read, and nobody can put it into a message.

use bytes::{Buf, BufMut};
use xxhash_rust::xxh3::xxh3_64;

/// Mark, checksum of all that follows it, length of the operations, number, synced.
pub(in super::super) const HEADER_BYTES: usize = 5 * 8;
/// Mark and checksum: what the checksum is not about.
const UNSUMMED_BYTES: usize = 2 * 8;
/// In the byte that names the table: the key is removed.
const REMOVE: u8 = 0x80;

/// The table that an operation is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Table {
    Names = 0,
    Entries = 1,
    Tails = 2,
    Devices = 3,
    State = 4,
}

impl Table {
    const ALL: [Self; 5] = [Self::Names, Self::Entries, Self::Tails, Self::Devices, Self::State];
}

/// A key that gets a value, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Op<'a> {
    pub table: Table,
    pub key: &'a [u8],
    /// None removes the key.
    pub value: Option<&'a [u8]>,
}

/// Operations in the making, behind space for the header of a record.
pub(in super::super) struct Ops {
    bytes: Vec<u8>,
}

impl Ops {
    pub(in super::super) fn new() -> Self {
        Self { bytes: vec![0; HEADER_BYTES] }
    }

    pub(in super::super) fn put(&mut self, table: Table, key: &[u8], value: &[u8]) {
        self.bytes.reserve(1 + 8 + 8 + key.len() + value.len());
        self.bytes.put_u8(table as u8);
        self.bytes.put_u64(key.len() as u64);
        self.bytes.put_u64(value.len() as u64);
        self.bytes.put_slice(key);
        self.bytes.put_slice(value);
    }

    pub(in super::super) fn remove(&mut self, table: Table, key: &[u8]) {
        self.bytes.put_u8(table as u8 | REMOVE);
        self.bytes.put_u64(key.len() as u64);
        self.bytes.put_slice(key);
    }

    /// All of `other`, after what is there.
    pub(in super::super) fn append(&mut self, other: &Self) {
        self.bytes.put_slice(other.bytes.get(HEADER_BYTES..).unwrap_or_default());
    }

    pub(in super::super) fn is_empty(&self) -> bool {
        self.bytes.len() == HEADER_BYTES
    }

    /// The record of these. `synced`: of the records before it, those up to this number were on the
    /// disk when it was written.
    pub(in super::super) fn into_record(mut self, mark: u64, number: u64, synced: u64) -> Vec<u8> {
        let length = self.bytes.len() - HEADER_BYTES;
        let mut header = &mut self.bytes[UNSUMMED_BYTES..HEADER_BYTES];
        header.put_u64(length as u64);
        header.put_u64(number);
        header.put_u64(synced);
        let sum = xxh3_64(&self.bytes[UNSUMMED_BYTES..]);
        let mut header = &mut self.bytes[..UNSUMMED_BYTES];
        header.put_u64(mark);
        header.put_u64(sum);
        self.bytes
    }
}

/// A record that was read and is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Record<'a> {
    pub number: u64,
    /// See [`Ops::into_record`].
    pub synced: u64,
    /// Its operations, for [`ops`].
    pub ops: &'a [u8],
}

impl<'a> Record<'a> {
    /// The record that `bytes` begin with; `None` where there is none that is whole.
    fn read(bytes: &'a [u8], mark: u64) -> Option<Self> {
        let mut header = bytes.get(..HEADER_BYTES)?;
        let (found, sum) = (header.get_u64(), header.get_u64());
        let (length, number, synced) = (header.get_u64(), header.get_u64(), header.get_u64());
        let end = HEADER_BYTES.checked_add(usize::try_from(length).ok()?)?;
        let summed = bytes.get(UNSUMMED_BYTES..end)?;
        (found == mark && xxh3_64(summed) == sum).then(|| Self {
            number,
            synced,
            ops: &summed[HEADER_BYTES - UNSUMMED_BYTES..],
        })
    }
}

/// The whole records in `bytes`, each with where it begins. What cannot be read is stepped over.
pub(in super::super) fn records(
    bytes: &[u8],
    mark: u64,
) -> impl Iterator<Item = (usize, Record<'_>)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            let rest = bytes.get(at..)?;
            if let Some(record) = Record::read(rest, mark) {
                let place = at;
                at += HEADER_BYTES + record.ops.len();
                return Some((place, record));
            }
            let further = rest.get(1..)?.windows(8).position(|w| w == mark.to_be_bytes())?;
            at += 1 + further;
        }
    })
}

/// The operations of a record; `None` for one that cannot be read, after which there are no more.
pub(in super::super) fn ops(mut bytes: &[u8]) -> impl Iterator<Item = Option<Op<'_>>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let (op, rest) = op(bytes).map_or((None, &[][..]), |(op, rest)| (Some(op), rest));
        bytes = rest;
        Some(op)
    })
}

fn op(mut bytes: &[u8]) -> Option<(Op<'_>, &[u8])> {
    let tag = bytes.try_get_u8().ok()?;
    let table = *Table::ALL.get(usize::from(tag & !REMOVE))?;
    let mut length = || usize::try_from(bytes.try_get_u64().ok()?).ok();
    let key = length()?;
    let value = if tag & REMOVE == 0 { Some(length()?) } else { None };
    let (key, rest) = bytes.split_at_checked(key)?;
    let Some(value) = value else { return Some((Op { table, key, value: None }, rest)) };
    let (value, rest) = rest.split_at_checked(value)?;
    Some((Op { table, key, value: Some(value) }, rest))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    type Given = (usize, Vec<u8>, Option<Vec<u8>>);

    fn given() -> impl Strategy<Value = Vec<Given>> {
        let bytes = || proptest::collection::vec(any::<u8>(), 0..40);
        proptest::collection::vec((0..5usize, bytes(), proptest::option::of(bytes())), 0..10)
    }

    fn record(given: &[Given], number: u64) -> Vec<u8> {
        let mut all = Ops::new();
        for (table, key, value) in given {
            let mut one = Ops::new();
            match value {
                Some(value) => one.put(Table::ALL[*table], key, value),
                None => one.remove(Table::ALL[*table], key),
            }
            all.append(&one);
        }
        assert_eq!(all.is_empty(), given.is_empty());
        all.into_record(MARK, number, number.wrapping_sub(1))
    }

    const MARK: u64 = 0x0123_4567_89ab_cdef;

    proptest! {
        #[test]
        fn what_is_written_is_read(all in proptest::collection::vec(given(), 1..5)) {
            let file: Vec<u8> = (0..).zip(&all).flat_map(|(n, given)| record(given, n)).collect();
            let read: Vec<_> = records(&file, MARK).map(|(_, record)| record).collect();
            prop_assert_eq!(read.len(), all.len());
            for (number, (read, given)) in (0u64..).zip(read.iter().zip(&all)) {
                prop_assert_eq!((read.number, read.synced), (number, number.wrapping_sub(1)));
                let found: Vec<Given> = ops(read.ops).map(|op| {
                    let op = op.unwrap();
                    (op.table as usize, op.key.to_vec(), op.value.map(<[u8]>::to_vec))
                }).collect();
                prop_assert_eq!(&found, given);
            }
        }

        #[test]
        fn a_changed_byte_loses_one_record_and_no_other(
            all in proptest::collection::vec(given(), 2..5), at in any::<prop::sample::Index>(),
        ) {
            let parts: Vec<_> = (0..).zip(&all).map(|(n, given)| record(given, n)).collect();
            let mut file = parts.concat();
            let at = at.index(file.len());
            file[at] ^= 1;
            let mut end = 0;
            let hit = parts.iter().position(|part| { end += part.len(); at < end }).unwrap();
            let read: Vec<_> = records(&file, MARK).map(|(_, r)| r.number).collect();
            let kept: Vec<_> = (0..all.len() as u64).filter(|n| *n != hit as u64).collect();
            prop_assert_eq!(read, kept);
        }

        #[test]
        fn no_bytes_panic_the_reader(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = (records(&bytes, MARK).count(), ops(&bytes).count());
            let marked = [&MARK.to_be_bytes()[..], &bytes].concat();
            let _ = records(&marked, MARK).count();
        }
    }
}
