//! Changing the config of a process that runs: when its file changes, on SIGHUP, and by HTTP.
//!
//! The file is read, checked as a whole, and swapped in as a whole. One that is wrong anywhere changes
//! nothing; what is wrong is told by key and line, in the log, in a metric and in the HTTP answer.

mod diff;
#[cfg(test)]
mod tests;

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context;
use edgeway_dispatch::{Dispatch, server::Tls, ticket::Keys};
use edgeway_gateway::config::RawDispatched;
use edgeway_linktls::Identity;
use edgeway_push::Api;
use edgeway_stat::Endpoint;
use parking_lot::Mutex;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::MissedTickBehavior,
};
use tokio_util::sync::CancellationToken;

use crate::{
    config::{BadConfig, File, GatewaySettings, Use},
    discovery::{Discovery, Wanted},
    dispatch::check_by,
    failure::Failure,
    logging,
    stat::{Stat, reached_at},
};

use diff::{OF_BACKENDS, OF_DISPATCH, OF_GATEWAYS, OF_LINKS, OF_LOGS};

pub use diff::Changes;

/// How often the file is looked at. It counts once it has been the same twice: whoever writes it may not
/// be done.
const LOOK: Duration = Duration::from_millis(250);

/// Reads the file again, with the flags of the command line.
pub type Load = Box<dyn Fn() -> Result<File, BadConfig> + Send + Sync>;

/// Completes what the file says by what the process has made itself.
pub type Complete = Box<dyn Fn(GatewaySettings) -> GatewaySettings + Send + Sync>;

/// Where a gateway listens.
#[derive(Debug, Clone, Copy, Default)]
pub struct Listening {
    pub quic: Option<SocketAddr>,
    pub tcp: Option<SocketAddr>,
}

/// See the module.
pub struct Reload {
    load: Load,
    purpose: Use,
    complete: Complete,
    gateway: Option<edgeway_gateway::Control>,
    backend: Option<edgeway_backend::Control>,
    /// That of the links, which cannot come or go while the process runs.
    links: Option<Identity>,
    discovery: Option<Arc<Discovery>>,
    stat: Option<Stat>,
    dispatch: Option<Dispatch>,
    dispatch_tls: Option<Tls>,
    push: Option<Api>,
    listening: Listening,
    /// Whether the levels of the log are the config's to say.
    logs: bool,
    path: Option<PathBuf>,
    started: String,
    current: Mutex<String>,
    /// Of the config that was used last, which says which they are.
    files: Mutex<Files>,
}

/// The files that logins and messages are checked by, and what is in them.
type Files = Vec<(PathBuf, Option<Vec<u8>>)>;

impl Reload {
    /// For a process that was started with `started`. `logs`: the levels are the config's to say, not a flag's.
    pub fn new(load: Load, purpose: Use, logs: bool, started: &File) -> Self {
        let files = Mutex::new(started.checked_files());
        let (path, started) = (started.path().cloned(), started.text().to_owned());
        let current = Mutex::new(started.clone());
        let complete = Box::new(|settings| settings);
        Self {
            load,
            purpose,
            complete,
            gateway: None,
            backend: None,
            links: None,
            discovery: None,
            stat: None,
            dispatch: None,
            dispatch_tls: None,
            push: None,
            listening: Listening::default(),
            logs,
            path,
            started,
            current,
            files,
        }
    }

    /// Changes this gateway; `complete` does to its settings what was done at the start.
    pub fn gateway(
        &mut self,
        gateway: edgeway_gateway::Control,
        complete: Complete,
        listening: Listening,
    ) {
        (self.gateway, self.complete, self.listening) = (Some(gateway), complete, listening);
    }

    /// Changes what this process tells of itself, and the dispatch that it does.
    pub fn stat(&mut self, stat: Stat, dispatch: Option<Dispatch>) {
        (self.stat, self.dispatch) = (Some(stat), dispatch);
    }

    /// Replaces the certificate of HTTPS of dispatch.
    pub fn dispatch_tls(&mut self, tls: Tls) {
        self.dispatch_tls = Some(tls);
    }

