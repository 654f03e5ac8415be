//! One Session as a pure state machine: frames of its client and answers of owners go in, what is
//! to be sent comes out. No I/O, no clock.

mod moved;
mod noted;
mod places;
mod strokes;

use std::{
    collections::{HashSet, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use edgeway_proto::{
    AckStatus, Class, CloseCode, DecodeError, ErrorCode, RawFrame, Seq,
    frame::{self, Ack, FIRST_SKIPPED_KIND, History, Leave, Members, Send, join_flag, split},
    link::Stream,
    rooms::{self, SessionRef, to_owner_item::Item},
};

use super::{
    out::{Fatal, Out, RETRY_MS, error, have, protocol, stream_of, unavailable},
    owners::OwnerId,
    rights::Rights,
    space::SessionType,
};
use crate::{directory, roles::Role};
use noted::{Noted, Placed};
pub(super) use places::Place;

/// What one Session may have waiting for the answer to a join: as much as the credit of its lanes,
/// which is what its client can have sent.
const PARKED_BYTES: usize = 128 * 1024;

/// Joins under way of all Sessions but those that join many rooms at once: up to here no memory is taken in
/// advance.
const FEW: usize = 4;

/// Who owns what.
pub(super) trait Route {
    /// A name.
    fn owner(&self, role: Role, room: &str) -> OwnerId;

    /// The strokes of a room; `None` where the room's owner has them.
    fn strokes(&self, group: u64) -> Option<OwnerId>;
}

/// Which Session, and whose.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    pub(super) session: SessionRef,
    pub(super) kind: SessionType,
    pub(super) user: String,
    pub(super) device: String,
    pub(super) generation: u64,
    pub(super) rights: Rights,
}

#[derive(Debug)]
pub(super) struct Session {
    pub(super) identity: Identity,
    /// Of all Sessions: it may change.
    rooms_max: Arc<AtomicUsize>,
    groups: Noted<Group>,
    /// Boxed: few have any.
    past: Option<Box<places::Past>>,
    /// Joins that their owners have not answered; each is answered once.
    joins: Vec<Join>,
    /// Frames for a group that may be the answer to one of `joins`, and what came after them, by
    /// stream: an owner's answer may reach the client before it gets here.
    parked: [VecDeque<(Class, RawFrame)>; 2],
    parked_bytes: usize,
    /// Groups whose owner was lost. The client knows, and what it sent before it did comes again once it
    /// has joined them again. Boxed: few have any.
    #[allow(clippy::box_collection, reason = "8 bytes of each Session instead of 48")]
    moved: Option<Box<HashSet<u64>>>,
}

/// A group that the Session is in.
#[derive(Debug)]
struct Group {
    session: SessionRef,
    owner: OwnerId,
    /// Someone else's inbox.
    foreign: bool,
    /// Its name.
    room: Box<str>,
    /// Who was sent strokes that may not be acked: the owner of those, where that is another one.
    drew: Option<OwnerId>,
}

#[derive(Debug)]
struct Join {
    request: u64,
    group: Group,
    /// The Session whose place it was to take.
    replaces: Option<SessionRef>,
}

/// Frames of one message that go to the same group, one after the other.
#[derive(Debug, Clone, Copy)]
struct Run {
    to: To,
    start: usize,
    end: usize,
}

/// Where frames go.
#[derive(Debug, Clone, Copy)]
struct To {
    group: u64,
    owner: OwnerId,
    /// It has the group's strokes, and nothing else.
    strokes: bool,
}

/// What is to be done with a frame.
enum Step {
    /// It goes to the group's owner as it is.
    Forward(To),
    /// It was dealt with.
    Done,
    /// Its group may be one that is being joined.
    Park,
}

impl Session {
    pub(super) fn new(identity: Identity, rooms_max: Arc<AtomicUsize>) -> Self {
        Self {
            identity,
            rooms_max,
            groups: Noted::default(),
            past: None,
            joins: Vec::new(),
            parked: Default::default(),
            parked_bytes: 0,
            moved: None,
        }
    }

    /// Frames of the client, of one lane.
    ///
    /// # Errors
    /// Frames that are none, or not of this lane: the Session ends.
    pub(super) fn data(
        &mut self,
        route: &impl Route,
        class: Class,
        frames: &Bytes,
        out: &mut Vec<Out>,
    ) -> Result<(), Fatal> {
        let stream = stream_of(class);
        let mut rest = frames.clone();
        let mut at = 0;
        let mut run: Option<Run> = None;
        while let Some(raw) = split(&mut rest)? {
            let (start, end) = (at, at + raw.whole.len());
            at = end;
            let behind_parked = !self.parked[stream as usize].is_empty();
            let before = out.len();
            let step =
                if behind_parked { Step::Park } else { self.frame(route, class, &raw, out)? };
            match (step, &mut run) {
                (Step::Forward(to), Some(run)) if run.to.group == to.group => run.end = end,
                (step, _) => {
                    // In front of what this frame put out: a leave follows what was sent before it.
                    if let Some(run) = run.take() {
                        out.insert(before, self.forward_run(run, stream, frames));
                    }
                    match step {
                        Step::Forward(to) => run = Some(Run { to, start, end }),
                        Step::Park => self.park(class, raw)?,
                        Step::Done => {}
                    }
                }
            }
        }
        out.extend(run.map(|run| self.forward_run(run, stream, frames)));
        if rest.is_empty() { Ok(()) } else { Err(protocol("a frame is cut off")) }
    }

    fn forward_run(&self, run: Run, stream: Stream, frames: &Bytes) -> Out {
        self.forward(run.to, stream, frames.slice(run.start..run.end))
    }

    fn forward(&self, to: To, stream: Stream, frames: Bytes) -> Out {
        let Identity { session, user, device, .. } = &self.identity;
        let (session, group) = (Some(*session), to.group);
        let item = if to.strokes {
            let (user, device) = (user.clone(), device.clone());
            Item::Strokes(rooms::Strokes { session, group, user, device, frames })
        } else {
            Item::Frames(rooms::Frames { session, group, frames })
        };
        Out::Owner(to.owner, stream, item)
    }

    fn park(&mut self, class: Class, raw: RawFrame) -> Result<(), Fatal> {
        self.parked_bytes += raw.whole.len();
        if self.parked_bytes > PARKED_BYTES {
            let reason = "too much waits for the owner of a room".to_owned();
            return Err(Fatal { code: CloseCode::BackendUnavailable, reason });
        }
        self.parked[stream_of(class) as usize].push_back((class, raw));
        Ok(())
    }

    /// Goes on with what was parked, as far as it can.
    ///
    /// # Errors
    /// As [`Self::data`].
    pub(super) fn unpark(
        &mut self,
        route: &impl Route,
        stream: Stream,
        out: &mut Vec<Out>,
    ) -> Result<(), Fatal> {
        while let Some((class, raw)) = self.parked[stream as usize].pop_front() {
            match self.frame(route, class, &raw, out)? {
                Step::Forward(to) => out.push(self.forward(to, stream, raw.whole.clone())),
                Step::Done => {}
                Step::Park => {
                    self.parked[stream as usize].push_front((class, raw));
                    return Ok(());
                }
            }
            self.parked_bytes -= raw.whole.len();
        }
        Ok(())
    }

    fn frame(
        &mut self,
        route: &impl Route,
        class: Class,
        raw: &RawFrame,
        out: &mut Vec<Out>,
    ) -> Result<Step, Fatal> {
        let body = raw.body.clone();
        if !self.may_come_early(raw)? {
            return Ok(Step::Park);
        }
        if raw.kind == Send::KIND {
            return self.send(route, class, &Send::parse(body)?, out);
        }
        if raw.kind >= FIRST_SKIPPED_KIND {
            return Ok(Step::Done);
        }
        if class != Class::Signal {
            return Err(protocol("only messages travel on the lanes of binary and chat"));
        }
        match raw.kind {
            frame::Join::KIND => self.join(route, &frame::Join::parse(body)?, out),
            Leave::KIND => self.leave(&Leave::parse(body)?, out),
            History::KIND => {
                let History { request, group, .. } = History::parse(body)?;
                self.request(request, group, out)
            }
            Members::KIND => {
                let Members { request, group, .. } = Members::parse(body)?;
                let is_topic = |group: &Group| self.identity.kind.is_topic(&group.room);
                if self.groups.get(&group).is_some_and(is_topic) {
                    let detail = "who listens to a topic is not told";
                    out.push(error(request, ErrorCode::Forbidden, detail));
                    return Ok(Step::Done);
                }
                self.request(request, group, out)
            }
            kind => Err(DecodeError::UnknownKind(kind).into()),
        }
    }

    fn send(
        &mut self,
        route: &impl Route,
        class: Class,
        send: &Send,
        out: &mut Vec<Out>,
    ) -> Result<Step, Fatal> {
        if send.class != class {
            return Err(protocol("a message's class must be its lane's"));
        }
        let group = send.group;
        if let Some(found) = self.groups.get_mut(group) {
            let kind = self.identity.kind;
            if kind.is_topic(&found.room) {
                let detail = "topics are sent to by the push API alone";
                refuse(send, ErrorCode::Forbidden, detail, out);
                return Ok(Step::Done);
            }
            if let Some(detail) = self.identity.rights.refuses(&found.room, class) {
                refuse(send, ErrorCode::Forbidden, detail, out);
                return Ok(Step::Done);
            }
            let apart = class == Class::Binary && kind.owner() == Role::Room;
            let strokes = if apart { route.strokes(group) } else { None };
            found.drew = strokes.or(found.drew);
            let owner = strokes.unwrap_or(found.owner);
            return Ok(Step::Forward(To { group, owner, strokes: strokes.is_some() }));
        }
        if !self.joins.is_empty() {
            return Ok(Step::Park);
        }
        if self.is_moved(send.group) {
            return Ok(Step::Done);
        }
        refuse(send, ErrorCode::NotJoined, "this group is not joined", out);
        Ok(Step::Done)
    }

    fn join(
        &mut self,
        route: &impl Route,
        join: &frame::Join,
        out: &mut Vec<Out>,
    ) -> Result<Step, Fatal> {
        if join.request == 0 {
            return Err(protocol("a request's number must not be 0"));
        }
        let send_only = join.flags & join_flag::SEND_ONLY != 0;
        let identity = &self.identity;
        let place = match identity.kind.place(&identity.user, &join.room, send_only) {
            Ok(place) => place,
            Err((code, detail)) => {
                out.push(error(join.request, code, detail));
                return Ok(Step::Done);
            }
        };
        let rights = &identity.rights;
        if !rights.may_join(identity.kind, &join.room, send_only)
            || (place.foreign && !rights.may_write())
        {
            let detail = "the login may not join this room";
            out.push(error(join.request, ErrorCode::Forbidden, detail));
            return Ok(Step::Done);
        }
        // Who joins again, because it has lost the group on the way, has its place already.
        let is_in = || self.groups.values().any(|group| *group.room == *place.room);
        let rooms_max = self.rooms_max.load(Ordering::Relaxed);
        if self.groups.len() + self.joins.len() >= rooms_max && !is_in() {
            let detail = format!("at most {rooms_max} rooms at a time");
            out.push(error(join.request, ErrorCode::TooManyRooms, detail));
            return Ok(Step::Done);
        }
        let owner = route.owner(identity.kind.owner(), &place.room);
        let (session, room) = (identity.session, place.room.as_str().into());
        let group = Group { session, owner, foreign: place.foreign, room, drew: None };
        let replaces = self.past.as_ref().and_then(|past| past.replaces);
        if self.joins.len() < FEW {
            self.joins.reserve_exact(1);
        }
        self.joins.push(Join { request: join.request, group, replaces });
        let item = rooms::Join {
            session: Some(identity.session),
            request: join.request,
            room: place.room,
            asked: join.room.to_string(),
            user: identity.user.clone(),
            device: identity.device.clone(),
            generation: identity.generation,
            flags: join.flags,
            have: join.positions.iter().map(|(class, seq)| have(*class, *seq)).collect(),
            replaces,
            early: self.is_early(),
        };
        out.push(Out::Owner(owner, Stream::Control, Item::Join(item)));
        Ok(Step::Done)
    }

    fn leave(&mut self, leave: &Leave, out: &mut Vec<Out>) -> Result<Step, Fatal> {
        let (request, group) = (leave.request, leave.group);
        let Some(Group { owner, .. }) = self.groups.remove(group) else {
            return Ok(self.unknown(request, out));
        };
        let session = Some(self.identity.session);
        let item = Item::Leave(rooms::Leave { session, request, group });
        out.push(Out::Owner(owner, Stream::Control, item));
        Ok(Step::Done)
    }

    fn request(&self, request: u64, group: u64, out: &mut Vec<Out>) -> Result<Step, Fatal> {
        match self.groups.get(&group) {
            Some(Group { foreign: true, .. }) => {
                let detail = "another user's inbox can only be sent to";
                out.push(error(request, ErrorCode::Forbidden, detail));
                Ok(Step::Done)
            }
            Some(Group { owner, .. }) => {
                Ok(Step::Forward(To { group, owner: *owner, strokes: false }))
            }
            None if self.joins.is_empty() && self.is_moved(group) => {
                out.push(unavailable(request, RETRY_MS));
                Ok(Step::Done)
            }
            None => Ok(self.unknown(request, out)),
        }
    }

    fn unknown(&self, request: u64, out: &mut Vec<Out>) -> Step {
        if !self.joins.is_empty() {
            return Step::Park;
        }
        out.push(error(request, ErrorCode::NotJoined, "this group is not joined"));
        Step::Done
    }

    /// An owner let the Session in; the kept place that is to be given up now. `None`: it was not
    /// asked to (any more).
    pub(super) fn joined(
        &mut self,
        owner: OwnerId,
        request: u64,
        group: u64,
    ) -> Option<Option<Place>> {
        let join = self.answered(owner, request)?;
        self.groups.insert(group, join.group);
        if let Some(moved) = &mut self.moved {
            moved.remove(&group);
            self.moved = self.moved.take().filter(|moved| !moved.is_empty());
        }
        let place = self.past.as_mut().and_then(|past| past.kept.remove(group));
        Some(place.filter(|place| join.replaces != Some(place.session)))
    }

    /// An owner did not let the Session in, or could not be asked. `false`: it was not asked to.
    pub(super) fn refused(&mut self, owner: OwnerId, request: u64) -> bool {
        self.answered(owner, request).is_some()
    }

    fn answered(&mut self, owner: OwnerId, request: u64) -> Option<Join> {
        let asked = |join: &Join| join.request == request && join.group.owner == owner;
        let at = self.joins.iter().position(asked)?;
        Some(self.joins.remove(at))
    }

    /// Leaves the groups of the rooms that a condition holds for; those that it has left.
    pub(super) fn leave_where(&mut self, is_left: impl Fn(&str) -> bool) -> Vec<(u64, OwnerId)> {
        let left = self.groups.take(|group| is_left(&group.room));
        left.into_iter().map(|(id, group)| (id, group.owner)).collect()
    }

    /// An owner says that the Session is out of a group.
    pub(super) fn left(&mut self, owner: OwnerId, group: u64) {
        if self.groups.get(&group).is_some_and(|g| g.owner == owner) {
            self.groups.remove(group);
            // It did not ask to: the owner has told the client.
            self.moved(group);
        }
    }

    /// The streams on which something is parked.
    pub(super) fn parked(&self) -> impl Iterator<Item = Stream> + '_ {
        let waits = |stream: &Stream| !self.parked[*stream as usize].is_empty();
        [Stream::Control, Stream::Bulk].into_iter().filter(waits)
    }
}

impl Placed for Group {
    fn line(&self, group: u64) -> Bytes {
        directory::Place::line(group, self.session.into(), self.foreign, &self.room)
    }
}

/// Refuses a message.
fn refuse(send: &Send, code: ErrorCode, detail: &'static str, out: &mut Vec<Out>) {
    let Send { group, class, id, .. } = *send;
    let (status, seq) = (AckStatus::Refused, Seq::ZERO);
    let ack = Ack { group, class, id, status, seq, expected: 0 };
    // The error comes first: it says why (WIRE.md, sending).
    out.push(error(0, code, detail));
    out.push(Out::Client(ack.to_bytes()));
}

fn hash(name: &str) -> u64 {
    xxhash_rust::xxh3::xxh3_64(name.as_bytes())
}
