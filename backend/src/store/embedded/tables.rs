//! The directory, its lock and the tables in it.

use std::{
    fs::{self, File, TryLockError},
    io::{ErrorKind, Read, Write},
    path::Path,
    thread,
    time::Duration,
};

use edgeway_proto::Seq;
use fjall::{
    AbstractTree, Database, Keyspace, KeyspaceCreateOptions, PersistMode, Readable, Snapshot,
};

use super::{
    codec::Tail,
    journal::record::Table,
    keys::{self, APPLIED_KEY, SCHEMA, SCHEMA_KEY, SCHEMA_WITHOUT_JOURNAL},
    read,
};
use crate::store::{LogId, StoreError};

/// What fjall's journals may take before the tables that hold them up are written out: bounds the
/// time that opening after a crash takes.
const JOURNAL_BYTES: u64 = 256 * 1024 * 1024;
/// Memory for entries that are not written out yet; up to four times as much under load. Writing out takes a core,
/// and at moments the commits' locks, for as long as there is something to be written: with 32 MiB, 80 to 140 ms
/// on two cores, in which the journal goes on and reads wait.
const ENTRIES_MEMORY_BYTES: u64 = 4 * 1024 * 1024;
/// The same for each of the other tables, whose records are small.
const SMALL_MEMORY_BYTES: u64 = 1024 * 1024;

/// Threads that write tables out and merge them. One leaves the other cores to the messages.
const WORKERS: usize = 1;

/// fjall halts a commit inside itself at 4 sealed memtables or 30 runs, without an end where its
/// own threads have failed. We wait before that, where the failure is seen.
const SEALED_MEMTABLES: usize = 3;
const RUNS: usize = 28;

/// The lock on a store's directory: one process at a time. Released when dropped.
pub(super) struct Lock {
    file: File,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // By name: a process that is being started has a copy of each open file until it runs its program, and
        // closing ours alone would leave the directory locked for so long.
        let _ = self.file.unlock();
    }
}

impl Lock {
    /// Takes the directory, and makes it where it is not there.
    pub(super) fn take(dir: &Path) -> Result<Self, StoreError> {
        fs::create_dir_all(dir).map_err(|e| unavailable("cannot make the directory", dir, &e))?;
        let path = dir.join("holder");
        let mut file = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(|e| unavailable("cannot open", &path, &e))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(held(dir, &mut file)),
            Err(TryLockError::Error(e)) => return Err(unavailable("cannot lock", &path, &e)),
        }
        file.set_len(0)
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(|e| unavailable("cannot write", &path, &e))?;
        Ok(Self { file })
    }
}

fn held(dir: &Path, file: &mut File) -> StoreError {
    let mut pid = String::new();
    let holder = match file.read_to_string(&mut pid) {
        Ok(_) if !pid.trim().is_empty() => format!("process {}", pid.trim()),
        _ => "another process".to_owned(),
    };
    StoreError::Unavailable(format!(
        "{} is in use by {holder}; stop that one, or give this one a directory of its own",
        dir.display()
    ))
}

/// The open tables.
pub(super) struct Tables {
    pub db: Database,
    /// Schema, counter of handles, the handle of each room, and how far the journal was applied.
    pub names: Keyspace,
    /// The logs.
    pub entries: Keyspace,
    /// [`Tail`] of each log that was trimmed.
    pub tails: Keyspace,
    /// Last message id of each log and device.
    pub devices: Keyspace,
    /// Room state by group and key.
    pub state: Keyspace,
}

impl Tables {
    /// Opens the store in a directory that is locked, or makes a new one. A new one is made beside
    /// and then renamed, so that a crash in between leaves nothing half made.
    pub(super) fn open(dir: &Path, cache_bytes: u64) -> Result<Self, StoreError> {
        let data = dir.join("data");
        if !data.try_exists().map_err(|e| unavailable("cannot look into", dir, &e))? {
            let new = dir.join("data.new");
            Self::create(&new, cache_bytes)?;
            fs::rename(&new, &data)
                .and_then(|()| sync_dir(dir))
                .map_err(|e| unavailable("cannot rename", &new, &e))?;
        }
        let tables = Self::open_database(&data, cache_bytes).map_err(|e| opening(e, &data))?;
        let found = tables.names.get(SCHEMA_KEY).map_err(|e| opening(e, &data))?;
        let found = found.and_then(|value| Some(u32::from_be_bytes(value[..].try_into().ok()?)));
        if found == Some(SCHEMA_WITHOUT_JOURNAL) {
            tables.set_schema().map_err(|e| opening(e, &data))?;
            tracing::info!("the store is now one of the {SCHEMA}. schema");
        } else if found != Some(SCHEMA) {
            let found = found.map_or("an unknown".to_owned(), |n| format!("the {n}."));
            return Err(StoreError::Corrupt {
                what: format!(
                    "a store of {found} schema, where this version reads the {SCHEMA}.; run the \
                     version that wrote it, or move the directory away to start empty"
                ),
                place: data.display().to_string(),
            });
        }
        Ok(tables)
    }

    fn create(dir: &Path, cache_bytes: u64) -> Result<(), StoreError> {
        if dir.exists() {
            fs::remove_dir_all(dir).map_err(|e| unavailable("cannot remove", dir, &e))?;
        }
        let tables = Self::open_database(dir, cache_bytes).map_err(|e| opening(e, dir))?;
        tables.set_schema().map_err(|e| opening(e, dir))
    }

