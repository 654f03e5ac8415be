//! What comes out of a Session: items for owners, frames for its client, and its end.

use bytes::Bytes;
use edgeway_proto::{
    Class, CloseCode, DecodeError, ErrorCode, Seq, Text,
    frame::{Error, Left},
    link::{self, Stream},
    rooms::{self, to_owner_item::Item},
};

use super::owners::OwnerId;

/// When a client may ask again for what could not be reached.
pub(super) const RETRY_MS: u64 = 1_000;

/// What is to be sent.
#[derive(Debug)]
pub(super) enum Out {
    /// To an owner, on a stream.
    Owner(OwnerId, Stream, Item),
    /// Frames for the client, on its signal lane.
    Client(Bytes),
}

/// The Session cannot go on: what its client is told.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fatal {
    pub(super) code: CloseCode,
    pub(super) reason: String,
}

impl Fatal {
    pub(super) fn replaced() -> Self {
        let reason = "a newer connection of the same user and device took over".to_owned();
        Self { code: CloseCode::Replaced, reason }
    }
}

impl From<DecodeError> for Fatal {
    fn from(e: DecodeError) -> Self {
        Self { code: e.close_code(), reason: e.to_string() }
    }
}

pub(super) fn protocol(reason: &str) -> Fatal {
    Fatal { code: CloseCode::Protocol, reason: reason.to_owned() }
}

/// The stream of a link that carries a class.
pub(super) const fn stream_of(class: Class) -> Stream {
    match class {
        Class::Signal => Stream::Control,
        Class::Binary | Class::Chat => Stream::Bulk,
    }
}

pub(super) fn have(class: Class, seq: Seq) -> rooms::Have {
    rooms::Have { class: link::Class::from(class).into(), position: Some(seq.into()) }
}

/// An error frame.
pub(super) fn error(request: u64, code: ErrorCode, detail: impl Into<String>) -> Out {
    let detail = Text::from(detail.into());
    Out::Client(Error { request, code: code.code(), retry_after_ms: 0, detail }.to_bytes())
}

/// The client is out of a group, and is to join it again.
pub(super) fn left(group: u64, reason: &'static str) -> Out {
    let (code, reason) = (CloseCode::BackendLost.code(), Text::from_static(reason));
    Out::Client(Left { request: 0, group, code, reason }.to_bytes())
}

/// The error of a join whose owner cannot be reached.
pub(super) fn unavailable(request: u64, retry_after_ms: u64) -> Out {
    let code = ErrorCode::Unavailable.code();
    let detail = Text::from_static("the room cannot be reached now");
    Out::Client(Error { request, code, retry_after_ms, detail }.to_bytes())
}
