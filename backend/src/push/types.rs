//! What is asked, and what is answered.

use bytes::Bytes;
use edgeway_proto::{
    Class, ErrorCode, Seq,
    frame::{self, Deliver},
    rooms::{self, pushed::Answer},
};

use crate::{
    access::{EVERYONE, TOPIC, check_topic},
    auth::{check_name, check_user},
    everywhere,
    roles::Role,
};

/// Where something is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub(super) role: Role,
    /// In its owner's space.
    pub(super) name: String,
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
        Ok(Self::of_peer(inbox, user))
    }

    /// A topic of Sessions of this type; of `Im` there are none, and nobody hears it.
    ///
    /// # Errors
    /// What is wrong with its name, to follow "the name ...".
    pub fn topic(topic: &str, inbox: Inbox) -> Result<Self, &'static str> {
        check_topic(topic)?;
        Ok(Self::of_peer(inbox, &format!("{TOPIC}{topic}")))
    }

    /// The topic of all who listen, of Sessions of this type.
    #[must_use]
    pub fn everyone(inbox: Inbox) -> Self {
        Self::of_peer(inbox, EVERYONE)
    }

    fn of_peer(inbox: Inbox, name: &str) -> Self {
        let space = match inbox {
            Inbox::Push => "push",
            Inbox::ResearchPush => "research_push",
            Inbox::Im => "im",
        };
        Self { role: Role::Peer, name: format!("{space}:{name}") }
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

pub(super) fn page(answer: Option<Answer>) -> Result<Page, PushError> {
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
pub(super) fn unknown() -> PushError {
    PushError::Unavailable(
        "the room's owner gives an answer that this version does not know".into(),
    )
}
