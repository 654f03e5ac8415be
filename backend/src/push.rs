//! The role push: what business systems ask of rooms and inboxes, passed on to whoever owns them now.
//!
//! An owner may go while it is asked. Then its successor is, with the same message id, by which it knows what the
//! one before has stored: so each message has one effect.

use std::{
    collections::HashMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use edgeway_proto::{
    Class, ErrorCode, Seq,
    frame::{self, Deliver},
    link::Stream,
    rooms::{
        self, from_owner_item, push::Ask, push_rule::Kind, pushed::Answer, to_owner_item::Item,
    },
};
use parking_lot::Mutex;
use tokio::{
    sync::oneshot,
    time::{Instant, sleep, timeout_at},
};

use crate::{
    access::{Node, OwnerId, Owners, User},
    auth::{check_name, check_user},
    everywhere,
    roles::Role,
    shard::{Replies, Reply},
};

pub use crate::room::Change;

/// What may be on its way to owners at a time; each is answered within [`ANSWER`].
pub const WAITING_MAX: usize = 20_000;
/// How long an answer may take: an owner that dies is found out and followed within a few seconds.
const ANSWER: Duration = Duration::from_secs(8);
/// Before an owner that could not do it is asked again.
const AGAIN: Duration = Duration::from_millis(100);

/// Where something is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    role: Role,
    /// In its owner's space.
    name: String,
}

/// Inboxes of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inbox {
    /// Of Sessions of the type `push`.
    Push,
    /// Of the type `research_push`.
    ResearchPush,
    /// Of the type `im`.
    Im,
}

impl Target {
    /// A room.
    ///
    /// # Errors
    /// What is wrong with its name, to follow "the name ...".
    pub fn room(name: &str) -> Result<Self, &'static str> {
        check_name(name)?;
        Ok(Self { role: Role::Room, name: format!("chat:{name}") })
    }

    /// Where it is kept who is muted and blocked in all rooms, for one user.
    ///
    /// # Errors
    /// What is wrong with the user's name, to follow "the name ...".
    pub fn everywhere(user: &str) -> Result<Self, &'static str> {
        check_user(user)?;
        Ok(Self { role: Role::Room, name: everywhere::room_of(user) })
    }

    /// An inbox of a user.
    ///
    /// # Errors
    /// What is wrong with the user's name, to follow "the name ...".
    pub fn inbox(user: &str, inbox: Inbox) -> Result<Self, &'static str> {
        check_user(user)?;
        let space = match inbox {
            Inbox::Push => "push",
            Inbox::ResearchPush => "research_push",
            Inbox::Im => "im",
        };
        Ok(Self { role: Role::Peer, name: format!("{space}:{user}") })
    }
}

/// A message of the system.
#[derive(Debug, Clone)]
pub struct Message {
    /// Names the request; never 0.
    pub id: u64,
    /// Of what was asked for, where the id will be given again on purpose; else 0.
    pub digest: u64,
    /// Signal or chat.
    pub class: Class,
    /// Of room state; empty for none.
    pub key: String,
    /// Milliseconds since 1970; 0 for never.
    pub expires_ms: u64,
    /// What is sent.
    pub payload: Bytes,
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// Its place in the order of its class; none where chat was shed.
    pub place: Option<Seq>,
    /// It was sent before, by its id.
    pub repeat: bool,
}

/// Why it was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// The owner refuses it.
    #[error("{1}")]
    Refused(ErrorCode, String),
    /// The id was used for something else.
    #[error("the same id was used for another message")]
    Differs,
    /// Whether it was done is not known. It may be asked again, with the same id.
    #[error("{0}")]
    Unavailable(String),
}

/// Passes on what is asked of rooms and inboxes. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Pusher(Arc<Inner>);

/// The same, without keeping the backend alive.
#[derive(Clone)]
pub struct WeakPusher(Weak<Inner>);

struct Inner {
    owners: Arc<Owners>,
    next: AtomicU64,
    waiting: Mutex<HashMap<u64, Waiting>>,
}

struct Waiting {
    owner: OwnerId,
    answer: oneshot::Sender<rooms::Pushed>,
}

/// Forgets a request whose asker is gone.
struct Asked<'a> {
    inner: &'a Inner,
    push: u64,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        let mut waiting = self.inner.waiting.lock();
        waiting.remove(&self.push);
        level(waiting.len());
    }
}

#[allow(clippy::cast_precision_loss, reason = "at most 20,000")]
fn level(waiting: usize) {
    metrics::gauge!("edgeway_push_waiting").set(waiting as f64);
}

