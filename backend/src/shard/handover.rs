//! Rooms that are another owner's: by the ring, which changes as instances come and go, or because this
//! process was out of the registry and another one has sealed them.
//!
//! A room is handed over in order: what was accepted is stored and answered, nothing new is taken, and
//! then everybody is told to join again. Where that takes too long, what is not stored is not answered.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use tokio::{sync::oneshot, time::timeout};

use super::{
    Kind,
    owner::{Owner, Shared},
    task::{Done, Input, Shard, Slot},
};
use crate::{registry::Tenure, ring::Ring, store::LogId};

/// What who comes meanwhile is told.
pub(super) const MOVING: &str = "the room is moving to another owner";

/// How long what was accepted may take to be stored: some commits, and not a store that is away.
const HANDOVER: Duration = Duration::from_secs(2);
/// Between two looks at the rooms that are handed over.
const LOOK: Duration = Duration::from_millis(5);
/// How long nothing is done before it is known which rooms were lost in a sleep.
const CHECK: Duration = Duration::from_secs(1);
/// Logs that are looked at together.
const CHECKED_TOGETHER: usize = 256;

impl Owner {
    /// From now on only the names that the ring says are this process's; `None`: all.
    pub(crate) fn set_ring(&self, ring: Option<Ring>) {
        *self.inner.routes.shared.ring.write() = ring.map(Arc::new);
        for shard in &self.inner.routes.shards {
            shard.control.send_free(Input::Ring);
        }
    }

    /// This process needs a lease. Once, before there are rooms.
    pub(crate) fn guard(&self, tenure: Arc<Tenure>) {
        let _ = self.inner.routes.shared.tenure.set(tenure);
    }

    /// How many rooms are in memory, told also to those who do not keep the owner alive.
    pub(crate) fn rooms_gauge(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.inner.routes.shared.rooms)
    }
}

impl Shared {
    /// By its name.
    pub(super) fn owns(&self, name: &str) -> bool {
        self.ring.read().as_ref().is_none_or(|ring| ring.owns(name.as_bytes()))
    }

    /// A room that has been loaded: an owner of strokes knows only its handle.
    pub(super) fn owns_room(&self, group: u64, name: &str) -> bool {
        match self.kind {
            Kind::Strokes => {
                let ring = self.ring.read();
                ring.as_ref().is_none_or(|ring| ring.owns(&group.to_be_bytes()))
            }
            Kind::Room | Kind::Apart | Kind::Inbox => self.owns(name),
        }
    }
}

impl Shard {
    pub(super) fn count_rooms(&mut self) {
        let (before, now) = (self.counted, self.rooms.len());
        self.shared.rooms.fetch_add(now.wrapping_sub(before), Ordering::Relaxed);
        self.counted = now;
    }

    pub(super) fn ring_changed(&mut self) {
        let until = self.now.since_start + HANDOVER;
        for (group, slot) in &mut self.rooms {
            let Slot::Open(open) = slot else { continue };
            match (self.shared.owns_room(*group, &open.name), open.moving) {
                (false, None) => {
                    open.moving = Some(until);
                    self.moving.push(*group);
                }
                // It was another's for a moment, in which some were sent away; the others stay.
                (true, Some(_)) => open.moving = None,
                _ => {}
            }
        }
        self.take_early_routes();
    }

    /// Leaves the rooms that are ready to be another's.
    pub(super) fn hand_over(&mut self) {
        let mut moving = std::mem::take(&mut self.moving);
        moving.retain(|group| {
            let Some(Slot::Open(open)) = self.rooms.get(group) else { return false };
            let Some(until) = open.moving else { return false };
            let is_done = !open.committing && open.room.is_settled();
            if !is_done && self.now.since_start < until {
                return true;
            }
            tracing::info!(group, stored = is_done, "a room is handed over");
            self.metrics.handed_over.increment(1);
            self.give_up(*group);
            false
        });
        self.moving = moving;
    }

    pub(super) fn handover_due(&self) -> Option<Duration> {
        (!self.moving.is_empty()).then_some(self.now.since_start + LOOK)
    }

    /// At the end: whoever is still here finds the next owner.
    pub(super) fn leave_all(&mut self) {
        let groups: Vec<_> = self.rooms.keys().copied().collect();
        groups.into_iter().for_each(|group| self.give_up(group));
        self.out.flush();
        self.count_rooms();
    }

    /// After each wake. A process that was stopped for a while may have lost its rooms; until it knows,
    /// it does nothing.
    pub(super) async fn reassure(&mut self) {
        let Some(tenure) = self.shared.tenure.get() else { return };
        let asleep = tenure.is_in_doubt();
        if asleep {
            tenure.known().await;
        }
        let losses = tenure.losses();
        if std::mem::replace(&mut self.losses, losses) == losses {
            return;
        }
        if !asleep {
            return self.look_for_seals(None);
        }
        let (answer, mut sealed) = oneshot::channel();
        self.look_for_seals(Some(answer));
        let in_time = timeout(CHECK, &mut sealed).await;
        // What is not here now comes as what was done.
        sealed.close();
        if let Some(groups) = in_time.ok().and_then(Result::ok).or_else(|| sealed.try_recv().ok()) {
            groups.into_iter().for_each(|group| self.fence(group));
        }
    }

    /// Looks, beside the shard, which rooms have been sealed by others. Where nobody waits for the
    /// answer it comes as what was done.
    fn look_for_seals(&self, answer: Option<oneshot::Sender<Vec<u64>>>) {
        let class = self.shared.kind.owned();
        let open = self.rooms.iter().filter_map(|(group, slot)| match slot {
            Slot::Open(open) => Some((LogId { group: *group, class }, open.room.epoch())),
            Slot::Loading(_) => None,
        });
        let rooms: Vec<_> = open.collect();
        let (shared, done) = (Arc::clone(&self.shared), self.done_tx.clone());
        self.shared.tasks.spawn(async move {
            let sealed = tokio::select! {
                sealed = sealed(&shared, rooms) => sealed,
                () = shared.cancel.cancelled() => return,
            };
            let untaken = match answer {
                Some(answer) => answer.send(sealed),
                None => Err(sealed),
            };
            if let Err(groups) = untaken {
                // The shard is gone only when the process stops.
                let _ = done.send(Done::Sealed(groups));
            }
        });
    }
}

/// The rooms of which a log is further than the epoch that their owner has.
async fn sealed(shared: &Shared, rooms: Vec<(LogId, u64)>) -> Vec<u64> {
    let mut sealed = Vec::new();
    for some in rooms.chunks(CHECKED_TOGETHER) {
        let ends = some.iter().map(|(log, epoch)| async move {
            loop {
                match shared.store.last(*log).await {
                    Ok(last) => return (last.epoch > *epoch).then_some(log.group),
                    // What is stored there meanwhile is refused by the log.
                    Err(_) => tokio::time::sleep(shared.config.store_retry).await,
                }
            }
        });
        sealed.extend(join_all(ends).await.into_iter().flatten());
    }
    sealed
}
