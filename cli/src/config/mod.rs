//! The config: one TOML file for all processes, read, overridden by flags, and checked as a whole.
//!
//! [`File::read`] gives what the file says, [`File::settings`] what the program uses. Whatever is
//! wrong is reported at once, each problem with its line or flag, its key, and what would be right.

mod document;
mod gateway;
mod message;
mod parse;
mod process;
mod raw;
mod report;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use edgeway_backend::{Roles, check_roles, config as backend, store::RedisUrl};
use edgeway_dispatch::config as dispatch;
use edgeway_linktls::{Identity, Links};
use edgeway_push::config as push;
use parse::Misfit;

use gateway::read_pem;
pub use gateway::{GatewaySettings, Pem};
pub use process::{Process, check_levels};
pub use raw::RawFile;
pub use report::BadConfig;

/// Explains every key; at the root of the repository.
const EXAMPLE: &str = "edgeway.example.toml";

/// The roles that processes of their own can have.
pub const ROLES: [&str; 4] = ["access", "room", "binary", "peer"];

/// Those that `up` runs: strokes stay with the rooms.
pub const ROLES_OF_UP: [&str; 3] = ["access", "room", "peer"];

/// Time enough to replace a certificate without haste.
const SOON: std::time::Duration = std::time::Duration::from_secs(30 * 24 * 60 * 60);

/// Something wrong with the value of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Dotted; of a list's item with its index.
    pub key: String,
    /// What is wrong and what would be right.
    pub problem: String,
}

impl Problem {
    fn new(key: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { key: key.into(), problem: problem.into() }
    }
}

impl From<backend::ConfigProblem> for Problem {
    fn from(p: backend::ConfigProblem) -> Self {
        // The file lists the processes once, for gateways and backends alike.
        let key = match p.key.strip_prefix("nodes.") {
            Some(rest) => format!("backends.{rest}"),
            None => p.key,
        };
        Self { key, problem: p.problem }
    }
}

/// Which process the settings are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// All in one: the backends are in this process, and certificates can be made.
    Up,
    /// A gateway of its own.
    Gateway,
    /// Dispatch of its own: it needs neither gateways nor backends.
    Dispatch,
    /// A backend of its own: certificates of the gateways need not be on this machine.
    Backend(Roles),
}

/// What a file and the flags say.
#[derive(Debug, Default)]
pub struct File {
    path: Option<PathBuf>,
    text: String,
    raw: RawFile,
    misfits: Vec<Misfit>,
    /// Keys that a flag has set, with the flag.
    flags: BTreeMap<&'static str, &'static str>,
    /// For a process that was started without certificates of links.
    links_wait: bool,
}

/// What the processes run with.
#[derive(Debug, Clone)]
pub struct Settings {
    pub process: Process,
    pub gateway: GatewaySettings,
    pub backend: backend::Config,
    pub dispatch: dispatch::Config,
    pub push: push::Config,
    /// The certificate of its HTTPS, or that of the gateway, where there is one.
    pub dispatch_tls: Option<Pem>,
    /// The certificate of the links; none in the clear.
    pub links: Option<Identity>,
    /// What has no effect, for the log.
    pub notes: Vec<String>,
}

impl File {
    /// Reads `path`; without one, everything has its default.
    ///
    /// # Errors
    /// Where the file cannot be read. What stands in it is judged by [`File::settings`].
    pub fn read(path: Option<&Path>) -> Result<Self, BadConfig> {
        let Some(path) = path else { return Ok(Self::default()) };
        let text = std::fs::read_to_string(path)
            .map_err(|source| BadConfig::Unreadable { path: path.to_owned(), source })?;
        Ok(Self { path: Some(path.to_owned()), ..Self::parse(text) })
    }

    /// As if it had been read from a file.
    #[cfg(test)]
    pub fn parsed(text: &str) -> Self {
        Self::parse(text.to_owned())
    }

