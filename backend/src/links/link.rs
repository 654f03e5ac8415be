//! One link with a gateway: two streams, a queue for each.

use std::{collections::HashSet, sync::Arc};

use edgeway_proto::{
    CloseCode,
    link::{Class, Close, DownItem, Hello, Stream, Welcome, down_item::Item},
};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::{
    queue::{Meters, Queue, Refused, Weighed},
    warn::WarnLimit,
};

/// What a gateway may leave unread on CONTROL before its link is cut: some seconds of signals of a
/// full gateway (40,000 of 200 bytes); HTTP/2's windows hold a megabyte or two more.
const CONTROL_BYTES: usize = 8 * 1024 * 1024;
/// The same on BULK, where chat is shed first.
const BULK_BYTES: usize = 8 * 1024 * 1024;

/// What an item takes beside its frames.
const ITEM_BYTES: usize = 96;

impl Weighed for DownItem {
    fn weight(&self) -> usize {
        ITEM_BYTES
            + match &self.item {
                Some(Item::Publish(publish)) => publish.frames.len(),
                Some(Item::Data(data)) => data.frames.len(),
                Some(Item::Close(close)) => close.reason.len(),
                _ => 0,
            }
    }

    fn sheddable(&self) -> bool {
        let class = match &self.item {
            Some(Item::Publish(publish)) => publish.class(),
            Some(Item::Data(data)) => data.class(),
            _ => return false,
        };
        class == Class::Chat
    }
}

/// What all links report to.
#[derive(Clone)]
pub(super) struct LinkMeters {
    control: Meters,
    bulk: Meters,
}

impl LinkMeters {
    pub(super) fn new() -> Self {
        Self { control: Meters::new("link_control"), bulk: Meters::new("link_bulk") }
    }
}

/// A link. Lives from its first stream to the end of either.
pub(crate) struct Link {
    pub(crate) gateway: u64,
    pub(super) number: u64,
    pub(crate) name: String,
    control: Arc<Queue<DownItem>>,
    bulk: Arc<Queue<DownItem>>,
    /// Which streams the gateway has opened.
    attached: Mutex<[bool; 2]>,
    ended: CancellationToken,
    /// Sessions whose parked frames can go on, by the stream whose reader takes them up.
    resumed: [Resumed; 2],
    pub(crate) warn: WarnLimit,
}

#[derive(Default)]
struct Resumed {
    sessions: Mutex<HashSet<u64>>,
    told: Notify,
}

impl Link {
    pub(super) fn new(hello: &Hello, welcome: &Welcome, meters: &LinkMeters) -> Arc<Self> {
        let link = Arc::new(Self {
            gateway: hello.gateway,
            number: hello.link,
            name: hello.name.clone(),
            control: Queue::new(CONTROL_BYTES, meters.control.clone()),
            bulk: Queue::new(BULK_BYTES, meters.bulk.clone()),
            attached: Mutex::new([false; 2]),
            ended: CancellationToken::new(),
            resumed: Default::default(),
            warn: WarnLimit::default(),
        });
        for stream in [Stream::Control, Stream::Bulk] {
            link.push(stream, Item::Welcome(welcome.clone()));
        }
        link
    }

    pub(super) fn queue(&self, stream: Stream) -> &Arc<Queue<DownItem>> {
        match stream {
            Stream::Control => &self.control,
            Stream::Bulk => &self.bulk,
        }
    }

    /// `false` where the stream was attached before.
    pub(super) fn attach(&self, stream: Stream) -> bool {
        !std::mem::replace(&mut self.attached.lock()[stream as usize], true)
    }

    pub(super) fn complete(&self) -> bool {
        *self.attached.lock() == [true; 2]
    }

    /// Queues an item for the gateway. `false`: the link is at its end, or was ended because what
    /// may not be shed did not fit.
    pub(crate) fn push(&self, stream: Stream, item: Item) -> bool {
        let pushed = self.queue(stream).push(DownItem { item: Some(item) });
        self.check(pushed)
    }

    /// Queues several in order.
    pub(super) fn push_all(&self, stream: Stream, items: &mut Vec<Item>) -> bool {
        let mut items = items.drain(..).map(|item| DownItem { item: Some(item) }).collect();
        let pushed = self.queue(stream).push_all(&mut items);
        self.check(pushed)
    }

