//! What a shard does where strokes have an owner of their own: as the owner of rooms, and as that of strokes.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Weak},
    time::Duration,
};

use bytes::Bytes;
use edgeway_proto::{
    Class, CloseCode, ErrorCode, Frame, Seq, Text, frame,
    rooms::{self, from_owner_item, to_owner_item::Item},
};

use super::{
    Kind, Owner, Reply,
    handover::MOVING,
    load::Waiting,
    owner::{Inner, shard_of},
    task::{Done, Input, Shard, Slot},
};
use crate::{
    room::{Ask, Event, Join, SessionId, device_key},
    store::{LogId, StoreError},
};

/// How long the owner of the strokes may take to answer. Then the store is asked, which knows less: not
/// what is on its way there.
const ANSWER: Duration = Duration::from_secs(2);

/// The pause after which a room is tried again, where the store is away, doubles so often at most: to 1.6 s.
const RETRY_DOUBLES: u32 = 4;

/// The epoch of who has not loaded the room.
const UNKNOWN: u64 = 0;

/// How long a route is kept that comes before this owner knows that it is for it.
const EARLY: Duration = Duration::from_secs(60);
/// Routes that are kept so, at most; the oldest goes first.
const EARLY_ROUTES: usize = 4096;

/// Joins that wait to be told where the strokes are.
#[derive(Debug, Default)]
pub(super) struct Asks {
    last: u64,
    waiting: BTreeMap<u64, Asked>,
    /// When those who ask an owner give it up, in order. Some are answered already.
    due: VecDeque<(Duration, u64)>,
}

#[derive(Debug)]
struct Asked {
    group: u64,
    join: Join,
    /// `None`: the store is asked.
    owner: Option<u64>,
}

impl Asks {
    /// When somebody gives an owner up.
    pub(super) fn due(&self) -> Option<Duration> {
        self.due.front().map(|(due, _)| *due)
    }

    /// Takes out joins that need no answer any more.
    pub(super) fn take(&mut self, which: &impl Fn(&Join) -> bool) -> Vec<Join> {
        self.waiting.extract_if(.., |_, asked| which(&asked.join)).map(|(_, a)| a.join).collect()
    }

    /// Whether an owner is still asked.
    fn asks(&self, ask: u64) -> bool {
        self.waiting.get(&ask).is_some_and(|asked| asked.owner.is_some())
    }
}

/// Routes of rooms that are not this owner's by what it knows: who told them may know more. They are kept for
/// the time in which all come to know the same.
#[derive(Debug, Default)]
pub(super) struct EarlyRoutes(VecDeque<(Duration, u64, rooms::Route)>);

impl EarlyRoutes {
    /// Whether the oldest one had to go for it.
    fn keep(&mut self, now: Duration, most: usize, access: u64, route: rooms::Route) -> bool {
        self.0.retain(|(until, _, kept)| *until > now && kept.group != route.group);
        let is_full = self.0.len() >= most;
        if is_full {
            self.0.pop_front();
        }
        self.0.push_back((now + EARLY, access, route));
        is_full
    }

    /// How many are kept; those whose time is over are not.
    pub(super) fn count(&mut self, now: Duration) -> usize {
        // In the order of their times.
        while self.0.pop_front_if(|(until, _, _)| *until <= now).is_some() {}
        self.0.len()
    }

    /// An access link is gone.
    pub(super) fn forget(&mut self, access: u64) {
        self.0.retain(|(_, from, _)| *from != access);
    }
}

impl Waiting {
    /// An access link is gone: its questions and its route are not needed any more.
    pub(super) fn forget(&mut self, access: u64) {
        self.inputs.retain(|input| match input {
            Input::Ask(from, _) | Input::Route(from, _) => *from != access,
            _ => true,
        });
    }
}

/// A handle that keeps nothing alive.
#[derive(Clone)]
pub(crate) struct WeakOwner(Weak<Inner>);

impl WeakOwner {
    pub(crate) fn upgrade(&self) -> Option<Owner> {
        Some(Owner { inner: self.0.upgrade()? })
    }
}

impl Owner {
    pub(crate) fn downgrade(&self) -> WeakOwner {
        WeakOwner(Arc::downgrade(&self.inner))
    }

