//! The owners that access passes things on to: in this process or over an uplink, found by
//! rendezvous hashing of the name. Which there are may change at any time.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use edgeway_linktls::causes;
use edgeway_proto::{link::Stream, rooms::to_owner_item::Item};
use parking_lot::RwLock;
use tokio_util::sync::CancellationToken;

use super::{Access, session::Route};
use crate::{
    ring::{rendezvous, seed},
    roles::Role,
    shard::{AccessLink, Owner, Replies, Reply},
    uplink::{Dialler, Uplink},
};

/// Pauses between attempts to reach an owner: short at first, since a restarted process is back
/// within a second.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// An uplink that lived this long was a good one: the next attempt does not wait long.
const GOOD: Duration = Duration::from_secs(10);

/// An owner. Never used twice: one that comes back is another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct OwnerId(u64);

impl OwnerId {
    /// Of a name that nobody owns: it cannot be reached.
    const NOBODY: Self = Self(0);

    #[cfg(test)]
    pub(super) const fn test(at: u64) -> Self {
        Self(at)
    }
}

/// One owner.
pub(crate) struct Node {
    role: Role,
    /// Its address, or "" for the one in this process when the config lists none.
    name: String,
    seed: u64,
    place: Place,
    /// How it is reached now; `None` while it is not.
    reach: RwLock<Option<Arc<Reach>>>,
    /// It is no owner any more.
    gone: CancellationToken,
}

/// Where an owner is.
pub(crate) enum Place {
    Here(Owner),
    There(Box<Dialler>),
}

enum Reach {
    Here(AccessLink),
    There(Uplink),
}

impl Node {
    fn new(role: Role, name: String, place: Place) -> Self {
        let seed = seed(&name);
        let gone = CancellationToken::new();
        Self { role, name, seed, place, reach: RwLock::new(None), gone }
    }

    pub(crate) fn here(role: Role, name: String, owner: Owner) -> Self {
        Self::new(role, name, Place::Here(owner))
    }

    pub(crate) fn there(role: Role, name: String, dialler: Dialler) -> Self {
        Self::new(role, name, Place::There(Box::new(dialler)))
    }
}

/// All of them.
pub(crate) struct Owners {
    nodes: RwLock<BTreeMap<OwnerId, Arc<Node>>>,
    next: AtomicU64,
    /// Names this run of access.
    access: u64,
}

/// Which owners of a role came and which went.
#[derive(Debug, Default)]
pub(crate) struct Change {
    pub(super) new: Vec<OwnerId>,
    pub(super) gone: Vec<OwnerId>,
}

impl Change {
    pub(super) fn is_none(&self) -> bool {
        self.new.is_empty() && self.gone.is_empty()
    }
}

impl Owners {
    pub(crate) fn new(access: u64) -> Self {
        Self { nodes: RwLock::default(), next: AtomicU64::new(1), access }
    }

    /// From now on the owners of a role are those of these names; `make` makes those that are new.
    ///
    /// # Errors
    /// One that cannot be made; nothing has changed then.
    pub(crate) fn replace<E>(
        &self,
        role: Role,
        names: &[String],
        make: impl Fn(&str) -> Result<Node, E>,
    ) -> Result<Change, E> {
        let mut nodes = self.nodes.write();
        let mut change = Change::default();
        let mut new = Vec::new();
        for name in names {
            let is_it = |node: &Arc<Node>| node.role == role && node.name == *name;
            if !nodes.values().any(is_it) && !new.iter().any(|node: &Node| node.name == *name) {
                new.push(make(name)?);
            }
        }
        nodes.retain(|id, node| {
            let stays = node.role != role || names.contains(&node.name);
            if !stays {
                node.gone.cancel();
                *node.reach.write() = None;
                change.gone.push(*id);
            }
            stays
        });
        for node in new {
            let id = OwnerId(self.next.fetch_add(1, Ordering::Relaxed));
            nodes.insert(id, Arc::new(node));
            change.new.push(id);
        }
        Ok(change)
    }

    pub(super) fn ids(&self) -> Vec<OwnerId> {
        self.nodes.read().keys().copied().collect()
    }

    fn node(&self, owner: OwnerId) -> Option<Arc<Node>> {
        self.nodes.read().get(&owner).cloned()
    }

