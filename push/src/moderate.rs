//! Who may be in rooms, and who may speak.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::{Json, extract::State};
use edgeway_backend::push::{Change, Target};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    api::Api,
    caller::{Caller, Name, Names, Params},
    keys::Scope,
    problem::{Problem, Problems},
};

/// What is set for longer is set without an end: ten years.
const FOR_MAX_S: u64 = 10 * 366 * 24 * 3600;

/// How long something holds.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Lasting {
    /// Seconds; without, until it is taken back.
    #[param(minimum = 1, maximum = 316_224_000_u64)]
    for_s: Option<u64>,
}

impl Lasting {
    /// Milliseconds since 1970; 0 for no end.
    fn until_ms(&self) -> Result<u64, Problem> {
        match self.for_s {
            None => Ok(0),
            Some(secs @ 1..=FOR_MAX_S) => Ok(now_ms() + secs * 1000),
            Some(secs) => {
                Err(Problem::bad(format!("`for_s` is {secs}; it may be 1 to {FOR_MAX_S}")))
            }
        }
    }
}

pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(0)
}

/// What was set is stored.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Done {
    /// Whether something had to change.
    changed: bool,
}

/// Who was put out.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Kicked {
    /// Sessions of the user that were in the room.
    sessions: u64,
}

fn room(name: &str) -> Result<Target, Problem> {
    Target::room(name).map_err(|why| Problem::bad(format!("the room's name {why}")))
}

fn everywhere(user: &str) -> Result<Target, Problem> {
    Target::everywhere(user).map_err(|why| Problem::bad(format!("the user's name {why}")))
}

async fn set(
    api: &Api,
    caller: &Caller,
    of: Target,
    change: Change,
) -> Result<Json<Done>, Problem> {
    caller.may(Scope::Moderate, 1)?;
    let changed = api.pusher()?.rule(&of, change).await?;
    Ok(Json(Done { changed }))
}

/// Mute a user in a room
///
/// The user may not speak there: messages of the classes in `filter.classes` are refused. Scope `moderate`.
#[utoipa::path(
    put,
    path = "/v1/rooms/{room}/mutes/{user}",
    tag = "moderate",
    params(("room" = String, Path, description = "The room's name"), ("user" = String, Path, description = "The user's name"), Lasting),
    responses((status = 200, body = Done), Problems),
    security(("api_key" = [])),
)]
pub(crate) async fn mute(
    State(api): State<Api>,
    caller: Caller,
    Names(in_room, user): Names,
    Params(lasting): Params<Lasting>,
) -> Result<Json<Done>, Problem> {
    everywhere(&user)?;
    set(&api, &caller, room(&in_room)?, Change::Mute(user, Some(lasting.until_ms()?))).await
}

/// Let a user speak in a room again
#[utoipa::path(
    delete,
    path = "/v1/rooms/{room}/mutes/{user}",
    tag = "moderate",
    params(("room" = String, Path, description = "The room's name"), ("user" = String, Path, description = "The user's name")),
    responses((status = 200, body = Done), Problems),
    security(("api_key" = [])),
)]
pub(crate) async fn unmute(
    State(api): State<Api>,
    caller: Caller,
    Names(in_room, user): Names,
) -> Result<Json<Done>, Problem> {
    everywhere(&user)?;
    set(&api, &caller, room(&in_room)?, Change::Mute(user, None)).await
}

/// Mute a room
///
/// Nobody may speak there but the system. Scope `moderate`.
#[utoipa::path(
    put,
    path = "/v1/rooms/{room}/mute",
    tag = "moderate",
    params(("room" = String, Path, description = "The room's name"), Lasting),
    responses((status = 200, body = Done), Problems),
    security(("api_key" = [])),
)]
pub(crate) async fn mute_room(
    State(api): State<Api>,
    caller: Caller,
    Name(name): Name,
    Params(lasting): Params<Lasting>,
) -> Result<Json<Done>, Problem> {
    set(&api, &caller, room(&name)?, Change::MuteRoom(Some(lasting.until_ms()?))).await
}

/// Let all speak in a room again
#[utoipa::path(
    delete,
    path = "/v1/rooms/{room}/mute",
    tag = "moderate",
    params(("room" = String, Path, description = "The room's name")),
    responses((status = 200, body = Done), Problems),
    security(("api_key" = [])),
)]
pub(crate) async fn unmute_room(
    State(api): State<Api>,
    caller: Caller,
    Name(name): Name,
) -> Result<Json<Done>, Problem> {
    set(&api, &caller, room(&name)?, Change::MuteRoom(None)).await
}

/// Block a user in a room
///
/// The user may send nothing there, of any class. Scope `moderate`.
#[utoipa::path(
    put,
    path = "/v1/rooms/{room}/blocks/{user}",
    tag = "moderate",
    params(("room" = String, Path, description = "The room's name"), ("user" = String, Path, description = "The user's name"), Lasting),
    responses((status = 200, body = Done), Problems),
    security(("api_key" = [])),
)]
pub(crate) async fn block(
    State(api): State<Api>,
    caller: Caller,
    Names(in_room, user): Names,
    Params(lasting): Params<Lasting>,
) -> Result<Json<Done>, Problem> {
    everywhere(&user)?;
    set(&api, &caller, room(&in_room)?, Change::Block(user, Some(lasting.until_ms()?))).await
}

