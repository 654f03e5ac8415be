//! Messages to rooms and users.

use std::{collections::HashSet, time::Instant};

use axum::{extract::State, http::StatusCode};
use base64::{Engine, prelude::BASE64_STANDARD as BASE64};
use bytes::Bytes;
use edgeway_backend::push::{Inbox as Space, Message, PushError, Sent as Placed, Target};
use edgeway_proto::{Class as WireClass, limits};
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::{
    api::{Answered, Api},
    body::{Body, Id},
    caller::{Caller, Name},
    keys::Scope,
    moderate::now_ms,
    problem::{BodyProblems, Problem},
    repeats::Answer,
};

/// Rooms of one request.
const ROOMS_MAX: usize = 1_000;
/// A message may wait for its reader for so long at most: a year.
const TTL_MAX_MS: u64 = 366 * 24 * 3600 * 1000;

/// How a message is carried.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Class {
    /// High priority: never lost, stored before it is answered.
    #[default]
    Signal,
    /// Low priority: thinned by the room's policy with the chat of its members.
    Chat,
}

impl From<Class> for WireClass {
    fn from(class: Class) -> Self {
        match class {
            Class::Signal => Self::Signal,
            Class::Chat => Self::Chat,
        }
    }
}

/// Which of a user's inboxes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Inbox {
    /// That of Sessions of the type `push`.
    #[default]
    Push,
    /// Of the type `research_push`.
    ResearchPush,
    /// Of the type `im`.
    Im,
}

/// A message to a room. One of `text`, `json` and `base64` says what is sent: 60 KiB at most.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"text": "The lesson begins", "class": "signal"}))]
pub(crate) struct NewMessage {
    /// UTF-8.
    text: Option<String>,
    /// Any JSON, which is sent as it is written.
    #[schema(value_type = Option<Object>)]
    json: Option<Box<RawValue>>,
    /// Bytes, in base64 with padding.
    base64: Option<String>,
    #[serde(default)]
    class: Class,
    /// Of room state: the room keeps the latest signal of each key for those who join later. 128 bytes.
    #[schema(max_length = 128)]
    key: Option<String>,
    /// Milliseconds after which it is void: who has not got it by then does not get it.
    #[schema(minimum = 1, maximum = 31_622_400_000_u64)]
    ttl_ms: Option<u64>,
}

/// A message to many rooms, in each of which it takes its own place.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"rooms": ["lesson-1", "lesson-2"], "text": "Break"}))]
pub(crate) struct NewMessages {
    /// 1 to 1,000, each once.
    #[schema(min_items = 1, max_items = 1000)]
    rooms: Vec<String>,
    /// As in a message to one room, and so is all that follows.
    text: Option<String>,
    #[schema(value_type = Option<Object>)]
    json: Option<Box<RawValue>>,
    base64: Option<String>,
    #[serde(default)]
    class: Class,
    #[schema(max_length = 128)]
    key: Option<String>,
    #[schema(minimum = 1, maximum = 31_622_400_000_u64)]
    ttl_ms: Option<u64>,
}

/// A message to a user's inbox, where it waits for the user. It is a signal.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"json": {"homework": 7}, "inbox": "push"}))]
pub(crate) struct NewUserMessage {
    /// As in a message to a room, and so is all that follows.
    text: Option<String>,
    #[schema(value_type = Option<Object>)]
    json: Option<Box<RawValue>>,
    base64: Option<String>,
    #[serde(default)]
    inbox: Inbox,
    #[schema(max_length = 128)]
    key: Option<String>,
    #[schema(minimum = 1, maximum = 31_622_400_000_u64)]
    ttl_ms: Option<u64>,
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Status {
    /// It has its place, and members get it; a signal is stored.
    Sent,
    /// The room's policy left it out, as it does with chat where there is too much.
    Shed,
    /// Why is in `problem`.
    Failed,
}

/// What became of a message to one room or user.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Sent {
    /// `sent` or `shed`.
    status: Status,
    class: Class,
    /// Its place in the order of its class, epoch-counter, as in history.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "1-17")]
    place: Option<String>,
}

/// What became of a message to many rooms.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SentAll {
    /// Rooms that it was not sent to; the same request may be sent again for them, with the same Idempotency-Key.
    failed: usize,
    class: Class,
    /// In the order of the request.
    rooms: Vec<RoomSent>,
}

/// What became of it in one room.
#[derive(Debug, Serialize, ToSchema)]
struct RoomSent {
    room: String,
    status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "1-17")]
    place: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    problem: Option<Problem>,
}

