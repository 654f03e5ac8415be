//! Events on disk until Kafka has them. All go by here, so that there is one way and one order, whether Kafka is there
//! or not, and a process that dies loses nothing that it has written.
//!
//! Events have positions, from 0 on for ever. A file is named by the position of its first one, and goes once all in it
//! are delivered. Up to where that is stands in `delivered`, which may lag: what was delivered since comes again after a
//! crash, with the same id.

use std::{
    collections::VecDeque,
    fs::{self, File},
    io,
    path::PathBuf,
};

use crate::{
    home::{name, numbered, sync_dir},
    segment::{Reader, Record, Writer, checksum},
};

const PREFIX: &str = "spool-";
const SUFFIX: &str = ".bin";
const DELIVERED: &str = "delivered";

/// Small enough that the disk is given back in steps.
const SEGMENT_BYTES: u64 = 4 << 20;

/// See the module.
#[derive(Debug)]
pub(crate) struct Spool {
    dir: PathBuf,
    /// The bound of all files.
    max_bytes: u64,
    segment_bytes: u64,
    segments: VecDeque<Segment>,
    writer: Writer,
    /// Position of the next event that is appended.
    end: u64,
    /// Below this all are delivered.
    delivered: u64,
    /// As it is on disk.
    told: u64,
    reader: Option<Place>,
}

/// Where it is read.
#[derive(Debug)]
struct Place {
    /// The first position of the file.
    file: u64,
    /// Of the next event.
    at: u64,
    reader: Reader,
}

#[derive(Debug)]
struct Segment {
    first: u64,
    path: PathBuf,
    len: u64,
}

/// What became of an event that was asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Record(Record),
    /// It is not there: the disk has lost it, and those before this position.
    Lost(u64),
}

impl Spool {
    /// Goes on with what is there; what is torn at its end is cut off.
    pub(crate) fn open(dir: PathBuf, max_bytes: u64) -> io::Result<Self> {
        Self::open_with(dir, max_bytes, SEGMENT_BYTES)
    }

    pub(crate) fn open_with(dir: PathBuf, max_bytes: u64, segment_bytes: u64) -> io::Result<Self> {
        fs::create_dir_all(&dir)?;
        let told = read_delivered(&dir);
        let mut segments = VecDeque::new();
        for (first, path) in numbered(&dir, PREFIX, SUFFIX)? {
            let len = fs::metadata(&path)?.len();
            segments.push_back(Segment { first, path, len });
        }
        let (writer, end) = match segments.back_mut() {
            Some(last) => {
                let mut reader = Reader::open(&last.path)?;
                let mut end = last.first;
                while reader.next()?.is_some() {
                    end += 1;
                }
                if reader.taken() < last.len {
                    let (file, bytes) = (last.path.display(), last.len - reader.taken());
                    tracing::warn!(%file, bytes, "cut off events that were torn");
                }
                last.len = reader.taken();
                (Writer::resume(&last.path, last.len)?, end)
            }
            None => {
                let (segment, writer) = create(&dir, told)?;
                segments.push_back(segment);
                (writer, told)
            }
        };
        let first = segments.front().map_or(end, |segment| segment.first);
        // What the file says may be older than the files, and newer than what a loss of power has left.
        let delivered = told.max(first).min(end);
        let mut spool = Self {
            dir,
            max_bytes,
            segment_bytes,
            segments,
            writer,
            end,
            delivered,
            told,
            reader: None,
        };
        spool.remove_delivered()?;
        spool.sync()?;
        Ok(spool)
    }

    /// Appends as many as there is room for, all of them at once; gives how many.
    pub(crate) fn append(&mut self, records: &[Record]) -> io::Result<usize> {
        if self.writer.len() >= self.segment_bytes {
            self.writer.sync()?;
            let (segment, writer) = create(&self.dir, self.end)?;
            self.segments.push_back(segment);
            self.writer = writer;
            self.remove_delivered()?;
        }
        let mut room = self.max_bytes.saturating_sub(self.bytes());
        let mut bytes = Vec::new();
        let mut taken = 0;
        for record in records {
            if record.len() > room {
                break;
            }
            room -= record.len();
            record.encode(&mut bytes);
            taken += 1;
        }
        self.writer.append(&bytes)?;
        self.end += taken as u64;
        if let Some(last) = self.segments.back_mut() {
            last.len += bytes.len() as u64;
        }
        Ok(taken)
    }

