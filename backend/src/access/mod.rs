//! Access: the backend of the Session types chat, im, push and research_push. It holds the state
//! of each Session and passes what a client asks on to the owners of rooms and inboxes; what they
//! answer goes to the client's gateway without coming by here.

mod coming;
mod devices;
mod grace;
mod out;
mod owners;
mod rights;
mod session;
mod shown;
mod space;
mod table;
#[cfg(test)]
mod tests;

use std::{
    collections::HashSet,
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};

use bytes::Bytes;
use edgeway_events::Events;
use edgeway_proto::{
    Class, CloseCode,
    link::{self, Data, Stream, down_item},
    rooms::{self, SessionRef, from_owner_item, to_owner_item::Item},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    out::{Fatal, Out, RETRY_MS, unavailable},
    session::Place,
    shown::Showing,
    table::{Entry, Table},
};
pub(crate) use self::{
    owners::{Node, OwnerId, Owners, User},
    space::{EVERYONE, TOPIC, check_topic},
};
use crate::{
    auth::Resumable,
    directory::Recorder,
    links::Link,
    roles::Role,
    shard::{Replies, Reply},
};

/// After which a client may join again where no link of its gateway reached the owner: links are
/// dialled anew within this time.
const UNREACHABLE_RETRY_MS: u64 = 500;

/// An owner whose rooms are another one's now hands them over by itself, in this time. Those that it has not
/// are moved from here.
const HANDOVER: Duration = Duration::from_secs(3);

/// A handle on access, cheap to clone.
#[derive(Clone)]
pub(crate) struct Access(Arc<Inner>);

pub(crate) struct Inner {
    table: Table,
    owners: Owners,
    rooms_max: Arc<AtomicUsize>,
    tasks: TaskTracker,
}

impl Access {
    /// `rooms_max` are the rooms that a Session may be in; it may be changed. `recorder`: the way to the
    /// directory.
    pub(crate) fn new(
        owners: Owners,
        rooms_max: Arc<AtomicUsize>,
        recorder: Recorder,
        tasks: TaskTracker,
        events: Events,
    ) -> Self {
        Self(Arc::new_cyclic(|inner| {
            let showing = Showing::new(recorder, inner, owners.access());
            Inner { table: Table::new(showing, events), owners, rooms_max, tasks }
        }))
    }

    /// Reaches the owners, and lets go who does not come back, until `stop`.
    pub(crate) fn run(&self, stop: &CancellationToken) {
        Owners::keep_all(self, stop);
        self.0.tasks.spawn(self.clone().keep_time(stop.clone()));
    }

    /// From now on the owners of a role are those of these names. Those who are in rooms of one that is
    /// gone are told to join again, as are those in rooms that have another owner now, and those who have
    /// drawn where strokes have another one.
    ///
    /// # Errors
    /// One that `make` cannot make; nothing has changed then.
    pub(crate) fn set_owners<E>(
        &self,
        role: Role,
        names: &[String],
        make: impl Fn(&str) -> Result<Node, E>,
    ) -> Result<(), E> {
        let Some(change) = Owners::change(self, role, names, make)? else { return Ok(()) };
        for owner in change.gone {
            self.lost(owner);
        }
        if role == Role::Binary {
            self.draw_moved();
        } else if let Some(stop) = change.stop {
            self.0.tasks.spawn(self.clone().move_later(stop));
        }
        Ok(())
    }

    /// Strokes of some groups have another owner now. It knows what the one before has stored, and those who
    /// have drawn are told to join again at once, to send it what was not acked.
    fn draw_moved(&self) {
        let mut told = 0;
        self.0.table.find(|entry| {
            let mut out = Vec::new();
            told += entry.session.draw_moved(&self.0.owners, &mut out) as u64;
            tell(entry, &mut out);
            false
        });
        metrics::counter!("edgeway_access_told_to_join_again_total").increment(told);
    }

    async fn move_later(self, stop: CancellationToken) {
        tokio::select! {
            () = tokio::time::sleep(HANDOVER) => {}
            () = stop.cancelled() => return,
        }
        let (mut moved, mut leaves) = (0, Vec::new());
        self.0.table.find(|entry| {
            let mut out = Vec::new();
            let (lost, left) = entry.session.lose_moved(&self.0.owners, &mut out);
            moved += lost;
            leaves.extend(left);
            tell(entry, &mut out);
            false
        });
        count_lost("moved", moved);
        self.send(leaves).await;
    }

    /// Sessions that it has.
    pub(crate) fn sessions(&self) -> usize {
        self.0.table.len()
    }

    pub(crate) fn downgrade(&self) -> std::sync::Weak<Inner> {
        Arc::downgrade(&self.0)
    }

    pub(crate) fn upgrade(weak: &std::sync::Weak<Inner>) -> Option<Self> {
        weak.upgrade().map(Self)
    }

