//! Rooms on their way in: what the store knows of them, once it has sealed their logs for this owner.

use edgeway_proto::{Class, Text};

use crate::{
    room::{Join, Loaded},
    store::{Store, StoreError},
};

/// Joins that wait for their room.
#[derive(Debug)]
pub(super) struct Waiting {
    /// The room's name.
    pub(super) name: Text,
    pub(super) joins: Vec<Join>,
}

/// Takes a room over.
pub(super) async fn load(
    store: &dyn Store,
    group: u64,
    wall_ms: u64,
) -> Result<Loaded, StoreError> {
    let opened = store.open(group, &Class::ALL, wall_ms).await?;
    let mut loaded = Loaded { state: opened.state, ..Loaded::default() };
    for (class, head) in Class::ALL.into_iter().zip(opened.heads) {
        loaded.heads[class.index()] = head;
    }
    Ok(loaded)
}
