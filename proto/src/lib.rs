//! The protocols of Edgeway: the client's wire protocol (`WIRE.md`), whose codec is here, and the
//! gRPC contracts between processes, whose types are generated from `*.proto`.
//!
//! Nothing here does I/O or reads a clock.

mod assemble;
mod close;
pub mod frame;
mod ids;
pub mod limits;
pub mod record;
pub mod varint;
mod wire;

pub use close::{CloseCode, ErrorCode, Return};
pub use frame::{ALPN, Frame, FrameBuffer, RawFrame, VERSION};
pub use ids::{AckStatus, Class, Lane, NoSeq, Seq};
pub use wire::{DecodeError, Rest, Text};

#[allow(missing_docs, clippy::all, clippy::pedantic)] // generated
mod generated {
    include!(concat!(env!("OUT_DIR"), "/edgeway.rs"));
}

/// Who may log in: `auth.proto`.
pub use generated::edgeway::auth::v1 as auth;
/// The contract between the gateway and any backend: `link.proto`.
pub use generated::edgeway::link::v1 as link;
/// The contract between access and the owners of rooms: `rooms.proto`.
pub use generated::edgeway::rooms::v1 as rooms;
/// The health check that gRPC has for everyone: `health.proto`.
pub use generated::grpc::health::v1 as health;

impl From<Class> for link::Class {
    fn from(class: Class) -> Self {
        match class {
            Class::Signal => Self::Signal,
            Class::Binary => Self::Binary,
            Class::Chat => Self::Chat,
        }
    }
}

impl From<link::Class> for Class {
    fn from(class: link::Class) -> Self {
        match class {
            link::Class::Signal => Self::Signal,
            link::Class::Binary => Self::Binary,
            link::Class::Chat => Self::Chat,
        }
    }
}

impl From<Seq> for link::Position {
    fn from(seq: Seq) -> Self {
        Self { epoch: seq.epoch, counter: seq.counter }
    }
}

impl From<link::Position> for Seq {
    fn from(p: link::Position) -> Self {
        Self { epoch: p.epoch, counter: p.counter }
    }
}

impl DecodeError {
    /// The code that the connection is closed with.
    #[must_use]
    pub const fn close_code(&self) -> CloseCode {
        match self {
            Self::Truncated { .. } | Self::Invalid { .. } => CloseCode::Protocol,
            Self::UnknownKind(_) => CloseCode::UnknownFrame,
            Self::TooLarge { .. } => CloseCode::TooLarge,
        }
    }
}
