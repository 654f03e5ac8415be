//! Messages to all who listen to a topic.

use axum::extract::State;
use edgeway_backend::push::{Inbox, Target};
use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::{
    api::{Answered, Api},
    body::Body,
    caller::{Caller, Name},
    problem::{BodyProblems, Problem},
    send::{Class, Sent, message, one, payload},
};

/// On Sessions of which type a topic is heard.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Hearers {
    /// `push`.
    #[default]
    Push,
    /// `research_push`.
    ResearchPush,
}

impl From<Hearers> for Inbox {
    fn from(hearers: Hearers) -> Self {
        match hearers {
            Hearers::Push => Self::Push,
            Hearers::ResearchPush => Self::ResearchPush,
        }
    }
}

/// A message to all who listen to a topic, now or later. It is a signal.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"text": "School is closed tomorrow", "ttl_ms": 86_400_000}))]
pub(crate) struct NewTopicMessage {
    /// As in a message to a room, and so is all that follows.
    text: Option<String>,
    #[schema(value_type = Option<Object>)]
    json: Option<Box<RawValue>>,
    base64: Option<String>,
    #[serde(default)]
    inbox: Hearers,
    #[schema(max_length = 128)]
    key: Option<String>,
    #[schema(minimum = 1, maximum = 31_622_400_000_u64)]
    ttl_ms: Option<u64>,
}

/// Send a message to a topic
///
/// It goes to all who have joined the topic, and who joins later may read it. Scope `send`.
#[utoipa::path(
    post,
    path = "/v1/topics/{topic}/messages",
    tag = "push",
    params(
        ("topic" = String, Path, description = "The topic's name, 1 to 122 bytes"),
        ("Idempotency-Key" = Option<String>, Header, description = "Names the request: with the same key it has one effect, for ten minutes. 1 to 255 characters of ASCII"),
    ),
    request_body = NewTopicMessage,
    responses((status = 200, body = Sent), BodyProblems),
    security(("api_key" = [])),
)]
pub(crate) async fn to_topic(
    State(api): State<Api>,
    caller: Caller,
    Name(topic): Name,
    body: Body,
) -> Result<Answered, Problem> {
    let new: NewTopicMessage = body.json()?;
    let wrong = |why| Problem::bad(format!("the topic's name {why}"));
    let to = Target::topic(&topic, new.inbox.into()).map_err(wrong)?;
    topic_message(&api, &caller, &body, to, new).await
}

/// Send a message to everyone
///
/// It goes to all who have joined `@everyone`, the topic that each login may join. Scope `send`.
#[utoipa::path(
    post,
    path = "/v1/everyone/messages",
    tag = "push",
    params(
        ("Idempotency-Key" = Option<String>, Header, description = "Names the request: with the same key it has one effect, for ten minutes. 1 to 255 characters of ASCII"),
    ),
    request_body = NewTopicMessage,
    responses((status = 200, body = Sent), BodyProblems),
    security(("api_key" = [])),
)]
pub(crate) async fn to_everyone(
    State(api): State<Api>,
    caller: Caller,
    body: Body,
) -> Result<Answered, Problem> {
    let new: NewTopicMessage = body.json()?;
    let to = Target::everyone(new.inbox.into());
    topic_message(&api, &caller, &body, to, new).await
}

async fn topic_message(
    api: &Api,
    caller: &Caller,
    body: &Body,
    to: Target,
    new: NewTopicMessage,
) -> Result<Answered, Problem> {
    let payload = payload(new.text, new.json, new.base64)?;
    let message = message(body.id(caller)?, Class::Signal, new.key, new.ttl_ms, payload)?;
    one(api, caller, to, Class::Signal, message).await
}
