//! The handles by which others reach the shards.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use edgeway_proto::{
    Class, ErrorCode, Seq, Text, frame::join_flag, link, rooms, rooms::from_owner_item,
    rooms::push::Ask, rooms::to_owner_item::Item,
};
use parking_lot::RwLock;
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Environment, Gateways, Kind, LiveConfig, OwnerConfig, Replies, Reply, StrokeOwners,
    handover::MOVING,
    history::error_frame,
    names::{Finder, LookUp, Names, Wants},
    outbox::to_session,
    queue::{self, queue},
    reads::{Read, read},
    task::{Input, Shard},
    unreachable,
};
use crate::{
    directory::Recorder,
    registry::Tenure,
    ring::Ring,
    room::{Join, SessionId, refused_push},
    store::Store,
};

/// The owner of all rooms, of all strokes, or of all inboxes, of this process. A handle: clones are the
/// same owner.
#[derive(Clone)]
pub struct Owner {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) routes: Arc<Routes>,
    accesses: AtomicU64,
    lookups: queue::Sender<LookUp>,
}

/// The ways to the shards.
pub(super) struct Routes {
    pub(super) shared: Arc<Shared>,
    pub(super) shards: Vec<Queues>,
    pub(super) names: Names,
}

pub(super) struct Queues {
    pub(super) control: queue::Sender<Input>,
    bulk: queue::Sender<Input>,
}

/// What all shards share.
pub(super) struct Shared {
    pub(super) config: OwnerConfig,
    pub(super) live: LiveConfig,
    pub(super) rooms_a_shard: usize,
    pub(super) kind: Kind,
    pub(super) store: Arc<dyn Store>,
    pub(super) gateways: Arc<dyn Gateways>,
    pub(super) strokes: Option<Arc<dyn StrokeOwners>>,
    pub(super) recorder: Option<Recorder>,
    pub(super) tasks: TaskTracker,
    pub(super) cancel: CancellationToken,
    pub(super) loads: Semaphore,
    pub(super) history_reads: Semaphore,
    pub(super) history_waiting: AtomicUsize,
    /// Rooms in memory.
    pub(super) rooms: Arc<AtomicUsize>,
    /// Whose a name is, where others may have it.
    pub(super) ring: RwLock<Option<Arc<Ring>>>,
    /// Whether this process may go on, where it needs a lease.
    pub(super) tenure: OnceLock<Arc<Tenure>>,
}

/// An access link, as the shards see it.
pub(super) struct Access {
    /// Of this link, not of the access instance: a link that comes back is another one.
    pub(super) id: u64,
    name: u64,
    replies: Arc<dyn Replies>,
    lost: CancellationToken,
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access").field("id", &self.id).field("name", &self.name).finish()
    }
}

impl Access {
    pub(super) fn reply(&self, reply: Reply) {
        if !self.lost.is_cancelled() && !self.replies.send(reply) {
            tracing::warn!(access = self.name, "an access link does not take its replies");
            self.lost.cancel();
        }
    }
}

/// What an item costs of a queue beside its frames, roughly.
const ITEM_BYTES: usize = 256;

impl Owner {
    /// Starts the shards as tasks of `tasks`; those of [`Kind::Apart`] need the owners of strokes. When `cancel` is, they
    /// store and answer what they have accepted, for at most [`OwnerConfig::drain`], and end.
    #[must_use]
    pub fn start(
        config: OwnerConfig,
        kind: Kind,
        environment: Environment,
        tasks: &TaskTracker,
        cancel: CancellationToken,
    ) -> Self {
        let Environment { store, gateways, strokes, recorder } = environment;
        let shared = Arc::new(Shared {
            live: LiveConfig::new(&config),
            rooms_a_shard: config.rooms_max.div_ceil(config.shards.get()),
            loads: Semaphore::new(config.loads),
            history_reads: Semaphore::new(config.history_reads),
            history_waiting: AtomicUsize::new(0),
            rooms: Arc::default(),
            ring: RwLock::default(),
            tenure: OnceLock::new(),
            tasks: tasks.clone(),
            config,
            kind,
            store,
            gateways,
            strokes,
            recorder,
            cancel,
        });
        let config = &shared.config;
        let start = |index| {
            let (control, control_rx) = queue(config.control_queue_bytes);
            let (bulk, bulk_rx) = queue(config.bulk_queue_bytes);
            tasks.spawn(Shard::new(shared.clone(), index, control_rx, bulk_rx).run());
            Queues { control, bulk }
        };
        let shards = (0..config.shards.get()).map(start).collect();
        let names = Names::new(kind, config.names_bytes);
        let (lookups, waiting) = queue(config.control_queue_bytes);
        let routes = Arc::new(Routes { shared, shards, names });
        tasks.spawn(Finder::new(Arc::clone(&routes), waiting).run());
        Self { inner: Arc::new(Inner { routes, accesses: AtomicU64::new(0), lookups }) }
    }

    /// What may be changed of its config.
    #[must_use]
    pub fn live_config(&self) -> LiveConfig {
        self.inner.routes.shared.live.clone()
    }

