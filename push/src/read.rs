//! What is known of rooms and users.

use axum::{Json, extract::State};
use base64::{Engine, prelude::BASE64_STANDARD as BASE64};
use edgeway_backend::{
    directory::{Cursor, LookupError},
    push::Target,
};
use edgeway_proto::{Seq, frame::Deliver};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    api::Api,
    caller::{Caller, Name, Params},
    keys::Scope,
    problem::{Problem, Problems},
};

/// Messages of a page, where nothing else is said.
const PAGE: u32 = 100;
/// At most.
const PAGE_MAX: u32 = 200;
/// Members of a page, and at most.
const MEMBERS: usize = 100;
const MEMBERS_MAX: usize = 1_000;

/// A message as it is stored.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Stored {
    /// Its place in the order of its class: epoch-counter.
    #[schema(example = "1-17")]
    place: String,
    /// Milliseconds since 1970 when it was accepted.
    time_ms: u64,
    /// Milliseconds since 1970 after which it is void.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    expires_ms: Option<u64>,
    /// The user who sent it; empty for the system.
    sender: String,
    /// Of room state.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    key: Option<String>,
    /// What was sent, where that is UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    text: Option<String>,
    /// Else its bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    base64: Option<String>,
}

impl From<Deliver> for Stored {
    fn from(deliver: Deliver) -> Self {
        let payload = &deliver.payload.0;
        let text = std::str::from_utf8(payload).ok().map(str::to_owned);
        let base64 = text.is_none().then(|| BASE64.encode(payload));
        Self {
            place: deliver.seq.to_string(),
            time_ms: deliver.time_ms,
            expires_ms: (deliver.expires_ms != 0).then_some(deliver.expires_ms),
            sender: deliver.sender.to_string(),
            key: (!deliver.key.is_empty()).then(|| deliver.key.to_string()),
            text,
            base64,
        }
    }
}

/// A room's state.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RoomState {
    /// The latest signal of each key, in the order of their places.
    state: Vec<Stored>,
}

/// A page of history.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct History {
    /// Oldest first.
    messages: Vec<Stored>,
    /// All up to here has been looked at: `after` of the next page.
    #[schema(example = "1-17")]
    upto: String,
    /// Whether there is more now.
    more: bool,
    /// Some messages that followed `after` are no longer kept.
    truncated: bool,
}

/// Classes of messages that are stored.
#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Class {
    #[default]
    Signal,
    Binary,
    Chat,
}

impl From<Class> for edgeway_proto::Class {
    fn from(class: Class) -> Self {
        match class {
            Class::Signal => Self::Signal,
            Class::Binary => Self::Binary,
            Class::Chat => Self::Chat,
        }
    }
}

/// Which part of a history.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Range {
    /// `signal` unless said otherwise; `binary` are strokes.
    #[param(inline)]
    class: Class,
    /// A place, epoch-counter: what follows it is told. Without, from the beginning.
    #[param(pattern = "^[0-9]{1,18}-[0-9]{1,18}$", example = "1-17")]
    after: Option<String>,
    /// The last place that is told. Without, to the end.
    #[param(pattern = "^[0-9]{1,18}-[0-9]{1,18}$", example = "1-99")]
    upto: Option<String>,
    /// Milliseconds since 1970: nothing that was accepted earlier.
    #[param(minimum = 1)]
    since_ms: Option<u64>,
    /// Milliseconds since 1970: nothing that was accepted then or later.
    #[param(minimum = 1)]
    until_ms: Option<u64>,
    /// Messages at most; 100 unless said otherwise.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
}

/// Which part of a list of members.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Part {
    /// `next` of the page before.
    after: Option<String>,
    /// Members at most; 100 unless said otherwise.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
}

/// A Session in a room.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RoomMember {
    user: String,
    device: String,
}

/// A page of the members of a room, by users.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RoomMembers {
    /// Sessions in the room.
    total: u64,
    members: Vec<RoomMember>,
    /// `after` of the next page; without, this was the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    next: Option<String>,
}

/// Where a user is, on one device.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct UserAt {
    device: String,
    /// The Session's type: `chat`, `im`, `push` or `research_push`.
    #[serde(rename = "type")]
    kind: String,
    /// Rooms and inboxes that it has a place in.
    rooms: u64,
}

/// Where a user is.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct UserSessions {
    /// Whether there is any.
    online: bool,
    sessions: Vec<UserAt>,
}

impl From<LookupError> for Problem {
    fn from(error: LookupError) -> Self {
        match error {
            LookupError::Bad(detail) => Self::bad(detail),
            error @ LookupError::Unavailable(_) => Self::unavailable(error.to_string()),
        }
    }
}

pub(crate) fn room(name: &str) -> Result<Target, Problem> {
    Target::room(name).map_err(|why| Problem::bad(format!("the room's name {why}")))
}

fn place(name: &str, text: Option<&str>) -> Result<Option<Seq>, Problem> {
    let Some(text) = text else { return Ok(None) };
    let place: Result<Seq, _> = text.parse();
    place.map(Some).map_err(|why| Problem::bad(format!("`{name}`: `{text}` {why}")))
}

