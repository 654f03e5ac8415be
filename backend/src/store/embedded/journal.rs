//! The journal: what is appended is written here first, and answered; the tables get it afterwards.
//!
//! fjall's own journal would do, if it did not stop commits for 80 to 144 ms whenever a table is
//! written out. One record for each group commit, by one write. A new segment is begun at some size,
//! and one whose records are all in the tables, and these on the disk, is removed.

pub(super) mod record;
pub(super) mod replay;
mod segment;

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;

use self::{record::Ops, segment::Segment};
use super::{Durability, tables::unavailable};
use crate::store::StoreError;

/// A segment that has this gets a successor.
const SEGMENT_BYTES: u64 = 16 * 1024 * 1024;
/// Where that is not ready yet, the writer makes it itself at this size, and waits for the disk.
const LARGE_SEGMENT_BYTES: u64 = 4 * SEGMENT_BYTES;

/// Where the journal of the store in `dir` is.
pub(super) fn directory(dir: &Path) -> PathBuf {
    dir.join("journal")
}

/// What the writer shares with the thread that syncs and makes segments.
pub(super) struct Files {
    dir: PathBuf,
    durability: Durability,
    /// The number of the last record that was written, and of the last one that is on the disk
    /// with all before it.
    written: AtomicU64,
    synced: AtomicU64,
    /// The number that the next segment gets.
    next: AtomicU64,
    state: Mutex<FilesState>,
}

#[derive(Default)]
struct FilesState {
    /// The next segment, made in advance.
    spare: Option<Segment>,
    /// What may have records that are not synced, oldest first; the last one is written to.
    unsynced: Vec<Arc<File>>,
    /// A sync failed. Told to the writer, once.
    failed: Option<io::Error>,
}

impl Files {
    /// Where there is no next segment, makes it.
    pub(super) fn make_spare(&self) -> io::Result<()> {
        if self.state.lock().spare.is_none() {
            let made = self.make()?;
            self.state.lock().spare = Some(made);
        }
        Ok(())
    }