    /// What the gateway tells of itself, and whom it lets in.
    pub fn dispatched(&self, said: &RawDispatched, keys: &Option<Keys>, connections: u64) {
        let Listening { quic, tcp } = self.listening;
        let endpoint = Endpoint {
            quic: reached_at(&said.quic, quic),
            tcp: reached_at(&said.tcp, tcp),
            server_name: said.server_name.clone(),
            weight: said.weight,
            draining: said.draining,
        };
        if let Some(stat) = &self.stat {
            stat.change(|about| {
                about.cluster.clone_from(&said.cluster);
                about.connections_max = connections;
                about.gateway = Some(endpoint).filter(Endpoint::is_good);
                if about.gateway.is_none() {
                    tracing::warn!(
                        "dispatch cannot send clients here: it listens on no address that others can dial; set \
                         gateway.dispatch.quic and gateway.dispatch.tcp"
                    );
                }
            });
        }
        let Some(gateway) = &self.gateway else { return };
        let keys = match &self.dispatch {
            Some(dispatch) => Some(dispatch.keys()),
            None => keys.clone(),
        };
        let check = keys.filter(|_| said.require_ticket);
        gateway.want_tickets(check.map(|keys| check_by(keys, said.cluster.clone())));
    }

    /// Changes this backend.
    pub fn backend(&mut self, backend: edgeway_backend::Control) {
        self.backend = Some(backend);
    }

    /// Changes the API keys.
    pub fn push(&mut self, push: Api) {
        self.push = Some(push);
    }

    /// Replaces the certificate of these links.
    pub fn links(&mut self, links: Option<Identity>) {
        self.links = links;
    }

    /// Exports when the certificate of links runs out, so that somebody is warned before.
    pub fn tell(&self) {
        let Some(links) = &self.links else { return };
        #[allow(clippy::cast_precision_loss, reason = "seconds of this century are exact")]
        let until = links.about().not_after as f64;
        metrics::gauge!("edgeway_links_certificate_expiry_timestamp_seconds").set(until);
    }

    /// Changes where instances are looked for.
    pub fn discovery(&mut self, discovery: Arc<Discovery>) {
        self.discovery = Some(discovery);
    }

    /// Reads the file and uses it.
    ///
    /// # Errors
    /// All that is wrong with it; nothing has changed then.
    pub fn now(&self) -> Result<Changes, Failure> {
        let result = self.apply();
        let outcome = match &result {
            Ok(changes) if changes.live.is_empty() => "unchanged",
            Ok(_) => "applied",
            Err(_) => "refused",
        };
        metrics::counter!("edgeway_config_reloads_total", "outcome" => outcome).increment(1);
        metrics::gauge!("edgeway_config_is_good").set(f64::from(u8::from(result.is_ok())));
        match &result {
            Ok(changes) => {
                for line in changes.lines() {
                    tracing::info!("config: {line}");
                }
            }
            Err(failure) => {
                for line in failure.to_string().lines() {
                    tracing::error!("config not used: {line}");
                }
            }
        }
        result
    }

