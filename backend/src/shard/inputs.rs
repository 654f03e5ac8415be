//! What a shard does with each input.

use std::{cmp::Reverse, sync::Arc, time::Duration};

use bytes::Bytes;
use edgeway_proto::{
    ErrorCode, Frame, frame, link, link::down_item::Item, rooms, rooms::from_owner_item,
};

use super::{
    Reply,
    handover::MOVING,
    history::error_frame,
    load::{Waiting, load},
    outbox::{Tenure, data, stream_of, to_session},
    requests::Queued,
    task::{Done, Input, OpenRoom, Shard, Slot, wall_ms},
    unreachable,
};
use crate::{
    events,
    room::{Effect, Event, Join, Loaded, Room, SessionId},
    store::{Append, LogId, StoreError},
};

/// The epoch of who has no room: whoever follows an owner has a later one. So where it has been followed, what it
/// says to those who sent too late does not reach them.
const BEFORE_ALL: u64 = 1;

impl Shard {
    pub(super) fn input(&mut self, input: Input) {
        match input {
            Input::Attached(access) => {
                self.accesses.insert(access.id, access);
            }
            Input::AccessGone(access) => {
                self.accesses.remove(&access);
                self.forget_requests(|_, a| a == Some(access));
                self.early_routes.forget(access);
                self.gone(|join| join.access == access, &Event::AccessGone(access));
            }
            Input::GatewayCame(gateway) => self.gateway_came(gateway),
            Input::GatewayGone(gateway) => {
                self.forget_requests(|session, _| session.gateway == gateway);
                self.gone(|join| join.session.gateway == gateway, &Event::GatewayGone(gateway));
            }
            Input::Ring => self.ring_changed(),
            Input::Join { group, join } => {
                self.request(join.session, group, Queued::Join(join));
            }
            Input::Push { group, link, push } => self.push(group, link, push),
            Input::Leave { access, session, request, group } => {
                self.request(session, group, Queued::Leave { access, request });
            }
            Input::Frames { session, group, frames } => self.frames(session, group, frames),
            Input::Strokes(_) | Input::Ask(..) | Input::Route(..) => self.of_strokes(input),
            Input::Answer(answer) => self.answered(&answer),
            Input::StrokesReached(owner) => self.strokes_reached(owner),
            Input::StrokesLost(owner) => self.strokes_lost(owner),
            Input::StrokesMoved => self.strokes_moved(),
        }
    }

    /// Applies an event to a room, where it is open, and does what follows.
    pub(super) fn apply(&mut self, group: u64, event: Event) {
        let Some(Slot::Open(open)) = self.rooms.get_mut(&group) else { return };
        let before = open.room.pending_bytes();
        open.room.configure(&self.room_config, self.now);
        open.room.apply(event, self.now, &mut self.fx);
        events::record(&self.shared.config.events, group, &open.name, &mut self.fx.notes.list);
        self.pending_bytes = self.pending_bytes + open.room.pending_bytes() - before;
        if !open.committing && open.room.wants_append() {
            open.committing = true;
            self.commits.push(group);
        }
        let epoch = open.room.epoch();
        self.tell_moves(group);
        self.effects(group, epoch);
    }

    /// Does what has gathered. `epoch`: of who says it; 0 where that is of no matter.
    pub(super) fn effects(&mut self, group: u64, epoch: u64) {
        let mut list = std::mem::take(&mut self.fx.list);
        for effect in list.drain(..) {
            self.effect(group, epoch, effect);
        }
        self.fx.list = list;
    }

