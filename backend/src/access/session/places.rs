//! Places in groups across the Sessions of a device: what an older one had is kept for the next, and
//! what a Session may do whose first flight may be a replay.

use bytes::Bytes;
use edgeway_proto::{
    RawFrame,
    frame::{self, FIRST_SKIPPED_KIND, History, Members, join_flag},
    rooms::{self, SessionRef, to_owner_item::Item},
};

use super::{
    Group, Session, hash,
    noted::{Move, Noted, Placed},
};
use crate::{
    access::{out::Fatal, owners::OwnerId},
    directory,
};

/// A place in a group that is kept for the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::access) struct Place {
    pub(in crate::access) group: u64,
    pub(in crate::access) owner: OwnerId,
    /// The Session that the owner knows there.
    pub(in crate::access) session: SessionRef,
    /// Someone else's inbox.
    pub(in crate::access) foreign: bool,
    pub(in crate::access) room: Box<str>,
}

impl Placed for Place {
    fn line(&self, group: u64) -> Bytes {
        directory::Place::line(group, self.session.into(), self.foreign, &self.room)
    }
}

impl Place {
    /// Gives it up.
    pub(in crate::access) fn leave(&self) -> (OwnerId, Item) {
        let leave = rooms::Leave { session: Some(self.session), request: 0, group: self.group };
        (self.owner, Item::Leave(leave))
    }
}

/// What a Session has of older ones of its device.
#[derive(Debug, Default)]
pub(super) struct Past {
    /// Places in groups that an older Session of the device has had, until this one joins them or
    /// their time is over.
    pub(super) kept: Noted<Place>,
    /// The older Session whose place the next joins take.
    pub(super) replaces: Option<SessionRef>,
    /// Opened by early data: the names (hashed) of what the device is in, which is all that may be
    /// joined before the Session is confirmed.
    early: Option<Vec<u64>>,
}

impl Session {
    fn past(&mut self) -> &mut Past {
        self.past.get_or_insert_default()
    }

    /// What is empty takes no memory.
    fn tidy(&mut self) {
        self.past = self.past.take().filter(|past| {
            !past.kept.is_empty()
                || past.kept.has_moves()
                || past.replaces.is_some()
                || past.early.is_some()
        });
    }

    /// Begins as early data: what may be joined is where the device is already.
    pub(in crate::access) fn begin_early(&mut self, names: Vec<u64>) {
        self.past().early = Some(names);
    }

    /// The first flight was no replay.
    pub(in crate::access) fn confirmed(&mut self) {
        if let Some(past) = &mut self.past {
            past.early = None;
        }
        self.tidy();
    }

    pub(super) fn is_early(&self) -> bool {
        self.past.as_ref().is_some_and(|past| past.early.is_some())
    }

    /// Whether a frame has no effect on anybody else: what a Session may do that may be a replay.
    pub(super) fn may_come_early(&self, raw: &RawFrame) -> Result<bool, Fatal> {
        let early = self.past.as_ref().and_then(|past| past.early.as_ref());
        let Some(names) = early else { return Ok(true) };
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
        let (taken, kept): (Vec<_>, Vec<_>) =
            places.into_iter().partition(|place| self.groups.contains_key(&place.group));
        let past = self.past();
        past.replaces = Some(older);
        for place in kept {
            past.kept.insert(place.group, place);
        }
        taken
    }

    /// The places that were taken over and not joined.
    pub(in crate::access) fn take_kept(&mut self) -> Vec<Place> {
        let Some(past) = &mut self.past else { return Vec::new() };
        past.replaces = None;
        let kept = past.kept.take(|_| true);
        self.tidy();
        kept.into_iter().map(|(_, place)| place).collect()
    }

    pub(in crate::access) fn keeps(&self) -> bool {
        self.past.as_ref().is_some_and(|past| !past.kept.is_empty())
    }

    /// All places of the device.
    pub(in crate::access) fn places(&self) -> Vec<Place> {
        let session = self.identity.session;
        let place = |(group, g): (&u64, &Group)| Place {
            group: *group,
            owner: g.owner,
            session,
            foreign: g.foreign,
            room: g.room.clone(),
        };
        let kept = self.past.iter().flat_map(|past| past.kept.values().cloned());
        self.groups.iter().map(place).chain(kept).collect()
    }

    /// What has changed of its places since this was last asked, for the directory.
    pub(in crate::access) fn take_moves(&mut self) -> Vec<Move> {
        let mut moves = self.groups.take_moves();
        if let Some(past) = &mut self.past
            && past.kept.has_moves()
        {
            // First what was kept goes, then it may come as a place of this Session's own.
            moves.splice(0..0, past.kept.take_moves());
            self.tidy();
        }
        moves
    }

    /// All places of the device, as they stand in the directory.
    pub(in crate::access) fn lines(&self) -> impl Iterator<Item = Bytes> + '_ {
        let kept = self.past.iter().flat_map(|past| past.kept.lines());
        self.groups.lines().chain(kept)
    }

    /// The names (hashed) of what the device is in.
    pub(in crate::access) fn names(&self) -> Vec<u64> {
        self.places().iter().map(|place| hash(&place.room)).collect()
    }

    /// What its owners must hear when it ends. Joins that are not answered yet end with the answer.
    pub(in crate::access) fn leaves(&self) -> Vec<(OwnerId, Item)> {
        self.places().iter().map(Place::leave).collect()
    }
}
