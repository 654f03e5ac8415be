//! The link between access and the owners of rooms in other processes (`rooms.proto`): access dials. Owners of
//! rooms dial those of strokes in the same way.

mod client;
mod server;

use edgeway_proto::rooms::{
    FromOwnerItem, ToOwnerItem, from_owner_item::Item as Answered, to_owner_item::Item,
};
use prost::Message as _;

pub(crate) use self::{
    client::{Dialler, Uplink},
    server::UplinkService,
};
use crate::queue::Weighed;

/// What may wait for an owner on each stream: a second or two of everything a busy access process
/// passes on. At the bound its links are no longer read, and gateways give clients no more credit.
const TO_OWNER_BYTES: usize = 8 * 1024 * 1024;
/// What may wait for access: a hundred thousand answers to joins. Access that does not read them is
/// given up.
const TO_ACCESS_BYTES: usize = 8 * 1024 * 1024;

/// What an item takes beside its frames and names.
const ITEM_BYTES: usize = 80;

impl Weighed for ToOwnerItem {
    fn weight(&self) -> usize {
        ITEM_BYTES
            + match &self.item {
                Some(Item::Frames(frames)) => frames.frames.len(),
                Some(Item::Join(join)) => {
                    join.room.len() + join.asked.len() + join.user.len() + join.device.len() + 128
                }
                Some(Item::Strokes(strokes)) => {
                    strokes.frames.len() + strokes.user.len() + strokes.device.len()
                }
                Some(Item::Ask(ask)) => ask.user.len() + ask.device.len(),
                Some(Item::Push(push)) => push.encoded_len(),
                Some(Item::Route(route)) => route.gateways.len() * 8,
                _ => 0,
            }
    }
}

impl Weighed for FromOwnerItem {
    fn weight(&self) -> usize {
        ITEM_BYTES
            + match &self.item {
                Some(Answered::Pushed(pushed)) => pushed.encoded_len(),
                _ => 0,
            }
    }
}