    fn effect(&mut self, group: u64, epoch: u64, effect: Effect) {
        match effect {
            Effect::ToSession { session, class, frames } => {
                let owned = self.shared.kind.owned();
                let item = data(session, class, frames, Tenure { group, owned, epoch });
                self.out.push(session.gateway, stream_of(class), item);
            }
            Effect::Subscribe { session, class, head, have, elsewhere } => {
                let item = Item::Subscribe(link::Subscribe {
                    session: session.session,
                    group,
                    class: link::Class::from(class).into(),
                    head: Some(head.into()),
                    have: have.map(Into::into),
                    elsewhere,
                });
                self.out.push(session.gateway, stream_of(class), item);
            }
            Effect::Unsubscribe { session } => {
                let unsubscribe = link::Unsubscribe { session: session.session, group };
                for stream in [link::Stream::Control, link::Stream::Bulk] {
                    self.out.push(session.gateway, stream, Item::Unsubscribe(unsubscribe));
                }
            }
            Effect::Publish { class, first, count, frames } => {
                let Some(Slot::Open(open)) = self.rooms.get(&group) else { return };
                let publish = link::Publish {
                    group,
                    class: link::Class::from(class).into(),
                    first: Some(first.into()),
                    count,
                    frames,
                };
                for gateway in open.room.route() {
                    self.out.push(gateway, stream_of(class), Item::Publish(publish.clone()));
                }
            }
            Effect::Route { epoch, gateways } => self.tell_route(group, epoch, gateways),
            Effect::Announce { gateway, head } => {
                let (class, head) = (link::Class::Binary.into(), Some(head.into()));
                let item = Item::Announce(link::Announce { group, class, head });
                self.out.push(gateway, link::Stream::Bulk, item);
            }
            Effect::Retract { gateway } => {
                let item =
                    Item::Retract(link::Retract { group, class: link::Class::Binary.into() });
                self.out.push(gateway, link::Stream::Bulk, item);
            }
            Effect::AppendBehind(records) => {
                let log = LogId { group, class: edgeway_proto::Class::Chat };
                let records = records.into_iter().map(|record| Append { log, record });
                let (lost, settled) = self.behind.push(records);
                self.metrics.unstored_dropped.increment(lost);
                self.settled(settled);
            }
            Effect::ToAccess { access, item: from_owner_item::Item::Refused(refused) }
                if refused.code != 0 =>
            {
                self.reply(access, Reply::Unreachable(refused));
            }
            Effect::ToAccess { access, item } => self.reply(access, Reply::Item(item)),
            Effect::WakeAt(due) => {
                if let Some(Slot::Open(open)) = self.rooms.get_mut(&group) {
                    open.wake = Some(due);
                    self.timers.push(Reverse((due, group)));
                }
            }
        }
    }

    pub(super) fn reply(&self, access: u64, reply: Reply) {
        if let Some(access) = self.accesses.get(&access) {
            access.reply(reply);
        }
    }

    pub(super) fn join(&mut self, group: u64, join: Join) {
        if !self.accesses.contains_key(&join.access) {
            // Its link ended while the room's name was looked up.
            return;
        }
        if !self.shared.gateways.connected(join.session.gateway) {
            return self.unreachable(&join);
        }
        let full = self.rooms.len() >= self.shared.rooms_a_shard;
        match self.rooms.get_mut(&group) {
            Some(Slot::Open(open)) if open.moving.is_some() => self.refuse(&join, MOVING),
            Some(Slot::Open(_)) => self.enter(group, join),
            Some(Slot::Loading(waiting)) => {
                if waiting.joins.len() < self.shared.config.joins_waiting {
                    waiting.joins.push(join);
                } else {
                    self.refuse(&join, "too many joins wait for the room");
                }
            }
            None if full => self.refuse(&join, "there are as many rooms as there may be"),
            None => {
                let name = join.name.clone();
                let waiting = Waiting { name, joins: vec![join], ..Waiting::default() };
                self.rooms.insert(group, Slot::Loading(waiting));
                self.start_load(group, Duration::ZERO);
            }
        }
    }

    pub(super) fn unreachable(&mut self, join: &Join) {
        self.metrics.joins_refused.increment(1);
        self.reply(join.access, unreachable(join.session.into(), join.request));
    }

    /// The room cannot be joined now.
    pub(super) fn refuse(&mut self, join: &Join, detail: &'static str) {
        let error = error_frame(join.request, ErrorCode::Unavailable, detail);
        let item = to_session(join.session, error);
        self.out.push(join.session.gateway, link::Stream::Control, item);
        self.metrics.joins_refused.increment(1);
        let (session, request) = (Some(join.session.into()), join.request);
        let refused = rooms::Refused { session, request, code: 0 };
        self.reply(join.access, Reply::Item(from_owner_item::Item::Refused(refused)));
    }

    pub(super) fn start_load(&self, group: u64, pause: Duration) {
        let (shared, done) = (self.shared.clone(), self.done_tx.clone());
        self.shared.tasks.spawn(async move {
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
            let _turn = shared.loads.acquire().await;
            let result = load(&*shared.store, group, shared.kind, wall_ms()).await;
            let _ = done.send(Done::Loaded { group, result });
        });
    }