    /// Begins the link of an access instance. When it is dropped, the Sessions that it served leave.
    #[must_use]
    pub fn attach(&self, access: u64, replies: Arc<dyn Replies>) -> AccessLink {
        let id = self.inner.accesses.fetch_add(1, Ordering::Relaxed);
        let lost = CancellationToken::new();
        let access = Arc::new(Access { id, name: access, replies, lost });
        for shard in &self.inner.routes.shards {
            shard.control.send_free(Input::Attached(access.clone()));
        }
        AccessLink { owner: self.inner.clone(), access }
    }

    /// The link of a gateway has ended: its Sessions leave. To be called for each link that ends,
    /// before another one of the same gateway counts as connected.
    pub fn gateway_gone(&self, gateway: u64) {
        for shard in &self.inner.routes.shards {
            shard.control.send_free(Input::GatewayGone(gateway));
        }
    }
}

/// The link of an access instance with an owner.
pub struct AccessLink {
    owner: Arc<Inner>,
    access: Arc<Access>,
}

impl Drop for AccessLink {
    fn drop(&mut self) {
        for shard in &self.owner.routes.shards {
            shard.control.send_free(Input::AccessGone(self.access.id));
        }
    }
}

/// Where an item goes.
enum Way {
    /// Into a queue.
    Shard(Routed),
    /// It is for a name that is not known yet; and what it costs of the queue.
    LookUp(LookUp, usize),
    /// It names no Session.
    Nowhere,
}

/// An item on its way to a shard.
pub(super) struct Routed {
    pub(super) shard: usize,
    pub(super) input: Input,
    pub(super) bytes: usize,
}

impl From<Option<Routed>> for Way {
    fn from(routed: Option<Routed>) -> Self {
        routed.map_or(Self::Nowhere, Self::Shard)
    }
}

impl AccessLink {
    /// Passes an item on to its room. Waits while the room's shard has all that it may hold; so
    /// CONTROL and BULK are better sent from tasks of their own.
    pub async fn send(&self, stream: link::Stream, item: Item) {
        match self.route(item) {
            Way::Shard(to) => self.queue(stream, to.shard).send(to.input, to.bytes).await,
            Way::Nowhere => {}
            Way::LookUp(lookup, bytes) => self.owner.lookups.send(lookup, bytes).await,
        }
    }

    /// The same without waiting.
    ///
    /// # Errors
    /// Gives the item back where it would have to wait.
    #[expect(clippy::result_large_err, reason = "the item itself comes back")]
    pub fn try_send(&self, stream: link::Stream, item: Item) -> Result<(), Item> {
        match self.route(item.clone()) {
            Way::Shard(to) => {
                self.queue(stream, to.shard).try_send(to.input, to.bytes).map_err(|_| item)
            }
            Way::Nowhere => Ok(()),
            Way::LookUp(lookup, bytes) => {
                self.owner.lookups.try_send(lookup, bytes).map_err(|_| item)
            }
        }
    }

    /// Passes an item on without waiting. `false`: there is no room for it, which there always is for a
    /// route, since those are as few as the joins that change them.
    pub fn offer(&self, stream: link::Stream, item: Item) -> bool {
        if let Item::Route(route) = item {
            let shards = &self.owner.routes.shards;
            shards[shard_of(route.group, shards.len())]
                .control
                .send_free(Input::Route(self.access.id, route));
            return true;
        }
        self.try_send(stream, item).is_ok()
    }

    /// Ends when the owner has given the link up, because its replies were not taken: then it must be
    /// dropped.
    pub async fn lost(&self) {
        self.access.lost.cancelled().await;
    }

    fn queue(&self, stream: link::Stream, shard: usize) -> &queue::Sender<Input> {
        match stream {
            link::Stream::Control => &self.owner.routes.shards[shard].control,
            link::Stream::Bulk => &self.owner.routes.shards[shard].bulk,
        }
    }

    fn route(&self, item: Item) -> Way {
        let (access, routes) = (self.access.id, &self.owner.routes);
        let for_strokes = matches!(item, Item::Strokes(_) | Item::Ask(_) | Item::Route(_));
        if for_strokes != (routes.shared.kind == Kind::Strokes) {
            return Way::Nowhere;
        }
        match item {
            Item::Hello(_) => Way::Nowhere,
            Item::Join(join) => self.by_name(Wants::Join(Box::new(join))),
            Item::Push(push) => self.by_name(Wants::Push(push)),
            Item::Leave(rooms::Leave { session, request, group }) => {
                let leave = session.map(|session| {
                    let session = session.into();
                    let input = Input::Leave { access, session, request, group };
                    routes.routed(group, input, 0)
                });
                leave.into()
            }
            Item::Frames(rooms::Frames { session, group, frames }) => {
                let frames = session.map(|session| {
                    let bytes = frames.len();
                    let input = Input::Frames { session: session.into(), group, frames };
                    routes.routed(group, input, bytes)
                });
                frames.into()
            }
            Item::Strokes(strokes) => {
                let bytes = strokes.frames.len() + strokes.user.len() + strokes.device.len();
                Some(routes.routed(strokes.group, Input::Strokes(strokes), bytes)).into()
            }
            Item::Ask(ask) => {
                let bytes = ask.user.len() + ask.device.len();
                Some(routes.routed(ask.group, Input::Ask(access, ask), bytes)).into()
            }
            Item::Route(route) => {
                Some(routes.routed(route.group, Input::Route(access, route), 0)).into()
            }
        }
    }
}

