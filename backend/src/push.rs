//! The role push: what business systems ask of rooms and inboxes, passed on to whoever owns them now.
//!
//! An owner may go while it is asked. Then its successor is, with the same message id, by which it knows what the
//! one before has stored: so each message has one effect.

mod types;

use std::{
    collections::HashMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use edgeway_proto::{
    Class, ErrorCode, Seq,
    frame::Deliver,
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
    auth::check_user,
    roles::Role,
    shard::{Replies, Reply},
};

pub use self::types::{Inbox, Message, Page, PushError, Sent, Target};
use self::types::{page, unknown};
pub use crate::room::Change;

/// What may be on its way to owners at a time; each is answered within [`ANSWER`].
pub const WAITING_MAX: usize = 20_000;
/// How long an answer may take: an owner that dies is found out and followed within a few seconds.
const ANSWER: Duration = Duration::from_secs(8);
/// Before an owner that could not do it is asked again.
const AGAIN: Duration = Duration::from_millis(100);

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

    /// What is stored of a class behind a place and not before a time (0 for any): at most `limit` messages, 1 to 200,
    /// that are not void.
    ///
    /// # Errors
    /// Why it cannot be told.
    pub async fn history(
        &self,
        of: &Target,
        class: Class,
        after: Seq,
        since_ms: u64,
        limit: u32,
    ) -> Result<Page, PushError> {
        let (class, after) = (edgeway_proto::link::Class::from(class).into(), Some(after.into()));
        let history = rooms::PushHistory { class, after, limit, since_ms };
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
