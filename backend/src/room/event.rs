//! What happens to a room, and what follows from it.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use edgeway_proto::{AckStatus, Class, ErrorCode, Seq, Text, frame, rooms};

use super::{log::Later, notes::Notes, push::Push, rules::Change};
use crate::store::Record;

/// A Session, as its gateway names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId {
    /// The run of the gateway.
    pub gateway: u64,
    /// The gateway's number for the Session, never used twice.
    pub session: u64,
}

/// Who is told what became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Asker {
    /// The client that has sent it.
    Session(SessionId),
    /// The system.
    System {
        /// The link that is answered.
        link: u64,
        /// Number of the request.
        push: u64,
    },
}

impl From<SessionId> for Asker {
    fn from(session: SessionId) -> Self {
        Self::Session(session)
    }
}

/// The time, as the caller knows it.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// Since a start of the caller's choice; never goes back.
    pub since_start: Duration,
    /// Milliseconds since 1970.
    pub wall_ms: u64,
}

/// A Session wants in.
#[derive(Debug, Clone)]
pub struct Join {
    /// The Session.
    pub session: SessionId,
    /// The access instance that holds it.
    pub access: u64,
    /// Number of the request.
    pub request: u64,
    /// The room's name.
    pub name: Text,
    /// The name that the client used.
    pub asked: Text,
    /// The user.
    pub user: Text,
    /// The user's device.
    pub device: Text,
    /// Nothing is delivered, and others do not see this member.
    pub send_only: bool,
    /// What the client has, by class.
    pub have: [Option<Seq>; 3],
    /// A Session of the same user whose place it takes, where that one is here.
    pub replaces: Option<SessionId>,
    /// It may be a replay, and has not taken over from older Sessions of its device.
    pub early: bool,
    /// What the owner of the strokes says, where it is another one: their head, and the last id of the
    /// device.
    pub strokes: (Seq, u64),
}

/// The owner of a room asks that of its strokes, for a Session that joins.
#[derive(Debug, Clone)]
pub struct Ask {
    /// The link that is answered.
    pub access: u64,
    /// Number of the question.
    pub ask: u64,
    /// The Session.
    pub session: SessionId,
    /// The user.
    pub user: String,
    /// The user's device.
    pub device: String,
    /// It has not taken over from older Sessions of its device.
    pub early: bool,
}

/// What happens to a room.
#[derive(Debug, Clone)]
pub enum Event {
    /// A Session joins.
    Join(Join),
    /// A Session leaves.
    Leave {
        /// The Session.
        session: SessionId,
        /// The access instance that says so, and is answered.
        access: u64,
        /// Number of the request; 0 where the client did not ask and is not answered.
        request: u64,
    },
    /// All Sessions of a gateway are gone.
    GatewayGone(u64),
    /// A link of a gateway begins.
    GatewayCame(u64),
    /// All Sessions of an access instance are gone, and the routes that came by its link.
    AccessGone(u64),
    /// A member draws, as access says.
    Stroke {
        /// Its Session.
        session: SessionId,
        /// The user.
        user: Text,
        /// The user's device.
        device: Text,
        /// The stroke.
        send: frame::Send,
        /// As in [`Event::Send`].
        store_full: bool,
    },
    /// A Session joins the room, whose owner asks for what it must be told.
    Ask(Ask),
    /// The gateways that have members are these.
    Route {
        /// The link that says so.
        access: u64,
        /// Of the room's owner.
        epoch: u64,
        /// All of them.
        gateways: Vec<u64>,
    },
    /// The owner of the strokes must be told the route again.
    TellRoute,
    /// A client sends.
    Send {
        /// Its Session.
        session: SessionId,
        /// The message.
        send: frame::Send,
        /// The caller holds as much for the store as it may: what must be stored is refused.
        store_full: bool,
    },
    /// The system sends.
    Push {
        /// What.
        push: Push,
        /// As in [`Event::Send`].
        store_full: bool,
    },
    /// Moderators change who may be here and who may speak.
    Rule {
        /// Who is answered.
        from: Asker,
        /// What.
        change: Change,
        /// What all rules may take.
        bytes_max: usize,
        /// As in [`Event::Send`].
        store_full: bool,
    },
    /// All Sessions of a user are to leave.
    Kick {
        /// The link that is answered.
        link: u64,
        /// Number of the request.
        push: u64,
        /// Who.
        user: Text,
    },
    /// A client asks for the member list.
    Members {
        /// Its Session.
        session: SessionId,
        /// The request.
        members: frame::Members,
    },
    /// What [`super::Room::collect`] gave of this class is stored.
    Appended(Class),
    /// Chat up to here is stored, or never will be.
    ChatSettled(Seq),
    /// Another owner has taken over: nothing can be stored any more.
    Fenced,
    /// The time of [`Effect::WakeAt`] has come.
    Tick,
}