    fn make(&self) -> io::Result<Segment> {
        Segment::create(&self.dir, self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// Syncs what has been written, where there is something; whether there was. For one thread.
    pub(super) fn sync(&self) -> io::Result<bool> {
        // Before the files are looked up: all that was written until now is in them.
        let written = self.written.load(Ordering::Acquire);
        if written == self.synced.load(Ordering::Relaxed) {
            return Ok(false);
        }
        let files = self.state.lock().unsynced.clone();
        let synced = files.iter().try_for_each(|file| file.sync_data());
        let mut state = self.state.lock();
        match synced {
            Ok(()) => {
                // The last of them is written to, or was when they were looked up.
                state.unsynced.drain(..files.len().saturating_sub(1));
                drop(state);
                self.synced.store(written, Ordering::Release);
                Ok(true)
            }
            Err(e) => {
                state.failed = Some(io::Error::new(e.kind(), e.to_string()));
                Err(e)
            }
        }
    }
}

/// A segment that is full.
pub(super) struct Closed {
    pub path: PathBuf,
    /// The number of its last record.
    pub last: u64,
    pub bytes: u64,
}

/// The writing side.
pub(super) struct Journal {
    files: Arc<Files>,
    current: Segment,
    /// The number of the last record.
    last: u64,
    closed: Vec<Closed>,
    #[cfg(test)]
    pub(super) segment_bytes: u64,
}

impl Journal {
    /// Begins a journal behind record `last`: all up to it is in the tables, and on the disk. What is
    /// in the directory is removed.
    pub(super) fn begin(dir: &Path, last: u64, durability: Durability) -> Result<Self, StoreError> {
        let failed = |e| unavailable("cannot begin a journal in", dir, &e);
        let old = segment::list(dir).map_err(failed)?;
        for (_, path) in &old {
            fs::remove_file(path).map_err(|e| unavailable("cannot remove", path, &e))?;
        }
        let number = old.last().map_or(1, |(number, _)| number.saturating_add(1));
        // Syncs the directory too: an old record would be taken for a new one of the same number.
        let current = Segment::create(dir, number).map_err(failed)?;
        let state = FilesState { unsynced: vec![Arc::clone(&current.file)], ..Default::default() };
        let files = Files {
            dir: dir.to_owned(),
            durability,
            written: last.into(),
            synced: last.into(),
            next: number.saturating_add(1).into(),
            state: Mutex::new(state),
        };
        Ok(Self {
            files: Arc::new(files),
            current,
            last,
            closed: Vec::new(),
            #[cfg(test)]
            segment_bytes: SEGMENT_BYTES,
        })
    }

    pub(super) fn files(&self) -> Arc<Files> {
        Arc::clone(&self.files)
    }

    /// The number of the last record.
    pub(super) const fn last(&self) -> u64 {
        self.last
    }

    /// Of the segment that is written to.
    pub(super) const fn current_bytes(&self) -> u64 {
        self.current.bytes
    }

    /// Segments that have been closed since the last time.
    pub(super) fn take_closed(&mut self) -> Vec<Closed> {
        std::mem::take(&mut self.closed)
    }

    /// Writes a record, and syncs it where that is promised; the record. `break_off` (in tests) writes
    /// half of it and fails.
    ///
    /// # Errors
    /// The disk failed. Nothing may be appended until [`Self::renew`] has succeeded.
    pub(super) fn append(&mut self, ops: Ops, break_off: bool) -> Result<Vec<u8>, StoreError> {
        self.write(ops, break_off).map_err(|e| unavailable("cannot write", &self.current.path, &e))
    }

    fn write(&mut self, ops: Ops, break_off: bool) -> io::Result<Vec<u8>> {
        if let Some(e) = self.files.state.lock().failed.take() {
            return Err(e);
        }
        self.rotate()?;
        let synced = match self.files.durability {
            Durability::Process => self.files.synced.load(Ordering::Acquire),
            Durability::Disk => self.last,
        };
        let number = self.last + 1;
        let record = ops.into_record(self.current.mark, number, synced);
        let mut file = &*self.current.file;
        if break_off {
            file.write_all(&record[..record.len() / 2])?;
            return Err(io::Error::other("told to fail"));
        }
        file.write_all(&record)?;
        if self.files.durability == Durability::Disk {
            file.sync_data()?;
        }
        self.current.bytes += record.len() as u64;
        self.last = number;
        self.files.written.store(number, Ordering::Release);
        Ok(record)
    }

    /// Goes on in the next segment where this one is full.
    fn rotate(&mut self) -> io::Result<()> {
        #[cfg(not(test))]
        let (full, large) = (SEGMENT_BYTES, LARGE_SEGMENT_BYTES);
        #[cfg(test)]
        let (full, large) = (self.segment_bytes, self.segment_bytes.min(LARGE_SEGMENT_BYTES));
        if self.current.bytes < full {
            return Ok(());
        }
        let spare = self.files.state.lock().spare.take();
        match spare {
            // Made before the one that is written to, and handed over after it.
            Some(old) if old.number < self.current.number => {
                let _ = fs::remove_file(&old.path);
                Ok(())
            }
            Some(next) => {
                self.go_on_in(next);
                Ok(())
            }
            None if self.current.bytes < large => Ok(()),
            None => {
                let next = self.files.make()?;
                self.go_on_in(next);
                Ok(())
            }
        }
    }

    fn go_on_in(&mut self, next: Segment) {
        let mut state = self.files.state.lock();
        if self.files.durability == Durability::Disk {
            state.unsynced.clear();
        }
        state.unsynced.push(Arc::clone(&next.file));
        drop(state);
        let old = std::mem::replace(&mut self.current, next);
        self.closed.push(Closed { path: old.path, last: self.last, bytes: old.bytes });
    }

    /// After a failed write: cuts off what there is of it, and goes on in a new segment.
    pub(super) fn renew(&mut self) -> Result<(), StoreError> {
        let failed = |e| unavailable("cannot write", &self.current.path, &e);
        self.current.file.set_len(self.current.bytes).map_err(failed)?;
        self.current.file.sync_all().map_err(failed)?;
        let next = self.files.make().map_err(failed)?;
        self.go_on_in(next);
        Ok(())
    }
}
