//! What the journal needs of the disk while the writer goes on: it is synced little by little, and
//! the next segment is made before it is needed.

use std::{
    io,
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::{Durability, journal::Files};

/// What the loss of power takes is what was appended in this time, unless each commit is synced.
const EVERY: Duration = Duration::from_millis(100);

/// A thread that ends with it.
pub(super) struct Syncer {
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Syncer {
    pub(super) fn start(files: Arc<Files>, durability: Durability) -> io::Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let thread = thread::Builder::new()
            .name("store-syncer".to_owned())
            .spawn(move || run(&files, durability, &stopped))?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        drop(self.stop.take());
        // It has nothing to say: what fails the writer hears of, and tells.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn run(files: &Files, durability: Durability, stopped: &mpsc::Receiver<()>) {
    while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(EVERY) {
        if let Err(error) = files.make_spare() {
            // The writer goes on where it is, tries by itself in the end, and tells.
            tracing::debug!(%error, "the next segment of the journal could not be made");
        }
        if durability == Durability::Process {
            sync(files);
        }
    }
    // The writer has ended.
    if durability == Durability::Process {
        sync(files);
    }
}

fn sync(files: &Files) {
    let started = Instant::now();
    match files.sync() {
        Ok(true) => {
            metrics::histogram!("edgeway_backend_store_sync_seconds").record(started.elapsed());
        }
        Ok(false) => {}
        Err(error) => tracing::error!(%error, "the journal could not be synced"),
    }
}
