//! Writes a connection's outbox to its transport: one task a connection.
//!
//! Urgent work is written at once. Strokes and chat are written a few packets at a time, and only
//! so many connections may be doing so at once ([`Turns`]): when a burst of chat is due to 500
//! connections, a signal for all of them waits for a handful of short turns rather than for 500.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use edgeway_proto::Lane;
use edgeway_transport::Sender;
use tokio::{sync::OwnedSemaphorePermit, time::Instant};

use crate::{
    metrics::Metrics,
    outbox::{Closing, Next, Outbox, Policy, Work},
    turns::{TURN_BYTES, Turns, WORTH_HOLDING},
};

/// A connection that is to be closed waits this long for a client that takes nothing.
const STUCK: Duration = Duration::from_secs(1);

/// Writes until the connection is closed, by either side.
///
/// Not an `async fn`: such a future keeps its arguments beside what became of them, and this one lives
/// as long as the connection.
pub fn run(
    mut sender: Sender,
    outbox: Arc<Outbox>,
    turns: Turns,
    metrics: Arc<Metrics>,
) -> impl Future<Output = ()> + Send {
    let mut frames = Vec::new();
    let mut waits = Waits { turns, turn: None, owed: None, tending: None };
    async move {
        loop {
            let (lane, turn) = match next(&mut sender, &outbox, &mut waits, &mut frames).await {
                Next::High(Work::Write(lane)) => (lane, None),
                Next::Low => {
                    let turn = waits.take_turn();
                    match outbox.take_low(TURN_BYTES, &mut frames) {
                        Some(Work::Write(lane)) => (lane, turn),
                        _ => continue,
                    }
                }
                Next::High(Work::EnableRepair) => {
                    sender.enable_repair();
                    continue;
                }
                Next::High(Work::Finish(session)) => {
                    sender.finish(session);
                    continue;
                }
                Next::High(Work::Close(closing)) => {
                    // Boxed, like all that is rare: its state is large.
                    Box::pin(close(sender, closing)).await;
                    return;
                }
                Next::Owed(due) => {
                    let sleep = tokio::time::sleep_until(Instant::from_std(due));
                    waits.owed = Some(Box::pin(sleep));
                    continue;
                }
            };
            metrics.written(lane.class);
            if !write(&mut sender, &outbox, &mut waits, lane, turn, &mut frames).await {
                return give_up(sender, &outbox);
            }
            frames.clear();
        }
    }
}

/// Writes frames, strokes and chat in this connection's turn. False where the connection is over.
async fn write(
    sender: &mut Sender,
    outbox: &Arc<Outbox>,
    waits: &mut Waits,
    lane: Lane,
    turn: Option<OwnedSemaphorePermit>,
    frames: &mut [Bytes],
) -> bool {
    let bytes = turn.as_ref().map_or(0, |_| frames.iter().map(Bytes::len).sum::<usize>());
    let mut hand_over = pin!(hand_over(sender, lane, frames));
    match poll_fn(|cx| Poll::Ready(hand_over.as_mut().poll(cx))).await {
        Poll::Ready(written) => {
            if let Some(turn) = turn
                && bytes >= WORTH_HOLDING
            {
                waits.turns.hold(turn, outbox);
            }
            written
        }
        Poll::Pending => {
            // A client that takes no more must not keep the others waiting, nor be given a turn
            // while it cannot use one.
            drop(turn);
            waits.turn = None;
            Box::pin(unless_stuck(outbox, hand_over)).await
        }
    }
}

async fn close(sender: Sender, closing: Closing) {
    let close = sender.close(closing.code, &closing.reason, closing.retry_after_ms);
    let _ = tokio::time::timeout(STUCK, close).await;
}

async fn hand_over(sender: &mut Sender, lane: Lane, frames: &mut [Bytes]) -> bool {
    sender.send(lane, frames).await.is_ok() && sender.flush().await.is_ok()
}

