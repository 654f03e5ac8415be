//! Rooms on their way in: what the store knows of them, and the seal that makes this owner theirs.

use edgeway_proto::{Class, Text};

use crate::{
    room::{Join, Loaded, seals},
    store::{LogHead, LogId, Store, StoreError},
};

/// Joins that wait for their room.
#[derive(Debug)]
pub(super) struct Waiting {
    /// The room's name.
    pub(super) name: Text,
    pub(super) joins: Vec<Join>,
}

/// Reads a room and seals its logs.
pub(super) async fn load(
    store: &dyn Store,
    group: u64,
    wall_ms: u64,
) -> Result<Loaded, StoreError> {
    let mut loaded = Loaded::default();
    for class in Class::ALL {
        loaded.heads[class.index()] = store.head(LogId { group, class }).await?;
    }
    store.append(seals(group, &loaded.heads, wall_ms)).await?;
    // After the seal, and once more: nothing that an older owner still stored can be missed. What is sealed
    // is the epoch that was found first.
    for class in Class::ALL {
        let head = &mut loaded.heads[class.index()];
        *head = LogHead { last: head.last, ..store.head(LogId { group, class }).await? };
    }
    loaded.state = store.state(group, wall_ms).await?;
    Ok(loaded)
}