    fn tell_all(&self, input: impl Fn() -> Input) {
        // No more of them than changes of links.
        self.inner.routes.shards.iter().for_each(|shard| shard.control.send_free(input()));
    }

    /// A link of a gateway begins; after the end of the one before was told.
    pub fn gateway_came(&self, gateway: u64) {
        if self.inner.routes.shared.kind == Kind::Strokes {
            self.tell_all(|| Input::GatewayCame(gateway));
        }
    }

    /// An owner of strokes can be reached.
    pub fn strokes_reached(&self, owner: u64) {
        self.tell_all(|| Input::StrokesReached(owner));
    }

    /// An owner of strokes cannot be reached any more.
    pub fn strokes_lost(&self, owner: u64) {
        self.tell_all(|| Input::StrokesLost(owner));
    }

    /// Which owners of strokes there are has changed.
    pub fn strokes_moved(&self) {
        self.tell_all(|| Input::StrokesMoved);
    }

    /// An owner of strokes answers.
    pub fn answered(&self, answer: rooms::Answer) {
        let shards = &self.inner.routes.shards;
        let shard = shard_of(answer.group, shards.len());
        // No more of them than questions.
        shards[shard].control.send_free(Input::Answer(answer));
    }
}

/// As the owner of rooms.
impl Shard {
    /// Lets a Session into an open room, once it is known what it must be told of the strokes.
    pub(super) fn enter(&mut self, group: u64, join: Join) {
        let Some(strokes) = &self.shared.strokes else {
            return self.apply(group, Event::Join(join));
        };
        if self.asks.waiting.len() >= self.shared.config.joins_waiting {
            return self.refuse(&join, "too many joins wait for the owner of the strokes");
        }
        self.asks.last += 1;
        let ask = self.asks.last;
        let question = Item::Ask(rooms::Ask {
            ask,
            session: Some(join.session.into()),
            group,
            user: join.user.to_string(),
            device: join.device.to_string(),
            early: join.early,
        });
        let owner = strokes.owner(group).filter(|owner| strokes.send(*owner, question));
        self.asks.waiting.insert(ask, Asked { group, join, owner });
        if owner.is_some() {
            self.asks.due.push_back((self.now.since_start + ANSWER, ask));
        } else {
            self.look_up(ask);
        }
    }

    /// The owner of the strokes cannot say: the store is asked.
    fn look_up(&mut self, ask: u64) {
        let Some(asked) = self.asks.waiting.get_mut(&ask) else { return };
        asked.owner = None;
        let log = LogId { group: asked.group, class: Class::Binary };
        let device = device_key(&asked.join.user, &asked.join.device);
        self.metrics.lookups.increment(1);
        let (shared, done) = (self.shared.clone(), self.done_tx.clone());
        self.shared.tasks.spawn(async move {
            let _turn = shared.loads.acquire().await;
            let result = shared.store.last_of(log, &device).await;
            let _ = done.send(Done::LookedUp { ask, result });
        });
    }

    pub(super) fn looked_up(&mut self, ask: u64, result: Result<(Seq, u64), StoreError>) {
        let Some(Asked { group, join, .. }) = self.asks.waiting.remove(&ask) else { return };
        match result {
            Ok(strokes) => self.entered(group, join, strokes),
            Err(error) => {
                tracing::warn!(%error, group, "the strokes of a room could not be looked up");
                self.metrics.load_errors.increment(1);
                self.refuse(&join, "the room's strokes cannot be looked up now");
            }
        }
    }

    pub(super) fn answered(&mut self, answer: &rooms::Answer) {
        // Another one may have been given up and answered by the store.
        if !self.asks.asks(answer.ask) {
            return;
        }
        let Some(head) = answer.head else { return self.look_up(answer.ask) };
        if let Some(Asked { group, join, .. }) = self.asks.waiting.remove(&answer.ask) {
            self.entered(group, join, (head.into(), answer.last_id));
        }
    }

    fn entered(&mut self, group: u64, join: Join, strokes: (Seq, u64)) {
        match self.rooms.get(&group) {
            Some(Slot::Open(open)) if open.moving.is_some() => self.refuse(&join, MOVING),
            Some(Slot::Open(_)) => self.apply(group, Event::Join(Join { strokes, ..join })),
            // It was unloaded or lost meanwhile.
            _ => self.join(group, join),
        }
    }

