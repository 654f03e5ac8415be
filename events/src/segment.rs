//! A file of the spool, and the records in it: one for each event, with a checksum, so that one that was torn is
//! known.
//!
//! `length of what follows the checksum: u32 | checksum: u32 | time: u64 | length of the key: u32 | key | value`,
//! little endian.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::Path,
};

/// In front of the key.
const HEAD: usize = 20;
/// Of a record; far above that of any event.
const RECORD_MAX: usize = 1 << 20;
/// Read at a time.
const BLOCK: usize = 128 << 10;

/// An event for Kafka.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    /// When it was recorded, in milliseconds since 1970.
    pub(crate) at_ms: u64,
    pub(crate) key: Vec<u8>,
    pub(crate) value: Vec<u8>,
}

impl Record {
    pub(crate) fn len(&self) -> u64 {
        (HEAD + self.key.len() + self.value.len()) as u64
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0; 8]);
        out.extend_from_slice(&self.at_ms.to_le_bytes());
        out.extend_from_slice(&u32::try_from(self.key.len()).unwrap_or(u32::MAX).to_le_bytes());
        out.extend_from_slice(&self.key);
        out.extend_from_slice(&self.value);
        let body = &out[start + 8..];
        let (len, sum) = (u32::try_from(body.len()).unwrap_or(u32::MAX), checksum(body));
        out[start..start + 4].copy_from_slice(&len.to_le_bytes());
        out[start + 4..start + 8].copy_from_slice(&sum.to_le_bytes());
    }

    /// The record at the start, and the bytes it takes.
    fn decode(bytes: &[u8]) -> Decoded {
        let Some((head, rest)) = bytes.split_at_checked(8) else { return Decoded::Short };
        let (len, sum) = (u32_at(head, 0) as usize, u32_at(head, 4));
        if !(HEAD - 8..=RECORD_MAX).contains(&len) {
            return Decoded::Broken;
        }
        let Some(body) = rest.get(..len) else { return Decoded::Short };
        if checksum(body) != sum {
            return Decoded::Broken;
        }
        let (time, rest) = body.split_at(8);
        let (key_len, rest) = rest.split_at(4);
        let Some((key, value)) = rest.split_at_checked(u32_at(key_len, 0) as usize) else {
            return Decoded::Broken;
        };
        let at_ms = time.try_into().map(u64::from_le_bytes).unwrap_or_default();
        Decoded::Record(Self { at_ms, key: key.to_owned(), value: value.to_owned() }, 8 + len)
    }
}

enum Decoded {
    Record(Record, usize),
    /// More bytes are needed.
    Short,
    Broken,
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let four = bytes.get(at..at + 4).and_then(|four| four.try_into().ok());
    four.map(u32::from_le_bytes).unwrap_or_default()
}

/// The first half of a 64-bit FNV-1a.
pub(crate) fn checksum(bytes: &[u8]) -> u32 {
    let mix = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325, mix);
    u32::try_from(hash >> 32).unwrap_or_default()
}

/// Reads records one after the other.
#[derive(Debug)]
pub(crate) struct Reader {
    file: File,
    buffer: Vec<u8>,
    start: usize,
    /// Bytes of the file that were given out as records.
    taken: u64,
}

impl Reader {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { file: File::open(path)?, buffer: Vec::new(), start: 0, taken: 0 })
    }

    /// The next record; none at the end, where more may be written later, and where it is broken.
    pub(crate) fn next(&mut self) -> io::Result<Option<Record>> {
        loop {
            match Record::decode(&self.buffer[self.start..]) {
                Decoded::Record(record, len) => {
                    self.start += len;
                    self.taken += len as u64;
                    return Ok(Some(record));
                }
                Decoded::Broken => return Ok(None),
                Decoded::Short => {
                    self.buffer.drain(..self.start);
                    self.start = 0;
                    let before = self.buffer.len();
                    (&mut self.file).take(BLOCK as u64).read_to_end(&mut self.buffer)?;
                    if self.buffer.len() == before {
                        return Ok(None);
                    }
                }
            }
        }
    }

    pub(crate) const fn taken(&self) -> u64 {
        self.taken
    }
}

/// Appends to the last file.
#[derive(Debug)]
pub(crate) struct Writer {
    file: File,
    len: u64,
    unsynced: bool,
    torn: bool,
}

impl Writer {
    /// A new one. What is there is what an earlier try has left.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
        Ok(Self { file, len: 0, unsynced: false, torn: false })
    }

    /// Goes on behind the records that are whole.
    pub(crate) fn resume(path: &Path, len: u64) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).open(path)?;
        let mut writer = Self { file, len, unsynced: false, torn: true };
        writer.repair()?;
        Ok(writer)
    }

    /// All of it, or nothing where it fails.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.repair()?;
        (self.torn, self.unsynced) = (true, true);
        if let Err(error) = self.file.write_all(bytes) {
            // Where that fails too it is tried again before the next ones.
            let _ = self.repair();
            return Err(error);
        }
        self.torn = false;
        self.len += bytes.len() as u64;
        Ok(())
    }

    pub(crate) fn sync(&mut self) -> io::Result<()> {
        if self.unsynced {
            self.file.sync_data()?;
            self.unsynced = false;
        }
        Ok(())
    }

    pub(crate) const fn len(&self) -> u64 {
        self.len
    }

    fn repair(&mut self) -> io::Result<()> {
        if self.torn {
            self.file.set_len(self.len)?;
            self.file.seek(SeekFrom::Start(self.len))?;
            self.torn = false;
        }
        Ok(())
    }
}
