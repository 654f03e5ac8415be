//! Requests to answers.

use std::{net::IpAddr, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Response, StatusCode,
    body::Body,
    header::{self, HeaderValue},
    http::request::Parts,
};
use metrics::counter;

use crate::{
    Dispatch, Refusal,
    problem::Problem,
    request::{BODY_BYTES, Request},
};

/// Where it is asked.
pub const PATH: &str = "/dispatch";
/// How long a body may take.
const BODY_TIME: Duration = Duration::from_secs(10);

/// Answers one request of an address; each has an answer.
pub async fn respond<B>(
    dispatch: &Dispatch,
    ip: IpAddr,
    request: hyper::Request<B>,
) -> Response<Full<Bytes>>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (parts, body) = request.into_parts();
    match answer(dispatch, ip, &parts, body).await {
        Ok(body) => {
            let mut response = Response::new(Full::from(body));
            let headers = response.headers_mut();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            // The ticket is for one.
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
            response
        }
        Err(problem) => refuse(&problem),
    }
}

async fn answer<B>(
    dispatch: &Dispatch,
    ip: IpAddr,
    parts: &Parts,
    body: B,
) -> Result<String, Problem>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (per_second, _) = dispatch.limits();
    if !dispatch.flood().admits(ip, per_second) {
        let detail = format!("{per_second} requests a second of one address are answered");
        let title = "Too many requests";
        return Err(Problem::new(
            StatusCode::TOO_MANY_REQUESTS,
            "too_many_requests",
            title,
            detail,
        )
        .later(1));
    }
    if parts.uri.path() != PATH {
        let detail = format!("there is nothing here; ask {PATH}?app=..&user=..");
        return Err(Problem::new(StatusCode::NOT_FOUND, "not_found", "Not found", detail));
    }
    match parts.method {
        Method::GET => {
            let request = Request::of_query(parts.uri.query().unwrap_or_default())?;
            find(dispatch, &request)
        }
        Method::POST => {
            check_type(parts)?;
            let body = read(body).await?;
            find(dispatch, &Request::of_json(&body)?)
        }
        _ => Err(Problem::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            "The method is not allowed",
            format!("{} is not answered here; GET and POST are", parts.method),
        )
        .allowing("GET, POST")),
    }
}

fn find(dispatch: &Dispatch, request: &Request<'_>) -> Result<String, Problem> {
    match dispatch.answer(&request.app, request.user.as_deref()) {
        Ok(answer) => Ok(answer.body),
        Err(Refusal::UnknownApp) => Err(Problem::new(
            StatusCode::NOT_FOUND,
            "unknown_app",
            "There is no app of this name",
            format!("`{}` is none of [dispatch.apps]", request.app),
        )
        .of("app")),
        Err(Refusal::NoGateway) => Err(Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "no_gateway",
            "No gateway takes clients now",
            "all gateways of the app's cluster are away or draining",
        )
        .later(1)),
    }
}

fn check_type(parts: &Parts) -> Result<(), Problem> {
    let given = parts.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let kind = given.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    if kind.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err(Problem::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "unsupported_media_type",
        "The body is of a type that is not read here",
        "expected Content-Type: application/json",
    ))
}

async fn read<B>(body: B) -> Result<Bytes, Problem>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let reading = Box::pin(Limited::new(body, BODY_BYTES).collect());
    match tokio::time::timeout(BODY_TIME, reading).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too_large",
            "The body is too large",
            format!("a body may have {BODY_BYTES} bytes"),
        )),
        Ok(Err(error)) => Err(Problem::bad("", format!("the body could not be read: {error}"))),
        Err(_) => Err(Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            "request_timeout",
            "The request took too long",
            format!("a body may take {} s", BODY_TIME.as_secs()),
        )),
    }
}

fn refuse(problem: &Problem) -> Response<Full<Bytes>> {
    counter!("edgeway_dispatch_refused_total", "problem" => problem.kind).increment(1);
    let mut response = Response::new(Full::from(problem.body()));
    *response.status_mut() = problem.status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(secs) = problem.retry_after_secs {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(secs));
    }
    if let Some(methods) = problem.allow {
        headers.insert(header::ALLOW, HeaderValue::from_static(methods));
    }
    response
}