    /// The event at a position before the end. One after the other it costs a read of many at a time.
    pub(crate) fn read(&mut self, position: u64) -> io::Result<Found> {
        if self.reader.as_ref().is_none_or(|place| place.at != position) {
            self.seek(position)?;
        }
        loop {
            let Some(place) = &mut self.reader else { return Ok(Found::Lost(self.end)) };
            if let Some(record) = place.reader.next()? {
                place.at += 1;
                if place.at > position {
                    return Ok(Found::Record(record));
                }
                continue;
            }
            // The end of a file that is not the last one, or what is broken.
            let file = place.file;
            let Some(next) = self.segments.iter().find(|segment| segment.first > file) else {
                self.reader = None;
                return Ok(Found::Lost(self.end));
            };
            let first = next.first;
            self.reader = Some(Place { file: first, at: first, reader: Reader::open(&next.path)? });
            if first > position {
                return Ok(Found::Lost(first));
            }
        }
    }

    fn seek(&mut self, position: u64) -> io::Result<()> {
        let segment = self.segments.iter().rev().find(|segment| segment.first <= position);
        let Some(Segment { first, path, .. }) = segment.or(self.segments.front()) else {
            return Ok(());
        };
        self.reader = Some(Place { file: *first, at: *first, reader: Reader::open(path)? });
        Ok(())
    }

    /// All below a position are delivered: their files go.
    pub(crate) fn delivered(&mut self, below: u64) -> io::Result<()> {
        self.delivered = below.max(self.delivered);
        self.remove_delivered()
    }

    fn remove_delivered(&mut self) -> io::Result<()> {
        while self.segments.get(1).is_some_and(|second| second.first <= self.delivered)
            && let Some(first) = self.segments.front()
        {
            fs::remove_file(&first.path)?;
            self.segments.pop_front();
        }
        Ok(())
    }

    /// Waits until the disk has what was appended, and writes down what is delivered.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        self.writer.sync()?;
        if self.told != self.delivered {
            let position = self.delivered.to_le_bytes();
            let sum = checksum(&position).to_le_bytes();
            // A process that dies meanwhile leaves the old one.
            let new = self.dir.join(format!("{DELIVERED}.new"));
            fs::write(&new, [&position[..], &sum].concat())?;
            fs::rename(new, self.dir.join(DELIVERED))?;
            self.told = self.delivered;
        }
        Ok(())
    }

    /// Position of the next event that is appended.
    pub(crate) const fn end(&self) -> u64 {
        self.end
    }

    /// Below this all are delivered.
    pub(crate) const fn start(&self) -> u64 {
        self.delivered
    }

    /// Bytes of all files. Where all in them are delivered, up to a file's worth is left.
    pub(crate) fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.len).sum()
    }
}

fn create(dir: &std::path::Path, first: u64) -> io::Result<(Segment, Writer)> {
    let path = dir.join(name(PREFIX, first, SUFFIX));
    let writer = Writer::create(&path)?;
    sync_dir(dir)?;
    Ok((Segment { first, path, len: 0 }, writer))
}