impl AccessLink {
    /// Where that goes which names its room.
    fn by_name(&self, wants: Wants) -> Way {
        let routes = &self.owner.routes;
        if !routes.shared.owns(wants.room()) {
            routes.refuse(&self.access, &wants, ErrorCode::Unavailable, MOVING);
            return Way::Nowhere;
        }
        match routes.names.get(wants.room()) {
            Some(group) => routes.wanted(group, &self.access, wants).into(),
            None => {
                let bytes = ITEM_BYTES + wants.bytes();
                Way::LookUp(LookUp { access: Arc::clone(&self.access), wants }, bytes)
            }
        }
    }
}

impl Routes {
    pub(super) fn wanted(&self, group: u64, access: &Arc<Access>, wants: Wants) -> Option<Routed> {
        let link = access.id;
        match wants {
            Wants::Join(join) => self.join(group, link, *join),
            // Of what is stored alone: no room need be in memory for it.
            Wants::Push(rooms::Push { push, ask: Some(Ask::State(_)), .. }) => {
                read(Arc::clone(&self.shared), Arc::clone(access), push, Read::State(group));
                None
            }
            Wants::Push(rooms::Push { push, ask: Some(Ask::History(history)), .. }) => {
                let read_log = Read::log(group, &history);
                read(Arc::clone(&self.shared), Arc::clone(access), push, read_log);
                None
            }
            Wants::Push(push) => {
                let bytes = push_bytes(&push);
                Some(self.routed(group, Input::Push { group, link, push }, bytes))
            }
        }
    }

    fn routed(&self, group: u64, input: Input, bytes: usize) -> Routed {
        Routed { shard: shard_of(group, self.shards.len()), input, bytes: bytes + ITEM_BYTES }
    }

    fn join(&self, group: u64, access: u64, join: rooms::Join) -> Option<Routed> {
        let mut have = [None; 3];
        for item in &join.have {
            if let (class, Some(position)) = (Class::from(item.class()), item.position) {
                have[class.index()] = Some(Seq::from(position));
            }
        }
        let join = Join {
            session: join.session?.into(),
            access,
            request: join.request,
            name: Text::from(join.room),
            asked: Text::from(join.asked),
            user: Text::from(join.user),
            device: Text::from(join.device),
            send_only: join.flags & join_flag::SEND_ONLY != 0,
            have,
            replaces: join.replaces.map(SessionId::from),
            early: join.early,
            strokes: Default::default(),
        };
        let bytes = join.name.len() + join.asked.len() + join.user.len() + join.device.len();
        Some(self.routed(group, Input::Join { group, join: Box::new(join) }, bytes))
    }

    pub(super) fn refuse(
        &self,
        access: &Access,
        wants: &Wants,
        code: ErrorCode,
        detail: &'static str,
    ) {
        match wants {
            Wants::Join(join) => self.refuse_join(access, join, code, detail),
            Wants::Push(push) => {
                let refused = refused_push(push.push, code, detail);
                access.reply(Reply::Item(from_owner_item::Item::Pushed(refused)));
            }
        }
    }

    fn refuse_join(
        &self,
        access: &Access,
        join: &rooms::Join,
        code: ErrorCode,
        detail: &'static str,
    ) {
        let Some(session) = join.session else { return };
        let request = join.request;
        let item = to_session(session.into(), error_frame(request, code, detail));
        let told = self.shared.gateways.send(session.gateway, link::Stream::Control, item);
        access.reply(if told {
            let refused = rooms::Refused { session: Some(session), request, code: 0 };
            Reply::Item(from_owner_item::Item::Refused(refused))
        } else {
            unreachable(session, request)
        });
    }
}

/// What a push takes of a queue, beside the item.
pub(super) fn push_bytes(push: &rooms::Push) -> usize {
    let ask = match &push.ask {
        Some(Ask::Send(send)) => send.key.len() + send.payload.len(),
        Some(Ask::Rule(rule)) => rule.user.len(),
        Some(Ask::Kick(kick)) => kick.user.len(),
        Some(Ask::State(_) | Ask::History(_)) | None => 0,
    };
    push.room.len() + ask
}

/// By a hash: the low bits of an embedded store's handles are its slot, the same in all of them.
pub(super) fn shard_of(group: u64, shards: usize) -> usize {
    let hash = xxhash_rust::xxh3::xxh3_64(&group.to_le_bytes());
    usize::try_from(hash % shards.max(1) as u64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rooms_of_one_store_are_spread_over_all_shards() {
        const SHARDS: usize = 4;
        let mut rooms = [0; SHARDS];
        for n in 1..=1000_u64 {
            rooms[shard_of(n << 6 | 5, SHARDS)] += 1;
        }
        assert!(rooms.iter().all(|rooms| (200..300).contains(rooms)), "{rooms:?}");
    }
}
