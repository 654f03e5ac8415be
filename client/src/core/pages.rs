//! Pages of history and of members: for the app, and to catch up (WIRE.md, sections 10 to 12).

use std::{sync::Arc, time::Instant};

use edgeway_proto::{
    Class, CloseCode, Lane, Seq,
    frame::{self, page_flag},
};
use edgeway_transport::Stop;

use super::{
    Answer, Core, FETCHES_MAX, Fetch, REQUESTS_MAX, Request, RoomId, order::Next, receive::is_void,
    room::Phase, rooms::message, timers::Timer,
};
use crate::{Event, HistoryPage, MembersPage, RequestError, SessionId};

/// Pages of chat in a row that brought nothing before what is missing counts as lost: chat is
/// appended to history after it is delivered, and some of it may never be.
const CHAT_STALLS_MAX: u32 = 3;

impl Core {
    pub(super) fn want_fetch(&mut self, fetch: Fetch) {
        if self.connected && !self.fetches.contains(&fetch) {
            self.fetches.push_back(fetch);
        }
    }

    /// Asks for as many pages as may be under way.
    pub(super) fn pump_fetches(&mut self) {
        while self.fetching < FETCHES_MAX
            && let Some(fetch) = self.fetches.pop_front()
        {
            let (Fetch::Page(id, _) | Fetch::Sync(id)) = fetch;
            let Some(room) = self.room(id) else { continue };
            if room.phase != Phase::Joined {
                continue;
            }
            let Some(wire) = self.wire_of(room.session) else { continue };
            let lane = Lane::new(wire, Class::Signal);
            match fetch {
                Fetch::Page(id, class) => {
                    let state = &room.classes[class.index()];
                    if !state.order.is_behind() {
                        continue;
                    }
                    let (group, after) = (room.group, state.order.last);
                    let request = self.request(Request::Page(id, class));
                    let history = frame::History { request, group, class, after, limit: 0 };
                    self.lanes.frame(lane, history.to_bytes());
                }
                Fetch::Sync(id) => {
                    let Some((group, after)) = self.sync_request(id) else { continue };
                    let request = self.request(Request::Sync(id));
                    let members = frame::Members { request, group, after, limit: 0 };
                    self.lanes.frame(lane, members.to_bytes());
                }
            }
            self.fetching += 1;
        }
    }

    pub(super) fn page(
        &mut self,
        session: SessionId,
        page: frame::Page,
        now: Instant,
    ) -> Result<(), Stop> {
        match self.requests.remove(&page.request) {
            Some(Request::Page(id, class)) => {
                self.fetching -= 1;
                self.stats.pages += 1;
                self.caught_page(session, id, class, page, now)?;
                self.pump_fetches();
            }
            Some(Request::History(id, waiter)) => {
                let answer = self.history_page(session, id, page)?;
                let _ = waiter.send(answer);
            }
            Some(other) => drop(self.requests.insert(page.request, other)),
            None => {}
        }
        Ok(())
    }

    fn history_page(
        &self,
        session: SessionId,
        id: RoomId,
        page: frame::Page,
    ) -> Result<Result<HistoryPage, RequestError>, Stop> {
        let Some(room) = self.room(id) else { return Ok(Err(RequestError::NotJoined)) };
        let mut messages = Vec::new();
        let mut frames = page.messages.0;
        while let Some(frame) = frame::split(&mut frames)? {
            let deliver = frame::Deliver::parse(frame.body)?;
            if !is_void(&deliver) {
                messages.push(message(session, &room.name, deliver));
            }
        }
        Ok(Ok(HistoryPage {
            messages,
            upto: page.upto,
            head: page.head,
            more: page.flags & page_flag::MORE != 0,
            truncated: page.flags & page_flag::TRUNCATED != 0,
        }))
    }

