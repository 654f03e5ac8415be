//! Places in groups across the Sessions of a device: what an older one had is kept for the next, and
//! what a Session may do whose first flight may be a replay.

use edgeway_proto::{
    RawFrame,
    frame::{self, FIRST_SKIPPED_KIND, History, Members, join_flag},
    rooms::{self, SessionRef, to_owner_item::Item},
};

use super::{Group, Session, hash};
use crate::access::{out::Fatal, owners::OwnerId};

/// A place in a group that is kept for the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::access) struct Place {
    pub(in crate::access) group: u64,
    pub(in crate::access) owner: OwnerId,
    /// The Session that the owner knows there.
    pub(in crate::access) session: SessionRef,
    pub(in crate::access) name: u64,
}

impl Place {
    /// Gives it up.
    pub(in crate::access) fn leave(&self) -> (OwnerId, Item) {
        let leave = rooms::Leave { session: Some(self.session), request: 0, group: self.group };
        (self.owner, Item::Leave(leave))
    }
}

impl Session {
    /// Begins as early data: what may be joined is where the device is already.
    pub(in crate::access) fn begin_early(&mut self, names: Vec<u64>) {
        self.early = Some(names);
    }

    /// The first flight was no replay.
    pub(in crate::access) fn confirmed(&mut self) {
        self.early = None;
    }

    /// Whether a frame has no effect on anybody else: what a Session may do that may be a replay.
    pub(super) fn may_come_early(&self, raw: &RawFrame) -> Result<bool, Fatal> {
        let Some(names) = &self.early else { return Ok(true) };
        Ok(match raw.kind {
            // The device is in the room: its user is a member with or without this Session.
            frame::Join::KIND => {
                let join = frame::Join::parse(raw.body.clone())?;
                let send_only = join.flags & join_flag::SEND_ONLY != 0;
                let identity = &self.identity;
                let place = identity.kind.place(&identity.user, &join.room, send_only);
                place.is_ok_and(|place| names.contains(&hash(&place.room)))
            }
            History::KIND | Members::KIND => true,
            kind => kind >= FIRST_SKIPPED_KIND,
        })
    }

    /// Takes the places of an older Session of the device over. Those that are taken already are
    /// given up by the older one.
    pub(in crate::access) fn adopt(&mut self, older: SessionRef, places: Vec<Place>) -> Vec<Place> {
        self.replaces = Some(older);
        let (taken, kept): (Vec<_>, Vec<_>) =
            places.into_iter().partition(|place| self.groups.contains_key(&place.group));
        self.kept.extend(kept.into_iter().map(|place| (place.group, place)));
        taken
    }

    /// The places that were taken over and not joined.
    pub(in crate::access) fn take_kept(&mut self) -> Vec<Place> {
        self.replaces = None;
        self.kept.drain().map(|(_, place)| place).collect()
    }

    pub(in crate::access) fn keeps(&self) -> bool {
        !self.kept.is_empty()
    }

    /// All places of the device.
    pub(in crate::access) fn places(&self) -> Vec<Place> {
        let session = self.identity.session;
        let place = |(group, g): (&u64, &Group)| Place {
            group: *group,
            owner: g.owner,
            session,
            name: g.name,
        };
        self.groups.iter().map(place).chain(self.kept.values().copied()).collect()
    }

    /// The names (hashed) of what the device is in.
    pub(in crate::access) fn names(&self) -> Vec<u64> {
        self.places().iter().map(|place| place.name).collect()
    }

    /// What its owners must hear when it ends. Joins that are not answered yet end with the answer.
    pub(in crate::access) fn leaves(&self) -> Vec<(OwnerId, Item)> {
        self.places().iter().map(Place::leave).collect()
    }
}
