//! The repair of one connection: reads the path's state and the clock, and sends what the pure parts
//! decide.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use edgeway_proto::Lane;

use super::{
    PathView,
    copies::{Acked, Copies},
    estimate::Estimate,
    silence::{Seen, Silence},
};
use crate::{
    Path,
    congestion::{self, Realtime},
};

/// How often quinn's counters are read, at most: it takes the connection's lock.
const READ_EVERY: Duration = Duration::from_millis(100);

/// Bytes of a datagram that only asks for an ack: above what is taken for an ack itself.
const BEAT_BYTES: usize = 66;

/// See the module.
#[derive(Debug)]
pub(crate) struct Repair {
    enabled: bool,
    /// Where the connection has a controller of ours.
    controller: Option<Arc<congestion::Path>>,
    path: Arc<Path>,
    remote: SocketAddr,
    estimate: Estimate,
    view: PathView,
    read: Instant,
    copies: Copies,
    silence: Silence,
    /// What `tend` said last, and whether anything was written since.
    told: Option<Instant>,
    written: bool,
}

impl Repair {
    pub(crate) fn new(conn: &quinn::Connection, path: Arc<Path>) -> Self {
        let now = Instant::now();
        let rtt = conn.rtt();
        let controller = Realtime::path(conn.congestion_state());
        path.controlled_by(controller.clone());
        path.update(&conn.stats().path);
        Self {
            enabled: false,
            controller,
            path,
            remote: conn.remote_address(),
            estimate: Estimate::new(now),
            view: PathView { rtt, loss: 0.0, doubtful: true, busy: false },
            read: now,
            copies: Copies::default(),
            silence: Silence::default(),
            told: None,
            written: false,
        }
    }

    pub(crate) fn enable(&mut self) {
        self.enabled = true;
    }

    pub(crate) fn path(&self) -> &Arc<Path> {
        &self.path
    }

    /// Says at once where this end is now. False where the peer understands no copies.
    pub(crate) fn moved(&mut self, conn: &quinn::Connection) -> bool {
        if !self.enabled || conn.max_datagram_size().is_none() {
            return false;
        }
        self.silence.moved(Instant::now());
        self.copies.probe_at_once();
        true
    }

    /// Asks for an ack. False where the peer understands no copies.
    pub(crate) fn beat(&mut self, conn: &quinn::Connection) -> bool {
        let Some(max) = conn.max_datagram_size().filter(|_| self.enabled) else { return false };
        self.written = true;
        send(conn, padded(Bytes::new(), BEAT_BYTES.min(max)));
        true
    }

    pub(crate) fn is_silent(&self) -> bool {
        self.silence.is_silent()
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
        let due = if self.silence.is_probed() { None } else { self.copies.next_due() };
        due.is_some_and(|due| self.told.is_none_or(|told| due < told))
    }

    /// Counts what is about to be written to a lane, and plans its copies.
    pub(crate) fn sent(&mut self, conn: &quinn::Connection, lane: Lane, frames: &[Bytes]) {
        self.written = true;
        let now = Instant::now();
        if let Some(controller) = &self.controller {
            controller.asked(now);
        }
        if super::repaired(lane).is_none() {
            return;
        }
        let max = self.enabled.then(|| conn.max_datagram_size()).flatten();
        self.read(conn, now);
        for frames in frames {
            let path = max.map(|_| self.view);
            let signal = self.copies.sent(lane, frames, path, max.unwrap_or(0), now);
            // Taken with the stream's frame into one packet, most often.
            if signal
                && self.view.doubtful
                && let (Some(max), Some(acked)) = (max, &self.controller)
                && let Some(datagram) = self.copies.riders(lane, &**acked, max, now)
            {
                send(conn, datagram);
            }
        }
        if let Some(controller) = &self.controller
            && !self.copies.is_empty()
        {
            controller.watch(true);
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
        let now = Instant::now();
        self.read(conn, now);
        let path = Arc::clone(self.controller.as_ref()?);
        let seen = Seen {
            unanswered_since: path.unanswered_since(),
            answered: path.answered(),
            rtt: self.view.rtt,
        };
        self.silence.step(seen, now);
        path.silence(self.silence.is_probed());
        if let Some(every) = self.silence.probe_every(now) {
            if let Some(probe) = self.copies.probe(&*path, max, every, now) {
                let room = if self.silence.has_moved() { max } else { 0 };
                send(conn, padded(probe, room));
                self.path.copied(self.copies.made());
            }
            return Some(self.copies.next_probe(every, now));
        }
        while let Some(datagram) = self.copies.due(self.view, &*path, max, now) {
            send(conn, datagram);
            self.path.copied(self.copies.made());
        }
        if self.copies.is_empty() {
            path.watch(false);
        }
        [self.copies.next_due(), seen.silent_at()].into_iter().flatten().min()
    }

    /// Looks at the path that the connection has now.
    fn follow(&mut self, conn: &quinn::Connection) {
        let controller = Realtime::path(conn.congestion_state());
        if let Some(controller) = &controller {
            controller.silence(self.silence.is_probed());
            controller.watch(!self.copies.is_empty());
        }
        self.path.controlled_by(controller.clone());
        self.controller = controller;
    }

    fn read(&mut self, conn: &quinn::Connection, now: Instant) {
        if now.saturating_duration_since(self.read) < READ_EVERY {
            return;
        }
        self.read = now;
        let remote = conn.remote_address();
        if remote != self.remote {
            // quinn made a new controller for the new path: the old one hears of nothing any more.
            self.remote = remote;
            self.path.migrated();
            self.follow(conn);
        }
        let stats = conn.stats().path;
        self.path.update(&stats);
        self.estimate.update(now, stats.sent_packets, stats.lost_packets);
        self.view = PathView {
            rtt: stats.rtt,
            loss: self.estimate.loss(),
            doubtful: self.estimate.doubtful(),
            busy: self.estimate.busy(),
        };
    }
}

/// Fills a datagram up with copies of nothing (three zeros each), up to a size.
fn padded(datagram: Bytes, to: usize) -> Bytes {
    let fill = to.saturating_sub(datagram.len()) / 3 * 3;
    if fill == 0 {
        return datagram;
    }
    let mut out = BytesMut::with_capacity(datagram.len() + fill);
    out.extend_from_slice(&datagram);
    out.resize(datagram.len() + fill, 0);
    out.freeze()
}

fn send(conn: &quinn::Connection, datagram: Bytes) {
    // Where it cannot be sent the stream still carries everything.
    let _ = conn.send_datagram(datagram);
}

impl Acked for congestion::Path {
    fn acked(&self, sent: Instant) -> bool {
        self.arrived(sent)
    }
}

#[cfg(test)]
mod tests {
    use edgeway_proto::Lane;

    use super::*;
    use crate::repair::{put_copy, take_copy};

    #[test]
    fn padding_is_copies_of_nothing() {
        let mut probe = BytesMut::new();
        put_copy(&mut probe, Lane::CONTROL, 7, &Bytes::from_static(b"one"));
        let probe = probe.freeze();
        assert_eq!(padded(probe.clone(), 0), probe);
        let mut filled = padded(probe, 1162);
        assert!((1160..=1162).contains(&filled.len()));
        assert_eq!(take_copy(&mut filled), Some((Lane::CONTROL, 7, Bytes::from_static(b"one"))));
        while let Some(copy) = take_copy(&mut filled) {
            assert_eq!(copy, (Lane::CONTROL, 0, Bytes::new()));
        }
        assert!(filled.is_empty());
    }
}
