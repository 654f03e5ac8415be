//! How far a device has dealt with what came to its user: room state of the user's inbox, a key for each device
//! (WIRE.md, section 13). So it outlives what the device itself keeps.

use std::collections::BTreeMap;

use bytes::Bytes;
use edgeway_proto::{Class, Seq, Text};

use super::{Core, RoomId, room::Room};
use crate::{Outgoing, SessionId};

/// In front of the device's name, in the keys of cursors.
const KEY: &str = "cursor/";

/// Devices that have a cursor in an inbox. Before one more is set that was set longest ago is taken away.
const DEVICES_MAX: usize = 32;

/// Rooms that a cursor names. Above, those that are not joined are forgotten.
const ROOMS_MAX: usize = 16;

/// The cursor of this device, in its inbox.
#[derive(Debug)]
pub(super) struct Cursor {
    key: Text,
    /// Whether what is delivered begins there; else with what comes from now on.
    begin: bool,
    /// By the name of the room: the inbox itself, and topics.
    places: BTreeMap<String, Seq>,
}

/// A key that only SDKs look at.
pub(super) fn is_cursor(key: &str) -> bool {
    key.starts_with(KEY)
}

fn read(payload: &[u8]) -> BTreeMap<String, Seq> {
    // What another program has written there is no place to begin at.
    let texts: BTreeMap<String, String> = serde_json::from_slice(payload).unwrap_or_default();
    texts.into_iter().filter_map(|(room, place)| Some((room, place.parse().ok()?))).collect()
}

fn write(places: &BTreeMap<String, Seq>) -> Bytes {
    let texts: BTreeMap<_, _> = places.iter().map(|(room, seq)| (room, seq.to_string())).collect();
    // Texts can always be written.
    serde_json::to_vec(&texts).unwrap_or_default().into()
}

impl Room {
    /// Takes the cursor as the state has it, where that is further.
    fn read_cursor(&mut self) {
        let Some(cursor) = &mut self.cursor else { return };
        let stored = self.state.get(&cursor.key).map(|message| read(&message.payload));
        for (name, place) in stored.unwrap_or_default() {
            let known = cursor.places.entry(name).or_default();
            *known = place.max(*known);
        }
    }
}

impl Core {
    /// Gives an inbox that is being joined its cursor; one that is there already keeps what it has.
    pub(crate) fn keep_cursor(
        &mut self,
        session: SessionId,
        inbox: &str,
        device: &str,
        begin: bool,
    ) {
        let Some(id) = self.by_name.get(&(session, inbox.into())).copied() else { return };
        if let Some(room) = self.room_mut(id)
            && room.cursor.is_none()
        {
            let key = Text::from(format!("{KEY}{device}"));
            room.cursor = Some(Cursor { key, begin, places: BTreeMap::new() });
            room.read_cursor();
        }
    }

    /// The inbox is joined, and its state known: delivery begins at the cursor, where that is later than what the app
    /// said it has. `head` is what there is at most.
    pub(super) fn begin_at_cursor(&mut self, id: RoomId, head: Seq, again: bool) {
        let Some(room) = self.room_mut(id) else { return };
        room.read_cursor();
        if let Some(cursor) = &room.cursor
            && let Some(place) = cursor.places.get(&*room.name).copied()
            && cursor.begin
            && !again
        {
            let order = &mut room.class(Class::Signal).order;
            order.last = order.last.max(head.min(place));
        }
    }

    /// Where this device has got to in the inbox or a topic, as the inbox knows it.
    pub(crate) fn cursor(&self, inbox: RoomId, name: &str) -> Option<Seq> {
        self.room(inbox)?.cursor.as_ref()?.places.get(name).copied()
    }

    /// Moves it, never back. What says so to the inbox; before it what makes room for it.
    pub(crate) fn move_cursor(&mut self, inbox: RoomId, name: &str, place: Seq) -> Vec<Outgoing> {
        let Some(room) = self.room(inbox) else { return Vec::new() };
        let session = room.session;
        let of_others = room.state.values().filter(|message| {
            let own = room.cursor.as_ref().is_some_and(|cursor| cursor.key == message.key);
            is_cursor(&message.key) && !message.payload.is_empty() && !own
        });
        let mut others: Vec<_> = of_others.map(|message| (message.seq, &message.key)).collect();
        others.sort_unstable();
        let too_many = others.len().saturating_sub(DEVICES_MAX - 1);
        let mut sent: Vec<_> =
            others[..too_many].iter().map(|(_, key)| set(key, Bytes::new())).collect();
        let joined = |room: &str| self.by_name.contains_key(&(session, room.into()));
        let joined: Vec<_> = match &room.cursor {
            Some(cursor) if cursor.places.len() >= ROOMS_MAX => {
                cursor.places.keys().filter(|room| joined(room)).cloned().collect()
            }
            _ => Vec::new(),
        };
        let Some(cursor) = self.room_mut(inbox).and_then(|room| room.cursor.as_mut()) else {
            return Vec::new();
        };
        if cursor.places.len() >= ROOMS_MAX {
            cursor.places.retain(|room, _| joined.contains(room));
        }
        let known = cursor.places.entry(name.to_owned()).or_default();
        *known = place.max(*known);
        sent.push(set(&cursor.key, write(&cursor.places)));
        sent
    }
}

fn set(key: &Text, payload: Bytes) -> Outgoing {
    Outgoing { key: key.to_string(), ..Outgoing::signal(payload) }
}
