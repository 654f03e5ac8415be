//! Early data: what a client says along with the first packet of a handshake that continues an
//! earlier one.
//!
//! Whoever recorded such a packet can send it again. The server's tickets work once each, so a replay
//! is not taken for early data by the server that gave the ticket; what is above this crate treats
//! it as possible all the same, until the handshake is complete.

use std::sync::Arc;

use edgeway_proto::CloseCode;
use quinn::{ConnectionError, RecvStream, SendStream, Side, ZeroRttAccepted};

use super::{Halves, wire_code};
use crate::Connection;

/// Closes a client's connection that is dropped without a word: it gives this connection up, and has
/// not left. quinn by itself would say that it is done.
#[derive(Debug)]
pub(super) struct Farewell(quinn::Connection);

impl Farewell {
    pub(super) fn new(conn: &quinn::Connection) -> Option<Arc<Self>> {
        (conn.side() == Side::Client).then(|| Arc::new(Self(conn.clone())))
    }
}

impl Drop for Farewell {
    fn drop(&mut self) {
        // Where it is closed already, that word stands, for the reader of this end too.
        if self.0.close_reason().is_none() {
            self.0.close(wire_code(CloseCode::GoingAway), b"");
        }
    }
}

/// A connection that began with early data, until its handshake is complete.
pub struct Early {
    conn: quinn::Connection,
    accepted: ZeroRttAccepted,
    farewell: Option<Arc<Farewell>>,
}

impl std::fmt::Debug for Early {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Early")
    }
}

/// What became of a client's early data.
#[derive(Debug)]
pub enum Settled {
    /// The server has taken it.
    Accepted,
    /// The server has not looked at it: all is to be said again, on this.
    Rejected(Box<Connection>),
    /// The connection did not come about.
    Failed(ConnectionError),
}

impl Early {
    /// A server waits until the client has shown that it is there, now. False where the handshake
    /// has failed.
    pub async fn confirmed(self) -> bool {
        // What it resolves to means something to clients only.
        self.accepted.await;
        self.conn.close_reason().is_none()
    }

    /// A client waits for what the server says to its early data.
    pub async fn settle(self) -> Settled {
        let accepted = self.accepted.await;
        match self.conn.close_reason() {
            Some(e) => Settled::Failed(e),
            None if accepted => Settled::Accepted,
            None => {
                let halves = Halves { conn: self.conn, farewell: self.farewell };
                Settled::Rejected(Box::new(halves.connection()))
            }
        }
    }
}

/// A server's connection whose client has opened a stream before the handshake is complete.
pub(crate) fn accepted(
    conn: quinn::Connection,
    first: (SendStream, RecvStream),
    accepted: ZeroRttAccepted,
) -> Connection {
    let early = Early { conn: conn.clone(), accepted, farewell: None };
    let mut connection = super::connection(conn);
    if let crate::Receiver::Quic(receiver) = &mut connection.receiver {
        receiver.accept_bidi(first.0, first.1);
    }
    Connection { early: Some(early), ..connection }
}

/// A client's connection that may be written to before the handshake is complete.
pub(crate) fn dialled(conn: quinn::Connection, accepted: ZeroRttAccepted) -> Connection {
    let farewell = Farewell::new(&conn);
    let early = Early { conn: conn.clone(), accepted, farewell: farewell.clone() };
    Connection { early: Some(early), ..Halves { conn, farewell }.connection() }
}
