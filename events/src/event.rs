//! What is recorded, and its JSON. docs/EVENTS.md describes every field; what is changed here is changed there.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::Serialize;

/// Of the schema. It grows when a field changes its meaning or goes; a field more does not change it.
pub const VERSION: u32 = 1;

/// Something that a user did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Who; events of one user stay in order.
    pub user: String,
    /// What.
    pub what: What,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// The first Session of a device is open.
    Online {
        /// The device.
        device: String,
    },
    /// The last Session of a device is gone, and its grace over.
    Offline {
        /// The device.
        device: String,
    },
    /// The user is in a room, on the first device.
    Join {
        /// The room's name, as users know it.
        room: String,
        /// Its handle.
        group: u64,
    },
    /// The user is in a room on no device any more.
    Leave {
        /// The room's name, as users know it.
        room: String,
        /// Its handle.
        group: u64,
        /// Why.
        cause: Cause,
    },
    /// A message was accepted. Boxed: it is larger than all else.
    Message(Box<Message>),
}

/// Why somebody left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The user left, or did not come back within the grace.
    Left,
    /// The link of the user's gateway or access was lost.
    Lost,
    /// Another process has the room now, or this one stops: users that are still there join there again.
    Moved,
}

impl Cause {
    const fn name(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Lost => "lost",
            Self::Moved => "moved",
        }
    }
}

/// A message that has its place in a room or an inbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// When the room's owner took it, in milliseconds since 1970.
    pub time_ms: u64,
    /// The sender's device.
    pub device: String,
    /// `chat` for rooms; of inboxes, their Session type. Empty where the owner knows no more than the handle.
    pub space: String,
    /// The room's name, or whose inbox it is; empty as `space` is.
    pub room: String,
    /// The handle of both.
    pub group: u64,
    /// `signal`, `binary` or `chat`.
    pub class: &'static str,
    /// Its place: epoch and counter.
    pub seq: (u64, u64),
    /// The number that the device gave it.
    pub message: u64,
    /// The key of room state that it sets; empty for none.
    pub key: String,
    /// What was sent.
    pub payload: Bytes,
}

/// An event's fields in the order in which they are written.
#[derive(Serialize)]
struct Line<'a> {
    v: u32,
    id: &'a str,
    r#type: &'static str,
    time_ms: u64,
    node: &'a str,
    user: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    space: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    room: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<String>,
}

fn some(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

impl Event {
    /// The names of the types, as in the field `type`.
    pub const TYPES: [&'static str; 5] = ["online", "offline", "join", "leave", "message"];

    /// Which of [`Self::TYPES`].
    pub(crate) const fn index(&self) -> usize {
        match self.what {
            What::Online { .. } => 0,
            What::Offline { .. } => 1,
            What::Join { .. } => 2,
            What::Leave { .. } => 3,
            What::Message(_) => 4,
        }
    }

    /// What it takes of a queue, roughly.
    pub(crate) fn bytes(&self) -> usize {
        const EVENT: usize = 160;
        const MESSAGE: usize = 160;
        let more = match &self.what {
            What::Online { device } | What::Offline { device } => device.len(),
            What::Join { room, .. } | What::Leave { room, .. } => room.len(),
            What::Message(m) => {
                let names = m.device.len() + m.space.len() + m.room.len() + m.key.len();
                MESSAGE + names + m.payload.len()
            }
        };
        EVENT + self.user.len() + more
    }

    /// The JSON object, in one line without its end.
    pub(crate) fn to_json(&self, id: &str, recorded_ms: u64, node: &str) -> Vec<u8> {
        let mut line = Line {
            v: VERSION,
            id,
            r#type: Self::TYPES[self.index()],
            time_ms: recorded_ms,
            node,
            user: &self.user,
            device: None,
            space: None,
            room: None,
            group: None,
            cause: None,
            class: None,
            seq: None,
            message: None,
            key: None,
            payload: None,
        };

        match &self.what {
            What::Online { device } | What::Offline { device } => line.device = Some(device),
            What::Join { room, group } => {
                line.room = Some(room);
                (line.space, line.group) = (Some("chat"), Some(*group));
            }
            What::Leave { room, group, cause } => {
                line.room = Some(room);
                (line.space, line.group) = (Some("chat"), Some(*group));
                line.cause = Some(cause.name());
            }
            What::Message(m) => {
                line.time_ms = m.time_ms;
                line.device = Some(&m.device);
                (line.space, line.room, line.group) =
                    (some(&m.space), some(&m.room), Some(m.group));
                (line.class, line.message) = (Some(m.class), Some(m.message));
                line.seq = Some(format!("{}-{}", m.seq.0, m.seq.1));
                line.key = some(&m.key);
                line.payload = Some(STANDARD.encode(&m.payload));
            }
        }
        // Text and numbers can always be written as JSON.
        serde_json::to_vec(&line).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(what: What) -> String {
        let event = Event { user: "ada".to_owned(), what };
        String::from_utf8(event.to_json("9f86d081884c7d65-3-41", 1_795_897_377_123, "room-1"))
            .unwrap()
    }

    /// The examples of docs/EVENTS.md are what is written.
    #[test]
    fn each_type_is_written_as_the_documentation_shows() {
        let device = || "phone".to_owned();
        let room = || "lesson-1".to_owned();
        let message = Message {
            time_ms: 1_795_897_377_120,
            device: device(),
            space: "chat".to_owned(),
            room: room(),
            group: 4101,
            class: "signal",
            seq: (2, 17),
            message: 5,
            key: "page".to_owned(),
            payload: Bytes::from_static(b"12"),
        };
        let all = [
            What::Online { device: device() },
            What::Offline { device: device() },
            What::Join { room: room(), group: 4101 },
            What::Leave { room: room(), group: 4101, cause: Cause::Left },
            What::Message(Box::new(message)),
        ];
        let documented = include_str!("../../docs/EVENTS.md");
        for what in all {
            let json = json(what);
            assert!(documented.lines().any(|line| line == json), "not in docs/EVENTS.md: {json}");
        }
    }

    #[test]
    fn whatever_a_name_holds_an_event_is_one_line() {
        let json = json(What::Join { room: "a\n\"b\"\u{2028}".to_owned(), group: 1 });
        assert!(!json.contains('\n'));
        let read: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(read["room"], "a\n\"b\"\u{2028}");
    }
}
