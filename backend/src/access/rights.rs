//! What the login of a Session may do: which rooms it may join and speak in, and what it may send.

use std::sync::Arc;

use bytes::Bytes;
use edgeway_proto::{
    Class, CloseCode, Text,
    frame::Left,
    link,
    rooms::{self, SessionRef, to_owner_item::Item},
};

use super::{
    Access,
    out::Out,
    owners::OwnerId,
    session::Session,
    space::{EVERYONE, SessionType, TOPIC},
    tell,
};

/// What a Session may do. None are most: everything.
#[derive(Debug, Clone, Default)]
pub(super) struct Rights(Option<Arc<link::Rights>>);

impl Rights {
    pub(super) fn new(rights: Option<link::Rights>) -> Self {
        Self(rights.map(Arc::new))
    }

    /// Whether a room may be joined; `send_only`: to speak in it and hear nothing. Topics are rooms by the names that
    /// clients join.
    pub(super) fn may_join(&self, kind: SessionType, asked: &str, send_only: bool) -> bool {
        match kind {
            SessionType::Chat if send_only => self.may_speak(asked),
            SessionType::Chat => self.rooms(|r| r.rooms.as_ref(), asked),
            // Of everyone who logs in.
            _ if asked == EVERYONE => true,
            _ => !asked.starts_with(TOPIC) || self.rooms(|r| r.rooms.as_ref(), asked),
        }
    }

    /// Whether one may write to other users.
    pub(super) fn may_write(&self) -> bool {
        self.has("im")
    }

    fn may_speak(&self, room: &str) -> bool {
        self.rooms(|rights| rights.speak.as_ref().or(rights.rooms.as_ref()), room)
    }

    /// Why a message may not be sent to a room.
    pub(super) fn refuses(&self, room: &str, class: Class) -> Option<&'static str> {
        // Of an inbox, `may_write` has said it.
        let room = self.0.as_ref().and(room.strip_prefix("chat:"))?;
        let right = match class {
            Class::Signal => "signal",
            Class::Binary => "binary",
            Class::Chat => "chat",
        };
        if !self.has(right) {
            Some("the login may not send messages of this class")
        } else if !self.may_speak(room) {
            Some("the login may not speak in this room")
        } else {
            None
        }
    }

    fn has(&self, right: &str) -> bool {
        let rights = self.0.as_ref().and_then(|rights| rights.rights.as_ref());
        rights.is_none_or(|rights| rights.names.iter().any(|one| one == right))
    }

    fn rooms(&self, list: fn(&link::Rights) -> Option<&link::Names>, room: &str) -> bool {
        let list = self.0.as_ref().and_then(|rights| list(rights));
        list.is_none_or(|list| list.names.iter().any(|pattern| matches(pattern, room)))
    }
}

/// Whether a name is what a pattern says, in which each `*` stands for any text.
fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    // The first place where a part fits leaves most for those after it.
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

impl Session {
    /// The login goes on and may do this. Who is in rooms that it may not be in any more leaves them, and is
    /// told.
    pub(super) fn renewed(&mut self, rights: Rights, out: &mut Vec<Out>) -> Vec<(OwnerId, Item)> {
        let session = Some(self.identity.session);
        let kind = self.identity.kind;
        let out_of = self.leave_where(|room| {
            let name = room.split_once(':').map_or(room, |(_, name)| name);
            !rights.may_join(kind, name, false) && !rights.may_join(kind, name, true)
        });
        self.identity.rights = rights;
        out_of
            .into_iter()
            .map(|(group, owner)| {
                out.push(Out::Client(kicked(group)));
                (owner, Item::Leave(rooms::Leave { session, request: 0, group }))
            })
            .collect()
    }
}

impl Access {
    /// A gateway says that the login of a Session goes on by another proof.
    pub(crate) async fn renewed(&self, gateway: u64, renewed: link::Renewed) {
        let session = SessionRef { gateway, session: renewed.session };
        let rights = Rights::new(renewed.rights);
        let leaves = self.0.table.with(session, |entry| {
            let mut out = Vec::new();
            let leaves = entry.session.renewed(rights, &mut out);
            tell(entry, &mut out);
            leaves
        });
        self.send(leaves.unwrap_or_default()).await;
    }
}

fn kicked(group: u64) -> Bytes {
    let reason = Text::from_static("the login may not be in this room any more");
    Left { request: 0, group, code: CloseCode::Kicked.code(), reason }.to_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Option<link::Names> {
        Some(link::Names { names: names.iter().map(|n| (*n).to_owned()).collect() })
    }

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, name, fits) in [
            ("maths", "maths", true),
            ("maths", "maths-1", false),
            ("maths", "math", false),
            ("*", "", true),
            ("*", "any room", true),
            ("maths-*", "maths-1", true),
            ("maths-*", "maths-", true),
            ("maths-*", "physics-1", false),
            ("*-board", "maths-board", true),
            ("*-board", "maths-board-2", false),
            ("a*b*c", "a-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("a*a", "a", false),
            ("ab*bc", "abc", false),
            ("*a*a*", "aa", true),
            ("école-*", "école-é", true),
            ("", "maths", false),
        ] {
            assert_eq!(matches(pattern, name), fits, "{pattern} {name}");
        }
    }

    #[test]
    fn a_list_that_is_absent_sets_no_bound_and_an_empty_one_permits_nothing() {
        use SessionType::{Chat, Im, Push};
        let all = Rights::default();
        assert!(all.may_join(Chat, "any", false) && all.may_write());
        assert_eq!(all.refuses("chat:any", Class::Signal), None);

        let rights = link::Rights { rooms: names(&["maths-*"]), ..link::Rights::default() };
        let pupil = Rights::new(Some(rights));
        assert!(pupil.may_join(Chat, "maths-1", false) && pupil.may_join(Chat, "maths-1", true));
        assert!(!pupil.may_join(Chat, "physics", false) && !pupil.may_join(Chat, "physics", true));
        assert!(pupil.may_join(Im, "ada", false) && pupil.may_write());
        assert!(pupil.may_join(Push, "ada", false) && pupil.may_join(Push, "@everyone", false));
        assert!(!pupil.may_join(Push, "topic/maths-1", false));
        let rights = link::Rights { rooms: names(&["topic/maths-*"]), ..link::Rights::default() };
        assert!(Rights::new(Some(rights)).may_join(Push, "topic/maths-1", false));
        assert_eq!(pupil.refuses("chat:maths-1", Class::Chat), None);

        let rights = link::Rights {
            rooms: names(&["*"]),
            speak: names(&["maths-1"]),
            rights: names(&["chat"]),
        };
        let guest = Rights::new(Some(rights));
        assert!(guest.may_join(Push, "topic/maths", false));
        assert!(guest.may_join(Chat, "physics", false) && !guest.may_join(Chat, "physics", true));
        assert_eq!(guest.refuses("chat:maths-1", Class::Chat), None);
        assert!(guest.refuses("chat:physics", Class::Chat).is_some());
        assert!(guest.refuses("chat:maths-1", Class::Signal).is_some());
        assert!(!guest.may_write());
        assert_eq!(guest.refuses("im:ada", Class::Signal), None, "a read mark in the own inbox");

        let rights = link::Rights { rooms: names(&[]), ..link::Rights::default() };
        assert!(!Rights::new(Some(rights)).may_join(Chat, "maths", false));
    }
}
