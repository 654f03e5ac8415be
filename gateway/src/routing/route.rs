//! What the config says about a Session type.

use std::{collections::BTreeMap, fmt, sync::Arc};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{MapAccess, Visitor, value::MapAccessDeserializer},
};

use super::{Policy, hash};

/// A value of `[gateway.routes]`: a backend's name, or more than that.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct RawRoute {
    /// Name of the backend; "" for no route.
    pub backend: String,
    /// How a Session finds its instance.
    pub policy: Policy,
    /// What is hashed: `user`, `room`, or `header:NAME`.
    pub key: String,
}

impl From<&str> for RawRoute {
    fn from(backend: &str) -> Self {
        Self { backend: backend.into(), policy: Policy::default(), key: "user".into() }
    }
}

/// What a section may say.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    backend: String,
    #[serde(default)]
    policy: Policy,
    #[serde(default = "user")]
    key: String,
}

fn user() -> String {
    "user".into()
}

impl<'de> Deserialize<'de> for RawRoute {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = RawRoute;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "a backend's name, or { backend = \"...\", policy = \"...\", key = \"...\" }",
                )
            }

            fn visit_str<E>(self, backend: &str) -> Result<RawRoute, E> {
                Ok(backend.into())
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RawRoute, A::Error> {
                let Section { backend, policy, key } =
                    Section::deserialize(MapAccessDeserializer::new(map))?;
                Ok(RawRoute { backend, policy, key })
            }
        }
        from.deserialize_any(Either)
    }
}

/// What is hashed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    /// The user.
    User,
    /// A header of the Session's opening.
    Header(String),
}

impl Key {
    /// Header that names a room, by convention.
    const ROOM: &'static str = "room";

    /// # Errors
    /// What would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text.strip_prefix("header:") {
            Some("") => Err("`header:` names no header; expected such as \"header:board\"".into()),
            Some(name) => Ok(Self::Header(name.into())),
            None if text == "user" => Ok(Self::User),
            None if text == Self::ROOM => Ok(Self::Header(Self::ROOM.into())),
            None => Err(format!(
                "`{text}` is no key; expected \"user\", \"room\", or \"header:NAME\" for a header of \
                 the Session's opening"
            )),
        }
    }
}

/// All that a Session may be routed by, as hashes: kept with it, so that after a change of routes it is
/// known where it belongs.
#[derive(Debug)]
pub struct Keys {
    user: u64,
    /// Names and values, in the order of the opening.
    headers: Box<[(u64, u64)]>,
}

impl Keys {
    /// Of a Session of this user, with the headers of its opening.
    pub fn new<'a>(user: &str, headers: impl Iterator<Item = (&'a str, &'a str)>) -> Self {
        let headers = headers.map(|(name, value)| (hash(name), hash(value)));
        Self { user: hash(user), headers: headers.collect() }
    }

    /// The hash of what a route goes by.
    ///
    /// # Errors
    /// The opening lacks the header.
    pub fn of(&self, key: &Key) -> Result<u64, String> {
        let Key::Header(name) = key else { return Ok(self.user) };
        let wanted = hash(name);
        let found = self.headers.iter().find(|(name, _)| *name == wanted);
        found
            .map(|(_, value)| *value)
            .ok_or_else(|| format!("its opening has no header `{name}`, by which it is routed"))
    }
}

/// Where Sessions of a type go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The Session type.
    pub kind: Arc<str>,
    /// Name of the backend.
    pub backend: String,
    /// How a Session finds its instance.
    pub policy: Policy,
    /// What is hashed.
    pub key: Key,
}

/// All of them, by Session type.
pub type Routes = BTreeMap<Arc<str>, Route>;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_key_is_the_user_or_a_header() {
        assert_eq!(Key::parse("user"), Ok(Key::User));
        assert_eq!(Key::parse("room"), Ok(Key::Header("room".into())));
        assert_eq!(Key::parse("header:board"), Ok(Key::Header("board".into())));
        assert!(Key::parse("header:").unwrap_err().contains("names no header"));
        assert!(Key::parse("User").unwrap_err().contains("expected \"user\""));
    }

    #[test]
    fn a_session_without_the_header_is_told_which_it_lacks() {
        let key = Key::parse("room").unwrap();
        let headers = [("board", "7"), ("room", "lesson-1"), ("room", "lesson-2")];
        let keys = |headers: &[_]| Keys::new("ada", headers.iter().copied());
        assert_eq!(keys(&headers).of(&key), Ok(hash("lesson-1")));
        assert!(keys(&headers[..1]).of(&key).unwrap_err().contains("`room`"));
        assert_eq!(keys(&[]).of(&Key::User), Ok(hash("ada")));
    }
}