impl WeakPusher {
    /// Sends a message, and waits until it is stored, or what else became of it.
    ///
    /// # Errors
    /// Why it was not sent; where it is `Unavailable`, it may have been.
    pub async fn send(&self, to: &Target, message: Message) -> Result<Sent, PushError> {
        let stream = if message.class == Class::Signal { Stream::Control } else { Stream::Bulk };
        let Message { id, digest, class, key, expires_ms, payload } = message;
        let class = edgeway_proto::link::Class::from(class).into();
        let send = rooms::PushSend { id, digest, class, key, expires_ms, payload };
        match self.ask(to, stream, Ask::Send(send)).await? {
            Some(Answer::Sent(sent)) if sent.differs => Err(PushError::Differs),
            Some(Answer::Sent(sent)) => {
                Ok(Sent { place: sent.place.map(Seq::from), repeat: sent.repeat })
            }
            _ => Err(unknown()),
        }
    }

    /// Changes who may be in a room and who may speak; answered once it is stored. Whether something had to change.
    ///
    /// # Errors
    /// Why it was not done; where it is `Unavailable`, it may have been.
    pub async fn rule(&self, to: &Target, change: Change) -> Result<bool, PushError> {
        let (kind, user, until) = match change {
            Change::Mute(user, until) => (Kind::Mute, user, until),
            Change::Block(user, until) => (Kind::Block, user, until),
            Change::MuteRoom(until) => (Kind::MuteRoom, String::new(), until),
            Change::Close(closed) => (Kind::Close, String::new(), closed.then_some(0)),
        };
        let (kind, on, until_ms) = (kind.into(), until.is_some(), until.unwrap_or_default());
        let rule = rooms::PushRule { kind, user, on, until_ms };
        match self.ask(to, Stream::Control, Ask::Rule(rule)).await? {
            Some(Answer::Sent(sent)) => Ok(!sent.repeat),
            _ => Err(unknown()),
        }
    }

    /// All Sessions of a user leave a room; how many.
    ///
    /// # Errors
    /// Why it was not done; where it is `Unavailable`, it may have been.
    pub async fn kick(&self, to: &Target, user: &str) -> Result<u64, PushError> {
        check_user(user).map_err(|why| {
            PushError::Refused(ErrorCode::BadRequest, format!("the user's name {why}"))
        })?;
        let kick = rooms::PushKick { user: user.to_owned() };
        match self.ask(to, Stream::Control, Ask::Kick(kick)).await? {
            Some(Answer::Kicked(kicked)) => Ok(kicked.sessions),
            _ => Err(unknown()),
        }
    }

    /// The room's state: the latest signal of each key, in the order of their places.
    ///
    /// # Errors
    /// Why it cannot be told.
    pub async fn state(&self, of: &Target) -> Result<Vec<Deliver>, PushError> {
        let answer = self.ask(of, Stream::Bulk, Ask::State(rooms::PushState {})).await?;
        Ok(page(answer)?.messages)
    }

    /// What is stored of a class behind a place: at most `limit` messages, 1 to 200, that are not void.
    ///
    /// # Errors
    /// Why it cannot be told.
    pub async fn history(
        &self,
        of: &Target,
        class: Class,
        after: Seq,
        limit: u32,
    ) -> Result<Page, PushError> {
        let (class, after) = (edgeway_proto::link::Class::from(class).into(), Some(after.into()));
        let history = rooms::PushHistory { class, after, limit };
        page(self.ask(of, Stream::Bulk, Ask::History(history)).await?)
    }

    async fn ask(
        &self,
        to: &Target,
        stream: Stream,
        ask: Ask,
    ) -> Result<Option<Answer>, PushError> {
        let Some(inner) = self.0.upgrade() else {
            return Err(PushError::Unavailable("the process stops".to_owned()));
        };
        let until = Instant::now() + ANSWER;
        let mut why = "the room's owner cannot be reached".to_owned();
        while Instant::now() < until {
            match inner.ask_once(to, stream, ask.clone(), until).await {
                Ok(pushed) if pushed.code == 0 => return Ok(pushed.answer),
                Ok(pushed) => match ErrorCode::from_code(pushed.code.into()) {
                    ErrorCode::Unavailable => why = pushed.detail,
                    code => return Err(PushError::Refused(code, pushed.detail)),
                },
                Err(Lost::Full) => {
                    metrics::counter!("edgeway_push_waiting_full_total").increment(1);
                    return Err(PushError::Unavailable("too many requests wait".to_owned()));
                }
                Err(Lost::Owner) => {}
                Err(Lost::Late) => "the room's owner does not answer".clone_into(&mut why),
            }
            let _ = timeout_at(until, sleep(AGAIN)).await;
        }
        Err(PushError::Unavailable(why))
    }
}

