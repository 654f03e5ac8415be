//! How the owner of rooms reaches the owners of their strokes: it dials them as access does.

use std::sync::{Arc, Weak};

use edgeway_proto::rooms::from_owner_item::Item;

use crate::{
    access::{Node, OwnerId, Owners, User},
    roles::Role,
    shard::{Replies, Reply, WeakOwner},
};

/// The owner of rooms, as a user of owners of strokes.
#[derive(Clone)]
pub(crate) struct Rooms {
    owners: Arc<Owners>,
    rooms: WeakOwner,
}

impl Rooms {
    pub(crate) fn new(owners: Arc<Owners>, rooms: WeakOwner) -> Self {
        Self { owners, rooms }
    }

    /// From now on the owners of a role are those of these names. Those of strokes are told the routes of the
    /// rooms whose strokes they have now.
    ///
    /// # Errors
    /// One that `make` cannot make; nothing has changed then.
    pub(crate) fn set_owners<E>(
        &self,
        role: Role,
        names: &[String],
        make: impl Fn(&str) -> Result<Node, E>,
    ) -> Result<(), E> {
        let Some(change) = Owners::change(self, role, names, make)? else { return Ok(()) };
        for owner in change.gone {
            self.lost(owner);
        }
        if let Some(rooms) = self.rooms.upgrade() {
            rooms.strokes_moved();
        }
        Ok(())
    }

    /// For readiness.
    pub(crate) fn owners_weak(&self) -> Weak<Owners> {
        Arc::downgrade(&self.owners)
    }
}

impl User for Rooms {
    fn owners(&self) -> &Owners {
        &self.owners
    }

    fn replies(&self, _: OwnerId) -> Arc<dyn Replies> {
        Arc::new(ToRooms(self.rooms.clone()))
    }

    fn reply(&self, _: OwnerId, reply: Reply) {
        ToRooms(self.rooms.clone()).send(reply);
    }

    fn reached(&self, owner: OwnerId) {
        if let Some(rooms) = self.rooms.upgrade() {
            rooms.strokes_reached(owner.number());
        }
    }

    fn lost(&self, owner: OwnerId) {
        if let Some(rooms) = self.rooms.upgrade() {
            rooms.strokes_lost(owner.number());
        }
    }
}

/// What owners of strokes answer into.
struct ToRooms(WeakOwner);

impl Replies for ToRooms {
    fn send(&self, reply: Reply) -> bool {
        let rooms = self.0.upgrade();
        if let (Some(rooms), Reply::Item(Item::Answer(answer))) = (&rooms, reply) {
            rooms.answered(answer);
        }
        rooms.is_some()
    }
}
