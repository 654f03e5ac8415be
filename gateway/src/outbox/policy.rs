//! What is sent next, and what happens when there is no room: the pure core of the outbox. It does
//! no I/O and knows no clock.
//!
//! Priority is strict: control, then signals, then strokes, then chat; Sessions of the same class
//! take turns. A lane is sent only while it has credit. All bytes that are queued or in flight
//! (sent, and not yet known to be consumed) count against one bound. At the bound
//! - chat is shed, the oldest first, and the client is told up to where ([`Gap`]);
//! - what is reliable is refused ([`Push::Full`]), after queued chat has made room: its reader is
//!   then *behind* and fetches the rest from history;
//! - replies may take as much again, and after that the connection is closed as a slow reader.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use edgeway_proto::{
    Class, CloseCode, Lane, Seq,
    frame::{Credit, Gap, measure},
    limits::RECORD_BYTES,
};

/// Frames that travel together, made once for all receivers.
#[derive(Debug, Clone)]
pub struct Segment {
    /// Whole frames.
    pub frames: Bytes,
    /// The group they belong to; 0 for none.
    pub group: u64,
    /// The position of the last frame.
    pub upto: Seq,
    /// How many messages they are. 0 for what a client cannot fetch again: it is never shed.
    pub messages: u32,
}

impl Segment {
    /// Takes as many frames off the front as may begin within `credit` and fit into `most` bytes,
    /// but one at least.
    fn cut(&mut self, credit: u64, most: usize) -> Bytes {
        let len = self.frames.len();
        if len as u64 <= credit && len <= most {
            return std::mem::take(&mut self.frames);
        }
        let mut end = 0;
        while end < len
            && (end as u64) < credit
            && let Ok(Some((header, body))) = measure(&self.frames[end..])
        {
            let next = end + header + body;
            if next > len || (end > 0 && next > most) {
                break;
            }
            self.messages = self.messages.saturating_sub(1);
            end = next;
        }
        // Whole frames are all that is ever queued.
        self.frames.split_to(if end == 0 { len } else { end })
    }
}

/// What became of a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Push {
    /// It is queued; so many chat messages were shed to make room.
    Queued {
        /// Messages shed.
        shed: u32,
    },
    /// There is no room; nothing was queued.
    Full,
    /// The Session is not open on this connection any more.
    Gone,
}

/// The limits of an outbox.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes queued and in flight.
    pub outbox_bytes: usize,
    /// Credit that the gateway grants on each uplink lane, by class.
    pub uplink_credit: [u64; 3],
}

/// How the connection is to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closing {
    /// What the client is told.
    pub code: CloseCode,
    /// For a person.
    pub reason: String,
    /// Milliseconds after which it may come back; 0 leaves it to the code.
    pub retry_after_ms: u64,
}

/// What the writer is to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Work {
    /// Write the frames, which have been put into the buffer, to this lane.
    Write(Lane),
    /// The client understands copies of frames.
    EnableRepair,
    /// The Session is over: end its lanes.
    Finish(u8),
    /// Everything that had to be said has been said: close.
    Close(Closing),
}

/// Most bytes of signals that are handed over at a time.
const SIGNAL_TURN_BYTES: usize = 16 * 1024;

/// Most bytes of the control lane that may wait. What is in it are answers; a client that asks
/// without reading is at fault.
const CONTROL_BYTES: usize = 64 * 1024;

/// One direction-pair of a lane: what goes down and its credit, and the credit granted upwards.
#[derive(Debug)]
struct LaneState {
    lane: Lane,
    queue: VecDeque<Segment>,
    queued: usize,
    /// Bytes sent since the lane began, and the total that the client allows.
    sent: u64,
    granted: u64,
    /// Positions up to which chat was shed and not yet told, by group.
    gaps: Vec<(u64, Seq)>,
    /// Uplink: bytes consumed and the total granted to the client.
    up_consumed: u64,
    up_granted: u64,
    credit_due: bool,
    /// No more will be pushed; once empty the lane ends.
    finishing: bool,
}

impl LaneState {
    /// Bytes that the client is known not to have consumed. It says so each half of its window, so
    /// up to that much more may have been consumed; with a client that never says so, what its
    /// transport takes is all that is in flight.
    fn in_flight(&self, window: u64) -> usize {
        let consumed = self.granted.saturating_sub(window).saturating_add(window / 2);
        usize::try_from(self.sent.saturating_sub(consumed)).unwrap_or(usize::MAX)
    }

    fn sendable(&self) -> bool {
        self.sent < self.granted && !(self.queue.is_empty() && self.gaps.is_empty())
    }
}

