//! The roles that a backend process can have.

use std::fmt;

/// A role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Holds Sessions and answers logins.
    Access,
    /// Owns rooms.
    Room,
    /// Owns the strokes of rooms.
    Binary,
    /// Owns inboxes.
    Peer,
    /// Lets business systems send and moderate.
    Push,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Access, Self::Room, Self::Binary, Self::Peer, Self::Push];

    /// As in `--roles`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Access => "access",
            Self::Room => "room",
            Self::Binary => "binary",
            Self::Peer => "peer",
            Self::Push => "push",
        }
    }

    pub(crate) fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }
}

/// A role that this version does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a role of this version; there are access, room, binary, peer and push")]
pub struct UnknownRole(String);

/// The roles of one process; at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Roles([bool; Role::ALL.len()]);

impl Roles {
    /// What `edgeway up` runs: every role but binary, which would only split the strokes off into the same
    /// process.
    #[must_use]
    pub fn up() -> Self {
        Self(Role::ALL.map(|role| role != Role::Binary))
    }

    /// Exactly one.
    #[must_use]
    pub fn only(role: Role) -> Self {
        Self(Role::ALL.map(|r| r == role))
    }

    /// Reads a list such as `access,room`.
    ///
    /// # Errors
    /// Names the first that is not a role; an empty list names the empty one.
    pub fn parse(list: &str) -> Result<Self, UnknownRole> {
        let mut roles = [false; Role::ALL.len()];
        for name in list.split(',').map(str::trim) {
            let role = Role::find(name).ok_or_else(|| UnknownRole(name.to_owned()))?;
            roles[role as usize] = true;
        }
        Ok(Self(roles))
    }

    /// Their names.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        Role::ALL
            .into_iter()
            .filter(|role| self.has(*role))
            .map(|role| role.name().to_owned())
            .collect()
    }

    /// Whether the process has the role.
    #[must_use]
    pub const fn has(self, role: Role) -> bool {
        self.0[role as usize]
    }
}

impl fmt::Display for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.names().join(","))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_list_of_roles_is_read_and_an_unknown_one_is_told_which_there_are() {
        let roles = Roles::parse("access, room").unwrap();
        assert!(roles.has(Role::Access) && roles.has(Role::Room) && !roles.has(Role::Peer));
        assert_eq!(roles.to_string(), "access,room");
        let problem = Roles::parse("room,cook").unwrap_err().to_string();
        assert!(
            problem.contains("cook") && problem.contains("access, room, binary, peer and push")
        );
        assert!(Roles::parse("").is_err());
        assert_eq!(Roles::only(Role::Peer), Roles::parse("peer").unwrap());
        assert_eq!(Roles::up(), Roles::parse("access,room,peer,push").unwrap());
    }
}
