//! The owners that access passes things on to, and that owners of rooms ask about strokes: in this
//! process or over an uplink, found by rendezvous hashing of the name, or of the handle. Which there are may
//! change at any time.

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
use parking_lot::{Mutex, RwLock};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::session::Route;
use crate::{
    ring::{rendezvous, seed},
    roles::Role,
    shard::{AccessLink, Owner, Replies, Reply, StrokeOwners},
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

    pub(crate) const fn number(self) -> u64 {
        self.0
    }

    #[cfg(test)]
    pub(super) const fn test(at: u64) -> Self {
        Self(at)
    }
}

/// Who passes things on to owners.
pub(crate) trait User: Clone + Send + Sync + 'static {
    fn owners(&self) -> &Owners;

    /// What an owner in this process answers into; it keeps nothing alive.
    fn replies(&self, owner: OwnerId) -> Arc<dyn Replies>;

    /// What an owner says. Never waits.
    fn reply(&self, owner: OwnerId, reply: Reply);

    /// An owner can be reached, perhaps again.
    fn reached(&self, owner: OwnerId);

    /// An owner cannot be reached any more.
    fn lost(&self, owner: OwnerId);
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
    /// Whose owners they are.
    roles: Vec<Role>,
    tasks: TaskTracker,
    /// Ends the tasks that keep owners reached; there once they run.
    running: Mutex<Option<CancellationToken>>,
}

/// Which owners of a role came and which went.
#[derive(Debug, Default)]
pub(crate) struct Change {
    new: Vec<OwnerId>,
    pub(crate) gone: Vec<OwnerId>,
    /// Where owners are kept reached, the end of that.
    pub(crate) stop: Option<CancellationToken>,
}

impl Change {
    fn is_none(&self) -> bool {
        self.new.is_empty() && self.gone.is_empty()
    }
}

impl Owners {
    pub(crate) fn new(access: u64, roles: Vec<Role>, tasks: TaskTracker) -> Self {
        let (nodes, next, running) = (RwLock::default(), AtomicU64::new(1), Mutex::new(None));
        Self { nodes, next, access, roles, tasks, running }
    }

    /// Names this run of access.
    pub(super) fn access(&self) -> u64 {
        self.access
    }

    /// Keeps all of them reached until `stop`, and those that come later.
    pub(crate) fn keep_all(user: &impl User, stop: &CancellationToken) {
        let owners = user.owners();
        let mut running = owners.running.lock();
        for owner in owners.ids() {
            owners.tasks.spawn(Self::keep(user.clone(), owner, stop.clone()));
        }
        *running = Some(stop.clone());
    }

    /// From now on the owners of a role are those of these names; the new ones are kept reached. `None`:
    /// they are the same.
    ///
    /// # Errors
    /// One that cannot be made; nothing has changed then.
    pub(crate) fn change<E>(
        user: &impl User,
        role: Role,
        names: &[String],
        make: impl Fn(&str) -> Result<Node, E>,
    ) -> Result<Option<Change>, E> {
        let owners = user.owners();
        if !owners.roles.contains(&role) {
            return Ok(None);
        }
        let running = owners.running.lock();
        let mut change = owners.replace(role, names, make)?;
        change.stop = running.clone();
        if let Some(stop) = &change.stop {
            for owner in &change.new {
                owners.tasks.spawn(Self::keep(user.clone(), *owner, stop.clone()));
            }
        }
        Ok((!change.is_none()).then_some(change))
    }

