//! Room state: a signal of the system with a key.

use axum::extract::State;
use bytes::Bytes;
use edgeway_backend::push::Target;
use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::{
    api::{Answered, Api},
    body::{Body, Id},
    caller::{Caller, Names},
    problem::{BodyProblems, Problem, Problems},
    send::{Class, Sent, message, one, payload},
};

/// A value of room state. One of `text`, `json` and `base64` says it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"json": {"page": 7}}))]
pub(crate) struct NewState {
    /// UTF-8; not empty.
    text: Option<String>,
    /// Any JSON, which is kept as it is written.
    #[schema(value_type = Option<Object>)]
    json: Option<Box<RawValue>>,
    /// Bytes, in base64 with padding.
    base64: Option<String>,
    /// Milliseconds after which the key is not set any more.
    #[schema(minimum = 1, maximum = 31_622_400_000_u64)]
    ttl_ms: Option<u64>,
}

fn room(name: &str) -> Result<Target, Problem> {
    Target::room(name).map_err(|why| Problem::bad(format!("the room's name {why}")))
}

/// Set a key of a room's state
///
/// Members get it as a signal with this key, and who joins later gets the latest. Scope `send`.
#[utoipa::path(
    put,
    path = "/v1/rooms/{room}/state/{key}",
    tag = "push",
    params(("room" = String, Path, description = "The room's name"), ("key" = String, Path, description = "1 to 128 bytes, not with @ in front")),
    request_body = NewState,
    responses((status = 200, body = Sent), BodyProblems),
    security(("api_key" = [])),
)]
pub(crate) async fn set(
    State(api): State<Api>,
    caller: Caller,
    Names(name, key): Names,
    body: Body,
) -> Result<Answered, Problem> {
    let to = room(&name)?;
    let new: NewState = body.json()?;
    let payload = payload(new.text, new.json, new.base64)?;
    if payload.is_empty() {
        return Err(Problem::bad("a value must not be empty; DELETE takes the key away"));
    }
    let message = message(body.id(&caller)?, Class::Signal, Some(key), new.ttl_ms, payload)?;
    one(&api, &caller, to, Class::Signal, message).await
}

/// Take a key of a room's state away
///
/// Members get a signal with this key and nothing in it. Scope `send`.
#[utoipa::path(
    delete,
    path = "/v1/rooms/{room}/state/{key}",
    tag = "push",
    params(("room" = String, Path, description = "The room's name"), ("key" = String, Path, description = "1 to 128 bytes, not with @ in front")),
    responses((status = 200, body = Sent), (status = 413, description = "`too_large`", body = Problem, content_type = "application/problem+json"), Problems),
    security(("api_key" = [])),
)]
pub(crate) async fn remove(
    State(api): State<Api>,
    caller: Caller,
    Names(name, key): Names,
) -> Result<Answered, Problem> {
    let to = room(&name)?;
    let message = message(Id::random()?, Class::Signal, Some(key), None, Bytes::new())?;
    one(&api, &caller, to, Class::Signal, message).await
}
