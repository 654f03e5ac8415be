//! Errors of servers and connections, as the store tells them.

use redis::{ErrorKind, RedisError, ServerErrorKind};

use crate::store::StoreError;

/// What servers say when they cannot write or serve now. Older ones say it inside of the error of a
/// script.
const PASSING: [&str; 9] = [
    "OOM",
    "MISCONF",
    "READONLY",
    "NOREPLICAS",
    "LOADING",
    "BUSY",
    "MASTERDOWN",
    "CLUSTERDOWN",
    "TRYAGAIN",
];

/// The error of a command about the key `place`: is what is there wrong, or can it not be reached?
pub(super) fn failed(e: &RedisError, place: &str) -> StoreError {
    let said = e.clone().into_server_errors();
    let said = said.as_deref().and_then(|errors| errors.first()).map(|(_, error)| error);
    let wrong = match said {
        Some(error) => match error.kind() {
            Some(ServerErrorKind::ResponseError) => {
                let detail = error.details().unwrap_or_default();
                !PASSING.iter().any(|word| detail.contains(word))
            }
            Some(_) => false,
            None => error.code() == "WRONGTYPE",
        },
        None => e.kind() == ErrorKind::UnexpectedReturnType,
    };
    if wrong {
        StoreError::Corrupt { what: e.to_string(), place: place.to_owned() }
    } else {
        StoreError::Unavailable(format!("Redis: {e}"))
    }
}

/// What waiting does not help against. The library of a Cluster gives every failure to connect as one of the
/// network, with this in its text.
const LASTING: [&str; 7] = [
    "authentication",
    "wrongpass",
    "noauth",
    "noperm",
    "certificate",
    "cluster support disabled",
    "invalidclientconfig",
];

/// Whether a server that could not be used may be usable in a while, with nothing changed in the config.
pub(super) fn may_pass(e: &RedisError) -> bool {
    let passing = match e.kind() {
        ErrorKind::Io | ErrorKind::ClusterConnectionNotFound => true,
        ErrorKind::Server(kind) => matches!(
            kind,
            ServerErrorKind::BusyLoading
                | ServerErrorKind::TryAgain
                | ServerErrorKind::ClusterDown
                | ServerErrorKind::MasterDown
                | ServerErrorKind::ReadOnly
        ),
        ErrorKind::Extension => e.code().is_some_and(|code| PASSING.contains(&code)),
        _ => false,
    };
    let text = e.to_string().to_lowercase();
    passing && !LASTING.iter().any(|word| text.contains(word))
}

/// An answer that is not of the expected shape.
pub(super) fn unreadable(what: &str, place: &str) -> StoreError {
    StoreError::Corrupt { what: format!("{what} that cannot be read"), place: place.to_owned() }
}

/// Whether a connection is of no use any more, or is not known to be.
pub(super) fn lost(e: &RedisError) -> bool {
    e.is_unrecoverable_error()
        || e.is_io_error()
        // The server is a replica now; the name may lead to another one.
        || e.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly)
}

#[cfg(test)]
mod tests {
    use redis::make_extension_error;

    use super::*;

    fn is_corrupt(code: &str, detail: &str) -> bool {
        let error = make_extension_error(code.to_owned(), Some(detail.to_owned()));
        matches!(failed(&error, "key"), StoreError::Corrupt { .. })
    }

    #[test]
    fn what_is_there_is_told_from_what_cannot_be_reached() {
        assert!(is_corrupt("WRONGTYPE", "Operation against a key holding the wrong kind of value"));
        assert!(!is_corrupt("OOM", "command not allowed when used memory > 'maxmemory'"));
        assert!(!is_corrupt("NOAUTH", "Authentication required."));
        let io = RedisError::from(std::io::Error::from(std::io::ErrorKind::ConnectionReset));
        assert!(lost(&io) && matches!(failed(&io, "key"), StoreError::Unavailable(_)));
        assert!(may_pass(&io) && may_pass(&make_extension_error("MISCONF".into(), None)));
        assert!(!may_pass(&make_extension_error("NOAUTH".into(), None)));
        let in_cluster = "Password authentication failed".to_owned();
        assert!(!may_pass(&(ErrorKind::Io, "no connections", in_cluster).into()));
        let shape = RedisError::from((ErrorKind::UnexpectedReturnType, "no number"));
        assert!(!lost(&shape) && matches!(failed(&shape, "key"), StoreError::Corrupt { .. }));
    }
}
