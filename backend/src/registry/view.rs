//! What the registry holds: instances as text, read with care since anybody may have written it. Pure.

use std::time::Instant;

/// Bytes of an address: a host name and a port.
pub(crate) const ADDRESS_BYTES: usize = 260;
/// Of the names of all roles of an instance.
const ROLES_BYTES: usize = 256;
/// Of an instance's name.
const NAME_BYTES: usize = 128;
/// Of what an instance tells of itself beside its load.
const REPORT_BYTES: usize = 2048;

/// What an instance has to do, for whoever chooses among several.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Load {
    /// Links and connections.
    pub connections: u64,
    /// Sessions.
    pub sessions: u64,
    /// Rooms and inboxes in memory.
    pub rooms: u64,
}

/// A process that lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// Names this run of it.
    pub run: u64,
    /// Where it is dialled, HOST:PORT.
    pub address: String,
    /// What it does; may hold roles of later versions.
    pub roles: Vec<String>,
    /// For logs.
    pub name: String,
    /// What it had to do when the list was read.
    pub load: Load,
    /// What it told of itself besides, for those who know what it means; may be empty.
    pub report: String,
}

/// All that live.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    /// Of the list; empty where it was never read.
    pub(crate) version: String,
    /// In the order of their runs.
    pub instances: Vec<Instance>,
    /// Entries that could not be read.
    pub unreadable: usize,
    /// When it was read. Loads and reports are of then.
    pub read_at: Option<Instant>,
}

impl View {
    /// Whether the list was read.
    #[must_use]
    pub fn is_known(&self) -> bool {
        !self.version.is_empty()
    }

    /// Where the instances of a role are, in order.
    #[must_use]
    pub fn addresses(&self, role: &str) -> Vec<String> {
        let has_role = |one: &&Instance| one.roles.iter().any(|name| name == role);
        let mut all: Vec<_> =
            self.instances.iter().filter(has_role).map(|one| one.address.clone()).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Of what the script answers for each instance: id, record, load.
    pub(super) fn read(version: String, entries: &[[String; 3]]) -> Self {
        let all = entries.iter().map(|[id, record, load]| Instance::read(id, record, load));
        let mut instances: Vec<_> = all.flatten().collect();
        instances.sort_unstable_by_key(|one| one.run);
        let unreadable = entries.len() - instances.len();
        Self { version, instances, unreadable, read_at: None }
    }
}

impl Instance {
    /// Its name in the list.
    pub(super) fn id(&self) -> String {
        format!("{:016x}", self.run)
    }

    pub(super) fn record(&self) -> String {
        format!("{} {} {}", self.address, self.roles.join(","), self.name)
    }

    fn read(id: &str, record: &str, load: &str) -> Option<Self> {
        let run = (id.len() == 16).then(|| u64::from_str_radix(id, 16).ok())??;
        let mut parts = record.splitn(3, ' ');
        let (address, roles, name) = (parts.next()?, parts.next()?, parts.next()?);
        let (host, port) = address.rsplit_once(':')?;
        let fits = address.len() <= ADDRESS_BYTES
            && roles.len() <= ROLES_BYTES
            && name.len() <= NAME_BYTES
            && !host.is_empty()
            && port.parse::<u16>().is_ok_and(|port| port != 0)
            && !record.contains(char::is_control);
        fits.then(|| Self {
            run,
            address: address.to_owned(),
            roles: roles.split(',').map(str::to_owned).collect(),
            name: name.to_owned(),
            load: Load::read(load),
            report: report(load),
        })
    }
}

impl Load {
    /// With what the instance tells besides, where that fits.
    pub(super) fn text(self, report: &str) -> String {
        let report = if report.len() <= REPORT_BYTES { report } else { "" };
        format!("{} {} {} {report}", self.connections, self.sessions, self.rooms)
    }

    /// What cannot be read counts as nothing: it is a hint.
    fn read(text: &str) -> Self {
        let mut numbers = text.splitn(4, ' ').map(|n| n.parse().unwrap_or_default());
        let mut next = || numbers.next().unwrap_or_default();
        Self { connections: next(), sessions: next(), rooms: next() }
    }
}

/// What follows the numbers.
fn report(load: &str) -> String {
    let report = load.splitn(4, ' ').nth(3).unwrap_or_default();
    if report.len() <= REPORT_BYTES { report.to_owned() } else { String::new() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn instance(run: u64, address: &str, roles: &[&str]) -> Instance {
        Instance {
            run,
            address: address.to_owned(),
            roles: roles.iter().map(ToString::to_string).collect(),
            name: "room 1".to_owned(),
            load: Load { connections: 1, sessions: 2, rooms: 3 },
            report: "{\"a\": 1}".to_owned(),
        }
    }

    fn entry(one: &Instance) -> [String; 3] {
        [one.id(), one.record(), one.load.text(&one.report)]
    }

    #[test]
    fn what_is_written_is_read_again_and_found_by_role() {
        let all = [
            instance(7, "10.0.0.2:7400", &["room", "peer"]),
            instance(9, "[::1]:7400", &["access"]),
            instance(8, "10.0.0.1:7400", &["room", "a_role_to_come"]),
        ];
        let entries: Vec<_> = all.iter().map(entry).collect();
        let view = View::read("3".to_owned(), &entries);
        assert_eq!(view.unreadable, 0);
        assert_eq!(view.instances, [all[0].clone(), all[2].clone(), all[1].clone()]);
        assert_eq!(view.addresses("room"), ["10.0.0.1:7400", "10.0.0.2:7400"]);
        assert!(view.addresses("binary").is_empty());
    }

    #[test]
    fn garbage_is_left_out_and_counted() {
        let good = entry(&instance(7, "10.0.0.2:7400", &["room"]));
        let bad = |id: &str, record: &str| [id.to_owned(), record.to_owned(), String::new()];
        let id = "0000000000000001";
        let long = format!("a:1 room {}", "x".repeat(NAME_BYTES + 1));
        let entries = [
            bad("7", "a:1 room name"),
            bad("00000000000000zz", "a:1 room name"),
            bad(id, ""),
            bad(id, "a:1 room"),
            bad(id, "a room name"),
            bad(id, "a:0 room name"),
            bad(id, ":1 room name"),
            bad(id, "a:1 room na\nme"),
            bad(id, &long),
            good,
        ];
        let view = View::read("3".to_owned(), &entries);
        assert_eq!((view.instances.len(), view.unreadable), (1, 9));
    }

    proptest! {
        #[test]
        fn nothing_that_anybody_writes_breaks_the_reader(
            entries in proptest::collection::vec(any::<[String; 3]>(), 0..8)
        ) {
            let view = View::read("1".to_owned(), &entries);
            prop_assert_eq!(view.instances.len() + view.unreadable, entries.len());
        }
    }
}
