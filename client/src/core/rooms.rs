//! Joining, leaving, and joining again.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use bytes::Bytes;
use edgeway_proto::{
    Class, CloseCode, Lane, Seq,
    frame::{self, join_flag},
    limits,
};
use edgeway_transport::Stop;

use super::{
    Answer, Core, JOIN_BYTES, JOIN_BYTES_MAX, Request, RoomId,
    order::Order,
    outgoing::Outgoing,
    presence::Members,
    room::{ClassState, Phase, Room},
};
use crate::{Event, JoinOptions, Message, RequestError, SessionId};

/// Rooms of all Sessions together; a Session may have 1,000.
pub(super) const ROOMS_MAX: usize = 4000;

impl Core {
    pub(super) fn room(&self, id: RoomId) -> Option<&Room> {
        self.rooms.get(id.index).filter(|room| room.generation == id.generation)
    }

    pub(super) fn room_mut(&mut self, id: RoomId) -> Option<&mut Room> {
        self.rooms.get_mut(id.index).filter(|room| room.generation == id.generation)
    }

    pub(super) fn rooms_of(&self, session: SessionId) -> impl Iterator<Item = RoomId> + '_ {
        self.rooms
            .iter()
            .filter(move |(_, room)| room.session == session)
            .map(|(index, room)| RoomId { index, generation: room.generation })
    }

    pub(super) fn room_of_group(&mut self, session: SessionId, group: u64) -> Option<RoomId> {
        if let Some((s, g, room)) = self.recent
            && (s, g) == (session, group)
        {
            return Some(room);
        }
        let room = *self.groups.get(&(session, group))?;
        self.recent = Some((session, group, room));
        Some(room)
    }

    /// Joins a room for the app, or finds it joined.
    pub(crate) fn join(
        &mut self,
        session: SessionId,
        name: &str,
        options: &JoinOptions,
        waiter: Answer<RoomId>,
    ) {
        let name: Arc<str> = name.into();
        if let Some(id) = self.by_name.get(&(session, Arc::clone(&name))).copied()
            && let Some(room) = self.room_mut(id)
        {
            room.waiters.retain(|w| !w.is_closed());
            if room.known {
                let _ = waiter.send(Ok(id));
            } else {
                room.waiters.push(waiter);
            }
            return;
        }
        let problem = if self.closed {
            Some(RequestError::Closed)
        } else if !self.session_exists(session) {
            Some(RequestError::SessionClosed { code: CloseCode::NotOpen, reason: String::new() })
        } else if name.is_empty() || name.len() > limits::NAME_BYTES {
            Some(RequestError::BadName)
        } else if self.rooms.len() >= ROOMS_MAX {
            Some(RequestError::TooMany)
        } else {
            None
        };
        if let Some(problem) = problem {
            let _ = waiter.send(Err(problem));
            return;
        }
        self.next_generation = self.next_generation.wrapping_add(1);
        let room = new_room(session, &name, options, self.next_generation, waiter);
        let generation = room.generation;
        let id = RoomId { index: self.rooms.insert(room), generation };
        self.by_name.insert((session, name), id);
        self.want_join(id);
        self.pump_joins();
    }

    /// Puts a room in the line of those to be joined.
    pub(super) fn want_join(&mut self, id: RoomId) {
        let waiting = self.room(id).is_some_and(|room| room.phase == Phase::Waiting);
        if waiting && self.connected && !self.to_join.contains(&id) {
            self.to_join.push_back(id);
        }
    }

    /// Asks for as many joins as may be under way.
    pub(super) fn pump_joins(&mut self) {
        while self.joining_bytes < JOIN_BYTES_MAX
            && let Some(id) = self.to_join.pop_front()
        {
            let Some(room) = self.room(id) else { continue };
            let session = room.session;
            let Some(wire) = self.wire_of(session) else { continue };
            let Some(join) = self.ask_join(id) else { continue };
            self.lanes.frame(Lane::new(wire, Class::Signal), join.to_bytes());
        }
    }

    /// Makes the join of a room, which is asked for from now on.
    pub(super) fn ask_join(&mut self, id: RoomId) -> Option<frame::Join> {
        let request = self.request(Request::Join(id));
        let unseen = self.state_bytes;
        let Some(room) = self.room_mut(id) else {
            self.requests.remove(&request);
            return None;
        };
        room.phase = Phase::Asked;
        let flags = if room.send_only { join_flag::SEND_ONLY } else { 0 };
        let name = (*room.name).into();
        let join = frame::Join { request, flags, room: name, positions: room.positions() };
        room.join_bytes = JOIN_BYTES + if room.known { room.state_bytes } else { unseen };
        let (bytes, session) = (room.join_bytes, room.session);
        self.joining_bytes += bytes;
        if let Some(session) = self.session(session) {
            session.joining += 1;
        }
        Some(join)
    }

    /// A join was answered, or its Session lost.
    pub(super) fn join_ended(&mut self, id: RoomId) {
        let Some(room) = self.room_mut(id) else { return };
        let (bytes, session) = (std::mem::take(&mut room.join_bytes), room.session);
        self.joining_bytes = self.joining_bytes.saturating_sub(bytes);
        if let Some(session) = self.session(session) {
            session.joining = session.joining.saturating_sub(1);
        }
    }

    pub(super) fn joined(
        &mut self,
        session: SessionId,
        joined: frame::Joined,
        now: Instant,
    ) -> Result<(), Stop> {
        let Some(Request::Join(id)) = self.requests.remove(&joined.request) else { return Ok(()) };
        self.join_ended(id);
        let Some(room) = self.room_mut(id) else {
            // Left before the answer came.
            self.leave_group(session, joined.group);
            return Ok(());
        };
        room.phase = Phase::Joined;
        room.attempts = 0;
        if std::mem::replace(&mut room.group, joined.group) != joined.group {
            // What was asked for in the first flight was of a room that is no more.
            self.forget_pages(id);
        }
        self.forget_old_chat(id, now);
        let Some(room) = self.room_mut(id) else { return Ok(()) };
        let again = std::mem::replace(&mut room.known, true);
        let unsynced = again && room.members.version != joined.presence_version;
        room.members.count = joined.members;
        if !unsynced {
            room.members.version = joined.presence_version;
        }
        self.groups.insert((session, joined.group), id);
        self.recent = None;
        for class in Class::ALL {
            let (head, accepted) = joined.classes.get(class.index()).copied().unwrap_or_default();
            self.class_joined(id, class, head, accepted, again);
        }
        self.state_bytes = (3 * self.state_bytes + joined.state.0.len()) / 4;
        self.set_state(session, id, joined.state.0)?;
        let (head, _) = joined.classes.first().copied().unwrap_or_default();
        self.begin_at_cursor(id, head, again);
        if let Some(room) = self.room_mut(id) {
            for waiter in room.waiters.drain(..) {
                let _ = waiter.send(Ok(id));
            }
        }
        if unsynced {
            self.sync_members(id);
        }
        self.release_early(session)?;
        self.pump_joins();
        Ok(())
    }

    fn class_joined(&mut self, id: RoomId, class: Class, head: Seq, accepted: u64, again: bool) {
        let Some(room) = self.room_mut(id) else { return };
        let contiguous = room.contiguous(class);
        let (session, name) = (room.session, Arc::clone(&room.name));
        let receives = !room.send_only;
        let state = room.class(class);
        state.out.joined(accepted, contiguous);
        let unwritten = state.out.unwritten();
        let gap = if receives && state.refill {
            None
        } else if receives && again {
            state.order.skip_to(head)
        } else {
            state.order.last = head;
            None
        };
        // From here on signals and strokes are continued; chat is not kept for those who were away.
        state.refill = receives && class.reliable();
        if let Some((after, missed)) = gap {
            self.stats.missed += missed;
            self.event(Event::Gap { session, room: name, class, after, upto: head, missed });
        }
        if class == Class::Chat {
            self.recount_chat();
        }
        if unwritten > 0
            && let Some(wire) = self.wire_of(session)
        {
            self.lanes.messages(Lane::new(wire, class), id, unwritten);
        }
    }

    fn set_state(&mut self, session: SessionId, id: RoomId, mut frames: Bytes) -> Result<(), Stop> {
        let Some(room) = self.room_mut(id) else { return Ok(()) };
        room.clear_state();
        while let Some(frame) = frame::split(&mut frames)? {
            let deliver = frame::Deliver::parse(frame.body)?;
            let message = message(session, &room.name, deliver);
            room.set_state(&message);
        }
        Ok(())
    }

    pub(crate) fn members_count(&self, id: RoomId) -> u64 {
        self.room(id).map_or(0, |room| room.members.count)
    }

    /// Whether nothing of a room waits for an ack.
    pub(crate) fn is_idle(&self, id: RoomId) -> bool {
        self.room(id).is_none_or(|room| room.classes.iter().all(|class| class.out.len() == 0))
    }

    pub(crate) fn state(&self, id: RoomId) -> Vec<Message> {
        let set = |m: &&Message| !m.payload.is_empty();
        let Some(room) = self.room(id) else { return Vec::new() };
        room.state.values().filter(set).cloned().collect()
    }

    pub(crate) fn state_of(&self, id: RoomId, key: &str) -> Option<Message> {
        let message = self.room(id)?.state.get(&edgeway_proto::Text::from(key))?;
        (!message.payload.is_empty()).then(|| message.clone())
    }
}

