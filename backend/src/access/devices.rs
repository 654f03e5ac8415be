//! The record of each device: which of its Sessions counts, and which session tokens still hold.
//! A record lives as long as a Session of its device does, live or kept for its return. Pure: no
//! lock, no clock. With a store that instances share, this is the table that moves there.

use std::collections::HashMap;

use edgeway_proto::rooms::SessionRef;

use super::{session::Identity, space::SessionType};

/// A user's device.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Name {
    user: Box<str>,
    device: Box<str>,
}

impl Name {
    fn of(identity: &Identity) -> Self {
        Self::new(&identity.user, &identity.device)
    }

    fn new(user: &str, device: &str) -> Self {
        Self { user: user.into(), device: device.into() }
    }
}

#[derive(Debug, Clone, Copy)]
struct Current {
    kind: SessionType,
    session: SessionRef,
    generation: u64,
}

#[derive(Debug, Default)]
struct Record {
    /// One Session of each type counts. A list, with no room to spare: most devices have one.
    current: Vec<Current>,
    /// Tokens of logins before this one are void: a later one was used, or has been replaced by a
    /// login of its own.
    floor: u64,
    /// The generation that the last use of a token has led to. Its answer may have been lost, so the
    /// token holds until the next one is used.
    resumed: u64,
}

/// What became of a claim to be a device's Session.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// It is, and this is the one that it takes over from.
    Granted(Option<SessionRef>),
    /// A newer one is there.
    Older,
    /// There are as many Sessions as there may be.
    Full,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Devices {
    records: HashMap<Name, Record>,
}

impl Devices {
    /// Devices that have a Session.
    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    /// Makes a Session its device's current one of its type.
    pub(super) fn claim(&mut self, identity: &Identity) -> Claim {
        let Identity { kind, session, generation, .. } = *identity;
        let mine = Current { kind, session, generation };
        let record = self.records.entry(Name::of(identity)).or_default();
        let older = match record.current.iter_mut().find(|current| current.kind == kind) {
            Some(current) if current.generation > generation => return Claim::Older,
            Some(current) => Some(std::mem::replace(current, mine).session),
            None => {
                record.current.reserve_exact(1);
                record.current.push(mine);
                None
            }
        };
        if mine.generation != record.resumed {
            // Somebody has proven anew who they are: tokens from before may be in other hands.
            record.floor = record.floor.max(mine.generation);
        }
        Claim::Granted(older)
    }

    /// A device's current Session of a type, and its generation.
    pub(super) fn current(&self, identity: &Identity) -> Option<(SessionRef, u64)> {
        let mut current = self.records.get(&Name::of(identity))?.current.iter();
        let current = current.find(|current| current.kind == identity.kind)?;
        Some((current.session, current.generation))
    }

    /// A Session is over.
    pub(super) fn release(&mut self, identity: &Identity) {
        let name = Name::of(identity);
        let Some(record) = self.records.get_mut(&name) else { return };
        record
            .current
            .retain(|current| current.kind != identity.kind || current.session != identity.session);
        if record.current.is_empty() {
            self.records.remove(&name);
        }
    }

    /// Whether the token that a login of generation `token` has got still holds. It does until one
    /// of a later login is used, so that a client that never heard the answer can ask again. `next` is
    /// the generation that the new login gets.
    pub(super) fn resume(&mut self, user: &str, device: &str, token: u64, next: u64) -> bool {
        let Some(record) = self.records.get_mut(&Name::new(user, device)) else { return false };
        if token < record.floor {
            return false;
        }
        record.floor = token;
        record.resumed = next;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::rights::Rights;

    fn identity(session: u64, generation: u64) -> Identity {
        Identity {
            session: SessionRef { gateway: 1, session },
            kind: SessionType::Chat,
            user: "ada".into(),
            device: "phone".into(),
            generation,
            rights: Rights::default(),
        }
    }

    fn session(session: u64) -> SessionRef {
        SessionRef { gateway: 1, session }
    }

    #[test]
    fn a_newer_login_takes_over_and_an_older_one_is_refused() {
        let mut devices = Devices::default();
        assert_eq!(devices.claim(&identity(1, 10)), Claim::Granted(None));
        assert_eq!(devices.claim(&identity(2, 11)), Claim::Granted(Some(session(1))));
        assert_eq!(devices.claim(&identity(3, 10)), Claim::Older);
        assert_eq!(devices.current(&identity(0, 0)), Some((session(2), 11)));
        // The one that was taken over from ends later, and changes nothing.
        devices.release(&identity(1, 10));
        assert_eq!(devices.current(&identity(0, 0)), Some((session(2), 11)));
    }

    #[test]
    fn sessions_of_different_types_live_side_by_side() {
        let mut devices = Devices::default();
        devices.claim(&identity(1, 10));
        let im = Identity { kind: SessionType::Im, ..identity(2, 10) };
        assert_eq!(devices.claim(&im), Claim::Granted(None));
        devices.release(&identity(1, 10));
        assert!(devices.resume("ada", "phone", 10, 11), "one of them is enough");
        devices.release(&im);
        assert!(!devices.resume("ada", "phone", 10, 12));
        assert!(devices.records.is_empty());
    }

    #[test]
    fn a_token_holds_until_the_one_after_it_is_used() {
        let mut devices = Devices::default();
        devices.claim(&identity(1, 10));
        assert!(devices.resume("ada", "phone", 10, 11));
        devices.claim(&identity(2, 11));
        assert!(devices.resume("ada", "phone", 10, 12), "the answer may have been lost");
        devices.claim(&identity(3, 12));
        assert!(devices.resume("ada", "phone", 12, 13));
        assert!(!devices.resume("ada", "phone", 10, 14), "an older one is void");
        assert!(!devices.resume("ada", "phone", 11, 14));
    }

    #[test]
    fn a_login_of_its_own_voids_the_tokens_before_it() {
        let mut devices = Devices::default();
        devices.claim(&identity(1, 10));
        devices.claim(&identity(2, 20));
        assert!(!devices.resume("ada", "phone", 10, 21));
        assert!(devices.resume("ada", "phone", 20, 21));
    }

    #[test]
    fn a_token_of_nobody_does_not_hold() {
        let mut devices = Devices::default();
        devices.claim(&identity(1, 10));
        assert!(!devices.resume("ada", "tablet", 10, 11));
        assert!(!devices.resume("bob", "phone", 10, 11));
    }
}
