//! The owners that access passes things on to: in this process or over an uplink, found by
//! rendezvous hashing of the name.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use edgeway_linktls::causes;
use edgeway_proto::{link::Stream, rooms::to_owner_item::Item};
use parking_lot::RwLock;
use tokio_util::sync::CancellationToken;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::{Access, session::Route};
use crate::{
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

/// An owner, by its place in the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct OwnerId(usize);

#[cfg(test)]
impl OwnerId {
    pub(super) const fn test(at: usize) -> Self {
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
        Self { role, name, seed, place, reach: RwLock::new(None) }
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
    nodes: Vec<Node>,
    /// Names this run of access.
    access: u64,
}

impl Owners {
    pub(crate) fn new(nodes: Vec<Node>, access: u64) -> Self {
        Self { nodes, access }
    }

    /// Names this run of access.
    pub(super) fn access(&self) -> u64 {
        self.access
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = OwnerId> {
        (0..self.nodes.len()).map(OwnerId)
    }

    /// Passes an item on, waiting while the owner's queue is full. `false`: it cannot be reached.
    pub(super) async fn send(&self, owner: OwnerId, stream: Stream, item: Item) -> bool {
        let Some(reach) = self.nodes.get(owner.0).and_then(|node| node.reach.read().clone()) else {
            return false;
        };
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
        let lost = |node: &&Node| node.reach.read().is_none();
        let name = |node: &Node| format!("{} {}", node.role.name(), node.name);
        self.nodes.iter().filter(lost).map(name).collect()
    }

    /// Keeps an owner reached until `stop`.
    pub(crate) async fn keep(access: Access, owner: OwnerId, stop: CancellationToken) {
        let Some(node) = access.owners().nodes.get(owner.0) else { return };
        let mut pause = BACKOFF_MIN;
        while !stop.is_cancelled() {
            let began = Instant::now();
            tokio::select! {
                () = stop.cancelled() => return,
                () = node.reach_once(&access, owner) => {}
            }
            pause =
                if began.elapsed() >= GOOD { BACKOFF_MIN } else { (pause * 2).min(BACKOFF_MAX) };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(jitter(pause)) => {}
            }
        }
    }
}

impl Route for Owners {
    fn owner(&self, role: Role, room: &str) -> OwnerId {
        let of_role = self.nodes.iter().enumerate().filter(|(_, node)| node.role == role);
        // Each role has a node: `Backend::start` refuses a config without. Were there none, the
        // number of nobody would be answered with `unavailable`.
        OwnerId(rendezvous(of_role.map(|(at, node)| (at, node.seed)), room).unwrap_or(usize::MAX))
    }
}

/// What stands for a node in [`rendezvous`].
pub(super) fn seed(name: &str) -> u64 {
    xxh3_64(name.as_bytes())
}

/// The node whose hash with the name is the highest: a node that is added takes names over, and
/// no name moves between the others.
pub(super) fn rendezvous(nodes: impl Iterator<Item = (usize, u64)>, room: &str) -> Option<usize> {
    let weight = |(_, seed): &(usize, u64)| (xxh3_64_with_seed(room.as_bytes(), *seed), *seed);
    nodes.max_by_key(weight).map(|(at, _)| at)
}

impl Node {
    /// Reaches the owner, and returns when it is lost again.
    async fn reach_once(&self, access: &Access, owner: OwnerId) {
        match &self.place {
            Place::Here(local) => {
                let replies = Arc::new(ToAccess { access: access.downgrade(), owner });
                let link = Reach::Here(local.attach(access.owners().access, replies));
                let reach = Arc::new(link);
                *self.reach.write() = Some(Arc::clone(&reach));
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
                *self.reach.write() = Some(Arc::new(Reach::There(uplink)));
                let end = replies.run(|reply| access.reply(owner, reply)).await;
                tracing::warn!(owner = %self.name, role = self.role.name(), reason = end.message(), "an owner is lost");
            }
        }
        *self.reach.write() = None;
        metrics::counter!("edgeway_access_owners_lost_total", "role" => self.role.name())
            .increment(1);
        access.owner_lost(owner).await;
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
