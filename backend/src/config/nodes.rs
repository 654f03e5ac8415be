//! Where instances are: the items of `[backends]`.

use std::{collections::HashSet, fmt, net::IpAddr};

use edgeway_proto::limits;

use super::{ConfigProblem, check::Check};

/// Where one or more instances are.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Place {
    /// One, at HOST:PORT.
    Address(String),
    /// One at each address of a name.
    Dns {
        /// The name.
        host: String,
        /// Their port.
        port: u16,
    },
    /// All that are in the registry.
    Registry,
}

/// In front of a name that is resolved.
const DNS: &str = "dns:";
const REGISTRY: &str = "registry";

impl Place {
    /// Reads an item.
    ///
    /// # Errors
    /// What is wrong with it, as it follows the item in a sentence.
    pub fn parse(item: &str) -> Result<Self, String> {
        if item == REGISTRY {
            return Ok(Self::Registry);
        }
        let Some(name) = item.strip_prefix(DNS) else {
            host_and_port(item)?;
            return Ok(Self::Address(item.to_owned()));
        };
        let (host, port) = host_and_port(name)?;
        if host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok() {
            return Err(format!("names no host but an address; write \"{name}\""));
        }
        Ok(Self::Dns { host: host.to_owned(), port })
    }

    /// Whether the instances are known from the config alone.
    #[must_use]
    pub const fn is_fixed(&self) -> bool {
        matches!(self, Self::Address(_))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => f.write_str(address),
            Self::Dns { host, port } => write!(f, "{DNS}{host}:{port}"),
            Self::Registry => f.write_str(REGISTRY),
        }
    }
}

fn host_and_port(item: &str) -> Result<(&str, u16), String> {
    let Some((host, port)) = item.rsplit_once(':') else {
        return Err(
            "has no port; write HOST:PORT, such as 127.0.0.1:7400, \"dns:HOST:PORT\" for all \
                    addresses of a name, or \"registry\" for all instances that have registered"
                .to_owned(),
        );
    };
    let Some(number) = port.parse::<u16>().ok().filter(|port| *port != 0) else {
        return Err(format!("has the port `{port}`; a port is a number from 1 to 65535"));
    };
    let too_long = item.len() > limits::REASON_BYTES.min(crate::registry::ADDRESS_BYTES);
    if host.is_empty() || too_long || host.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err("has no host, or one that is none; write HOST:PORT".to_owned());
    }
    Ok((host, number))
}

/// Reads a list of items; of each that is wrong, its key.
///
/// # Errors
/// All that are wrong, or listed twice.
pub fn parse_places(key: &str, raw: &[String]) -> Result<Vec<Place>, Vec<ConfigProblem>> {
    let (mut places, mut problems, mut seen) = (Vec::new(), Vec::new(), HashSet::new());
    for (i, item) in raw.iter().enumerate() {
        let problem = match Place::parse(item) {
            _ if !seen.insert(item) => "is listed twice; once is enough".to_owned(),
            Ok(place) => {
                places.push(place);
                continue;
            }
            Err(problem) => problem,
        };
        problems.push(ConfigProblem {
            key: format!("{key}.{i}"),
            problem: format!("`{item}` {problem}"),
        });
    }
    if problems.is_empty() { Ok(places) } else { Err(problems) }
}

impl Check<'_> {
    pub(super) fn places(&mut self, key: &str, raw: &[String], on_redis: bool) -> Vec<Place> {
        let places = parse_places(key, raw).unwrap_or_else(|problems| {
            self.add(problems);
            Vec::new()
        });
        for (i, item) in raw.iter().enumerate() {
            match Place::parse(item) {
                Ok(Place::Address(address)) => {
                    if let Err(problem) = self.links.check_own(&address) {
                        self.problem(format!("{key}.{i}"), format!("`{address}` {problem}"));
                    }
                }
                Ok(Place::Registry) if !on_redis => self.problem(
                    format!("{key}.{i}"),
                    "`registry` is on the servers of the store, and store.engine is not \"redis\"; set it, \
                     or list the instances as HOST:PORT",
                ),
                _ => {}
            }
        }
        places
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn an_item_is_an_address_a_name_or_the_registry() {
        for item in ["127.0.0.1:7400", "[::1]:7400", "localhost:1"] {
            assert_eq!(Place::parse(item), Ok(Place::Address(item.to_owned())));
        }
        let rooms = Place::Dns { host: "rooms.local".to_owned(), port: 7400 };
        assert_eq!(Place::parse("dns:rooms.local:7400"), Ok(rooms));
        assert_eq!(Place::parse("registry"), Ok(Place::Registry));
        for item in ["127.0.0.1:7400", "dns:rooms.local:7400", "registry"] {
            assert_eq!(Place::parse(item).unwrap().to_string(), item);
        }
    }

    #[test]
    fn what_is_none_of_these_is_told_what_would_be_right() {
        let wrong = [
            ("", "no port"),
            ("Registry", "\"registry\" for all instances"),
            ("registry:7400 ", "a port is a number"),
            ("dns:rooms.local", "no port"),
            ("dns:rooms.local:0", "1 to 65535"),
            ("dns::7400", "no host"),
            ("dns:10.0.0.1:7400", "write \"10.0.0.1:7400\""),
            ("srv:rooms.local:x", "the port `x`"),
            ("a b:1", "no host"),
        ];
        for (item, told) in wrong {
            let problem = Place::parse(item).unwrap_err();
            assert!(problem.contains(told), "{item}: {problem}");
        }
    }

    #[test]
    fn every_item_that_is_wrong_is_told_by_its_place() {
        let raw = ["registry", "x", "registry", "a:1"].map(str::to_owned);
        let problems = parse_places("backends.room", &raw).unwrap_err();
        let keys: Vec<_> = problems.iter().map(|p| p.key.as_str()).collect();
        assert_eq!(keys, ["backends.room.1", "backends.room.2"]);
    }
}
