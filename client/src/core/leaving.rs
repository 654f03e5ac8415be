//! Leaving rooms, by request, by force, and for a while.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use edgeway_proto::{Class, CloseCode, ErrorCode, Lane, Return, frame};

use super::{
    Answer, Core, Fetch, REQUESTS_MAX, Request, RoomId, room::Phase, rooms::ROOMS_MAX,
    timers::Timer,
};
use crate::{Event, LeftCause, RequestError, SendError, SessionId, error::after};

impl Core {
    /// Leaves a room for the app.
    pub(crate) fn leave(&mut self, id: RoomId, waiter: Answer<()>) {
        let Some(room) = self.room(id) else {
            let _ = waiter.send(Ok(()));
            return;
        };
        let (session, group, phase) = (room.session, room.group, room.phase);
        if self.requests.len() >= ROOMS_MAX + REQUESTS_MAX {
            let _ = waiter.send(Err(RequestError::TooMany));
            return;
        }
        if phase == Phase::Asked {
            // The room is gone from here: the answer of the join will find none, and leaves.
            self.join_ended(id);
        }
        self.remove_room(id, &RequestError::NotJoined, &SendError::NotJoined);
        match self.wire_of(session) {
            Some(wire) if phase == Phase::Joined => {
                let request = self.request(Request::Leave(session, waiter));
                let leave = frame::Leave { request, group };
                self.lanes.frame(Lane::new(wire, Class::Signal), leave.to_bytes());
            }
            _ => drop(waiter.send(Ok(()))),
        }
        self.pump_joins();
    }

    pub(super) fn leave_group(&mut self, session: SessionId, group: u64) {
        // Joined again meanwhile under the same handle: then it is to stay.
        if self.groups.contains_key(&(session, group)) {
            return;
        }
        if let Some(wire) = self.wire_of(session) {
            self.last_request += 1;
            let leave = frame::Leave { request: self.last_request, group };
            self.lanes.frame(Lane::new(wire, Class::Signal), leave.to_bytes());
        }
    }

    pub(super) fn left(&mut self, session: SessionId, left: frame::Left, now: Instant) {
        if left.request != 0 {
            if let Some(Request::Leave(_, waiter)) = self.requests.remove(&left.request) {
                let _ = waiter.send(Ok(()));
            }
            return;
        }
        let Some(id) = self.room_of_group(session, left.group) else { return };
        let code = CloseCode::from_code(left.code);
        if code.may_return() == Return::No {
            let cause = LeftCause::Ended(code);
            self.out_of_room(id, cause, left.reason.to_string());
            return;
        }
        // The owner of the room was lost, not the room; what it was asked it may never answer.
        self.forget_requests(id);
        self.lost_room(id);
        self.pump_fetches();
        self.rejoin_later(id, now, None);
    }

    /// What a room's owner was asked, beside joins, is not waited for any longer.
    fn forget_requests(&mut self, id: RoomId) {
        let asked = self.requests.extract_if(|_, request| match request {
            Request::Page(of, _) | Request::Sync(of) => *of == id,
            Request::History(of, _) | Request::Members(of, _) => *of == id,
            Request::Join(_) | Request::Leave(..) => false,
        });
        for (_, request) in asked {
            let lost = RequestError::ConnectionLost;
            match request {
                Request::Page(..) | Request::Sync(_) => self.fetching -= 1,
                Request::History(_, waiter) => drop(waiter.send(Err(lost))),
                Request::Members(_, waiter) => drop(waiter.send(Err(lost))),
                Request::Join(_) | Request::Leave(..) => {}
            }
        }
    }

    fn out_of_room(&mut self, id: RoomId, cause: LeftCause, reason: String) {
        let Some(room) = self.room(id) else { return };
        let (session, name) = (room.session, Arc::clone(&room.name));
        self.remove_room(id, &RequestError::NotJoined, &SendError::NotJoined);
        self.event(Event::Left { session, room: name, cause, reason });
    }

    fn rejoin_later(&mut self, id: RoomId, now: Instant, wait: Option<Duration>) {
        let Some(room) = self.room_mut(id) else { return };
        room.attempts = room.attempts.saturating_add(1);
        let attempts = room.attempts;
        self.retry_at(Timer::Rejoin(id), now, attempts, wait);
    }

