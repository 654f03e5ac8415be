//! Names of rooms and their handles: remembered, and else asked for, together with what others ask for
//! at the same time.

use std::{collections::HashMap, sync::Arc};

use edgeway_proto::{
    ErrorCode,
    rooms::{self, push::Ask, push_rule},
};
use metrics::{Counter, Gauge, counter, gauge};
use quick_cache::{Weighter, sync::Cache};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    Kind,
    metrics::{level, name},
    owner::{Access, Routes, push_bytes},
    queue,
};
use crate::{
    everywhere,
    store::{Store, StoreError},
};

/// Handles of names. Allotted once, so that none ever becomes wrong; bounded in bytes, the least used
/// forgotten one by one.
pub(super) struct Names {
    handles: Cache<Box<str>, u64, Weight>,
    known: Counter,
    unknown: Counter,
    size: Gauge,
}

#[derive(Clone)]
struct Weight;

/// What a name takes beside its bytes: its entry in the cache, and an allocation.
const NAME_BYTES: usize = 64;

impl Weighter<Box<str>, u64> for Weight {
    fn weight(&self, name: &Box<str>, _: &u64) -> u64 {
        (name.len() + NAME_BYTES) as u64
    }
}

impl Names {
    pub(super) fn new(kind: Kind, bytes: usize) -> Self {
        let kind = name(kind);
        let lookups = |found: &'static str| counter!("edgeway_owner_names_total", "kind" => kind, "found" => found);
        Self {
            handles: Cache::with_weighter(bytes / (2 * NAME_BYTES), bytes as u64, Weight),
            known: lookups("cache"),
            unknown: lookups("store"),
            size: gauge!("edgeway_owner_names_cached", "kind" => kind),
        }
    }

    /// The handle of a name; `None` where it is not known here.
    pub(super) fn get(&self, name: &str) -> Option<u64> {
        let found = self.handles.get(name);
        if found.is_some() { &self.known } else { &self.unknown }.increment(1);
        found
    }

    fn remember(&self, name: String, handle: u64) {
        self.handles.insert(name.into_boxed_str(), handle);
        self.size.set(level(self.handles.len()));
    }
}

/// What is for a room whose handle is not known here.
pub(super) struct LookUp {
    pub(super) access: Arc<Access>,
    pub(super) wants: Wants,
}

/// What it is.
pub(super) enum Wants {
    Join(Box<rooms::Join>),
    Push(rooms::Push),
}

impl Wants {
    pub(super) fn room(&self) -> &str {
        match self {
            Self::Join(join) => &join.room,
            Self::Push(push) => &push.room,
        }
    }

    /// Whether a room that has no handle gets one. `policy`: those that are joined do.
    fn creates(&self, policy: bool) -> bool {
        let Self::Push(push) = self else { return policy };
        match &push.ask {
            Some(Ask::Send(_)) | None => policy,
            // To open a room makes it; what holds in all rooms needs no policy.
            Some(Ask::Rule(rule)) => {
                let opens = rule.kind() == push_rule::Kind::Close && !rule.on;
                opens || everywhere::is_place(&push.room) || policy
            }
            Some(Ask::Kick(_) | Ask::State(_) | Ask::History(_)) => false,
        }
    }

    /// What it takes while its handle is asked for.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Join(join) => 2 * join.room.len() + join.user.len(),
            Self::Push(push) => push_bytes(push),
        }
    }
}

/// Names that are asked for in one go: as many as a Session may join in one call.
const BATCH_NAMES: usize = 1000;

/// Batches under way. What comes while there are as many makes up the next.
const BATCHES: usize = 16;

/// The task that asks for handles.
pub(super) struct Finder {
    routes: Arc<Routes>,
    lookups: queue::Receiver<LookUp>,
}

impl Finder {
    pub(super) fn new(routes: Arc<Routes>, lookups: queue::Receiver<LookUp>) -> Self {
        Self { routes, lookups }
    }

    /// Works until the owner is stopped, or nobody is left who could join.
    pub(super) async fn run(mut self) {
        let cancel = self.routes.shared.cancel.clone();
        tokio::select! {
            () = cancel.cancelled() => {}
            () = self.work() => {}
        }
    }