fn new_room(
    session: SessionId,
    name: &Arc<str>,
    options: &JoinOptions,
    generation: u32,
    waiter: Answer<RoomId>,
) -> Room {
    let class = |class: Class| {
        let asked = options.positions.iter().find(|(c, _)| *c == class).map(|(_, seq)| *seq);
        ClassState {
            order: Order::new(asked.unwrap_or_default()),
            refill: asked.is_some(),
            out: Outgoing::default(),
        }
    };
    Room {
        generation,
        session,
        name: Arc::clone(name),
        send_only: options.send_only,
        phase: Phase::Waiting,
        known: false,
        attempts: 0,
        join_bytes: 0,
        group: 0,
        members: Members::default(),
        classes: Class::ALL.map(class),
        state: BTreeMap::new(),
        state_bytes: 0,
        cursor: None,
        waiters: vec![waiter],
    }
}

/// The app's view of a delivery.
pub(super) fn message(session: SessionId, room: &Arc<str>, deliver: frame::Deliver) -> Message {
    Message {
        session,
        room: Arc::clone(room),
        class: deliver.class,
        seq: deliver.seq,
        sender: deliver.sender,
        time_ms: deliver.time_ms,
        expires_ms: deliver.expires_ms,
        key: deliver.key,
        shed: deliver.shed,
        payload: deliver.payload.0,
    }
}
