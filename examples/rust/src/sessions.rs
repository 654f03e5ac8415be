//! The Sessions that clients open, and what their frames ask for.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::{Bytes, BytesMut};
use edgeway_proto::{
    AckStatus, Class, CloseCode, DecodeError, ErrorCode, Frame, RawFrame, Rest, Seq, Text,
    frame::{
        Ack, Error, FIRST_OWN_KIND, FIRST_SKIPPED_KIND, Join, Joined, Leave, Left, Send, join_flag,
        split,
    },
    link::{
        self, Close, Data, Open, Opened, Publish, Stream, Subscribe, Unsubscribe, down_item::Item,
    },
};

use crate::{
    link::Link,
    quiz::{Device, Quiz, Refused, refuse},
};

/// What is held for a Session until the gateway confirms that it is no replay.
const HELD_BYTES: usize = 128 * 1024;

const QUIZZES_MAX: usize = 1000;
const MEMBERS_MAX: usize = 10_000;

/// A kind of frame that a quiz gives back as it came.
const ECHO: u8 = FIRST_OWN_KIND;

/// A Session is named by the run of its gateway and its number there.
type Key = (u64, u64);

/// A device of one Session type.
type Place = (String, Device);

/// The stream that carries a class, both ways.
const fn stream_of(class: Class) -> Stream {
    match class {
        Class::Signal => Stream::Control,
        Class::Binary | Class::Chat => Stream::Bulk,
    }
}

#[allow(clippy::cast_possible_truncation)] // 64 bits of milliseconds are enough
pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

struct Session {
    link: Arc<Link>,
    number: u64,
    place: Place,
    generation: u64,
    /// Until it is confirmed, what it has sent is held.
    early: bool,
    held: Vec<(Class, Bytes)>,
    held_bytes: usize,
    /// Groups of the quizzes that it is in.
    quizzes: HashSet<u64>,
}

impl Session {
    fn data(&self, class: Class, frames: Bytes) {
        let class_number = link::Class::from(class).into();
        let data = Data { session: self.number, class: class_number, frames, ..Data::default() };
        self.link.send(stream_of(class), Item::Data(data));
    }

    fn answer(&self, frame: impl Into<Frame>) {
        let mut bytes = BytesMut::new();
        frame.into().encode(&mut bytes);
        self.data(Class::Signal, bytes.freeze());
    }

    fn error(&self, request: u64, refused: Refused) {
        self.answer(error(request, refused));
    }
}

fn error(request: u64, refused: Refused) -> Error {
    let Refused { code, detail } = refused;
    Error { request, code: code.code(), retry_after_ms: 0, detail: Text::from(detail) }
}

/// The Session breaks the protocol: what its client is told.
struct Broken {
    code: CloseCode,
    reason: String,
}

impl From<DecodeError> for Broken {
    fn from(e: DecodeError) -> Self {
        Self { code: e.close_code(), reason: e.to_string() }
    }
}

/// A quiz, with the Sessions that are in it.
struct Held {
    name: (String, String),
    quiz: Quiz,
    members: HashMap<Key, Arc<Link>>,
}

/// Everything that the service knows. Behind one lock: so what is published and who is subscribed have
/// one order on each stream.
pub(crate) struct Sessions {
    epoch: u64,
    /// Group handles are shared by all backends of a gateway. Edgeway's own count up from 1, so those of
    /// other backends begin at 2^61. Two quizzes must never share one, not even those of two processes
    /// or of two runs: 41 bits are drawn at each start, 20 count.
    next_group: u64,
    sessions: HashMap<Key, Session>,
    /// The latest Session of each device.
    current: HashMap<Place, Key>,
    quizzes: HashMap<u64, Held>,
    /// By Session type and name.
    names: HashMap<(String, String), u64>,
}

impl Sessions {
    /// `random` makes the handles of this run its own.
    pub(crate) fn new(random: u64) -> Self {
        Self {
            // Positions of this run are above those of the run before, which are lost with its memory.
            // A service that keeps its log keeps its epoch with it.
            epoch: now_ms(),
            next_group: 1 << 61 | (random >> 23) << 20,
            sessions: HashMap::new(),
            current: HashMap::new(),
            quizzes: HashMap::new(),
            names: HashMap::new(),
        }
    }

