//! Session types, and the name spaces of what they join.

use edgeway_proto::ErrorCode;

use crate::{
    auth::{check_name, check_user},
    roles::Role,
};

/// What a client calls its own inbox.
const ME: &str = "@me";

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
            return Err((ErrorCode::Forbidden, format!("only {ME} can be joined here")));
        }
        if foreign && !send_only {
            let problem = "another user's inbox can only be joined to send";
            return Err((ErrorCode::Forbidden, problem.to_owned()));
        }
        Ok(Place { room: format!("{}:{name}", self.space()), foreign })
    }
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
