//! The sole place where the parts of a gateway are put together.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use edgeway_transport::{QuicListener, Settings, TcpListener, tls::ServerTls};
use parking_lot::RwLock;
use tokio::runtime::Handle;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::info;

use crate::{
    config::{Config, Limits},
    context::Context,
    drain,
    hub::Hub,
    limits::Buckets,
    listen,
    metrics::Metrics,
    paths::PathMetrics,
    refuse::Refusals,
    registry::Registry,
    routing::Routing,
    tickets::{CheckTicket, Tickets},
    turns::Turns,
    uplink::{AddressError, Links},
};

/// Connections are given this long to take their last words at a shutdown.
const FAREWELL: Duration = Duration::from_secs(3);

/// Why a gateway cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// An address cannot be listened on.
    #[error("cannot listen on {addr} for {what} ({key}): {source}")]
    Listen {
        /// "QUIC", "TLS over TCP" or "plain TCP".
        what: &'static str,
        /// The address.
        addr: SocketAddr,
        /// The key that sets it.
        key: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// A backend's address is none.
    #[error(transparent)]
    Backend(#[from] AddressError),
    /// The system gave no random numbers.
    #[error("no random numbers: {0}")]
    Random(String),
}

/// A gateway whose sockets are bound. Nothing is accepted before [`run`](Self::run).
#[derive(Debug)]
pub struct Gateway {
    ctx: Arc<Context>,
    quic: Option<QuicListener>,
    tcp: Option<TcpListener>,
    plain: Option<TcpListener>,
    tcp_bbr: bool,
    links_on: Option<Handle>,
}

impl Gateway {
    /// Binds everything.
    ///
    /// # Errors
    /// See [`BindError`].
    pub fn bind(config: Config) -> Result<Self, BindError> {
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(|e| BindError::Random(e.to_string()))?;
        let gateway = u64::from_ne_bytes(random);
        let links = Links::new(gateway, &config.name, config.routing, config.links)?;
        let settings = settings(&config.limits, config.tcp_bbr);
        let failed = |what, addr, key| move |source| BindError::Listen { what, addr, key, source };
        let (mut quic, mut tcp) = (None, None);
        if let (Some(addr), Some(tls)) = (config.quic, &config.tls) {
            let listener = QuicListener::bind(addr, tls, settings);
            quic = Some(listener.map_err(failed("QUIC", addr, "gateway.listen.quic"))?);
        }
        if let (Some(addr), Some(tls)) = (config.tcp, &config.tls) {
            let listener = TcpListener::bind(addr, Some(tls), config.tcp_bbr);
            tcp = Some(listener.map_err(failed("TLS over TCP", addr, "gateway.listen.tcp"))?);
        }
        let plain = match config.plain {
            Some(addr) => {
                let listener = TcpListener::bind(addr, None, config.tcp_bbr);
                Some(listener.map_err(failed("plain TCP", addr, "gateway.listen.plain"))?)
            }
            None => None,
        };
        let metrics = Metrics::default();
        let ctx = Context {
            hub: Hub::new(metrics.clone()),
            links,
            tls: config.tls.clone(),
            buckets: Buckets::new(config.limits.rates),
            registry: Arc::new(Registry::default()),
            limits: RwLock::new(Arc::new(config.limits)),
            turns: Turns::default(),
            metrics: Arc::new(metrics),
            paths: PathMetrics::default(),
            refusals: Refusals::default(),
            tickets: Tickets::default(),
            tracker: TaskTracker::new(),
        };
        let tcp_bbr = config.tcp_bbr;
        Ok(Self { ctx: Arc::new(ctx), quic, tcp, plain, tcp_bbr, links_on: None })
    }

    /// Where it listens for QUIC.
    #[must_use]
    pub fn quic_addr(&self) -> Option<SocketAddr> {
        self.quic.as_ref().and_then(|l| l.local_addr().ok())
    }

    /// Where it listens for TLS over TCP.
    #[must_use]
    pub fn tcp_addr(&self) -> Option<SocketAddr> {
        self.tcp.as_ref().and_then(|l| l.local_addr().ok())
    }

    /// Where it listens for TCP in the clear.
    #[must_use]
    pub fn plain_addr(&self) -> Option<SocketAddr> {
        self.plain.as_ref().and_then(|l| l.local_addr().ok())
    }

    /// Runs the links to backends on a runtime of their own. Thousands of connections that all have
    /// something to do fill a runtime's queue; a signal on its way through the links would stand
    /// in that queue at each step.
    #[must_use]
    pub fn links_on(mut self, runtime: Handle) -> Self {
        self.links_on = Some(runtime);
        self
    }

    /// Changes it while it runs.
    #[must_use]
    pub fn control(&self) -> Control {
        Control { ctx: Arc::clone(&self.ctx), quic: self.quic.clone(), tcp_bbr: self.tcp_bbr }
    }

    /// Tells, while it runs, whether clients can be served.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        Readiness(Arc::clone(&self.ctx))
    }

    /// Serves until `shutdown`, then, in this order:
    /// 1. accepts no more, so that nobody arrives who would have to be sent away;
    /// 2. tells clients to go, waits for a bounded time, and closes those who stay;
    /// 3. ends the links, when no Session needs them any more;
    /// 4. waits until the last packets are out.
    pub async fn run(self, shutdown: CancellationToken) {
        let Self { ctx, quic, tcp, plain, links_on, .. } = self;
        let links_on = links_on.unwrap_or_else(Handle::current);
        let (accepting, linked) = (CancellationToken::new(), CancellationToken::new());
        let links = TaskTracker::new();
        ctx.links.run(&ctx.hub, &links, &links_on, &linked);
        let loops = TaskTracker::new();
        if let Some(listener) = quic.clone() {
            loops.spawn(listen::quic(Arc::clone(&ctx), listener, accepting.clone()));
        }
        for listener in [tcp, plain].into_iter().flatten() {
            loops.spawn(listen::tcp(Arc::clone(&ctx), listener, accepting.clone()));
        }
        let (turns, ended) = (ctx.turns.clone(), linked.clone());
        links.spawn(async move {
            tokio::select! {
                () = turns.end_overdue() => {}
                () = ended.cancelled() => {}
            }
        });
        loops.spawn(drain::sweep(Arc::clone(&ctx), accepting.clone()));
        shutdown.cancelled().await;

        accepting.cancel();
        loops.close();
        loops.wait().await;
        info!(connections = ctx.registry.len(), "draining");
        drain::drain(&ctx).await;
        ctx.tracker.close();
        let _ = tokio::time::timeout(FAREWELL, ctx.tracker.wait()).await;
        linked.cancel();
        links.close();
        links.wait().await;
        if let Some(listener) = quic {
            let _ = tokio::time::timeout(FAREWELL, listener.wait_idle()).await;
        }
    }
}