/// From when, and until when: 0 and the end of time where nothing is said.
pub(crate) fn times(since_ms: Option<u64>, until_ms: Option<u64>) -> Result<(u64, u64), Problem> {
    let (since, until) = (since_ms.unwrap_or(0), until_ms.unwrap_or(u64::MAX));
    if since >= until {
        let detail =
            format!("`since_ms` is {since}; it must be before `until_ms`, which is {until}");
        return Err(Problem::bad(detail));
    }
    Ok((since, until))
}

/// A room's state
///
/// As it is stored: also of a room where nobody is. Scope `read`.
#[utoipa::path(
    get,
    path = "/v1/rooms/{room}/state",
    tag = "read",
    params(("room" = String, Path, description = "The room's name")),
    responses((status = 200, body = RoomState), Problems),
    security(("api_key" = [])),
)]
pub(crate) async fn state(
    State(api): State<Api>,
    caller: Caller,
    Name(name): Name,
) -> Result<Json<RoomState>, Problem> {
    let of = room(&name)?;
    caller.may(Scope::Read, 1)?;
    let state = api.pusher()?.state(&of).await?;
    Ok(Json(RoomState { state: state.into_iter().map(Into::into).collect() }))
}

/// A room's history
///
/// What is stored of a class, oldest first, without what is void. Chat is stored a moment after it is delivered. The page
/// that follows is asked for with `after`. Scope `read`.
#[utoipa::path(
    get,
    path = "/v1/rooms/{room}/history",
    tag = "read",
    params(("room" = String, Path, description = "The room's name"), Range),
    responses((status = 200, body = History), Problems),
    security(("api_key" = [])),
)]
pub(crate) async fn history(
    State(api): State<Api>,
    caller: Caller,
    Name(name): Name,
    Params(range): Params<Range>,
) -> Result<Json<History>, Problem> {
    let of = room(&name)?;
    let after = place("after", range.after.as_deref())?.unwrap_or(Seq::ZERO);
    let upto = place("upto", range.upto.as_deref())?;
    let limit = range.limit.unwrap_or(PAGE);
    if !(1..=PAGE_MAX).contains(&limit) {
        return Err(Problem::bad(format!("`limit` is {limit}; it may be 1 to {PAGE_MAX}")));
    }
    let (since_ms, until_ms) = times(range.since_ms, range.until_ms)?;
    caller.may(Scope::Read, 1)?;
    let class = range.class.into();
    let mut page = api.pusher()?.history(&of, class, after, since_ms, limit).await?;
    if let Some(end) = page.messages.iter().position(|message| message.time_ms >= until_ms) {
        page.messages.truncate(end);
        page.more = false;
        page.upto = page.messages.last().map_or(after, |message| message.seq);
    }
    if let Some(upto) = upto {
        let is_beyond = page.upto >= upto;
        page.messages.retain(|message| message.seq <= upto);
        page.more &= !is_beyond;
        page.upto = page.upto.min(upto.max(after));
    }
    Ok(Json(History {
        messages: page.messages.into_iter().map(Into::into).collect(),
        upto: page.upto.to_string(),
        more: page.more,
        truncated: page.truncated,
    }))
}

/// Who is in a room
///
/// As the directory has it: at most three seconds old. Of a room where nobody is, or that never was, it is empty. Scope
/// `read`.
#[utoipa::path(
    get,
    path = "/v1/rooms/{room}/members",
    tag = "read",
    params(("room" = String, Path, description = "The room's name"), Part),
    responses((status = 200, body = RoomMembers), Problems),
    security(("api_key" = [])),
)]
pub(crate) async fn members(
    State(api): State<Api>,
    caller: Caller,
    Name(name): Name,
    Params(part): Params<Part>,
) -> Result<Json<RoomMembers>, Problem> {
    let after = part.after.as_deref().map(Cursor::parse).transpose()?.unwrap_or_default();
    let limit = part.limit.unwrap_or(MEMBERS);
    if !(1..=MEMBERS_MAX).contains(&limit) {
        return Err(Problem::bad(format!("`limit` is {limit}; it may be 1 to {MEMBERS_MAX}")));
    }
    room(&name)?;
    caller.may(Scope::Read, 1)?;
    let page = api.lookup()?.members(&name, &after, limit).await?;
    let member =
        |one: edgeway_backend::directory::Member| RoomMember { user: one.user, device: one.device };
    let members = page.members.into_iter().map(member).collect();
    Ok(Json(RoomMembers { total: page.total, members, next: page.next }))
}

/// Where a user is
///
/// As the directory has it: at most three seconds old. Scope `read`.
#[utoipa::path(
    get,
    path = "/v1/users/{user}",
    tag = "read",
    params(("user" = String, Path, description = "The user's name")),
    responses((status = 200, body = UserSessions), Problems),
    security(("api_key" = [])),
)]
pub(crate) async fn user(
    State(api): State<Api>,
    caller: Caller,
    Name(name): Name,
) -> Result<Json<UserSessions>, Problem> {
    caller.may(Scope::Read, 1)?;
    let sessions = api.lookup()?.user(&name).await?;
    let at = |one: edgeway_backend::directory::UserSession| UserAt {
        device: one.device,
        kind: one.kind,
        rooms: one.rooms,
    };
    let sessions: Vec<_> = sessions.into_iter().map(at).collect();
    Ok(Json(UserSessions { online: !sessions.is_empty(), sessions }))
}
