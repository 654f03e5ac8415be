//! What differs between two configs, key by key.

use std::collections::{BTreeMap, BTreeSet};

use toml::{Table, Value};

/// Keys that a gateway takes while it runs: sections end with a dot.
pub const OF_GATEWAYS: [&str; 7] = [
    "backends.",
    "dispatch.ticket_keys",
    "gateway.dispatch.",
    "gateway.limits.",
    "gateway.login",
    "gateway.routes.",
    "gateway.tls.",
];

/// Keys that a backend takes while it runs.
pub const OF_BACKENDS: [&str; 5] = [LOGINS, "backends.", "filter.", "push.", "rooms."];

/// Keys that dispatch takes while it runs.
pub const OF_DISPATCH: [&str; 11] = [
    "dispatch.apps.",
    "dispatch.clusters.",
    "dispatch.connections",
    "dispatch.endpoints",
    "dispatch.per_ip_per_second",
    "dispatch.stale_ms",
    "dispatch.ticket_keys",
    "dispatch.ticket_ttl_ms",
    "dispatch.tls.",
    "dispatch.ttl_ms",
    "gateway.tls.",
];

/// Users, keys and the endpoint are of the mode of logins, which changes with a restart only.
const LOGINS: &str = "auth.";
const LOGINS_ARE_OF: &str = "auth.mode";

/// What every process takes that was not told its levels by a flag.
pub const OF_LOGS: &str = "log.level";

/// What every process takes that was started with certificates of links.
pub const OF_LINKS: &str = "links.";

/// Sections with passwords: their values are nobody's business.
const SECRET: [&str; 6] = [
    "auth.",
    "dispatch.clusters.",
    "dispatch.ticket_keys",
    "events.kafka.properties.",
    "push.keys.",
    "store.",
];

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// In effect from now on.
    pub live: Vec<String>,
    /// In effect after a restart: all that differs from what the process was started with.
    pub at_restart: Vec<String>,
}

impl Changes {
    /// From what is in effect (`old`) to `new`, of a process that was started with `started` and takes the keys
    /// `live` while it runs.
    pub fn between(live: &[&str], started: &str, old: &str, new: &str) -> Self {
        let value = |text: &str| leaves(text).remove(LOGINS_ARE_OF);
        let logins_are_live = value(started) == value(new);
        let is_live = |key: &str| {
            is_of(live, key)
                && key != LOGINS_ARE_OF
                && (logins_are_live || !key.starts_with(LOGINS))
        };
        Self {
            live: differences(old, new, is_live),
            at_restart: differences(started, new, |key| !is_live(key)),
        }
    }

    /// One line for each.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        let waiting = self.at_restart.iter().map(|line| format!("{line} (at the next restart)"));
        self.live.iter().cloned().chain(waiting)
    }
}

fn is_of(keys: &[&str], key: &str) -> bool {
    keys.iter().any(|one| if one.ends_with('.') { key.starts_with(one) } else { key == *one })
}

fn differences(old: &str, new: &str, counts: impl Fn(&str) -> bool) -> Vec<String> {
    let (old, new) = (leaves(old), leaves(new));
    let keys: BTreeSet<_> = old.keys().chain(new.keys()).collect();
    let differ = keys.into_iter().filter(|key| old.get(*key) != new.get(*key));
    differ
        .filter(|key| counts(key))
        .map(|key| match (old.get(key), new.get(key)) {
            _ if is_of(&SECRET, key) => format!("{key}: changed"),
            (Some(old), Some(new)) => format!("{key}: {old} -> {new}"),
            (None, Some(new)) => format!("{key}: set to {new}"),
            (Some(old), None) => format!("{key}: removed, was {old}"),
            (None, None) => key.clone(),
        })
        .collect()
}

/// Every value by its dotted key. A route may be a text or a section; it is one value either way.
fn leaves(text: &str) -> BTreeMap<String, String> {
    let mut leaves = BTreeMap::new();
    // What cannot be parsed was never in effect.
    collect("", &text.parse().unwrap_or_default(), &mut leaves);
    leaves
}