    /// From now on the owners of a role are those of these names; `make` makes those that are new.
    ///
    /// # Errors
    /// One that cannot be made; nothing has changed then.
    fn replace<E>(
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

    fn ids(&self) -> Vec<OwnerId> {
        self.nodes.read().keys().copied().collect()
    }

    fn node(&self, owner: OwnerId) -> Option<Arc<Node>> {
        self.nodes.read().get(&owner).cloned()
    }

    fn reach(&self, owner: OwnerId) -> Option<Arc<Reach>> {
        self.node(owner)?.reach.read().clone()
    }

    /// Passes an item on, waiting while the owner's queue is full. `false`: it cannot be reached.
    pub(crate) async fn send(&self, owner: OwnerId, stream: Stream, item: Item) -> bool {
        let Some(reach) = self.reach(owner) else { return false };
        match &*reach {
            Reach::Here(link) => {
                link.send(stream, item).await;
                true
            }
            Reach::There(uplink) => uplink.send(stream, item).await,
        }
    }

    /// Passes strokes on. For an owner that does not read them nobody waits, since chat would wait too:
    /// its uplink is cut. `false`: it cannot be reached.
    pub(super) async fn send_strokes(&self, owner: OwnerId, item: Item) -> bool {
        let Some(reach) = self.reach(owner) else { return false };
        match &*reach {
            Reach::Here(link) => {
                link.send(Stream::Bulk, item).await;
                true
            }
            Reach::There(uplink) => uplink.offer(Stream::Bulk, item),
        }
    }

    /// The owners that cannot be reached now, for readiness.
    pub(crate) fn unreachable(&self) -> Vec<String> {
        let nodes = self.nodes.read();
        let lost = nodes.values().filter(|node| node.reach.read().is_none());
        let mut lost: Vec<_> =
            lost.map(|node| format!("{} {}", node.role.name(), node.name)).collect();
        for role in self.roles.iter().copied() {
            if !nodes.values().any(|node| node.role == role) {
                lost.push(format!("any instance with the role {}", role.name()));
            }
        }
        lost
    }

    /// Keeps an owner reached until `stop`, or until it is none any more.
    async fn keep(user: impl User, owner: OwnerId, stop: CancellationToken) {
        let Some(node) = user.owners().node(owner) else { return };
        let mut pause = BACKOFF_MIN;
        loop {
            let began = Instant::now();
            tokio::select! {
                () = stop.cancelled() => return,
                () = node.gone.cancelled() => return,
                () = node.reach_once(&user, owner) => {}
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

impl Owners {
    pub(crate) fn find(&self, role: Role, key: &[u8]) -> Option<OwnerId> {
        let nodes = self.nodes.read();
        let of_role = nodes.iter().filter(|(_, node)| node.role == role);
        rendezvous(of_role.map(|(id, node)| (*id, node.seed)), key)
    }
}

impl Route for Owners {
    fn owner(&self, role: Role, room: &str) -> OwnerId {
        self.find(role, room.as_bytes()).unwrap_or(OwnerId::NOBODY)
    }

    fn strokes(&self, group: u64) -> Option<OwnerId> {
        // Whether strokes are apart is the config's to say, in all processes alike, and not who is there.
        let apart = self.roles.contains(&Role::Binary);
        apart.then(|| self.find(Role::Binary, &group.to_be_bytes()).unwrap_or(OwnerId::NOBODY))
    }
}

impl StrokeOwners for Owners {
    fn owner(&self, group: u64) -> Option<u64> {
        self.find(Role::Binary, &group.to_be_bytes()).map(|OwnerId(id)| id)
    }

    fn send(&self, owner: u64, item: Item) -> bool {
        match self.reach(OwnerId(owner)).as_deref() {
            None => false,
            Some(Reach::Here(link)) => link.offer(Stream::Control, item),
            Some(Reach::There(uplink)) => uplink.offer(Stream::Control, item),
        }
    }
}

impl Node {
    /// Reaches the owner, and returns when it is lost again.
    async fn reach_once(&self, user: &impl User, owner: OwnerId) {
        match &self.place {
            Place::Here(local) => {
                let link = Reach::Here(local.attach(user.owners().access, user.replies(owner)));
                let reach = Arc::new(link);
                if self.reached(Arc::clone(&reach)) {
                    user.reached(owner);
                }
                if let Reach::Here(link) = &*reach {
                    link.lost().await;
                }
            }
            Place::There(dialler) => {
                let (uplink, replies) = match dialler.dial(user.owners().access).await {
                    Ok(dialled) => dialled,
                    Err(status) => {
                        let reason = causes(&status);
                        tracing::warn!(owner = %self.name, role = self.role.name(), reason, "an owner cannot be reached");
                        return;
                    }
                };
                tracing::info!(owner = %self.name, role = self.role.name(), "an owner is reached");
                let cut = uplink.ended().clone();
                if self.reached(Arc::new(Reach::There(uplink))) {
                    user.reached(owner);
                }
                let end = tokio::select! {
                    end = replies.run(|reply| user.reply(owner, reply)) => end,
                    () = cut.cancelled() => tonic::Status::resource_exhausted("it does not read what it is sent"),
                };
                tracing::warn!(owner = %self.name, role = self.role.name(), reason = end.message(), "an owner is lost");
            }
        }
        *self.reach.write() = None;
        metrics::counter!("edgeway_access_owners_lost_total", "role" => self.role.name())
            .increment(1);
        user.lost(owner);
    }

    /// `false`: it is no owner any more.
    fn reached(&self, reach: Arc<Reach>) -> bool {
        let mut current = self.reach.write();
        // Under the lock, so that whoever has seen it go finds nothing here afterwards.
        let is_owner = !self.gone.is_cancelled();
        if is_owner {
            *current = Some(reach);
        }
        is_owner
    }
}

/// Between half and all of a pause, so that many who lost the same owner do not come back at once.
fn jitter(pause: Duration) -> Duration {
    let mut byte = [0];
    // Without random numbers everyone waits the same time, which is no harm to this one.
    let _ = getrandom::fill(&mut byte);
    pause / 2 + pause / 2 * u32::from(byte[0]) / 255
}
