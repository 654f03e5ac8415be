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
    Extension, Router,
    body::Body,
    extract::{ConnectInfo, RawQuery, Request, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use edgeway_backend::directory::Lookup;
use edgeway_dispatch::Dispatch;
use edgeway_push::{Api, no_method, no_path, problem::Problem};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use parking_lot::Mutex;
use tokio::{net::TcpListener, time::MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use utoipa::openapi::{InfoBuilder, License, OpenApi, OpenApiBuilder};
use utoipa_axum::{router::OpenApiRouter, routes};
use utoipa_swagger_ui::{Config, SwaggerUi};

use crate::{
    reload::Reload,
    stat::{self, Stat},
};

/// Histograms keep what was observed since the last upkeep: as often as they are scraped will do.
const UPKEEP: Duration = Duration::from_secs(5);

/// Where the document of all that is served is, and the page to browse it.
const DOCUMENT: &str = "/openapi.json";
const PAGE: &str = "/docs";

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
        let served = Served { metrics: metrics.clone(), health, stat, dispatch };
        let router = routes(served, &push, is_loopback);
        let router = router.into_make_service_with_connect_info::<SocketAddr>();
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

/// All that is served, the document of it, and the page to browse that.
fn routes(served: Served, push: &Api, is_loopback: bool) -> Router {
    let directory = directory::routes(Arc::clone(&served.health), is_loopback);
    let (router, document) = OpenApiRouter::with_openapi(about())
        .routes(routes!(metrics))
        .routes(routes!(healthz))
        .routes(routes!(readyz))
        .routes(routes!(reload_config))
        .routes(routes!(own_stat))
        .routes(routes!(all_stat))
        .routes(routes!(dispatch_by_query, dispatch_by_body))
        .routes(routes!(openapi))
        .with_state(served)
        .merge(directory)
        .merge(push.routes())
        .split_for_parts();
    // It can be written: it is all texts and numbers.
    let text = document.to_pretty_json().unwrap_or_default();
    let page = SwaggerUi::new(PAGE).config(Config::from(DOCUMENT).persist_authorization(true));
    router
        .layer(Extension(Document(text.into())))
        .merge(page)
        .fallback(no_path)
        .method_not_allowed_fallback(no_method)
}

/// Of the document.
fn about() -> OpenApi {
    let info = InfoBuilder::new()
        .title("Edgeway")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "What each process serves over HTTP. The API for business systems is /v1, with an API key \
             (docs/PUSH.md), in processes with the role push and in `edgeway up`.",
        ))
        .license(Some(License::new("Apache-2.0")));
    OpenApiBuilder::new().info(info).build()
}

/// The document, made once.
#[derive(Clone)]
struct Document(Arc<str>);

/// This document
#[utoipa::path(
    get,
    path = "/openapi.json",
    tag = "operation",
    responses((status = 200, description = "OpenAPI 3.1", body = Object)),
)]
async fn openapi(Extension(Document(text)): Extension<Document>) -> Response {
    json(text.to_string())
}

/// Metrics for Prometheus
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "operation",
    responses((status = 200, description = "Its text format", body = String, content_type = "text/plain")),
)]
async fn metrics(State(served): State<Served>) -> String {
    served.metrics.render()
}

/// Whether the process lives
#[utoipa::path(
    get,
    path = "/healthz",
    tag = "operation",
    responses((status = 200, description = "It does", body = String, content_type = "text/plain")),
)]
async fn healthz() -> &'static str {
    "ok\n"
}

/// Whether the process can serve
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "operation",
    responses(
        (status = 200, description = "It can", body = String, content_type = "text/plain"),
        (status = 503, description = "What it waits for", body = String, content_type = "text/plain"),
    ),
)]
async fn readyz(State(served): State<Served>) -> (StatusCode, String) {
    match served.health.ready() {
        Ok(away) if away.is_empty() => (StatusCode::OK, "ready\n".to_owned()),
        Ok(away) => (StatusCode::OK, format!("ready\nnot reached: {}\n", away.join(", "))),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

/// The load of this process, now and in the last five minutes
#[utoipa::path(
    get,
    path = "/stat",
    tag = "operation",
    params(("recent" = Option<u8>, Query, description = "0 leaves the samples of before out", minimum = 0, maximum = 0)),
    responses(
        (status = 200, description = "docs/DISPATCH.md says what is in it", body = Object),
        (status = 400, description = "Another parameter", body = String, content_type = "text/plain"),
    ),
)]
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

/// The load of all processes that the registry knows
#[utoipa::path(
    get,
    path = "/stat/all",
    tag = "operation",
    responses((status = 200, description = "docs/DISPATCH.md says what is in it", body = Object)),
)]
async fn all_stat(State(served): State<Served>) -> Response {
    json(stat::all(&served.stat).await)
}

fn json(text: String) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}

/// Where a client connects
///
/// docs/DISPATCH.md says more. In `edgeway up` and `edgeway dispatch`; the latter answers at addresses of its own, too.
#[utoipa::path(
    get,
    path = "/dispatch",
    tag = "dispatch",
    params(
        ("app" = Option<String>, Query, description = "One of [dispatch.apps]; `default` unless said otherwise"),
        ("user" = Option<String>, Query, description = "Who connects, for the sticky policy"),
    ),
    responses(
        (status = 200, description = "Gateways in the order of the policy, and a ticket", body = Object),
        (status = "4XX", description = "What is wrong", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "No gateway takes clients now", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn dispatch_by_query(
    State(served): State<Served>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
) -> Response {
    dispatch_to(&served, peer, request).await
}

/// Who asks dispatch.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "for the document: dispatch reads it by itself")]
struct DispatchRequest {
    app: Option<String>,
    user: Option<String>,
}

/// Where a client connects, asked by a body
#[utoipa::path(
    post,
    path = "/dispatch",
    tag = "dispatch",
    request_body = DispatchRequest,
    responses(
        (status = 200, description = "Gateways in the order of the policy, and a ticket", body = Object),
        (status = "4XX", description = "What is wrong", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "No gateway takes clients now", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn dispatch_by_body(
    State(served): State<Served>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
) -> Response {
    dispatch_to(&served, peer, request).await
}

async fn dispatch_to(served: &Served, peer: SocketAddr, request: Request) -> Response {
    match &served.dispatch {
        Some(dispatch) => {
            edgeway_dispatch::service::respond(dispatch, peer.ip(), request).await.map(Body::new)
        }
        None => Problem::not_found(
            "dispatch does not run in this process: it is in `edgeway up` and `edgeway dispatch`",
        )
        .into_response(),
    }
}

/// Read the config again
#[utoipa::path(
    post,
    path = "/reload",
    tag = "operation",
    responses(
        (status = 200, description = "What has changed, a line each", body = String, content_type = "text/plain"),
        (status = 422, description = "All that is wrong with it; nothing has changed", body = String, content_type = "text/plain"),
        (status = 503, description = "Not started yet", body = String, content_type = "text/plain"),
    ),
)]
async fn reload_config(State(served): State<Served>) -> (StatusCode, String) {
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