    fn apply(&self) -> Result<Changes, Failure> {
        // One at a time: by file, signal and HTTP.
        let mut current = self.current.lock();
        let mut file = (self.load)()?;
        if self.links.is_none() {
            file = file.without_links();
        }
        let text = file.text().to_owned();
        let files = file.checked_files();
        let settings = file.settings(self.purpose)?;
        let live = self.live(settings.links.is_some());
        let mut changes = Changes::between(&live, &self.started, &current, &text);
        let nodes = settings.backend.nodes.clone();
        let mut wanted = Wanted { gateway: None, nodes };
        let mut more = None;
        let dispatched = settings.gateway.dispatched().clone();
        if self.gateway.is_some() {
            let settings = (self.complete)(settings.gateway);
            let places = settings.places();
            let config = settings.config()?;
            wanted.gateway = Some((places, config.routing));
            more = Some((config.limits, config.tls));
        }
        if let (Some(tls), Some((cert, key))) = (&self.dispatch_tls, &settings.dispatch_tls) {
            tls.replace(cert, key).map_err(|problem| anyhow::anyhow!("dispatch.tls: {problem}"))?;
        }
        // The last that can fail: what follows is for all of the file.
        if let Some(discovery) = &self.discovery {
            discovery.change(wanted)?;
        }
        let mut connections = 0;
        if let (Some(gateway), Some((limits, tls))) = (&self.gateway, more) {
            gateway.limit(limits);
            connections = limits.connections;
            // The files may be others under the same names.
            if tls.is_some_and(|tls| gateway.certify(&tls)) {
                changes.live.push("gateway.tls: another certificate".to_owned());
            }
        }
        let keys = settings.dispatch.live.keys.clone();
        if let Some(dispatch) = &self.dispatch {
            dispatch.change(settings.dispatch.live);
        }
        if self.gateway.is_some() {
            self.dispatched(&dispatched, &keys, connections);
        }
        if let Some(push) = &self.push {
            push.change(&settings.push);
        }
        if let Some(backend) = &self.backend {
            backend.apply(&settings.backend);
            let mut before = self.files.lock();
            let other = |(path, had)| before.iter().any(|(p, has)| p == path && has != had);
            if files.iter().map(|(path, has)| (path, has)).any(other) {
                changes
                    .live
                    .push("auth, filter: other users, keys or words in their files".to_owned());
            }
            *before = files;
        }
        if let (Some(current), Some(new)) = (&self.links, &settings.links)
            && current.replace(new)
        {
            self.tell();
            changes.live.push("links: another certificate".to_owned());
        }
        if self.logs {
            logging::set(&settings.process.log);
        }
        *current = text;
        Ok(changes)
    }

    /// Looks after the file and SIGHUP until `stop`.
    ///
    /// # Errors
    /// Where the system allows no signal handlers.
    pub async fn watch(self: Arc<Self>, stop: CancellationToken) -> anyhow::Result<()> {
        let mut hangup = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;
        let mut ticks = tokio::time::interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut tried = (Ok(self.started.clone()), self.files.lock().clone());
        let mut seen = tried.clone();
        loop {
            tokio::select! {
                _ = ticks.tick() => {
                    let found = self.look();
                    if found == seen && found != tried {
                        tried.clone_from(&found);
                        // Told by `now`, good or bad.
                        let _ = self.now();
                    }
                    seen = found;
                }
                Some(()) = hangup.recv() => {
                    if self.now().is_ok_and(|changes| changes.live.is_empty()) {
                        tracing::info!("config: nothing to change");
                    }
                    tried = self.look();
                    seen.clone_from(&tried);
                }
                () = stop.cancelled() => return Ok(()),
            }
        }
    }

    /// The keys that this process takes while it runs. `links`: the file has certificates of links.
    fn live(&self, links: bool) -> Vec<&'static str> {
        let gateways = self.gateway.iter().flat_map(|_| OF_GATEWAYS);
        let backends = self.backend.iter().flat_map(|_| OF_BACKENDS);
        let links = (links && self.links.is_some()).then_some(OF_LINKS);
        let dispatch = self.dispatch.iter().flat_map(|_| OF_DISPATCH);
        gateways
            .chain(backends)
            .chain(dispatch)
            .chain(self.logs.then_some(OF_LOGS))
            .chain(links)
            .collect()
    }

    /// The file's text, or why it cannot be read, and what is in the files that it names.
    fn look(&self) -> (Result<String, String>, Files) {
        let text = match &self.path {
            Some(path) => std::fs::read_to_string(path).map_err(|error| error.to_string()),
            None => Ok(String::new()),
        };
        let paths: Vec<_> = self.files.lock().iter().map(|(path, _)| path.clone()).collect();
        let read = |path: PathBuf| {
            let bytes = std::fs::read(&path).ok();
            (path, bytes)
        };
        (text, paths.into_iter().map(read).collect())
    }
}
