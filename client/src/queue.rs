//! The app's queue of events, and the credit that the app returns by taking them.
//!
//! The queue needs no bound of its own: what is in it was paid for with the credit of its lane, and
//! credit is granted anew only for what was taken out. Where the app takes nothing, the gateway
//! soon has no credit left and sees a slow reader. (What is left from an earlier connection is bounded
//! by [`BACKLOG_BYTES`]: above it the client does not connect again.)

use std::{
    collections::VecDeque,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use edgeway_proto::{Class, CloseCode, Lane};
use edgeway_transport::Stop;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::{
    Event,
    config::{CREDIT_LOW_BYTES, CREDIT_SIGNAL_BYTES},
    core::Arrived,
};

/// Bytes of events above which a lost connection is not made anew until the app has taken some.
pub(crate) const BACKLOG_BYTES: u64 = 512 * 1024;

/// The lane of events that no lane of this connection paid for.
const NO_LANE: u8 = u8::MAX;

/// Credit granted on a lane at first.
pub(crate) const fn initial_credit(class: Class) -> u64 {
    match class {
        Class::Signal => CREDIT_SIGNAL_BYTES,
        Class::Binary | Class::Chat => CREDIT_LOW_BYTES,
    }
}

/// A lane's window grows while what it allows is on its way no longer than this above the least time
/// seen, from the grant to the first byte that needed it. So a fast path is not held up by round trips
/// for credit, and on a slow one no queue is built.
const GROWS_WITHIN: Duration = Duration::from_millis(15);

/// Above this it shrinks: the bytes stand in a queue.
const SHRINKS_ABOVE: Duration = Duration::from_millis(30);

/// So much is worth telling when the app has taken all that came.
const DRY_BYTES: u64 = 2 * 1024;

/// The most that a lane's window grows to.
const WINDOW_MAX_BYTES: u64 = 128 * 1024;

#[derive(Debug)]
struct LaneIn {
    lane: Lane,
    received: u64,
    /// What the app has taken, or never had to.
    consumed: u64,
    granted: u64,
    /// What may be on its way at a time.
    window: u64,
    /// What had been consumed when credit was granted last.
    told: u64,
    /// When the grant was made that the next byte beyond this total needs.
    asked: Option<(u64, Instant)>,
    /// The least time from a grant to the first byte that needed it.
    least: Option<Duration>,
    /// Grants to pass before the window may grow again, and how many that were the last time.
    waits: u32,
    patience: u32,
}

#[derive(Debug, Default)]
struct State {
    events: VecDeque<Event>,
    /// For each event the lane that paid for it, and its bytes.
    costs: VecDeque<(u8, u32)>,
    bytes: u64,
    lanes: Vec<LaneIn>,
    /// Whether a lane has half of its credit to give back.
    grants: bool,
    /// Nobody takes events: they are taken as they come.
    discard: bool,
    ended: bool,
    waker: Option<Waker>,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    state: Mutex<State>,
    /// Told when the app has taken something.
    taken: Notify,
}

impl Queue {
    /// Adds what arrived. Whether there is credit to grant.
    ///
    /// # Errors
    /// The peer sent more than it was allowed.
    pub(crate) fn push(&self, arrived: &mut Arrived) -> Result<bool, Stop> {
        let mut state = self.state.lock();
        let mut result = Ok(());
        let now = Instant::now();
        for bytes in arrived.lanes.drain(..) {
            let Some(lane) = Lane::from_byte(bytes.lane) else { continue };
            let lane = state.lane(lane);
            lane.received += bytes.received;
            lane.adapt(now);
            // One frame may begin below the limit and end above it.
            if lane.received - bytes.last >= lane.granted {
                result =
                    Err(Stop::new(CloseCode::CreditExceeded, "more than the credit of a lane"));
            }
            lane.consumed += bytes.done;
            state.check_grant(bytes.lane);
        }
        if state.discard {
            arrived.events.clear();
            let costs = std::mem::take(&mut arrived.costs);
            state.consume(costs.iter().copied());
        } else if !arrived.events.is_empty() {
            state.bytes += arrived.costs.iter().map(|(_, bytes)| u64::from(*bytes)).sum::<u64>();
            if state.events.is_empty() {
                // No copy, and an idle client holds no memory.
                state.events = std::mem::take(&mut arrived.events).into();
                state.costs = std::mem::take(&mut arrived.costs).into();
            } else {
                state.events.extend(arrived.events.drain(..));
                state.costs.extend(arrived.costs.drain(..));
            }
        }
        let grants = state.grants;
        let waker = if state.events.is_empty() { None } else { state.waker.take() };
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        result.map(|()| grants)
    }

    /// Takes up to `max` events: ready with at least one, or with none at the end. Whether there is
    /// credit to grant comes with them.
    pub(crate) fn poll(&self, cx: &mut Context<'_>, max: usize) -> Poll<(Vec<Event>, bool)> {
        let mut state = self.state.lock();
        if state.events.is_empty() && !state.ended {
            match &mut state.waker {
                Some(waker) => waker.clone_from(cx.waker()),
                none => *none = Some(cx.waker().clone()),
            }
            return Poll::Pending;
        }
        let taken = state.take(max);
        let grants = state.grants;
        drop(state);
        if !taken.is_empty() {
            self.taken.notify_one();
        }
        Poll::Ready((taken, grants))
    }

    /// Takes what is there, up to `max`.
    pub(crate) fn take(&self, max: usize) -> (Vec<Event>, bool) {
        let mut state = self.state.lock();
        let taken = state.take(max);
        let grants = state.grants;
        drop(state);
        if !taken.is_empty() {
            self.taken.notify_one();
        }
        (taken, grants)
    }

    /// Nobody will take events any more.
    pub(crate) fn discard(&self) {
        let mut state = self.state.lock();
        state.discard = true;
        state.take(usize::MAX);
        drop(state);
        self.taken.notify_one();
    }

    /// No more will come.
    pub(crate) fn end(&self) {
        let mut state = self.state.lock();
        state.ended = true;
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Gives out what is to be granted: for each lane its new total.
    pub(crate) fn grants(&self, mut grant: impl FnMut(Lane, u64)) {
        let mut state = self.state.lock();
        if !std::mem::take(&mut state.grants) {
            return;
        }
        let now = Instant::now();
        let dry = state.events.is_empty();
        for lane in &mut state.lanes {
            if lane.due(dry) {
                lane.grant(now);
                grant(lane.lane, lane.granted);
            }
        }
    }

    /// A new connection: lanes begin anew, and what is left of the old one pays for nothing.
    pub(crate) fn reset(&self) {
        let mut state = self.state.lock();
        state.lanes.clear();
        state.grants = false;
        state.costs.iter_mut().for_each(|(lane, _)| *lane = NO_LANE);
    }

    /// The number of a Session may be used again: its lanes begin anew.
    pub(crate) fn close(&self, session: u8) {
        let mut state = self.state.lock();
        state.lanes.retain(|l| l.lane.session != session);
        for (lane, _) in &mut state.costs {
            if *lane >> 2 == session {
                *lane = NO_LANE;
            }
        }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.state.lock().bytes
    }

    /// Waits until little enough is left to connect again.
    pub(crate) async fn drained(&self) {
        while self.bytes() > BACKLOG_BYTES {
            self.taken.notified().await;
        }
    }
}

impl LaneIn {
    /// Half of the window is to be given back; or the app has taken all that came (`dry`), and the
    /// gateway is to hear of it, be the window used up or not: it then gives others their turn.
    fn due(&self, dry: bool) -> bool {
        let taken = self.consumed - self.told;
        self.consumed + self.window >= self.granted + self.window / 2
            || (dry && taken >= DRY_BYTES && self.lane.class != Class::Signal)
    }

    fn grant(&mut self, now: Instant) {
        self.told = self.consumed;
        let total = self.consumed + self.window;
        if total > self.granted {
            self.asked.get_or_insert((self.granted, now));
            self.granted = total;
        }
    }

    /// Learns from bytes that needed a grant. Where the sender had nothing to send for a while, that
    /// looks like a queue, and does no harm: it does not need a large window.
    fn adapt(&mut self, now: Instant) {
        let Some((_, at)) = self.asked.take_if(|(total, _)| self.received > *total) else { return };
        let took = now.saturating_duration_since(at);
        // Paths change: the least time is forgotten, but slowly: a queue must not come to look normal.
        let least =
            self.least.map_or(took, |least| took.min(least + took.saturating_sub(least) / 512));
        self.least = Some(least);
        let above = took - least;
        if above > SHRINKS_ABOVE {
            self.window = (self.window / 2).max(initial_credit(self.lane.class));
            // What did not fit is not tried again soon.
            self.patience = (self.patience * 2).clamp(16, 1024);
            self.waits = self.patience;
        } else if above <= GROWS_WITHIN && self.waits == 0 {
            self.window = (self.window + self.window / 2).min(WINDOW_MAX_BYTES);
        } else {
            self.waits = self.waits.saturating_sub(1);
        }
    }
}

impl State {
    fn lane(&mut self, lane: Lane) -> &mut LaneIn {
        let at = match self.lanes.iter().position(|l| l.lane == lane) {
            Some(at) => at,
            None => {
                let granted = initial_credit(lane.class);
                self.lanes.push(LaneIn {
                    lane,
                    received: 0,
                    consumed: 0,
                    granted,
                    window: granted,
                    told: 0,
                    asked: None,
                    least: None,
                    waits: 0,
                    patience: 0,
                });
                self.lanes.len() - 1
            }
        };
        &mut self.lanes[at]
    }

    fn check_grant(&mut self, lane: u8) {
        let dry = self.events.is_empty();
        self.grants |= self.lanes.iter().any(|l| l.lane.to_byte() == lane && l.due(dry));
    }

    fn take(&mut self, max: usize) -> Vec<Event> {
        if max >= self.events.len() {
            let costs = std::mem::take(&mut self.costs);
            self.bytes = 0;
            let events = std::mem::take(&mut self.events).into();
            self.consume(costs.iter().copied());
            return events;
        }
        let costs: Vec<(u8, u32)> = self.costs.drain(..max).collect();
        self.bytes -= costs.iter().map(|(_, bytes)| u64::from(*bytes)).sum::<u64>();
        self.consume(costs.into_iter());
        self.events.drain(..max).collect()
    }

    /// Counts what the app has taken. Runs of one lane are counted together.
    fn consume(&mut self, costs: impl Iterator<Item = (u8, u32)>) {
        let mut run = (NO_LANE, 0u64);
        for (lane, bytes) in costs.chain(std::iter::once((NO_LANE, 0))) {
            if lane == run.0 {
                run.1 += u64::from(bytes);
                continue;
            }
            if let Some(at) = self.lanes.iter().position(|l| l.lane.to_byte() == run.0) {
                self.lanes[at].consumed += run.1;
                self.check_grant(run.0);
            }
            run = (lane, u64::from(bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{RawFrame, SessionId};
    use bytes::Bytes;

    fn arrived(queue: &Queue, lane: Lane, bytes: usize, event: bool) -> Result<bool, Stop> {
        let mut arrived = Arrived::default();
        arrived.begin(lane, bytes);
        if event {
            let frame = RawFrame { kind: 0x50, body: Bytes::new() };
            arrived.push(Event::Frame { session: SessionId::CHAT, class: lane.class, frame });
        }
        arrived.end();
        queue.push(&mut arrived)
    }

    fn grants(queue: &Queue) -> Vec<u64> {
        let mut all = Vec::new();
        queue.grants(|_, total| all.push(total));
        all
    }

    const CHAT: Lane = Lane::new(1, Class::Chat);

    #[test]
    fn credit_comes_back_only_for_what_the_app_has_taken() {
        let queue = Queue::default();
        assert!(!arrived(&queue, CHAT, 9000, true).unwrap());
        assert_eq!(grants(&queue), [0u64; 0]);
        let (taken, due) = queue.take(10);
        assert_eq!((taken.len(), due), (1, true));
        assert_eq!(grants(&queue), [9000 + CREDIT_LOW_BYTES]);
        assert_eq!(grants(&queue), [0u64; 0]);
    }

    #[test]
    fn the_gateway_is_told_when_the_app_has_taken_all() {
        let queue = Queue::default();
        arrived(&queue, CHAT, 9000, true).unwrap();
        queue.take(10);
        let granted = grants(&queue)[0];
        arrived(&queue, CHAT, 2000, true).unwrap();
        assert!(!queue.take(10).1, "too little to be worth telling");
        arrived(&queue, CHAT, 48, true).unwrap();
        arrived(&queue, CHAT, 1, true).unwrap();
        assert!(!queue.take(1).1, "not all is taken");
        assert!(queue.take(1).1);
        // Be the window used up or not.
        assert!(grants(&queue)[0] >= granted);
    }

    #[test]
    fn what_is_no_event_comes_back_at_once() {
        let queue = Queue::default();
        assert!(arrived(&queue, CHAT, 9000, false).unwrap());
        assert_eq!(grants(&queue), [9000 + CREDIT_LOW_BYTES]);
    }

    #[test]
    fn one_frame_may_overshoot_and_no_second() {
        let queue = Queue::default();
        arrived(&queue, CHAT, 16_000, true).unwrap();
        arrived(&queue, CHAT, 60_000, true).unwrap();
        let stop = arrived(&queue, CHAT, 10, true).unwrap_err();
        assert_eq!(stop.code, CloseCode::CreditExceeded);
    }

    #[test]
    fn a_window_grows_on_a_fast_path_and_shrinks_in_a_queue() {
        let ms = Duration::from_millis;
        let mut now = Instant::now();
        let mut state = State::default();
        let lane = state.lane(CHAT);
        // The sender uses all that it may, and what a grant allows comes so much later.
        let mut round = |lane: &mut LaneIn, took: u64| {
            lane.received = lane.granted;
            lane.consumed = lane.granted;
            lane.grant(now);
            now += ms(took);
            lane.received += 1;
            lane.adapt(now);
            lane.window
        };
        assert_eq!(round(lane, 100), CREDIT_LOW_BYTES * 3 / 2);
        assert_eq!(round(lane, 105), CREDIT_LOW_BYTES * 9 / 4);
        assert_eq!(round(lane, 120), CREDIT_LOW_BYTES * 9 / 4);
        for _ in 0..10 {
            round(lane, 100);
        }
        assert_eq!(lane.window, WINDOW_MAX_BYTES);
        for _ in 0..10 {
            round(lane, 400);
        }
        assert_eq!(lane.window, CREDIT_LOW_BYTES);
    }

    #[test]
    fn what_an_old_connection_left_pays_for_nothing_on_the_new() {
        let queue = Queue::default();
        arrived(&queue, CHAT, 9000, true).unwrap();
        queue.reset();
        let (taken, due) = queue.take(10);
        assert_eq!((taken.len(), due), (1, false));
    }

    #[test]
    fn without_a_reader_everything_comes_back() {
        let queue = Queue::default();
        queue.discard();
        assert!(arrived(&queue, CHAT, 9000, true).unwrap());
        assert_eq!(queue.bytes(), 0);
    }
}
