//! The Sessions of this process, found by the name that gateways gave them, and by device; live ones,
//! and those that are kept for the return of their clients.

use std::{
    collections::{HashMap, hash_map::Entry as MapEntry},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use edgeway_events::Events;
use edgeway_proto::rooms::SessionRef;
use parking_lot::Mutex;

use super::{
    devices::{Claim, Devices},
    grace::Grace,
    session::{Identity, Session},
    shown::{Showing, Shown},
};
use crate::{events, links::Link};

/// Locks that the Sessions share: enough that readers of different links seldom meet.
const SHARDS: usize = 64;

/// Sessions at most. At about half a kilobyte each, half a gigabyte.
const SESSIONS_MAX: usize = 1_000_000;

/// Of them, those that may be kept for a return: when a network of a quarter of a million phones
/// fails at once. Above, the one that has waited longest leaves early.
const KEPT_MAX: usize = 250_000;

/// A Session and the link that its client is behind.
pub(super) struct Entry {
    pub(super) link: Arc<Link>,
    /// Boxed: a table keeps room for entries that it does not have.
    pub(super) session: Box<Session>,
    pub(super) standing: Standing,
    /// How long it is kept when its connection is lost; zero for not at all.
    pub(super) grace: Duration,
    /// It in the directory.
    pub(super) shown: Option<Shown>,
}

/// How a Session stands to its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Connected.
    Live,
    /// Opened by early data: not its device's Session before it is confirmed.
    Early,
    /// Its connection was lost.
    Lost,
}

pub(super) struct Table {
    showing: Showing,
    shards: Vec<Mutex<HashMap<SessionRef, Entry>>>,
    devices: Mutex<Devices>,
    grace: Mutex<Grace>,
    start: Instant,
    count: AtomicUsize,
    events: Events,
}

impl Table {
    /// Who comes online and who goes offline is recorded in `events`.
    pub(super) fn new(showing: Showing, events: Events) -> Self {
        Self {
            showing,
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            devices: Mutex::default(),
            grace: Mutex::new(Grace::new(KEPT_MAX)),
            start: Instant::now(),
            count: AtomicUsize::new(0),
            events,
        }
    }

    fn shard(&self, session: SessionRef) -> &Mutex<HashMap<SessionRef, Entry>> {
        // Gateways count their Sessions up, so that the number spreads well by itself.
        let at = session.session.wrapping_add(session.gateway) % SHARDS as u64;
        &self.shards[usize::try_from(at).unwrap_or_default()]
    }

    pub(super) fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    pub(super) fn is_full(&self) -> bool {
        self.count.load(Ordering::Relaxed) >= SESSIONS_MAX
    }

    /// Makes a Session its device's current one.
    pub(super) fn claim(&self, identity: &Identity) -> Claim {
        if self.is_full() {
            return Claim::Full;
        }
        self.record(identity, |devices| devices.claim(identity))
    }

    /// Records, in order, that by this a device has come or gone.
    fn record<T>(&self, identity: &Identity, work: impl FnOnce(&mut Devices) -> T) -> T {
        let mut devices = self.devices.lock();
        let before = devices.len();
        let done = work(&mut devices);
        if devices.len() != before {
            let is_online = devices.len() > before;
            events::device(&self.events, &identity.user, &identity.device, is_online);
        }
        done
    }

    /// The Session of the same type that a device has, and its generation.
    pub(super) fn current(&self, identity: &Identity) -> Option<(SessionRef, u64)> {
        self.devices.lock().current(identity)
    }

    /// See [`Devices::resume`].
    pub(super) fn resume(&self, user: &str, device: &str, token: u64, next: u64) -> bool {
        self.devices.lock().resume(user, device, token, next)
    }

    /// Keeps what a Session has, until a time. One whose time is over because of that comes back.
    pub(super) fn keep(&self, session: SessionRef, grace: Duration) -> Option<SessionRef> {
        let until = self.start.elapsed() + grace;
        let mut kept = self.grace.lock();
        let early = kept.keep(session, until);
        metrics::gauge!("edgeway_access_kept_sessions").set(kept.len() as f64);
        early
    }

    /// Takes up to `max` Sessions whose time is over.
    pub(super) fn due(&self, max: usize) -> Vec<SessionRef> {
        let mut kept = self.grace.lock();
        let due = kept.due(self.start.elapsed(), max);
        metrics::gauge!("edgeway_access_kept_sessions").set(kept.len() as f64);
        due
    }

    /// `false`: there is a Session of that name already.
    pub(super) fn insert(&self, mut entry: Entry) -> bool {
        match self
            .shard(entry.session.identity.session)
            .lock()
            .entry(entry.session.identity.session)
        {
            MapEntry::Occupied(_) => false,
            MapEntry::Vacant(vacant) => {
                self.showing.show(&mut entry);
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
        let mut shard = self.shard(session).lock();
        let entry = shard.get_mut(&session)?;
        let done = f(entry);
        self.showing.show(entry);
        Some(done)
    }

    /// Tells the directory all of a Session.
    pub(super) fn show_anew(&self, session: SessionRef) {
        if let Some(entry) = self.shard(session).lock().get(&session) {
            self.showing.show_anew(entry);
        }
    }

    /// Takes a Session out.
    pub(super) fn remove(&self, session: SessionRef) -> Option<Entry> {
        let entry = self.shard(session).lock().remove(&session)?;
        let count = self.count.fetch_sub(1, Ordering::Relaxed) - 1;
        metrics::gauge!("edgeway_access_sessions").set(count as f64);
        let identity = &entry.session.identity;
        self.record(identity, |devices| devices.release(identity));
        self.grace.lock().forget(session);
        Some(entry)
    }

    /// The Sessions that a condition holds for. Looks at all of them: for what is rare.
    pub(super) fn find(&self, mut holds: impl FnMut(&mut Entry) -> bool) -> Vec<SessionRef> {
        let mut found = Vec::new();
        for shard in &self.shards {
            let mut shard = shard.lock();
            found.extend(shard.iter_mut().filter_map(|(session, entry)| {
                let found = holds(entry);
                self.showing.show(entry);
                found.then_some(*session)
            }));
        }
        found
    }
}
