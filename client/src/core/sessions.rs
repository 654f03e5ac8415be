//! Opening Sessions, and opening them again.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use edgeway_proto::{
    Class, CloseCode, ErrorCode, Lane, Return, Seq, Text,
    frame::{self, FIRST_OWN_KIND, FIRST_SESSION_KIND, Frame},
    limits,
};

use edgeway_transport::Stop;

use super::{Answer, Core, Request, RoomId, raw, timers::Timer};
use crate::{Event, RawFrame, RequestError, SendError, SessionId, error::after};

/// Sessions that a client may have at a time: as many as a connection has numbers for, less some
/// for those that are being opened again.
const SESSIONS_MAX: usize = 32;

/// Bytes of frames of a raw Session that may wait on one lane.
const RAW_QUEUE_BYTES: usize = 64 * 1024;

/// Who reads the frames of a Session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reads {
    /// The client: a type of this protocol.
    Client,
    /// The client those of rooms, the app the backend's own.
    Both,
    /// The app.
    App,
}

impl Reads {
    /// Whether frames of a kind from 0x40 are the app's.
    const fn app_reads(self, kind: u8) -> bool {
        match self {
            Self::Client => false,
            Self::Both => kind >= FIRST_OWN_KIND,
            Self::App => kind >= FIRST_SESSION_KIND,
        }
    }
}

/// Frames for rooms whose `Joined` is still to come, on another lane.
#[derive(Debug)]
pub(super) struct Early {
    pub(super) lane: Lane,
    pub(super) group: u64,
    pub(super) frame: Frame,
    pub(super) bytes: usize,
}

/// A Session, across connections.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) kind: Arc<str>,
    headers: Vec<(Text, Text)>,
    reads: Reads,
    /// Its number on this connection; 0 where it is not open.
    pub(super) wire: u8,
    /// Whether the server has said that it is open.
    confirmed: bool,
    /// Whether it was open before: then the app is told when it is again.
    known: bool,
    attempts: u32,
    waiters: Vec<Answer<SessionId>>,
    /// What the server said last without naming a request: why a message was refused.
    pub(super) refusal: Option<(ErrorCode, Text)>,
    pub(super) early: Vec<Early>,
    pub(super) early_bytes: usize,
    /// Joins that wait for their answer.
    pub(super) joining: usize,
}

impl Session {
    fn new(kind: &str, headers: Vec<(Text, Text)>, reads: Reads) -> Self {
        Self {
            kind: kind.into(),
            headers,
            reads,
            wire: 0,
            confirmed: false,
            known: false,
            attempts: 0,
            waiters: Vec::new(),
            refusal: None,
            early: Vec::new(),
            early_bytes: 0,
            joining: 0,
        }
    }

    fn lost(&mut self) {
        self.wire = 0;
        self.confirmed = false;
        self.refusal = None;
        self.early = Vec::new();
        self.early_bytes = 0;
        self.joining = 0;
    }
}

/// The Session type that every client opens in its first flight.
const CHAT: &str = "chat";

fn open_frame(wire: u8, kind: &str, headers: &[(Text, Text)]) -> Bytes {
    let kind = kind.into();
    frame::Open { session: u64::from(wire), kind, headers: headers.to_vec() }.to_bytes()
}

/// The frame that opens the chat Session as number 1, in the first flight.
pub(crate) fn open_chat() -> Bytes {
    open_frame(1, CHAT, &[])
}

impl Core {
    pub(super) fn add_chat(&mut self) {
        self.sessions.insert(SessionId::CHAT, Session::new(CHAT, Vec::new(), Reads::Client));
        self.next_session = SessionId::CHAT.0 + 1;
    }

    pub(super) fn session(&mut self, id: SessionId) -> Option<&mut Session> {
        self.sessions.get_mut(&id)
    }

    pub(super) fn session_of(&self, wire: u8) -> Option<SessionId> {
        let mut sessions = self.sessions.iter();
        sessions.find(|(_, s)| s.wire == wire && wire != 0).map(|(id, _)| *id)
    }

    /// The number of an open Session on this connection.
    pub(super) fn wire_of(&self, id: SessionId) -> Option<u8> {
        let session = self.sessions.get(&id)?;
        (session.wire != 0).then_some(session.wire)
    }