    /// Tries again after a random delay that grows with `attempts`.
    pub(super) fn retry_later(&mut self, timer: Timer, now: Instant, attempts: u32) {
        self.retry_at(timer, now, attempts, None);
    }

    fn retry_at(&mut self, timer: Timer, now: Instant, attempts: u32, wait: Option<Duration>) {
        let delay = wait.unwrap_or_default() + self.backoff(attempts);
        self.timers.set(now + delay, timer);
    }

    /// A request failed.
    pub(super) fn refused(&mut self, session: SessionId, error: frame::Error, now: Instant) {
        let code = ErrorCode::from_code(error.code);
        if error.request == 0 {
            if let Some(session) = self.session(session) {
                session.refusal = Some((code, error.detail.detached()));
            }
            return;
        }
        let wait = after(error.retry_after_ms);
        let failure =
            RequestError::Refused { code, detail: error.detail.to_string(), retry_after: wait };
        let again = code.may_return() != Return::No;
        match self.requests.remove(&error.request) {
            Some(Request::Join(id)) => {
                self.join_ended(id);
                self.join_refused(id, code, failure, wait, now);
                self.pump_joins();
            }
            Some(Request::Leave(_, waiter)) => {
                // Not in it: that is what was asked for.
                let done = code == ErrorCode::NotJoined;
                let _ = waiter.send(if done { Ok(()) } else { Err(failure) });
            }
            Some(Request::History(_, waiter)) => drop(waiter.send(Err(failure))),
            Some(Request::Members(_, waiter)) => drop(waiter.send(Err(failure))),
            Some(Request::Page(id, class)) => {
                self.fetching -= 1;
                match self.room_mut(id) {
                    // Of the first flight, where the join has not come about: it will tell anew.
                    Some(room) if room.phase != Phase::Joined => {
                        room.class(class).order.disconnected();
                    }
                    _ => self.page_refused(id, class, again, now),
                }
                self.pump_fetches();
            }
            Some(Request::Sync(id)) => {
                self.fetching -= 1;
                self.sync_failed(id, now, again);
                self.pump_fetches();
            }
            None => {}
        }
    }

    fn join_refused(
        &mut self,
        id: RoomId,
        code: ErrorCode,
        failure: RequestError,
        wait: Option<Duration>,
        now: Instant,
    ) {
        let Some(room) = self.room_mut(id) else { return };
        room.phase = Phase::Waiting;
        if !room.known {
            // The app decides whether to try again.
            self.remove_room(id, &failure, &SendError::NotJoined);
        } else if code.may_return() == Return::No {
            self.out_of_room(id, LeftCause::Refused(code), failure.to_string());
        } else {
            self.rejoin_later(id, now, wait);
        }
    }

    /// A room is lost with its connection, Session or owner; it will be joined again.
    pub(super) fn lost_room(&mut self, id: RoomId) {
        let Some(room) = self.room_mut(id) else { return };
        let (session, group) = (room.session, room.group);
        room.phase = Phase::Waiting;
        room.members.disconnected();
        for state in &mut room.classes {
            state.order.disconnected();
            state.out.rewind();
        }
        self.groups.remove(&(session, group));
        self.recent = None;
        self.recount_chat();
        self.fetches.retain(|fetch| match fetch {
            Fetch::Page(room, _) | Fetch::Sync(room) => *room != id,
        });
        self.to_join.retain(|room| *room != id);
    }

    /// A room is over for the app.
    pub(super) fn remove_room(&mut self, id: RoomId, request: &RequestError, send: &SendError) {
        self.forget_chat(id);
        self.lost_room(id);
        if self.room(id).is_none() {
            return;
        }
        let mut room = self.rooms.remove(id.index);
        self.by_name.remove(&(room.session, Arc::clone(&room.name)));
        for waiter in room.waiters.drain(..) {
            let _ = waiter.send(Err(request.clone()));
        }
        for state in &mut room.classes {
            for entry in state.out.clear() {
                self.stats.failed += 1;
                entry.resolve(Err(send.clone()));
            }
        }
        self.recount_chat();
    }
}