/// Take a block in a room back
#[utoipa::path(
    delete,
    path = "/v1/rooms/{room}/blocks/{user}",
    tag = "moderate",
    params(("room" = String, Path, description = "The room's name"), ("user" = String, Path, description = "The user's name")),
    responses((status = 200, body = Done), Problems),
    security(("api_key" = [])),
)]
pub(crate) async fn unblock(
    State(api): State<Api>,
    caller: Caller,
    Names(in_room, user): Names,
) -> Result<Json<Done>, Problem> {
    everywhere(&user)?;
    set(&api, &caller, room(&in_room)?, Change::Block(user, None)).await
}

/// Mute a user in all rooms
///
/// It holds within a second, in all processes. Scope `moderate`.
#[utoipa::path(
    put,
    path = "/v1/mutes/{user}",
    tag = "moderate",
    params(("user" = String, Path, description = "The user's name"), Lasting),
    responses((status = 200, body = Done), Problems),
    security(("api_key" = [])),
)]
pub(crate) async fn mute_everywhere(
    State(api): State<Api>,
    caller: Caller,
    Name(user): Name,
    Params(lasting): Params<Lasting>,
) -> Result<Json<Done>, Problem> {
    set(&api, &caller, everywhere(&user)?, Change::Mute(user, Some(lasting.until_ms()?))).await
}

/// Let a user speak again, where no room says otherwise
#[utoipa::path(
    delete,
    path = "/v1/mutes/{user}",
    tag = "moderate",
    params(("user" = String, Path, description = "The user's name")),
    responses((status = 200, body = Done), Problems),
    security(("api_key" = [])),
)]
pub(crate) async fn unmute_everywhere(
    State(api): State<Api>,
    caller: Caller,
    Name(user): Name,
) -> Result<Json<Done>, Problem> {
    set(&api, &caller, everywhere(&user)?, Change::Mute(user, None)).await
}

/// Block a user in all rooms
///
/// The user may send nothing, of any class. It holds within a second, in all processes. Scope `moderate`.
#[utoipa::path(
    put,
    path = "/v1/blocks/{user}",
    tag = "moderate",
    params(("user" = String, Path, description = "The user's name"), Lasting),
    responses((status = 200, body = Done), Problems),
    security(("api_key" = [])),
)]
pub(crate) async fn block_everywhere(
    State(api): State<Api>,
    caller: Caller,
    Name(user): Name,
    Params(lasting): Params<Lasting>,
) -> Result<Json<Done>, Problem> {
    set(&api, &caller, everywhere(&user)?, Change::Block(user, Some(lasting.until_ms()?))).await
}

/// Take a block in all rooms back
///
/// Those of the config, and of single rooms, stay.
#[utoipa::path(
    delete,
    path = "/v1/blocks/{user}",
    tag = "moderate",
    params(("user" = String, Path, description = "The user's name")),
    responses((status = 200, body = Done), Problems),
    security(("api_key" = [])),
)]
pub(crate) async fn unblock_everywhere(
    State(api): State<Api>,
    caller: Caller,
    Name(user): Name,
) -> Result<Json<Done>, Problem> {
    set(&api, &caller, everywhere(&user)?, Change::Block(user, None)).await
}

/// Open a room
///
/// It comes into being, where it has not yet; where it was closed, it may be joined again. Scope `moderate`.
#[utoipa::path(
    post,
    path = "/v1/rooms/{room}/open",
    tag = "moderate",
    params(("room" = String, Path, description = "The room's name")),
    responses((status = 200, body = Done), Problems),
    security(("api_key" = [])),
)]
pub(crate) async fn open(
    State(api): State<Api>,
    caller: Caller,
    Name(name): Name,
) -> Result<Json<Done>, Problem> {
    set(&api, &caller, room(&name)?, Change::Close(false)).await
}

/// Close a room
///
/// All are put out, nobody may join, and the system cannot send either, until it is opened. Its history and state stay.
/// Scope `moderate`.
#[utoipa::path(
    post,
    path = "/v1/rooms/{room}/close",
    tag = "moderate",
    params(("room" = String, Path, description = "The room's name")),
    responses((status = 200, body = Done), Problems),
    security(("api_key" = [])),
)]
pub(crate) async fn close(
    State(api): State<Api>,
    caller: Caller,
    Name(name): Name,
) -> Result<Json<Done>, Problem> {
    set(&api, &caller, room(&name)?, Change::Close(true)).await
}

/// Put a user out of a room
///
/// All Sessions of the user leave it now. The user may join again. Scope `moderate`.
#[utoipa::path(
    post,
    path = "/v1/rooms/{room}/members/{user}/kick",
    tag = "moderate",
    params(("room" = String, Path, description = "The room's name"), ("user" = String, Path, description = "The user's name")),
    responses((status = 200, body = Kicked), Problems),
    security(("api_key" = [])),
)]
pub(crate) async fn kick(
    State(api): State<Api>,
    caller: Caller,
    Names(in_room, user): Names,
) -> Result<Json<Kicked>, Problem> {
    everywhere(&user)?;
    let of = room(&in_room)?;
    caller.may(Scope::Moderate, 1)?;
    let sessions = api.pusher()?.kick(&of, &user).await?;
    Ok(Json(Kicked { sessions }))
}
