//! What a shard does with its store: group commits of what must be stored before it is published,
//! and chat behind.

use std::{sync::Arc, time::Duration};

use edgeway_proto::{Class, Seq};
use tokio::time::Instant;

use super::{
    behind::Settled,
    task::{Done, Shard, Slot},
};
use crate::{
    room::Event,
    store::{Append, LogId, StoreError},
};

impl Shard {
    /// Stores what rooms have for the store, unless a commit is under way.
    pub(super) fn start_commit(&mut self) {
        if self.commits.due().is_none_or(|due| due > self.now.since_start) {
            return;
        }
        let (mut batch, mut groups, mut bytes) = (Vec::new(), Vec::new(), 0);
        while bytes < self.shared.config.commit_bytes
            && let Some(group) = self.commits.next_group()
        {
            if let Some(Slot::Open(open)) = self.rooms.get_mut(&group) {
                bytes += open.room.collect(&mut batch);
                groups.push(group);
            }
        }
        if batch.is_empty() {
            // Only of groups of which a commit turned out to have been stored.
            return groups.into_iter().for_each(|group| self.stored(group));
        }
        self.commits.started(groups);
        self.append(batch, |result, took| Done::Committed { result, took });
    }

    fn append(
        &self,
        batch: Vec<Append>,
        done: impl FnOnce(Result<(), StoreError>, Duration) -> Done + Send + 'static,
    ) {
        let (store, done_tx) = (Arc::clone(&self.shared.store), self.done_tx.clone());
        self.shared.tasks.spawn(async move {
            let start = Instant::now();
            let result = store.append(batch).await;
            // The shard is gone only when it gave up waiting.
            let _ = done_tx.send(done(result, start.elapsed()));
        });
    }

    pub(super) fn committed(&mut self, result: Result<(), StoreError>) {
        let mut groups = self.commits.done();
        let mut retry_at = self.now.since_start;
        match result {
            Ok(()) => {
                if std::mem::take(&mut self.commits.failing) {
                    tracing::info!("the store is back");
                }
                groups.drain(..).for_each(|group| self.stored(group));
            }
            Err(StoreError::Stale { group, class, last, .. }) => {
                let fenced = !self.was_stored(group, class, last);
                groups.retain(|g| *g != group || !fenced);
                if fenced {
                    self.fence(group);
                }
            }
            Err(error) => {
                self.metrics.append_errors.increment(1);
                if !std::mem::replace(&mut self.commits.failing, true) {
                    tracing::warn!(%error, "signals and strokes wait for the store");
                }
                retry_at += self.shared.config.store_retry;
            }
        }
        self.commits.again(groups, retry_at);
    }

    fn stored(&mut self, group: u64) {
        if let Some(Slot::Open(open)) = self.rooms.get_mut(&group) {
            open.committing = false;
        }
        for class in Self::STORED_FIRST {
            self.apply(group, Event::Appended(class));
        }
    }

    /// The store refuses a batch that it seems to have: a commit can fail on its way back. Whether
    /// that is so; else the log belongs to another owner.
    fn was_stored(&mut self, group: u64, class: Class, last: Seq) -> bool {
        let storing = match self.rooms.get(&group) {
            Some(Slot::Open(open)) => open.room.storing(class),
            _ => None,
        };
        let stored = storing.is_some_and(|s| s.epoch == last.epoch && s.counter <= last.counter);
        if stored {
            self.apply(group, Event::Appended(class));
        }
        stored
    }

    /// Another owner has the room: everybody out, and nothing of it is kept.
    pub(super) fn fence(&mut self, group: u64) {
        if !matches!(self.rooms.get(&group), Some(Slot::Open(_))) {
            return;
        }
        tracing::warn!(group, "another owner has taken the room over");
        self.metrics.fenced.increment(1);
        self.give_up(group);
    }

    /// Everybody out of a room that is another owner's from now on.
    pub(super) fn give_up(&mut self, group: u64) {
        self.apply(group, Event::Fenced);
        if let Some(Slot::Open(open)) = self.rooms.remove(&group) {
            self.pending_bytes -= open.room.pending_bytes();
        }
    }

    pub(super) fn start_behind(&mut self) {
        if let Some(batch) = self.behind.start(self.now.since_start) {
            self.append(batch, |result, _| Done::Behind(result));
        }
    }

    pub(super) fn behind_done(&mut self, result: Result<(), StoreError>) {
        match result {
            Ok(()) => {
                let settled = self.behind.stored();
                self.settled(settled);
            }
            Err(StoreError::Stale { group, class, .. }) => {
                let (lost, settled) = self.behind.give_up(LogId { group, class });
                self.metrics.unstored_dropped.increment(lost);
                self.settled(settled);
            }
            Err(_) => {
                self.metrics.append_errors.increment(1);
                self.behind.failed(self.now.since_start + self.shared.config.store_retry);
            }
        }
    }

    pub(super) fn settled(&mut self, settled: Settled) {
        for (group, seq) in settled {
            self.apply(group, Event::ChatSettled(seq));
        }
    }
}
