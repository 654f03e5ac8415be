//! What one wake of a shard has for each gateway: pushed once, at its end.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use edgeway_proto::{Class, link, link::down_item::Item};

use super::Gateways;
use crate::room::SessionId;

/// Items by gateway and stream, in order.
pub(super) struct Outbox {
    gateways: Arc<dyn Gateways>,
    items: HashMap<u64, Streams>,
}

#[derive(Default)]
struct Streams {
    control: Vec<Item>,
    bulk: Vec<Item>,
}

/// The stream on which a class travels.
pub(super) fn stream_of(class: Class) -> link::Stream {
    match class {
        Class::Signal => link::Stream::Control,
        Class::Binary | Class::Chat => link::Stream::Bulk,
    }
}

/// Frames for one client, on its signal lane.
pub(super) fn to_session(session: SessionId, frames: Bytes) -> Item {
    let (session, class) = (session.session, link::Class::Signal.into());
    Item::Data(link::Data { session, class, frames, ..link::Data::default() })
}

/// By what an owner speaks of a group.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tenure {
    pub(super) group: u64,
    pub(super) owned: Class,
    pub(super) epoch: u64,
}

/// Frames for one client about a group, on the lane of a class.
pub(super) fn data(session: SessionId, class: Class, frames: Bytes, by: Tenure) -> Item {
    let (session, class) = (session.session, link::Class::from(class).into());
    let Tenure { group, owned, epoch } = by;
    Item::Data(link::Data {
        session,
        class,
        frames,
        group,
        owned: link::Class::from(owned).into(),
        epoch,
    })
}

impl Outbox {
    pub(super) fn new(gateways: Arc<dyn Gateways>) -> Self {
        Self { gateways, items: HashMap::new() }
    }

    pub(super) fn push(&mut self, gateway: u64, stream: link::Stream, item: Item) {
        let streams = self.items.entry(gateway).or_default();
        match stream {
            link::Stream::Control => streams.control.push(item),
            link::Stream::Bulk => streams.bulk.push(item),
        }
    }

    /// Pushes everything. A gateway that cannot be reached is forgotten: its end is told apart.
    pub(super) fn flush(&mut self) {
        let gateways = &self.gateways;
        self.items.retain(|gateway, streams| {
            let send = |stream, items: &mut Vec<Item>| {
                items.is_empty() || gateways.send_all(*gateway, stream, items)
            };
            let control = send(link::Stream::Control, &mut streams.control);
            send(link::Stream::Bulk, &mut streams.bulk) && control
        });
    }
}
