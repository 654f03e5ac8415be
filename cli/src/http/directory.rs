//! Who is where, as JSON: the members of a room, the gateways that have them, where a user is.

use std::{collections::HashMap, sync::Arc};

use axum::{
    Json, Router,
    extract::{Path, Query, State},
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use edgeway_backend::directory::{Cursor, Lookup, LookupError, MemberPage, Route, UserSession};
use serde::Serialize;

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
pub fn routes(health: Arc<Health>, is_loopback: bool) -> Router {
    let door = Door { health, is_loopback };
    Router::new()
        .route("/rooms/{name}/members", get(members))
        .route("/rooms/{name}/route", get(route))
        .route("/users/{name}", get(user))
        .with_state(door)
}

/// What is wrong, as RFC 9457 has it.
#[derive(Serialize)]
struct Problem {
    title: &'static str,
    status: u16,
    detail: String,
}

impl Problem {
    fn new(status: StatusCode, title: &'static str, detail: impl Into<String>) -> Self {
        Self { title, status: status.as_u16(), detail: detail.into() }
    }

    fn bad(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad request", detail)
    }
}

impl From<LookupError> for Problem {
    fn from(e: LookupError) -> Self {
        match e {
            LookupError::Bad(detail) => Self::bad(detail),
            e @ LookupError::Unavailable(_) => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "try again", e.to_string())
            }
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::BAD_REQUEST);
        (status, [(CONTENT_TYPE, "application/problem+json")], Json(self)).into_response()
    }
}

impl Door {
    fn lookup(&self) -> Result<&Lookup, Problem> {
        if !self.is_loopback {
            return Err(Problem::new(
                StatusCode::FORBIDDEN,
                "only on loopback",
                "who is where is told on loopback only, as nobody logs in here; set http.listen to \
                 an address of 127.0.0.1",
            ));
        }
        let Some(started) = self.health.started.get() else {
            let detail = "the process starts; /readyz tells what it waits for";
            return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "try again", detail));
        };
        started.lookup.as_ref().ok_or_else(|| {
            let detail = "a gateway does not know who is where; ask a backend";
            Problem::new(StatusCode::NOT_FOUND, "not here", detail)
        })
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

async fn members(
    State(door): State<Door>,
    Path(room): Path<String>,
    Query(query): Query<HashMap<String, String>>,
) -> Answer<MemberPage> {
    let (mut after, mut limit) = (Cursor::default(), PAGE);
    for (name, value) in &query {
        match name.as_str() {
            "after" => after = Cursor::parse(value)?,
            "limit" => {
                let told = |_| Problem::bad(format!("`limit` is `{value}`, which is no number"));
                limit = value.parse().map_err(told)?;
            }
            name => {
                let detail = format!("`{name}` is unknown; there are `after` and `limit`");
                return Err(Problem::bad(detail));
            }
        }
    }
    let page = door.lookup()?.members(&room, &after, limit).await?;
    Ok(Of::room(room, page))
}

async fn route(State(door): State<Door>, Path(room): Path<String>) -> Answer<Route> {
    let route = door.lookup()?.route(&room).await?;
    Ok(Of::room(room, route))
}

/// Where a user is.
#[derive(Serialize)]
struct Sessions {
    sessions: Vec<UserSession>,
}

async fn user(State(door): State<Door>, Path(user): Path<String>) -> Answer<Sessions> {
    let sessions = door.lookup()?.user(&user).await?;
    Ok(Json(Of { room: None, user: Some(user), answer: Sessions { sessions } }))
}
