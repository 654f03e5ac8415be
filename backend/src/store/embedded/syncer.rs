//! Writes the journal to the disk little by little.
//!
//! fjall syncs its journal whenever it writes a table out, with the lock held that every commit takes. What
//! came since the last time is then written at once, and for so long no signal and no stroke is
//! delivered. Synced all along, by a file handle of our own and without that lock, little is left to do.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::tables;

/// What is left to fjall is what is appended in this time.
const EVERY: Duration = Duration::from_millis(100);

/// A thread that ends with it.
pub(super) struct Syncer {
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Syncer {
    /// Syncs the journals in `dir` while `commits` grows.
    pub(super) fn start(dir: &Path, commits: Arc<AtomicU64>) -> io::Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let dir = tables::journals(dir);
        let thread = thread::Builder::new()
            .name("store-syncer".to_owned())
            .spawn(move || run(&dir, &commits, &stopped))?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        drop(self.stop.take());
        // It has nothing to say: fjall syncs too, and tells what fails.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn run(dir: &Path, commits: &AtomicU64, stopped: &mpsc::Receiver<()>) {
    let mut synced = 0;
    while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(EVERY) {
        let count = commits.load(Ordering::Relaxed);
        if count == synced {
            continue;
        }
        synced = count;
        let started = Instant::now();
        let done = newest(dir).and_then(|journal| match journal {
            Some(path) => File::open(path)?.sync_data(),
            None => Ok(()),
        });
        match done {
            Ok(()) => {
                metrics::histogram!("edgeway_backend_store_sync_seconds").record(started.elapsed())
            }
            // It may have been removed just now; what is really wrong the next commit tells.
            Err(error) => tracing::debug!(%error, "the journal could not be synced"),
        }
    }
}

/// The journal that is written to: the one with the highest number.
fn newest(dir: &Path) -> io::Result<Option<PathBuf>> {
    let mut newest = None;
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let number = path.file_stem().and_then(|stem| stem.to_str()?.parse::<u64>().ok());
        if let Some(number) = number.filter(|_| path.extension().is_some_and(|e| e == "jnl"))
            && newest.as_ref().is_none_or(|(highest, _)| number > *highest)
        {
            newest = Some((number, path));
        }
    }
    Ok(newest.map(|(_, path)| path))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_newest_journal_is_the_one_with_the_highest_number() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(newest(dir.path()).unwrap(), None);
        for name in ["9.jnl", "10.jnl", "11.old", "x.jnl", "lock"] {
            File::create(dir.path().join(name)).unwrap();
        }
        assert_eq!(newest(dir.path()).unwrap(), Some(dir.path().join("10.jnl")));
    }

    #[test]
    fn the_journal_is_where_the_syncer_looks() {
        let dir = tempfile::tempdir().unwrap();
        let tables = tables::Tables::open(dir.path(), 1024 * 1024).unwrap();
        assert!(newest(&tables::journals(dir.path())).unwrap().is_some());
        drop(tables);
    }
}
