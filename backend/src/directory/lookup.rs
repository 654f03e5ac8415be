//! Reading the directory, through the cache.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    Cursor, Directory, DirectoryConfig, Found, MemberPage, Name, Route, State, UserSession,
    cache::{Answer, Cache, Key, Stamps},
};
use crate::{
    auth::{check_name, check_user},
    store::StoreError,
};

/// In front of the names of rooms in their owner's space.
const ROOMS: &str = "chat:";
/// Members of a page at most.
const PAGE: usize = 1_000;
/// Sessions of a user that are looked at: no one has as many devices.
const SESSIONS: usize = 256;

/// Why a question has no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LookupError {
    /// It is none.
    #[error("{0}")]
    Bad(String),
    /// The directory could not be read; it may be asked again.
    #[error("the directory cannot be read now: {0}")]
    Unavailable(StoreError),
}

/// Reads the directory. Cheap to clone. What it says is as old as [`DirectoryConfig::fresh`] at most, and
/// as the writers need to write.
#[derive(Clone)]
pub struct Lookup(Arc<Cache>);

impl Lookup {
    pub(crate) fn new(
        directory: Arc<dyn Directory>,
        config: &DirectoryConfig,
        stamps: Arc<Stamps>,
    ) -> Self {
        Self(Arc::new(Cache::new(directory, config, stamps)))
    }

    /// A page of a room's members: at most `limit` (1 to 1,000) of those after a place.
    ///
    /// # Errors
    /// `Bad` where the name or the limit is none.
    pub async fn members(
        &self,
        room: &str,
        after: &Cursor,
        limit: usize,
    ) -> Result<MemberPage, LookupError> {
        let name = room_name(room)?;
        if !(1..=PAGE).contains(&limit) {
            let why = format!("`limit` is {limit}; a page has 1 to {PAGE} members");
            return Err(LookupError::Bad(why));
        }
        match self.listing(&name, after.line(), limit).await? {
            None => Ok(MemberPage::default()),
            Some(found) => MemberPage::read(&found).ok_or_else(|| unreadable(room)),
        }
    }

    /// The gateways that have members of a room.
    ///
    /// # Errors
    /// `Bad` where the name is none.
    pub async fn route(&self, room: &str) -> Result<Route, LookupError> {
        let name = room_name(room)?;
        match self.listing(&name, Bytes::new(), 0).await? {
            None => Ok(Route::default()),
            Some(found) => Route::read(&found).ok_or_else(|| unreadable(room)),
        }
    }

    /// Where a user is: all Sessions, by device and type.
    ///
    /// # Errors
    /// `Bad` where the name is none.
    pub async fn user(&self, user: &str) -> Result<Vec<UserSession>, LookupError> {
        check_user(user).map_err(|problem| bad_name("user", problem))?;
        let key = Key::Sessions { user: user.into(), limit: SESSIONS };
        let names = match self.0.get(key).await {
            Answer::Sessions(names) => names,
            Answer::Failed(e) => return Err(LookupError::Unavailable(e)),
            Answer::Listing(_) => return Err(unreadable(user)),
        };
        let mut sessions = Vec::with_capacity(names.len());
        for name in &*names {
            let session = Name::Session(format!("{user}/{name}").into());
            if let Some(found) = self.listing(&session, Bytes::new(), 0).await? {
                let session = UserSession::read(name, &found);
                sessions.push(session.ok_or_else(|| unreadable(user))?);
            }
        }
        sessions.sort_by(|a, b| (&a.device, &a.kind).cmp(&(&b.device, &b.kind)));
        Ok(sessions)
    }

    /// What a Session has, for who takes it over.
    ///
    /// # Errors
    /// `Unavailable` also where its places change so fast that no whole list of them could be had.
    pub async fn session(
        &self,
        user: &str,
        device: &str,
        kind: &str,
    ) -> Result<Option<State>, LookupError> {
        let name = Name::session(user, device, kind);
        let Some(mut found) = self.listing(&name, Bytes::new(), PAGE).await? else {
            return Ok(None);
        };
        let mut state = State::read(&found).ok_or_else(|| unreadable(user))?;
        while let Some(last) = found.lines.last().filter(|_| found.more).cloned() {
            match self.listing(&name, last, PAGE).await? {
                Some(next) if next.term == found.term => found = next,
                _ => return Ok(None),
            }
            state.extend(&found).ok_or_else(|| unreadable(user))?;
        }
        Ok(Some(state))
    }

    async fn listing(
        &self,
        name: &Name,
        after: Bytes,
        limit: usize,
    ) -> Result<Option<Arc<Found>>, LookupError> {
        match self.0.get(Key::Listing { name: name.clone(), after, limit }).await {
            Answer::Listing(found) => Ok(found),
            Answer::Failed(e) => Err(LookupError::Unavailable(e)),
            Answer::Sessions(_) => Err(unreadable("it")),
        }
    }
}

fn room_name(room: &str) -> Result<Name, LookupError> {
    check_name(room).map_err(|problem| bad_name("room", problem))?;
    Ok(Name::room(&format!("{ROOMS}{room}")))
}

fn bad_name(what: &str, problem: &str) -> LookupError {
    LookupError::Bad(format!("the name of the {what} {problem}"))
}

fn unreadable(place: &str) -> LookupError {
    let what = "a listing that is none".to_owned();
    LookupError::Unavailable(StoreError::Corrupt { what, place: place.to_owned() })
}