/// Lets a write end, but not for long once the connection is to be closed: a client that takes
/// nothing would keep it for good. Then a part may have been written, and nothing may follow.
async fn unless_stuck(outbox: &Outbox, mut write: Pin<&mut impl Future<Output = bool>>) -> bool {
    tokio::select! {
        biased;
        written = &mut write => return written,
        () = poll_fn(|cx| outbox.poll_closing(cx)) => {}
    }
    tokio::time::timeout(STUCK, write).await.unwrap_or(false)
}

/// After a write that failed or was given up.
fn give_up(sender: Sender, outbox: &Outbox) {
    if let Some(closing) = outbox.with(Policy::take_closing) {
        sender.abandon(closing.code, &closing.reason);
    }
}

type Timer = Option<Pin<Box<tokio::time::Sleep>>>;

/// What a writer waits for beside its outbox.
struct Waits {
    turns: Turns,
    /// Its place among those who want a turn, or its turn.
    turn: Option<Turning>,
    /// The time at which credit is to be given back.
    owed: Timer,
    /// The time at which the path wants tending.
    tending: Timer,
}

enum Turning {
    Waiting(Pin<Box<dyn Future<Output = Option<OwnedSemaphorePermit>> + Send>>),
    Has(Option<OwnedSemaphorePermit>),
}

impl Waits {
    /// Whether it is this connection's turn. It keeps its place while it does something else.
    fn poll_turn(&mut self, cx: &mut Context<'_>) -> bool {
        let turns = &self.turns;
        let turn = self.turn.get_or_insert_with(|| {
            let turns = turns.clone();
            Turning::Waiting(Box::pin(async move { turns.next().await }))
        });
        if let Turning::Waiting(place) = turn
            && let Poll::Ready(permit) = place.as_mut().poll(cx)
        {
            *turn = Turning::Has(permit);
        }
        matches!(turn, Turning::Has(_))
    }

    fn take_turn(&mut self) -> Option<OwnedSemaphorePermit> {
        match self.turn.take() {
            Some(Turning::Has(turn)) => turn,
            _ => None,
        }
    }
}

/// The next thing to do. Meanwhile the path is tended: that timer runs while anything is in flight,
/// and is not set anew for each write.
async fn next(
    sender: &mut Sender,
    outbox: &Outbox,
    waits: &mut Waits,
    frames: &mut Vec<Bytes>,
) -> Next {
    poll_fn(|cx| {
        if let Some(sleep) = &mut waits.owed
            && sleep.as_mut().poll(cx).is_ready()
        {
            waits.owed = None;
            outbox.settle(std::time::Instant::now());
        }
        tend(sender, &mut waits.tending, cx);
        let told = waits.owed.as_ref().map(|sleep| sleep.deadline().into_std());
        match outbox.poll_next(cx, told, !sender.is_silent(), frames) {
            Poll::Ready(Next::Low) if !waits.poll_turn(cx) => {
                // Urgent work does not wait for a turn.
                ready!(outbox.poll_high(cx));
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Poll::Pending => {
                // What was to be written is gone: others may write. An idle connection holds no buffer.
                waits.turn = None;
                *frames = Vec::new();
                Poll::Pending
            }
            next => next,
        }
    })
    .await
}

/// Sends the copies and probes that are due, and sets the timer for the next.
fn tend(sender: &mut Sender, tending: &mut Timer, cx: &mut Context<'_>) {
    loop {
        let pending = tending.as_mut().is_none_or(|sleep| sleep.as_mut().poll(cx).is_pending());
        if pending && !sender.tend_sooner() {
            return;
        }
        let Some(due) = sender.tend() else {
            *tending = None;
            return;
        };
        let due = Instant::from_std(due);
        match tending {
            Some(sleep) => sleep.as_mut().reset(due),
            None => *tending = Some(Box::pin(tokio::time::sleep_until(due))),
        }
    }
}
