//! What `up`, `gateway`, `backend` and `dispatch` share: a process that serves until it is told to stop.

use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context;
use edgeway_backend::{
    Backend, Roles,
    config::{Report, StoreConfig},
};
use edgeway_dispatch::{Dispatch, server::Listener, ticket::Keys};
use edgeway_gateway::Gateway;
use edgeway_linktls::{About, Identity};
use edgeway_push::Api;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::{
    runtime::{Handle, Runtime},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use crate::{
    config::{GatewaySettings, Pem, Process, Settings, Use},
    discovery::{Discovery, Wanted},
    dispatch::{feed, tls},
    failure::{Outcome, in_one_line},
    http::{self, Health, Http, Ready},
    logging,
    reload::{Complete, Listening, Load, Reload},
    stat::{Stat, reached_at},
};

/// How often readiness is looked at while a process starts.
const LOOK: Duration = Duration::from_millis(20);
/// What could serve, but has not reached all that it was told of, waits for that as long.
const THE_REST: Duration = Duration::from_secs(1);
/// How often a process that waits for others says so.
const REMIND: Duration = Duration::from_secs(5);

/// Checks the config and runs `serve` with it, on a runtime and with logs as configured.
///
/// # Errors
/// Where the config is wrong, or what `serve` gives.
pub fn with_settings<F>(
    load: Load,
    purpose: Use,
    log: Option<&str>,
    serve: impl FnOnce(Settings, Server) -> F,
) -> Outcome
where
    F: Future<Output = anyhow::Result<()>>,
{
    let file = load()?;
    let mut reload = Reload::new(load, purpose, log.is_none(), &file);
    let settings = file.settings(purpose)?;
    reload.links(settings.links.clone());
    logging::start(log.unwrap_or(&settings.process.log));
    for note in &settings.notes {
        tracing::warn!("{note}");
    }
    if let Some(About { subject, issuer, until, .. }) = settings.links.as_ref().map(Identity::about)
    {
        tracing::info!(subject, issuer, until, "links are TLS with certificates of both sides");
    }
    let core = runtime("core", &settings.process)?;
    // Thousands of connections that all have something to do fill a runtime's queue. Rooms and
    // links do not stand in it: the system shares the cores between the threads of the two.
    let edge = runtime("edge", &settings.process)?;
    let server = Server::new(edge.handle().clone(), reload, &settings, purpose)?;
    let outcome = core.block_on(serve(settings, server));
    edge.shutdown_background();
    Ok(outcome?)
}

fn runtime(name: &str, process: &Process) -> anyhow::Result<Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = process.threads {
        builder.worker_threads(threads);
    }
    builder.thread_name(name).enable_all().build().context("cannot start the runtime")
}

/// A process whose sockets are bound.
pub struct Server {
    /// Where connections run; all else runs on the current runtime.
    edge: Handle,
    gateway: Option<Gateway>,
    backend: Option<Backend>,
    health: Arc<Health>,
    http: Option<Task>,
    reload: Reload,
    broken: CancellationToken,
    store: StoreConfig,
    pace: edgeway_backend::config::Discovery,
    has_links: bool,
    wanted: Wanted,
    stat: Stat,
    /// Tells clients where to connect, where this process does.
    dispatch: Option<Dispatch>,
    push: Api,
    listeners: Vec<Listener>,
    /// What the stat is measured by.
    metrics: Option<PrometheusHandle>,
}

/// A process that serves.
pub struct Running {
    health: Arc<Health>,
    stat: Stat,
    tasks: Vec<Task>,
    /// Cancelled where a part ends that nobody told to.
    broken: CancellationToken,
}