    fn check(&self, pushed: Result<(), Refused<DownItem>>) -> bool {
        if let Err(Refused::Full(_)) = &pushed {
            tracing::warn!(gateway = %self.name, "the gateway reads too slowly: its link is cut");
            metrics::counter!("edgeway_backend_links_cut_total", "reason" => "full").increment(1);
            self.cut(Status::resource_exhausted("the gateway reads too slowly"));
        }
        pushed.is_ok()
    }

    /// Tells the client why its Session ends.
    pub(crate) fn close(&self, session: u64, code: CloseCode, reason: impl Into<String>) {
        let code = u32::try_from(code.code()).unwrap_or_default();
        let close = Close { session, code, reason: reason.into(), ..Close::default() };
        self.push(Stream::Control, Item::Close(close));
    }

    /// Ends both streams now.
    pub(super) fn cut(&self, status: Status) {
        self.control.cut(status.clone());
        self.bulk.cut(status);
        self.ended.cancel();
    }

    /// Ends both streams once what is queued is out.
    pub(super) fn finish(&self) {
        self.control.finish();
        self.bulk.finish();
    }

    /// Cancelled when either stream is at its end.
    pub(crate) fn ended(&self) -> &CancellationToken {
        &self.ended
    }

    pub(super) fn open(&self) -> bool {
        !self.ended.is_cancelled() && !self.control.closed() && !self.bulk.closed()
    }

    /// Asks the reader of a stream to take up what was parked for a Session.
    pub(crate) fn resume(&self, stream: Stream, session: u64) {
        let resumed = &self.resumed[stream as usize];
        resumed.sessions.lock().insert(session);
        resumed.told.notify_one();
    }

    /// Waits until Sessions were resumed on a stream, and takes them.
    pub(super) async fn resumed(&self, stream: Stream) -> HashSet<u64> {
        let resumed = &self.resumed[stream as usize];
        loop {
            let sessions = std::mem::take(&mut *resumed.sessions.lock());
            if !sessions.is_empty() {
                return sessions;
            }
            resumed.told.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use edgeway_proto::link::Publish;
    use tokio_stream::StreamExt;

    use super::*;
    use crate::queue::Drain;

    fn link() -> Arc<Link> {
        Link::new(&Hello::default(), &Welcome::default(), &LinkMeters::new())
    }

    fn publish(class: Class, group: u64) -> Item {
        let frames = Bytes::from_static(&[0; 64 * 1024]);
        Item::Publish(Publish { group, class: class.into(), frames, ..Publish::default() })
    }

    #[tokio::test]
    async fn a_gateway_that_does_not_read_loses_the_oldest_chat_and_no_strokes() {
        let link = link();
        for n in 1..=100 {
            assert!(link.push(Stream::Bulk, publish(Class::Binary, n)));
            assert!(link.push(Stream::Bulk, publish(Class::Chat, n)));
        }
        link.finish();
        let mut drain = Drain::new(Arc::clone(link.queue(Stream::Bulk)));
        let (mut strokes, mut chat) = (Vec::new(), Vec::new());
        while let Some(Ok(batch)) = drain.next().await {
            for item in batch {
                match item.item {
                    Some(Item::Publish(p)) if p.class() == Class::Chat => chat.push(p.group),
                    Some(Item::Publish(p)) => strokes.push(p.group),
                    _ => {}
                }
            }
        }
        assert_eq!(strokes, (1..=100).collect::<Vec<_>>());
        assert!(chat.len() < 100 && chat.is_sorted());
        assert_eq!(chat.last(), Some(&100), "the latest chat is there");
    }

    #[tokio::test]
    async fn a_gateway_that_does_not_read_signals_is_cut() {
        let link = link();
        let fits = (0..1000).take_while(|n| link.push(Stream::Control, publish(Class::Signal, *n)));
        assert!((100..128).contains(&fits.count()));
        assert!(link.ended().is_cancelled() && !link.open());
        assert!(!link.push(Stream::Bulk, publish(Class::Chat, 1)));
    }
}