    /// A client opens a Session.
    pub(crate) fn open(&mut self, link: &Arc<Link>, open: Open) {
        let key = (link.gateway, open.session);
        let device = Device { user: open.user, device: open.device };
        let session = Session {
            link: Arc::clone(link),
            number: open.session,
            place: (open.kind, device),
            generation: open.generation,
            early: open.early,
            held: Vec::new(),
            held_bytes: 0,
            quizzes: HashSet::new(),
        };
        self.sessions.insert(key, session);
        if open.early || self.take_over(key) {
            link.send(Stream::Control, Item::Opened(Opened { session: open.session }));
        }
    }

    /// It is no replay: now it may end an older one, and what it said before counts.
    pub(crate) fn confirm(&mut self, link: &Link, number: u64) {
        let key = (link.gateway, number);
        let Some(session) = self.sessions.get_mut(&key).filter(|s| s.early) else { return };
        session.early = false;
        let held = std::mem::take(&mut session.held);
        if self.take_over(key) {
            for (class, frames) in held {
                self.frames(key, class, frames);
            }
        }
    }

    /// Frames of a client.
    pub(crate) fn data(&mut self, link: &Link, data: Data) {
        let key = (link.gateway, data.session);
        let class = Class::from(data.class());
        // One that was closed here: the gateway did not know yet.
        let Some(session) = self.sessions.get_mut(&key) else { return };
        if !session.early {
            return self.frames(key, class, data.frames);
        }
        // The simplest thing that is right: until it is confirmed nothing is done at all.
        session.held_bytes += data.frames.len();
        session.held.push((class, data.frames));
        if session.held_bytes > HELD_BYTES {
            let reason = "too much before the handshake was complete";
            self.close(key, CloseCode::BackendUnavailable, reason, 0);
        }
    }

    /// The client ended it, or is gone (`lost`). A quiz shows nobody who is there, so that a lost
    /// Session has no place to be kept: its user's answers count whether it comes back or not.
    pub(crate) fn closed(&mut self, link: &Link, number: u64) {
        self.forget((link.gateway, number));
    }

    /// A link is gone, and the gateway has closed its Sessions by itself.
    pub(crate) fn link_gone(&mut self, link: &Arc<Link>) {
        let of_link = |s: &Session| Arc::ptr_eq(&s.link, link);
        let gone: Vec<_> =
            self.sessions.iter().filter(|(_, s)| of_link(s)).map(|(key, _)| *key).collect();
        gone.into_iter().for_each(|key| self.forget(key));
    }

    /// Tells every client when to come back.
    pub(crate) fn goodbye(&mut self) {
        let all: Vec<_> = self.sessions.keys().copied().collect();
        for key in all {
            self.close(key, CloseCode::GoingAway, "the quiz restarts", 1000);
        }
    }

    /// It is its device's from now on; an older one ends. False: it is itself the older one.
    fn take_over(&mut self, key: Key) -> bool {
        let Some(session) = self.sessions.get(&key) else { return false };
        let (place, generation) = (session.place.clone(), session.generation);
        let other = self.current.get(&place).copied();
        let newer = |s: &Session| s.generation > generation;
        let reason = "a newer connection of the same user and device took over";
        if let Some(other) = other {
            if self.sessions.get(&other).is_some_and(newer) {
                self.close(key, CloseCode::Replaced, reason, 0);
                return false;
            }
            self.close(other, CloseCode::Replaced, reason, 0);
        }
        self.current.insert(place, key);
        true
    }

    /// Ends a Session and tells its client why; the gateway does not answer.
    fn close(&mut self, key: Key, code: CloseCode, reason: &str, retry_after_ms: u32) {
        let Some(session) = self.sessions.get(&key) else { return };
        let code = u32::try_from(code.code()).unwrap_or_default();
        let (session, link) = (session.number, &session.link);
        let close = Close { session, code, reason: reason.into(), retry_after_ms, lost: false };
        link.send(Stream::Control, Item::Close(close));
        self.forget(key);
    }

    fn forget(&mut self, key: Key) {
        let Some(session) = self.sessions.remove(&key) else { return };
        for group in &session.quizzes {
            if let Some(held) = self.quizzes.get_mut(group) {
                held.members.remove(&key);
            }
        }
        if self.current.get(&session.place) == Some(&key) {
            self.current.remove(&session.place);
        }
    }