    /// Opens a Session for the app. Answers once the server has.
    pub(crate) fn open(
        &mut self,
        kind: &str,
        headers: &[(String, String)],
        reads: Reads,
        waiter: Answer<SessionId>,
    ) {
        // One that the app reads alone is its own, and not shared.
        let same = |s: &Session| reads != Reads::App && s.reads == reads && *s.kind == *kind;
        let mut sessions = self.sessions.iter_mut();
        if let Some((&id, session)) = sessions.find(|(_, s)| same(s)) {
            session.waiters.retain(|w| !w.is_closed());
            if session.confirmed {
                let _ = waiter.send(Ok(id));
            } else {
                session.waiters.push(waiter);
            }
            return;
        }
        let problem = if self.closed {
            Some(RequestError::Closed)
        } else if kind.is_empty() || kind.len() > limits::NAME_BYTES {
            Some(RequestError::BadName)
        } else if self.sessions.len() >= SESSIONS_MAX
            || headers.len() > limits::LIST_ITEMS
            || headers.iter().any(|(k, v)| k.len().max(v.len()) > limits::REASON_BYTES)
        {
            Some(RequestError::TooMany)
        } else {
            None
        };
        if let Some(problem) = problem {
            let _ = waiter.send(Err(problem));
            return;
        }
        let headers = headers.iter().map(|(k, v)| (k.as_str().into(), v.as_str().into())).collect();
        let mut session = Session::new(kind, headers, reads);
        session.waiters.push(waiter);
        // A number of its own, so that a handle of an old Session never means a new one.
        let id = SessionId(self.next_session);
        self.next_session = self.next_session.wrapping_add(1);
        self.sessions.insert(id, session);
        self.open_session(id, false);
    }

    /// Opens a Session on this connection; `sent` where its frame went with the first flight.
    pub(super) fn open_session(&mut self, id: SessionId, sent: bool) {
        if !self.connected {
            return;
        }
        let Some(wire) = self.free_wire() else { return };
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if session.wire != 0 {
            return;
        }
        session.wire = wire;
        if !sent {
            let open = open_frame(wire, &session.kind, &session.headers);
            self.lanes.frame(Lane::new(wire, Class::Signal), open);
        }
        let rooms: Vec<RoomId> = self.rooms_of(id).collect();
        for room in rooms {
            self.want_join(room);
        }
    }

    /// A number that no Session of this connection has had. Where all are used up a new connection
    /// is needed.
    fn free_wire(&mut self) -> Option<u8> {
        if u64::from(self.last_wire) >= limits::SESSION_MAX {
            self.stop(Stop::new(CloseCode::Normal, "all numbers of Sessions are used up"));
            return None;
        }
        self.last_wire += 1;
        Some(self.last_wire)
    }

    pub(super) fn opened(&mut self, id: SessionId) {
        let Some(session) = self.session(id) else { return };
        if std::mem::replace(&mut session.confirmed, true) {
            return;
        }
        session.attempts = 0;
        let known = std::mem::replace(&mut session.known, true);
        for waiter in session.waiters.drain(..) {
            let _ = waiter.send(Ok(id));
        }
        if known {
            self.event(Event::SessionOpened { session: id });
        }
    }

    /// The server closed a Session: opens it again where that may help.
    pub(super) fn session_closed(
        &mut self,
        id: SessionId,
        close: frame::CloseSession,
        now: Instant,
    ) {
        let code = CloseCode::from_code(close.code);
        let reason = close.reason.to_string();
        let Some(session) = self.session(id) else { return };
        let wire = session.wire;
        let first = !session.known && !session.waiters.is_empty();
        session.attempts = session.attempts.saturating_add(1);
        let attempts = session.attempts;
        self.lanes.close(wire);
        self.lost_session(id);
        let error = RequestError::SessionClosed { code, reason: reason.clone() };
        let returns = code.may_return();
        if first || returns == Return::No {
            self.end_session(id, &error);
            if first {
                return;
            }
        } else {
            let mut delay = after(close.retry_after_ms).unwrap_or_default();
            if delay.is_zero() && (returns == Return::Backoff || attempts > 1) {
                delay = self.backoff(attempts);
            } else {
                delay += self.jitter(self.config.backoff_min / 4);
            }
            self.timers.set(now + delay, Timer::Reopen(id));
        }
        let reopening = returns != Return::No;
        self.event(Event::SessionClosed { session: id, code, reason, reopening });
    }

    /// A Session is lost with what was under way on it; its rooms are kept.
    pub(super) fn lost_session(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.lost();
        let rooms: Vec<RoomId> = self.rooms_of(id).collect();
        for room in rooms {
            self.lost_room(room);
        }
        let gone: Vec<u64> = self
            .requests
            .iter()
            .filter(|(_, request)| self.session_of_request(request).is_none_or(|s| s == id))
            .map(|(number, _)| *number)
            .collect();
        for number in gone {
            match self.requests.remove(&number) {
                Some(Request::History(_, waiter)) => {
                    let _ = waiter.send(Err(RequestError::ConnectionLost));
                }
                Some(Request::Members(_, waiter)) => {
                    let _ = waiter.send(Err(RequestError::ConnectionLost));
                }
                // Not in the room: that is what was asked for.
                Some(Request::Leave(_, waiter)) => drop(waiter.send(Ok(()))),
                Some(Request::Page(..) | Request::Sync(_)) => self.fetching -= 1,
                Some(Request::Join(room)) => self.join_ended(room),
                None => {}
            }
        }
    }