    /// Frames of a client. Returns once they are with the owners' queues, so that a link is read
    /// only as fast as they take them.
    pub(crate) async fn data(&self, link: &Link, stream: Stream, data: Data) {
        let class = Class::from(data.class());
        let session = SessionRef { gateway: link.gateway, session: data.session };
        let done = self.drive(session, |entry, owners, out| {
            entry.session.data(owners, class, &data.frames, out)
        });
        if done.await {
            return;
        }
        // It may have been closed from here just now; where not, the gateway must know. On BULK it
        // may also be ahead of its own opening, which only what is not joined yet can be.
        metrics::counter!("edgeway_access_unknown_sessions_total").increment(1);
        if stream == Stream::Control {
            link.close(data.session, CloseCode::NotOpen, "this Session is not open");
        }
    }

    /// Takes up what was parked for Sessions of a link.
    pub(crate) async fn resume(&self, link: &Link, stream: Stream, sessions: HashSet<u64>) {
        for session in sessions {
            let session = SessionRef { gateway: link.gateway, session };
            self.drive(session, |entry, owners, out| entry.session.unpark(owners, stream, out))
                .await;
        }
    }

    /// Works on a Session, and then sends what came out of it. `false`: it is not there.
    async fn drive(
        &self,
        session: SessionRef,
        work: impl FnOnce(&mut Entry, &Owners, &mut Vec<Out>) -> Result<(), Fatal>,
    ) -> bool {
        let mut out = Vec::new();
        let result = self.0.table.with(session, |entry| {
            let result = work(entry, &self.0.owners, &mut out);
            tell(entry, &mut out);
            result
        });
        for item in out {
            if let Out::Owner(owner, stream, item) = item {
                self.pass_on(owner, stream, item).await;
            }
        }
        match result {
            None => false,
            Some(Ok(())) => true,
            Some(Err(fatal)) => {
                self.end(session, Some(fatal)).await;
                true
            }
        }
    }

    async fn pass_on(&self, owner: OwnerId, stream: Stream, item: Item) {
        let join = match &item {
            Item::Join(join) => join.session.map(|session| (session, join.request)),
            // Where they cannot be passed on, the client sends them again once they can.
            Item::Strokes(_) => {
                if !self.0.owners.send_strokes(owner, item).await {
                    metrics::counter!("edgeway_access_strokes_dropped_total").increment(1);
                }
                return;
            }
            _ => None,
        };
        if self.0.owners.send(owner, stream, item).await {
            return;
        }
        // Other items are for groups of an owner that is lost: their clients are being told.
        if let Some((session, request)) = join {
            self.refused(owner, session, request, Some(RETRY_MS));
        }
    }

    /// Takes a Session out, tells its client why where that is to be told, and its owners.
    async fn end(&self, session: SessionRef, why: Option<Fatal>) {
        let Some(entry) = self.0.table.remove(session) else { return };
        if let Some(Fatal { code, reason }) = why {
            metrics::counter!("edgeway_access_sessions_closed_total", "code" => code.name())
                .increment(1);
            entry.link.close(session.session, code, reason);
        }
        self.send(entry.session.leaves()).await;
    }

    /// A link of a gateway is gone, and its Sessions with it.
    pub(crate) fn link_gone(&self, link: &Arc<Link>) {
        let sessions = self.0.table.find(|entry| Arc::ptr_eq(&entry.link, link));
        let access = self.clone();
        self.0.tasks.spawn(async move {
            for session in sessions {
                access.end(session, None).await;
            }
        });
    }

    /// Strokes of those who have sent some to an owner, or acks from it, may be lost: they join again. `at`: the
    /// gateway that it concerns, or all.
    fn draw_again(&self, owner: OwnerId, at: Option<u64>) {
        let mut told = 0;
        self.0.table.find(|entry| {
            if at.is_none_or(|gateway| entry.session.identity.session.gateway == gateway) {
                let mut out = Vec::new();
                told += entry.session.draw_again(owner, &mut out) as u64;
                tell(entry, &mut out);
            }
            false
        });
        metrics::counter!("edgeway_access_told_to_join_again_total").increment(told);
    }

    fn joined(&self, owner: OwnerId, session: SessionRef, request: u64, group: u64) {
        let joined = self.0.table.with(session, |entry| {
            let joined = entry.session.joined(owner, request, group);
            wake(entry);
            joined
        });
        let leave = match joined.flatten() {
            Some(None) => return,
            // The older Session's place, where this one has not taken just that.
            Some(Some(place)) => place.leave(),
            // The Session ended while it joined, or has given the owner up.
            None => {
                self.0.table.with(session, |entry| {
                    let mut out = Vec::new();
                    entry.session.let_in_too_late(group, &mut out);
                    tell(entry, &mut out);
                });
                let leave = rooms::Leave { session: Some(session), request: 0, group };
                (owner, Item::Leave(leave))
            }
        };
        self.send_later(vec![leave]);
    }

