//! Section `[links]`: what the file says, and what follows from it for addresses.

use std::net::SocketAddr;

use serde::Deserialize;

use crate::{
    address::{Address, AddressProblem},
    identity::{Identity, Pem},
};

/// The name that certificates of links carry unless another one is configured.
pub const DEFAULT_NAME: &str = "edgeway-link";

/// How to get certificates.
const MAKE_THEM: &str = "set [links] (`edgeway certs --help` shows how to make them)";

/// `[links]` as the file has it: PEM files. All three empty: links are in the clear, on loopback.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawLinks {
    /// The authorities whose certificates are accepted.
    pub ca: String,
    /// This process's certificate.
    pub cert: String,
    /// Its private key.
    pub key: String,
    /// The name that certificates of this cluster carry.
    pub name: String,
}

impl Default for RawLinks {
    fn default() -> Self {
        let empty = String::new;
        Self { ca: empty(), cert: empty(), key: empty(), name: DEFAULT_NAME.to_owned() }
    }
}

/// Something wrong with a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Dotted key.
    pub key: &'static str,
    /// What is wrong and what would be right.
    pub problem: String,
}

impl Problem {
    pub(crate) fn new(key: &'static str, problem: impl Into<String>) -> Self {
        Self { key, problem: problem.into() }
    }
}

/// How the links of a process are.
#[derive(Debug, Clone, Default)]
pub enum Links {
    /// In the clear, on loopback only.
    #[default]
    Off,
    /// The file has certificates that the process was started without: in the clear until its next start.
    Waiting,
    /// The file's certificates are not good, which is told elsewhere.
    Broken,
    /// TLS.
    On(Identity),
}

impl RawLinks {
    /// Reads the files. Notes what is wrong.
    pub fn read(&self, problems: &mut Vec<Problem>) -> Links {
        let Self { ca, cert, key, name } = self;
        if ca.is_empty() && cert.is_empty() && key.is_empty() {
            return Links::Off;
        }
        let before = problems.len();
        let mut read = |at: &'static str, path: &str| {
            if path.is_empty() {
                problems.push(Problem::new(
                    at,
                    "is missing: links.ca, links.cert and links.key go together (`edgeway certs --help` \
                     shows how to make them)",
                ));
                return Vec::new();
            }
            std::fs::read(path).unwrap_or_else(|e| {
                let problem =
                    format!("cannot read {path}: {e}; name a PEM file that this user may read");
                problems.push(Problem::new(at, problem));
                Vec::new()
            })
        };
        let pem = Pem {
            ca: read("links.ca", ca),
            cert: read("links.cert", cert),
            key: read("links.key", key),
        };
        if problems.len() > before {
            return Links::Broken;
        }
        match Identity::from_pem(&pem, name) {
            Ok(identity) => Links::On(identity),
            Err(found) => {
                problems.extend(found);
                Links::Broken
            }
        }
    }
}

impl Links {
    /// The certificates, where they are in use.
    #[must_use]
    pub const fn identity(&self) -> Option<&Identity> {
        match self {
            Self::On(identity) => Some(identity),
            Self::Off | Self::Waiting | Self::Broken => None,
        }
    }

    /// Why links cannot be served at an address; follows the address in a sentence.
    #[must_use]
    pub fn listen_problem(&self, addr: SocketAddr) -> Option<AddressProblem> {
        let refused = matches!(self, Self::Off) && !addr.ip().is_loopback();
        refused.then(|| {
            AddressProblem(format!(
                "can be reached from other machines, and links between machines need certificates of \
                 both sides; {MAKE_THEM}, or listen on loopback, such as 127.0.0.1:{}",
                addr.port()
            ))
        })
    }

    /// Checks an address to dial.
    ///
    /// # Errors
    /// What is wrong with it: follows the address in a sentence.
    pub fn check(&self, address: &str) -> Result<(), AddressProblem> {
        let Address { clear, loopback, .. } = Address::parse(address)?;
        let problem = match self {
            _ if loopback => return Ok(()),
            _ if clear => {
                "is in the clear on another machine; http:// is for backends on this one, and \
                           for others write HOST:PORT"
                    .to_owned()
            }
            Self::On(_) | Self::Broken => return Ok(()),
            Self::Waiting => {
                "is on another machine, and this process was started without [links], which \
                              takes effect when it is started again"
                    .to_owned()
            }
            Self::Off => format!(
                "is on another machine, and links between machines need certificates of both sides; \
                 {MAKE_THEM}, or name an address of loopback"
            ),
        };
        Err(AddressProblem(problem))
    }

