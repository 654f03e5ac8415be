//! The outbox of a connection: what waits to be written to it. The hub and the links push, the
//! connection's writer takes.

mod policy;

use std::{
    task::{Context, Poll, Waker},
    time::Instant,
};

use bytes::Bytes;
use edgeway_proto::{Class, Lane};
use parking_lot::Mutex;
use tokio::sync::OwnedSemaphorePermit;

pub use policy::{Closing, Limits, Policy, Push, Segment, Work};

#[derive(Debug)]
struct State {
    policy: Policy,
    /// The writer, where it waits for any work, or for urgent work.
    waiting: Option<(Waker, Wait)>,
    /// Credit that a user over its rate gets back later.
    owed: Vec<(Instant, Lane, u64)>,
    /// The turn in which strokes or chat were written last, until the client has taken some.
    turn: Option<OwnedSemaphorePermit>,
    /// Counts the turns that were held.
    turns: u64,
}

impl State {
    fn low_ready(&self) -> bool {
        self.turn.is_none() && self.policy.low_ready()
    }

    /// The writer, where there is work that it waits for.
    fn awake(&mut self) -> Option<Waker> {
        let ready = match &self.waiting {
            None => false,
            Some((_, Wait::High)) => self.policy.high_ready(),
            Some((_, Wait::Any)) => self.policy.high_ready() || self.low_ready(),
            Some((_, Wait::Closing)) => self.policy.is_closing(),
        };
        if ready { self.waiting.take().map(|(waker, _)| waker) } else { None }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    Any,
    High,
    /// Only the end: a write is under way.
    Closing,
}

/// What a writer finds.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Urgent work; frames are in the buffer.
    High(Work),
    /// There are strokes or chat to be sent, when it is this connection's turn.
    Low,
    /// Credit is to be given back at this time.
    Owed(Instant),
}

/// See the module.
#[derive(Debug)]
pub struct Outbox {
    state: Mutex<State>,
}

impl Outbox {
    /// An empty outbox.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let policy = Policy::new(limits);
        let state = State { policy, waiting: None, owed: Vec::new(), turn: None, turns: 0 };
        Self { state: Mutex::new(state) }
    }

    /// Changes the policy's state and wakes the writer where there is work for it now.
    pub fn with<T>(&self, change: impl FnOnce(&mut Policy) -> T) -> T {
        let mut state = self.state.lock();
        let result = change(&mut state.policy);
        let waker = state.awake();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        result
    }

    /// See [`Policy::credit`]. The client has taken something: its turn is over.
    pub fn credit(&self, lane: Lane, total: u64) {
        let mut state = self.state.lock();
        state.policy.credit(lane, total);
        let turn = if lane.class == Class::Signal { None } else { state.turn.take() };
        let waker = state.awake();
        drop(state);
        // Others wait for it: not under the lock.
        drop(turn);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Keeps the turn in which strokes or chat were just written; gives its number.
    pub fn hold(&self, turn: OwnedSemaphorePermit) -> u64 {
        let mut state = self.state.lock();
        state.turns += 1;
        state.turn = Some(turn);
        state.turns
    }

    /// Ends a turn that was held. False where it was over already.
    pub fn end_turn(&self, number: u64) -> bool {
        let mut state = self.state.lock();
        if state.turns != number || state.turn.is_none() {
            return false;
        }
        let turn = state.turn.take();
        let waker = state.awake();
        drop(state);
        drop(turn);
        if let Some(waker) = waker {
            waker.wake();
        }
        true
    }

    /// See [`Policy::push`].
    pub fn push(&self, session: u8, class: Class, segments: &[Segment]) -> Push {
        self.with(|p| p.push(session, class, segments))
    }

    /// See [`Policy::push_reply`].
    pub fn push_reply(&self, session: u8, class: Class, frames: Bytes) {
        self.with(|p| p.push_reply(session, class, frames));
    }

    /// See [`Policy::push_control`].
    pub fn push_control(&self, frame: Bytes) {
        self.with(|p| p.push_control(frame));
    }

    /// See [`Policy::close`].
    pub fn close(&self, closing: Closing) {
        self.with(|p| p.close(closing));
    }

    /// The client's bytes on a lane were passed on; where `not_before` is set, its user is over
    /// its rate and gets the credit back then.
    pub fn consumed(&self, lane: Lane, bytes: u64, not_before: Option<Instant>) {
        let Some(due) = not_before else {
            self.with(|p| p.consumed(lane, bytes));
            return;
        };
        let mut state = self.state.lock();
        match state.owed.iter_mut().find(|(_, l, _)| *l == lane) {
            Some((at, _, owed)) => {
                *at = due.max(*at);
                *owed += bytes;
            }
            None => state.owed.push((due, lane, bytes)),
        }
        // The writer must learn of the time.
        let waker = state.waiting.take();
        drop(state);
        if let Some((waker, _)) = waker {
            waker.wake();
        }
    }

    /// Gives back the credit that is due.
    pub fn settle(&self, now: Instant) {
        let mut state = self.state.lock();
        let State { policy, owed, .. } = &mut *state;
        owed.retain(|(due, lane, bytes)| {
            let keep = *due > now;
            if !keep {
                policy.consumed(*lane, *bytes);
            }
            keep
        });
        if owed.is_empty() {
            *owed = Vec::new();
        }
    }

    /// What there is to do; waits where there is nothing. Frames of urgent work are put into `out`.
    /// `told` is the time for which the caller has set its timer already; `low` is false while
    /// strokes and chat are held back.
    pub fn poll_next(
        &self,
        cx: &Context<'_>,
        told: Option<Instant>,
        low: bool,
        out: &mut Vec<Bytes>,
    ) -> Poll<Next> {
        let mut state = self.state.lock();
        if let Some(work) = state.policy.next_high(out) {
            return Poll::Ready(Next::High(work));
        }
        if low && state.low_ready() {
            return Poll::Ready(Next::Low);
        }
        let due = state.owed.iter().map(|(due, ..)| *due).min();
        if let Some(due) = due.filter(|due| Some(*due) != told) {
            return Poll::Ready(Next::Owed(due));
        }
        let wait = if low { Wait::Any } else { Wait::High };
        state.waiting = Some((cx.waker().clone(), wait));
        Poll::Pending
    }

    /// Waits for urgent work.
    pub fn poll_high(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.state.lock();
        if state.policy.high_ready() {
            return Poll::Ready(());
        }
        state.waiting = Some((cx.waker().clone(), Wait::High));
        Poll::Pending
    }

    /// Waits until the connection is to be closed.
    pub fn poll_closing(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.state.lock();
        if state.policy.is_closing() {
            return Poll::Ready(());
        }
        state.waiting = Some((cx.waker().clone(), Wait::Closing));
        Poll::Pending
    }

    /// Takes strokes or chat, about `bytes` at most.
    pub fn take_low(&self, bytes: usize, out: &mut Vec<Bytes>) -> Option<Work> {
        self.state.lock().policy.next_low(bytes, out)
    }
}
