//! The writing half of a QUIC connection.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use bytes::Bytes;
use edgeway_proto::{Class, CloseCode, Lane, frame::LaneStart};
use parking_lot::Mutex;
use quinn::{ConnectionError, SendStream, Side};

use super::{Handover, early::Farewell, priority, wire_code};
use crate::{Path, SendError, repair::Repair};

/// Writes to the lanes of a connection.
#[derive(Debug)]
pub struct Sender {
    conn: quinn::Connection,
    shared: Arc<Mutex<Handover>>,
    streams: Vec<(Lane, SendStream)>,
    repair: Repair,
    /// For when it is dropped.
    _farewell: Option<Arc<Farewell>>,
}

impl Sender {
    pub(super) fn new(
        conn: quinn::Connection,
        shared: Arc<Mutex<Handover>>,
        path: Arc<Path>,
        farewell: Option<Arc<Farewell>>,
    ) -> Self {
        let repair = Repair::new(&conn, path);
        Self { conn, shared, streams: Vec::new(), repair, _farewell: farewell }
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

    pub(crate) fn close(self, code: CloseCode, reason: &str) {
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
