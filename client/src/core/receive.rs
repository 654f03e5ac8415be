//! What arrives in rooms: deliveries, pages, gaps, acks.

use std::{sync::Arc, time::Instant};

use edgeway_proto::{
    Class, CloseCode, Lane, Seq,
    frame::{self, Frame, page_flag},
};
use edgeway_transport::Stop;

use super::{
    Answer, Core, FETCHES_MAX, Fetch, REQUESTS_MAX, Request, RoomId,
    order::{Live, Next},
    outgoing::Acked,
    room::Phase,
    rooms::message,
    sessions::Early,
    timers::Timer,
};
use crate::{AckStatus, Event, HistoryPage, MembersPage, RequestError, SessionId};

/// Bytes of frames held for rooms whose `Joined` is still to come: the credit of the lanes that can
/// overtake it bounds them already.
const EARLY_BYTES: usize = 64 * 1024;

/// Pages of chat in a row that brought nothing before what is missing counts as lost: chat is
/// appended to history after it is delivered, and some of it may never be.
const CHAT_STALLS_MAX: u32 = 3;

/// The place of a message that expired before it could be delivered.
fn is_void(deliver: &frame::Deliver) -> bool {
    deliver.expires_ms == 1
        && deliver.payload.0.is_empty()
        && deliver.sender.is_empty()
        && deliver.key.is_empty()
}

impl Core {
    pub(super) fn deliver(
        &mut self,
        session: SessionId,
        lane: Lane,
        deliver: frame::Deliver,
        bytes: usize,
        now: Instant,
    ) -> Result<(), Stop> {
        if deliver.class != lane.class {
            return Err(Stop::new(CloseCode::Protocol, "a delivery on the lane of another class"));
        }
        let Some(id) = self.room_of_group(session, deliver.group) else {
            self.hold(session, lane, deliver.group, Frame::Deliver(deliver), bytes);
            return Ok(());
        };
        self.live(session, id, deliver, now);
        Ok(())
    }

    fn live(&mut self, session: SessionId, id: RoomId, deliver: frame::Deliver, _now: Instant) {
        let (class, seq) = (deliver.class, deliver.seq);
        let Some(room) = self.rooms.get_mut(id.index) else { return };
        match room.classes[class.index()].order.live(seq, class.reliable()) {
            Live::Deliver => {}
            Live::After(after, missed) => {
                let name = Arc::clone(&room.name);
                let upto = Seq::new(seq.epoch, seq.counter - 1);
                self.stats.missed += missed;
                self.arrived
                    .push_part(Event::Gap { session, room: name, class, after, upto, missed }, 0);
            }
            Live::Old => {
                self.stats.duplicates += 1;
                return;
            }
            Live::Skip => return,
            Live::Hole => {
                self.stats.holes += 1;
                self.want_fetch(Fetch::Page(id, class));
                self.pump_fetches();
                return;
            }
        }
        self.give(session, id, deliver, usize::MAX);
    }

    /// Gives a message to the app.
    fn give(&mut self, session: SessionId, id: RoomId, deliver: frame::Deliver, bytes: usize) {
        let Some(room) = self.rooms.get_mut(id.index) else { return };
        if is_void(&deliver) {
            return;
        }
        let message = message(session, &room.name, deliver);
        if message.class == Class::Signal && !message.key.is_empty() {
            room.set_state(&message);
        }
        self.stats.messages += 1;
        self.arrived.push_part(Event::Message(message), bytes);
    }

    /// Holds a frame that overtook the `Joined` of its room; without a join under way it belongs to
    /// a room that was left.
    fn hold(&mut self, session: SessionId, lane: Lane, group: u64, frame: Frame, bytes: usize) {
        let Some(session) = self.session(session) else { return };
        if session.joining == 0 || session.early_bytes + bytes > EARLY_BYTES {
            return;
        }
        session.early_bytes += bytes;
        session.early.push(Early { lane, group, frame, bytes });
        self.arrived.hold();
    }