    fn set_schema(&self) -> fjall::Result<()> {
        self.names.insert(SCHEMA_KEY, SCHEMA.to_be_bytes())?;
        self.db.persist(PersistMode::SyncAll)
    }

    fn open_database(dir: &Path, cache_bytes: u64) -> fjall::Result<Self> {
        let db = Database::builder(dir)
            .cache_size(cache_bytes)
            .max_journaling_size(JOURNAL_BYTES)
            .manual_journal_persist(true)
            .worker_threads(WORKERS)
            .open()?;
        let table = |name, bytes| {
            db.keyspace(name, || KeyspaceCreateOptions::default().max_memtable_size(bytes))
        };
        Ok(Self {
            names: table("names", SMALL_MEMORY_BYTES)?,
            entries: table("entries", ENTRIES_MEMORY_BYTES)?,
            tails: table("tails", SMALL_MEMORY_BYTES)?,
            devices: table("devices", SMALL_MEMORY_BYTES)?,
            state: table("state", SMALL_MEMORY_BYTES)?,
            db,
        })
    }

    /// Waits until a commit will not be halted: the disk is slower than the appends.
    pub(super) fn wait_for_room(&self) -> Result<(), StoreError> {
        let tables = [&self.names, &self.entries, &self.tails, &self.devices, &self.state];
        let full = |table: &&Keyspace| {
            table.sealed_memtable_count() >= SEALED_MEMTABLES || table.tree.l0_run_count() >= RUNS
        };
        while tables.iter().any(full) {
            // Says whether a thread of fjall has failed; there is nothing to be written here.
            self.db.persist(PersistMode::Buffer).map_err(storing)?;
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// The number of the last record of the journal that is in here.
    pub(super) fn applied(&self) -> Result<u64, StoreError> {
        let value = self.names.get(APPLIED_KEY).map_err(storing)?;
        value.map_or(Ok(0), |value| read::number(&value, "names"))
    }

    /// Where an operation of the journal goes.
    pub(super) const fn table(&self, table: Table) -> &Keyspace {
        match table {
            Table::Names => &self.names,
            Table::Entries => &self.entries,
            Table::Tails => &self.tails,
            Table::Devices => &self.devices,
            Table::State => &self.state,
        }
    }

    /// What is remembered of a log that was trimmed; else zeros.
    pub(super) fn tail(&self, at: &Snapshot, log: LogId) -> Result<Tail, StoreError> {
        let Some(value) = at.get(&self.tails, keys::log(log)).map_err(storing)? else {
            return Ok(Tail::default());
        };
        Tail::read(&value).ok_or_else(|| corrupt("a tail", log, Seq::ZERO))
    }
}

/// Makes what was created and removed in a directory survive the loss of power.
pub(super) fn sync_dir(dir: &Path) -> std::io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Whether `dir` can be written to again, after it could not: asked before a store that can still
/// be read is closed to be opened anew.
pub(super) fn probe(dir: &Path) -> Result<(), StoreError> {
    /// More than what the end of a journal or a small table takes.
    const PROBE_BYTES: usize = 1024 * 1024;
    let path = dir.join("probe");
    let written = File::create(&path).and_then(|mut file| {
        file.write_all(&vec![1; PROBE_BYTES])?;
        file.sync_all()
    });
    let removed = fs::remove_file(&path);
    written.and(removed).map_err(|e| unavailable("cannot write", &path, &e))
}

/// An error of reading or writing.
pub(super) fn storing(e: fjall::Error) -> StoreError {
    classify(e, "the store's files")
}

fn opening(e: fjall::Error, dir: &Path) -> StoreError {
    match classify(e, &dir.display().to_string()) {
        StoreError::Corrupt { what, place } => StoreError::Corrupt {
            what: format!("{what}; put a copy back, or move the directory away to start empty"),
            place,
        },
        other => other,
    }
}

fn classify(e: fjall::Error, place: &str) -> StoreError {
    use fjall::{Error, LsmError};
    match e {
        // Files that are missing or cut off.
        Error::Io(e) | Error::Storage(LsmError::Io(e))
            if matches!(e.kind(), ErrorKind::UnexpectedEof | ErrorKind::NotFound) =>
        {
            StoreError::Corrupt { what: e.to_string(), place: place.to_owned() }
        }
        Error::Io(e) | Error::Storage(LsmError::Io(e)) => {
            StoreError::Unavailable(format!("{place}: {e}"))
        }
        Error::Poisoned => StoreError::Unavailable(format!("{place}: an earlier write failed")),
        Error::Locked => StoreError::Unavailable(format!("{place}: in use by another process")),
        other => StoreError::Corrupt { what: other.to_string(), place: place.to_owned() },
    }
}

pub(super) fn unavailable(what: &str, path: &Path, e: &std::io::Error) -> StoreError {
    StoreError::Unavailable(format!("{what} {}: {e}", path.display()))
}

/// A record that cannot be read.
pub(super) fn corrupt(what: &str, log: LogId, seq: Seq) -> StoreError {
    StoreError::Corrupt {
        what: format!("{what} that cannot be read"),
        place: format!("log {}/{} at {seq}", log.group, log.class),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_directory_is_free_once_its_holder_is_done_also_where_a_new_process_has_its_files() {
        let dir = tempfile::tempdir().unwrap();
        let lock = Lock::take(dir.path()).unwrap();
        let copy = lock.file.try_clone().unwrap();
        assert!(Lock::take(dir.path()).is_err());
        drop(lock);
        Lock::take(dir.path()).unwrap();
        drop(copy);
    }
}
