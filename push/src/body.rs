//! Bodies of requests: JSON, read within bounds of bytes and time, unknown fields refused.

use std::time::Duration;

use axum::{
    body::Bytes,
    extract::{FromRequest, Request},
    http::{HeaderMap, StatusCode, header},
};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use ring::digest::{Context, SHA256};
use serde::de::DeserializeOwned;
use tokio::sync::OwnedSemaphorePermit;

use crate::{
    api::{Api, BODY_BYTES, IDEMPOTENCY_KEY},
    caller::Caller,
    problem::Problem,
};

/// How long a body may take.
const BODY_TIME: Duration = Duration::from_secs(10);
/// Bytes of an Idempotency-Key.
const KEY_BYTES: usize = 255;

/// A body.
pub(crate) struct Body {
    bytes: Bytes,
    /// Of method, path and body.
    digest: Context,
    key: Option<String>,
    /// Its part of what all bodies may take together.
    _held: OwnedSemaphorePermit,
}

/// Names a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Id {
    /// Never 0.
    pub(crate) id: u64,
    /// 0 where the caller will not give the id again.
    pub(crate) digest: u64,
}

impl Id {
    /// Of a request that its caller will not send again under a name.
    pub(crate) fn random() -> Result<Self, Problem> {
        let id = getrandom::u64().map_err(|e| Problem::unavailable(e.to_string()))?;
        Ok(Self { id: id.max(1), digest: 0 })
    }
}

impl FromRequest<Api> for Body {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        check_type(&parts.headers)?;
        let key = idempotency_key(&parts.headers)?;
        let mut digest = Context::new(&SHA256);
        digest.update(parts.method.as_str().as_bytes());
        digest.update(parts.uri.path().as_bytes());
        digest.update(&[0]);
        let told = parts.headers.get(header::CONTENT_LENGTH);
        let told = told.and_then(|value| value.to_str().ok()?.parse().ok());
        let held = api.hold(told.unwrap_or(BODY_BYTES).min(BODY_BYTES))?;
        let reading = Limited::new(body, BODY_BYTES).collect();
        let bytes = match tokio::time::timeout(BODY_TIME, reading).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) if error.is::<LengthLimitError>() => {
                return Err(Problem::too_large(format!("a body may have {BODY_BYTES} bytes")));
            }
            Ok(Err(error)) => {
                return Err(Problem::bad(format!("the body could not be read: {error}")));
            }
            Err(_) => {
                let detail = format!("a body may take {} s", BODY_TIME.as_secs());
                let title = "The request took too long";
                let status = StatusCode::REQUEST_TIMEOUT;
                return Err(Problem::new(status, "request_timeout", title, detail));
            }
        };
        digest.update(&bytes);
        Ok(Self { bytes, digest, key, _held: held })
    }
}

impl Body {
    /// What it says.
    ///
    /// # Errors
    /// It is not that: where, and what would be right.
    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        serde_json::from_slice(&self.bytes)
            .map_err(|error| Problem::bad(format!("the body is not right: {error}")))
    }

    /// Names the request of this caller.
    ///
    /// # Errors
    /// Where the system has no random numbers.
    pub(crate) fn id(&self, caller: &Caller) -> Result<Id, Problem> {
        let Some(key) = &self.key else {
            return Id::random();
        };
        let mut named = Context::new(&SHA256);
        named.update(caller.name().as_bytes());
        named.update(&[0]);
        named.update(key.as_bytes());
        Ok(Id { id: number(named), digest: number(self.digest.clone()) })
    }
}

/// The front of a hash: of two requests within minutes, not the same by chance. Never 0.
fn number(context: Context) -> u64 {
    let digest = context.finish();
    let front = digest.as_ref().first_chunk().copied().unwrap_or_default();
    u64::from_be_bytes(front).max(1)
}

fn check_type(headers: &HeaderMap) -> Result<(), Problem> {
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
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

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut all = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(key) = all.next() else { return Ok(None) };
    let text = key.to_str().ok().filter(|key| (1..=KEY_BYTES).contains(&key.len()));
    match text {
        Some(key) if all.next().is_none() => Ok(Some(key.to_owned())),
        _ => Err(Problem::bad(format!(
            "Idempotency-Key must be given once, with 1 to {KEY_BYTES} characters of ASCII"
        ))),
    }
}
