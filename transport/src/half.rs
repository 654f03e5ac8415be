//! The two halves of a connection, whichever transport carries it.

use std::{fmt, net::SocketAddr, sync::Arc, time::Instant};

use bytes::Bytes;
use edgeway_proto::{CloseCode, DecodeError, Lane, RawFrame};

use crate::{Path, quic, tcp};

/// What carries a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// QUIC: a stream for each lane.
    Quic,
    /// TCP: records for the lanes, or, for a legacy client, none.
    Tcp,
}

impl Transport {
    /// The name used in metrics, logs and on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::Tcp => "tcp",
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A connection whose TLS handshake is done (or, with early data, begun) and whose first frame is still
/// to come.
#[derive(Debug)]
pub struct Connection {
    /// Reads. One task drives it.
    pub receiver: Receiver,
    /// Writes. Another task drives it.
    pub sender: Sender,
    /// The peer's address at the handshake; QUIC may migrate later.
    pub remote: SocketAddr,
    /// What carries it.
    pub transport: Transport,
    /// Where it began with early data: its handshake is still under way.
    pub early: Option<quic::Early>,
}

/// Where a [`Receiver`] puts what it reads. Calls do not block: what a peer may send ahead is
/// bounded by its credit.
pub trait Sink {
    /// A frame arrived on a lane.
    ///
    /// # Errors
    /// The peer broke the protocol: the connection is to be closed with the code.
    fn frame(&mut self, lane: Lane, frame: RawFrame) -> Result<(), Stop>;

    /// All that arrived together has been given: pass it on.
    fn flush(&mut self);

    /// The peer will send no more on this lane (QUIC: the stream was finished or reset).
    fn ended(&mut self, lane: Lane);
}

/// Why this end closes the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stop {
    /// What the peer is told.
    pub code: CloseCode,
    /// For a person.
    pub reason: String,
}

impl Stop {
    /// A code and its reason.
    pub fn new(code: CloseCode, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into() }
    }
}

impl From<DecodeError> for Stop {
    fn from(e: DecodeError) -> Self {
        Self::new(e.close_code(), e.to_string())
    }
}

/// How a connection ended, as its receiver saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The peer closed it.
    Peer {
        /// Its code.
        code: CloseCode,
        /// For a person.
        reason: String,
        /// Milliseconds after which a client may come back; 0 leaves it to the code.
        retry_after_ms: u64,
    },
    /// This end is to close it: the [`Sink`] or the codec said so.
    Stopped(Stop),
    /// The path is gone, or the peer without a word.
    Lost(String),
    /// This end closed it.
    Local,
}

/// Why a write failed: the connection is, or is about to be, over. The [`Receiver`] says why.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the connection does not take more: {0}")]
pub struct SendError(pub String);

/// Reads frames until the connection ends.
#[derive(Debug)]
pub enum Receiver {
    /// Over QUIC.
    Quic(Box<quic::Receiver>),
    /// Over TCP.
    Tcp(Box<tcp::Receiver>),
}

impl Receiver {
    /// Gives each frame to `sink` until the connection ends. Dropping the future stops reading
    /// and loses at most frames that were not given yet.
    pub async fn run<S: Sink>(&mut self, sink: &mut S) -> End {
        match self {
            Self::Quic(receiver) => receiver.run(sink).await,
            Self::Tcp(receiver) => receiver.run(sink).await,
        }
    }

    /// Reads and drops what still comes until the peer is done. For after [`Sender::close`]: TCP
    /// would otherwise reset the connection, and the peer would lose what was written last.
    pub async fn drain(&mut self) {
        if let Self::Tcp(receiver) = self {
            receiver.drain().await;
        }
    }
}

/// Writes frames to lanes.
#[derive(Debug)]
pub enum Sender {
    /// Over QUIC.
    Quic(Box<quic::Sender>),
    /// Over TCP.
    Tcp(tcp::Sender),
}

