//! What of a config changes while a backend runs.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use edgeway_filter::Filter;

use crate::{
    auth::Auth,
    config::{self, Config, Rooms},
    room::Filtering,
    shard::{LiveConfig, OwnerConfig, RoomConfig},
};

/// Changes a backend while it runs. Cheap to clone; holds nothing of it that its end waits for.
#[derive(Debug, Clone)]
pub struct Control {
    owners: Vec<LiveConfig>,
    rooms_per_session: Arc<AtomicUsize>,
    auth: Option<Auth>,
    filter: Arc<Filter>,
}

impl Control {
    pub(crate) fn new(
        owners: Vec<LiveConfig>,
        rooms_per_session: Arc<AtomicUsize>,
        auth: Option<Auth>,
        filter: Arc<Filter>,
    ) -> Self {
        Self { owners, rooms_per_session, auth, filter }
    }

    /// Uses what of a config may change: the policy of rooms, who may log in, and what may be said. Rooms and Sessions that are there
    /// follow it too, but nobody is thrown out of a room.
    pub fn apply(&self, config: &Config) {
        let owner = owner_config(config, &self.filter);
        for live in &self.owners {
            // Whether chat is kept waits for a restart, as all of [history].
            let room = RoomConfig { chat_history: live.room().chat_history, ..owner.room.clone() };
            live.set(owner.create_rooms, room);
        }
        self.rooms_per_session.store(config.rooms.per_session, Ordering::Relaxed);
        if let Some(auth) = &self.auth {
            auth.set_users(config.auth.clone());
        }
    }

    /// Who may speak, changed at run time, for the rooms that are owned here.
    #[must_use]
    pub fn filter(&self) -> &Filter {
        &self.filter
    }

    /// The policy of rooms that is in use, where rooms or inboxes are owned here.
    #[must_use]
    pub fn rooms(&self) -> Option<Rooms> {
        let owner = self.owners.first()?;
        let room = owner.room();
        Some(Rooms {
            chat_per_second: room.chat_per_second,
            chat_batch: room.chat_batch,
            create_on_join: owner.create_rooms(),
            max_members: room.members_max,
            per_session: self.rooms_per_session.load(Ordering::Relaxed),
        })
    }

    /// Who may log in now, where logins are checked here.
    #[must_use]
    pub fn users(&self) -> Option<config::Auth> {
        self.auth.as_ref().map(Auth::users)
    }
}

/// The numbers of owners that a config says, and what it says to the filter, which is theirs.
pub(crate) fn owner_config(config: &Config, filter: &Arc<Filter>) -> OwnerConfig {
    let config::Filter { words, classes, blocked, pause } = &config.filter;
    filter.set_words(Arc::clone(words));
    filter.rules(|rules| rules.configure(blocked.clone(), *pause));
    let mut owner =
        OwnerConfig { create_rooms: config.rooms.create_on_join, ..OwnerConfig::default() };
    owner.room.chat_per_second = config.rooms.chat_per_second;
    owner.room.chat_batch = config.rooms.chat_batch;
    owner.room.members_max = config.rooms.max_members;
    owner.room.chat_history = config.history_chat;
    owner.room.filter = Some(Filtering { filter: Arc::clone(filter), classes: *classes });
    owner
}
