//! The writing half of a QUIC connection.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use edgeway_proto::{
    Class, CloseCode, Lane,
    frame::{Close, LaneStart},
    limits::REASON_BYTES,
};
use parking_lot::Mutex;
use quinn::{ConnectionError, SendStream, Side};

use super::{Handover, early::Farewell, priority, wire_code};
use crate::{Path, SendError, repair::Repair};

/// How long a peer that acknowledges nothing is given for the last word, beside four round trips: two
/// repeats of it, each after a probe time-out of a round trip and a delayed acknowledgement.
const LAST_WORD: Duration = Duration::from_millis(100);

/// Writes to the lanes of a connection.
#[derive(Debug)]
pub struct Sender {
    /// For when it is dropped. First, since fields are dropped in order: streams that are dropped are
    /// finished, and a Session whose stream ends before the connection does has been left.
    _farewell: Option<Arc<Farewell>>,
    conn: quinn::Connection,
    shared: Arc<Mutex<Handover>>,
    streams: Vec<(Lane, SendStream)>,
    repair: Repair,
}

impl Sender {
    pub(super) fn new(
        conn: quinn::Connection,
        shared: Arc<Mutex<Handover>>,
        path: Arc<Path>,
        farewell: Option<Arc<Farewell>>,
    ) -> Self {
        let repair = Repair::new(&conn, path);
        Self { _farewell: farewell, conn, shared, streams: Vec::new(), repair }
    }

    pub(crate) async fn send(&mut self, lane: Lane, frames: &mut [Bytes]) -> Result<(), SendError> {
        self.repair.sent(&self.conn, lane, frames);
        let at = match self.streams.iter().position(|(l, _)| *l == lane) {
            Some(at) => at,
            // Boxed: once a lane, and its state is large.
            None => Box::pin(self.open(lane)).await?,
        };
        self.streams[at].1.write_all_chunks(frames).await.map_err(|e| SendError(e.to_string()))
    }

    /// The stream of a lane that was not written to yet.
    async fn open(&mut self, lane: Lane) -> Result<usize, SendError> {
        let stream = if lane.class != Class::Signal {
            let mut stream = self.conn.open_uni().await.map_err(lost)?;
            let start = LaneStart { session: u64::from(lane.session), class: lane.class };
            // Before the priority is set nothing can be sent: no await until then.
            let _ = stream.set_priority(priority(lane));
            stream.write_chunk(start.to_bytes()).await.map_err(|e| SendError(e.to_string()))?;
            stream
        } else if self.conn.side() == Side::Client {
            let (stream, recv) = self.conn.open_bi().await.map_err(lost)?;
            let mut shared = self.shared.lock();
            shared.recvs.push((lane, recv));
            if let Some(waker) = shared.receiver.take() {
                waker.wake();
            }
            stream
        } else {
            let mut shared = self.shared.lock();
            let at = shared.sends.iter().rposition(|(n, _)| *n == lane.session);
            let Some(at) = at else {
                return Err(SendError(format!("Session {} has no stream", lane.session)));
            };
            let stream = shared.sends.remove(at).1;
            if shared.sends.is_empty() {
                shared.sends = Vec::new();
            }
            stream
        };
        let _ = stream.set_priority(priority(lane));
        self.streams.reserve_exact(1);
        self.streams.push((lane, stream));
        Ok(self.streams.len() - 1)
    }

    pub(crate) fn finish(&mut self, session: u8) {
        self.streams.retain_mut(|(lane, stream)| {
            let keep = lane.session != session;
            if !keep {
                let _ = stream.finish();
            }
            keep
        });
    }

    /// Says why on the control lane first, where that has begun: what is said there is sent until it
    /// has arrived, and can say when to come back. `CONNECTION_CLOSE` is sent once, and where it is lost,
    /// or overtaken in the peer by a stateless reset, the peer never learns the reason.
    pub(crate) async fn close(mut self, code: CloseCode, reason: &str, retry_after_ms: u64) {
        let patience = self.conn.rtt() * 4 + LAST_WORD;
        let said = tokio::time::timeout(patience, self.last_word(code, reason, retry_after_ms));
        let _ = said.await;
        self.abandon(code, reason);
    }

    /// Returns when the peer has it, or has closed the connection.
    async fn last_word(&mut self, code: CloseCode, reason: &str, retry_after_ms: u64) {
        let begun = self.streams.iter().any(|(lane, _)| lane.is_control())
            || self.shared.lock().sends.iter().any(|(session, _)| *session == 0);
        if !begun {
            return;
        }
        let reason = &reason[..reason.floor_char_boundary(REASON_BYTES)];
        let frame = Close { code: code.code(), retry_after_ms, reason: reason.into() };
        if self.send(Lane::CONTROL, &mut [frame.to_bytes()]).await.is_err() {
            return;
        }
        let Some((_, stream)) = self.streams.iter_mut().find(|(lane, _)| lane.is_control()) else {
            return;
        };
        let _ = stream.finish();
        let _ = stream.stopped().await;
    }

    /// Closes at once.
    pub(crate) fn abandon(self, code: CloseCode, reason: &str) {
        self.conn.close(wire_code(code), reason.as_bytes());
    }

    /// The peer understands copies.
    pub(crate) fn enable_repair(&mut self) {
        self.repair.enable();
    }

    /// Sends the copies and probes that are due, and says when to call again.
    pub(crate) fn tend(&mut self) -> Option<Instant> {
        self.repair.tend(&self.conn)
    }

    pub(crate) fn tend_sooner(&self) -> bool {
        self.repair.is_sooner()
    }

    /// Whether nothing is heard from the peer any more: what is droppable is better kept.
    pub(crate) fn is_silent(&self) -> bool {
        self.repair.is_silent()
    }

    pub(crate) fn path(&self) -> &Arc<Path> {
        self.repair.path()
    }

    pub(crate) fn moved(&mut self) -> bool {
        self.repair.moved(&self.conn)
    }

    pub(crate) fn beat(&mut self) -> bool {
        self.repair.beat(&self.conn)
    }

    pub(crate) fn remote(&self) -> SocketAddr {
        self.conn.remote_address()
    }
}

fn lost(e: ConnectionError) -> SendError {
    SendError(e.to_string())
}