    /// After a `Joined`: works on what was held for it, and forgets what nobody will claim.
    pub(super) fn release_early(&mut self, id: SessionId, now: Instant) -> Result<(), Stop> {
        let Some(session) = self.session(id) else { return Ok(()) };
        if session.early.is_empty() {
            return Ok(());
        }
        let waiting = session.joining > 0;
        let held = std::mem::take(&mut session.early);
        session.early_bytes = 0;
        for early in held {
            let before = self.arrived.resume(early.lane, early.bytes);
            let known = self.groups.contains_key(&(id, early.group));
            match early.frame {
                _ if !known && !waiting => {}
                Frame::Deliver(deliver) => {
                    self.deliver(id, early.lane, deliver, early.bytes, now)?
                }
                Frame::Behind(behind) => self.behind(id, early.lane, behind, early.bytes),
                Frame::Gap(gap) => self.gap(id, early.lane, gap, early.bytes),
                _ => {}
            }
            self.arrived.back(before);
        }
        Ok(())
    }

    pub(super) fn behind(
        &mut self,
        session: SessionId,
        lane: Lane,
        frame: frame::Behind,
        bytes: usize,
    ) {
        let Some(id) = self.room_of_group(session, frame.group) else {
            self.hold(session, lane, frame.group, Frame::Behind(frame), bytes);
            return;
        };
        let Some(room) = self.room_mut(id) else { return };
        if room.class(frame.class).order.behind(frame.head) {
            self.want_fetch(Fetch::Page(id, frame.class));
            self.pump_fetches();
        }
    }

    pub(super) fn gap(&mut self, session: SessionId, lane: Lane, frame: frame::Gap, bytes: usize) {
        let Some(id) = self.room_of_group(session, frame.group) else {
            self.hold(session, lane, frame.group, Frame::Gap(frame), bytes);
            return;
        };
        self.skip(id, frame.class, |order| order.skip_to(frame.upto));
    }

    /// Reports what is given up.
    fn skip(
        &mut self,
        id: RoomId,
        class: Class,
        skip: impl FnOnce(&mut super::order::Order) -> Option<(Seq, u64)>,
    ) {
        let Some(room) = self.room_mut(id) else { return };
        let (session, name) = (room.session, Arc::clone(&room.name));
        let order = &mut room.class(class).order;
        let Some((after, missed)) = skip(order) else { return };
        let upto = order.last;
        let room = name;
        self.stats.missed += missed;
        self.event(if class.reliable() {
            Event::HistoryLost { session, room, class, after }
        } else {
            Event::Gap { session, room, class, after, upto, missed }
        });
    }

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

    pub(super) fn ack(&mut self, session: SessionId, ack: &frame::Ack) {
        let Some(id) = self.room_of_group(session, ack.group) else { return };
        let Some(wire) = self.wire_of(session) else { return };
        let mut refusal = None;
        if ack.status == edgeway_proto::AckStatus::Refused
            && let Some(session) = self.session(session)
        {
            refusal = session.refusal.take();
        }
        let Some(room) = self.room_mut(id) else { return };
        let out = &mut room.class(ack.class).out;
        let acked = out.ack(ack, || match refusal {
            Some((code, detail)) => (Some(code), detail.to_string()),
            None => (None, String::new()),
        });
        match acked {
            Acked::Done(entry, result) => {
                match &result {
                    Ok(ack) if ack.status == AckStatus::Shed => self.stats.shed += 1,
                    Ok(_) => self.stats.acked += 1,
                    Err(_) => self.stats.failed += 1,
                }
                let bytes = entry.cost();
                entry.resolve(result);
                self.chat_acked(ack.class, bytes);
            }
            Acked::Again => {
                let count = out.len();
                self.lanes.messages(Lane::new(wire, ack.class), id, count);
                self.recount_chat();
            }
            Acked::Unknown => {}
        }
    }
}
