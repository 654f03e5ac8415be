//! `[push]`: the API keys. Raw as it stands in the file, and [`Config`] as the program uses it.

use std::{collections::BTreeMap, ops::RangeInclusive};

use serde::Deserialize;

use crate::keys::{Key, KeyHash, Scope};

/// Messages of a key in a second, where nothing else is said: those of a busy school.
const PER_SECOND: i64 = 1_000;
/// More than one process can send.
const PER_SECOND_RANGE: RangeInclusive<i64> = 1..=1_000_000;
/// Keys at most: one for each system and purpose.
const KEYS_MAX: usize = 10_000;

/// `[push]`: the HTTP API for business systems.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawPush {
    /// By a name of the operator's choice.
    pub keys: BTreeMap<String, RawKey>,
}

/// `[push.keys.NAME]`: one API key.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawKey {
    /// As `edgeway key` prints it.
    pub hash: String,
    /// What it may do: `send`, `moderate`, `read`.
    pub scopes: Vec<String>,
    /// Messages in a second.
    pub per_second: Option<i64>,
}

/// What the API goes by.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    pub(crate) keys: Vec<Key>,
}

/// One thing that is wrong with the config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigProblem {
    /// The dotted key.
    pub key: String,
    /// What is wrong and what would be right.
    pub problem: String,
}

/// Turns what the file says into what the program uses.
///
/// # Errors
/// Everything that is wrong.
pub fn validate(raw: &RawPush) -> Result<Config, Vec<ConfigProblem>> {
    let mut problems = Vec::new();
    let mut keys: Vec<Key> = Vec::new();
    let mut problem = |key: String, problem: String| problems.push(ConfigProblem { key, problem });
    if raw.keys.len() > KEYS_MAX {
        problem("push.keys".to_owned(), format!("at most {KEYS_MAX} keys"));
    }
    for (name, raw) in &raw.keys {
        let at = |what: &str| format!("push.keys.{name}.{what}");
        let hash = KeyHash::parse(&raw.hash);
        if hash.is_none() {
            problem(
                at("hash"),
                "is no hash of an API key; `edgeway key` makes a key and prints its hash, \
                 \"sha256:...\""
                    .to_owned(),
            );
        } else if let Some(other) = keys.iter().find(|key| Some(key.hash) == hash) {
            problem(at("hash"), format!("is that of push.keys.{} too", other.name));
        }
        let mut scopes = [false; Scope::ALL.len()];
        if raw.scopes.is_empty() {
            problem(at("scopes"), "is empty; there are \"send\", \"moderate\" and \"read\"".into());
        }
        for (index, scope) in raw.scopes.iter().enumerate() {
            match Scope::parse(scope) {
                Some(scope) => scopes[scope as usize] = true,
                None => problem(
                    at(&format!("scopes.{index}")),
                    format!("`{scope}` is unknown; there are \"send\", \"moderate\" and \"read\""),
                ),
            }
        }
        let per_second = raw.per_second.unwrap_or(PER_SECOND);
        if !PER_SECOND_RANGE.contains(&per_second) {
            let (from, to) = PER_SECOND_RANGE.into_inner();
            problem(
                at("per_second"),
                format!(
                    "{per_second} is out of range; {from} to {to} are allowed, {PER_SECOND} is the default"
                ),
            );
        }
        if let Some(hash) = hash {
            // The range makes it exact.
            let per_second = u32::try_from(per_second).unwrap_or(1);
            keys.push(Key { name: name.clone(), hash, scopes, per_second });
        }
    }
    if problems.is_empty() { Ok(Config { keys }) } else { Err(problems) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::make_key;

    #[test]
    fn keys_are_read_and_everything_wrong_is_told_with_its_key() {
        let hash = make_key().unwrap().hash.to_string();
        let key = |hash: &str, scopes: &[&str], per_second| RawKey {
            hash: hash.to_owned(),
            scopes: scopes.iter().map(ToString::to_string).collect(),
            per_second,
        };
        let raw =
            RawPush { keys: BTreeMap::from([("a".into(), key(&hash, &["send", "read"], None))]) };
        let config = validate(&raw).unwrap();
        assert_eq!(
            (config.keys[0].scopes, config.keys[0].per_second),
            ([true, false, true], 1_000)
        );
        let raw = RawPush {
            keys: BTreeMap::from([
                ("a".into(), key(&hash, &["send"], None)),
                ("b".into(), key(&hash, &["sing"], Some(0))),
                ("c".into(), key("edgeway_x", &[], Some(5))),
            ]),
        };
        let problems = validate(&raw).unwrap_err();
        let keys: Vec<_> = problems.iter().map(|p| p.key.as_str()).collect();
        let expected = [
            "push.keys.b.hash",
            "push.keys.b.scopes.0",
            "push.keys.b.per_second",
            "push.keys.c.hash",
            "push.keys.c.scopes",
        ];
        assert_eq!(keys, expected);
    }
}
