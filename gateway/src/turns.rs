//! Whose turn it is to write strokes and chat.
//!
//! A burst of chat for a room of 500 is tens of megabytes that are due at once. Handed over as fast as
//! the kernel takes them they stand in queues where priorities mean nothing (the sockets, the access
//! point of a classroom, the runtime of the receivers), and a signal stands behind them. So only a few
//! connections have such bytes on their way at a time: a connection keeps its turn until its
//! client has taken some of them, which it says by granting credit, or for [`HELD`] at most. Then
//! the backlog stays in the outboxes, where signals pass it, and where it is written in fewer
//! and larger pieces.

use std::{
    collections::VecDeque,
    sync::{Arc, Weak},
    time::Duration,
};

use metrics::{Counter, counter, describe_counter};
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

use crate::outbox::Outbox;

/// Turns at a time for each core: with [`TURN_BYTES`] each, 192 KiB, which a core
/// of a client and a server together handles in a few milliseconds. Measured with 500 members who talk at once, on
/// two cores: 8 leave cores idle while turns change hands, 32 double the p99 of signals.
const TURNS_PER_CORE: usize = 12;

/// Strokes and chat that a connection hands over in its turn, at most: enough that the
/// kernel takes them in one call.
pub const TURN_BYTES: usize = 16 * 1024;

/// A turn lasts so long where the client says nothing: its round trip is longer, or it has stopped reading.
/// That leaves every core at least 8 MB a second of strokes and chat, whatever the clients do.
const HELD: Duration = Duration::from_millis(25);

/// A turn in which less was written ends at once: clients grant no credit for so little.
pub const WORTH_HOLDING: usize = 2 * 1024;

/// See the module.
#[derive(Debug, Clone)]
pub struct Turns(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    free: Arc<Semaphore>,
    /// Turns that were given, oldest first, those that ended early among them.
    given: Mutex<VecDeque<Given>>,
    /// Told when `given` is no longer empty.
    first: Notify,
    /// Turns that were held, and those of them that lasted the full time.
    held: Counter,
    overdue: Counter,
}

#[derive(Debug)]
struct Given {
    ends: Instant,
    outbox: Weak<Outbox>,
    turn: u64,
}

impl Default for Turns {
    fn default() -> Self {
        describe_counter!(
            "edgeway_gateway_turns_total",
            "times that a connection wrote strokes or chat and others waited for its client"
        );
        describe_counter!(
            "edgeway_gateway_turns_overdue_total",
            "turns that ended because the client said nothing in time"
        );
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self(Arc::new(Inner {
            free: Arc::new(Semaphore::new(TURNS_PER_CORE * cores)),
            given: Mutex::default(),
            first: Notify::new(),
            held: counter!("edgeway_gateway_turns_total"),
            overdue: counter!("edgeway_gateway_turns_overdue_total"),
        }))
    }
}

impl Turns {
    /// Waits for a turn, first come, first served; it ends when it is dropped. None only where turns
    /// are over for good.
    pub async fn next(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.0.free).acquire_owned().await.ok()
    }

    /// Leaves a turn with its outbox until the client has taken something, or until it has
    /// lasted [`HELD`].
    pub fn hold(&self, turn: OwnedSemaphorePermit, outbox: &Arc<Outbox>) {
        self.0.held.increment(1);
        let turn = outbox.hold(turn);
        let given = Given { ends: Instant::now() + HELD, outbox: Arc::downgrade(outbox), turn };
        let mut all = self.0.given.lock();
        all.push_back(given);
        if all.len() == 1 {
            self.0.first.notify_one();
        }
    }

    /// Ends the turns that have lasted long enough. Runs for ever.
    pub async fn end_overdue(self) {
        loop {
            let first = self.0.given.lock().front().map(|given| given.ends);
            match first {
                None => self.0.first.notified().await,
                Some(ends) => {
                    tokio::time::sleep_until(ends).await;
                    self.end_until(Instant::now());
                }
            }
        }
    }

    fn end_until(&self, now: Instant) {
        loop {
            let given = {
                let mut all = self.0.given.lock();
                if all.front().is_none_or(|given| given.ends > now) {
                    return;
                }
                all.pop_front()
            };
            if let Some(Given { outbox, turn, .. }) = given
                && let Some(outbox) = outbox.upgrade()
            {
                if outbox.end_turn(turn) {
                    self.0.overdue.increment(1);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use edgeway_proto::{Class, Lane};

    use super::*;
    use crate::outbox::Limits;

    fn outbox() -> Arc<Outbox> {
        let outbox = Outbox::new(Limits { outbox_bytes: 1000, uplink_credit: [1000; 3] });
        outbox.with(|p| p.open(1));
        Arc::new(outbox)
    }

    fn free(turns: &Turns) -> usize {
        turns.0.free.available_permits()
    }

    /// All turns are held, each by an outbox.
    async fn all_held(turns: &Turns) -> Vec<Arc<Outbox>> {
        let mut held = Vec::new();
        while free(turns) > 0 {
            let outbox = outbox();
            turns.hold(turns.next().await.unwrap(), &outbox);
            held.push(outbox);
        }
        held
    }

    #[tokio::test]
    async fn a_turn_ends_when_the_client_grants_credit_for_strokes_or_chat() {
        let turns = Turns::default();
        let held = all_held(&turns).await;
        held[0].credit(Lane::new(1, Class::Signal), 100);
        assert_eq!(free(&turns), 0, "a signal says nothing of them");
        held[0].credit(Lane::new(1, Class::Chat), 0);
        assert_eq!(free(&turns), 1, "also where it allows no more than before");
    }

    #[tokio::test]
    async fn a_turn_ends_where_the_client_says_nothing() {
        let turns = Turns::default();
        let before = Instant::now();
        let held = all_held(&turns).await;
        turns.end_until(before + HELD / 2);
        assert_eq!(free(&turns), 0);
        turns.end_until(Instant::now() + HELD);
        assert_eq!(free(&turns), held.len());
    }

    #[tokio::test]
    async fn the_time_of_a_turn_that_is_over_does_not_end_the_next_one() {
        let turns = Turns::default();
        let held = all_held(&turns).await;
        let first = Instant::now();
        held[0].credit(Lane::new(1, Class::Chat), 0);
        turns.hold(turns.next().await.unwrap(), &held[0]);
        turns.end_until(first + HELD);
        assert_eq!(free(&turns), held.len() - 1);
    }

    #[tokio::test]
    async fn a_turn_ends_with_its_connection() {
        let turns = Turns::default();
        let mut held = all_held(&turns).await;
        held.pop();
        assert_eq!(free(&turns), 1);
    }
}
