//! The rules of single keys. Each either gives the value or notes a problem and gives the default,
//! so that all problems are found in one pass.

use std::{net::SocketAddr, ops::RangeInclusive, path::PathBuf, time::Duration};

use edgeway_linktls::Links;

use super::{ConfigProblem, HistorySync, Nodes, RawHistory, RawNodes, RawRooms, Retention, Rooms};
use crate::auth::check_name;

/// What a screen can show; more is flicker and battery (SOURCE.md, freshness).
const CHAT_PER_SECOND: i64 = 20;
/// Short enough not to be seen, long enough that 500 talkers share a packet.
const CHAT_BATCH_MS: i64 = 20;
/// A class has 500, a large public lesson tens of thousands; above this a room costs its owner
/// more memory than one process should bet on one name.
const MAX_MEMBERS: i64 = 100_000;
/// A teacher's app joins hundreds of rooms at once.
const PER_SESSION: i64 = 1_000;

/// A school year, and as much again as it takes to ask for it.
const KEEP_DAYS: i64 = 365;
/// Of a lesson's chat at 20 a second, 14 hours.
const KEEP_MESSAGES: i64 = 1_000_000;

/// The slot takes 6 bits of a group's handle.
const SLOTS: RangeInclusive<i64> = 0..=63;

pub(super) struct Check<'a> {
    pub(super) links: &'a Links,
    problems: Vec<ConfigProblem>,
}

impl<'a> Check<'a> {
    pub(super) fn new(links: &'a Links) -> Self {
        Self { links, problems: Vec::new() }
    }

    pub(super) fn finish<T>(self, value: T) -> Result<T, Vec<ConfigProblem>> {
        if self.problems.is_empty() { Ok(value) } else { Err(self.problems) }
    }

    pub(super) fn problem(&mut self, key: impl Into<String>, problem: impl Into<String>) {
        self.problems.push(ConfigProblem { key: key.into(), problem: problem.into() });
    }

    pub(super) fn add(&mut self, problems: Vec<ConfigProblem>) {
        self.problems.extend(problems);
    }

    pub(super) fn listen(&mut self, raw: Option<String>, default: SocketAddr) -> SocketAddr {
        let Some(raw) = raw else { return default };
        let Ok(addr) = raw.parse::<SocketAddr>() else {
            self.problem(
                "backend.listen",
                format!("`{raw}` is not an address; write IP:PORT, such as 127.0.0.1:7400"),
            );
            return default;
        };
        if let Some(problem) = self.links.listen_problem(addr) {
            self.problem("backend.listen", format!("{addr} {problem}"));
        }
        addr
    }

    pub(super) fn data_dir(&mut self, raw: Option<String>) -> PathBuf {
        match raw {
            Some(dir) if dir.is_empty() => {
                self.problem(
                    "backend.data_dir",
                    "is empty; name a directory, such as \"edgeway-data\"",
                );
                PathBuf::new()
            }
            Some(dir) => dir.into(),
            None => "edgeway-data".into(),
        }
    }

    pub(super) fn slot(&mut self, raw: Option<i64>) -> u8 {
        let slot = self.number("backend.slot", raw, 0, SLOTS);
        u8::try_from(slot).unwrap_or_default()
    }

    pub(super) fn name(&mut self, raw: Option<String>) -> String {
        let name = raw.unwrap_or_else(|| "backend".to_owned());
        if let Err(problem) = check_name(&name) {
            self.problem(
                "backend.name",
                format!("{problem}; it is a name for logs, such as \"room-1\""),
            );
        }
        name
    }

    pub(super) fn history_sync(&mut self, raw: Option<&str>) -> HistorySync {
        match raw {
            None | Some("process") => HistorySync::Process,
            Some("disk") => HistorySync::Disk,
            Some(other) => {
                self.problem(
                    "history.sync",
                    format!(
                        "`{other}` is unknown; \"process\" survives the death of the process, \
                         \"disk\" also the loss of power"
                    ),
                );
                HistorySync::Process
            }
        }
    }

    pub(super) fn retention(&mut self, raw: &RawHistory) -> Retention {
        let days = self.number("history.keep_days", raw.keep_days, KEEP_DAYS, 0..=36_500);
        let most = 0..=1_000_000_000_000;
        let messages = self.number("history.keep_messages", raw.keep_messages, KEEP_MESSAGES, most);
        let days = u64::try_from(days).unwrap_or_default();
        Retention {
            age: (days > 0).then(|| Duration::from_secs(days * 24 * 3600)),
            messages: u64::try_from(messages).ok().filter(|messages| *messages > 0),
        }
    }

    pub(super) fn rooms(&mut self, raw: &RawRooms) -> Rooms {
        let per_second =
            self.number("rooms.chat_per_second", raw.chat_per_second, CHAT_PER_SECOND, 0..=100_000);
        let batch = self.number("rooms.chat_batch_ms", raw.chat_batch_ms, CHAT_BATCH_MS, 1..=1_000);
        let members = self.number("rooms.max_members", raw.max_members, MAX_MEMBERS, 1..=1_000_000);
        let per_session =
            self.number("rooms.per_session", raw.per_session, PER_SESSION, 1..=10_000);
        let create_on_join = match raw.create.as_deref() {
            None | Some("on_join") => true,
            Some("api") => false,
            Some(other) => {
                self.problem(
                    "rooms.create",
                    format!(
                        "`{other}` is unknown; \"on_join\" creates a room at its first join, \"api\" \
                         only by API"
                    ),
                );
                true
            }
        };
        // The ranges above make the conversions exact.
        Rooms {
            chat_per_second: u32::try_from(per_second).unwrap_or_default(),
            chat_batch: Duration::from_millis(batch.unsigned_abs()),
            create_on_join,
            max_members: usize::try_from(members).unwrap_or_default(),
            per_session: usize::try_from(per_session).unwrap_or_default(),
        }
    }

    pub(super) fn nodes(&mut self, raw: &RawNodes, on_redis: bool) -> Nodes {
        Nodes {
            room: self.places("nodes.room", &raw.room, on_redis),
            binary: self.places("nodes.binary", &raw.binary, on_redis),
            peer: self.places("nodes.peer", &raw.peer, on_redis),
            access: self.places("nodes.access", &raw.access, on_redis),
        }
    }

    pub(super) fn number(
        &mut self,
        key: &str,
        raw: Option<i64>,
        default: i64,
        range: RangeInclusive<i64>,
    ) -> i64 {
        match raw {
            None => default,
            Some(n) if range.contains(&n) => n,
            Some(n) => {
                self.problem(
                    key,
                    format!(
                        "{n} is out of range; {} to {} are allowed, {default} is the default",
                        range.start(),
                        range.end()
                    ),
                );
                default
            }
        }
    }
}
