//! Writes a connection's outbox to its transport: one task a connection.
//!
//! Urgent work is written at once. Strokes and chat are written a few packets at a time, and only
//! so many connections may be doing so at once ([`Turns`]): when a burst of chat is due to 500
//! connections, a signal for all of them waits for a handful of short turns rather than for 500.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use edgeway_proto::Lane;
use edgeway_transport::Sender;
use tokio::{sync::Semaphore, time::Instant};

use crate::{
    metrics::Metrics,
    outbox::{Next, Outbox, Policy, Work},
};

/// Strokes and chat that a connection hands over in its turn: a few packets, few enough that
/// they do not delay a signal, enough that the kernel can send them in one call.
const LOW_TURN_BYTES: usize = 16 * 1024;

/// A connection that is to be closed waits this long for a client that takes nothing.
const STUCK: Duration = Duration::from_secs(1);

/// Connections of a gateway that are in their turn at a time.
const TURNS: usize = 8;

/// Whose turn it is to write strokes and chat, first come, first served.
#[derive(Debug, Clone)]
pub struct Turns(Arc<Semaphore>);

impl Default for Turns {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(TURNS)))
    }
}

/// Writes until the connection is closed, by either side.
pub async fn run(mut sender: Sender, outbox: Arc<Outbox>, turns: Turns, metrics: Arc<Metrics>) {
    let mut frames = Vec::new();
    let (mut timer, mut tending) = (None, None);
    loop {
        match next(&mut sender, &outbox, &mut timer, &mut tending, &mut frames).await {
            Next::High(Work::Write(lane)) => {
                metrics.written(lane.class);
                let written = write(&mut sender, lane, &mut frames);
                if !unless_stuck(&outbox, pin!(written)).await {
                    return give_up(sender, &outbox);
                }
                frames.clear();
            }
            Next::High(Work::EnableRepair) => sender.enable_repair(),
            Next::High(Work::Finish(session)) => sender.finish(session),
            Next::High(Work::Close(closing)) => {
                let close = sender.close(closing.code, &closing.reason, closing.retry_after_ms);
                let _ = tokio::time::timeout(STUCK, close).await;
                return;
            }
            Next::Low => {
                if !low(&mut sender, &outbox, &turns, &metrics, &mut frames).await {
                    return give_up(sender, &outbox);
                }
            }
            Next::Owed(due) => {
                timer = Some(Box::pin(tokio::time::sleep_until(Instant::from_std(due))))
            }
        }
        if frames.capacity() > 64 {
            // An idle connection holds no buffer.
            frames = Vec::new();
        }
    }
}

async fn write(sender: &mut Sender, lane: Lane, frames: &mut [Bytes]) -> bool {
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

/// The next thing to do. Meanwhile the path is tended: `tending` runs while anything is in flight,
/// and is not set anew for each write.
async fn next(
    sender: &mut Sender,
    outbox: &Outbox,
    timer: &mut Timer,
    tending: &mut Timer,
    frames: &mut Vec<Bytes>,
) -> Next {
    poll_fn(|cx| {
        if let Some(sleep) = timer
            && sleep.as_mut().poll(cx).is_ready()
        {
            *timer = None;
            outbox.settle(std::time::Instant::now());
        }
        tend(sender, tending, cx);
        let told = timer.as_ref().map(|sleep| sleep.deadline().into_std());
        outbox.poll_next(cx, told, !sender.is_silent(), frames)
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

/// Writes strokes or chat when it is this connection's turn. False where the connection is over.
async fn low(
    sender: &mut Sender,
    outbox: &Outbox,
    turns: &Turns,
    metrics: &Metrics,
    frames: &mut Vec<Bytes>,
) -> bool {
    let turn = {
        let mut acquire = pin!(turns.0.acquire());
        poll_fn(|cx| {
            // Urgent work does not wait for a turn.
            if outbox.poll_high(cx).is_ready() {
                return Poll::Ready(None);
            }
            acquire.as_mut().poll(cx).map(Result::ok)
        })
        .await
    };
    let Some(turn) = turn else { return true };
    let Some(Work::Write(lane)) = outbox.take_low(LOW_TURN_BYTES, frames) else { return true };
    metrics.written(lane.class);
    let written = {
        let mut write = pin!(write(sender, lane, frames));
        match poll_fn(|cx| Poll::Ready(write.as_mut().poll(cx))).await {
            Poll::Ready(written) => {
                // The turn lasts until the transport's own task has had the chance to send: the
                // runtime's queue is first in, first out, and that task was woken by the write.
                tokio::task::yield_now().await;
                drop(turn);
                written
            }
            Poll::Pending => {
                // A client that takes no more must not keep the others waiting.
                drop(turn);
                unless_stuck(outbox, write).await
            }
        }
    };
    frames.clear();
    written
}