/// Messages of a room, oldest first.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Page {
    /// Whole, as members get them.
    pub messages: Vec<Deliver>,
    /// All up to here has been looked at: where the next page begins.
    pub upto: Seq,
    /// There is more.
    pub more: bool,
    /// Some that followed are no longer kept.
    pub truncated: bool,
}

fn page(answer: Option<Answer>) -> Result<Page, PushError> {
    let Some(Answer::Records(records)) = answer else { return Err(unknown()) };
    let rooms::PushRecords { mut frames, upto, more, truncated } = records;
    let mut messages = Vec::new();
    while let Ok(Some(raw)) = frame::split(&mut frames) {
        messages.push(Deliver::parse(raw.body).map_err(|_| unknown())?);
    }
    let upto = upto.map(Seq::from).unwrap_or_default();
    Ok(Page { messages, upto, more, truncated })
}

/// An owner of a later version.
fn unknown() -> PushError {
    PushError::Unavailable(
        "the room's owner gives an answer that this version does not know".into(),
    )
}

/// Why there is no answer.
enum Lost {
    Full,
    Owner,
    Late,
}

impl Inner {
    async fn ask_once(
        &self,
        to: &Target,
        stream: Stream,
        ask: Ask,
        until: Instant,
    ) -> Result<rooms::Pushed, Lost> {
        let owner = self.owners.find(to.role, to.name.as_bytes()).ok_or(Lost::Owner)?;
        let push = self.next.fetch_add(1, Ordering::Relaxed);
        let (tx, rx) = oneshot::channel();
        {
            let mut waiting = self.waiting.lock();
            if waiting.len() >= WAITING_MAX {
                return Err(Lost::Full);
            }
            waiting.insert(push, Waiting { owner, answer: tx });
            level(waiting.len());
        }
        let _asked = Asked { inner: self, push };
        let item = Item::Push(rooms::Push { push, room: to.name.clone(), ask: Some(ask) });
        let answered = async {
            if !self.owners.send(owner, stream, item).await {
                return Err(Lost::Owner);
            }
            // Dropped where the owner is lost.
            rx.await.map_err(|_| Lost::Owner)
        };
        timeout_at(until, answered).await.unwrap_or(Err(Lost::Late))
    }

    fn answered(&self, pushed: rooms::Pushed) {
        if let Some(waiting) = self.waiting.lock().remove(&pushed.push) {
            // Who asked may be gone.
            let _ = waiting.answer.send(pushed);
        }
    }

    fn lost(&self, owner: OwnerId) {
        self.waiting.lock().retain(|_, waiting| waiting.owner != owner);
    }
}

impl Pusher {
    pub(crate) fn new(owners: Owners) -> Self {
        let (owners, next) = (Arc::new(owners), AtomicU64::new(1));
        Self(Arc::new(Inner { owners, next, waiting: Mutex::default() }))
    }

    pub(crate) fn downgrade(&self) -> WeakPusher {
        WeakPusher(Arc::downgrade(&self.0))
    }

    /// For readiness.
    pub(crate) fn owners_weak(&self) -> Weak<Owners> {
        Arc::downgrade(&self.0.owners)
    }

    /// From now on the owners of a role are those of these names.
    ///
    /// # Errors
    /// One that `make` cannot make; nothing has changed then.
    pub(crate) fn set_owners<E>(
        &self,
        role: Role,
        names: &[String],
        make: impl Fn(&str) -> Result<Node, E>,
    ) -> Result<(), E> {
        let change = Owners::change(self, role, names, make)?;
        for owner in change.into_iter().flat_map(|change| change.gone) {
            self.0.lost(owner);
        }
        Ok(())
    }
}

impl User for Pusher {
    fn owners(&self) -> &Owners {
        &self.0.owners
    }

    fn replies(&self, _: OwnerId) -> Arc<dyn Replies> {
        Arc::new(ToPusher(Arc::downgrade(&self.0)))
    }

    fn reply(&self, _: OwnerId, reply: Reply) {
        if let Reply::Item(from_owner_item::Item::Pushed(pushed)) = reply {
            self.0.answered(pushed);
        }
    }

    fn reached(&self, _: OwnerId) {}

    fn lost(&self, owner: OwnerId) {
        self.0.lost(owner);
    }
}

/// What an owner in this process answers into.
struct ToPusher(Weak<Inner>);

impl Replies for ToPusher {
    fn send(&self, reply: Reply) -> bool {
        let inner = self.0.upgrade();
        if let (Some(inner), Reply::Item(from_owner_item::Item::Pushed(pushed))) = (&inner, reply) {
            inner.answered(pushed);
        }
        inner.is_some()
    }
}