    pub(super) fn give_up_asks(&mut self) {
        while let Some((due, ask)) = self.asks.due.front().copied() {
            let answered = !self.asks.asks(ask);
            if !answered && due > self.now.since_start {
                return;
            }
            self.asks.due.pop_front();
            if !answered {
                self.look_up(ask);
            }
        }
    }

    pub(super) fn strokes_lost(&mut self, owner: u64) {
        let of_owner = self.asks.waiting.iter().filter(|(_, asked)| asked.owner == Some(owner));
        let asks: Vec<u64> = of_owner.map(|(ask, _)| *ask).collect();
        asks.into_iter().for_each(|ask| self.look_up(ask));
    }

    /// It knows no routes: those of its rooms are told again.
    pub(super) fn strokes_reached(&mut self, owner: u64) {
        let Some(strokes) = self.shared.strokes.clone() else { return };
        let groups: Vec<u64> = self.rooms.keys().copied().collect();
        for group in groups.into_iter().filter(|group| strokes.owner(*group) == Some(owner)) {
            self.apply(group, Event::TellRoute);
        }
    }

    /// Whoever has the strokes of a room now may not know its route.
    pub(super) fn strokes_moved(&mut self) {
        let groups: Vec<u64> = self.rooms.keys().copied().collect();
        for group in groups {
            self.apply(group, Event::TellRoute);
        }
    }

    pub(super) fn tell_route(&self, group: u64, epoch: u64, gateways: Vec<u64>) {
        let Some(strokes) = &self.shared.strokes else { return };
        let route = Item::Route(rooms::Route { group, epoch, gateways });
        // One that cannot be reached is told when it can.
        if strokes.owner(group).is_some_and(|owner| strokes.send(owner, route)) {
            self.metrics.routes.increment(1);
        }
    }
}

/// As the owner of strokes.
impl Shard {
    /// Takes what is for an open room, and keeps it for one that is not loaded yet.
    pub(super) fn of_strokes(&mut self, input: Input) {
        let (group, bytes) = match &input {
            Input::Strokes(strokes) => (strokes.group, strokes.frames.len()),
            Input::Ask(_, ask) => (ask.group, 0),
            Input::Route(_, route) => (route.group, 0),
            _ => return,
        };
        let full = self.rooms.len() >= self.shared.rooms_a_shard;
        let owns = self.shared.owns_room(group, "");
        match self.rooms.get_mut(&group) {
            Some(Slot::Open(open)) if open.moving.is_some() => self.not_here(input),
            Some(Slot::Open(_)) => self.for_open(group, input),
            None if !owns => self.not_here(input),
            Some(Slot::Loading(waiting)) => {
                if bytes > 0 && waiting.bytes + bytes > self.room_config.pending_bytes {
                    return self.refuse_strokes(input);
                }
                // Only the last one counts.
                if let Input::Route(access, _) = input {
                    let older = |i: &Input| matches!(i, Input::Route(from, _) if *from == access);
                    waiting.inputs.retain(|input| !older(input));
                }
                waiting.bytes += bytes;
                waiting.inputs.push(input);
            }
            None if full => self.refuse_strokes(input),
            // Nobody is there.
            None if matches!(&input, Input::Route(_, route) if route.gateways.is_empty()) => {}
            None => {
                let waiting = Waiting { inputs: vec![input], bytes, ..Waiting::default() };
                self.rooms.insert(group, Slot::Loading(waiting));
                self.start_load(group, Duration::ZERO);
            }
        }
    }

