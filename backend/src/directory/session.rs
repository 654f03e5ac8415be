//! The listing of a Session: in the head where it is and since when, and a line for each room that it
//! has a place in. As much as another access instance needs to take it over.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Found, room::hex};
use crate::room::SessionId;

/// How a Session stands to its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Connected.
    Live,
    /// Its connection was lost; it is kept for its return.
    Lost,
}

/// The head of a Session's listing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The run of access that holds it, in hexadecimal.
    pub access: String,
    /// The run of the gateway that its client is behind, in hexadecimal.
    pub gateway: String,
    /// The gateway's name.
    pub gateway_name: String,
    /// The gateway's number for it.
    pub session: u64,
    /// Milliseconds since 1970 when it was opened, by the clock of its access instance.
    pub since_ms: u64,
    /// How it stands to its client.
    pub standing: Standing,
}

impl Head {
    pub(crate) fn new(
        access: u64,
        session: SessionId,
        gateway_name: &str,
        since_ms: u64,
        standing: Standing,
    ) -> Self {
        Self {
            access: hex(access),
            gateway: hex(session.gateway),
            gateway_name: gateway_name.to_owned(),
            session: session.session,
            since_ms,
            standing,
        }
    }

    pub(crate) fn to_bytes(&self) -> Bytes {
        // Strings and numbers can always be written.
        Bytes::from(serde_json::to_vec(self).unwrap_or_default())
    }
}

/// A place in a group.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Place {
    /// The group's handle.
    pub group: u64,
    /// The gateway of the Session that the owner knows there, in hexadecimal: an older one of the device,
    /// where this one has not joined yet.
    pub gateway: String,
    /// That Session's number.
    pub session: u64,
    /// Someone else's inbox, which can only be sent to.
    pub foreign: bool,
    /// Its name in its owner's space, which leads to the owner.
    pub name: String,
}

impl Place {
    /// As it stands in a listing.
    pub(crate) fn line(group: u64, session: SessionId, foreign: bool, name: &str) -> Bytes {
        let SessionId { gateway, session } = session;
        let foreign = if foreign { 'f' } else { '-' };
        Bytes::from(format!("{group:016x} {gateway:016x} {session:016x} {foreign} {name}"))
    }

    fn read(line: &[u8]) -> Option<Self> {
        let mut parts = std::str::from_utf8(line).ok()?.splitn(5, ' ');
        let group = u64::from_str_radix(parts.next()?, 16).ok()?;
        let gateway = parts.next()?.to_owned();
        let session = u64::from_str_radix(parts.next()?, 16).ok()?;
        let foreign = parts.next()? == "f";
        Some(Self { group, gateway, session, foreign, name: parts.next()?.to_owned() })
    }
}

/// Where a user is, on one device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UserSession {
    /// The device.
    pub device: String,
    /// The Session's type.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its generation: later ones take over from earlier ones.
    pub generation: u64,
    /// Where it is.
    #[serde(flatten)]
    pub head: Head,
    /// Rooms and inboxes that it has a place in.
    pub rooms: u64,
}

impl UserSession {
    /// `name`: `DEVICE/TYPE`.
    pub(super) fn read(name: &str, found: &Found) -> Option<Self> {
        let (device, kind) = name.rsplit_once('/')?;
        Some(Self {
            device: device.to_owned(),
            kind: kind.to_owned(),
            generation: found.term.0,
            head: serde_json::from_slice(&found.head).ok()?,
            rooms: found.total,
        })
    }
}

/// What a Session has: all that another access instance needs to take it over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct State {
    /// Its generation.
    pub generation: u64,
    /// Where it is.
    pub head: Head,
    /// Its places, by group.
    pub places: Vec<Place>,
}

impl State {
    pub(super) fn read(found: &Found) -> Option<Self> {
        let places = found.lines.iter().map(|line| Place::read(line)).collect::<Option<_>>()?;
        let head = serde_json::from_slice(&found.head).ok()?;
        Some(Self { generation: found.term.0, head, places })
    }

    pub(super) fn extend(&mut self, found: &Found) -> Option<()> {
        for line in &found.lines {
            self.places.push(Place::read(line)?);
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::directory::Term;

    #[test]
    fn what_a_session_has_is_read_as_it_was_written() {
        let id = SessionId { gateway: 0xab, session: 7 };
        let head = Head::new(5, id, "gw-1", 1_700_000_000_000, Standing::Lost);
        let found = Found {
            term: Term(3, 7),
            head: head.to_bytes(),
            total: 2,
            lines: vec![
                Place::line(1, id, false, "chat:room with spaces"),
                Place::line(u64::MAX, id, true, "im:bob"),
            ],
            more: false,
        };
        let state = State::read(&found).unwrap();
        assert_eq!((state.generation, &state.head), (3, &head));
        assert_eq!(state.places[0].name, "chat:room with spaces");
        assert_eq!(state.places[0].gateway, "00000000000000ab");
        let Place { group, session, foreign, .. } = state.places[1];
        assert_eq!((group, session, foreign), (u64::MAX, 7, true));
        let user = UserSession::read("my/phone/chat", &found).unwrap();
        assert_eq!((&user.device[..], &user.kind[..], user.rooms), ("my/phone", "chat", 2));
        assert!(serde_json::to_string(&user).unwrap().contains(r#""standing":"lost""#));
    }
}
