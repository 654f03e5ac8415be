//! The owner of rooms and inboxes: tasks, queues and I/O around the pure [`crate::room`].
//!
//! A room lives in one shard, which is one task; that is what gives it its order. What comes in
//! together is applied together, stored in one group commit, and leaves as one push to each
//! gateway. The store is never waited for: commits, loads and reads run beside the shard.

mod behind;
mod commit;
mod config;
mod handover;
mod history;
mod inputs;
mod listing;
mod load;
mod metrics;
mod names;
mod outbox;
mod owner;
mod push;
mod queue;
mod reads;
mod requests;
mod storing;
mod strokes;
mod task;

#[cfg(test)]
pub(crate) mod memory_store;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use edgeway_proto::{ErrorCode, link, rooms};
use tokio::sync::mpsc;

pub use crate::room::{Kind, RoomConfig};
pub use config::{LiveConfig, OwnerConfig};
pub use owner::{AccessLink, Owner};
pub(crate) use strokes::WeakOwner;

use crate::{directory, store::Store};

/// The links to gateways.
pub trait Gateways: Send + Sync + 'static {
    /// Queues an item for a gateway; never waits. False where there is no link or it was cut: then
    /// [`Owner::gateway_gone`] is called too, before a new link of the gateway counts.
    fn send(&self, gateway: u64, stream: link::Stream, item: link::down_item::Item) -> bool;

    /// Queues several items at once, in order, and leaves `items` empty.
    fn send_all(
        &self,
        gateway: u64,
        stream: link::Stream,
        items: &mut Vec<link::down_item::Item>,
    ) -> bool {
        let mut sent = true;
        for item in items.drain(..) {
            sent = sent && self.send(gateway, stream, item);
        }
        sent
    }

    /// Whether the gateway has a link with this process.
    fn connected(&self, gateway: u64) -> bool;
}

/// The owners of strokes, where they are others than those of the rooms.
pub trait StrokeOwners: Send + Sync + 'static {
    /// Who has a group's strokes now.
    fn owner(&self, group: u64) -> Option<u64>;

    /// Queues an item on CONTROL; never waits. False where the owner cannot be reached: then
    /// [`Owner::strokes_reached`] is called once it can.
    fn send(&self, owner: u64, item: rooms::to_owner_item::Item) -> bool;
}

/// What an owner works with.
#[derive(Clone)]
pub struct Environment {
    /// Where rooms live when nobody owns them.
    pub store: Arc<dyn Store>,
    /// The links to gateways.
    pub gateways: Arc<dyn Gateways>,
    /// Of rooms whose strokes have owners of their own.
    pub strokes: Option<Arc<dyn StrokeOwners>>,
    /// The way to the directory, where rooms are to be listed.
    pub recorder: Option<directory::Recorder>,
}

impl Environment {
    /// Without owners of strokes and without a directory.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, gateways: Arc<dyn Gateways>) -> Self {
        Self { store, gateways, strokes: None, recorder: None }
    }
}

/// The way back to an access instance.
pub trait Replies: Send + Sync + 'static {
    /// Queues a reply; never waits. False where it does not fit or nobody reads any more: the owner
    /// then gives the access link up, see [`AccessLink::lost`].
    fn send(&self, reply: Reply) -> bool;
}

/// What access is told.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// As in `rooms.proto`. With a refusal, the client has been told.
    Item(rooms::from_owner_item::Item),
    /// The join failed and the client could not be told, because its gateway has no link with this
    /// process. Access tells it the code, `unavailable`, to be tried again after 500 ms. In
    /// `rooms.proto` it is a refusal with this code.
    Unreachable(rooms::Refused),
}

fn unreachable(session: rooms::SessionRef, request: u64) -> Reply {
    let code = u32::try_from(ErrorCode::Unavailable.code()).unwrap_or_default();
    Reply::Unreachable(rooms::Refused { session: Some(session), request, code })
}

impl Replies for mpsc::Sender<Reply> {
    fn send(&self, reply: Reply) -> bool {
        self.try_send(reply).is_ok()
    }
}

impl Replies for mpsc::UnboundedSender<Reply> {
    fn send(&self, reply: Reply) -> bool {
        mpsc::UnboundedSender::send(self, reply).is_ok()
    }
}