/// What follows from an event, in this order.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Frames for one client.
    ToSession {
        /// Whose client.
        session: SessionId,
        /// The lane.
        class: Class,
        /// Whole frames.
        frames: Bytes,
    },
    /// The gateway delivers a class to the Session from here on.
    Subscribe {
        /// The Session.
        session: SessionId,
        /// The class.
        class: Class,
        /// The last position that is published.
        head: Seq,
        /// What the client has.
        have: Option<Seq>,
        /// Another owner publishes the class.
        elsewhere: bool,
    },
    /// The owner of the strokes is told the gateways that have members.
    Route {
        /// Of this owner.
        epoch: u64,
        /// All of them.
        gateways: Vec<u64>,
    },
    /// A gateway is told that strokes come from here, beginning after a position.
    Announce {
        /// Which.
        gateway: u64,
        /// The last position that is published.
        head: Seq,
    },
    /// A gateway is told that they come no more.
    Retract {
        /// Which.
        gateway: u64,
    },
    /// The gateway delivers nothing of the group to the Session any more.
    Unsubscribe {
        /// The Session.
        session: SessionId,
    },
    /// To every gateway on the room's route, see [`super::Room::route`].
    Publish {
        /// The class.
        class: Class,
        /// Position of the first frame.
        first: Seq,
        /// Positions that the frames take; 0 for frames outside of the sequence.
        count: u32,
        /// Whole frames.
        frames: Bytes,
    },
    /// Chat to be stored when there is time; nothing waits for it.
    AppendBehind(Vec<Record>),
    /// For an access instance. A refusal with a code: the client has not been told.
    ToAccess {
        /// Which.
        access: u64,
        /// What.
        item: rooms::from_owner_item::Item,
    },
    /// The room wants an [`Event::Tick`] at this time.
    WakeAt(Duration),
}

/// Counts of what was done with messages, for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages by class and by [`AckStatus`].
    pub acks: [[u64; 5]; 3],
    /// Joins less leaves.
    pub members: i64,
}

/// A member has come or gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// Its Session.
    pub session: SessionId,
    /// The user.
    pub user: Text,
    /// The user's device.
    pub device: Text,
    /// It has come.
    pub came: bool,
}

/// Who came and went, where that is wanted.
#[derive(Debug, Default)]
pub struct Moves {
    /// Whether it is.
    pub wanted: bool,
    /// In order.
    pub list: Vec<Move>,
    /// Other gateways than before have members.
    pub rerouted: bool,
}

/// Where effects are gathered; reused from event to event.
#[derive(Debug, Default)]
pub struct Effects {
    /// What is to be done, in order.
    pub list: Vec<Effect>,
    /// What was counted.
    pub counts: Counts,
    /// Those whom others see come and go.
    pub moves: Moves,
    /// For the events.
    pub(crate) notes: Notes,
    /// Small frames are cut from here, so that not each is an allocation.
    scratch: BytesMut,
}

/// Told with `unavailable`: a store or an owner that is away is so for moments, or for long.
pub(crate) const RETRY_AFTER_MS: u64 = 500;

/// Small frames are cut from blocks of this size.
const SCRATCH_BYTES: usize = 4096;

/// Frames of one Publish. Far below the 4 MiB that gRPC takes in a message by default, and no more
/// than the outbox of a connection holds.
const PUBLISH_BYTES: usize = 256 * 1024;

impl Effects {
    /// Where this is noted, too.
    pub(crate) fn noting(notes: Notes) -> Self {
        Self { notes, ..Self::default() }
    }

    /// Frames that `encode` appends, for one client, on its signal lane.
    pub(crate) fn tell(&mut self, session: SessionId, encode: impl FnOnce(&mut BytesMut)) {
        self.tell_on(session, Class::Signal, encode);
    }

    fn tell_on(&mut self, session: SessionId, class: Class, encode: impl FnOnce(&mut BytesMut)) {
        if self.scratch.capacity() < SCRATCH_BYTES / 16 {
            self.scratch = BytesMut::with_capacity(SCRATCH_BYTES);
        }
        encode(&mut self.scratch);
        let frames = self.scratch.split().freeze();
        self.list.push(Effect::ToSession { session, class, frames });
    }

    /// What became of a message. For chat on the lane of chat, in one packet with its delivery: a
    /// room of talkers would else send each of them two. (The reason of a refusal goes before its
    /// ack, so those stay together.)
    pub(crate) fn ack(&mut self, from: impl Into<Asker>, ack: &frame::Ack) {
        self.counts.acks[ack.class.index()][ack.status as usize] += 1;
        let session = match from.into() {
            Asker::Session(session) => session,
            Asker::System { link, push } => return self.push_acked(link, push, ack),
        };
        let chat = ack.class == Class::Chat && ack.status != AckStatus::Refused;
        let lane = if chat { Class::Chat } else { Class::Signal };
        self.tell_on(session, lane, |out| ack.encode(out));
    }

