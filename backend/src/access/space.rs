//! Session types, and the name spaces of what they join.

use edgeway_proto::{ErrorCode, limits};

use crate::{
    auth::{check_name, check_user},
    roles::Role,
};

/// What a client calls its own inbox.
const ME: &str = "@me";
/// The topic of all who listen. No user's name begins with @.
pub(crate) const EVERYONE: &str = "@everyone";
/// In front of a topic's name. No user's name has a /.
pub(crate) const TOPIC: &str = "topic/";

/// The Session types that access is the backend of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum SessionType {
    Chat,
    Im,
    Push,
    ResearchPush,
}

/// What a join leads to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The name in the owner's space.
    pub(super) room: String,
    /// Someone else's inbox: one may send, and see nothing.
    pub(super) foreign: bool,
}

impl SessionType {
    pub(super) const NAMES: &str = "chat, im, push and research_push";

    pub(super) fn parse(name: &str) -> Option<Self> {
        match name {
            "chat" => Some(Self::Chat),
            "im" => Some(Self::Im),
            "push" => Some(Self::Push),
            "research_push" => Some(Self::ResearchPush),
            _ => None,
        }
    }

    /// Its name.
    pub(super) const fn name(self) -> &'static str {
        self.space()
    }

    /// The prefix of its names.
    const fn space(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Im => "im",
            Self::Push => "push",
            Self::ResearchPush => "research_push",
        }
    }

    const fn has_topics(self) -> bool {
        matches!(self, Self::Push | Self::ResearchPush)
    }

    /// Whether a name in the owner's space is a topic: who has joined it hears, and neither speaks nor sees the others.
    pub(super) fn is_topic(self, room: &str) -> bool {
        self.has_topics()
            && room
                .split_once(':')
                .is_some_and(|(_, name)| name == EVERYONE || name.starts_with(TOPIC))
    }

    /// Who owns what it joins.
    pub(super) const fn owner(self) -> Role {
        match self {
            Self::Chat => Role::Room,
            Self::Im | Self::Push | Self::ResearchPush => Role::Peer,
        }
    }

    /// Where a user who asks for a name gets to.
    pub(super) fn place(
        self,
        user: &str,
        asked: &str,
        send_only: bool,
    ) -> Result<Place, (ErrorCode, String)> {
        let bad = |problem| (ErrorCode::BadRequest, format!("the name {problem}"));
        if self.has_topics() && (asked == EVERYONE || asked.starts_with(TOPIC)) {
            check_topic(asked.strip_prefix(TOPIC).unwrap_or(asked)).map_err(bad)?;
            if send_only {
                let problem = "topics are sent to by the push API alone".to_owned();
                return Err((ErrorCode::Forbidden, problem));
            }
            return Ok(Place { room: format!("{}:{asked}", self.space()), foreign: false });
        }
        let name = match self {
            Self::Chat => {
                check_name(asked).map_err(bad)?;
                asked
            }
            _ if asked == ME => user,
            _ => {
                check_user(asked).map_err(bad)?;
                asked
            }
        };
        let foreign = self != Self::Chat && name != user;
        if foreign && self != Self::Im {
            let problem = format!("only {ME}, {EVERYONE} and {TOPIC}NAME can be joined here");
            return Err((ErrorCode::Forbidden, problem));
        }
        if foreign && !send_only {
            let problem = "another user's inbox can only be joined to send";
            return Err((ErrorCode::Forbidden, problem.to_owned()));
        }
        Ok(Place { room: format!("{}:{name}", self.space()), foreign })
    }
}

/// Whether a topic may be called that.
///
/// # Errors
/// What is wrong with it, to follow "the name ...".
pub(crate) fn check_topic(topic: &str) -> Result<(), &'static str> {
    check_name(topic)?;
    if TOPIC.len() + topic.len() > limits::NAME_BYTES {
        return Err("must have at most 122 bytes");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn room(kind: SessionType, asked: &str, send_only: bool) -> Result<(String, bool), ErrorCode> {
        kind.place("ada", asked, send_only)
            .map(|place| (place.room, place.foreign))
            .map_err(|(code, _)| code)
    }

    #[test]
    fn rooms_and_inboxes_of_each_type_do_not_meet() {
        use SessionType::{Chat, Im, Push, ResearchPush};
        assert_eq!(room(Chat, "ada", false), Ok(("chat:ada".into(), false)));
        assert_eq!(room(Im, "@me", false), Ok(("im:ada".into(), false)));
        assert_eq!(room(Im, "ada", false), Ok(("im:ada".into(), false)));
        assert_eq!(room(Push, "@me", false), Ok(("push:ada".into(), false)));
        assert_eq!(room(ResearchPush, "@me", false), Ok(("research_push:ada".into(), false)));
    }

    #[test]
    fn another_users_inbox_is_for_sending_on_im_and_closed_elsewhere() {
        use SessionType::{Im, Push, ResearchPush};
        assert_eq!(room(Im, "bob", true), Ok(("im:bob".into(), true)));
        assert_eq!(room(Im, "bob", false), Err(ErrorCode::Forbidden));
        assert_eq!(room(Push, "bob", true), Err(ErrorCode::Forbidden));
        assert_eq!(room(ResearchPush, "bob", true), Err(ErrorCode::Forbidden));
    }

    #[test]
    fn topics_are_joined_to_hear_and_meet_no_inbox() {
        use SessionType::{Chat, Im, Push, ResearchPush};
        assert_eq!(room(Push, "topic/maths", false), Ok(("push:topic/maths".into(), false)));
        assert_eq!(room(Push, "@everyone", false), Ok(("push:@everyone".into(), false)));
        let of_research = Ok(("research_push:topic/a/b".into(), false));
        assert_eq!(room(ResearchPush, "topic/a/b", false), of_research);
        assert_eq!(room(Push, "topic/maths", true), Err(ErrorCode::Forbidden));
        assert_eq!(room(Push, "topic/", false), Err(ErrorCode::BadRequest));
        let long = |bytes| format!("topic/{}", "x".repeat(bytes));
        assert!(room(Push, &long(122), false).is_ok());
        assert_eq!(room(Push, &long(123), false), Err(ErrorCode::BadRequest));
        assert_eq!(room(Im, "@everyone", false), Err(ErrorCode::BadRequest));
        assert_eq!(room(Im, "topic/maths", false), Err(ErrorCode::BadRequest));
        assert!(Push.is_topic("push:topic/maths") && Push.is_topic("push:@everyone"));
        assert!(!Push.is_topic("push:ada") && !Chat.is_topic("chat:topic/maths"));
    }

    #[test]
    fn names_are_checked() {
        let long = "x".repeat(129);
        for bad in ["", "a\nb", &long] {
            assert_eq!(room(SessionType::Chat, bad, false), Err(ErrorCode::BadRequest));
        }
        for bad in ["", "@you", "a/b", &long] {
            assert_eq!(room(SessionType::Im, bad, true), Err(ErrorCode::BadRequest));
        }
        assert!(room(SessionType::Chat, &"x".repeat(128), false).is_ok());
    }
}