struct Task {
    name: &'static str,
    stop: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Server {
    fn new(
        edge: Handle,
        mut reload: Reload,
        settings: &Settings,
        purpose: Use,
    ) -> anyhow::Result<Self> {
        let (name, roles) = match purpose {
            Use::Up => (
                settings.gateway.name(),
                [Roles::up().names(), names(&["gateway", "dispatch"])].concat(),
            ),
            Use::Gateway => (settings.gateway.name(), names(&["gateway"])),
            Use::Backend(roles) => (settings.backend.name.as_str(), roles.names()),
            Use::Dispatch => ("dispatch", names(&["dispatch"])),
        };
        let stat = Stat::new(name, roles, settings.process.threads);
        stat.change(|about| about.cluster.clone_from(&settings.gateway.dispatched().cluster));
        let dispatch = match purpose {
            Use::Up | Use::Dispatch => Some(Dispatch::new(settings.dispatch.live.clone())?),
            Use::Gateway | Use::Backend(_) => None,
        };
        reload.stat(stat.clone(), dispatch.clone());
        let push = Api::new(&settings.push);
        reload.push(push.clone());
        Ok(Self {
            edge,
            gateway: None,
            backend: None,
            health: Arc::default(),
            http: None,
            reload,
            broken: CancellationToken::new(),
            store: settings.backend.store.clone(),
            pace: settings.backend.discovery,
            has_links: settings.links.is_some(),
            wanted: Wanted::default(),
            stat,
            dispatch,
            push,
            listeners: Vec::new(),
            metrics: None,
        })
    }

    /// Opens the store and binds the backend; gives where it listens. A store on servers that are not there yet is
    /// waited for, and `None` given where `shutdown` comes first.
    ///
    /// # Errors
    /// Where the data directory, the store or the address cannot be used.
    pub async fn add_backend(
        &mut self,
        mut config: edgeway_backend::config::Config,
        roles: Roles,
        shutdown: &CancellationToken,
    ) -> anyhow::Result<Option<SocketAddr>> {
        let stat = self.stat.clone();
        config.report = Report::new(move || stat.report_text());
        self.wanted.nodes = config.nodes.clone();
        self.health.waits_for("it opens its store".to_owned());
        let starting = Backend::start_telling(config, roles, |what| self.health.waits_for(what));
        let reminding = async {
            loop {
                tokio::time::sleep(REMIND).await;
                if let Err(why) = self.health.ready() {
                    tracing::warn!("not ready yet: {why}");
                }
            }
        };
        let backend = tokio::select! {
            started = starting => started.map_err(with_hint)?,
            () = reminding => return Ok(None),
            () = shutdown.cancelled() => {
                tracing::info!("stopped");
                return Ok(None);
            }
        };
        let addr = backend.local_addr();
        if let Some(looker) = backend.looker() {
            self.stat.looks_through(looker);
        }
        self.reload.backend(backend.control());
        self.backend = Some(backend);
        Ok(Some(addr))
    }

    /// Binds the gateway; gives its addresses, `quic=...` and so on. `complete` adds to its settings what
    /// this process has made itself: now, and each time the config changes.
    ///
    /// # Errors
    /// Where an address cannot be listened on.
    pub fn add_gateway(
        &mut self,
        settings: GatewaySettings,
        complete: Complete,
        keys: Option<Keys>,
    ) -> anyhow::Result<Vec<(&'static str, SocketAddr)>> {
        let settings = complete(settings);
        let dispatched = settings.dispatched().clone();
        let places = settings.places();
        let config = settings.config()?;
        let limits = config.limits;
        self.wanted.gateway = Some((places, config.routing.clone()));
        let bound = {
            let _edge = self.edge.enter();
            Gateway::bind(config)
        };
        let gateway = bound.map_err(with_hint)?.links_on(Handle::current());
        let addrs = [
            ("quic", gateway.quic_addr()),
            ("tcp", gateway.tcp_addr()),
            ("plain", gateway.plain_addr()),
        ];
        let control = gateway.control();
        let listening = Listening { quic: gateway.quic_addr(), tcp: gateway.tcp_addr() };
        self.reload.gateway(control, complete, listening);
        self.reload.dispatched(&dispatched, &keys, limits.connections);
        self.gateway = Some(gateway);
        Ok(addrs.into_iter().filter_map(|(name, addr)| Some((name, addr?))).collect())
    }

    /// Serves metrics and health, where they are on; gives where. First of all: they tell also what a process waits
    /// for before it starts.
    ///
    /// # Errors
    /// Where the address cannot be listened on.
    pub async fn add_http(
        &mut self,
        addr: Option<SocketAddr>,
        metrics: PrometheusHandle,
    ) -> anyhow::Result<Option<SocketAddr>> {
        self.metrics = Some(metrics.clone());
        let Some(addr) = addr else { return Ok(None) };
        let http = Http::bind(addr, metrics).await.map_err(with_hint)?;
        let addr = http.addr()?;
        self.stat.change(|about| about.http = reached_at("", Some(addr)));
        let health = Arc::clone(&self.health);
        let (stat, dispatch, push) = (self.stat.clone(), self.dispatch.clone(), self.push.clone());
        let serve = async move |stop| {
            http.serve(health, stat, dispatch, push, stop).await;
            Ok(())
        };
        self.http = Some(Task::spawn("http", &Handle::current(), &self.broken, serve));
        Ok(Some(addr))
    }

    /// Binds dispatch; gives its addresses, `dispatch=...` and so on.
    ///
    /// # Errors
    /// Where an address cannot be listened on, or a certificate is missing.
    pub async fn add_dispatch(
        &mut self,
        config: &edgeway_dispatch::config::Config,
        pem: Option<&Pem>,
    ) -> anyhow::Result<Vec<(&'static str, SocketAddr)>> {
        let mut addrs = Vec::new();
        let tls = config.tls_listen.map(|addr| Ok::<_, anyhow::Error>((addr, tls(pem)?)));
        let tls = tls.transpose()?;
        if let Some((_, tls)) = &tls {
            self.reload.dispatch_tls(tls.clone());
        }
        let tls = tls.map(|(addr, tls)| ("tls", addr, Some(tls)));
        let plain = config.listen.map(|addr| ("dispatch", addr, None));
        for (name, addr, tls) in plain.into_iter().chain(tls) {
            let bound = Listener::bind(addr, tls).await;
            let listener = bound
                .with_context(|| format!("cannot listen on {addr} for dispatch"))
                .map_err(with_hint)?;
            addrs.push((name, listener.addr()?));
            self.listeners.push(listener);
        }
        Ok(addrs)
    }

    /// Begins to serve.
    pub fn start(self) -> Running {
        let Self { edge, gateway, backend, health, http, mut reload, broken, .. } = self;
        let (stat, has_gateway) = (self.stat, gateway.is_some());
        reload.tell();
        let discovery = Discovery::new(
            gateway.as_ref().map(Gateway::control),
            backend.as_ref().map(Backend::placement),
            self.store.clone(),
            self.pace,
            self.has_links,
            self.wanted,
            stat.clone(),
        );
        reload.discovery(Arc::clone(&discovery));
        let reload = Arc::new(reload);
        let lookup = backend.as_ref().map(Backend::directory);
        let pusher = backend.as_ref().and_then(Backend::pusher);
        self.push.started(pusher.zip(lookup.clone()));
        let ready = ready(gateway.as_ref(), backend.as_ref(), Arc::clone(&discovery));
        health.started(ready, Arc::clone(&reload), lookup);
        let core = Handle::current();
        let mut running = Running { health, stat: stat.clone(), tasks: Vec::new(), broken };
        if let Some(gateway) = gateway {
            running.spawn("gateway", &edge, |stop| async {
                gateway.run(stop).await;
                Ok(())
            });
        }
        if let Some(backend) = backend {
            running.spawn("backend", &core, |stop| async { Ok(backend.run(stop).await?) });
        }
        if let Some(dispatch) = self.dispatch {
            let (store, lease) = (self.store, self.pace.lease);
            let (fed, shown) = (dispatch.clone(), stat.clone());
            running.spawn("dispatch", &core, |stop| async move {
                let feeding = feed(fed, store, lease, shown, has_gateway, stop.clone());
                tokio::join!(
                    edgeway_dispatch::server::run(dispatch, self.listeners, stop),
                    feeding
                );
                Ok(())
            });
        }
        running.tasks.extend(http);
        if let Some(metrics) = self.metrics {
            running.spawn("stat", &core, |stop| async {
                stat.run(metrics, edge, stop).await;
                Ok(())
            });
        }
        running.spawn("discovery", &core, |stop| async {
            discovery.run(stop).await;
            Ok(())
        });
        running.spawn("watch over the config", &core, |stop| reload.watch(stop));
        running
    }
}

fn ready(gateway: Option<&Gateway>, backend: Option<&Backend>, discovery: Arc<Discovery>) -> Ready {
    let gateway = gateway.map(Gateway::readiness);
    let backend = backend.map(Backend::readiness);
    Arc::new(move || {
        gateway.as_ref().map_or(Ok(()), |r| r.check())?;
        discovery.check()?;
        backend.as_ref().map_or(Ok(()), |r| r.ready())?;
        Ok(gateway.as_ref().map(|r| r.missing()).unwrap_or_default())
    })
}

impl Task {
    fn spawn<F>(
        name: &'static str,
        runtime: &Handle,
        broken: &CancellationToken,
        run: impl FnOnce(CancellationToken) -> F,
    ) -> Self
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let stop = CancellationToken::new();
        let part = run(stop.clone());
        let ended = broken.clone().drop_guard();
        let task = runtime.spawn(async move {
            let _ended = ended;
            part.await
        });
        Self { name, stop, task }
    }
}