    /// The same for a process of Edgeway's own, which speaks TLS wherever there are certificates.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub fn check_own(&self, address: &str) -> Result<(), AddressProblem> {
        self.check(address)?;
        if Address::parse(address)?.clear {
            let problem = "begins with http://, which is for backends of your own: those of Edgeway \
                           speak TLS where [links] is set; write HOST:PORT";
            return Err(AddressProblem(problem.to_owned()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::path::Path;

    use super::*;

    fn read(raw: &RawLinks) -> (Links, Vec<Problem>) {
        let mut problems = Vec::new();
        (raw.read(&mut problems), problems)
    }

    /// `[links]` of good files.
    fn good(dir: &Path) -> RawLinks {
        let day = std::time::Duration::from_secs(24 * 60 * 60);
        let ca = edgeway_certs::DevCa::make(dir, "A CA", 365 * day, false).unwrap();
        let request = edgeway_certs::Request {
            subject: "gw-1",
            names: &[DEFAULT_NAME],
            usage: edgeway_certs::Usage::Peer,
            lifetime: 30 * day,
        };
        let saved = ca.issue_to(dir, &request, false).unwrap();
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        RawLinks {
            ca: text(ca.path()),
            cert: text(&saved.cert_path),
            key: text(&saved.key_path),
            ..RawLinks::default()
        }
    }

    #[test]
    fn nothing_is_off_and_three_good_files_are_on() {
        assert!(
            matches!(read(&RawLinks::default()), (Links::Off, problems) if problems.is_empty())
        );
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(read(&good(dir.path())), (Links::On(_), problems) if problems.is_empty()));
    }

    #[test]
    fn a_half_is_told_of_what_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        let good = good(dir.path());
        let half = RawLinks { key: String::new(), ..good.clone() };
        let (links, problems) = read(&half);
        assert!(matches!(links, Links::Broken));
        assert_eq!(problems.len(), 1);
        assert_eq!(problems[0].key, "links.key");
        assert!(problems[0].problem.contains("go together"), "{problems:?}");
        let one = RawLinks { ca: good.ca, ..RawLinks::default() };
        let keys: Vec<_> = read(&one).1.into_iter().map(|p| p.key).collect();
        assert_eq!(keys, ["links.cert", "links.key"]);
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let raw = RawLinks { cert: "/no/such.pem".into(), ..good(dir.path()) };
        let (_, problems) = read(&raw);
        assert_eq!(problems[0].key, "links.cert");
        assert!(problems[0].problem.contains("cannot read /no/such.pem"), "{problems:?}");
    }

    #[test]
    fn other_machines_need_certificates_that_are_in_use() {
        let far = SocketAddr::from(([10, 0, 0, 1], 7400));
        let near = SocketAddr::from(([127, 0, 0, 1], 7400));
        let dir = tempfile::tempdir().unwrap();
        let on = read(&good(dir.path())).0;
        assert!(Links::Off.listen_problem(far).is_some());
        assert!(Links::Off.listen_problem(near).is_none() && on.listen_problem(far).is_none());
        let told = |links: &Links, addr: &str| links.check(addr).map_err(|p| p.to_string());
        assert!(told(&Links::Off, "10.0.0.1:7400").is_err_and(|p| p.contains("set [links]")));
        assert!(told(&Links::Waiting, "10.0.0.1:7400").is_err_and(|p| p.contains("started again")));
        assert_eq!(told(&on, "10.0.0.1:7400"), Ok(()));
        // What is wrong with the files is told already.
        assert_eq!(told(&Links::Broken, "10.0.0.1:7400"), Ok(()));
        for links in [&Links::Off, &Links::Waiting, &Links::Broken, &on] {
            assert_eq!(told(links, "127.0.0.1:7400"), Ok(()));
            assert_eq!(told(links, "http://127.0.0.1:7400"), Ok(()));
            assert!(told(links, "http://10.0.0.1:7400").is_err());
            assert!(links.check_own("http://127.0.0.1:7400").is_err());
            assert!(links.check_own("127.0.0.1:7400").is_ok());
        }
    }
}