/// Send a message to a room
///
/// It takes its place in the room's one order, like a member's, and has no sender. The answer comes once it is stored
/// (chat: once it is on its way). Scope `send`.
#[utoipa::path(
    post,
    path = "/v1/rooms/{room}/messages",
    tag = "push",
    params(
        ("room" = String, Path, description = "The room's name, 1 to 128 bytes"),
        ("Idempotency-Key" = Option<String>, Header, description = "Names the request: with the same key it has one effect, for ten minutes. 1 to 255 characters of ASCII"),
    ),
    request_body = NewMessage,
    responses((status = 200, body = Sent), BodyProblems),
    security(("api_key" = [])),
)]
pub(crate) async fn to_room(
    State(api): State<Api>,
    caller: Caller,
    Name(room): Name,
    body: Body,
) -> Result<Answered, Problem> {
    let new: NewMessage = body.json()?;
    let to = Target::room(&room).map_err(|why| Problem::bad(format!("the room's name {why}")))?;
    let class = new.class;
    let payload = payload(new.text, new.json, new.base64)?;
    let message = message(body.id(&caller)?, class, new.key, new.ttl_ms, payload)?;
    one(&api, &caller, to, class, message).await
}

/// Send a message to many rooms
///
/// In each of them it is like a message to that room alone. `failed` counts those that it was not sent to. Scope
/// `send`; it counts as one message for each room.
#[utoipa::path(
    post,
    path = "/v1/messages",
    tag = "push",
    params(
        ("Idempotency-Key" = Option<String>, Header, description = "Names the request: with the same key it has one effect, for ten minutes. 1 to 255 characters of ASCII"),
    ),
    request_body = NewMessages,
    responses((status = 200, body = SentAll), BodyProblems),
    security(("api_key" = [])),
)]
pub(crate) async fn to_rooms(
    State(api): State<Api>,
    caller: Caller,
    body: Body,
) -> Result<Answered, Problem> {
    let new: NewMessages = body.json()?;
    if !(1..=ROOMS_MAX).contains(&new.rooms.len()) {
        let detail =
            format!("`rooms` has {} names; there may be 1 to {ROOMS_MAX}", new.rooms.len());
        return Err(Problem::bad(detail));
    }
    let mut seen = HashSet::new();
    let mut targets = Vec::with_capacity(new.rooms.len());
    for room in &new.rooms {
        let wrong = |why| Problem::bad(format!("`rooms` has the name `{room}`, which {why}"));
        if !seen.insert(room) {
            return Err(wrong("is there twice"));
        }
        targets.push(Target::room(room).map_err(wrong)?);
    }
    let class = new.class;
    let payload = payload(new.text, new.json, new.base64)?;
    let message = message(body.id(&caller)?, class, new.key, new.ttl_ms, payload)?;
    caller.may(Scope::Send, targets.len())?;
    let pusher = api.pusher()?;
    let work = async || {
        let sending = targets.iter().map(|to| pusher.send(to, message.clone()));
        let all = join_all(sending).await;
        // Another process may have taken it for something else.
        if all.iter().any(|sent| matches!(sent, Err(PushError::Differs))) {
            return Err(Problem::from(PushError::Differs));
        }
        let rooms = new.rooms.iter().cloned().zip(all);
        let rooms: Vec<_> = rooms.map(|(room, sent)| RoomSent::new(room, sent)).collect();
        let failed = rooms.iter().filter(|room| room.problem.is_some()).count();
        Ok(SentAll { failed, class, rooms })
    };
    if message.digest == 0 {
        return Ok(Answered(answer(&work().await?), false));
    }
    // What failed for now is not remembered, so that the rest can be sent by the same request.
    let mut partly = None;
    let worked = async || {
        let sent: SentAll = work().await?;
        let may_pass = |room: &RoomSent| room.problem.as_ref().is_some_and(Problem::may_pass);
        if sent.rooms.iter().any(may_pass) {
            partly = Some(answer(&sent));
            return Err(Problem::unavailable("some rooms"));
        }
        Ok(answer(&sent))
    };
    let id = (message.id, message.digest);
    let answered = api.repeats().answer(id, Instant::now(), worked).await;
    match (answered, partly) {
        (Err(_), Some(partly)) => Ok(Answered(partly, false)),
        (answered, _) => answered.map(|(answer, repeat)| Answered(answer, repeat)),
    }
}

