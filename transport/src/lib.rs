//! Lanes over QUIC, and over TCP with or without TLS: one [`Connection`] type for both ends and
//! both transports. What a frame means is not known here; what is, is which lane it travels on.
//!
//! A [`Connection`] is two halves that two tasks drive: the [`Receiver`] gives each frame with its
//! lane to a [`Sink`], the [`Sender`] writes frames to a lane. Neither queues: bounds are kept by
//! the credit of the lanes (WIRE.md, "Credit"), above this crate.

mod bbr;
mod certificate;
mod congestion;
mod dial;
mod half;
mod listen;
mod path;
mod quic;
mod repair;
mod settings;
mod socket;
mod tcp;
mod tickets;
pub mod tls;

pub use dial::{DialError, Dialer};
pub use half::{Connection, End, Receiver, SendError, Sender, Sink, Stop, Transport};
pub use listen::{AcceptError, IncomingQuic, IncomingTcp, QuicListener, TcpListener};
pub use path::{Path, PathStats};
pub use quic::{Early, Settled};
pub use settings::{Settings, client_transport, server_transport};
