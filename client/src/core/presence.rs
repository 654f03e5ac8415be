//! Who is in a room: differences as long as none is missed, the whole list again where one was
//! (WIRE.md, section 12).

use std::{collections::BTreeSet, time::Instant};

use edgeway_proto::{
    Text,
    frame::{self, presence_flag},
};

use super::{Core, Fetch, Request, RoomId, timers::Timer};
use crate::{Event, MembersPage, Presence, SessionId};

/// Names that are collected at most: rooms above 1,000 members tell only their count.
const NAMES_MAX: usize = 2048;

/// Changes held while the list is read; there is one a second at most.
const HELD_MAX: usize = 32;

/// What is known of a room's members. The names are the app's to keep.
#[derive(Debug, Default)]
pub(super) struct Members {
    pub(super) count: u64,
    pub(super) version: u64,
    sync: Option<Sync>,
}

/// The list is being read anew.
#[derive(Debug, Default)]
struct Sync {
    names: BTreeSet<Text>,
    /// The version of the first page.
    first: Option<u64>,
    /// Changes that came meanwhile.
    held: Vec<frame::Presence>,
    /// Counts what did not lead to a list.
    tries: u32,
}

impl Members {
    /// The connection is gone: what was being read is read anew after the next join.
    pub(super) fn disconnected(&mut self) {
        if self.sync.take().is_some() {
            self.version = 0;
        }
    }
}

impl Core {
    pub(super) fn presence(&mut self, session: SessionId, frame: frame::Presence) {
        let Some(id) = self.room_of_group(session, frame.group) else { return };
        let Some(room) = self.room_mut(id) else { return };
        let members = &mut room.members;
        let count_only = frame.flags & presence_flag::COUNT_ONLY != 0;
        if frame.version <= members.version {
            return;
        }
        members.count = frame.members;
        if count_only {
            members.sync = None;
        } else if let Some(sync) = &mut members.sync {
            // Above the bound the list is read once more when it is done: its end is missing.
            if sync.held.len() < HELD_MAX {
                sync.held.push(frame);
            }
            return;
        } else if frame.version != members.version + 1 {
            members.sync = Some(Sync { held: vec![frame], ..Sync::default() });
            self.want_fetch(Fetch::Sync(id));
            self.pump_fetches();
            return;
        }
        members.version = frame.version;
        let event = Presence {
            session,
            room: room.name.clone(),
            members: frame.members,
            joined: frame.joined,
            left: frame.left,
            complete: false,
            count_only,
        };
        self.event(Event::Presence(event));
    }

    /// Changes were missed: reads the whole list.
    pub(super) fn sync_members(&mut self, id: RoomId) {
        let Some(room) = self.room_mut(id) else { return };
        if room.send_only {
            return;
        }
        room.members.sync = Some(Sync::default());
        self.want_fetch(Fetch::Sync(id));
        self.pump_fetches();
    }

    /// Where the next page of the list begins.
    pub(super) fn sync_request(&mut self, id: RoomId) -> Option<(u64, Text)> {
        let room = self.room_mut(id)?;
        let sync = room.members.sync.as_ref()?;
        Some((room.group, sync.names.last().cloned().unwrap_or_default()))
    }

    pub(super) fn member_page(
        &mut self,
        session: SessionId,
        page: frame::MemberPage,
        now: Instant,
    ) {
        match self.requests.remove(&page.request) {
            Some(Request::Members(_, waiter)) => {
                let _ = waiter.send(Ok(MembersPage {
                    users: page.users,
                    total: page.total,
                    more: page.more != 0,
                }));
            }
            Some(Request::Sync(id)) => {
                self.fetching -= 1;
                self.sync_page(session, id, &page, now);
                self.pump_fetches();
            }
            Some(other) => drop(self.requests.insert(page.request, other)),
            None => {}
        }
    }

    fn sync_page(
        &mut self,
        session: SessionId,
        id: RoomId,
        page: &frame::MemberPage,
        now: Instant,
    ) {
        let Some(room) = self.room_mut(id) else { return };
        let Some(sync) = &mut room.members.sync else { return };
        sync.first.get_or_insert(page.presence_version);
        let before = sync.names.len();
        // Kept across pages: in memory of their own.
        sync.names.extend(page.users.iter().map(Text::detached));
        let more = page.more != 0 && sync.names.len() > before;
        if more && sync.names.len() <= NAMES_MAX {
            self.want_fetch(Fetch::Sync(id));
            return;
        }
        let Some(mut sync) = room.members.sync.take() else { return };
        let mut version = sync.first.unwrap_or_default();
        for held in sync.held.drain(..) {
            if held.version <= version {
                continue;
            }
            if held.version != version + 1 {
                // One was missed again.
                let tries = sync.tries + 1;
                room.members.sync = Some(Sync { tries, ..Sync::default() });
                self.retry_later(Timer::Sync(id), now, tries);
                return;
            }
            version = held.version;
            held.left.iter().for_each(|name| drop(sync.names.take(name)));
            sync.names.extend(held.joined.iter().map(Text::detached));
        }
        let count_only = sync.names.len() > NAMES_MAX;
        let members = if count_only { page.total } else { sync.names.len() as u64 };
        room.members.version = version;
        room.members.count = members;
        let event = Presence {
            session,
            room: room.name.clone(),
            members,
            joined: if count_only { Vec::new() } else { sync.names.into_iter().collect() },
            left: Vec::new(),
            complete: !count_only,
            count_only,
        };
        self.event(Event::Presence(event));
    }

    /// The list could not be read: tries again, or goes on without.
    pub(super) fn sync_failed(&mut self, id: RoomId, now: Instant, retry: bool) {
        let Some(room) = self.room_mut(id) else { return };
        let Some(sync) = &mut room.members.sync else { return };
        sync.tries += 1;
        let tries = sync.tries;
        if retry {
            self.retry_later(Timer::Sync(id), now, tries);
        } else {
            room.members.sync = None;
        }
    }
}
