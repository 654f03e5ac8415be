//! One link with a gateway: two streams, a bounded queue for each.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use edgeway_proto::link::{Class, Down, DownItem, Hello, Stream, down_item::Item};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// What a gateway may leave unread on one stream. At the bound chat is shed, and where what is not chat
/// does not fit the link ends: the gateway dials anew, and its clients open their Sessions again.
const QUEUE_BYTES: usize = 8 * 1024 * 1024;

/// One message of the stream holds about so much.
const MESSAGE_BYTES: usize = 64 * 1024;

/// What an item takes beside its frames.
const ITEM_BYTES: usize = 96;

#[derive(Debug, Default)]
struct Queue {
    items: VecDeque<Item>,
    bytes: usize,
    reader: Option<Waker>,
    /// What waits still goes out.
    ended: bool,
}

fn is_chat(item: &Item) -> bool {
    match item {
        Item::Publish(publish) => publish.class() == Class::Chat,
        Item::Data(data) => data.class() == Class::Chat,
        _ => false,
    }
}

fn size(item: &Item) -> usize {
    ITEM_BYTES
        + match item {
            Item::Publish(publish) => publish.frames.len(),
            Item::Data(data) => data.frames.len(),
            _ => 0,
        }
}

impl Queue {
    /// False where it does not fit, and nothing may be shed for it.
    fn push(&mut self, item: Item) -> bool {
        if self.ended {
            return true;
        }
        let bytes = size(&item);
        while self.bytes + bytes > QUEUE_BYTES {
            let oldest = self.items.iter().position(is_chat);
            let Some(shed) = oldest.and_then(|at| self.items.remove(at)) else {
                return is_chat(&item);
            };
            self.bytes -= size(&shed);
        }
        self.bytes += bytes;
        self.items.push_back(item);
        true
    }

    fn take(&mut self) -> Down {
        let (mut items, mut taken) = (Vec::new(), 0);
        while taken < MESSAGE_BYTES
            && let Some(item) = self.items.pop_front()
        {
            taken += size(&item);
            items.push(DownItem { item: Some(item) });
        }
        self.bytes -= taken;
        Down { items }
    }
}

/// A link. Lives from its first stream to the end of either.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) gateway: u64,
    pub(crate) number: u64,
    /// CONTROL and BULK.
    queues: [Mutex<Queue>; 2],
    attached: Mutex<[bool; 2]>,
    pub(crate) ended: CancellationToken,
}

impl Link {
    pub(crate) fn new(hello: &Hello) -> Arc<Self> {
        Arc::new(Self {
            gateway: hello.gateway,
            number: hello.link,
            queues: Default::default(),
            attached: Mutex::default(),
            ended: CancellationToken::new(),
        })
    }

    /// False where the stream is open already.
    pub(crate) fn attach(&self, stream: Stream) -> bool {
        !std::mem::replace(&mut self.attached.lock()[stream as usize], true)
    }

    /// Queues an item for the gateway.
    pub(crate) fn send(&self, stream: Stream, item: Item) {
        let (fits, reader) = {
            let mut queue = self.queues[stream as usize].lock();
            (queue.push(item), queue.reader.take())
        };
        if let Some(reader) = reader {
            reader.wake();
        }
        if !fits {
            self.cut();
        }
    }

    /// Ends a stream once what is queued is out, and the link with it.
    pub(crate) fn finish(&self, stream: Stream) {
        self.end(stream, false);
    }

    /// Ends both streams now.
    pub(crate) fn cut(&self) {
        self.ended.cancel();
        self.end(Stream::Control, true);
        self.end(Stream::Bulk, true);
    }

    fn end(&self, stream: Stream, now: bool) {
        let mut queue = self.queues[stream as usize].lock();
        queue.ended = true;
        if now {
            queue.items.clear();
            queue.bytes = 0;
        }
        if let Some(reader) = queue.reader.take() {
            reader.wake();
        }
    }

    fn poll(&self, stream: Stream, cx: &Context<'_>) -> Poll<Option<Result<Down, Status>>> {
        let mut queue = self.queues[stream as usize].lock();
        if !queue.items.is_empty() {
            return Poll::Ready(Some(Ok(queue.take())));
        }
        if queue.ended {
            return Poll::Ready(None);
        }
        queue.reader = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// What goes down on one stream. Dropped with it: then the link has ended.
pub(crate) struct Drain {
    pub(crate) link: Arc<Link>,
    pub(crate) stream: Stream,
}

impl tokio_stream::Stream for Drain {
    type Item = Result<Down, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.link.poll(self.stream, cx)
    }
}

impl Drop for Drain {
    fn drop(&mut self) {
        self.link.ended.cancel();
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use edgeway_proto::link::Publish;

    use super::*;

    #[test]
    fn at_the_bound_chat_is_shed_and_what_is_not_chat_ends_the_link() {
        let link = Link::new(&Hello::default());
        let publish = |class: Class| {
            let frames = Bytes::from_static(&[0; 64 * 1024]);
            Item::Publish(Publish { class: class.into(), frames, ..Publish::default() })
        };
        for _ in 0..500 {
            link.send(Stream::Bulk, publish(Class::Chat));
        }
        assert!(!link.ended.is_cancelled());
        assert!(link.queues[1].lock().bytes <= QUEUE_BYTES);
        for _ in 0..500 {
            link.send(Stream::Control, publish(Class::Signal));
        }
        assert!(link.ended.is_cancelled());
    }
}