    fn parse(text: String) -> Self {
        let (raw, misfits) = parse::parse(&text);
        Self { text, raw, misfits, ..Self::default() }
    }

    /// Sets a key from a flag, where the flag was given.
    pub fn set<T>(
        &mut self,
        flag: &'static str,
        key: &'static str,
        value: Option<T>,
        apply: impl FnOnce(&mut RawFile, T),
    ) {
        if let Some(value) = value {
            apply(&mut self.raw, value);
            self.flags.insert(key, flag);
        }
    }

    /// For a process that runs with links in the clear, which only its next start changes: addresses on other
    /// machines are wrong until then.
    pub fn without_links(mut self) -> Self {
        self.links_wait = true;
        self
    }

    /// Where the file is.
    pub fn path(&self) -> Option<&PathBuf> {
        self.path.as_ref()
    }

    /// What the file says, as it is written; empty without one.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What is in the files that logins and messages are checked by; `None` for one that cannot be read.
    pub fn checked_files(&self) -> Vec<(PathBuf, Option<Vec<u8>>)> {
        let words = self.raw.filter.words_file.as_deref().filter(|file| !file.is_empty());
        let files = self.raw.auth.files().into_iter().chain(words);
        files.map(|file| (PathBuf::from(file), std::fs::read(file).ok())).collect()
    }

    /// Whether it describes processes of their own rather than `up`.
    pub fn is_of_a_cluster(&self) -> bool {
        ROLES.iter().any(|role| self.raw.backends.contains_key(*role))
    }