fn settings(limits: &Limits, tcp_bbr: bool) -> Settings {
    Settings {
        sessions: limits.sessions,
        idle_timeout: limits.idle_timeout,
        keep_alive: None,
        tcp_bbr,
    }
}

/// See [`Gateway::control`].
#[derive(Debug, Clone)]
pub struct Control {
    ctx: Arc<Context>,
    quic: Option<QuicListener>,
    tcp_bbr: bool,
}

impl Control {
    /// Uses other routes and backends from now on. Sessions that they lead elsewhere are ended, for their
    /// clients to open them anew; no connection is closed.
    ///
    /// # Errors
    /// A backend's address that is none; nothing has changed.
    pub fn route(&self, routing: Routing) -> Result<(), AddressError> {
        self.ctx.links.apply(routing)
    }

    /// Uses other bounds and times from now on. What a connection was told in Welcome (credit, idle time, grace,
    /// number of Sessions) holds for it to its end; all else holds for those that stand too.
    pub fn limit(&self, limits: Limits) {
        // First: a client that is told of a longer idle time must have it.
        if let Some(quic) = &self.quic {
            quic.change(settings(&limits, self.tcp_bbr));
        }
        self.ctx.buckets.set_rates(limits.rates);
        *self.ctx.limits.write() = Arc::new(limits);
    }

    /// Lets only those in whose tickets of dispatch are good, from now on; `None` for anybody. Connections that
    /// stand, and who comes back by session token, need none.
    pub fn want_tickets(&self, check: Option<CheckTicket>) {
        self.ctx.tickets.set(check);
    }

    /// The bounds and times that are in use.
    #[must_use]
    pub fn limits(&self) -> Limits {
        *self.ctx.limits()
    }

    /// Shows new clients another certificate; whether it is another one. A gateway that was started
    /// without one goes on without.
    pub fn certify(&self, tls: &ServerTls) -> bool {
        self.ctx.tls.as_ref().is_some_and(|current| current.replace(tls))
    }
}

/// See [`Gateway::readiness`].
#[derive(Debug, Clone)]
pub struct Readiness(Arc<Context>);

impl Readiness {
    /// Whether every backend that Sessions or logins need has an instance that can be reached.
    ///
    /// # Errors
    /// Says which have none.
    pub fn check(&self) -> Result<(), String> {
        let unserved = self.0.links.unserved();
        if unserved.is_empty() {
            return Ok(());
        }
        Err(format!("no link to any instance of {}", unserved.join(", ")))
    }

    /// The instances that cannot be reached now, each as `BACKEND at ADDRESS`; whether it matters, see
    /// [`check`](Self::check).
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        self.0.links.missing()
    }
}