    /// Sends to owners, for those who must not wait.
    fn send_later(&self, items: Vec<(OwnerId, Item)>) {
        let access = self.clone();
        self.0.tasks.spawn(async move { access.send(items).await });
    }

    async fn send(&self, items: Vec<(OwnerId, Item)>) {
        for (owner, item) in items {
            self.0.owners.send(owner, Stream::Control, item).await;
        }
    }

    async fn give_up(&self, places: Vec<Place>) {
        self.send(places.iter().map(Place::leave).collect()).await;
    }

    /// A join failed. `retry_ms`: the client has not been told, and may try again after it.
    fn refused(&self, owner: OwnerId, session: SessionRef, request: u64, retry_ms: Option<u64>) {
        self.0.table.with(session, |entry| {
            if entry.session.refused(owner, request) {
                let mut out = Vec::new();
                out.extend(retry_ms.map(|retry_ms| unavailable(request, retry_ms)));
                tell(entry, &mut out);
            }
            wake(entry);
        });
    }
}

impl User for Access {
    fn owners(&self) -> &Owners {
        &self.0.owners
    }

    fn replies(&self, owner: OwnerId) -> Arc<dyn Replies> {
        Arc::new(ToAccess { access: self.downgrade(), owner })
    }

    fn reply(&self, owner: OwnerId, reply: Reply) {
        match reply {
            Reply::Item(from_owner_item::Item::Joined(joined)) => {
                if let Some(session) = joined.session {
                    self.joined(owner, session, joined.request, joined.group);
                }
            }
            Reply::Item(from_owner_item::Item::Left(left)) => {
                if let Some(session) = left.session {
                    self.0.table.with(session, |entry| entry.session.left(owner, left.group));
                }
            }
            Reply::Item(from_owner_item::Item::Refused(refused)) => {
                if let Some(session) = refused.session {
                    let untold = (refused.code != 0).then_some(UNREACHABLE_RETRY_MS);
                    self.refused(owner, session, refused.request, untold);
                }
            }
            Reply::Item(from_owner_item::Item::Reached(reached)) => {
                self.draw_again(owner, Some(reached.gateway));
            }
            // It has not asked.
            Reply::Item(from_owner_item::Item::Answer(_) | from_owner_item::Item::Pushed(_)) => {}
            Reply::Unreachable(refused) => {
                if let Some(session) = refused.session {
                    self.refused(owner, session, refused.request, Some(UNREACHABLE_RETRY_MS));
                }
            }
        }
    }

    fn reached(&self, owner: OwnerId) {
        self.draw_again(owner, None);
    }

    /// Those who are in its groups are told that they are out, and join again; joins that it has not answered
    /// fail. Where it has strokes only, they wait for it.
    fn lost(&self, owner: OwnerId) {
        let mut lost = 0;
        self.0.table.find(|entry| {
            let mut out = Vec::new();
            lost += entry.session.lose_owner(owner, &mut out);
            tell(entry, &mut out);
            wake(entry);
            false
        });
        count_lost("lost", lost);
    }
}

/// What an owner in this process answers into.
struct ToAccess {
    access: std::sync::Weak<Inner>,
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

impl Resumable for std::sync::Weak<Inner> {
    fn resume(&self, user: &str, device: &str, token: u64, next: u64) -> bool {
        self.upgrade().is_some_and(|access| access.table.resume(user, device, token, next))
    }
}

/// Counts places in groups that were lost with their owners.
fn count_lost(why: &'static str, places: usize) {
    metrics::counter!("edgeway_access_places_lost_total", "why" => why).increment(places as u64);
}

/// Sends the client what is for it, in one item.
fn tell(entry: &Entry, out: &mut Vec<Out>) {
    let mut frames = Vec::new();
    out.retain(|item| match item {
        Out::Client(bytes) => {
            frames.extend_from_slice(bytes);
            false
        }
        Out::Owner(..) => true,
    });
    if !frames.is_empty() {
        let session = entry.session.identity.session.session;
        let class = link::Class::Signal.into();
        let data = Data { session, class, frames: Bytes::from(frames), ..Data::default() };
        entry.link.push(Stream::Control, down_item::Item::Data(data));
    }
}

/// Has the link's readers take up what was parked.
fn wake(entry: &Entry) {
    for stream in entry.session.parked() {
        entry.link.resume(stream, entry.session.identity.session.session);
    }
}

fn warn(link: &Link, problem: &str) {
    if let Some(held_back) = link.warn.pass() {
        tracing::warn!(gateway = %link.name, held_back, "{problem}");
    }
}
