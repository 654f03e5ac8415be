//! The gRPC door of access, as a gateway comes to it (`proto/link.proto`).

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use edgeway_proto::{
    Class, Frame, Text,
    frame::{Join, Leave, split},
    link::{
        self, Data, Hello, Open, Stream, Up, UpItem, backend_client::BackendClient, down_item,
        up_item::Item,
    },
};
use tokio::sync::mpsc::{Receiver, Sender, UnboundedSender, channel, unbounded_channel};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::Endpoint;

/// What a gateway gives HTTP/2, so that a burst need not wait.
const WINDOW_BYTES: u32 = 4 * 1024 * 1024;
/// Messages of the link that may wait for us: behind them, the backend does.
const WAITING: usize = 64;

/// One link with access, as its only gateway.
pub struct Door {
    control: UnboundedSender<Up>,
    /// Nothing is sent on it.
    _bulk: UnboundedSender<Up>,
    down: Receiver<Result<Vec<down_item::Item>>>,
}

/// What is said at the door, as far as joins are concerned.
#[derive(Debug, PartialEq, Eq)]
pub enum Said {
    Joined {
        session: u64,
        group: u64,
    },
    Left {
        session: u64,
    },
    /// A join or leave failed.
    Refused {
        session: u64,
        why: String,
    },
    /// Members of a group came and went.
    Presence {
        group: u64,
    },
}

impl Door {
    pub async fn dial(addr: &str) -> Result<Self> {
        let (gateway, number) = (rand::random(), 1);
        let (events, down) = channel(WAITING);
        let hello = |stream: Stream| Hello {
            gateway,
            name: "loadtest".to_owned(),
            link: number,
            stream: stream.into(),
        };
        let control = stream(addr, hello(Stream::Control), events.clone()).await?;
        let bulk = stream(addr, hello(Stream::Bulk), events).await?;
        Ok(Self { control, _bulk: bulk, down })
    }

    /// Sends what belongs together as one message.
    pub fn send(&self, items: Vec<UpItem>) -> Result<()> {
        if items.is_empty() {
            return Ok(());
        }
        self.control.send(Up { items }).context("the backend has ended the link")
    }

    /// What comes next, as it came together.
    pub async fn next(&mut self) -> Result<Vec<Said>> {
        let items = self.down.recv().await.context("the backend has ended the link")??;
        let mut said = Vec::with_capacity(items.len());
        for item in items {
            take(item, &mut said)?;
        }
        Ok(said)
    }
}

/// Opens one stream, on a connection of its own, as gateways do.
async fn stream(
    addr: &str,
    hello: Hello,
    events: Sender<Result<Vec<down_item::Item>>>,
) -> Result<UnboundedSender<Up>> {
    let told = || format!("no backend at {addr}");
    let endpoint = Endpoint::from_shared(format!("http://{addr}"))
        .with_context(|| format!("`{addr}` is no address; write HOST:PORT"))?
        .tcp_nodelay(true)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES);
    let (up, items) = unbounded_channel();
    let first = UpItem { item: Some(Item::Hello(hello)) };
    up.send(Up { items: vec![first] }).context("no stream")?;
    let mut client = BackendClient::new(endpoint.connect().await.with_context(told)?);
    let answer = client.link(UnboundedReceiverStream::new(items)).await.with_context(told)?;
    let mut down = answer.into_inner();
    tokio::spawn(async move {
        loop {
            let items = match down.message().await {
                Ok(Some(down)) => Ok(down.items.into_iter().filter_map(|i| i.item).collect()),
                Ok(None) => return,
                Err(status) => Err(status.into()),
            };
            let over = items.is_err();
            if events.send(items).await.is_err() || over {
                return;
            }
        }
    });
    Ok(up)
}

fn take(item: down_item::Item, said: &mut Vec<Said>) -> Result<()> {
    match item {
        down_item::Item::Data(Data { session, mut frames, .. }) => {
            while let Some(raw) = split(&mut frames)? {
                match raw.parse()? {
                    Frame::Joined(joined) => {
                        said.push(Said::Joined { session, group: joined.group })
                    }
                    Frame::Left(_) => said.push(Said::Left { session }),
                    Frame::Error(error) => {
                        said.push(Said::Refused { session, why: error.detail.to_string() });
                    }
                    _ => {}
                }
            }
        }
        down_item::Item::Publish(publish) if publish.count == 0 => {
            said.push(Said::Presence { group: publish.group });
        }
        down_item::Item::Close(close) => bail!("a Session was closed: {}", close.reason),
        _ => {}
    }
    Ok(())
}

/// Opens a chat Session.
pub fn open(session: u64, user: String) -> UpItem {
    let (kind, device) = ("chat".to_owned(), "loadtest".to_owned());
    let open = Open { session, kind, user, device, generation: 1, ..Open::default() };
    UpItem { item: Some(Item::Open(open)) }
}

pub fn join(session: u64, request: u64, room: &str) -> UpItem {
    data(session, Join { request, room: Text::from(room), ..Join::default() }.to_bytes())
}

pub fn leave(session: u64, request: u64, group: u64) -> UpItem {
    data(session, Leave { request, group }.to_bytes())
}

fn data(session: u64, frames: Bytes) -> UpItem {
    let class = link::Class::from(Class::Signal).into();
    UpItem { item: Some(Item::Data(Data { session, class, frames, ..Data::default() })) }
}