/// Send a message to a user
///
/// It goes into the user's inbox, and from there to all devices that have joined it, now or later. Scope `send`.
#[utoipa::path(
    post,
    path = "/v1/users/{user}/messages",
    tag = "push",
    params(
        ("user" = String, Path, description = "The user's name, 1 to 128 bytes, without /, and not with @ in front"),
        ("Idempotency-Key" = Option<String>, Header, description = "Names the request: with the same key it has one effect, for ten minutes. 1 to 255 characters of ASCII"),
    ),
    request_body = NewUserMessage,
    responses((status = 200, body = Sent), BodyProblems),
    security(("api_key" = [])),
)]
pub(crate) async fn to_user(
    State(api): State<Api>,
    caller: Caller,
    Name(user): Name,
    body: Body,
) -> Result<Answered, Problem> {
    let new: NewUserMessage = body.json()?;
    let inbox = match new.inbox {
        Inbox::Push => Space::Push,
        Inbox::ResearchPush => Space::ResearchPush,
        Inbox::Im => Space::Im,
    };
    let wrong = |why| Problem::bad(format!("the user's name {why}"));
    let to = Target::inbox(&user, inbox).map_err(wrong)?;
    let payload = payload(new.text, new.json, new.base64)?;
    let message = message(body.id(&caller)?, Class::Signal, new.key, new.ttl_ms, payload)?;
    one(&api, &caller, to, Class::Signal, message).await
}

pub(crate) async fn one(
    api: &Api,
    caller: &Caller,
    to: Target,
    class: Class,
    message: Message,
) -> Result<Answered, Problem> {
    caller.may(Scope::Send, 1)?;
    let pusher = api.pusher()?;
    let id = (message.id, message.digest);
    let mut before = false;
    let work = async || {
        let sent = pusher.send(&to, message).await?;
        // To another process, or to this one before it was started anew.
        before = sent.repeat && id.1 != 0;
        let (status, place) = placed(sent);
        Ok(answer(&Sent { status, class, place }))
    };
    if id.1 == 0 {
        return work().await.map(|answer| Answered(answer, false));
    }
    let (answer, repeat) = api.repeats().answer(id, Instant::now(), work).await?;
    Ok(Answered(answer, repeat || before))
}

impl RoomSent {
    fn new(room: String, sent: Result<Placed, PushError>) -> Self {
        match sent {
            Ok(sent) => {
                let (status, place) = placed(sent);
                Self { room, status, place, problem: None }
            }
            Err(error) => {
                Self { room, status: Status::Failed, place: None, problem: Some(error.into()) }
            }
        }
    }
}

fn placed(sent: Placed) -> (Status, Option<String>) {
    match sent.place {
        Some(place) => (Status::Sent, Some(place.to_string())),
        None => (Status::Shed, None),
    }
}

fn answer<T: Serialize>(value: &T) -> Answer {
    // Texts and numbers can always be written.
    let body = serde_json::to_vec(value).unwrap_or_default();
    Answer { status: StatusCode::OK, body: body.into() }
}

pub(crate) fn payload(
    text: Option<String>,
    json: Option<Box<RawValue>>,
    base64: Option<String>,
) -> Result<Bytes, Problem> {
    let payload: Bytes = match (text, json, base64) {
        (Some(text), None, None) => text.into(),
        (None, Some(json), None) => Box::<str>::from(json).into_string().into(),
        (None, None, Some(text)) => {
            let wrong = |error| Problem::bad(format!("`base64` is none: {error}"));
            BASE64.decode(text).map_err(wrong)?.into()
        }
        _ => {
            let detail = "one of `text`, `json` and `base64` says what is sent, and only one";
            return Err(Problem::bad(detail));
        }
    };
    if payload.len() > limits::PAYLOAD_BYTES {
        return Err(Problem::too_large(format!(
            "what is sent has {} bytes; there may be {}",
            payload.len(),
            limits::PAYLOAD_BYTES
        )));
    }
    Ok(payload)
}

pub(crate) fn message(
    Id { id, digest }: Id,
    class: Class,
    key: Option<String>,
    ttl_ms: Option<u64>,
    payload: Bytes,
) -> Result<Message, Problem> {
    let key = key.unwrap_or_default();
    if key.len() > limits::NAME_BYTES || key.chars().any(char::is_control) {
        let detail = "`key` must have at most 128 bytes, and no control characters";
        return Err(Problem::bad(detail));
    }
    if key.starts_with('@') {
        return Err(Problem::bad("a `key` with @ in front is set by rules alone"));
    }
    if !key.is_empty() && class != Class::Signal {
        return Err(Problem::bad("only a signal may have a `key`"));
    }
    let expires_ms = match ttl_ms {
        None => 0,
        Some(ttl @ 1..=TTL_MAX_MS) => now_ms() + ttl,
        Some(ttl) => {
            let detail = format!("`ttl_ms` is {ttl}; it may be 1 to {TTL_MAX_MS}");
            return Err(Problem::bad(detail));
        }
    };
    Ok(Message { id, digest, class: class.into(), key, expires_ms, payload })
}