    /// A message that may not be sent: the ack, and an error that says why.
    pub(crate) fn refuse(
        &mut self,
        from: impl Into<Asker>,
        send: &frame::Send,
        code: ErrorCode,
        detail: &'static str,
    ) {
        let (group, class, id) = (send.group, send.class, send.id);
        let (status, seq, expected) = (AckStatus::Refused, Seq::ZERO, 0);
        let ack = frame::Ack { group, class, id, status, seq, expected };
        self.answer(&Later { from: from.into(), ack, refusal: Some((code, detail)) });
    }

    pub(crate) fn answer(&mut self, later: &Later) {
        match (later.refusal, later.from) {
            (Some((code, detail)), Asker::Session(session)) => {
                self.error(session, 0, code, detail);
            }
            (Some((code, detail)), Asker::System { link, push }) => {
                self.counts.acks[later.ack.class.index()][later.ack.status as usize] += 1;
                return self.push_refused(link, push, code, detail);
            }
            (None, _) => {}
        }
        self.ack(later.from, &later.ack);
    }

    fn push_acked(&mut self, link: u64, push: u64, ack: &frame::Ack) {
        let place = (ack.status != AckStatus::Shed).then(|| ack.seq.into());
        let repeat = ack.status == AckStatus::Duplicate;
        let sent = rooms::PushSent { place, repeat, differs: false };
        self.pushed(link, push, rooms::pushed::Answer::Sent(sent));
    }

    /// The id was used for something else.
    pub(super) fn push_differs(&mut self, link: u64, push: u64) {
        let sent = rooms::PushSent { place: None, repeat: true, differs: true };
        self.pushed(link, push, rooms::pushed::Answer::Sent(sent));
    }

    fn pushed(&mut self, link: u64, push: u64, answer: rooms::pushed::Answer) {
        let pushed = rooms::Pushed { push, code: 0, detail: String::new(), answer: Some(answer) };
        self.tell_access(link, rooms::from_owner_item::Item::Pushed(pushed));
    }

    pub(super) fn push_kicked(&mut self, link: u64, push: u64, sessions: u64) {
        let kicked = rooms::PushKicked { sessions };
        self.pushed(link, push, rooms::pushed::Answer::Kicked(kicked));
    }

    /// What the system asked for is not done.
    pub(super) fn push_refused(&mut self, link: u64, push: u64, code: ErrorCode, detail: &str) {
        let pushed = refused_push(push, code, detail);
        self.tell_access(link, rooms::from_owner_item::Item::Pushed(pushed));
    }

    pub(crate) fn error(
        &mut self,
        session: SessionId,
        request: u64,
        code: ErrorCode,
        detail: &'static str,
    ) {
        let retry_after_ms = if code == ErrorCode::Unavailable { RETRY_AFTER_MS } else { 0 };
        let detail = Text::from_static(detail);
        let error = frame::Error { request, code: code.code(), retry_after_ms, detail };
        self.tell(session, |out| error.encode(out));
    }

    /// Publishes frames that end at `ends`, in pieces that fit into a message of the link.
    pub(crate) fn publish(
        &mut self,
        class: Class,
        mut first: Seq,
        frames: &Bytes,
        ends: impl Iterator<Item = usize>,
    ) {
        let (mut start, mut last, mut count) = (0, 0, 0);
        for end in ends {
            if count > 0 && end - start > PUBLISH_BYTES {
                let frames = frames.slice(start..last);
                self.list.push(Effect::Publish { class, first, count, frames });
                first.counter += u64::from(count);
                (start, count) = (last, 0);
            }
            (last, count) = (end, count + 1);
        }
        if count > 0 {
            let frames = frames.slice(start..last);
            self.list.push(Effect::Publish { class, first, count, frames });
        }
    }

    pub(crate) fn tell_access(&mut self, access: u64, item: rooms::from_owner_item::Item) {
        self.list.push(Effect::ToAccess { access, item });
    }
}

/// The answer to what the system asked for and is not done.
pub(crate) fn refused_push(push: u64, code: ErrorCode, detail: &str) -> rooms::Pushed {
    let code = u32::try_from(code.code()).unwrap_or(u32::MAX);
    rooms::Pushed { push, code, detail: detail.to_owned(), answer: None }
}

impl From<SessionId> for rooms::SessionRef {
    fn from(id: SessionId) -> Self {
        Self { gateway: id.gateway, session: id.session }
    }
}

impl From<rooms::SessionRef> for SessionId {
    fn from(r: rooms::SessionRef) -> Self {
        Self { gateway: r.gateway, session: r.session }
    }
}