    fn session_of_request(&self, request: &Request) -> Option<SessionId> {
        match request {
            Request::Leave(session, _) => Some(*session),
            Request::Join(room)
            | Request::History(room, _)
            | Request::Members(room, _)
            | Request::Page(room, _)
            | Request::Sync(room) => self.room(*room).map(|room| room.session),
        }
    }

    /// A Session is over for good, with its rooms.
    pub(super) fn end_session(&mut self, id: SessionId, error: &RequestError) {
        let rooms: Vec<RoomId> = self.rooms_of(id).collect();
        let closed = matches!(error, RequestError::Closed);
        for room in rooms {
            let send = if closed { SendError::Closed } else { SendError::NotJoined };
            self.remove_room(room, error, &send);
        }
        for waiter in self.sessions.remove(&id).map(|s| s.waiters).unwrap_or_default() {
            let _ = waiter.send(Err(error.clone()));
        }
    }

    /// The app closes a Session.
    pub(crate) fn close_session(&mut self, id: SessionId) {
        if let Some(wire) = self.wire_of(id) {
            let code = CloseCode::Normal.code();
            let close = frame::CloseSession {
                session: u64::from(wire),
                code,
                retry_after_ms: 0,
                reason: Text::default(),
            };
            // Nothing of it that still waits is worth sending: the close goes instead.
            self.lanes.part(wire, close.to_bytes());
            self.lost_session(id);
        }
        let error = RequestError::SessionClosed { code: CloseCode::Normal, reason: String::new() };
        self.end_session(id, &error);
    }

    /// Sends a frame of the app's.
    pub(crate) fn send_raw(
        &mut self,
        id: SessionId,
        class: Class,
        frame: RawFrame,
    ) -> Result<(), SendError> {
        if frame.body.len() > limits::FRAME_BODY_BYTES {
            return Err(SendError::TooLarge);
        }
        if self.closed {
            return Err(SendError::Closed);
        }
        let reads = self.sessions.get(&id).map(|s| s.reads).ok_or(SendError::NotJoined)?;
        if !reads.app_reads(frame.kind) {
            return Err(SendError::BadKind);
        }
        let wire = self.wire_of(id).ok_or(SendError::NotJoined)?;
        let lane = self.lanes.lane(Lane::new(wire, class));
        // One frame always has room, or the largest could never be sent.
        if lane.frame_bytes > 0 && lane.frame_bytes + frame.body.len() > RAW_QUEUE_BYTES {
            return Err(SendError::Full);
        }
        self.lanes.frame(Lane::new(wire, class), super::write::raw_bytes(&frame));
        Ok(())
    }

    /// The app has all of a group that it reads by itself up to `last`.
    pub(crate) fn send_caught_up(
        &mut self,
        id: SessionId,
        group: u64,
        class: Class,
        last: Seq,
    ) -> Result<(), SendError> {
        if self.closed {
            return Err(SendError::Closed);
        }
        let wire = self.wire_of(id).ok_or(SendError::NotJoined)?;
        let signal = Lane::new(wire, Class::Signal);
        if self.lanes.lane(signal).frame_bytes > RAW_QUEUE_BYTES {
            return Err(SendError::Full);
        }
        self.lanes.frame(signal, frame::CaughtUp { group, class, last }.to_bytes());
        Ok(())
    }

    /// Gives a frame to the app where that reads it. False where the client does.
    pub(super) fn raw_frame(
        &mut self,
        id: SessionId,
        class: Class,
        frame: &edgeway_proto::RawFrame,
    ) -> bool {
        let Some(reads) = self.sessions.get(&id).map(|s| s.reads) else { return false };
        // Groups work for every Session type: an app that uses them is told where it is behind.
        let groups =
            reads == Reads::App && matches!(frame.kind, frame::Behind::KIND | frame::Gap::KIND);
        if !groups && !reads.app_reads(frame.kind) {
            return false;
        }
        self.event(Event::Frame { session: id, class, frame: raw(frame) });
        true
    }

    /// Whether a Session is there, open or being opened.
    pub(crate) fn session_exists(&self, id: SessionId) -> bool {
        self.sessions.contains_key(&id)
    }
}
