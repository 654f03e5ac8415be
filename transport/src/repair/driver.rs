//! The repair of one connection: reads the path's state and the clock, and sends what the pure parts
//! decide.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use edgeway_proto::Lane;

use super::{
    PathView,
    copies::{Acked, Copies},
    estimate::Estimate,
};
use crate::congestion::{Path, Realtime};

/// How often quinn's counters are read, at most: it takes the connection's lock.
const READ_EVERY: Duration = Duration::from_millis(100);

/// A path that answers nothing for this many round trips is silent, but not before
/// [`SILENCE_MIN`]: an isolated loss is answered for after a probe timeout.
const SILENCE_RTTS: f64 = 3.0;
const SILENCE_MIN: Duration = Duration::from_millis(250);

/// See the module.
#[derive(Debug)]
pub(crate) struct Repair {
    enabled: bool,
    /// Where the connection has a controller of ours.
    path: Option<Arc<Path>>,
    estimate: Estimate,
    view: PathView,
    read: Instant,
    copies: Copies,
    silent: bool,
    /// What `tend` said last, and whether anything was written since.
    told: Option<Instant>,
    written: bool,
}

impl Repair {
    pub(crate) fn new(conn: &quinn::Connection) -> Self {
        let now = Instant::now();
        let rtt = conn.rtt();
        Self {
            enabled: false,
            path: Realtime::path(conn.congestion_state()),
            estimate: Estimate::new(now),
            view: PathView { rtt, loss: 0.0, doubtful: true, busy: false },
            read: now,
            copies: Copies::default(),
            silent: false,
            told: None,
            written: false,
        }
    }

    pub(crate) fn enable(&mut self) {
        self.enabled = true;
    }

    pub(crate) fn is_silent(&self) -> bool {
        self.silent
    }

    /// Whether something was written that is to be tended before the time that
    /// [`tend`](Self::tend) said.
    pub(crate) fn is_sooner(&self) -> bool {
        if !self.enabled || !self.written {
            return false;
        }
        if self.told.is_none() {
            return true;
        }
        let due = if self.silent { None } else { self.copies.next_due() };
        due.is_some_and(|due| self.told.is_none_or(|told| due < told))
    }

    /// Counts what is about to be written to a lane, and plans its copies.
    pub(crate) fn sent(&mut self, conn: &quinn::Connection, lane: Lane, frames: &[Bytes]) {
        self.written = true;
        if super::repaired(lane).is_none() {
            return;
        }
        let now = Instant::now();
        let max = self.enabled.then(|| conn.max_datagram_size()).flatten();
        if max.is_some() {
            self.read(conn, now);
        }
        for frames in frames {
            let path = max.map(|_| self.view);
            self.copies.sent(lane, frames, path, max.unwrap_or(0), now);
        }
        if let Some(path) = &self.path
            && !self.copies.is_empty()
        {
            path.watch(true);
        }
    }

    /// Sends copies and probes that are due. The time at which to call again.
    pub(crate) fn tend(&mut self, conn: &quinn::Connection) -> Option<Instant> {
        self.written = false;
        self.told = self.tend_now(conn);
        self.told
    }

    fn tend_now(&mut self, conn: &quinn::Connection) -> Option<Instant> {
        let max = conn.max_datagram_size().filter(|_| self.enabled)?;
        let path = Arc::clone(self.path.as_ref()?);
        let now = Instant::now();
        let unanswered = path.unanswered(now);
        let patience = self.view.rtt.mul_f64(SILENCE_RTTS).max(SILENCE_MIN);
        let silent = unanswered >= patience;
        if silent != self.silent {
            self.silent = silent;
            path.silence(silent);
        }
        self.read(conn, now);
        if silent {
            if let Some(probe) = self.copies.probe(&*path, max, now) {
                send(conn, probe);
            }
            return Some(self.copies.next_probe(now));
        }
        while let Some(datagram) = self.copies.due(self.view, &*path, max, now) {
            send(conn, datagram);
        }
        if self.copies.is_empty() {
            path.watch(false);
        }
        let watch = (!unanswered.is_zero()).then(|| now + (patience - unanswered));
        [self.copies.next_due(), watch].into_iter().flatten().min()
    }

    fn read(&mut self, conn: &quinn::Connection, now: Instant) {
        if now.saturating_duration_since(self.read) < READ_EVERY {
            return;
        }
        self.read = now;
        let stats = conn.stats().path;
        self.estimate.update(now, stats.sent_packets, stats.lost_packets);
        self.view = PathView {
            rtt: stats.rtt,
            loss: self.estimate.loss(),
            doubtful: self.estimate.doubtful(),
            busy: self.estimate.busy(),
        };
    }
}

fn send(conn: &quinn::Connection, datagram: Bytes) {
    // Where it cannot be sent the stream still carries everything.
    let _ = conn.send_datagram(datagram);
}

impl Acked for Path {
    fn acked(&self, sent: Instant) -> bool {
        self.arrived(sent)
    }
}
