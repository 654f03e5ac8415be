//! Sessions and groups: who gets what is published. The hub holds outboxes, never connections;
//! a connection holds a [`Registration`], and leaves the hub by dropping it.
//!
//! A group's lock is held while a publication is pushed to its members, and while a member's
//! state changes. So a member that has caught up up to the head misses nothing and gets nothing
//! twice: either it was live before the publication or its head includes it.

mod owners;
mod sources;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use edgeway_proto::{
    Class, CloseCode, Seq,
    frame::{Behind, CloseSession, measure},
    limits::REASON_BYTES,
};
use parking_lot::{Mutex, MutexGuard, RwLock};

use crate::{
    metrics::Metrics,
    opening::Opening,
    outbox::{Outbox, Push, Segment},
    routing::{Keys, Route},
};

/// Segments that a publication is cut into: what is handed to a transport at a time. Cut once for
/// all members.
const SEGMENT_BYTES: usize = 3 * 1024;

/// One open Session of one connection.
#[derive(Debug)]
pub struct Session {
    /// Unique in the life of the gateway.
    pub id: u64,
    /// The client's number for it, 1 to 63.
    pub number: u8,
    /// The connection's outbox.
    pub outbox: Arc<Outbox>,
    /// The link that serves it.
    pub link: u64,
    /// What led it there.
    pub route: Arc<Route>,
    /// What it may be routed by.
    pub keys: Keys,
    closed: AtomicBool,
    /// Groups that it is subscribed to.
    groups: Mutex<Vec<u64>>,
}

impl Session {
    /// Whether the backend or the gateway has ended it.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Ends it and tells the client why. The first reason stands.
    pub fn close(&self, code: CloseCode, reason: &str, retry_after_ms: u64) {
        if !self.closed.swap(true, Ordering::AcqRel) {
            let session = u64::from(self.number);
            // A backend's may be longer than the wire allows.
            let reason = &reason[..reason.floor_char_boundary(REASON_BYTES)];
            let frame =
                CloseSession { session, code: code.code(), retry_after_ms, reason: reason.into() };
            let frame = frame.to_bytes();
            self.outbox.with(|p| p.close_session(self.number, frame));
        }
    }
}

/// A Session's place in the hub; dropping it leaves every group.
#[derive(Debug)]
pub struct Registration {
    hub: Arc<Hub>,
    session: Arc<Session>,
}

impl std::ops::Deref for Registration {
    type Target = Arc<Session>;
    fn deref(&self) -> &Arc<Session> {
        &self.session
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.session.closed.store(true, Ordering::Release);
        self.hub.sessions.write().remove(&self.session.id);
        self.hub.opened(self.session.id);
        // Not in the loop's head: the lock must be released before groups are locked.
        let groups = std::mem::take(&mut *self.session.groups.lock());
        for group in groups {
            self.hub.remove(group, self.session.id);
        }
    }
}

/// How a member stands to a class of its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Not subscribed.
    Out,
    /// Gets what is published.
    Live,
    /// Does not, until it has caught up.
    Behind,
    /// Does not, until whoever publishes has said so; then it is behind.
    Waiting,
}

#[derive(Debug)]
struct Member {
    session: Arc<Session>,
    standing: [Standing; 3],
}

#[derive(Debug)]
struct Group {
    /// The link of the owner of each class.
    links: [u64; 3],
    /// Of a class that is subscribed elsewhere, the link that it is published on; 0 for none.
    sources: [u64; 3],
    heads: [Seq; 3],
    members: HashMap<u64, Member>,
    /// It was empty and has left the hub; who finds it so makes a new one.
    dead: bool,
}

impl Group {
    /// A Session among the members, made one where it is not.
    fn member(&mut self, group: u64, session: &Arc<Session>) -> &mut Member {
        self.members.entry(session.id).or_insert_with(|| {
            session.groups.lock().push(group);
            Member { session: Arc::clone(session), standing: [Standing::Out; 3] }
        })
    }
}

/// All Sessions and groups of a gateway.
#[derive(Debug)]
pub struct Hub {
    sessions: RwLock<HashMap<u64, Arc<Session>>>,
    groups: RwLock<HashMap<u64, Arc<Mutex<Group>>>>,
    opening: Opening,
    next: AtomicU64,
    metrics: Metrics,
}

impl Hub {
    /// An empty hub.
    #[must_use]
    pub fn new(metrics: Metrics) -> Arc<Self> {
        Arc::new(Self {
            sessions: RwLock::default(),
            groups: RwLock::default(),
            opening: Opening::default(),
            next: AtomicU64::new(1),
            metrics,
        })
    }

