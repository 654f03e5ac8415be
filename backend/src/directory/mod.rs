//! Who is where, shared by all processes: the members of rooms, the gateways that have them, where
//! users are, and what their Sessions have joined. One trait, two implementations, and a conformance
//! suite that both pass.
//!
//! A **listing** is what the directory has of one room or of one Session: a head, and lines in the
//! order of their bytes. It has one writer, which holds the truth; the directory only shows it. So
//! nothing waits for a write (`recorder`), what is not renewed vanishes by itself, and what was
//! lost is written anew. Reads go through a cache (`lookup`).

mod cache;
mod config;
#[cfg(test)]
pub(crate) mod conformance;
mod lookup;
mod memory;
mod pending;
mod recorder;
mod room;
mod session;

use std::{fmt, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;

pub use self::recorder::Recorder;
pub(crate) use self::{
    cache::Stamps,
    recorder::{Listing, Source, Writing},
    room::gateways,
    session::{Head, Place},
};
pub use self::{
    config::DirectoryConfig,
    lookup::{Lookup, LookupError},
    memory::MemoryDirectory,
    room::{Cursor, Member, MemberPage, Route},
    session::{Standing, State, UserSession},
};
use crate::store::{StoreError, StoreFuture};

/// Which listing.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Name {
    /// A room's members, by the room's name in its owner's space.
    Room(Arc<str>),
    /// What a Session has: `USER/DEVICE/TYPE`.
    Session(Arc<str>),
}

impl Name {
    /// A room, by its name in its owner's space.
    #[must_use]
    pub fn room(name: &str) -> Self {
        Self::Room(name.into())
    }

    /// A user's Session on a device. A user has no slash, and neither has a type.
    #[must_use]
    pub fn session(user: &str, device: &str, kind: &str) -> Self {
        Self::Session(format!("{user}/{device}/{kind}").into())
    }

    /// Of a Session: its user, and its name among the user's, `DEVICE/TYPE`.
    #[must_use]
    pub fn of_user(&self) -> Option<(&str, &str)> {
        match self {
            Self::Room(_) => None,
            Self::Session(name) => name.split_once('/'),
        }
    }
}

/// By what right somebody writes. A listing that was written by a later term takes nothing of an
/// earlier one: of a room its epoch, of a Session its generation and its gateway's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Term(pub u64, pub u64);

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.0, self.1)
    }
}

/// What a write does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// All that was there goes first.
    Anew,
    /// It follows the version that is there. Without any change: it is renewed.
    Change,
    /// The listing goes.
    Close,
}

/// One write of one listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// Which.
    pub name: Name,
    /// By what right.
    pub term: Term,
    /// What it does.
    pub action: Action,
    /// The version that it follows; of [`Action::Change`].
    pub before: u64,
    /// The version that it makes: later than all before it of this term, or `before` where it only
    /// renews.
    pub after: u64,
    /// The new head, where that has changed.
    pub head: Option<Bytes>,
    /// Lines that come.
    pub added: Vec<Bytes>,
    /// Lines that go.
    pub removed: Vec<Bytes>,
    /// Lines that there are after it.
    pub total: u64,
    /// How long the listing stays where it is not renewed. Of [`Action::Close`]: how long its term is
    /// remembered.
    pub lives: Duration,
}

/// What became of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is there; also where it was given again.
    Done,
    /// What is there is not what it follows: it must be written anew.
    Behind,
    /// A later term has the listing.
    Stale,
}

/// A listing as it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// By what right it was written.
    pub term: Term,
    /// Its head.
    pub head: Bytes,
    /// How many lines it has.
    pub total: u64,
    /// Those that were asked for.
    pub lines: Vec<Bytes>,
    /// More lines follow them.
    pub more: bool,
}

/// The outcome of each write of a batch, in its order.
pub type Outcomes = Vec<Result<Outcome, StoreError>>;

/// The directory of one process, or of many.
pub trait Directory: Send + Sync + 'static {
    /// Writes, in any order. Each write is there as a whole or not at all, and may be given again
    /// after an error. Of one listing a batch has one write at most of each term.
    fn write(&self, batch: Vec<Arc<Write>>) -> Pin<Box<dyn Future<Output = Outcomes> + Send + '_>>;

    /// A listing, with at most `limit` lines of those after `after`; an empty `after` is before all.
    /// `None` where there is none, or its time is over.
    fn read(&self, name: Name, after: Bytes, limit: usize) -> StoreFuture<'_, Option<Found>>;

    /// Names of a user's Sessions, `DEVICE/TYPE`, at most `limit`. Of some of them the time may be
    /// over.
    fn sessions(&self, user: &str, limit: usize) -> StoreFuture<'_, Vec<String>>;
}

/// The ways to write and to read a directory. Must be called within a tokio runtime.
pub(crate) fn start(directory: Arc<dyn Directory>) -> (Recorder, Writing, Lookup) {
    let (config, stamps) = (DirectoryConfig::default(), Arc::new(Stamps::new()));
    let lookup = Lookup::new(Arc::clone(&directory), &config, Arc::clone(&stamps));
    let (recorder, writing) = Recorder::start(directory, config, stamps);
    (recorder, writing, lookup)
}