    /// A page of what was missed: gives what is new, and goes on.
    fn caught_page(
        &mut self,
        session: SessionId,
        id: RoomId,
        class: Class,
        page: frame::Page,
        now: Instant,
    ) -> Result<(), Stop> {
        let Some(room) = self.room_mut(id) else { return Ok(()) };
        let before = room.class(class).order.last;
        if !room.class(class).order.is_behind() {
            return Ok(());
        }
        if page.flags & page_flag::TRUNCATED != 0 {
            let room = Arc::clone(&room.name);
            let lost = Event::HistoryLost { session, room, class, after: before };
            self.arrived.push_part(lost, 0);
        }
        let mut frames = page.messages.0;
        while let Some(frame) = frame::split(&mut frames)? {
            let bytes = frame.whole.len();
            let deliver = frame::Deliver::parse(frame.body)?;
            if deliver.class != class {
                return Err(Stop::new(
                    CloseCode::Protocol,
                    "a page with a message of another class",
                ));
            }
            let Some(room) = self.room_mut(id) else { break };
            if room.class(class).order.paged(deliver.seq) {
                self.give(session, id, deliver, bytes);
            } else {
                self.stats.duplicates += 1;
            }
        }
        let more = page.flags & page_flag::MORE != 0;
        let Some(room) = self.room_mut(id) else { return Ok(()) };
        let next = room.class(class).order.page_done(before, page.upto, page.head, more);
        self.after_page(id, class, next, now);
        Ok(())
    }

    fn after_page(&mut self, id: RoomId, class: Class, next: Next, now: Instant) {
        match next {
            Next::Ask => self.want_fetch(Fetch::Page(id, class)),
            Next::Later(stalls) if class.reliable() || stalls < CHAT_STALLS_MAX => {
                self.retry_later(Timer::Page(id, class), now, stalls);
            }
            Next::Later(_) => self.give_up(id, class),
            Next::Tell(last) => self.caught_up(id, class, last),
            Next::Live | Next::Nothing => {}
        }
    }

    /// What is missing of chat will not come.
    fn give_up(&mut self, id: RoomId, class: Class) {
        let mut tell = None;
        self.skip(id, class, |order| {
            let (gap, last) = order.give_up();
            tell = last;
            gap
        });
        if let Some(last) = tell {
            self.caught_up(id, class, last);
        }
    }

    fn caught_up(&mut self, id: RoomId, class: Class, last: Seq) {
        let Some(room) = self.room(id) else { return };
        let (group, session) = (room.group, room.session);
        if let Some(wire) = self.wire_of(session) {
            let frame = frame::CaughtUp { group, class, last };
            self.lanes.frame(Lane::new(wire, Class::Signal), frame.to_bytes());
        }
    }

    /// A page was refused: tries again, or reports the loss.
    pub(super) fn page_refused(&mut self, id: RoomId, class: Class, again: bool, now: Instant) {
        if again {
            self.retry_later(Timer::Page(id, class), now, 1);
        } else {
            self.give_up(id, class);
        }
    }

    /// Asks for history for the app.
    pub(crate) fn history(
        &mut self,
        id: RoomId,
        class: Class,
        after: Seq,
        limit: u64,
        waiter: Answer<HistoryPage>,
    ) {
        let (lane, group) = match self.may_ask(id) {
            Ok(found) => found,
            Err(e) => return drop(waiter.send(Err(e))),
        };
        let request = self.request(Request::History(id, waiter));
        let history = frame::History { request, group, class, after, limit };
        self.lanes.frame(lane, history.to_bytes());
    }

    /// Asks for members for the app.
    pub(crate) fn members(
        &mut self,
        id: RoomId,
        after: &str,
        limit: u64,
        waiter: Answer<MembersPage>,
    ) {
        let (lane, group) = match self.may_ask(id) {
            Ok(found) => found,
            Err(e) => return drop(waiter.send(Err(e))),
        };
        let request = self.request(Request::Members(id, waiter));
        let members = frame::Members { request, group, after: after.into(), limit };
        self.lanes.frame(lane, members.to_bytes());
    }

    fn may_ask(&self, id: RoomId) -> Result<(Lane, u64), RequestError> {
        if self.closed {
            return Err(RequestError::Closed);
        }
        let room = self.room(id).ok_or(RequestError::NotJoined)?;
        let wire = self.wire_of(room.session).ok_or(RequestError::ConnectionLost)?;
        if room.phase != Phase::Joined {
            return Err(RequestError::ConnectionLost);
        }
        let waiting = |r: &&Request| matches!(r, Request::History(..) | Request::Members(..));
        if self.requests.values().filter(waiting).count() >= REQUESTS_MAX {
            return Err(RequestError::TooMany);
        }
        Ok((Lane::new(wire, Class::Signal), room.group))
    }
}
