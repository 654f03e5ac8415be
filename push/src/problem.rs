//! Errors as JSON (RFC 9457), of all that a process serves beside dispatch. Each kind is documented in docs/PUSH.md.

use std::collections::BTreeMap;

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use edgeway_backend::push::PushError;
use edgeway_proto::ErrorCode;
use serde::{Serialize, Serializer};
use utoipa::{
    IntoResponses, ToSchema,
    openapi::{ContentBuilder, Ref, RefOr, ResponseBuilder},
};

/// In front of kinds.
const URN: &str = "urn:edgeway:problem:";

/// What is wrong with a request, or with its time.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Problem {
    /// `urn:edgeway:problem:` and the kind, which can be relied on.
    #[serde(rename = "type", serialize_with = "urn")]
    #[schema(value_type = String, example = "urn:edgeway:problem:bad_request")]
    kind: &'static str,
    /// For a person: the kind in words.
    title: &'static str,
    /// The status of the answer.
    #[serde(serialize_with = "number")]
    #[schema(value_type = u16, example = 400)]
    status: StatusCode,
    /// For a person: what is wrong here, and what would be right.
    detail: String,
    /// After which it may be tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, nullable = false)]
    retry_after_ms: Option<u64>,
}

fn urn<S: Serializer>(kind: &&'static str, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&format!("{URN}{kind}"))
}

fn number<S: Serializer>(status: &StatusCode, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_u16(status.as_u16())
}

/// Milliseconds after which what may pass is tried again.
const LATER_MS: u64 = 1_000;

impl Problem {
    /// A problem of one of the kinds.
    pub fn new(
        status: StatusCode,
        kind: &'static str,
        title: &'static str,
        detail: impl Into<String>,
    ) -> Self {
        Self { kind, title, status, detail: detail.into(), retry_after_ms: None }
    }

    /// The request is wrong.
    pub fn bad(detail: impl Into<String>) -> Self {
        let title = "The request is not right";
        Self::new(StatusCode::BAD_REQUEST, "bad_request", title, detail)
    }

    /// It may be tried again in a moment.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        let title = "Not now";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", title, detail).later(LATER_MS)
    }

    /// There is no such path.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", "Not found", detail)
    }

    /// Not with this method.
    pub fn method(method: &str) -> Self {
        let detail = format!("{method} is not answered here; the header Allow says what is");
        let title = "The method is not allowed";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", title, detail)
    }

    pub(crate) fn too_large(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", "Too large", detail)
    }

    pub(crate) fn later(mut self, ms: u64) -> Self {
        self.retry_after_ms = Some(ms);
        self
    }

    /// Whether a repeat may have another answer.
    pub(crate) fn may_pass(&self) -> bool {
        self.retry_after_ms.is_some()
    }
}

impl From<PushError> for Problem {
    fn from(error: PushError) -> Self {
        match error {
            PushError::Unavailable(detail) => Self::unavailable(detail),
            PushError::Differs => {
                let detail = "this Idempotency-Key was used for another request; take a new one";
                let title = "The key was used before";
                let status = StatusCode::UNPROCESSABLE_ENTITY;
                Self::new(status, "idempotency_key_reused", title, detail)
            }
            PushError::Refused(code, detail) => match code {
                ErrorCode::NoSuchRoom => {
                    let detail = format!("{detail}; rooms.create says that rooms are made by API");
                    Self::new(StatusCode::NOT_FOUND, "no_such_room", "No such room", detail)
                }
                ErrorCode::TooLarge => Self::too_large(detail),
                ErrorCode::RoomClosed => {
                    Self::new(StatusCode::CONFLICT, "room_closed", "The room is closed", detail)
                }
                _ => Self::bad(detail),
            },
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        metrics::counter!("edgeway_http_problems_total", "problem" => self.kind).increment(1);
        // Texts and numbers can always be written.
        let body = serde_json::to_string(&self).unwrap_or_default();
        let mut response = (self.status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(ms) = self.retry_after_ms {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(ms.div_ceil(1000)));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// What every request of this API may be answered with, for the document.
pub(crate) struct Problems;

/// The same for those with a body.
pub(crate) struct BodyProblems;

const ALL: [(&str, &str); 7] = [
    ("400", "`bad_request`: a field or name is wrong"),
    ("401", "`no_api_key`, `unknown_api_key`"),
    ("403", "`no_scope`: the API key may not do this"),
    ("404", "`no_such_room`, `not_found`; or this process does not have the role push"),
    ("409", "`room_closed`"),
    ("429", "`over_limit`: more than the API key may; Retry-After says when"),
    ("503", "`unavailable`: the owner or the store is away; Retry-After says when"),
];

const OF_BODIES: [(&str, &str); 4] = [
    ("408", "`request_timeout`: the body took too long"),
    ("413", "`too_large`: body, payload, name or the room's state"),
    ("415", "`unsupported_media_type`: it takes application/json"),
    ("422", "`idempotency_key_reused`: the same Idempotency-Key came with another body"),
];

type Responses = BTreeMap<String, RefOr<utoipa::openapi::Response>>;

fn documented(all: impl IntoIterator<Item = (&'static str, &'static str)>) -> Responses {
    let response = |text| {
        let schema = Ref::from_schema_name("Problem");
        let content = ContentBuilder::new().schema(Some(schema)).build();
        ResponseBuilder::new().description(text).content("application/problem+json", content)
    };
    all.into_iter().map(|(code, text)| (code.to_owned(), response(text).build().into())).collect()
}

impl IntoResponses for Problems {
    fn responses() -> Responses {
        documented(ALL)
    }
}

impl IntoResponses for BodyProblems {
    fn responses() -> Responses {
        documented(ALL.into_iter().chain(OF_BODIES))
    }
}
