//! What can go wrong, by cause: whose fault it is, and whether another try may help.

use std::time::Duration;

use edgeway_proto::{CloseCode, ErrorCode, Return};

/// Whose fault an error is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The caller's: its configuration or credentials.
    Caller,
    /// The server's.
    Server,
    /// The network's.
    Network,
}

/// Why a client could not connect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// The configuration makes no sense.
    #[error("configuration: {problem}")]
    Config {
        /// What is wrong, and what would be right.
        problem: String,
    },
    /// The server's name could not be resolved.
    #[error("cannot resolve {host}: {reason}")]
    Resolve {
        /// The name.
        host: String,
        /// What the resolver said.
        reason: String,
    },
    /// The server's certificate is not trusted, or is for another name.
    #[error("the server's certificate is not accepted: {reason}")]
    Certificate {
        /// What is wrong with it.
        reason: String,
    },
    /// No transport reached the server.
    #[error("the server cannot be reached: {reason}")]
    Unreachable {
        /// What each transport met.
        reason: String,
    },
    /// Dispatch did not say where to connect, and nothing else is known.
    #[error("dispatch: {reason}")]
    Dispatch {
        /// What it said, or what came in the way.
        reason: String,
        /// Whether it may answer later.
        may_retry: bool,
    },
    /// The server did not answer in time.
    #[error("the server did not answer in time")]
    TimedOut,
    /// The login was refused.
    #[error("login refused: {reason}")]
    LoginFailed {
        /// The server's words.
        reason: String,
    },
    /// The server speaks no version of the protocol that this client speaks.
    #[error("no protocol version in common: {reason}")]
    VersionUnsupported {
        /// The server's words.
        reason: String,
    },
    /// The server closed the connection before the login was done.
    #[error("refused by the server: {code}: {reason}")]
    Refused {
        /// Its code.
        code: CloseCode,
        /// Its words.
        reason: String,
        /// When to come back, where it said so.
        retry_after: Option<Duration>,
    },
}

impl ConnectError {
    /// Whose fault it is.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Config { .. } | Self::LoginFailed { .. } | Self::VersionUnsupported { .. } => {
                Fault::Caller
            }
            Self::Dispatch { may_retry: false, .. } => Fault::Caller,
            Self::Dispatch { .. }
            | Self::Resolve { .. }
            | Self::Unreachable { .. }
            | Self::TimedOut => Fault::Network,
            Self::Certificate { .. } | Self::Refused { .. } => Fault::Server,
        }
    }

    /// Whether the same call may succeed later.
    #[must_use]
    pub fn may_retry(&self) -> bool {
        match self {
            Self::Refused { code, .. } => code.may_return() != Return::No,
            other => other.fault() == Fault::Network,
        }
    }

    /// When to come back, where the server said so.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// What a close before the end of the login means.
    pub(crate) fn closed(code: CloseCode, reason: String, retry_after_ms: u64) -> Self {
        match code {
            CloseCode::LoginFailed => Self::LoginFailed { reason },
            CloseCode::Version => Self::VersionUnsupported { reason },
            code => Self::Refused { code, reason, retry_after: after(retry_after_ms) },
        }
    }
}

/// A delay of the wire: 0 says nothing.
pub(crate) fn after(ms: u64) -> Option<Duration> {
    (ms != 0).then(|| Duration::from_millis(ms))
}

/// Why a request failed. The client goes on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The server refused it.
    #[error("refused: {code}: {detail}")]
    Refused {
        /// Its code.
        code: ErrorCode,
        /// Its words.
        detail: String,
        /// When to try again, where it said so.
        retry_after: Option<Duration>,
    },
    /// The connection was lost before the answer came; the client is reconnecting.
    #[error("the connection was lost before the answer came")]
    ConnectionLost,
    /// The Session that carries it was closed by the server.
    #[error("the Session was closed: {code}: {reason}")]
    SessionClosed {
        /// Its code.
        code: CloseCode,
        /// Its words.
        reason: String,
    },
    /// The room was left.
    #[error("the room was left")]
    NotJoined,
    /// Too many requests or Sessions at a time.
    #[error("too many at a time; wait for some to be answered")]
    TooMany,
    /// A name that is empty or longer than 128 bytes.
    #[error("a name must be 1 to 128 bytes of UTF-8")]
    BadName,
    /// The client was closed.
    #[error("the client is closed")]
    Closed,
}