    pub(super) fn loaded(&mut self, group: u64, result: Result<Loaded, StoreError>) {
        let Some(Slot::Loading(waiting)) = self.rooms.remove(&group) else { return };
        match result {
            // It was while it was asked for.
            Ok(_) if !self.shared.owns_room(group, &waiting.name) => {
                for join in &waiting.joins {
                    self.refuse(join, MOVING);
                }
                self.refuse_pushes(&waiting.pushes, MOVING);
                for input in waiting.inputs {
                    self.of_strokes(input);
                }
            }
            Ok(loaded) => {
                let config = Arc::clone(&self.room_config);
                let room = Room::new(group, self.shared.kind, config, loaded, self.now);
                let name = waiting.name.detached();
                let open = OpenRoom {
                    room,
                    name,
                    listing: None,
                    moving: None,
                    committing: false,
                    wake: None,
                };
                self.rooms.insert(group, Slot::Open(Box::new(open)));
                // Arms the room's timers, also where nobody waits any more.
                self.apply(group, Event::Tick);
                for join in waiting.joins {
                    self.enter(group, join);
                }
                for (link, push) in waiting.pushes {
                    self.push(group, link, push);
                }
                for input in waiting.inputs {
                    self.of_strokes(input);
                }
            }
            Err(error) => {
                if waiting.failed == 0 {
                    tracing::warn!(%error, group, "room could not be loaded");
                }
                self.metrics.load_errors.increment(1);
                for join in &waiting.joins {
                    self.refuse(join, "the room cannot be loaded now");
                }
                self.refuse_pushes(&waiting.pushes, "the room cannot be loaded now");
                self.strokes_not_loaded(group, waiting);
            }
        }
    }

    pub(super) fn leave(&mut self, access: u64, session: SessionId, request: u64, group: u64) {
        if let Some(Slot::Open(_)) = self.rooms.get(&group) {
            return self.apply(group, Event::Leave { session, access, request });
        }
        if request != 0 {
            self.error(session, request, ErrorCode::NotJoined, "the room is not joined");
        }
        let left = rooms::Left { session: Some(session.into()), group };
        self.reply(access, Reply::Item(from_owner_item::Item::Left(left)));
    }

    fn gone(&mut self, which: impl Fn(&Join) -> bool, event: &Event) {
        for join in self.asks.take(&which) {
            self.unreachable(&join);
        }
        let groups: Vec<u64> = self.rooms.keys().copied().collect();
        for group in groups {
            match self.rooms.get_mut(&group) {
                Some(Slot::Loading(waiting)) => {
                    let gone: Vec<Join> = waiting.joins.extract_if(.., |j| which(j)).collect();
                    if let Event::AccessGone(access) = event {
                        waiting.forget(*access);
                    }
                    gone.iter().for_each(|join| self.unreachable(join));
                }
                _ => self.apply(group, event.clone()),
            }
        }
    }

    pub(super) fn error(
        &mut self,
        session: SessionId,
        request: u64,
        code: ErrorCode,
        detail: &'static str,
    ) {
        let item = to_session(session, error_frame(request, code, detail));
        self.out.push(session.gateway, link::Stream::Control, item);
    }

    fn frames(&mut self, session: SessionId, group: u64, mut frames: Bytes) {
        loop {
            let frame = match frame::split(&mut frames) {
                Ok(None) if frames.is_empty() => return,
                Ok(Some(raw)) => raw.parse().ok(),
                Ok(None) | Err(_) => None,
            };
            match frame {
                Some(Frame::Send(send)) if send.group == group => self.send(session, send),
                Some(Frame::History(history)) if history.group == group => {
                    self.request(session, group, Queued::History(history));
                }
                Some(Frame::Members(members)) if members.group == group => {
                    self.request(session, group, Queued::Members(members));
                }
                // Access passes on whole frames of these kinds only.
                _ => return self.error(session, 0, ErrorCode::BadRequest, "no frame for a room"),
            }
        }
    }

    fn send(&mut self, session: SessionId, send: frame::Send) {
        if let Some(Slot::Open(open)) = self.rooms.get(&send.group) {
            if open.moving.is_some() {
                // Its sender will be told to join anew, and then sends it again.
                return;
            }
            let store_full = self.pending_bytes >= self.shared.config.append_queue_bytes;
            self.apply(send.group, Event::Send { session, send, store_full });
        } else {
            // Not in a room that is not there. It counts like any other refusal.
            self.fx.refuse(session, &send, ErrorCode::NotJoined, "the room is not joined");
            self.effects(send.group, BEFORE_ALL);
        }
    }
}