impl Running {
    fn spawn<F>(
        &mut self,
        name: &'static str,
        runtime: &Handle,
        run: impl FnOnce(CancellationToken) -> F,
    ) where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let task = Task::spawn(name, runtime, &self.broken, run);
        self.tasks.push(task);
    }

    /// Waits until clients can be served; false where `shutdown` comes first, or the end of a part. What is not
    /// needed for that is given a moment, and then told.
    pub async fn wait_ready(&self, shutdown: &CancellationToken) -> bool {
        let (mut waited, mut rest) = (Duration::ZERO, THE_REST);
        loop {
            match self.health.ready() {
                Ok(away) if away.is_empty() => return true,
                Ok(away) if rest.is_zero() => {
                    tracing::warn!("ready, but not reached yet: {}", away.join(", "));
                    return true;
                }
                Ok(_) => rest = rest.saturating_sub(LOOK),
                Err(why) if waited >= REMIND => {
                    tracing::warn!("not ready yet: {why}");
                    waited = Duration::ZERO;
                }
                Err(_) => {}
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK) => waited += LOOK,
                () = shutdown.cancelled() => return false,
                () = self.broken.cancelled() => return false,
            }
        }
    }

    /// Serves until `shutdown`; then ends one part after the other, in the order in which they
    /// were started: clients are told and drained while the backend still answers, and what
    /// happens is counted to the end.
    ///
    /// # Errors
    /// Where a part broke.
    pub async fn finish(self, shutdown: CancellationToken) -> anyhow::Result<()> {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = self.broken.cancelled() => {}
        }
        // Before anything else ends: who is sent here now would be sent away.
        self.stat.leave();
        let mut outcome = Ok(());
        for Task { name, stop, task } in self.tasks {
            stop.cancel();
            let ended = task.await.map_err(anyhow::Error::new).flatten();
            if let Err(broke) = ended {
                outcome = Err(broke.context(format!("the {name} broke")));
            }
        }
        tracing::info!("stopped");
        outcome
    }
}