fn collect(at: &str, table: &Table, leaves: &mut BTreeMap<String, String>) {
    for (name, value) in table {
        let key = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
        match value {
            Value::Table(section) if at != "gateway.routes" => collect(&key, section, leaves),
            value => {
                leaves.insert(key, value.to_string());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compare(started: &str, old: &str, new: &str) -> Changes {
        let live: Vec<_> = OF_GATEWAYS.into_iter().chain(OF_BACKENDS).collect();
        Changes::between(&live, started, old, new)
    }

    const OLD: &str = "[gateway.routes]\nchat = \"access\"\nquiz = \"quiz\"\n[backends]\n\
        quiz = [\"127.0.0.1:1\"]\n[log]\nlevel = \"info\"\n[runtime]\nthreads = 10\n";

    #[test]
    fn each_key_that_differs_is_told_with_both_values() {
        let new = "[gateway.routes]\nchat = { backend = \"access\", policy = \"hash\" }\n[backends]\n\
            quiz = [\"127.0.0.1:1\", \"127.0.0.1:2\"]\n[log]\nlevel = \"info\"\n";
        let changes = compare(OLD, OLD, new);
        assert_eq!(
            changes.live,
            [
                "backends.quiz: [\"127.0.0.1:1\"] -> [\"127.0.0.1:1\", \"127.0.0.1:2\"]",
                "gateway.routes.chat: \"access\" -> { backend = \"access\", policy = \"hash\" }",
                "gateway.routes.quiz: removed, was \"quiz\"",
            ]
        );
        assert_eq!(changes.at_restart, ["runtime.threads: removed, was 10"]);
    }

    #[test]
    fn what_waits_for_a_restart_is_told_until_it_is_taken_back() {
        let changed = OLD.replace("= 10", "= 20");
        let changes = compare(OLD, &changed, &changed);
        assert!(changes.live.is_empty());
        assert_eq!(
            changes.lines().collect::<Vec<_>>(),
            ["runtime.threads: 10 -> 20 (at the next restart)"]
        );
        assert_eq!(compare(OLD, &changed, OLD), Changes::default());
    }

    #[test]
    fn secrets_are_not_told() {
        let changes = compare("", "", "[auth.users]\nada = \"hash\"\n");
        assert_eq!(changes.live, ["auth.users.ada: changed"]);
        let url = |host: &str| format!("[store.redis]\nurl = \"redis://ada:secret@{host}\"\n");
        let changes = compare("", &url("a"), &url("b"));
        assert_eq!(changes.at_restart, ["store.redis.url: changed"]);
    }

    #[test]
    fn limits_rooms_and_users_are_live_and_users_wait_for_the_mode_of_their_logins() {
        let old = "[auth]\nmode = \"passwords\"\n[auth.users]\nada = \"one\"\n";
        let new = "[auth]\nmode = \"passwords\"\n[auth.users]\nada = \"two\"\n[rooms]\nmax_members = 5\n\
            [gateway.limits]\nconnections = 7\n[http]\nlisten = \"\"\n";
        let changes = compare(old, old, new);
        assert_eq!(
            changes.live,
            [
                "auth.users.ada: changed",
                "gateway.limits.connections: set to 7",
                "rooms.max_members: set to 5"
            ]
        );
        assert_eq!(changes.at_restart, ["http.listen: set to \"\""]);
        let changes = compare(old, old, "[rooms]\nmax_members = 5\n");
        assert_eq!(changes.live, ["rooms.max_members: set to 5"]);
        assert_eq!(changes.at_restart, ["auth.mode: changed", "auth.users.ada: changed"]);
    }

    #[test]
    fn what_a_process_does_not_take_while_it_runs_is_not_told_as_taken() {
        let new = OLD.replace("127.0.0.1:1", "127.0.0.1:9").replace("info", "warn");
        let changes = Changes::between(&[OF_LOGS], OLD, OLD, &new);
        assert_eq!(changes.live, ["log.level: \"info\" -> \"warn\""]);
        assert_eq!(changes.at_restart.len(), 1);
    }
}
