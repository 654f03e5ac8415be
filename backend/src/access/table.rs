//! The Sessions of this process, found by the name that gateways gave them, and by device.

use std::{
    collections::{HashMap, hash_map::Entry as MapEntry},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use edgeway_proto::rooms::SessionRef;
use parking_lot::Mutex;

use super::{
    session::{Identity, Session},
    space::SessionType,
};
use crate::links::Link;

/// Locks that the Sessions share: enough that readers of different links seldom meet.
const SHARDS: usize = 64;

/// Sessions at most. At about half a kilobyte each, half a gigabyte.
const SESSIONS_MAX: usize = 1_000_000;

/// A Session and the link that its client is behind.
pub(super) struct Entry {
    pub(super) link: Arc<Link>,
    pub(super) session: Session,
}

pub(super) struct Table {
    shards: Vec<Mutex<HashMap<SessionRef, Entry>>>,
    devices: Mutex<HashMap<Device, Current>>,
    count: AtomicUsize,
}

/// One Session of each type lives for each device.
#[derive(PartialEq, Eq, Hash)]
pub(super) struct Device {
    kind: SessionType,
    user: String,
    device: String,
}

impl Device {
    pub(super) fn of(identity: &Identity) -> Self {
        let (user, device) = (identity.user.clone(), identity.device.clone());
        Self { kind: identity.kind, user, device }
    }
}

#[derive(Clone, Copy)]
struct Current {
    session: SessionRef,
    generation: u64,
}

/// What became of a claim to be a device's Session.
pub(super) enum Claim {
    /// It is, and this is the one that it takes over from.
    Granted(Option<SessionRef>),
    /// A newer one is there.
    Older,
    /// There are as many Sessions as there may be.
    Full,
}

impl Table {
    pub(super) fn new() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            devices: Mutex::default(),
            count: AtomicUsize::new(0),
        }
    }

    fn shard(&self, session: SessionRef) -> &Mutex<HashMap<SessionRef, Entry>> {
        // Gateways count their Sessions up, so that the number spreads well by itself.
        let at = session.session.wrapping_add(session.gateway) % SHARDS as u64;
        &self.shards[usize::try_from(at).unwrap_or_default()]
    }

    /// Makes a Session its device's current one.
    pub(super) fn claim(&self, identity: &Identity) -> Claim {
        if self.count.load(Ordering::Relaxed) >= SESSIONS_MAX {
            return Claim::Full;
        }
        let mine = Current { session: identity.session, generation: identity.generation };
        match self.devices.lock().entry(Device::of(identity)) {
            MapEntry::Vacant(vacant) => {
                vacant.insert(mine);
                Claim::Granted(None)
            }
            MapEntry::Occupied(occupied) if occupied.get().generation > mine.generation => {
                Claim::Older
            }
            MapEntry::Occupied(mut occupied) => Claim::Granted(Some(occupied.insert(mine).session)),
        }
    }

    /// A device's current Session.
    pub(super) fn current(&self, device: &Device) -> Option<SessionRef> {
        self.devices.lock().get(device).map(|current| current.session)
    }

    /// `false`: there is a Session of that name already.
    pub(super) fn insert(&self, entry: Entry) -> bool {
        match self
            .shard(entry.session.identity.session)
            .lock()
            .entry(entry.session.identity.session)
        {
            MapEntry::Occupied(_) => false,
            MapEntry::Vacant(vacant) => {
                vacant.insert(entry);
                let count = self.count.fetch_add(1, Ordering::Relaxed) + 1;
                metrics::gauge!("edgeway_access_sessions").set(count as f64);
                true
            }
        }
    }

    /// Works on a Session under its lock; `None` where it is not there.
    pub(super) fn with<T>(
        &self,
        session: SessionRef,
        f: impl FnOnce(&mut Entry) -> T,
    ) -> Option<T> {
        self.shard(session).lock().get_mut(&session).map(f)
    }

    /// Takes a Session out.
    pub(super) fn remove(&self, session: SessionRef) -> Option<Entry> {
        let entry = self.shard(session).lock().remove(&session)?;
        let count = self.count.fetch_sub(1, Ordering::Relaxed) - 1;
        metrics::gauge!("edgeway_access_sessions").set(count as f64);
        let mut devices = self.devices.lock();
        let device = Device::of(&entry.session.identity);
        if devices.get(&device).is_some_and(|current| current.session == session) {
            devices.remove(&device);
        }
        Some(entry)
    }

    /// The Sessions that a condition holds for. Looks at all of them: for what is rare.
    pub(super) fn find(&self, mut holds: impl FnMut(&mut Entry) -> bool) -> Vec<SessionRef> {
        let mut found = Vec::new();
        for shard in &self.shards {
            let mut shard = shard.lock();
            found.extend(shard.iter_mut().filter_map(|(session, e)| holds(e).then_some(*session)));
        }
        found
    }
}