    /// What is for another owner, by what this one knows. Who draws is sent away as often as it comes; a route
    /// is not said again, and is kept.
    fn not_here(&mut self, input: Input) {
        match input {
            Input::Strokes(rooms::Strokes { session: Some(session), group, .. }) => {
                let (code, reason) = (CloseCode::BackendLost.code(), Text::from_static(MOVING));
                let left = frame::Left { request: 0, group, code, reason };
                self.fx.tell(session.into(), |out| left.encode(out));
                self.effects(group, UNKNOWN);
            }
            Input::Ask(..) => self.refuse_strokes(input),
            Input::Route(access, route) => {
                if let Some(Slot::Open(_)) = self.rooms.get(&route.group) {
                    self.for_open(route.group, Input::Route(access, route.clone()));
                }
                let now = self.now.since_start;
                let dropped = self.early_routes.keep(now, EARLY_ROUTES, access, route);
                self.metrics.early_routes_dropped.increment(u64::from(dropped));
            }
            _ => {}
        }
    }

    /// Takes the routes that are for this owner now.
    pub(super) fn take_early_routes(&mut self) {
        for (until, access, route) in std::mem::take(&mut self.early_routes).0 {
            if until > self.now.since_start {
                self.of_strokes(Input::Route(access, route));
            }
        }
    }

    fn for_open(&mut self, group: u64, input: Input) {
        match input {
            Input::Strokes(rooms::Strokes { session, user, device, frames, .. }) => {
                let Some(session) = session else { return };
                let (user, device) = (Text::from(user), Text::from(device));
                for send in sends(frames) {
                    let store_full = self.pending_bytes >= self.shared.config.append_queue_bytes;
                    let (session, user, device) = (session.into(), user.clone(), device.clone());
                    let stroke = Event::Stroke { session, user, device, send, store_full };
                    self.apply(group, stroke);
                }
            }
            Input::Ask(access, rooms::Ask { ask, session, user, device, early, .. }) => {
                let Some(session) = session.map(Into::into) else { return };
                self.apply(group, Event::Ask(Ask { access, ask, session, user, device, early }));
            }
            Input::Route(access, rooms::Route { epoch, gateways, .. }) => {
                self.apply(group, Event::Route { access, epoch, gateways });
            }
            _ => {}
        }
    }

    fn refuse_strokes(&mut self, input: Input) {
        match input {
            Input::Strokes(rooms::Strokes { session: Some(session), group, frames, .. }) => {
                for send in sends(frames) {
                    let detail = "too much waits for the store";
                    self.fx.refuse(SessionId::from(session), &send, ErrorCode::Unavailable, detail);
                }
                self.effects(group, UNKNOWN);
            }
            Input::Ask(access, rooms::Ask { ask, group, .. }) => {
                let answer = rooms::Answer { ask, group, ..rooms::Answer::default() };
                self.reply(access, Reply::Item(from_owner_item::Item::Answer(answer)));
            }
            Input::Route(_, route) => {
                tracing::warn!(group = route.group, "there are as many rooms as there may be");
            }
            _ => {}
        }
    }

    /// Strokes wait until the room can be loaded; who asks has other ways to know.
    pub(super) fn strokes_not_loaded(&mut self, group: u64, mut waiting: Waiting) {
        let asks = waiting.inputs.extract_if(.., |input| matches!(input, Input::Ask(..)));
        for ask in asks.collect::<Vec<_>>() {
            self.refuse_strokes(ask);
        }
        if !waiting.inputs.is_empty() {
            let pause = self.shared.config.store_retry * (1 << waiting.failed.min(RETRY_DOUBLES));
            waiting.joins.clear();
            waiting.failed += 1;
            self.rooms.insert(group, Slot::Loading(waiting));
            self.start_load(group, pause);
        }
    }

    /// What was published to the gateway while it had no link is missing there; and acks may be, so that
    /// access has those join again who have drawn.
    pub(super) fn gateway_came(&mut self, gateway: u64) {
        let groups: Vec<u64> = self.rooms.keys().copied().collect();
        for group in groups {
            self.apply(group, Event::GatewayCame(gateway));
        }
        if self.first {
            for access in self.accesses.values() {
                let reached = rooms::Reached { gateway };
                access.reply(Reply::Item(from_owner_item::Item::Reached(reached)));
            }
        }
    }
}

/// Access passes on whole frames of this kind only.
fn sends(mut frames: Bytes) -> Vec<frame::Send> {
    let mut sends = Vec::new();
    while let Ok(Some(raw)) = frame::split(&mut frames) {
        if let Ok(Frame::Send(send)) = raw.parse() {
            sends.push(send);
        }
    }
    sends
}