    /// Registers a Session whose backend is asked at this moment.
    pub fn register(
        self: &Arc<Self>,
        outbox: Arc<Outbox>,
        number: u8,
        link: u64,
        route: Arc<Route>,
        keys: Keys,
        now: Instant,
    ) -> Registration {
        let session = Arc::new(Session {
            id: self.next.fetch_add(1, Ordering::Relaxed),
            number,
            outbox,
            link,
            route,
            keys,
            closed: AtomicBool::new(false),
            groups: Mutex::default(),
        });
        self.sessions.write().insert(session.id, Arc::clone(&session));
        self.opening.begin(session.id, now);
        Registration { hub: Arc::clone(self), session }
    }

    /// The Session of an id, while it is open.
    #[must_use]
    pub fn session(&self, id: u64) -> Option<Arc<Session>> {
        self.sessions.read().get(&id).cloned()
    }

    /// The Session's backend has answered.
    pub fn opened(&self, id: u64) {
        self.opening.end(id);
    }

    /// The Sessions whose backends have not answered for `patience`; each is given once.
    #[must_use]
    pub fn unanswered(&self, patience: Duration, now: Instant) -> Vec<Arc<Session>> {
        let overdue = self.opening.overdue(patience, now);
        let sessions = overdue.into_iter().filter_map(|id| self.session(id));
        sessions.filter(|session| !session.is_closed()).collect()
    }

    /// Every Session that is open.
    #[must_use]
    pub fn all_sessions(&self) -> Vec<Arc<Session>> {
        self.sessions.read().values().cloned().collect()
    }

    /// Whether a link serves a Session that has not been ended.
    #[must_use]
    pub fn is_served_by(&self, link: u64) -> bool {
        self.sessions.read().values().any(|one| one.link == link && !one.is_closed())
    }