    fn frames(&mut self, key: Key, class: Class, mut frames: Bytes) {
        loop {
            let done = match split(&mut frames) {
                Ok(Some(frame)) => self.frame(key, class, &frame),
                // The gateway hands over whole frames only.
                Ok(None) => return,
                Err(e) => Err(e.into()),
            };
            if let Err(Broken { code, reason }) = done {
                return self.close(key, code, &reason, 0);
            }
        }
    }

    fn frame(&mut self, key: Key, lane: Class, raw: &RawFrame) -> Result<(), Broken> {
        let Some(session) = self.sessions.get(&key) else { return Ok(()) };
        match raw.kind {
            // Opaque to everybody between: it goes back as it came, on the lane on which it came.
            ECHO => {
                session.data(lane, raw.whole.clone());
                return Ok(());
            }
            FIRST_SKIPPED_KIND.. => return Ok(()),
            _ => {}
        }
        match raw.parse()? {
            Frame::Join(join) => self.join(key, &join),
            Frame::Leave(leave) => self.leave(key, &leave, CloseCode::Normal, ""),
            Frame::Send(send) if send.class == lane => self.send(key, &send),
            Frame::History(history) => {
                let held = self.joined(key, history.group);
                match held.and_then(|held| held.quiz.page(&history)) {
                    Ok(page) => session.answer(page),
                    Err(refused) => session.error(history.request, refused),
                }
            }
            Frame::Members(members) => {
                let detail = "a quiz keeps no list of its members".to_owned();
                session.error(members.request, Refused { code: ErrorCode::Forbidden, detail });
            }
            _ => {
                let reason =
                    format!("a frame of kind 0x{:02x} that does not belong here", raw.kind);
                return Err(Broken { code: CloseCode::Protocol, reason });
            }
        }
        Ok(())
    }

    fn joined(&self, key: Key, group: u64) -> Result<&Held, Refused> {
        let held = self.quizzes.get(&group).filter(|held| held.members.contains_key(&key));
        held.map_or_else(|| refuse(ErrorCode::NotJoined, "not in that quiz"), Ok)
    }

    fn join(&mut self, key: Key, join: &Join) {
        let group = match self.may_join(key, join) {
            Ok(group) => group,
            Err(refused) => {
                if let Some(session) = self.sessions.get(&key) {
                    session.error(join.request, refused);
                }
                return;
            }
        };
        let Some(session) = self.sessions.get_mut(&key) else { return };
        let Some(held) = self.quizzes.get_mut(&group) else { return };
        session.quizzes.insert(group);
        held.members.insert(key, Arc::clone(&session.link));
        // On CONTROL: the answer, then the subscription; so `Joined` is before the first delivery.
        session.answer(Joined {
            request: join.request,
            room: join.room.clone(),
            group,
            members: held.members.len() as u64,
            // There is no presence here.
            presence_version: 0,
            classes: held.quiz.classes(&session.place.1),
            state: Rest(held.quiz.state()),
        });
        for class in [Class::Signal, Class::Chat] {
            // On the stream of the deliveries: what was published before is not for this Session, all
            // that follows is. Where the client has less than the head, the gateway tells it to page.
            let have = join.positions.iter().find(|(c, _)| *c == class).map(|(_, seq)| *seq);
            let subscribe = Subscribe {
                session: session.number,
                group,
                class: link::Class::from(class).into(),
                head: Some(held.quiz.head(class).into()),
                have: have.map(Into::into),
                elsewhere: false,
            };
            session.link.send(stream_of(class), Item::Subscribe(subscribe));
        }
    }