    async fn work(&mut self) {
        let turns = Arc::new(Semaphore::new(BATCHES));
        while let Ok(turn) = Arc::clone(&turns).acquire_owned().await
            && let Some(first) = self.lookups.recv().await
        {
            // Who sends many at once goes on doing so, and then they are one batch.
            tokio::task::yield_now().await;
            let mut batch = vec![first];
            while batch.len() < BATCH_NAMES
                && let Some(next) = self.lookups.try_recv()
            {
                batch.push(next);
            }
            let routes = Arc::clone(&self.routes);
            self.routes.shared.tasks.spawn(routes.find(batch, turn));
        }
    }
}

impl Routes {
    /// Asks for the handles of a batch, and passes on what is for them.
    async fn find(self: Arc<Self>, batch: Vec<LookUp>, turn: OwnedSemaphorePermit) {
        let policy = self.shared.live.create_rooms() || self.shared.kind == Kind::Inbox;
        // First those that make rooms, so that who only asks finds them.
        let mut found = [HashMap::new(), HashMap::new()];
        for create in [true, false] {
            let wanted = batch.iter().filter(|l| l.wants.creates(policy) == create);
            let mut names: Vec<String> = wanted.map(|l| l.wants.room().to_owned()).collect();
            names.sort_unstable();
            names.dedup();
            if !names.is_empty() {
                let handles = handles(&*self.shared.store, &names, create).await;
                found[usize::from(create)] = names.into_iter().zip(handles).collect();
            }
        }
        drop(turn);
        for LookUp { access, wants } in batch {
            let found = &found[usize::from(wants.creates(policy))];
            let (code, detail) = match found.get(wants.room()) {
                Some(Ok(Some(group))) => {
                    if self.names.handles.peek(wants.room()).is_none() {
                        self.names.remember(wants.room().to_owned(), *group);
                    }
                    if let Some(to) = self.wanted(*group, &access, wants) {
                        self.shards[to.shard].control.send(to.input, to.bytes).await;
                    }
                    continue;
                }
                Some(Ok(None)) => (ErrorCode::NoSuchRoom, "there is no such room"),
                Some(Err(_)) | None => (ErrorCode::Unavailable, "the room cannot be looked up now"),
            };
            self.refuse(&access, &wants, code, detail);
        }
    }
}

/// The handle of each name. What is wrong with one of them is not the others' fault.
async fn handles(
    store: &dyn Store,
    names: &[String],
    create: bool,
) -> Vec<Result<Option<u64>, StoreError>> {
    let error = match store.groups(names.to_vec(), create).await {
        Ok(handles) => return handles.into_iter().map(Ok).collect(),
        Err(error) => error,
    };
    tracing::warn!(%error, names = names.len(), "names of rooms could not be looked up");
    if !matches!(error, StoreError::Corrupt { .. }) {
        return names.iter().map(|_| Err(error.clone())).collect();
    }
    let mut found = Vec::with_capacity(names.len());
    for name in names {
        found.push(store.group(name, create).await);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_forgotten_one_by_one_and_not_those_in_use() {
        const BYTES: usize = 256 * 1024;
        let names = Names::new(Kind::Room, BYTES);
        let name = |n: u64| format!("room/lesson-{n:06}");
        names.remember("in use".to_owned(), 7);
        let (mut most, mut least) = (0, usize::MAX);
        for n in 0..20_000 {
            names.remember(name(n), n);
            assert_eq!(names.get("in use"), Some(7));
            assert!(names.handles.weight() <= BYTES as u64);
            if n > 10_000 {
                most = most.max(names.handles.len());
                least = least.min(names.handles.len());
            }
        }
        assert!(most > BYTES / (2 * NAME_BYTES), "{most} names");
        assert!(least > most / 10 * 9, "from {most} down to {least} names");
        // Which of the others are forgotten is the cache's to choose; what it says of the rest is right.
        let known = (0..20_000).filter(|n| names.get(&name(*n)) == Some(*n)).count();
        assert_eq!(known + 1, names.handles.len());
        assert_eq!(names.get(&name(19_999)), Some(19_999));
    }
}