/// Nothing is delivered where it is not there or broken: then it comes again.
fn read_delivered(dir: &std::path::Path) -> u64 {
    let read = || -> Option<u64> {
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut File::open(dir.join(DELIVERED)).ok()?, &mut bytes).ok()?;
        let (position, sum) = bytes.split_at_checked(8)?;
        let is_whole = checksum(position).to_le_bytes() == sum;
        is_whole.then(|| position.try_into().map(u64::from_le_bytes).ok()).flatten()
    };
    read().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::{fs::OpenOptions, io::Write, path::Path};

    use super::*;

    fn record(n: u64) -> Record {
        Record { at_ms: n, key: format!("user-{n}").into_bytes(), value: b"0123456789".to_vec() }
    }

    fn records(range: std::ops::Range<u64>) -> Vec<Record> {
        range.map(record).collect()
    }

    fn open(dir: &Path) -> Spool {
        Spool::open_with(dir.to_owned(), 1000, 100).unwrap()
    }

    fn all(spool: &mut Spool) -> Vec<u64> {
        let mut read = Vec::new();
        let mut at = spool.start();
        while at < spool.end() {
            match spool.read(at).unwrap() {
                Found::Record(record) => {
                    read.push(record.at_ms);
                    at += 1;
                }
                Found::Lost(next) => at = next,
            }
        }
        read
    }

    fn files(dir: &Path) -> Vec<(u64, PathBuf)> {
        numbered(dir, PREFIX, SUFFIX).unwrap()
    }

    #[test]
    fn it_goes_on_after_a_restart_and_gives_its_files_back_as_they_are_delivered() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = open(dir.path());
        for n in 0..10 {
            assert_eq!(spool.append(&[record(n)]).unwrap(), 1);
        }
        assert_eq!(all(&mut spool), (0..10).collect::<Vec<_>>());
        assert_eq!(files(dir.path()).len(), 4, "three records a file");
        spool.delivered(7).unwrap();
        assert_eq!(files(dir.path()).len(), 2);
        spool.sync().unwrap();
        drop(spool);
        let mut spool = open(dir.path());
        assert_eq!(all(&mut spool), [7, 8, 9]);
        spool.delivered(10).unwrap();
        spool.sync().unwrap();
        let mut spool = open(dir.path());
        assert_eq!(all(&mut spool), Vec::<u64>::new());
        spool.append(&[record(10)]).unwrap();
        assert_eq!((spool.start(), all(&mut spool)), (10, vec![10]));
    }

    #[test]
    fn any_position_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = open(dir.path());
        (0..10).for_each(|n| assert_eq!(spool.append(&[record(n)]).unwrap(), 1));
        for at in [9, 0, 4, 5, 3, 3] {
            assert_eq!(spool.read(at).unwrap(), Found::Record(record(at)));
        }
    }

    #[test]
    fn at_the_bound_the_newest_are_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = open(dir.path());
        let fits = usize::try_from(1000 / record(0).len()).unwrap();
        assert_eq!(spool.append(&records(0..10)).unwrap(), 10);
        assert_eq!(spool.append(&records(0..90)).unwrap(), fits - 10);
        assert!(spool.bytes() <= 1000);
        assert_eq!(spool.append(&[record(1)]).unwrap(), 0);
        spool.delivered(fits as u64).unwrap();
        assert_eq!(spool.append(&[record(1)]).unwrap(), 1, "there is room again");
    }

    #[test]
    fn what_is_torn_is_cut_off_and_what_a_disk_has_lost_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = open(dir.path());
        (0..10).for_each(|n| assert_eq!(spool.append(&[record(n)]).unwrap(), 1));
        drop(spool);
        let files = files(dir.path());
        OpenOptions::new().append(true).open(&files[3].1).unwrap().write_all(&[7; 30]).unwrap();
        let mut middle = fs::read(&files[1].1).unwrap();
        middle[40] ^= 1;
        fs::write(&files[1].1, middle).unwrap();
        let mut spool = open(dir.path());
        spool.append(&[record(10)]).unwrap();
        assert_eq!(spool.read(4).unwrap(), Found::Lost(6));
        assert_eq!(all(&mut spool), [0, 1, 2, 3, 6, 7, 8, 9, 10]);
    }

    #[test]
    fn what_says_how_far_it_is_may_be_torn_too() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = open(dir.path());
        spool.append(&records(0..2)).unwrap();
        spool.delivered(1).unwrap();
        spool.sync().unwrap();
        drop(spool);
        fs::write(dir.path().join(DELIVERED), b"torn").unwrap();
        assert_eq!(all(&mut open(dir.path())), [0, 1]);
    }
}
