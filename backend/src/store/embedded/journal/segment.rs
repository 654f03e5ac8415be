//! The files of the journal: `journal/NNNNNNNN.log`, each a header and then records.

use std::{
    fs::{self, File},
    io::{self, ErrorKind, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::{Buf, BufMut};
use xxhash_rust::xxh3::xxh3_64;

use super::super::tables::sync_dir;

/// What this is, the mark of the records, and a checksum of both.
pub(super) const HEADER_BYTES: usize = 3 * 8;
const MAGIC: u64 = u64::from_be_bytes(*b"edgewayJ");

/// A file that is written to.
pub(super) struct Segment {
    pub path: PathBuf,
    pub file: Arc<File>,
    pub number: u64,
    pub mark: u64,
    /// What it holds that is whole: behind this is what failed to be written.
    pub bytes: u64,
}

impl Segment {
    /// Makes the file, which is on the disk before anything is written to it.
    pub(super) fn create(dir: &Path, number: u64) -> io::Result<Self> {
        let path = dir.join(format!("{number:08}.log"));
        let made = Self::create_at(&path, number).and_then(|made| {
            sync_dir(dir)?;
            Ok(made)
        });
        made.inspect_err(|e| {
            if e.kind() != ErrorKind::AlreadyExists {
                // Whether that fails too does no harm: it holds nothing.
                let _ = fs::remove_file(&path);
            }
        })
    }

    fn create_at(path: &Path, number: u64) -> io::Result<Self> {
        let mut mark = [0; 8];
        getrandom::fill(&mut mark).map_err(io::Error::other)?;
        let mark = u64::from_be_bytes(mark);
        let mut header = Vec::with_capacity(HEADER_BYTES);
        header.put_u64(MAGIC);
        header.put_u64(mark);
        header.put_u64(xxh3_64(&header));
        let mut file = File::options().create_new(true).append(true).open(path)?;
        file.write_all(&header)?;
        file.sync_all()?;
        let path = path.to_owned();
        Ok(Self { path, file: Arc::new(file), number, mark, bytes: HEADER_BYTES as u64 })
    }
}

/// The mark in a segment's header; `None` where that cannot be read.
pub(super) fn mark(mut segment: &[u8]) -> Option<u64> {
    let sum = xxh3_64(segment.get(..2 * 8)?);
    let (magic, mark) = (segment.get_u64(), segment.get_u64());
    (magic == MAGIC && segment.try_get_u64().ok()? == sum).then_some(mark)
}

/// The segments in the journal's directory, oldest first.
pub(super) fn list(dir: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let number = path.file_stem().and_then(|stem| stem.to_str()?.parse::<u64>().ok());
        if let Some(number) = number.filter(|_| path.extension().is_some_and(|e| e == "log")) {
            found.push((number, path));
        }
    }
    found.sort_unstable();
    Ok(found)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn segments_are_found_in_the_order_of_their_numbers() {
        let dir = tempfile::tempdir().unwrap();
        for number in [100_000_000, 9, 10] {
            let made = Segment::create(dir.path(), number).unwrap();
            assert_eq!(mark(&fs::read(&made.path).unwrap()), Some(made.mark));
        }
        fs::write(dir.path().join("x.log"), b"").unwrap();
        fs::write(dir.path().join("11.old"), b"").unwrap();
        let numbers = list(dir.path()).unwrap().into_iter().map(|(number, _)| number);
        assert_eq!(numbers.collect::<Vec<_>>(), [9, 10, 100_000_000]);
    }

    #[test]
    fn a_header_that_was_cut_off_or_changed_has_no_mark() {
        let dir = tempfile::tempdir().unwrap();
        let path = Segment::create(dir.path(), 1).unwrap().path;
        let whole = fs::read(&path).unwrap();
        for at in 0..HEADER_BYTES {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            assert_eq!((mark(&whole[..at]), mark(&changed)), (None, None));
        }
    }
}
