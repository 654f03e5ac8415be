//! HTTP beside the product: metrics for Prometheus, health for whoever restarts processes, who is where, the load,
//! dispatch, and the API for business systems.

mod directory;

use std::{
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use anyhow::Context;
use axum::{
    Router,
    body::Body,
    extract::{ConnectInfo, RawQuery, Request, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{any, get, post},
};
use edgeway_backend::directory::Lookup;
use edgeway_dispatch::Dispatch;
use edgeway_push::{Api, no_method, no_path};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use parking_lot::Mutex;
use tokio::{net::TcpListener, time::MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::{
    reload::Reload,
    stat::{self, Stat},
};

/// Histograms keep what was observed since the last upkeep: as often as they are scraped will do.
const UPKEEP: Duration = Duration::from_secs(5);

/// Why the process cannot serve now; where it can, what it does not reach and need not.
pub type Ready = Arc<dyn Fn() -> Result<Vec<String>, String> + Send + Sync>;

/// What is served of a process: there before all of its parts are.
#[derive(Default)]
pub struct Health {
    /// What is waited for until then.
    starting: Mutex<String>,
    started: OnceLock<Started>,
}

/// What is asked of a process that is there.
struct Started {
    ready: Ready,
    reload: Arc<Reload>,
    /// Of a backend.
    lookup: Option<Lookup>,
}

impl Health {
    /// The process is not there yet, and waits for this.
    pub fn waits_for(&self, what: String) {
        *self.starting.lock() = what;
    }

    /// All parts are there.
    pub fn started(&self, ready: Ready, reload: Arc<Reload>, lookup: Option<Lookup>) {
        // Once for each process.
        let _ = self.started.set(Started { ready, reload, lookup });
    }

    /// Whether clients can be served.
    ///
    /// # Errors
    /// Why they cannot.
    pub fn ready(&self) -> Result<Vec<String>, String> {
        match self.started.get() {
            Some(started) => (started.ready)(),
            None => Err(format!("it starts: {}", self.starting.lock())),
        }
    }
}

/// An HTTP listener that is bound.
pub struct Http {
    listener: TcpListener,
    metrics: PrometheusHandle,
}

#[derive(Clone)]
struct Served {
    metrics: PrometheusHandle,
    health: Arc<Health>,
    stat: Stat,
    dispatch: Option<Dispatch>,
}

/// Starts to record metrics: before anything counts.
///
/// # Errors
/// Where a recorder is installed already.
pub fn record() -> anyhow::Result<PrometheusHandle> {
    PrometheusBuilder::new().install_recorder().context("cannot record metrics")
}

impl Http {
    /// # Errors
    /// Where the address cannot be listened on.
    pub async fn bind(addr: SocketAddr, metrics: PrometheusHandle) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(addr).await.with_context(|| {
            format!(
                "cannot listen on {addr} for metrics and health (choose another with --http or \
                 http.listen, or \"off\")"
            )
        })?;
        Ok(Self { listener, metrics })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// Where the system does not say.
    pub fn addr(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.listener.local_addr()?)
    }

    /// Serves until `stop`.
    pub async fn serve(
        self,
        health: Arc<Health>,
        stat: Stat,
        dispatch: Option<Dispatch>,
        push: Api,
        stop: CancellationToken,
    ) {
        let is_loopback = self.addr().is_ok_and(|addr| addr.ip().is_loopback());
        let Self { listener, metrics } = self;
        let directory = directory::routes(Arc::clone(&health), is_loopback);
        let served = Served { metrics: metrics.clone(), health, stat, dispatch };
        let router = Router::new()
            .route("/metrics", get(|State(s): State<Served>| async move { s.metrics.render() }))
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(readyz))
            .route("/reload", post(reload_config))
            .route("/stat", get(own_stat))
            .route("/stat/all", get(all_stat))
            .route(edgeway_dispatch::service::PATH, any(dispatch_to))
            .with_state(served)
            .merge(directory)
            .merge(push.routes().0)
            .fallback(no_path)
            .method_not_allowed_fallback(no_method)
            .into_make_service_with_connect_info::<SocketAddr>();
        tokio::select! {
            result = axum::serve(listener, router) => if let Err(error) = result {
                tracing::error!(%error, "metrics and health are no longer served");
            },
            () = upkeep(metrics) => {}
            // A scrape that hangs must not hold up the end of the process: it is cut.
            () = stop.cancelled() => {}
        }
    }
}

async fn readyz(State(served): State<Served>) -> impl IntoResponse {
    match served.health.ready() {
        Ok(away) if away.is_empty() => (StatusCode::OK, "ready\n".to_owned()),
        Ok(away) => (StatusCode::OK, format!("ready\nnot reached: {}\n", away.join(", "))),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

/// This process: `recent=0` leaves the samples of before out.
async fn own_stat(State(served): State<Served>, RawQuery(query): RawQuery) -> Response {
    match query.as_deref() {
        None | Some("") => json(stat::own(&served.stat, true)),
        Some("recent=0") => json(stat::own(&served.stat, false)),
        Some(_) => {
            let text = "there is one parameter: recent=0 leaves the samples of before out\n";
            (StatusCode::BAD_REQUEST, text).into_response()
        }
    }
}

async fn all_stat(State(served): State<Served>) -> Response {
    json(stat::all(&served.stat).await)
}

fn json(text: String) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}

async fn dispatch_to(
    State(served): State<Served>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
) -> Response {
    match &served.dispatch {
        Some(dispatch) => {
            edgeway_dispatch::service::respond(dispatch, peer.ip(), request).await.map(Body::new)
        }
        None => {
            let text = "dispatch does not run in this process: it is in `edgeway up` and `edgeway dispatch`\n";
            (StatusCode::NOT_FOUND, text).into_response()
        }
    }
}

/// The config is read again: what has changed, a line each, or all that is wrong with it.
async fn reload_config(State(served): State<Served>) -> impl IntoResponse {
    let Some(Started { reload, .. }) = served.health.started.get() else {
        let text = "not started yet: the file is read when it is\n".to_owned();
        return (StatusCode::SERVICE_UNAVAILABLE, text);
    };
    match reload.now() {
        Ok(changes) => {
            let lines: String = changes.lines().map(|line| line + "\n").collect();
            let text = if lines.is_empty() { "nothing to change\n".to_owned() } else { lines };
            (StatusCode::OK, text)
        }
        Err(failure) => (StatusCode::UNPROCESSABLE_ENTITY, format!("{failure}\n")),
    }
}

async fn upkeep(metrics: PrometheusHandle) {
    let mut ticks = tokio::time::interval(UPKEEP);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        metrics.run_upkeep();
    }
}
