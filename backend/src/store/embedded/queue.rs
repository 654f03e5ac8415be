//! The way to the thread that writes, bounded by bytes.

use std::sync::Arc;

use edgeway_proto::{Class, Seq};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::{codec, keys};
use crate::store::{Append, LogId, Record, StoreError};

/// What a job takes of the queue beside its values: keys, allocations, the answer.
const JOB_BYTES: usize = 256;

/// One entry, encoded by the caller so that the writer only has to hand it on.
pub(super) struct Entry {
    pub log: LogId,
    pub seq: Seq,
    pub value: Vec<u8>,
    /// Key of the device, and its message id.
    pub device: Option<(Vec<u8>, u64)>,
    /// Key of room state, and the value; none removes the key.
    pub state: Option<(Vec<u8>, Option<Vec<u8>>)>,
}

impl Entry {
    /// # Errors
    /// `Corrupt` where the record could not be read again: names above 65,535 bytes, or a signal
    /// with a key whose frame is no Deliver.
    pub(super) fn new(append: &Append) -> Result<Self, StoreError> {
        let Append { log, record } = append;
        let refused = |what: &str| StoreError::Corrupt {
            what: what.to_owned(),
            place: format!("an append to log {}/{} at {}", log.group, log.class, record.seq),
        };
        let value = codec::record(record).ok_or_else(|| refused("a name above 65,535 bytes"))?;
        let origin = &record.origin;
        let device =
            (!origin.device.is_empty()).then(|| (keys::device(*log, &origin.device), origin.id));
        let state = if sets_state(*log, record) {
            let removes = codec::payload_is_empty(&record.frame)
                .ok_or_else(|| refused("a signal with a key whose frame is no Deliver"))?;
            let state = (!removes).then(|| codec::state(record.seq, &value));
            Some((keys::state(log.group, &record.key), state))
        } else {
            None
        };
        Ok(Self { log: *log, seq: record.seq, value, device, state })
    }

    fn bytes(&self) -> usize {
        let state = self.state.as_ref().and_then(|(_, value)| value.as_ref());
        self.value.len() + state.map_or(0, Vec::len) + JOB_BYTES
    }
}

fn sets_state(log: LogId, record: &Record) -> bool {
    log.class == Class::Signal && !record.key.is_empty()
}

/// What the writer is asked to do.
pub(super) enum Work {
    /// All of these, or none.
    Append(Vec<Entry>),
    /// Allots a handle to a room that may have none.
    Room(String),
    /// Hides what is before, and removes a part of it.
    Trim { log: LogId, before: Seq },
}

/// What came of it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Done {
    Appended,
    Room(u64),
    Trimmed {
        /// There is more to be removed: ask again.
        more: bool,
    },
}

pub(super) struct Job {
    pub work: Work,
    pub bytes: usize,
    pub reply: oneshot::Sender<Result<Done, StoreError>>,
    /// Given back when the job is answered.
    _space: OwnedSemaphorePermit,
}

/// The sending side.
pub(super) struct Queue {
    jobs: mpsc::UnboundedSender<Job>,
    space: Arc<Semaphore>,
    bound: u32,
}

impl Queue {
    /// A queue that holds about `bytes`, and its receiving side.
    pub(super) fn new(bytes: usize) -> (Self, mpsc::UnboundedReceiver<Job>) {
        // What is waiting is bounded by `space`, not by the channel.
        let (jobs, receiver) = mpsc::unbounded_channel();
        let bound = u32::try_from(bytes.max(1)).unwrap_or(u32::MAX);
        let space = Arc::new(Semaphore::new(bound as usize));
        (Self { jobs, space, bound }, receiver)
    }

    /// Queues `work` and waits for its answer. At the bound it waits for space first, in the order
    /// of asking.
    pub(super) async fn ask(&self, work: Work) -> Result<Done, StoreError> {
        let bytes = match &work {
            Work::Append(entries) => entries.iter().map(Entry::bytes).sum(),
            Work::Room(name) => name.len() + JOB_BYTES,
            Work::Trim { .. } => JOB_BYTES,
        };
        // What is larger than the queue waits until it has all of it.
        let cost = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.bound);
        let space = match Arc::clone(&self.space).try_acquire_many_owned(cost) {
            Ok(space) => space,
            Err(_) => {
                metrics::counter!("edgeway_backend_store_queue_full_total").increment(1);
                let waiting = Arc::clone(&self.space).acquire_many_owned(cost);
                waiting.await.map_err(|_| closed())?
            }
        };
        let (reply, answer) = oneshot::channel();
        self.jobs.send(Job { work, bytes, reply, _space: space }).map_err(|_| closed())?;
        self.measure();
        answer.await.map_err(|_| closed())?
    }

    fn measure(&self) {
        let used = self.bound as usize - self.space.available_permits().min(self.bound as usize);
        #[allow(clippy::cast_precision_loss)] // a gauge
        metrics::gauge!("edgeway_backend_store_queue_bytes").set(used as f64);
    }
}

/// The answer once the store is being closed, or its writer has ended.
pub(super) fn closed() -> StoreError {
    StoreError::Unavailable("the store is closed".to_owned())
}
