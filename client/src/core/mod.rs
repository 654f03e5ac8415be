//! The client as a pure state machine: frames and calls in, events, answers and bytes to write out.
//! No I/O, no clock, no task: the caller passes `now` where a delay is measured.
//!
//! The path of what arrives: [`Core::frame`] - `sessions` (which Session) - `rooms` (joins, presence)
//! or `receive` (deliveries, pages, acks) - [`Arrived`]. The path of what is sent: `send` - `outgoing`
//! (numbered, kept until the ack) - `lanes` (priority and credit) - `write`.

mod arrived;
mod cursor;
mod flight;
mod lanes;
mod leaving;
mod order;
mod outgoing;
mod pages;
mod presence;
mod receive;
mod room;
mod rooms;
mod send;
mod sessions;
mod timers;
mod write;

#[cfg(test)]
mod sim;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use edgeway_proto::{
    Class, CloseCode, DecodeError, Lane, Seq,
    frame::{self, Frame, param},
};
use edgeway_transport::Stop;
use slab::Slab;
use tokio::sync::oneshot;

use crate::config::{CREDIT_LOW_BYTES, CREDIT_SIGNAL_BYTES};
use crate::{
    Event, HistoryPage, MembersPage, RawFrame, RenewError, RequestError, SessionId, Stats,
};

pub(crate) use arrived::Arrived;
pub(crate) use outgoing::{ENTRY_BYTES, Waiter};
pub(crate) use room::RoomId;
pub(crate) use send::Draft;
pub(crate) use sessions::{Reads, open_chat};
pub(crate) use write::Write;

/// Answers one call.
pub(crate) type Answer<T> = oneshot::Sender<Result<T, RequestError>>;

/// Requests of the app that may wait for an answer at a time.
const REQUESTS_MAX: usize = 256;

/// Pages that are fetched at a time to catch up: at most 64 KiB each stand in the gateway's outbox
/// (256 KB), which must not overflow.
const FETCHES_MAX: usize = 2;

/// What the answers to joins under way may take together: each brings the room's state, and all of
/// them stand in the gateway's outbox, which holds twice as much.
const JOIN_BYTES_MAX: usize = 256 * 1024;

/// What an answer to a join takes at least, roughly: so that a few hundred joins go together.
const JOIN_BYTES: usize = 768;

/// What the core is made with.
#[derive(Debug, Clone)]
pub(crate) struct CoreConfig {
    pub(crate) chat_queue_bytes: usize,
    pub(crate) backoff_min: Duration,
    pub(crate) backoff_max: Duration,
    /// Of the random part of delays.
    pub(crate) seed: u64,
}

/// A request that waits for its answer.
#[derive(Debug)]
enum Request {
    Join(RoomId),
    Leave(SessionId, Answer<()>),
    History(RoomId, Answer<HistoryPage>),
    Members(RoomId, Answer<MembersPage>),
    /// To catch up.
    Page(RoomId, Class),
    /// To know the members again after changes were missed.
    Sync(RoomId),
}

/// Something that is fetched without having been asked for by the app.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fetch {
    Page(RoomId, Class),
    Sync(RoomId),
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Core {
    config: CoreConfig,
    /// What came out: taken by the caller after each call.
    pub(crate) arrived: Arrived,
    pub(crate) stats: Stats,
    connected: bool,
    /// Few.
    sessions: BTreeMap<SessionId, sessions::Session>,
    next_session: u32,
    /// Session numbers of this connection begin above this one.
    last_wire: u8,
    rooms: Slab<room::Room>,
    next_generation: u32,
    by_name: HashMap<(SessionId, Arc<str>), RoomId>,
    groups: HashMap<(SessionId, u64), RoomId>,
    /// The group of the latest delivery: bursts are of one room.
    recent: Option<(SessionId, u64, RoomId)>,
    requests: HashMap<u64, Request>,
    last_request: u64,
    fetches: VecDeque<Fetch>,
    fetching: usize,
    to_join: VecDeque<RoomId>,
    joining_bytes: usize,
    /// What the state of a room takes, as far as was seen: what others are taken to have.
    state_bytes: usize,
    lanes: lanes::Lanes,
    timers: timers::Timers,
    chat_unwritten_bytes: usize,
    chat_written_bytes: usize,
    pings: HashMap<u64, oneshot::Sender<()>>,
    /// Whether the gateway renews logins.
    renews: bool,
    renewal: Option<oneshot::Sender<frame::Renewed>>,
    closing: Option<Stop>,
    going_away: Option<GoAway>,
    closed: bool,
}

