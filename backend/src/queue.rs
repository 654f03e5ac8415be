//! The queue in front of a gRPC stream: bounded in bytes, drained in batches. What waits goes
//! together; nothing waits for more to come.

#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use metrics::{Counter, Gauge};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_stream::Stream;
use tonic::Status;

/// A message of the stream holds so many bytes of items, or one item that is larger. It is what a
/// peer decodes at a time, so it is also how long a small item may wait behind the batch before it.
const BATCH_BYTES: usize = 64 * 1024;
/// And so many items: 256 small ones are some 20 KiB.
const BATCH_ITEMS: usize = 256;

/// What an item takes of a queue's bound, and whether it may be shed at the bound.
pub(crate) trait Weighed {
    /// Bytes, at least what the item takes in memory.
    fn weight(&self) -> usize;
    /// Whether it may be dropped to make room.
    fn sheddable(&self) -> bool {
        false
    }
}

/// Why an item was not queued.
#[derive(Debug)]
pub(crate) enum Refused<T> {
    /// The queue is at its bound, and nothing in it may be shed.
    Full(T),
    /// Nobody reads the queue any more.
    Closed,
}

/// What a queue reports to, one for all queues of a kind.
#[derive(Clone)]
pub(crate) struct Meters {
    queued: Gauge,
    shed: Counter,
}

impl Meters {
    /// `edgeway_backend_queue_bytes` and `edgeway_backend_queue_shed_total` of the queues of one kind.
    pub(crate) fn new(queue: &'static str) -> Self {
        Self {
            queued: metrics::gauge!("edgeway_backend_queue_bytes", "queue" => queue),
            shed: metrics::counter!("edgeway_backend_queue_shed_total", "queue" => queue),
        }
    }
}

pub(crate) struct Queue<T> {
    inner: Mutex<Inner<T>>,
    limit_bytes: usize,
    /// Told each time room was made.
    room: Notify,
    meters: Meters,
}

struct Inner<T> {
    /// In order; `None` where an item was shed.
    items: VecDeque<Option<T>>,
    /// How many items have left at the front: turns places into indexes.
    taken: u64,
    /// Places of what may be shed, oldest first.
    sheddable: VecDeque<u64>,
    bytes: usize,
    reader: Option<Waker>,
    end: Option<End>,
}

enum End {
    /// What is queued still goes out.
    Finished,
    /// The reader gets the status next, once.
    Cut(Option<Status>),
}

impl<T: Weighed> Queue<T> {
    pub(crate) fn new(limit_bytes: usize, meters: Meters) -> Arc<Self> {
        Arc::new(Self {
            inner: Mutex::new(Inner {
                items: VecDeque::new(),
                taken: 0,
                sheddable: VecDeque::new(),
                bytes: 0,
                reader: None,
                end: None,
            }),
            limit_bytes,
            room: Notify::new(),
            meters,
        })
    }

