//! What every process has: threads, logs, and HTTP for metrics and health.

use std::net::{Ipv4Addr, SocketAddr};

use super::{Problem, RawFile};

/// Beside other services on a machine; a scraper elsewhere needs another address on purpose.
const HTTP: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);

/// Starts, stops, and what needs a person; nothing for each message.
const LOG: &str = "info";

/// Far more cores than one process of this kind can use.
const MAX_THREADS: i64 = 1024;

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// What every process has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Worker threads; none for one a core.
    pub threads: Option<usize>,
    /// Levels: one for all, and those of single modules.
    pub log: String,
    /// Where metrics and health are served; none for nowhere.
    pub http: Option<SocketAddr>,
}

impl Process {
    pub(super) fn validate(raw: &RawFile, problems: &mut Vec<Problem>) -> Self {
        Self {
            threads: threads(raw.runtime.threads, problems),
            log: log(raw.log.level.as_deref(), problems),
            http: http(raw.http.listen.as_deref(), problems),
        }
    }
}

fn threads(raw: Option<i64>, problems: &mut Vec<Problem>) -> Option<usize> {
    match raw {
        None | Some(0) => None,
        Some(n @ 1..=MAX_THREADS) => usize::try_from(n).ok(),
        Some(n) => {
            problems.push(Problem::new(
                "runtime.threads",
                format!(
                    "{n} is out of range; 1 to {MAX_THREADS}, or 0 for one a core (the default)"
                ),
            ));
            None
        }
    }
}

fn log(raw: Option<&str>, problems: &mut Vec<Problem>) -> String {
    let levels = raw.unwrap_or(LOG);
    if let Err(problem) = check_levels(levels) {
        problems.push(Problem::new("log.level", problem));
    }
    levels.to_owned()
}

/// `LEVEL` or `MODULE=LEVEL`, separated by commas. (The filter itself would take a misspelt level
/// for the name of a module.)
pub fn check_levels(levels: &str) -> Result<(), String> {
    for part in levels.split(',') {
        let level = part.split_once('=').map_or(part, |(_, level)| level).trim();
        if !LEVELS.contains(&level) {
            return Err(format!(
                "`{level}` is no level; write one of {}, or levels of modules such as \
                 \"info,edgeway_gateway=debug\"",
                LEVELS.join(", ")
            ));
        }
    }
    Ok(())
}

fn http(raw: Option<&str>, problems: &mut Vec<Problem>) -> Option<SocketAddr> {
    match raw {
        None => Some(HTTP),
        Some("") => None,
        Some(text) => {
            let addr = text.parse().ok();
            if addr.is_none() {
                problems.push(Problem::new(
                    "http.listen",
                    format!(
                        "`{text}` is not an address; write IP:PORT, such as {HTTP}, or \"\" for off"
                    ),
                ));
            }
            addr
        }
    }
}
