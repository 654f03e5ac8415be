//! What a shard tells the directory of its rooms: who comes and goes, and all of it when it is asked.

use std::sync::Arc;

use bytes::Bytes;
use edgeway_proto::Text;
use tokio::sync::mpsc;

use super::{
    Kind,
    task::{Done, OpenRoom, Shard, Slot},
};
use crate::{
    directory::{self, Listing, Member, Name, Recorder, Source, Term},
    room::{Move, Room},
};

/// How a shard is asked for a room.
struct Asked(mpsc::UnboundedSender<Done>);

impl Source for Asked {
    fn ask(&self, (group, epoch): (u64, u64)) {
        // A shard that has ended has closed its listings.
        let _ = self.0.send(Done::Asked { group, epoch });
    }
}

/// The gateways that have members.
fn head(room: &Room) -> Bytes {
    directory::gateways(room.route())
}

/// How a shard's rooms get into the directory.
pub(super) struct Listings {
    recorder: Recorder,
    source: Arc<Asked>,
}

impl Listings {
    /// For whoever knows the members of rooms, which an owner of strokes does not. Inboxes have one user each,
    /// whose Sessions access tells of.
    pub(super) fn new(
        kind: Kind,
        recorder: Option<&Recorder>,
        done: &mpsc::UnboundedSender<Done>,
    ) -> Option<Self> {
        let recorder = recorder.filter(|_| matches!(kind, Kind::Room | Kind::Apart))?.clone();
        Some(Self { recorder, source: Arc::new(Asked(done.clone())) })
    }

    pub(super) fn open(&self, room: &Room, name: &Text) -> Listing {
        let (term, of) = (Term(room.epoch(), 0), (room.group(), room.epoch()));
        self.recorder.open(Name::room(name), term, head(room), self.source.clone(), of)
    }
}

impl Shard {
    /// Tells of those who came and went in a room.
    pub(super) fn tell_moves(&mut self, group: u64) {
        let moves = &mut self.fx.moves;
        if moves.list.is_empty() {
            return;
        }
        let Some(Slot::Open(open)) = self.rooms.get_mut(&group) else { return };
        let Some(listings) = &self.listings else { return };
        let OpenRoom { room, name, listing, .. } = &mut **open;
        let listing = listing.get_or_insert_with(|| listings.open(room, name));
        for Move { session, user, device, came } in moves.list.drain(..) {
            let line = Member::line(&user, &device, session);
            if came { listing.add(line) } else { listing.remove(line) }
        }
        if std::mem::take(&mut moves.rerouted) {
            listing.head(head(room));
        }
    }

    /// The directory asks for all of a room.
    pub(super) fn asked(&self, group: u64, epoch: u64) {
        let Some(Slot::Open(open)) = self.rooms.get(&group) else { return };
        if let (Some(listing), true) = (&open.listing, open.room.epoch() == epoch) {
            let line = |(session, user, device)| Member::line(user, device, session);
            listing.anew(head(&open.room), open.room.listed().map(line));
        }
    }
}
