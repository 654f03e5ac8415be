//! Names of keys and of fields. What belongs to one room has its group as the hash tag, so that it
//! is in one slot of a Cluster and one script can change all of it.

use edgeway_proto::Seq;

use crate::{directory::Name, store::LogId};

/// Version of the keys, of their fields and of the codec of records.
pub(super) const SCHEMA: u32 = 1;

/// Of a log's meta hash: its last entry, seals included.
pub(super) const LAST: &[u8] = b"last";
/// Its last message.
pub(super) const MESSAGE: &[u8] = b"message";
/// The last entry that was trimmed.
pub(super) const TRIMMED: &[u8] = b"trimmed";
/// The last message that was trimmed.
pub(super) const TRIMMED_MESSAGE: &[u8] = b"trimmed_message";
/// In front of a device, whose last message id it is.
pub(super) const DEVICE: &[u8] = b"d:";

/// The field of a stream's entry that holds the record.
pub(super) const RECORD: &[u8] = b"r";

/// Names the keys of one cluster of Edgeway.
pub(super) struct Keys {
    prefix: String,
}

impl Keys {
    pub(super) fn new(prefix: String) -> Self {
        Self { prefix }
    }

    /// String: version of the schema, and the id of the store.
    pub(super) fn schema(&self) -> String {
        format!("{}:schema", self.prefix)
    }

    /// Number: the last handle that was given out.
    pub(super) fn groups(&self) -> String {
        format!("{}:groups", self.prefix)
    }

    /// Number: the handle of a room.
    pub(super) fn room(&self, name: &str) -> String {
        format!("{}:room:{name}", self.prefix)
    }

    /// What the registry keeps, all in one slot: `due`, `records`, `loads` and `clock`.
    pub(super) fn registry(&self, name: &str) -> String {
        format!("{}:{{nodes}}:{name}", self.prefix)
    }

    /// Stream: the entries of a log.
    pub(super) fn log(&self, LogId { group, class }: LogId) -> String {
        format!("{}:{{g:{group}}}:{class}", self.prefix)
    }

    /// Hash: the ends of a log, and the last message id of each device.
    pub(super) fn meta(&self, LogId { group, class }: LogId) -> String {
        format!("{}:{{g:{group}}}:{class}:meta", self.prefix)
    }

    /// Hash: term, version and head of a listing of the directory. Sorted set: its lines. And of a
    /// Session's, the set of [`Self::sessions`].
    pub(super) fn listing(&self, name: &Name) -> Vec<String> {
        let prefix = &self.prefix;
        match name {
            Name::Room(room) => {
                ["here", "members"].map(|what| format!("{prefix}:{{r:{room}}}:{what}")).into()
            }
            Name::Session(_) => {
                // A user has no slash, so that no two Sessions have the same key.
                let (user, name) = name.of_user().unwrap_or_default();
                let of = |what| format!("{prefix}:{{u:{user}}}:{what}/{name}");
                vec![of("session"), of("places"), self.sessions(user)]
            }
        }
    }

    /// Set: the names of a user's Sessions.
    pub(super) fn sessions(&self, user: &str) -> String {
        format!("{}:{{u:{user}}}:sessions", self.prefix)
    }

    /// Hash: the latest record of each key of room state.
    pub(super) fn state(&self, group: u64) -> String {
        format!("{}:{{g:{group}}}:state", self.prefix)
    }
}

/// The inverse of the display of a place, which is the id of its entry.
pub(super) fn seq(id: &[u8]) -> Option<Seq> {
    let (epoch, counter) = std::str::from_utf8(id).ok()?.split_once('-')?;
    Some(Seq { epoch: epoch.parse().ok()?, counter: counter.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use edgeway_proto::Class;

    use super::*;

    #[test]
    fn keys_carry_the_prefix_and_the_group_as_hash_tag() {
        let keys = Keys::new("ew".to_owned());
        let log = LogId { group: 12, class: Class::Binary };
        assert_eq!(keys.schema(), "ew:schema");
        assert_eq!(keys.room("maths {1}"), "ew:room:maths {1}");
        assert_eq!(keys.registry("due"), "ew:{nodes}:due");
        assert_eq!(keys.log(log), "ew:{g:12}:binary");
        assert_eq!(keys.meta(log), "ew:{g:12}:binary:meta");
        assert_eq!(keys.state(12), "ew:{g:12}:state");
        let members = ["ew:{r:chat:maths}:here", "ew:{r:chat:maths}:members"];
        assert_eq!(keys.listing(&Name::room("chat:maths")), members);
        let session = [
            "ew:{u:ada}:session/my/phone/chat",
            "ew:{u:ada}:places/my/phone/chat",
            "ew:{u:ada}:sessions",
        ];
        assert_eq!(keys.listing(&Name::session("ada", "my/phone", "chat")), session);
    }

    #[test]
    fn the_id_of_an_entry_is_its_place() {
        for place in [Seq::ZERO, Seq::new(3, 40), Seq::new(u64::MAX, u64::MAX)] {
            assert_eq!(seq(place.to_string().as_bytes()), Some(place));
        }
        for bad in ["", "1", "-", "1-", "-1", "1-2-3", "a-1", "1-18446744073709551616"] {
            assert_eq!(seq(bad.as_bytes()), None, "{bad}");
        }
    }
}