/// The server asked to connect anew.
#[derive(Debug, Clone)]
pub(crate) struct GoAway {
    pub(crate) after: Duration,
    pub(crate) endpoint: Option<String>,
}

impl Core {
    pub(crate) fn new(config: CoreConfig) -> Self {
        let timers = timers::Timers::new(config.seed);
        let mut core = Self {
            config,
            arrived: Arrived::default(),
            stats: Stats::default(),
            connected: false,
            sessions: BTreeMap::new(),
            next_session: 0,
            last_wire: 0,
            rooms: Slab::new(),
            next_generation: 0,
            by_name: HashMap::new(),
            groups: HashMap::new(),
            recent: None,
            requests: HashMap::new(),
            last_request: 0,
            fetches: VecDeque::new(),
            fetching: 0,
            to_join: VecDeque::new(),
            joining_bytes: 0,
            state_bytes: 0,
            lanes: lanes::Lanes::default(),
            timers,
            chat_unwritten_bytes: 0,
            chat_written_bytes: 0,
            pings: HashMap::new(),
            renews: false,
            renewal: None,
            closing: None,
            going_away: None,
            closed: false,
        };
        core.add_chat();
        core
    }

    /// A connection stands, and its login. The chat Session was opened as number 1 in the first
    /// flight, with frames of `opened_bytes`: open, and [`first_frames`](Self::first_frames).
    pub(crate) fn connected(&mut self, welcome: &frame::Welcome, opened_bytes: usize) {
        self.lanes.reset([
            param_of(welcome, param::CREDIT_SIGNAL).unwrap_or(CREDIT_SIGNAL_BYTES),
            param_of(welcome, param::CREDIT_BINARY).unwrap_or(CREDIT_LOW_BYTES),
            param_of(welcome, param::CREDIT_CHAT).unwrap_or(CREDIT_LOW_BYTES),
        ]);
        self.renews = param_of(welcome, param::RENEW) == Some(1);
        self.connected = true;
        self.last_wire = 0;
        self.opened_bytes(opened_bytes);
        // Chat is the first in their order: it gets number 1, as in the first flight.
        for id in self.session_ids() {
            self.open_session(id, id == SessionId::CHAT);
        }
        self.pump();
    }

    /// What the first flight has taken of the credit of chat's signal lane.
    fn opened_bytes(&mut self, bytes: usize) {
        if self.sessions.contains_key(&SessionId::CHAT) {
            self.lanes.lane(Lane::new(1, Class::Signal)).took(bytes);
        } else {
            // Closed for good before: the number is used up all the same.
            self.last_wire = 1;
        }
    }

    /// The connection is gone. What can be done again is done again on the next.
    pub(crate) fn disconnected(&mut self) {
        self.connected = false;
        self.going_away = None;
        self.closing = None;
        self.lanes.reset([0; 3]);
        self.timers.clear();
        self.pings.clear();
        self.renewal = None;
        for id in self.session_ids() {
            self.lost_session(id);
        }
    }

    fn session_ids(&self) -> Vec<SessionId> {
        self.sessions.keys().copied().collect()
    }

    pub(crate) fn event(&mut self, event: Event) {
        self.arrived.push(event);
    }

    /// The client is closed for good: everyone who waits is told.
    pub(crate) fn close(&mut self, code: CloseCode, reason: String) {
        if std::mem::replace(&mut self.closed, true) {
            return;
        }
        self.disconnected();
        for id in self.session_ids() {
            self.end_session(id, &RequestError::Closed);
        }
        self.event(Event::Closed { code, reason });
    }

