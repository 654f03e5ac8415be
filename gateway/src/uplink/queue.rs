//! What waits to be sent to a backend on one stream of a link.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use edgeway_proto::{
    Lane,
    link::{Up, UpItem, up_item::Item},
};
use metrics::Gauge;
use parking_lot::Mutex;
use tokio_stream::Stream;

use crate::{limits::Bucket, outbox::Outbox};

/// One message of the link holds about this much, or this many items.
const MESSAGE_BYTES: usize = 64 * 1024;
const MESSAGE_ITEMS: usize = 256;

/// What gets its credit back once an item has been passed on.
#[derive(Debug)]
pub struct Return {
    /// The connection.
    pub outbox: Arc<Outbox>,
    /// The lane that it came on.
    pub lane: Lane,
    /// The rate of its user.
    pub bucket: Arc<Bucket>,
    /// Frames in the item.
    pub frames: u32,
}

#[derive(Debug, Default)]
struct State {
    items: VecDeque<(Item, usize, Option<Return>)>,
    bytes: usize,
    waker: Option<Waker>,
    closed: bool,
}

/// A queue bounded in bytes; many push, the link's stream takes.
#[derive(Debug)]
pub struct Queue {
    state: Mutex<State>,
    bound_bytes: usize,
    gauge: Gauge,
}

impl Queue {
    /// An empty queue; `gauge` shows how full it is.
    pub fn new(bound_bytes: usize, gauge: Gauge) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), bound_bytes, gauge })
    }

    /// Queues an item of about `bytes`. False where it does not fit or the link is gone: the item
    /// is dropped, and its credit is not given back.
    pub fn push(&self, item: Item, bytes: usize, credit: Option<Return>) -> bool {
        let mut state = self.state.lock();
        if state.closed || state.bytes + bytes > self.bound_bytes {
            return false;
        }
        state.bytes += bytes;
        state.items.push_back((item, bytes, credit));
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        true
    }

    /// Ends the stream; what is queued is dropped.
    pub fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.items.clear();
        state.bytes = 0;
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
        self.gauge.set(0.0);
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.state.lock().items.is_empty()
    }

    /// Whether the stream has ended.
    pub fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    fn poll(&self, cx: &Context<'_>) -> Poll<Option<Up>> {
        let mut state = self.state.lock();
        if state.closed {
            return Poll::Ready(None);
        }
        if state.items.is_empty() {
            state.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let (mut items, mut returns, mut taken) = (Vec::new(), Vec::new(), 0);
        while items.len() < MESSAGE_ITEMS && taken < MESSAGE_BYTES {
            let Some((item, bytes, credit)) = state.items.pop_front() else { break };
            taken += bytes;
            items.push(UpItem { item: Some(item) });
            if let Some(credit) = credit {
                returns.push((credit, bytes));
            }
        }
        state.bytes -= taken;
        #[allow(clippy::cast_precision_loss)] // a gauge
        self.gauge.set(state.bytes as f64);
        drop(state);
        for (credit, bytes) in returns {
            let not_before = credit.bucket.take(bytes as u64, credit.frames);
            credit.outbox.consumed(credit.lane, bytes as u64, not_before);
        }
        Poll::Ready(Some(Up { items }))
    }
}

/// The queue as the stream of requests that gRPC takes.
#[derive(Debug)]
pub struct Requests(pub Arc<Queue>);

impl Stream for Requests {
    type Item = Up;
    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Up>> {
        self.0.poll(cx)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (usize::from(!self.0.is_empty()), None)
    }
}

impl Drop for Requests {
    fn drop(&mut self) {
        self.0.close();
    }
}
