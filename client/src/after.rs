//! What comes after a connection, by how it has ended.

use std::time::{Duration, Instant};

use edgeway_proto::{CloseCode, Return};
use edgeway_transport::End;

use crate::{ConnectError, error::after};

/// How long after a race the login of the loser may still reach the server and push this
/// connection out.
const RACE_ECHO: Duration = Duration::from_secs(10);

/// The delay before coming back where the code asks for one and names none.
const BACKOFF: Duration = Duration::from_secs(1);

/// What comes after a connection.
pub(crate) enum After {
    /// A new connection, after a delay; where the server said so, at another place.
    Again { reason: String, delay: Option<Duration>, endpoint: Option<String> },
    /// Nothing.
    Over(CloseCode, String),
}

pub(crate) fn again(reason: String) -> After {
    After::Again { reason, delay: None, endpoint: None }
}

pub(crate) fn after_end(end: End, raced: bool, begun: Instant) -> After {
    match end {
        End::Peer { code: CloseCode::Replaced, reason, .. }
            if raced && begun.elapsed() < RACE_ECHO =>
        {
            // Most likely by this client's own login over the transport that lost the race.
            again(reason)
        }
        End::Peer { code, reason, retry_after_ms } => match code.may_return() {
            // A server that ends with this code is done; the app did not ask for it.
            _ if code == CloseCode::Normal => again("closed by the server".into()),
            Return::No => After::Over(code, reason),
            Return::Now => again(format!("{code}: {reason}")),
            Return::Backoff => {
                let delay = Some(after(retry_after_ms).unwrap_or(BACKOFF));
                After::Again { reason: format!("{code}: {reason}"), delay, endpoint: None }
            }
        },
        // What a server sends by mistake today it may not send tomorrow.
        End::Stopped(stop) => After::Again {
            reason: format!("the server broke the protocol: {}", stop.reason),
            delay: Some(BACKOFF),
            endpoint: None,
        },
        End::Lost(reason) => again(reason),
        End::Local => again("closed by this end".into()),
    }
}

/// The code of an error after which no other try may succeed.
pub(crate) fn verdict(e: &ConnectError) -> Option<CloseCode> {
    match e {
        ConnectError::LoginFailed { .. } => Some(CloseCode::LoginFailed),
        ConnectError::VersionUnsupported { .. } => Some(CloseCode::Version),
        ConnectError::Refused { code, .. } if code.may_return() == Return::No => Some(*code),
        // A certificate can be put right, a name come back, while the app runs.
        _ => None,
    }
}