    /// Checks all of it, also what only other processes use: a config that is wrong anywhere
    /// takes effect nowhere.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn settings(self, purpose: Use) -> Result<Settings, BadConfig> {
        let mut problems = Vec::new();
        let process = Process::validate(&self.raw, &mut problems);
        let links = self.links(&mut problems);
        let gateway = GatewaySettings::validate(&self.raw, purpose, links.clone(), &mut problems);
        let listen = match purpose {
            Use::Up => backend::LISTEN_UP,
            Use::Gateway | Use::Dispatch | Use::Backend(_) => backend::LISTEN_BACKEND,
        };
        let backend = backend::validate(self.raw_backend(purpose), listen, &links);
        let found = match (&backend, purpose) {
            (Ok(backend), Use::Backend(roles)) => check_roles(backend, roles),
            (Ok(_), _) => Vec::new(),
            (Err(problems), _) => problems.clone(),
        };
        // An address of a role is looked at by both.
        let found = found.into_iter().map(Problem::from).filter(|p| !problems.contains(p));
        let found: Vec<_> = found.collect();
        problems.extend(found);
        let (dispatch, dispatch_tls) = self.dispatch(purpose, &gateway, &mut problems);
        let push = push::validate(&self.raw.push);
        let found = push.as_ref().err().cloned().unwrap_or_default();
        problems.extend(found.into_iter().map(|p| Problem::new(p.key, p.problem)));
        match (backend, dispatch, push) {
            (Ok(mut backend), Some(dispatch), Ok(push))
                if problems.is_empty() && self.misfits.is_empty() =>
            {
                // `up` is alone: others must not send it rooms.
                backend.registers &= purpose != Use::Up;
                let links = backend.links.clone();
                let notes = self.notes(purpose, links.as_ref());
                Ok(Settings {
                    process,
                    gateway,
                    backend,
                    dispatch,
                    push,
                    dispatch_tls,
                    links,
                    notes,
                })
            }
            _ => Err(BadConfig::Wrong(self.report(&problems))),
        }
    }

    fn links(&self, problems: &mut Vec<Problem>) -> Links {
        let mut found = Vec::new();
        let links = self.raw.links.read(&mut found);
        problems.extend(found.into_iter().map(|p| Problem::new(p.key, p.problem)));
        match links {
            Links::On(_) if self.links_wait => Links::Waiting,
            links => links,
        }
    }

    fn dispatch(
        &self,
        purpose: Use,
        gateway: &GatewaySettings,
        problems: &mut Vec<Problem>,
    ) -> (Option<dispatch::Config>, Option<Pem>) {
        let mut raw = self.raw.dispatch.clone();
        // `up` answers at its HTTP, unless told to listen.
        if purpose != Use::Dispatch && raw.listen.is_none() {
            raw.listen = Some(String::new());
        }
        let on_redis = self.raw.store.engine.as_deref() == Some("redis");
        let own = &gateway.dispatched().cluster;
        let config = dispatch::validate(&raw, own, on_redis);
        let found = config.as_ref().err().cloned().unwrap_or_default();
        problems.extend(found.into_iter().map(|p| Problem::new(p.key, p.problem)));
        for (name, cluster) in &raw.clusters {
            let Some(url) = cluster.registry.as_ref().filter(|url| url.contains("://")) else {
                continue;
            };
            if let Err(problem) = RedisUrl::parse(url) {
                let key = format!("dispatch.clusters.{name}.registry");
                problems.push(Problem::new(key, problem.to_string()));
            }
        }
        let is_served = matches!(purpose, Use::Up | Use::Dispatch);
        let mut pem = None;
        if is_served && !raw.tls_listen.is_empty() {
            pem = read_pem("dispatch.tls", &raw.tls.cert, &raw.tls.key, problems);
            if pem.is_none() && purpose == Use::Dispatch {
                let tls = &self.raw.gateway.tls;
                pem = read_pem("gateway.tls", &tls.cert, &tls.key, problems);
            }
            pem = pem.or_else(|| gateway.tls().cloned());
        }
        (config.ok(), pem)
    }

    fn raw_backend(&self, purpose: Use) -> backend::RawConfig {
        let raw = &self.raw;
        let nodes = |role: &str| match purpose {
            Use::Up => Vec::new(),
            Use::Gateway | Use::Dispatch | Use::Backend(_) => {
                raw.backends.get(role).cloned().unwrap_or_default()
            }
        };
        backend::RawConfig {
            backend: raw.backend.clone(),
            store: raw.store.clone(),
            history: raw.history.clone(),
            rooms: raw.rooms.clone(),
            auth: backend::RawAuth { is_elsewhere: purpose == Use::Gateway, ..raw.auth.clone() },
            filter: backend::RawFilter {
                is_elsewhere: purpose == Use::Gateway,
                ..raw.filter.clone()
            },
            discovery: raw.discovery.clone(),
            events: raw.events.clone(),
            nodes: backend::RawNodes {
                room: nodes("room"),
                binary: nodes("binary"),
                peer: nodes("peer"),
                access: nodes("access"),
            },
        }
    }

    fn notes(&self, purpose: Use, links: Option<&Identity>) -> Vec<String> {
        let unused = |role: &&&str| purpose == Use::Up && self.raw.backends.contains_key(**role);
        let roles = ROLES.iter().filter(unused).map(|role| match ROLES_OF_UP.contains(role) {
            true => format!("backends.{role} has no effect: `up` runs that role itself"),
            false => format!("backends.{role} has no effect: `up` leaves strokes to the rooms"),
        });
        let on_redis = self.raw.store.engine.as_deref() == Some("redis");
        let sync = (on_redis && self.raw.history.sync.is_some()).then(|| {
            "history.sync has no effect with store.engine = \"redis\": what an ack survives is what \
             that server survives"
                .to_owned()
        });
        roles.chain(sync).chain(links.and_then(ends_soon)).collect()
    }
}

/// A certificate of links that has to be replaced soon: without one nobody can be reached.
fn ends_soon(links: &Identity) -> Option<String> {
    let about = links.about();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).ok()?;
    let left = about.not_after - i64::try_from(now.as_secs()).ok()?;
    (left < SOON.as_secs().cast_signed()).then(|| {
        format!(
            "links.cert runs out on {}: replace its files (`edgeway certs link {} --force`); processes take \
             new ones while they run, on SIGHUP or POST /reload",
            about.until, about.subject
        )
    })
}