fn names(roles: &[&str]) -> Vec<String> {
    roles.iter().map(ToString::to_string).collect()
}

/// Starts to record metrics.
///
/// # Errors
/// Where somebody else does.
pub fn metrics() -> anyhow::Result<PrometheusHandle> {
    http::record()
}

/// The line that scripts wait for: `ready NAME=VALUE ...`.
pub fn ready_line(values: &[(&str, String)]) -> String {
    let values: Vec<_> = values.iter().map(|(name, value)| format!("{name}={value}")).collect();
    format!("ready {}", values.join(" "))
}

/// Adds the next step to what the system says.
fn with_hint(error: impl Into<anyhow::Error>) -> anyhow::Error {
    let error = error.into();
    let kinds =
        error.chain().filter_map(|e| e.downcast_ref::<std::io::Error>()).map(std::io::Error::kind);
    let hint = kinds.filter_map(hint).next();
    match hint {
        Some(hint) => anyhow::anyhow!("{}; {hint}", in_one_line(&error)),
        None => error,
    }
}

fn hint(kind: std::io::ErrorKind) -> Option<&'static str> {
    match kind {
        std::io::ErrorKind::AddrInUse => Some(
            "another process has that port: is an `edgeway` running already? Stop it, or choose \
             another address (--quic, --tcp, --http, --listen, or the config)",
        ),
        std::io::ErrorKind::AddrNotAvailable => {
            Some("that is no address of this machine: choose one that is")
        }
        std::io::ErrorKind::PermissionDenied => {
            Some("this user may not: choose a port above 1023, or a directory that is yours")
        }
        _ => None,
    }
}
