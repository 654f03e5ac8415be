//! All of a room's history as JSON Lines, in the order of time: read page by page while it is sent.

use std::collections::VecDeque;

use axum::{
    body::Body,
    extract::State,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use edgeway_backend::push::{PushError, Target, WeakPusher};
use edgeway_proto::{Class as WireClass, Seq, frame::Deliver};
use futures_util::stream::try_unfold;
use serde::{Deserialize, Serialize};
use tokio::sync::OwnedSemaphorePermit;
use utoipa::{IntoParams, ToSchema};

use crate::{
    api::Api,
    caller::{Caller, Name, Params},
    keys::Scope,
    problem::{Problem, Problems},
    read::{Class, Stored, room, times},
};

/// Messages of a page.
const PAGE: u32 = 200;
/// Bytes that are sent at a time, about.
const CHUNK_BYTES: usize = 64 * 1024;

/// Which part of a history.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Range {
    /// `signal`, `binary` (strokes) or `chat`; all of them unless said otherwise.
    #[param(inline)]
    class: Option<Class>,
    /// Milliseconds since 1970: nothing that was accepted earlier.
    #[param(minimum = 1)]
    since_ms: Option<u64>,
    /// Milliseconds since 1970: nothing that was accepted then or later.
    #[param(minimum = 1)]
    until_ms: Option<u64>,
}

/// A line.
#[derive(Debug, Serialize, ToSchema)]
struct Exported {
    class: &'static str,
    #[serde(flatten)]
    message: Stored,
}

/// Export a room's history
///
/// As JSON Lines: a message on each line, as in a page of history and with its `class`, oldest first; what was accepted at
/// one time by classes. It is sent while it is read: an answer that breaks off is not whole. It ends with what was stored
/// when its end was reached. Scope `read`.
#[utoipa::path(
    get,
    path = "/v1/rooms/{room}/export",
    tag = "read",
    params(("room" = String, Path, description = "The room's name"), Range),
    responses(
        (status = 200, body = String, content_type = "application/jsonl", description = "The messages"),
        Problems,
    ),
    security(("api_key" = [])),
)]
pub(crate) async fn export(
    State(api): State<Api>,
    caller: Caller,
    Name(name): Name,
    Params(range): Params<Range>,
) -> Result<Response, Problem> {
    let of = room(&name)?;
    let (since_ms, until_ms) = times(range.since_ms, range.until_ms)?;
    caller.may(Scope::Read, 1)?;
    let classes = match range.class {
        Some(class) => vec![class.into()],
        None => WireClass::ALL.to_vec(),
    };
    let lanes = classes.into_iter().map(|class| Lane::new(class, until_ms)).collect();
    let pusher = api.pusher()?.clone();
    let turn = api.export_turn()?;
    let mut export = Export { pusher, of, since_ms, lanes, _turn: turn };
    // What cannot be read at all is a problem, and no answer that breaks off.
    let mut first = Some(export.chunk().await?);
    let chunks = try_unfold(export, move |mut export| {
        let first = first.take();
        async move {
            let chunk = match first {
                Some(chunk) => chunk,
                None => export.chunk().await?,
            };
            Ok::<_, PushError>((!chunk.is_empty()).then_some((chunk, export)))
        }
    });
    let mut response = Body::from_stream(chunks).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/jsonl"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// An export that goes on.
struct Export {
    pusher: WeakPusher,
    of: Target,
    since_ms: u64,
    lanes: Vec<Lane>,
    _turn: OwnedSemaphorePermit,
}

/// How far a class is.
struct Lane {
    class: WireClass,
    until_ms: u64,
    /// Read, and not sent yet.
    page: VecDeque<Deliver>,
    after: Seq,
    more: bool,
}

impl Export {
    /// The next lines; none at the end.
    async fn chunk(&mut self) -> Result<Bytes, PushError> {
        let mut lines = Vec::new();
        while lines.len() < CHUNK_BYTES {
            for lane in &mut self.lanes {
                lane.fill(&self.pusher, &self.of, self.since_ms).await?;
            }
            let next = self.lanes.iter_mut().filter(|lane| !lane.page.is_empty());
            let next = next.min_by_key(|lane| lane.page.front().map(|message| message.time_ms));
            let Some(lane) = next else { break };
            let class = lane.class.name();
            let Some(message) = lane.page.pop_front() else { break };
            // Texts and numbers can always be written.
            let line = serde_json::to_vec(&Exported { class, message: message.into() });
            lines.extend_from_slice(&line.unwrap_or_default());
            lines.push(b'\n');
        }
        Ok(lines.into())
    }
}

impl Lane {
    const fn new(class: WireClass, until_ms: u64) -> Self {
        Self { class, until_ms, page: VecDeque::new(), after: Seq::ZERO, more: true }
    }

    /// Reads on where all that was read is sent.
    async fn fill(
        &mut self,
        pusher: &WeakPusher,
        of: &Target,
        since_ms: u64,
    ) -> Result<(), PushError> {
        while self.page.is_empty() && self.more {
            // Later pages begin behind a place that is behind this time.
            let since_ms = if self.after == Seq::ZERO { since_ms } else { 0 };
            let page = pusher.history(of, self.class, self.after, since_ms, PAGE).await?;
            let read = page.messages.len();
            let wanted = page.messages.into_iter().take_while(|one| one.time_ms < self.until_ms);
            self.page.extend(wanted);
            self.more = page.more && self.page.len() == read;
            self.after = page.upto;
        }
        Ok(())
    }
}
