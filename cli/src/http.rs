//! HTTP beside the product: metrics for Prometheus, health for whoever restarts processes.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context;
use axum::{
    Router,
    extract::State,
    http::StatusCode,
    response::IntoResponse,
    routing::{get, post},
};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tokio::{net::TcpListener, time::MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::reload::Reload;

/// Histograms keep what was observed since the last upkeep: as often as they are scraped will do.
const UPKEEP: Duration = Duration::from_secs(5);

/// Why the process cannot serve now; nothing where it can.
pub type Ready = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// An HTTP listener that is bound.
pub struct Http {
    listener: TcpListener,
    metrics: PrometheusHandle,
}

#[derive(Clone)]
struct Served {
    metrics: PrometheusHandle,
    ready: Ready,
    reload: Arc<Reload>,
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
    pub async fn serve(self, ready: Ready, reload: Arc<Reload>, stop: CancellationToken) {
        let Self { listener, metrics } = self;
        let served = Served { metrics: metrics.clone(), ready, reload };
        let router = Router::new()
            .route("/metrics", get(|State(s): State<Served>| async move { s.metrics.render() }))
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(readyz))
            .route("/reload", post(reload_config))
            .with_state(served);
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
    match (served.ready)() {
        Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

/// The config is read again: what has changed, a line each, or all that is wrong with it.
async fn reload_config(State(served): State<Served>) -> impl IntoResponse {
    match served.reload.now() {
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