    /// Queues an item. At the bound the oldest of what may be shed makes room.
    pub(crate) fn push(&self, item: T) -> Result<(), Refused<T>> {
        let (pushed, waker) = {
            let mut inner = self.inner.lock();
            let pushed = self.push_locked(&mut inner, item);
            (pushed, inner.reader.take())
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        pushed
    }

    /// Queues several in order, with one lock. Stops at the first that is refused.
    pub(crate) fn push_all(&self, items: &mut Vec<T>) -> Result<(), Refused<T>> {
        let (pushed, waker) = {
            let mut inner = self.inner.lock();
            let pushed = items.drain(..).try_for_each(|item| self.push_locked(&mut inner, item));
            (pushed, inner.reader.take())
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        pushed
    }

    fn push_locked(&self, inner: &mut Inner<T>, item: T) -> Result<(), Refused<T>> {
        if inner.end.is_some() {
            return Err(Refused::Closed);
        }
        let weight = item.weight();
        while inner.bytes + weight > self.limit_bytes && inner.bytes > 0 {
            if let Some(shed) = inner.shed_oldest() {
                self.meters.shed.increment(1);
                self.meters.queued.decrement(shed as f64);
            } else if item.sheddable() {
                self.meters.shed.increment(1);
                return Ok(());
            } else {
                return Err(Refused::Full(item));
            }
        }
        if item.sheddable() {
            inner.sheddable.push_back(inner.taken + inner.items.len() as u64);
        }
        inner.bytes += weight;
        self.meters.queued.increment(weight as f64);
        inner.items.push_back(Some(item));
        Ok(())
    }

    /// Queues an item, waiting for room. `false`: nobody reads the queue any more.
    pub(crate) async fn push_waiting(&self, mut item: T) -> bool {
        loop {
            let room = self.room.notified();
            match self.push(item) {
                Ok(()) => return true,
                Err(Refused::Closed) => return false,
                Err(Refused::Full(back)) => item = back,
            }
            room.await;
        }
    }

    /// Nothing more comes; what is queued still goes out.
    pub(crate) fn finish(&self) {
        self.end(End::Finished);
    }

    /// Ends the stream now, with a status for the peer; what is queued is dropped.
    pub(crate) fn cut(&self, status: Status) {
        self.end(End::Cut(Some(status)));
    }

    pub(crate) fn closed(&self) -> bool {
        self.inner.lock().end.is_some()
    }

    fn end(&self, end: End) {
        let waker = {
            let mut inner = self.inner.lock();
            let cut = matches!(end, End::Cut(_));
            match &inner.end {
                None => {}
                Some(End::Finished) if cut => {}
                Some(_) => return,
            }
            if cut {
                self.meters.queued.decrement(inner.bytes as f64);
                inner.bytes = 0;
                inner.items = VecDeque::new();
                inner.sheddable = VecDeque::new();
            }
            inner.end = Some(end);
            inner.reader.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        self.room.notify_waiters();
    }

    fn poll_batch(&self, cx: &Context<'_>) -> Poll<Option<Result<Vec<T>, Status>>> {
        let mut inner = self.inner.lock();
        let before = inner.bytes;
        let batch = inner.take_batch();
        if !batch.is_empty() {
            self.meters.queued.decrement((before - inner.bytes) as f64);
            drop(inner);
            self.room.notify_waiters();
            return Poll::Ready(Some(Ok(batch)));
        }
        match &mut inner.end {
            None => {
                inner.reader = Some(cx.waker().clone());
                Poll::Pending
            }
            Some(End::Finished) => Poll::Ready(None),
            Some(End::Cut(status)) => Poll::Ready(status.take().map(Err)),
        }
    }
}

impl<T: Weighed> Inner<T> {
    /// Drops the oldest item that may be; its weight.
    fn shed_oldest(&mut self) -> Option<usize> {
        while let Some(place) = self.sheddable.pop_front() {
            let Some(index) = place.checked_sub(self.taken) else { continue };
            let index = usize::try_from(index).ok()?;
            if let Some(item) = self.items.get_mut(index).and_then(Option::take) {
                let weight = item.weight();
                self.bytes -= weight;
                return Some(weight);
            }
        }
        None
    }

    fn take_batch(&mut self) -> Vec<T> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        while batch.len() < BATCH_ITEMS && bytes < BATCH_BYTES {
            let Some(front) = self.items.front() else { break };
            let weight = front.as_ref().map_or(0, Weighed::weight);
            if !batch.is_empty() && bytes + weight > BATCH_BYTES {
                break;
            }
            self.taken += 1;
            bytes += weight;
            batch.extend(self.items.pop_front().flatten());
        }
        self.bytes -= bytes;
        while self.sheddable.front().is_some_and(|place| *place < self.taken) {
            self.sheddable.pop_front();
        }
        batch
    }
}

impl<T> Drop for Queue<T> {
    fn drop(&mut self) {
        self.meters.queued.decrement(self.inner.get_mut().bytes as f64);
    }
}

/// The reading end of a queue: a stream of batches. Dropping it closes the queue.
pub(crate) struct Drain<T: Weighed>(Arc<Queue<T>>);

impl<T: Weighed> Drain<T> {
    pub(crate) fn new(queue: Arc<Queue<T>>) -> Self {
        Self(queue)
    }
}

impl<T: Weighed> Stream for Drain<T> {
    type Item = Result<Vec<T>, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_batch(cx)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (usize::from(!self.0.inner.lock().items.is_empty()), None)
    }
}

impl<T: Weighed> Drop for Drain<T> {
    fn drop(&mut self) {
        self.0.cut(Status::cancelled("the peer is gone"));
    }
}
