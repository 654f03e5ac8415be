//! The listing of a room: a line for each Session in it, and in the head the gateways that have some.

use std::fmt;

use bytes::Bytes;
use serde::Serialize;

use super::{Found, LookupError};
use crate::room::SessionId;

/// Between the parts of a line: not in a name, and before all that is, so that lines are in the order of
/// users, then of devices.
const APART: char = '\0';

/// A Session in a room.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Member {
    /// The user.
    pub user: String,
    /// The user's device.
    pub device: String,
    /// The run of the gateway that has it, in hexadecimal.
    pub gateway: String,
    /// The gateway's number for it.
    pub session: u64,
}

impl Member {
    /// A line.
    #[must_use]
    pub fn new(user: &str, device: &str, session: SessionId) -> Self {
        let (user, device) = (user.to_owned(), device.to_owned());
        Self { user, device, gateway: hex(session.gateway), session: session.session }
    }

    /// As it stands in a listing. Names have no control characters.
    pub(crate) fn line(user: &str, device: &str, session: SessionId) -> Bytes {
        let SessionId { gateway, session } = session;
        Bytes::from(format!("{user}{APART}{device}{APART}{gateway:016x}{APART}{session:016x}"))
    }

    pub(super) fn read(line: &[u8]) -> Option<Self> {
        let mut parts = std::str::from_utf8(line).ok()?.split(APART);
        let (user, device) = (parts.next()?.to_owned(), parts.next()?.to_owned());
        let gateway = parts.next()?.to_owned();
        let session = u64::from_str_radix(parts.next()?, 16).ok()?;
        parts.next().is_none().then_some(Self { user, device, gateway, session })
    }
}

/// Where a page of members ended: `USER/DEVICE/GATEWAY/SESSION`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cursor(Bytes);

impl Cursor {
    /// Reads one.
    ///
    /// # Errors
    /// That it is none.
    pub fn parse(text: &str) -> Result<Self, LookupError> {
        let parse = || {
            // Neither a user nor the ends have a slash.
            let (user, rest) = text.split_once('/')?;
            let (rest, session) = rest.rsplit_once('/')?;
            let (device, gateway) = rest.rsplit_once('/')?;
            let session = session.parse().ok()?;
            let gateway = u64::from_str_radix(gateway, 16).ok()?;
            Some(Self(Member::line(user, device, SessionId { gateway, session })))
        };
        parse().ok_or_else(|| {
            let why = "`after` is not where a page ended; give what `next` of that page said";
            LookupError::Bad(why.to_owned())
        })
    }

    /// Behind a member.
    #[must_use]
    pub fn after(member: &Member) -> Self {
        let gateway = u64::from_str_radix(&member.gateway, 16).unwrap_or_default();
        let session = SessionId { gateway, session: member.session };
        Self(Member::line(&member.user, &member.device, session))
    }

    pub(super) fn line(&self) -> Bytes {
        self.0.clone()
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(Member { user, device, gateway, session }) = Member::read(&self.0) else {
            return Ok(());
        };
        write!(f, "{user}/{device}/{gateway}/{session}")
    }
}

/// A page of a room's members, by users.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct MemberPage {
    /// All Sessions in the room.
    pub total: u64,
    /// Those of the page.
    pub members: Vec<Member>,
    /// Where the next page begins; without, this was the last one.
    pub next: Option<String>,
}

impl MemberPage {
    pub(super) fn read(found: &Found) -> Option<Self> {
        let members: Vec<_> =
            found.lines.iter().map(|line| Member::read(line)).collect::<Option<_>>()?;
        let next = members.last().filter(|_| found.more);
        let next = next.map(|last| Cursor::after(last).to_string());
        Some(Self { total: found.total, members, next })
    }
}

/// The gateways that have members of a room.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Route {
    /// The epoch of the room's owner; 0 where nobody owns it.
    pub epoch: u64,
    /// Sessions in the room.
    pub members: u64,
    /// Runs of gateways, in hexadecimal.
    pub gateways: Vec<String>,
}

impl Route {
    pub(super) fn read(found: &Found) -> Option<Self> {
        let head = std::str::from_utf8(&found.head).ok()?;
        let gateways = head.split_ascii_whitespace().map(str::to_owned).collect();
        Some(Self { epoch: found.term.0, members: found.total, gateways })
    }
}

/// The head of a room's listing.
pub(crate) fn gateways(gateways: impl Iterator<Item = u64>) -> Bytes {
    let gateways: Vec<_> = gateways.map(hex).collect();
    Bytes::from(gateways.join(" "))
}

/// The name of a run: JSON's numbers are not that large.
pub(super) fn hex(run: u64) -> String {
    format!("{run:016x}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_line_and_a_cursor_are_read_as_they_were_written(
            user in "[^/\\p{Cc}]{1,20}",
            device in "[^\\p{Cc}]{1,20}",
            gateway: u64,
            session: u64,
        ) {
            let id = SessionId { gateway, session };
            let member = Member::new(&user, &device, id);
            prop_assert_eq!(Member::read(&Member::line(&user, &device, id)), Some(member.clone()));
            let cursor = Cursor::after(&member);
            prop_assert_eq!(Cursor::parse(&cursor.to_string()).unwrap(), cursor);
        }
    }

    #[test]
    fn lines_are_in_the_order_of_users_and_then_of_devices() {
        let line =
            |user, device, session| Member::line(user, device, SessionId { gateway: 1, session });
        let lines =
            [line("ada", "a", 2), line("ada", "b", 1), line("ada b", "a", 1), line("bob", "a", 9)];
        assert!(lines.is_sorted());
        assert!(line("ada", "a", 9) < line("ada", "a", 16), "numbers, not digits");
    }

    #[test]
    fn what_is_no_cursor_is_refused() {
        for bad in ["", "ada", "ada/phone", "ada/phone/1", "ada/phone/x/1", "ada/phone/1/x"] {
            assert!(Cursor::parse(bad).is_err(), "{bad}");
        }
        assert!(Cursor::parse("ada/pho/ne/0f/1").is_ok());
    }
}
