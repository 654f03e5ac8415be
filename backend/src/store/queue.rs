//! The way to whoever writes, bounded by bytes.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::StoreError;

/// What a job takes of the queue beside its values: keys, allocations, the answer.
pub(super) const JOB_BYTES: usize = 256;

/// Work that waits to be done, and the way back.
pub(super) struct Job<W, D> {
    pub work: W,
    pub bytes: usize,
    pub reply: oneshot::Sender<Result<D, StoreError>>,
    /// Given back when the job is answered.
    _space: OwnedSemaphorePermit,
}

/// The sending side.
pub(super) struct Queue<W, D> {
    jobs: mpsc::UnboundedSender<Job<W, D>>,
    space: Arc<Semaphore>,
    bound: u32,
}

impl<W, D> Queue<W, D> {
    /// A queue that holds about `bytes`, and its receiving side.
    pub(super) fn new(bytes: usize) -> (Self, mpsc::UnboundedReceiver<Job<W, D>>) {
        // What is waiting is bounded by `space`, not by the channel.
        let (jobs, receiver) = mpsc::unbounded_channel();
        let bound = u32::try_from(bytes.max(1)).unwrap_or(u32::MAX);
        let space = Arc::new(Semaphore::new(bound as usize));
        (Self { jobs, space, bound }, receiver)
    }

    /// Queues `work`, which takes `bytes`, and waits for its answer. At the bound it waits for
    /// space first, in the order of asking.
    pub(super) async fn ask(&self, work: W, bytes: usize) -> Result<D, StoreError> {
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
