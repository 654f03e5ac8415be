//! Groups whose owner was lost, or is another one now. The client is told that it is out of them, and joins
//! again; what it has sent before it was told comes again then, so it is neither passed on nor refused.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use edgeway_proto::{
    CloseCode, Text,
    frame::Left,
    rooms::{self, to_owner_item::Item},
};

use super::{Group, Route, Session};
use crate::access::{
    out::{Out, RETRY_MS, unavailable},
    owners::OwnerId,
};

impl Session {
    pub(super) fn is_moved(&self, group: u64) -> bool {
        self.moved.as_ref().is_some_and(|moved| moved.contains(&group))
    }

    /// The client is, or is being told that it is out of a group which it may join again.
    pub(super) fn moved(&mut self, group: u64) {
        let moved = self.moved.get_or_insert_default();
        if moved.len() >= self.rooms_max.load(Ordering::Relaxed) {
            moved.clear();
        }
        moved.insert(group);
    }

    /// The owner of some groups is lost: the client is told that it is out of them, to join again;
    /// joins that were not answered fail, and what was kept there is given up.
    pub(in crate::access) fn lose_owner(&mut self, lost: OwnerId, out: &mut Vec<Out>) -> usize {
        self.lose(|owner, _| owner == lost, out)
    }

    /// The same of groups that have another owner now. What this leaves behind, their old owners are to
    /// hear.
    pub(in crate::access) fn lose_moved(
        &mut self,
        route: &impl Route,
        out: &mut Vec<Out>,
    ) -> (usize, Vec<(OwnerId, Item)>) {
        let role = self.identity.kind.owner();
        let is_moved = |group: &Group| route.owner(role, &group.room) != group.owner;
        let moved = self.groups.iter().filter(|(_, group)| is_moved(group));
        let session = Some(self.identity.session);
        let leave = |(group, g): (&u64, &Group)| {
            (g.owner, Item::Leave(rooms::Leave { session, request: 0, group: *group }))
        };
        let leaves: Vec<_> = moved.map(leave).collect();
        let lost =
            self.lose(|owner, room| room.is_some_and(|room| route.owner(role, room) != owner), out);
        (lost, leaves)
    }

    fn lose(
        &mut self,
        is_lost: impl Fn(OwnerId, Option<&str>) -> bool,
        out: &mut Vec<Out>,
    ) -> usize {
        if let Some(past) = &mut self.past {
            past.kept.take(|place| is_lost(place.owner, None));
        }
        self.joins.retain(|join| {
            let lost = is_lost(join.group.owner, None);
            if lost {
                out.push(unavailable(join.request, RETRY_MS));
            }
            !lost
        });
        let is_lost = |group: &Group| is_lost(group.owner, Some(&group.room));
        let lost = self.groups.take(is_lost);
        for (group, _) in &lost {
            self.moved(*group);
            out.push(Out::Client(left(*group)));
        }
        lost.len()
    }

    /// An owner has let the Session in that has not asked it any more: the client, which may believe
    /// that, is told.
    pub(in crate::access) fn let_in_too_late(&mut self, group: u64, out: &mut Vec<Out>) {
        if !self.groups.contains_key(&group) {
            self.moved(group);
            out.push(Out::Client(left(group)));
        }
    }
}

/// Out of a group, for as long as it takes to join it again.
fn left(group: u64) -> Bytes {
    let reason = Text::from_static("the owner of the room was lost");
    Left { request: 0, group, code: CloseCode::BackendLost.code(), reason }.to_bytes()
}