    pub(crate) const fn is_closed(&self) -> bool {
        self.closed
    }

    /// Asks the server to go away, where the connection still stands.
    pub(crate) fn stop(&mut self, stop: Stop) {
        self.closing.get_or_insert(stop);
    }

    pub(crate) const fn going_away_pending(&self) -> bool {
        self.going_away.is_some()
    }

    /// Taken once by who reconnects.
    pub(crate) fn take_going_away(&mut self) -> Option<GoAway> {
        self.going_away.take()
    }

    /// A frame arrived.
    pub(crate) fn frame(
        &mut self,
        lane: Lane,
        frame: &edgeway_proto::RawFrame,
        now: Instant,
    ) -> Result<(), Stop> {
        self.stats.received_bytes += frame.whole.len() as u64;
        self.arrived.begin(lane, frame.whole.len());
        let result = self.dispatch(lane, frame, now);
        self.arrived.end();
        result
    }

    fn dispatch(
        &mut self,
        lane: Lane,
        raw: &edgeway_proto::RawFrame,
        now: Instant,
    ) -> Result<(), Stop> {
        if lane.is_control() {
            return self.control(raw);
        }
        let Some(session) = self.session_of(lane.session) else { return Ok(()) };
        if self.raw_frame(session, lane.class, raw) {
            return Ok(());
        }
        if raw.kind == frame::Deliver::KIND {
            let deliver = frame::Deliver::parse(raw.body.clone())?;
            return self.deliver(session, lane, deliver, raw.whole.len());
        }
        let frame = match raw.parse() {
            Ok(frame) => frame,
            Err(DecodeError::UnknownKind(frame::FIRST_SKIPPED_KIND..)) => return Ok(()),
            Err(e) => return Err(e.into()),
        };
        self.session_frame(session, lane, frame, raw.whole.len(), now)
    }

    fn control(&mut self, raw: &edgeway_proto::RawFrame) -> Result<(), Stop> {
        match raw.parse() {
            Ok(Frame::Ping(ping)) => {
                self.lanes.ping(frame::Pong { token: ping.token }.to_bytes());
            }
            Ok(Frame::Pong(pong)) => {
                if let Some(waiter) = self.pings.remove(&pong.token) {
                    let _ = waiter.send(());
                }
            }
            Ok(Frame::Renewed(renewed)) => {
                // Said unasked, it changes nothing.
                if let Some(waiter) = self.renewal.take() {
                    let _ = waiter.send(renewed);
                }
            }
            Ok(Frame::Credit(credit)) => {
                // The field's check holds it to 1 to 63. Credit of a lane that is closed is late.
                let session = u8::try_from(credit.session).unwrap_or(0);
                if self.session_of(session).is_some() || self.lanes.uses(session) {
                    self.lanes.credit(Lane::new(session, credit.class), credit.total);
                }
            }
            Ok(Frame::GoAway(away)) => {
                let after = Duration::from_millis(away.reconnect_after_ms);
                let endpoint = (!away.endpoint.is_empty()).then(|| away.endpoint.to_string());
                // Said again, it does not fill the app's queue.
                if self.going_away.replace(GoAway { after, endpoint }).is_none() {
                    let code = CloseCode::from_code(away.code);
                    self.event(Event::GoingAway { code, reconnect_after: after });
                }
            }
            // Said again, they change nothing.
            Ok(Frame::Welcome(_) | Frame::LoggedIn(_)) => {}
            Ok(_) => return Err(not_for_a_client(raw.kind)),
            Err(DecodeError::UnknownKind(frame::FIRST_SKIPPED_KIND..)) => {}
            Err(e) => return Err(e.into()),
        }
        Ok(())
    }

