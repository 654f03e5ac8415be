//! All of a room's history as JSON Lines, in the order of time: read page by page while it is sent.

use std::{collections::VecDeque, time::Duration};

use axum::{
    body::Body,
    extract::State,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use edgeway_backend::push::{PushError, Target, WeakPusher};
use edgeway_proto::{Class as WireClass, Seq, frame::Deliver};
use futures_util::stream::{Stream, try_unfold};
use serde::{Deserialize, Serialize};
use tokio::sync::{
    OwnedSemaphorePermit,
    mpsc::{self, error::SendTimeoutError},
};
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
/// How long a part waits for the reader to take it.
const STALLED: Duration = Duration::from_secs(60);
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
    let first = export.chunk().await?;
    let mut response = Body::from_stream(sent_while_read(first, export)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/jsonl"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// What is sent in parts, each made when the one before is on its way.
trait Parts: Send + 'static {
    /// The next one; empty at the end.
    fn next(&mut self) -> impl Future<Output = Result<Bytes, PushError>> + Send;
}

/// Why an answer breaks off.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error(transparent)]
    Read(#[from] PushError),
    #[error("the reader took nothing for {} s", STALLED.as_secs())]
    Stalled,
}

/// The parts, from a task of their own: it ends where nobody takes them, and with it what the export holds, however
/// long the connection stands.
fn sent_while_read(
    first: Bytes,
    mut parts: impl Parts,
) -> impl Stream<Item = Result<Bytes, Broken>> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut part = Ok(first);
        loop {
            let last = part.as_ref().map_or(true, Bytes::is_empty);
            let sent = sender.send_timeout(part, STALLED).await;
            if last || sent.is_err() {
                if matches!(sent, Err(SendTimeoutError::Timeout(_))) {
                    metrics::counter!("edgeway_push_exports_stalled_total").increment(1);
                }
                return;
            }
            part = parts.next().await;
        }
    });
    try_unfold(receiver, |mut receiver| async move {
        // The last part is empty: without it there is more, which nobody reads.
        let part = receiver.recv().await.ok_or(Broken::Stalled)??;
        Ok((!part.is_empty()).then_some((part, receiver)))
    })
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

impl Parts for Export {
    async fn next(&mut self) -> Result<Bytes, PushError> {
        self.chunk().await
    }
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::{pin::pin, sync::Arc};

    use futures_util::TryStreamExt;

    use super::*;

    /// So many parts more, and what tells that it is gone.
    struct Counted(u32, #[expect(dead_code, reason = "it is dropped")] Arc<()>);

    impl Parts for Counted {
        async fn next(&mut self) -> Result<Bytes, PushError> {
            let Some(left) = self.0.checked_sub(1) else { return Ok(Bytes::new()) };
            self.0 = left;
            Ok(Bytes::from_static(b"part"))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_reads_slowly_gets_all_of_it() {
        let first = Bytes::from_static(b"part");
        let mut parts = pin!(sent_while_read(first, Counted(5, Arc::default())));
        let mut read = 0;
        while parts.try_next().await.unwrap().is_some() {
            read += 1;
            tokio::time::sleep(STALLED - Duration::from_secs(1)).await;
        }
        assert_eq!(read, 6);
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_gets_an_answer_that_breaks_off_and_holds_nothing_meanwhile() {
        let held = Arc::new(());
        let first = Bytes::from_static(b"part");
        let mut parts = pin!(sent_while_read(first, Counted(5, Arc::clone(&held))));
        assert!(parts.try_next().await.unwrap().is_some());
        tokio::time::sleep(STALLED * 2).await;
        assert_eq!(Arc::strong_count(&held), 1);
        assert!(parts.try_next().await.unwrap().is_some(), "what was on its way");
        assert!(matches!(parts.try_next().await, Err(Broken::Stalled)));
    }

    #[tokio::test(start_paused = true)]
    async fn who_goes_away_ends_it() {
        let held = Arc::new(());
        drop(sent_while_read(Bytes::from_static(b"part"), Counted(5, Arc::clone(&held))));
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(Arc::strong_count(&held), 1);
    }
}