    /// Sessions that are open.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.sessions.read().len()
    }

    /// Groups that have members here.
    #[must_use]
    pub fn groups(&self) -> usize {
        self.groups.read().len()
    }

    /// Subscribes a Session to a class of a group, from `head` on. `have` is what the client has;
    /// where that is less, it is behind. What comes from an owner that another one has followed is
    /// dropped, here and below.
    pub fn subscribe(
        &self,
        link: u64,
        id: u64,
        group: u64,
        class: Class,
        head: Seq,
        have: Option<Seq>,
    ) {
        let Some(session) = self.session(id) else { return };
        self.with_group(group, |g| {
            let at = class.index();
            if g.is_stale(class, head.epoch) {
                return self.metrics.stale(class);
            }
            g.links[at] = link;
            g.heads[at] = g.heads[at].max(head);
            let live = have.is_none_or(|have| have == g.heads[at]);
            let head = g.heads[at];
            let member = g.member(group, &session);
            if live {
                member.standing[at] = Standing::Live;
            } else {
                self.fall_behind(member, group, class, head);
            }
        });
        // It may have gone while it was being subscribed; then nobody else removes it.
        if session.is_closed() {
            self.remove(group, id);
        }
    }

    /// Ends a Session's subscription of the classes that travel on one stream of a link. Only the
    /// owner's link can.
    pub fn unsubscribe(&self, link: u64, id: u64, group: u64, classes: &[Class]) {
        let Some(entry) = self.group(group) else { return };
        let mut g = entry.lock();
        let owned = g.owned_by(link);
        let Some(member) = g.members.get_mut(&id) else { return };
        for class in classes {
            if owned[class.index()] {
                member.standing[class.index()] = Standing::Out;
            } else {
                self.metrics.stale(*class);
            }
        }
        if member.standing.iter().all(|s| *s == Standing::Out) {
            member.session.groups.lock().retain(|g| *g != group);
            // Before the lock is released: the other stream may subscribe the Session anew.
            g.members.remove(&id);
            self.leave(group, &entry, g);
        }
    }

    /// Delivers to every live member of a class of a group. `count` positions from `first`; 0 for
    /// frames outside of the sequence.
    pub fn publish(&self, group: u64, class: Class, first: Seq, count: u32, frames: &Bytes) {
        let Some(entry) = self.group(group) else { return };
        let segments = segments(group, first, count, frames);
        let mut g = entry.lock();
        let at = class.index();
        let head = Seq::new(first.epoch, (first.counter + u64::from(count)).saturating_sub(1));
        if g.is_stale(class, first.epoch) {
            return self.metrics.stale(class);
        }
        if count > 0 {
            if head <= g.heads[at] {
                // A repeat.
                return;
            }
            g.heads[at] = head;
        }
        let (mut delivered, mut shed) = (0, 0);
        for member in g.members.values_mut().filter(|m| m.standing[at] == Standing::Live) {
            match member.session.outbox.push(member.session.number, class, &segments) {
                Push::Queued { shed: n } => {
                    delivered += 1;
                    shed += n;
                }
                Push::Full if count > 0 => self.fall_behind(member, group, class, head),
                Push::Full | Push::Gone => {}
            }
        }
        drop(g);
        self.metrics.published(class, delivered * u64::from(count.max(1)), shed);
    }

    /// A client says that it has everything up to `last`.
    pub fn caught_up(&self, id: u64, group: u64, class: Class, last: Seq) {
        let Some(entry) = self.group(group) else { return };
        let mut g = entry.lock();
        let head = g.heads[class.index()];
        let silent = g.is_silent(class);
        let Some(member) = g.members.get_mut(&id) else { return };
        if member.standing[class.index()] != Standing::Behind {
            return;
        }
        if last >= head {
            member.standing[class.index()] =
                if silent { Standing::Waiting } else { Standing::Live };
        } else {
            self.fall_behind(member, group, class, head);
        }
    }

    /// Marks a member behind and tells its client, in order after what it was sent.
    fn fall_behind(&self, member: &mut Member, group: u64, class: Class, head: Seq) {
        member.standing[class.index()] = Standing::Behind;
        let frame = Behind { group, class, head }.to_bytes();
        member.session.outbox.push_reply(member.session.number, class, frame);
        self.metrics.behind(class);
    }

    fn group(&self, group: u64) -> Option<Arc<Mutex<Group>>> {
        self.groups.read().get(&group).cloned()
    }

    /// Works on a group, made where it is not there.
    fn with_group<T>(&self, group: u64, work: impl FnOnce(&mut Group) -> T) -> T {
        loop {
            let entry = self.group_or_new(group);
            let mut g = entry.lock();
            if !g.dead {
                return work(&mut g);
            }
            drop(g);
            self.forget(group, &entry);
        }
    }

    fn group_or_new(&self, group: u64) -> Arc<Mutex<Group>> {
        if let Some(entry) = self.group(group) {
            return entry;
        }
        let mut groups = self.groups.write();
        let entry = groups.entry(group).or_insert_with(|| {
            Arc::new(Mutex::new(Group {
                links: [0; 3],
                sources: [0; 3],
                heads: [Seq::ZERO; 3],
                members: HashMap::new(),
                dead: false,
            }))
        });
        Arc::clone(entry)
    }

    fn remove(&self, group: u64, session: u64) {
        let Some(entry) = self.group(group) else { return };
        let mut g = entry.lock();
        g.members.remove(&session);
        self.leave(group, &entry, g);
    }

    /// After a member has left.
    fn leave(&self, group: u64, entry: &Arc<Mutex<Group>>, mut g: MutexGuard<'_, Group>) {
        g.dead = g.members.is_empty() && g.sources == [0; 3];
        let dead = g.dead;
        drop(g);
        if dead {
            self.forget(group, entry);
        }
    }

    fn forget(&self, group: u64, dead: &Arc<Mutex<Group>>) {
        let mut groups = self.groups.write();
        // Another one of that name may have been made by now.
        if groups.get(&group).is_some_and(|found| Arc::ptr_eq(found, dead)) {
            groups.remove(&group);
        }
    }
}

/// Cuts a publication at frame boundaries.
fn segments(group: u64, first: Seq, count: u32, frames: &Bytes) -> Vec<Segment> {
    let mut segments = Vec::with_capacity(frames.len() / SEGMENT_BYTES + 1);
    let (mut start, mut end, mut messages, mut counter) = (0, 0, 0, first.counter);
    while let Ok(Some((header, body))) = measure(&frames[end..])
        && end + header + body <= frames.len()
    {
        let next = end + header + body;
        if messages > 0 && next - start > SEGMENT_BYTES {
            let upto = Seq::new(first.epoch, counter - 1);
            segments.push(Segment { frames: frames.slice(start..end), group, upto, messages });
            (start, messages) = (end, 0);
        }
        messages += 1;
        counter += 1;
        end = next;
    }
    if messages > 0 {
        let upto = Seq::new(first.epoch, counter - 1);
        segments.push(Segment { frames: frames.slice(start..end), group, upto, messages });
    }
    if count == 0 {
        for segment in &mut segments {
            segment.group = 0;
        }
    }
    segments
}

#[cfg(test)]
#[path = "hub_tests.rs"]
mod tests;
