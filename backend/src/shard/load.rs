//! Rooms on their way in: what the store knows of them, once it has sealed their logs for this owner.

use edgeway_proto::{Text, rooms};

use super::task::Input;
use crate::{
    room::{Join, Kind, Loaded},
    store::{Store, StoreError},
};

/// What waits for a room.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// The room's name.
    pub(super) name: Text,
    pub(super) joins: Vec<Join>,
    /// Of the system, with the links that are answered.
    pub(super) pushes: Vec<(u64, rooms::Push)>,
    /// For an owner of strokes, and the bytes of the strokes.
    pub(super) inputs: Vec<Input>,
    pub(super) bytes: usize,
    /// Times that the store could not load it.
    pub(super) failed: u32,
}

/// Takes a room over.
pub(super) async fn load(
    store: &dyn Store,
    group: u64,
    kind: Kind,
    wall_ms: u64,
) -> Result<Loaded, StoreError> {
    let opened = store.open(group, kind.classes(), wall_ms).await?;
    let mut loaded = Loaded { state: opened.state, ..Loaded::default() };
    for (class, head) in kind.classes().iter().zip(opened.heads) {
        loaded.heads[class.index()] = head;
    }
    Ok(loaded)
}
