//! Who is muted and blocked in all rooms. It is kept as the rules of rooms that nobody can join, so it has what every room has: an
//! owner, an order, and a log. Each process that owns rooms looks at what is stored, again and again.

use std::{collections::HashMap, sync::Arc, time::Duration};

use edgeway_filter::{Filter, Until};
use edgeway_proto::{Class, Seq};
use tokio_util::sync::CancellationToken;

use crate::{
    room::Rules,
    store::{LogId, Store, StoreError},
};

/// How soon what is changed holds everywhere.
const LOOK: Duration = Duration::from_millis(500);
/// Rooms that users are spread over, each with a thousand and more: as few as will do, since each is asked for at each
/// look.
const ROOMS: u64 = 4;
/// What the rules of one of them may take, which has no other state and nobody who joins: a message.
pub(crate) const BYTES: usize = 40 * 1024;
/// In front of their names: no room that can be joined has it.
const PREFIX: &str = "rules:";

/// The room that has what is said of a user, in the owner's space.
pub(crate) fn room_of(user: &str) -> String {
    name(xxhash_rust::xxh3::xxh3_64(user.as_bytes()) % ROOMS)
}

/// Whether it is such a room.
pub(crate) fn is_place(room: &str) -> bool {
    room.starts_with(PREFIX)
}

fn name(at: u64) -> String {
    format!("{PREFIX}{at}")
}

/// Keeps a filter as the store has it.
pub(crate) struct Everywhere {
    store: Arc<dyn Store>,
    filter: Arc<Filter>,
    rooms: Vec<Known>,
    failing: bool,
}

#[derive(Clone, Default)]
struct Known {
    /// Once the room is there.
    group: Option<u64>,
    last: Seq,
    rules: Rules,
}

impl Everywhere {
    pub(crate) fn new(store: Arc<dyn Store>, filter: Arc<Filter>) -> Self {
        let rooms = (0..ROOMS).map(|_| Known::default()).collect();
        Self { store, filter, rooms, failing: false }
    }

    /// Until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(LOOK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = stop.cancelled() => return,
            }
            let looking = self.look();
            tokio::select! {
                () = looking => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Once. Where the store is away, what was known stays.
    pub(crate) async fn look(&mut self) {
        match self.read().await {
            Ok(changed) => {
                self.failing = false;
                if changed {
                    self.tell();
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::warn!(%error, "who is blocked everywhere cannot be read; what was known stays");
                }
            }
        }
    }

    async fn read(&mut self) -> Result<bool, StoreError> {
        if self.rooms.iter().any(|room| room.group.is_none()) {
            let names = (0..ROOMS).map(name).collect();
            let groups = self.store.groups(names, false).await?;
            self.rooms.iter_mut().zip(groups).for_each(|(room, group)| room.group = group);
        }
        let mut changed = false;
        for room in &mut self.rooms {
            let Some(group) = room.group else { continue };
            let last = self.store.last(LogId { group, class: Class::Signal }).await?;
            if last != room.last {
                // What is stored in between is seen at the next look, since `last` is older.
                room.rules = Rules::restore(&self.store.state(group, 0).await?);
                room.last = last;
                changed = true;
            }
        }
        Ok(changed)
    }

    fn tell(&self) {
        let all = |users: fn(&Rules) -> &std::collections::BTreeMap<String, u64>| {
            let of_rooms = self.rooms.iter().flat_map(|room| Rules::users(users(&room.rules)));
            of_rooms
                .map(|(user, until)| (user.to_owned(), until))
                .collect::<HashMap<String, Until>>()
        };
        let (blocked, muted) = (all(|rules| &rules.blocked), all(|rules| &rules.muted));
        self.filter.rules(|rules| rules.set_stored(blocked, muted));
    }
}