impl Sender {
    /// Writes whole frames to a lane; each item holds one or more of them, at most
    /// [`edgeway_proto::limits::RECORD_BYTES`] together. Returns when the transport has taken
    /// all. A client's first write to a Session's signal lane opens its stream.
    ///
    /// # Errors
    /// The connection is over. Not cancel-safe: a dropped future may have written a part.
    pub async fn send(&mut self, lane: Lane, frames: &mut [Bytes]) -> Result<(), SendError> {
        match self {
            Self::Quic(sender) => sender.send(lane, frames).await,
            Self::Tcp(sender) => sender.send(lane, frames).await,
        }
    }

    /// Hands what was written to the kernel. QUIC does so by itself.
    ///
    /// # Errors
    /// The connection is over.
    pub async fn flush(&mut self) -> Result<(), SendError> {
        match self {
            Self::Quic(_) => Ok(()),
            Self::Tcp(sender) => sender.flush().await,
        }
    }

    /// The peer has announced that it understands copies (`param::REPAIR`): signals and strokes are
    /// repaired from now on, where the path calls for it.
    pub fn enable_repair(&mut self) {
        if let Self::Quic(sender) = self {
            sender.enable_repair();
        }
    }

    /// Sends the copies and probes that are due, and says when to call again; `None` for not
    /// before something has been sent.
    pub fn tend(&mut self) -> Option<Instant> {
        match self {
            Self::Quic(sender) => sender.tend(),
            Self::Tcp(_) => None,
        }
    }

    /// Whether something was written since that is to be tended before the time that
    /// [`tend`](Self::tend) said.
    #[must_use]
    pub fn tend_sooner(&self) -> bool {
        match self {
            Self::Quic(sender) => sender.tend_sooner(),
            Self::Tcp(_) => false,
        }
    }

    /// Whether the path has fallen silent: what may be dropped should not be sent now, since it
    /// would only fill the window that the first packet after the silence needs.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        match self {
            Self::Quic(sender) => sender.is_silent(),
            Self::Tcp(_) => false,
        }
    }

    /// What is known of the path; `None` over TCP, where the kernel keeps that to itself.
    #[must_use]
    pub fn path(&self) -> Option<&Arc<Path>> {
        match self {
            Self::Quic(sender) => Some(sender.path()),
            Self::Tcp(_) => None,
        }
    }

    /// This end has moved to another socket or network: says so at once, in a packet that is
    /// large enough for the peer to answer freely before it has validated the path, and again with
    /// each probe until there is an answer. To be tended afterwards. False where it cannot be said
    /// so (TCP, or a peer that understands no copies).
    pub fn moved(&mut self) -> bool {
        match self {
            Self::Quic(sender) => sender.moved(),
            Self::Tcp(_) => false,
        }
    }

    /// Sends a little that only asks for an ack of the transport, so that bindings of NATs on the
    /// path stay and its end is noticed. False where that is not possible.
    pub fn beat(&mut self) -> bool {
        match self {
            Self::Quic(sender) => sender.beat(),
            Self::Tcp(_) => false,
        }
    }

    /// Ends a Session's lanes: its number may then be used again.
    pub fn finish(&mut self, session: u8) {
        if let Self::Quic(sender) = self {
            sender.finish(session);
        }
    }

    /// Closes the connection and tells the peer why. Returns when the peer has been told or
    /// cannot be.
    pub async fn close(self, code: CloseCode, reason: &str, retry_after_ms: u64) {
        match self {
            Self::Quic(sender) => sender.close(code, reason, retry_after_ms).await,
            Self::Tcp(sender) => sender.close(code, reason, retry_after_ms).await,
        }
    }

    /// Ends the connection after a write that was given up, a part of which may be written: only
    /// QUIC, whose streams do not share it, can still say why.
    pub fn abandon(self, code: CloseCode, reason: &str) {
        if let Self::Quic(sender) = self {
            sender.abandon(code, reason);
        }
    }

    /// The peer's present address.
    #[must_use]
    pub fn remote(&self) -> Option<SocketAddr> {
        match self {
            Self::Quic(sender) => Some(sender.remote()),
            Self::Tcp(_) => None,
        }
    }
}
