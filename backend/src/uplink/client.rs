//! The access side of an uplink.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use edgeway_linktls::{AddressProblem, Identity, Peer, causes};
use edgeway_proto::{
    link::Stream,
    rooms::{
        AccessHello, FromOwner, ToOwner, ToOwnerItem, rooms_client::RoomsClient,
        to_owner_item::Item,
    },
};
use tokio_stream::StreamExt;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming, transport::Channel};

use super::TO_OWNER_BYTES;
use crate::{
    http2,
    queue::{Drain, Meters, Queue, Refused},
    roles::Role,
    shard::Reply,
};

/// How long an owner may take to answer when it is dialled.
const DIAL: Duration = Duration::from_secs(5);

/// Dials one role of one process.
pub(crate) struct Dialler {
    peer: Peer,
    name: String,
    role: Role,
    links: AtomicU64,
    control: Meters,
    bulk: Meters,
}

/// The sending half of an uplink.
pub(crate) struct Uplink {
    control: Arc<Queue<ToOwnerItem>>,
    bulk: Arc<Queue<ToOwnerItem>>,
    ended: CancellationToken,
}

/// The receiving half.
pub(crate) struct Answers {
    control: Streaming<FromOwner>,
    bulk: Streaming<FromOwner>,
}

impl Dialler {
    /// `address` is HOST:PORT; `name` is this process's, for the owner's logs. In the clear without an
    /// identity.
    ///
    /// # Errors
    /// Where the address is none, or on another machine and there is no identity.
    pub(crate) fn new(
        address: &str,
        name: String,
        role: Role,
        identity: Option<&Identity>,
    ) -> Result<Self, AddressProblem> {
        Ok(Self {
            peer: Peer::new(address, identity, DIAL, http2::client)?,
            name,
            role,
            links: AtomicU64::new(1),
            control: Meters::new("uplink_control"),
            bulk: Meters::new("uplink_bulk"),
        })
    }

    /// Opens both streams.
    pub(crate) async fn dial(&self, access: u64) -> Result<(Uplink, Answers), Status> {
        let link = self.links.fetch_add(1, Ordering::Relaxed);
        let control = Queue::new(TO_OWNER_BYTES, self.control.clone());
        let bulk = Queue::new(TO_OWNER_BYTES, self.bulk.clone());
        let dial = async {
            tokio::try_join!(
                self.stream(Stream::Control, access, link, &control),
                self.stream(Stream::Bulk, access, link, &bulk),
            )
        };
        let (control_answers, bulk_answers) = tokio::time::timeout(DIAL, dial)
            .await
            .map_err(|_| Status::deadline_exceeded("the owner does not answer"))??;
        let answers = Answers { control: control_answers, bulk: bulk_answers };
        Ok((Uplink { control, bulk, ended: CancellationToken::new() }, answers))
    }

    /// One stream on a connection of its own: on a shared one strokes and chat would stand in front
    /// of joins and signals in the kernel's buffer.
    async fn stream(
        &self,
        stream: Stream,
        access: u64,
        link: u64,
        queue: &Arc<Queue<ToOwnerItem>>,
    ) -> Result<Streaming<FromOwner>, Status> {
        let channel: Channel =
            self.peer.connect().await.map_err(|e| Status::unavailable(causes(&e)))?;
        let hello = AccessHello {
            access,
            name: self.name.clone(),
            stream: stream.into(),
            role: self.role.name().to_owned(),
            link,
        };
        let _ = queue.push(ToOwnerItem { item: Some(Item::Hello(hello)) });
        let items =
            Drain::new(Arc::clone(queue)).map_while(Result::ok).map(|items| ToOwner { items });
        Ok(RoomsClient::new(channel).uplink(items).await?.into_inner())
    }
}

impl Uplink {
    fn queue(&self, stream: Stream) -> &Queue<ToOwnerItem> {
        match stream {
            Stream::Control => &self.control,
            Stream::Bulk => &self.bulk,
        }
    }

    /// Queues an item, waiting for room. `false`: the uplink is at its end.
    pub(crate) async fn send(&self, stream: Stream, item: Item) -> bool {
        self.queue(stream).push_waiting(ToOwnerItem { item: Some(item) }).await
    }

    /// Queues an item without waiting. `false`: the uplink is at its end, to which it comes when there is
    /// no room.
    pub(crate) fn offer(&self, stream: Stream, item: Item) -> bool {
        let pushed = self.queue(stream).push(ToOwnerItem { item: Some(item) });
        if let Err(Refused::Full(_)) = &pushed {
            metrics::counter!("edgeway_backend_uplinks_cut_total").increment(1);
            self.control.finish();
            self.bulk.finish();
            self.ended.cancel();
        }
        pushed.is_ok()
    }

    /// Cancelled when it was ended from here.
    pub(crate) fn ended(&self) -> &CancellationToken {
        &self.ended
    }
}

impl Drop for Uplink {
    fn drop(&mut self) {
        self.control.finish();
        self.bulk.finish();
    }
}

impl Answers {
    /// Reads what the owner says until either stream ends; why it ended.
    pub(crate) async fn run(mut self, mut reply: impl FnMut(Reply)) -> Status {
        let ended = || Status::unavailable("the owner has ended the link");
        loop {
            tokio::select! {
                answer = self.control.message() => match answer {
                    Ok(Some(answer)) => {
                        for item in answer.items.into_iter().filter_map(|item| item.item) {
                            reply(Reply::Item(item));
                        }
                    }
                    Ok(None) => return ended(),
                    Err(status) => return status,
                },
                // Nothing comes on this one.
                answer = self.bulk.message() => match answer {
                    Ok(Some(_)) => {}
                    Ok(None) => return ended(),
                    Err(status) => return status,
                },
            }
        }
    }
}
