//! Why connections and Sessions end, and why requests fail: the numbers of the wire.

use std::fmt;

/// When a client may come back after a close.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Return {
    /// Not without a change: other credentials, another version, a repaired client.
    No,
    /// At once.
    Now,
    /// After a random delay, doubling from 1 s to 30 s, or after the frame's `retry_after_ms`.
    Backoff,
}

macro_rules! codes {
    ($(#[$tdoc:meta])* $type:ident { $( $(#[$doc:meta])* $name:ident = $n:literal, $text:literal, $ret:ident; )* }) => {
        $(#[$tdoc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $type {
            $( $(#[$doc])* $name, )*
            /// A number of a later version.
            Other(u64),
        }

        impl $type {
            /// Every code of this version.
            pub const ALL: &[Self] = &[$( Self::$name, )*];

            /// The number of the wire.
            #[must_use]
            pub const fn code(self) -> u64 {
                match self { $( Self::$name => $n, )* Self::Other(n) => n }
            }

            /// The code of a number.
            #[must_use]
            pub const fn from_code(n: u64) -> Self {
                match n { $( $n => Self::$name, )* n => Self::Other(n) }
            }

            /// The name, as in WIRE.md and in metrics.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $( Self::$name => $text, )* Self::Other(_) => "other" }
            }

            /// When the client may come back, or try again.
            #[must_use]
            pub const fn may_return(self) -> Return {
                match self { $( Self::$name => Return::$ret, )* Self::Other(_) => Return::Backoff }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{} ({})", self.name(), self.code())
            }
        }
    };
}

codes! {
    /// Why a connection or a Session ended.
    CloseCode {
        /// The peer is done.
        Normal = 0, "normal", No;
        /// The server goes away; come back, to another one where there is one.
        GoingAway = 1, "going_away", Backoff;
        /// Frames that break the protocol.
        Protocol = 2, "protocol_error", No;
        /// A frame or record above the limit.
        TooLarge = 3, "frame_too_large", No;
        /// A kind of frame that this version does not have.
        UnknownFrame = 4, "unknown_frame", No;
        /// No version in common.
        Version = 5, "version_unsupported", No;
        /// The login was refused.
        LoginFailed = 6, "login_failed", No;
        /// No hello or login within the time allowed.
        LoginTimeout = 7, "login_timeout", Backoff;
        /// Nothing was heard for the idle time.
        IdleTimeout = 8, "idle_timeout", Now;
        /// The peer does not read and its control lane is full.
        SlowReader = 9, "slow_reader", Backoff;
        /// A limit on connections, of the server or of one address.
        TooManyConnections = 10, "too_many_connections", Backoff;
        /// More was sent than the credit allows.
        CreditExceeded = 11, "credit_exceeded", No;
        /// The server failed; not the client's fault.
        Internal = 12, "internal", Backoff;
        /// A newer connection of the same user and device took over.
        Replaced = 13, "replaced", No;
        /// Removed by an operator or by the business.
        Kicked = 14, "kicked", No;
        /// The login is no longer valid.
        LoginExpired = 15, "login_expired", No;
        /// The server could not ask who may log in.
        AuthUnavailable = 16, "auth_unavailable", Backoff;
        /// Session: no backend is configured for its type.
        NoRoute = 32, "no_route", No;
        /// Session: its backend cannot be reached.
        BackendUnavailable = 33, "backend_unavailable", Backoff;
        /// Session: its backend, or one of its groups' owners, was lost. Open it again.
        BackendLost = 34, "backend_lost", Now;
        /// Session: its number was used before on this connection, or one of its type is open.
        SessionInUse = 35, "session_in_use", No;
        /// Session: more than the connection may open.
        TooManySessions = 36, "too_many_sessions", No;
        /// Session: a frame for a Session that is not open.
        NotOpen = 37, "session_not_open", No;
        /// Session: a stream that was opened and stayed silent.
        OpenTimeout = 38, "open_timeout", Backoff;
    }
}

codes! {
    /// Why one request failed; the Session goes on.
    ErrorCode {
        /// The request's fields make no sense.
        BadRequest = 1, "bad_request", No;
        /// The group is not one that this Session has joined.
        NotJoined = 2, "not_joined", No;
        /// The room does not exist and may not be created by joining.
        NoSuchRoom = 3, "no_such_room", No;
        /// The Session is in as many rooms as it may be.
        TooManyRooms = 4, "too_many_rooms", No;
        /// The user may not do this.
        Forbidden = 5, "forbidden", No;
        /// Too much, too fast.
        RateLimited = 6, "rate_limited", Backoff;
        /// The owner of the room cannot be reached, or its store is away.
        Unavailable = 7, "unavailable", Backoff;
        /// A payload, name, or the room's state above its limit.
        TooLarge = 8, "too_large", No;
        /// The room has as many members as it may have.
        RoomFull = 9, "room_full", Backoff;
        /// The room was closed.
        RoomClosed = 10, "room_closed", No;
    }
}

impl CloseCode {
    /// Whether a client whose connection ends with this code, from either side, is expected back: it
    /// has lost the connection and not left.
    #[must_use]
    pub const fn expects_return(self) -> bool {
        matches!(self, Self::Replaced) || !matches!(self.may_return(), Return::No)
    }
}
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_found_by_its_number_and_has_a_name_of_its_own() {
        let mut names = std::collections::HashSet::new();
        for code in CloseCode::ALL {
            assert_eq!(CloseCode::from_code(code.code()), *code);
            assert!(names.insert(code.name()));
        }
        for code in ErrorCode::ALL {
            assert_eq!(ErrorCode::from_code(code.code()), *code);
        }
        assert_eq!(CloseCode::from_code(999), CloseCode::Other(999));
    }
}