    /// The group of the quiz that a join asks for, which begins with its first member.
    fn may_join(&mut self, key: Key, join: &Join) -> Result<u64, Refused> {
        if join.request == 0 || join.room.is_empty() {
            return refuse(ErrorCode::BadRequest, "a join has a number and a name");
        }
        if join.flags & join_flag::SEND_ONLY != 0 {
            return refuse(ErrorCode::Forbidden, "whoever takes part in a quiz also listens");
        }
        let Some(session) = self.sessions.get(&key) else {
            return refuse(ErrorCode::Unavailable, "the Session is over");
        };
        let name = (session.place.0.clone(), join.room.to_string());
        if let Some(group) = self.names.get(&name) {
            let full = |held: &Held| held.members.len() >= MEMBERS_MAX;
            if self.quizzes.get(group).is_some_and(full) {
                return refuse(ErrorCode::RoomFull, "the quiz is full");
            }
            return Ok(*group);
        }
        if self.quizzes.len() >= QUIZZES_MAX {
            let empty = self.quizzes.iter().find(|(_, held)| held.members.is_empty());
            let Some(empty) = empty.map(|(group, _)| *group) else {
                return refuse(ErrorCode::Unavailable, "there are too many quizzes");
            };
            self.end_quiz(empty);
        }
        self.next_group += 1;
        let group = self.next_group;
        let quiz = Quiz::new(group, self.epoch);
        self.quizzes.insert(group, Held { name: name.clone(), quiz, members: HashMap::new() });
        self.names.insert(name, group);
        Ok(group)
    }

    fn leave(&mut self, key: Key, leave: &Leave, code: CloseCode, reason: &str) {
        let Some(session) = self.sessions.get_mut(&key) else { return };
        let Leave { request, group } = *leave;
        if !session.quizzes.remove(&group) {
            let detail = "not in that quiz".to_owned();
            return session.error(request, Refused { code: ErrorCode::NotJoined, detail });
        }
        if let Some(held) = self.quizzes.get_mut(&group) {
            held.members.remove(&key);
        }
        for stream in [Stream::Control, Stream::Bulk] {
            let unsubscribe = Unsubscribe { session: session.number, group };
            session.link.send(stream, Item::Unsubscribe(unsubscribe));
        }
        session.answer(Left { request, group, code: code.code(), reason: reason.into() });
    }

    fn send(&mut self, key: Key, send: &Send) {
        let Some(session) = self.sessions.get(&key) else { return };
        let device = &session.place.1;
        let refuse = |refused| {
            let mut frames = BytesMut::new();
            error(0, refused).encode(&mut frames);
            let Send { group, class, id, .. } = *send;
            Ack { group, class, id, status: AckStatus::Refused, ..Ack::default() }
                .encode(&mut frames);
            session.data(Class::Signal, frames.freeze());
        };
        if let Err(refused) = self.joined(key, send.group) {
            return refuse(refused);
        }
        let Some(held) = self.quizzes.get_mut(&send.group) else { return };
        let is_next = send.id == held.quiz.last_id(device, Class::Signal) + 1;
        if send.class == Class::Signal && is_next && send.payload.0[..] == *b"end" {
            return self.end(key, send);
        }
        let outcome = match held.quiz.send(device, send, now_ms()) {
            Ok(outcome) => outcome,
            Err(refused) => return refuse(refused),
        };
        if let Some((seq, frames)) = outcome.publish {
            publish(held, send.class, seq, &frames);
        }
        // Acks of chat go with chat: they must not stand in front of signals.
        let lane = if send.class == Class::Chat { Class::Chat } else { Class::Signal };
        session.data(lane, outcome.ack.to_bytes());
    }

    /// The quiz is over: everybody leaves.
    fn end(&mut self, key: Key, send: &Send) {
        let Some(session) = self.sessions.get(&key) else { return };
        let reason = format!("{} has ended the quiz", session.place.1.user);
        let ack = Ack { group: send.group, class: send.class, id: send.id, ..Ack::default() };
        session.answer(ack);
        let members: Vec<_> = self
            .quizzes
            .get(&send.group)
            .into_iter()
            .flat_map(|h| h.members.keys())
            .copied()
            .collect();
        for member in members {
            let leave = Leave { request: 0, group: send.group };
            self.leave(member, &leave, CloseCode::Kicked, &reason);
        }
        self.end_quiz(send.group);
    }

    fn end_quiz(&mut self, group: u64) {
        if let Some(held) = self.quizzes.remove(&group) {
            self.names.remove(&held.name);
        }
    }
}

/// One item for each gateway that has members, however many they are: it does the rest.
fn publish(held: &Held, class: Class, first: Seq, frames: &Bytes) {
    let mut told = HashSet::new();
    for link in held.members.values().filter(|link| told.insert(link.gateway)) {
        link.send(
            stream_of(class),
            Item::Publish(Publish {
                group: held.quiz.group(),
                class: link::Class::from(class).into(),
                first: Some(first.into()),
                count: 1,
                frames: frames.clone(),
            }),
        );
    }
}