    fn session_frame(
        &mut self,
        session: SessionId,
        lane: Lane,
        frame: Frame,
        bytes: usize,
        now: Instant,
    ) -> Result<(), Stop> {
        match frame {
            Frame::Opened(_) => self.opened(session),
            Frame::CloseSession(close) => self.session_closed(session, close, now),
            Frame::Behind(behind) => self.behind(session, lane, behind, bytes),
            Frame::Gap(gap) => self.gap(session, lane, gap, bytes),
            Frame::Joined(joined) => return self.joined(session, joined, now),
            Frame::Left(left) => self.left(session, left, now),
            Frame::Error(error) => self.refused(session, error, now),
            Frame::Ack(ack) => self.ack(session, &ack),
            Frame::Page(page) => return self.page(session, page, now),
            Frame::MemberPage(page) => self.member_page(session, page, now),
            Frame::Presence(presence) => self.presence(session, presence),
            _ => return Err(Stop::new(CloseCode::Protocol, "a frame that is not for a client")),
        }
        Ok(())
    }

    /// A lane will bring no more. Where its Session was not closed, it is lost.
    pub(crate) fn lane_ended(&mut self, lane: Lane, now: Instant) {
        if lane.class != Class::Signal {
            return;
        }
        if lane.is_control() {
            self.stop(Stop::new(CloseCode::Protocol, "the control stream ended"));
        } else if let Some(session) = self.session_of(lane.session) {
            let code = CloseCode::BackendLost.code();
            let reason = "its stream ended".into();
            let close = frame::CloseSession { session: 0, code, retry_after_ms: 0, reason };
            self.session_closed(session, close, now);
        }
    }

    /// Registers a request; its number.
    fn request(&mut self, request: Request) -> u64 {
        self.last_request += 1;
        self.requests.insert(self.last_request, request);
        self.last_request
    }

    /// Starts what may be started.
    fn pump(&mut self) {
        self.pump_joins();
        self.pump_fetches();
    }

    /// Asks for a pong. `token` is new each time; the answer comes with the pong.
    pub(crate) fn ping(
        &mut self,
        token: u64,
        waiter: Option<oneshot::Sender<()>>,
    ) -> Result<(), RequestError> {
        if !self.connected {
            return Err(RequestError::ConnectionLost);
        }
        if let Some(waiter) = waiter {
            self.pings.retain(|_, waiter| !waiter.is_closed());
            if self.pings.len() >= REQUESTS_MAX {
                return Err(RequestError::TooMany);
            }
            self.pings.insert(token, waiter);
        }
        if self.lanes.ping(frame::Ping { token }.to_bytes()) {
            Ok(())
        } else {
            self.pings.remove(&token);
            Err(RequestError::TooMany)
        }
    }

    /// Proves anew who the user is; the answer comes with the gateway's.
    pub(crate) fn renew(
        &mut self,
        renew: frame::Renew,
    ) -> Result<oneshot::Receiver<frame::Renewed>, RenewError> {
        if self.closed {
            return Err(RenewError::Closed);
        }
        if !self.connected {
            return Err(RenewError::ConnectionLost);
        }
        if !self.renews {
            return Err(RenewError::Unsupported);
        }
        // Also where nobody waits for the first any more: the gateway has not answered it.
        if self.renewal.is_some() || !self.lanes.ping(renew.to_bytes()) {
            return Err(RenewError::TooMany);
        }
        let (waiter, waiting) = oneshot::channel();
        self.renewal = Some(waiter);
        Ok(waiting)
    }

    pub(crate) fn position(&self, room: RoomId, class: Class) -> Seq {
        self.room(room).map_or(Seq::ZERO, |room| room.classes[class.index()].order.last)
    }
}

/// A parameter of the gateway's; the last counts.
pub(crate) fn param_of(welcome: &frame::Welcome, number: u64) -> Option<u64> {
    welcome.params.iter().rev().find(|(n, _)| *n == number).map(|(_, value)| *value)
}

fn not_for_a_client(kind: u8) -> Stop {
    Stop::new(CloseCode::Protocol, format!("a frame of kind 0x{kind:02x} is not for a client"))
}

fn raw(frame: &edgeway_proto::RawFrame) -> RawFrame {
    RawFrame { kind: frame.kind, body: frame.body.clone() }
}