impl RequestError {
    /// Whether the same call may succeed later.
    #[must_use]
    pub fn may_retry(&self) -> bool {
        match self {
            Self::Refused { code, .. } => code.may_return() != Return::No,
            Self::SessionClosed { code, .. } => code.may_return() != Return::No,
            Self::ConnectionLost | Self::TooMany => true,
            Self::NotJoined | Self::BadName | Self::Closed => false,
        }
    }
}

/// Why a login was not renewed. It goes on as it was, to its end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RenewError {
    /// The server refused it.
    #[error("refused: {code}: {reason}")]
    Refused {
        /// The code that a login would have got.
        code: CloseCode,
        /// The server's words; they begin with a name that programs can rely on.
        reason: String,
    },
    /// There is no connection, or it was lost before the answer came. The next one logs in by the new proof
    /// where the session token does not hold.
    #[error("the connection was lost before the answer came")]
    ConnectionLost,
    /// The server is of a version that renews no logins: connect anew.
    #[error("the server renews no logins")]
    Unsupported,
    /// Another one is under way.
    #[error("one at a time; wait for the answer")]
    TooMany,
    /// Above 8 KiB.
    #[error("a password or token may have 8 KiB")]
    TooLarge,
    /// The client was closed.
    #[error("the client is closed")]
    Closed,
}

impl RenewError {
    /// Whether the same call may succeed later.
    #[must_use]
    pub fn may_retry(&self) -> bool {
        match self {
            Self::Refused { code, .. } => code.may_return() != Return::No,
            Self::ConnectionLost | Self::TooMany => true,
            Self::Unsupported | Self::TooLarge | Self::Closed => false,
        }
    }
}

/// Why a message was not sent, or what became of it is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// Too much waits to be acknowledged.
    #[error("too much waits to be acknowledged")]
    Full,
    /// Chat that waited too long and made room for newer.
    #[error("dropped for newer messages")]
    Dropped,
    /// Payload above 60 KiB, or key above 128 bytes.
    #[error("too large: payloads may have 60 KiB, keys 128 bytes")]
    TooLarge,
    /// A frame of a kind that is not the app's on this Session.
    #[error("the kind of the frame is not the app's: from 0x40, beside rooms from 0x80")]
    BadKind,
    /// The server refused it.
    #[error("refused: {detail}")]
    Refused {
        /// The server's code, where it gave one.
        code: Option<ErrorCode>,
        /// Its words.
        detail: String,
    },
    /// The room was left, or its Session closed for good.
    #[error("not in the room")]
    NotJoined,
    /// The inbox of the receiver could not be joined.
    #[error("cannot reach the receiver: {0}")]
    Receiver(#[source] RequestError),
    /// It was written, but no answer was waited for any longer: it may have arrived.
    #[error("no answer came; it may have arrived")]
    NoAnswer,
    /// The client was closed before the answer came: it may have arrived.
    #[error("the client is closed")]
    Closed,
}

impl SendError {
    /// Whether the same call may succeed later.
    #[must_use]
    pub fn may_retry(&self) -> bool {
        match self {
            Self::Full | Self::Dropped | Self::NoAnswer => true,
            Self::Refused { code, .. } => code.is_some_and(|c| c.may_return() != Return::No),
            Self::Receiver(e) => e.may_retry(),
            Self::TooLarge | Self::BadKind | Self::NotJoined | Self::Closed => false,
        }
    }
}