    /// Passes an item on, waiting while the owner's queue is full. `false`: it cannot be reached.
    pub(super) async fn send(&self, owner: OwnerId, stream: Stream, item: Item) -> bool {
        let reach = self.nodes.read().get(&owner).and_then(|node| node.reach.read().clone());
        let Some(reach) = reach else { return false };
        match &*reach {
            Reach::Here(link) => {
                link.send(stream, item).await;
                true
            }
            Reach::There(uplink) => uplink.send(stream, item).await,
        }
    }

    /// The owners that cannot be reached now, for readiness.
    pub(crate) fn unreachable(&self) -> Vec<String> {
        let nodes = self.nodes.read();
        let lost = nodes.values().filter(|node| node.reach.read().is_none());
        let mut lost: Vec<_> =
            lost.map(|node| format!("{} {}", node.role.name(), node.name)).collect();
        for role in [Role::Room, Role::Peer] {
            if !nodes.values().any(|node| node.role == role) {
                lost.push(format!("any instance with the role {}", role.name()));
            }
        }
        lost
    }

    /// Keeps an owner reached until `stop`, or until it is none any more.
    pub(super) async fn keep(access: Access, owner: OwnerId, stop: CancellationToken) {
        let Some(node) = access.owners().node(owner) else { return };
        let mut pause = BACKOFF_MIN;
        loop {
            let began = Instant::now();
            tokio::select! {
                () = stop.cancelled() => return,
                () = node.gone.cancelled() => return,
                () = node.reach_once(&access, owner) => {}
            }
            pause =
                if began.elapsed() >= GOOD { BACKOFF_MIN } else { (pause * 2).min(BACKOFF_MAX) };
            tokio::select! {
                () = stop.cancelled() => return,
                () = node.gone.cancelled() => return,
                () = tokio::time::sleep(jitter(pause)) => {}
            }
        }
    }
}

impl Route for Owners {
    fn owner(&self, role: Role, room: &str) -> OwnerId {
        let nodes = self.nodes.read();
        let of_role = nodes.iter().filter(|(_, node)| node.role == role);
        rendezvous(of_role.map(|(id, node)| (*id, node.seed)), room).unwrap_or(OwnerId::NOBODY)
    }
}

impl Node {
    /// Reaches the owner, and returns when it is lost again.
    async fn reach_once(&self, access: &Access, owner: OwnerId) {
        match &self.place {
            Place::Here(local) => {
                let replies = Arc::new(ToAccess { access: access.downgrade(), owner });
                let link = Reach::Here(local.attach(access.owners().access, replies));
                let reach = Arc::new(link);
                self.reached(Arc::clone(&reach));
                if let Reach::Here(link) = &*reach {
                    link.lost().await;
                }
            }
            Place::There(dialler) => {
                let (uplink, replies) = match dialler.dial(access.owners().access).await {
                    Ok(dialled) => dialled,
                    Err(status) => {
                        let reason = causes(&status);
                        tracing::warn!(owner = %self.name, role = self.role.name(), reason, "an owner cannot be reached");
                        return;
                    }
                };
                tracing::info!(owner = %self.name, role = self.role.name(), "an owner is reached");
                self.reached(Arc::new(Reach::There(uplink)));
                let end = replies.run(|reply| access.reply(owner, reply)).await;
                tracing::warn!(owner = %self.name, role = self.role.name(), reason = end.message(), "an owner is lost");
            }
        }
        *self.reach.write() = None;
        metrics::counter!("edgeway_access_owners_lost_total", "role" => self.role.name())
            .increment(1);
        access.owner_lost(owner);
    }

    fn reached(&self, reach: Arc<Reach>) {
        let mut current = self.reach.write();
        // Under the lock, so that whoever has seen it go finds nothing here afterwards.
        if !self.gone.is_cancelled() {
            *current = Some(reach);
        }
    }
}

/// What the owner in this process answers into.
struct ToAccess {
    access: std::sync::Weak<super::Inner>,
    owner: OwnerId,
}

impl Replies for ToAccess {
    fn send(&self, reply: Reply) -> bool {
        let access = Access::upgrade(&self.access);
        if let Some(access) = &access {
            access.reply(self.owner, reply);
        }
        access.is_some()
    }
}

/// Between half and all of a pause, so that many who lost the same owner do not come back at once.
fn jitter(pause: Duration) -> Duration {
    let mut byte = [0];
    // Without random numbers everyone waits the same time, which is no harm to this one.
    let _ = getrandom::fill(&mut byte);
    pause / 2 + pause / 2 * u32::from(byte[0]) / 255
}
