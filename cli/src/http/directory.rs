//! Who is where, as JSON: the members of a room, the gateways that have them, where a user is.

use std::sync::Arc;

use axum::{Json, extract::State, http::StatusCode};
use edgeway_backend::directory::{Cursor, Lookup, MemberPage, Route, UserSession};
use edgeway_push::{Name, Params, problem::Problem};
use serde::{Deserialize, Serialize};
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::Health;

/// Members of a page where nobody says how many.
const PAGE: usize = 100;

/// The way to the directory.
#[derive(Clone)]
struct Door {
    health: Arc<Health>,
    /// Only this machine can ask. There is no login, so others are told nothing.
    is_loopback: bool,
}

/// The routes.
pub fn routes(health: Arc<Health>, is_loopback: bool) -> OpenApiRouter {
    let door = Door { health, is_loopback };
    OpenApiRouter::default()
        .routes(routes!(members))
        .routes(routes!(route))
        .routes(routes!(user))
        .with_state(door)
}

impl Door {
    fn lookup(&self) -> Result<&Lookup, Problem> {
        if !self.is_loopback {
            return Err(Problem::new(
                StatusCode::FORBIDDEN,
                "only_on_loopback",
                "Only on loopback",
                "who is where is told on loopback only, as nobody logs in here; set http.listen to \
                 an address of 127.0.0.1",
            ));
        }
        let Some(started) = self.health.started.get() else {
            let detail = "the process starts; /readyz tells what it waits for";
            return Err(Problem::unavailable(detail));
        };
        let not_here = || Problem::not_found("a gateway does not know who is where; ask a backend");
        started.lookup.as_ref().ok_or_else(not_here)
    }
}

/// An answer, with the name that was asked for.
#[derive(Serialize)]
struct Of<T> {
    #[serde(skip_serializing_if = "Option::is_none")]
    room: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    #[serde(flatten)]
    answer: T,
}

impl<T> Of<T> {
    fn room(room: String, answer: T) -> Json<Self> {
        Json(Self { room: Some(room), user: None, answer })
    }
}

type Answer<T> = Result<Json<Of<T>>, Problem>;

/// Which members.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Part {
    /// `next` of the page before.
    after: Option<String>,
    /// 1 to 1,000; 100 unless said otherwise.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
}

/// The members of a room, with the gateways that have them
///
/// Of a backend, on loopback only.
#[utoipa::path(
    get,
    path = "/rooms/{name}/members",
    tag = "directory",
    params(("name" = String, Path, description = "The room's name"), Part),
    responses(
        (status = 200, description = "A page, by users", body = Object),
        (status = "4XX", description = "What is wrong", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Not now", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn members(
    State(door): State<Door>,
    Name(room): Name,
    Params(part): Params<Part>,
) -> Answer<MemberPage> {
    let after = part.after.as_deref().map(Cursor::parse).transpose()?.unwrap_or_default();
    let page = door.lookup()?.members(&room, &after, part.limit.unwrap_or(PAGE)).await?;
    Ok(Of::room(room, page))
}

/// The gateways that have members of a room
///
/// Of a backend, on loopback only.
#[utoipa::path(
    get,
    path = "/rooms/{name}/route",
    tag = "directory",
    params(("name" = String, Path, description = "The room's name")),
    responses(
        (status = 200, description = "Gateways, and the epoch of the room's owner", body = Object),
        (status = "4XX", description = "What is wrong", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Not now", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn route(State(door): State<Door>, Name(room): Name) -> Answer<Route> {
    let route = door.lookup()?.route(&room).await?;
    Ok(Of::room(room, route))
}

/// Where a user is.
#[derive(Serialize)]
struct Sessions {
    sessions: Vec<UserSession>,
}

/// Where a user is, with gateways and access instances
///
/// Of a backend, on loopback only.
#[utoipa::path(
    get,
    path = "/users/{name}",
    tag = "directory",
    params(("name" = String, Path, description = "The user's name")),
    responses(
        (status = 200, description = "The user's Sessions", body = Object),
        (status = "4XX", description = "What is wrong", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Not now", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn user(State(door): State<Door>, Name(user): Name) -> Answer<Sessions> {
    let sessions = door.lookup()?.user(&user).await?;
    Ok(Json(Of { room: None, user: Some(user), answer: Sessions { sessions } }))
}
