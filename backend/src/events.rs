//! From what rooms note and what access sees to events (docs/EVENTS.md).

use edgeway_events::{Event, Events, Message, What};
use edgeway_proto::{Frame, Text, frame};

use crate::room::{Kind, Note, Wanted};

/// The space of rooms among names.
const ROOMS: &str = "chat";

/// What an owner of a kind notes.
pub(crate) fn wanted(events: &Events, kind: Kind) -> Wanted {
    let has_members = matches!(kind, Kind::Room | Kind::Apart);
    Wanted { presence: events.is_on() && has_members, messages: events.takes_messages() }
}

/// Records what a room noted. Its name is empty where the owner of its strokes does not know it.
pub(crate) fn record(events: &Events, group: u64, name: &Text, notes: &mut Vec<Note>) {
    if notes.is_empty() {
        return;
    }
    let (space, room) = name.split_once(':').unwrap_or_default();
    for note in notes.drain(..) {
        let room = room.to_owned();
        let event = match note {
            Note::Came(user) => {
                debug_assert_eq!(space, ROOMS, "inboxes have no members");
                Some(Event { user: user.as_str().to_owned(), what: What::Join { room, group } })
            }
            Note::Went(user, cause) => Some(Event {
                user: user.as_str().to_owned(),
                what: What::Leave { room, group, cause },
            }),
            Note::Message { class, seq, device, id, frame } => {
                let device = device.split_once('/').map_or("", |(_, device)| device).to_owned();
                delivered(frame).map(|deliver| {
                    let message = Message {
                        time_ms: deliver.time_ms,
                        device,
                        space: space.to_owned(),
                        room,
                        group,
                        class: class.name(),
                        seq: (seq.epoch, seq.counter),
                        message: id,
                        key: deliver.key.as_str().to_owned(),
                        payload: deliver.payload.0,
                    };
                    let user = deliver.sender.as_str().to_owned();
                    Event { user, what: What::Message(Box::new(message)) }
                })
            }
        };
        event.into_iter().for_each(|event| events.record(event));
    }
}

/// What was delivered; nothing in the place of what had expired.
fn delivered(mut frames: bytes::Bytes) -> Option<frame::Deliver> {
    match frame::split(&mut frames).ok()??.parse().ok()? {
        Frame::Deliver(deliver) if !deliver.sender.is_empty() => Some(deliver),
        _ => None,
    }
}

/// A device has its first Session, or has lost its last one.
pub(crate) fn device(events: &Events, user: &str, device: &str, is_online: bool) {
    if events.is_on() {
        let device = device.to_owned();
        let what = if is_online { What::Online { device } } else { What::Offline { device } };
        events.record(Event { user: user.to_owned(), what });
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use edgeway_proto::Class;

    use super::*;

    #[test]
    fn what_had_expired_was_not_said() {
        let said = frame::Deliver { sender: Text::from("ada"), ..frame::Deliver::default() };
        assert!(delivered(said.to_bytes()).is_some());
        let placeholder = frame::Deliver { expires_ms: 1, ..frame::Deliver::default() };
        assert!(delivered(placeholder.to_bytes()).is_none());
        assert!(delivered(Bytes::from_static(b"what?")).is_none());
    }

    #[test]
    fn owners_note_members_of_rooms_only_and_nothing_where_events_are_off() {
        let raw = edgeway_events::config::RawEvents {
            messages: vec!["chat".to_owned()],
            ..Default::default()
        };
        let off = wanted(&Events::default(), Kind::Room);
        assert!(!off.presence && off.messages == [false; 3]);
        let dir = tempfile::tempdir().unwrap();
        let config =
            edgeway_events::config::validate(raw, dir.path(), "n", &mut |key, _| panic!("{key}"));
        let (events, _writer) = Events::start(config).unwrap();
        for (kind, presence) in
            [(Kind::Room, true), (Kind::Apart, true), (Kind::Inbox, false), (Kind::Strokes, false)]
        {
            let wanted = wanted(&events, kind);
            assert_eq!(wanted.presence, presence);
            assert!(wanted.messages[Class::Chat.index()]);
        }
    }
}
