//! Pages of history: read beside the shard, sent straight to the client.

use bytes::{Bytes, BytesMut};
use edgeway_proto::{ErrorCode, Seq, Text, frame, frame::page_flag, limits};

use crate::{
    room::RETRY_AFTER_MS,
    store::{LogId, LogPage, Store},
};

/// A request that may be answered.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) history: frame::History,
    /// Up to here the log was complete when the request was taken.
    pub(super) settled: Seq,
}

impl Request {
    /// The answer: a page, or an error. Whether the store failed.
    pub(super) async fn answer(&self, store: &dyn Store, wall_ms: u64) -> (Bytes, bool) {
        let (group, class) = (self.history.group, self.history.class);
        let limit = match self.history.limit {
            0 => limits::PAGE_MESSAGES,
            limit => limit.min(limits::PAGE_MESSAGES),
        };
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let log = LogId { group, class };
        match store.read(log, self.history.after, limit, limits::PAGE_BYTES, wall_ms).await {
            Ok(page) => (self.page(page).to_bytes(), false),
            Err(error) => {
                tracing::warn!(%error, group, %class, "history could not be read");
                let detail = "history cannot be read now";
                (error_frame(self.history.request, ErrorCode::Unavailable, detail), true)
            }
        }
    }

    /// The answer where there is nothing after what the client has.
    pub(super) fn nothing(&self) -> frame::Page {
        self.page(LogPage { upto: self.history.after, ..LogPage::default() })
    }

    fn page(&self, page: LogPage) -> frame::Page {
        let (mut more, mut upto) = (page.more, page.upto);
        let mut messages = BytesMut::new();
        let mut last = self.history.after;
        for record in &page.records {
            if !messages.is_empty() && messages.len() + record.frame.len() > limits::PAGE_BYTES {
                (more, upto) = (true, last);
                break;
            }
            messages.extend_from_slice(&record.frame);
            last = record.seq;
        }
        if !more {
            // The store has looked at everything there was, and seals, void records and chat that was
            // never stored leave no trace of themselves.
            upto = upto.max(self.settled);
        }
        let truncated = if page.truncated { page_flag::TRUNCATED } else { 0 };
        frame::Page {
            request: self.history.request,
            group: self.history.group,
            class: self.history.class,
            flags: truncated | if more { page_flag::MORE } else { 0 },
            upto,
            head: self.settled.max(upto),
            messages: messages.freeze().into(),
        }
    }
}

/// An error frame.
pub(super) fn error_frame(request: u64, code: ErrorCode, detail: &'static str) -> Bytes {
    let backs_off = matches!(code, ErrorCode::Unavailable | ErrorCode::RateLimited);
    let retry_after_ms = if backs_off { RETRY_AFTER_MS } else { 0 };
    let detail = Text::from_static(detail);
    frame::Error { request, code: code.code(), retry_after_ms, detail }.to_bytes()
}