/// The outbox of one connection.
#[derive(Debug)]
pub struct Policy {
    limits: Limits,
    control: VecDeque<Bytes>,
    control_bytes: usize,
    lanes: Vec<LaneState>,
    /// Queued on all lanes but control.
    queued: usize,
    /// First credit that the client grants on each lane, by class.
    window: [u64; 3],
    /// Where the turn among lanes of one class begins.
    turn: usize,
    finish: Vec<u8>,
    enable_repair: bool,
    by_quarters: bool,
    closing: Option<Closing>,
    closed: bool,
}

impl Policy {
    /// An empty outbox.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            control: VecDeque::new(),
            control_bytes: 0,
            lanes: Vec::new(),
            queued: 0,
            window: [0; 3],
            turn: 0,
            finish: Vec::new(),
            enable_repair: false,
            by_quarters: false,
            closing: None,
            closed: false,
        }
    }

    /// Sets the credit that the client grants on each lane at first. Once; before that nothing is
    /// sent on them. On QUIC a Session's stream may arrive before the hello that says this.
    pub fn set_window(&mut self, window: [u64; 3]) {
        self.window = window;
        for lane in &mut self.lanes {
            lane.granted = lane.granted.max(window[lane.lane.class.index()]);
        }
    }

    /// Changes how much may be queued and in flight. Above a smaller bound nothing is shed at once: the next
    /// push finds it full.
    pub fn set_bound(&mut self, outbox_bytes: usize) {
        self.limits.outbox_bytes = outbox_bytes;
    }

    /// The client understands copies of frames.
    pub fn enable_repair(&mut self) {
        self.enable_repair = true;
    }

    /// Begins the lanes of a Session.
    pub fn open(&mut self, session: u8) {
        self.drop_lanes(session);
        self.lanes.reserve_exact(Class::ALL.len());
        for class in Class::ALL {
            self.lanes.push(LaneState {
                lane: Lane::new(session, class),
                queue: VecDeque::new(),
                queued: 0,
                sent: 0,
                granted: self.window[class.index()],
                gaps: Vec::new(),
                up_consumed: 0,
                up_granted: self.limits.uplink_credit[class.index()],
                credit_due: false,
                finishing: false,
            });
        }
    }

    /// Answers an `Open` whose number was used before: a Session that is open goes on, and where
    /// the end of one is still to be told, that is the answer.
    pub fn refuse_reuse(&mut self, session: u8, answer: Bytes) {
        if self.find(session, Class::Signal).is_some() {
            self.push_reply(session, Class::Signal, answer);
        } else if !self.lanes.iter().any(|l| l.lane.session == session) {
            self.open(session);
            self.close_session(session, answer);
        }
    }

    /// Ends the lanes of a Session at once: its client has ended it and listens no more.
    pub fn drop_session(&mut self, session: u8) {
        if self.drop_lanes(session) {
            self.finish.push(session);
        }
    }

    fn drop_lanes(&mut self, session: u8) -> bool {
        let before = self.lanes.len();
        let queued = &mut self.queued;
        self.lanes.retain(|l| {
            let keep = l.lane.session != session;
            *queued -= if keep { 0 } else { l.queued };
            keep
        });
        self.lanes.len() < before
    }

    /// Ends the lanes of a Session: queued strokes and chat are dropped, `last` is the last frame
    /// on its signal lane, sent like all others as soon as there is credit.
    pub fn close_session(&mut self, session: u8, last: Bytes) {
        for lane in self.lanes.iter_mut().filter(|l| l.lane.session == session) {
            if lane.finishing {
                return;
            }
            lane.finishing = true;
            lane.gaps.clear();
            if lane.lane.class == Class::Signal {
                let len = last.len();
                let frames = last.clone();
                lane.queue.push_back(Segment { frames, group: 0, upto: Seq::ZERO, messages: 0 });
                lane.queued += len;
                self.queued += len;
            } else {
                self.queued -= lane.queued;
                lane.queued = 0;
                lane.queue.clear();
            }
        }
    }

    /// Queues a frame of the connection itself.
    pub fn push_control(&mut self, frame: Bytes) {
        if self.closed || self.closing.is_some() {
            return;
        }
        self.control_bytes += frame.len();
        self.control.push_back(frame);
        if self.control_bytes > CONTROL_BYTES {
            self.close(Closing {
                code: CloseCode::SlowReader,
                reason: "answers on the control lane are not read".into(),
                retry_after_ms: 0,
            });
        }
    }

    /// Queues segments of a group or Session, by the rules at the top of this file.
    pub fn push(&mut self, session: u8, class: Class, segments: &[Segment]) -> Push {
        let bytes: usize = segments.iter().map(|s| s.frames.len()).sum();
        let Some(at) = self.find(session, class) else { return Push::Gone };
        let mut shed = 0;
        if class.reliable() {
            while self.used() + bytes > self.limits.outbox_bytes {
                match self.shed_oldest_chat() {
                    Some(messages) => shed += messages,
                    None => return Push::Full,
                }
            }
        }
        self.queue(at, segments, bytes);
        while class == Class::Chat && self.used() > self.limits.outbox_bytes {
            match self.shed_oldest_chat() {
                Some(messages) => shed += messages,
                None => break,
            }
        }
        Push::Queued { shed }
    }

    /// Queues what a client cannot fetch again (replies, notices), beyond the bound if need be.
    pub fn push_reply(&mut self, session: u8, class: Class, frames: Bytes) {
        let Some(at) = self.find(session, class) else { return };
        if self.used() + frames.len() > 2 * self.limits.outbox_bytes {
            self.close(Closing {
                code: CloseCode::SlowReader,
                reason: "requests are made but their answers are not read".into(),
                retry_after_ms: 0,
            });
            return;
        }
        let bytes = frames.len();
        let segment = Segment { frames, group: 0, upto: Seq::ZERO, messages: 0 };
        self.queue(at, &[segment], bytes);
    }

    /// The client allows more on a lane. Totals that shrink are old news.
    pub fn credit(&mut self, lane: Lane, total: u64) {
        if let Some(l) = self.lanes.iter_mut().find(|l| l.lane == lane) {
            l.granted = l.granted.max(total);
        }
    }

    /// Credit for strokes and chat comes back by quarters of a window: for TCP, where what a grant allows leaves
    /// the client in one piece and on a slow link a signal waits for it, 65 ms for half of a window at
    /// 1 Mbit/s. Over QUIC it was measured to make the tail longer.
    pub fn grant_by_quarters(&mut self) {
        self.by_quarters = true;
    }

    /// Bytes that the client sent on a lane have been passed on: grants it more once half of the
    /// window is used up, or less ([`grant_by_quarters`](Self::grant_by_quarters)).
    pub fn consumed(&mut self, lane: Lane, bytes: u64) {
        let window = self.limits.uplink_credit[lane.class.index()];
        if let Some(l) = self.lanes.iter_mut().find(|l| l.lane == lane) {
            l.up_consumed += bytes;
            let quarter = self.by_quarters && lane.class != Class::Signal;
            let step = if quarter { window / 4 } else { window / 2 };
            if l.up_consumed + window >= l.up_granted + step {
                l.up_granted = l.up_consumed + window;
                l.credit_due = true;
            }
        }
    }

    /// Total that the client may send on a lane.
    #[must_use]
    pub fn granted(&self, lane: Lane) -> u64 {
        self.lanes.iter().find(|l| l.lane == lane).map_or(0, |l| l.up_granted)
    }

    /// Closes the connection once the control lane is written. The first reason stands.
    pub fn close(&mut self, closing: Closing) {
        self.closing.get_or_insert(closing);
    }

    /// How the connection is to be closed, where that has not been handed out as work yet.
    pub fn take_closing(&mut self) -> Option<Closing> {
        self.closing.take()
    }

    /// Whether the connection is to be closed.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.closing.is_some()
    }

    /// The next work of the classes that are never held back: control, signals, ends.
    pub fn next_high(&mut self, out: &mut Vec<Bytes>) -> Option<Work> {
        if self.closed {
            return None;
        }
        if std::mem::take(&mut self.enable_repair) {
            return Some(Work::EnableRepair);
        }
        if self.take_control(out) {
            return Some(Work::Write(Lane::CONTROL));
        }
        if let Some(closing) = self.closing.take() {
            self.closed = true;
            return Some(Work::Close(closing));
        }
        if let Some(session) = self.finish.pop() {
            return Some(Work::Finish(session));
        }
        self.take(Class::Signal, SIGNAL_TURN_BYTES, out)
    }

    /// The next work of strokes and chat, at most about `bytes`.
    pub fn next_low(&mut self, bytes: usize, out: &mut Vec<Bytes>) -> Option<Work> {
        if self.closed {
            return None;
        }
        self.take(Class::Binary, bytes, out).or_else(|| self.take(Class::Chat, bytes, out))
    }

    /// Whether [`next_high`](Self::next_high) has something to do.
    #[must_use]
    pub fn high_ready(&self) -> bool {
        !self.closed
            && (!self.control.is_empty()
                || self.closing.is_some()
                || !self.finish.is_empty()
                || self.enable_repair
                || self
                    .lanes
                    .iter()
                    .any(|l| l.credit_due || (l.lane.class == Class::Signal && l.sendable())))
    }

    /// Whether [`next_low`](Self::next_low) has something to do.
    #[must_use]
    pub fn low_ready(&self) -> bool {
        !self.closed && self.lanes.iter().any(|l| l.lane.class != Class::Signal && l.sendable())
    }

    /// Bytes queued and in flight.
    #[must_use]
    pub fn used(&self) -> usize {
        let in_flight: usize =
            self.lanes.iter().map(|l| l.in_flight(self.window[l.lane.class.index()])).sum();
        self.queued + in_flight
    }

    fn find(&self, session: u8, class: Class) -> Option<usize> {
        let lane = Lane::new(session, class);
        self.lanes.iter().position(|l| l.lane == lane && !l.finishing)
    }

    fn queue(&mut self, at: usize, segments: &[Segment], bytes: usize) {
        let lane = &mut self.lanes[at];
        lane.queue.extend(segments.iter().cloned());
        lane.queued += bytes;
        self.queued += bytes;
    }

    fn shed_oldest_chat(&mut self) -> Option<u32> {
        let chat = |s: &Segment| s.messages > 0;
        let lane = self
            .lanes
            .iter_mut()
            .filter(|l| l.lane.class == Class::Chat && l.queue.iter().any(chat))
            .max_by_key(|l| l.queued)?;
        let at = lane.queue.iter().position(chat)?;
        let segment = lane.queue.remove(at)?;
        lane.queued -= segment.frames.len();
        self.queued -= segment.frames.len();
        if segment.group != 0 {
            add_gap(&mut lane.gaps, segment.group, segment.upto);
        }
        Some(segment.messages)
    }

    fn take_control(&mut self, out: &mut Vec<Bytes>) -> bool {
        out.extend(std::mem::take(&mut self.control));
        self.control_bytes = 0;
        let mut credit = BytesMut::new();
        for l in self.lanes.iter_mut().filter(|l| l.credit_due) {
            l.credit_due = false;
            let session = u64::from(l.lane.session);
            Credit { session, class: l.lane.class, total: l.up_granted }.encode(&mut credit);
        }
        if !credit.is_empty() {
            out.push(credit.freeze());
        }
        !out.is_empty()
    }

    fn take(&mut self, class: Class, bytes: usize, out: &mut Vec<Bytes>) -> Option<Work> {
        let n = self.lanes.len();
        let at = (0..n)
            .map(|i| (self.turn + i) % n)
            .find(|at| self.lanes[*at].lane.class == class && self.lanes[*at].sendable())?;
        // The next Session's turn: its lanes follow.
        self.turn = (at + 1) % n;
        let lane = &mut self.lanes[at];
        let mut taken = 0;
        let mut gaps = std::mem::take(&mut lane.gaps).into_iter();
        while taken < bytes
            && lane.sent < lane.granted
            && let Some((group, upto)) = gaps.next()
        {
            let gap = Gap { group, class: lane.lane.class, upto }.to_bytes();
            taken += gap.len();
            lane.sent += gap.len() as u64;
            out.push(gap);
        }
        lane.gaps = gaps.collect();
        while lane.sent < lane.granted
            && let Some(segment) = lane.queue.front_mut()
        {
            if taken > 0 && taken + segment.frames.len() > bytes {
                break;
            }
            let frames = segment.cut(lane.granted - lane.sent, RECORD_BYTES);
            if segment.frames.is_empty() {
                lane.queue.pop_front();
            }
            let len = frames.len();
            taken += len;
            lane.sent += len as u64;
            lane.queued -= len;
            self.queued -= len;
            out.push(frames);
        }
        let done = lane.lane;
        if lane.queue.is_empty() {
            // An idle lane holds no buffer.
            lane.queue = VecDeque::new();
            if lane.finishing && class == Class::Signal {
                self.finish.push(done.session);
                self.lanes.retain(|l| l.lane.session != done.session);
            }
        }
        Some(Work::Write(done))
    }
}

fn add_gap(gaps: &mut Vec<(u64, Seq)>, group: u64, upto: Seq) {
    match gaps.iter_mut().find(|(g, _)| *g == group) {
        Some((_, seq)) => *seq = upto.max(*seq),
        None => gaps.push((group, upto)),
    }
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
