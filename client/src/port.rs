//! Where a connection's reader puts what it reads: held until it is known whose connection it
//! becomes, then given to the client.

use std::sync::{Arc, OnceLock};

use edgeway_proto::{CloseCode, Lane, RawFrame};
use edgeway_transport::{Sink, Stop};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::shared::{Incoming, Shared};

/// Frames that may come before the login is done: its answers, and what the rooms say that were joined
/// in the first flight. The credit of their lanes bounds the bytes.
const EARLY_MAX: usize = 1024;

/// Frames that are worked on at a time, under one lock.
const BATCH_MAX: usize = 512;

/// The two ends of it share this.
#[derive(Debug, Default)]
pub(crate) struct Port {
    early: Mutex<Vec<Incoming>>,
    pub(crate) arrived: Notify,
    owner: OnceLock<Arc<Shared>>,
}

impl Port {
    /// Takes what has come so far.
    pub(crate) fn take(&self) -> Vec<Incoming> {
        std::mem::take(&mut self.early.lock())
    }

    /// From now on everything goes to a client. Called while the connection is not being read.
    pub(crate) fn give_to(&self, shared: Arc<Shared>) {
        // Set once for each connection.
        let _ = self.owner.set(shared);
    }
}

/// The reader's end.
#[derive(Debug)]
pub(crate) struct PortSink {
    port: Arc<Port>,
    batch: Vec<Incoming>,
    failed: Option<Stop>,
}

impl PortSink {
    pub(crate) fn new(port: Arc<Port>) -> Self {
        Self { port, batch: Vec::new(), failed: None }
    }

    fn pass_on(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        match self.port.owner.get() {
            Some(owner) => {
                if let Err(stop) = owner.receive(&mut self.batch) {
                    owner.with(|core| core.stop(stop.clone()));
                    self.failed = Some(stop);
                }
            }
            None => {
                self.port.early.lock().append(&mut self.batch);
                self.port.arrived.notify_one();
            }
        }
        if self.batch.capacity() > 64 {
            // An idle connection holds no buffer.
            self.batch = Vec::new();
        }
    }
}

impl Sink for PortSink {
    fn frame(&mut self, lane: Lane, frame: RawFrame) -> Result<(), Stop> {
        if let Some(stop) = &self.failed {
            return Err(stop.clone());
        }
        self.batch.push(Incoming::Frame(lane, frame));
        if self.batch.len() >= BATCH_MAX {
            self.pass_on();
        }
        if self.port.owner.get().is_none()
            && self.batch.len() + self.port.early.lock().len() > EARLY_MAX
        {
            return Err(Stop::new(CloseCode::Protocol, "too many frames before the login is done"));
        }
        Ok(())
    }

    fn flush(&mut self) {
        self.pass_on();
    }

    fn ended(&mut self, lane: Lane) {
        self.batch.push(Incoming::Ended(lane));
    }
}
