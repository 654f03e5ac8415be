//! The sending side: what may have to be sent again, and when.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use edgeway_proto::{
    Lane,
    frame::{Ack, Credit, Presence, measure},
};

use super::{
    COPY_HEADER_BYTES, PathView, Repaired, put_copy, repaired,
    schedule::{if_unanswered, stages},
};

/// What is kept for copies. A room that signals faster than this on a dead path is past repair;
/// the stream still carries everything.
const KEPT_BYTES: usize = 32 * 1024;
const KEPT_ITEMS: usize = 128;

/// Acks and presence that are kept until they have arrived: those of one round trip of a busy client. A lost
/// one holds up the signals behind it on its lane.
const KEPT_RIDERS: usize = 32;

/// A frame is not repaired for longer than this: the stream will do.
const LATE: Duration = Duration::from_secs(10);

/// Tells whether a packet that was sent at about this time has been acknowledged.
pub(crate) trait Acked {
    /// See the trait.
    fn acked(&self, sent: Instant) -> bool;
}

#[derive(Debug)]
struct Item {
    lane: Lane,
    what: Repaired,
    /// Kept until it has arrived, for the probes of a silence: signals, and what stands between them.
    kept: bool,
    /// Nobody waits for it: it is sent again only with the signals behind it.
    rides: bool,
    first: u64,
    frames: Bytes,
    sent: Instant,
    /// Stages passed.
    stage: usize,
    /// `None` after the last stage: kept for the case of a silence.
    due: Option<Instant>,
    /// When it or a copy of it was sent last but one and last.
    again: [Option<Instant>; 2],
}

impl Item {
    fn arrived(&self, acked: &impl Acked) -> bool {
        acked.acked(self.sent) || self.again.iter().flatten().any(|at| acked.acked(*at))
    }

    fn schedule(&mut self, path: PathView, now: Instant) {
        self.due = None;
        if self.rides {
            return;
        }
        for (n, stage) in stages(path, self.what).enumerate().skip(self.stage) {
            let due = self.sent + stage;
            if due > now {
                (self.stage, self.due) = (n, Some(due));
                return;
            }
        }
        self.stage = usize::MAX;
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Copies {
    /// Frames sent on each lane that is repaired.
    counts: Vec<(Lane, u64)>,
    items: VecDeque<Item>,
    bytes: usize,
    probed: Option<Instant>,
    /// Copies made, for statistics.
    made: u64,
}

impl Copies {
    /// Counts what is written to a lane, and keeps it where it is to be repaired (`path`). Whether it is
    /// what somebody waits for: a signal, and not only what comes in passing.
    pub(crate) fn sent(
        &mut self,
        lane: Lane,
        frames: &Bytes,
        path: Option<PathView>,
        max_bytes: usize,
        now: Instant,
    ) -> bool {
        let Some(what) = repaired(lane) else { return false };
        let passing = what == Repaired::Signal && in_passing(frames);
        let what = if passing { Repaired::Stroke } else { what };
        // Credit, on the control lane, is waited for, but not as much as signals are.
        let rides = passing && !lane.is_control();
        let ack = rides && frames.first() == Some(&Ack::KIND);
        let at = match self.counts.iter().position(|(l, _)| *l == lane) {
            Some(at) => at,
            None => {
                self.counts.push((lane, 0));
                self.counts.len() - 1
            }
        };
        let first = self.counts[at].1;
        self.counts[at].1 += count(frames);
        let Some(path) = path else { return false };
        let fits = frames.len() + COPY_HEADER_BYTES <= max_bytes;
        if !fits || self.bytes + frames.len() > KEPT_BYTES || self.items.len() == KEPT_ITEMS {
            return what == Repaired::Signal;
        }
        // Of a path that loses nothing only acks are kept, for a silence: only a client that talks gets
        // them, and what idle ones are told costs no memory.
        let kept = what == Repaired::Signal || ack || (rides && path.doubtful);
        if rides && kept {
            self.forget_a_rider();
        }
        let mut item = Item {
            lane,
            what,
            kept,
            rides,
            first,
            frames: frames.clone(),
            sent: now,
            stage: 0,
            due: None,
            again: [None; 2],
        };
        item.schedule(path, now);
        if item.due.is_some() || kept {
            self.bytes += item.frames.len();
            self.items.push_back(item);
        }
        what == Repaired::Signal
    }

    /// The next datagram to be sent now, if any: copies that are due, as many as fit.
    pub(crate) fn due(
        &mut self,
        path: PathView,
        acked: &impl Acked,
        max_bytes: usize,
        now: Instant,
    ) -> Option<Bytes> {
        let mut out = BytesMut::new();
        let mut signals = None;
        for item in &mut self.items {
            if item.due.is_none_or(|due| due > now) {
                continue;
            }
            if out.len() + COPY_HEADER_BYTES + item.frames.len() > max_bytes {
                continue;
            }
            let stage = item.due.map_or(Duration::ZERO, |due| due - item.sent);
            if if_unanswered(stage, path) && item.arrived(acked) {
                item.due = None;
                continue;
            }
            put_copy(&mut out, item.lane, item.first, &item.frames);
            self.made += 1;
            item.again = [item.again[1], Some(now)];
            item.stage = item.stage.saturating_add(1);
            item.schedule(path, now);
            if item.what == Repaired::Signal {
                signals = Some(item.lane);
            }
        }
        if let Some(lane) = signals {
            self.put_riders(&mut out, lane, acked, max_bytes, now);
        }
        self.forget(acked, now);
        (!out.is_empty()).then(|| out.freeze())
    }

    /// What a signal that is written to a lane now stands behind: to be sent with it, so that it waits for
    /// nothing that was lost before.
    pub(crate) fn riders(
        &mut self,
        lane: Lane,
        acked: &impl Acked,
        max_bytes: usize,
        now: Instant,
    ) -> Option<Bytes> {
        let mut out = BytesMut::new();
        self.put_riders(&mut out, lane, acked, max_bytes, now);
        (!out.is_empty()).then(|| out.freeze())
    }

    fn put_riders(
        &mut self,
        out: &mut BytesMut,
        lane: Lane,
        acked: &impl Acked,
        max_bytes: usize,
        now: Instant,
    ) {
        for item in self.items.iter_mut().filter(|i| i.rides && i.lane == lane) {
            if out.len() + COPY_HEADER_BYTES + item.frames.len() > max_bytes {
                return;
            }
            if !item.arrived(acked) {
                put_copy(out, item.lane, item.first, &item.frames);
                self.made += 1;
                item.again = [item.again[1], Some(now)];
            }
        }
    }

    /// Whether there is nothing that may have to be sent again.
    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// During a silence: a datagram with the oldest signals (and acks) that have not arrived, or an empty one
    /// where there are none, as often as a probe is due.
    pub(crate) fn probe(
        &mut self,
        acked: &impl Acked,
        max_bytes: usize,
        every: Duration,
        now: Instant,
    ) -> Option<Bytes> {
        if self.probed.is_some_and(|at| now.saturating_duration_since(at) < every) {
            return None;
        }
        self.probed = Some(now);
        self.forget(acked, now);
        let mut out = BytesMut::new();
        for item in self.items.iter_mut().filter(|i| i.kept) {
            if out.len() + COPY_HEADER_BYTES + item.frames.len() > max_bytes {
                break;
            }
            put_copy(&mut out, item.lane, item.first, &item.frames);
            self.made += 1;
            item.again = [item.again[1], Some(now)];
        }
        if out.is_empty() {
            // A copy of nothing: it only asks for an ack.
            put_copy(&mut out, Lane::CONTROL, 0, &Bytes::new());
        }
        Some(out.freeze())
    }

    /// Copies made so far.
    pub(crate) fn made(&self) -> u64 {
        self.made
    }

    /// The next probe is due at once.
    pub(crate) fn probe_at_once(&mut self) {
        self.probed = None;
    }

    /// When the next copy is due.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.items.iter().filter_map(|item| item.due).min()
    }

    /// When the next probe is due.
    pub(crate) fn next_probe(&self, every: Duration, now: Instant) -> Instant {
        self.probed.map_or(now, |at| at + every)
    }

    /// Makes room for another rider where there are as many as are kept.
    fn forget_a_rider(&mut self) {
        if self.items.iter().filter(|i| i.rides).count() >= KEPT_RIDERS
            && let Some(at) = self.items.iter().position(|i| i.rides)
            && let Some(oldest) = self.items.remove(at)
        {
            self.bytes -= oldest.frames.len();
        }
    }

    fn forget(&mut self, acked: &impl Acked, now: Instant) {
        let bytes = &mut self.bytes;
        self.items.retain(|item| {
            let late = now.saturating_duration_since(item.sent) > LATE;
            let done = item.due.is_none() && !item.kept;
            // An item whose early copies are still to come keeps them: the ack of one packet of
            // several sent at the same time does not say which.
            let arrived = item.due.is_none() && item.arrived(acked);
            let keep = !(late || done || arrived);
            if !keep {
                *bytes -= item.frames.len();
            }
            keep
        });
        if self.items.is_empty() {
            self.items = VecDeque::new();
        }
    }
}

/// Whether nobody waits for any of these frames: acks of strokes, credit, and presence are many. They
/// are copied like strokes, or only with the signals behind them, so that a lost one does not hold
/// those up for long, and a thousand pupils who come into a room cost no more than they must.
fn in_passing(frames: &Bytes) -> bool {
    let mut at = 0;
    while let Ok(Some((header, body))) = measure(&frames[at..]) {
        let kind = frames[at];
        at += header + body;
        if at > frames.len() || ![Ack::KIND, Credit::KIND, Presence::KIND].contains(&kind) {
            return false;
        }
    }
    at > 0
}

fn count(frames: &Bytes) -> u64 {
    let (mut at, mut n) = (0, 0);
    while let Ok(Some((header, body))) = measure(&frames[at..])
        && at + header + body <= frames.len()
    {
        at += header + body;
        n += 1;
    }
    n
}

#[cfg(test)]
mod tests {
    use edgeway_proto::{Class, frame::Ping};

    use super::*;

    struct Arrived(bool);
    impl Acked for Arrived {
        fn acked(&self, _: Instant) -> bool {
            self.0
        }
    }

    const LANE: Lane = Lane::new(1, Class::Signal);
    const EVERY: Duration = Duration::from_millis(50);

    fn ack() -> Ack {
        Ack {
            group: 1,
            class: Class::Binary,
            id: 1,
            status: edgeway_proto::AckStatus::Accepted,
            seq: edgeway_proto::Seq::ZERO,
            expected: 0,
        }
    }

    /// The numbers of the copies in a datagram.
    fn numbers(datagram: Option<Bytes>) -> Vec<u64> {
        let mut datagram = datagram.unwrap_or_default();
        let mut numbers = Vec::new();
        while let Some((_, first, _)) = super::super::take_copy(&mut datagram) {
            numbers.push(first);
        }
        numbers
    }

    fn lossy() -> PathView {
        PathView { rtt: Duration::from_millis(100), loss: 0.1, doubtful: true, busy: true }
    }

    fn times(arrived: bool, path: PathView, lane: Lane) -> Vec<u128> {
        let now = Instant::now();
        let mut copies = Copies::default();
        let frame = Ping { token: 1 }.to_bytes();
        copies.sent(lane, &frame, Some(path), 1200, now);
        (0..1000)
            .map(|ms| now + Duration::from_millis(ms))
            .filter(|at| copies.due(path, &Arrived(arrived), 1200, *at).is_some())
            .map(|at| (at - now).as_millis())
            .collect()
    }

    #[test]
    fn a_signal_is_copied_on_schedule_and_later_only_if_nothing_was_heard_of_it() {
        assert_eq!(times(true, lossy(), LANE), [6, 14, 26, 45, 75]);
        assert_eq!(times(false, lossy(), LANE), [6, 14, 26, 45, 75, 150, 230, 400]);
    }

    #[test]
    fn chat_is_never_copied_and_strokes_are_copied_little() {
        assert_eq!(times(false, lossy(), Lane::new(1, Class::Chat)), [0u128; 0]);
        assert_eq!(times(false, lossy(), Lane::new(1, Class::Binary)), [10]);
    }

    #[test]
    fn a_clean_path_is_sent_nothing_again_while_it_answers() {
        let clean = PathView { loss: 0.0, doubtful: false, ..lossy() };
        assert_eq!(times(true, clean, LANE), [0u128; 0]);
    }

    #[test]
    fn what_comes_in_passing_is_copied_like_strokes_unless_a_signal_is_with_it() {
        let mut frames = BytesMut::new();
        Credit { session: 1, class: Class::Chat, total: 70 }.encode(&mut frames);
        Credit { session: 1, class: Class::Binary, total: 70 }.encode(&mut frames);
        assert!(in_passing(&frames.clone().freeze()));
        Ping { token: 1 }.encode(&mut frames);
        assert!(!in_passing(&frames.freeze()));
        assert!(!in_passing(&Bytes::new()));
    }

    #[test]
    fn numbers_count_frames_and_not_writes() {
        let now = Instant::now();
        let mut copies = Copies::default();
        let mut two = BytesMut::new();
        Ping { token: 1 }.encode(&mut two);
        Ping { token: 2 }.encode(&mut two);
        copies.sent(LANE, &two.freeze(), Some(lossy()), 1200, now);
        copies.sent(LANE, &Ping { token: 3 }.to_bytes(), Some(lossy()), 1200, now);
        assert_eq!(copies.items.iter().map(|i| i.first).collect::<Vec<_>>(), [0, 2]);
    }

    #[test]
    fn a_probe_brings_the_acks_that_signals_stand_behind() {
        let now = Instant::now();
        let clean = PathView { loss: 0.0, doubtful: false, ..lossy() };
        let mut copies = Copies::default();
        for _ in 0..100 {
            copies.sent(LANE, &ack().to_bytes(), Some(clean), 1200, now);
        }
        assert_eq!(copies.items.len(), KEPT_RIDERS);
        copies.sent(LANE, &Ping { token: 1 }.to_bytes(), Some(clean), 1200, now);
        let probe = copies.probe(&Arrived(false), 1200, EVERY, now);
        assert_eq!(numbers(probe), (68..=100).collect::<Vec<_>>());
        assert!(copies.due(clean, &Arrived(true), 1200, now).is_none());
        assert!(copies.items.is_empty(), "arrived");
    }

    #[test]
    fn acks_are_sent_again_only_with_a_signal_behind_them() {
        let now = Instant::now();
        let at = |ms| now + Duration::from_millis(ms);
        let mut copies = Copies::default();
        copies.sent(LANE, &ack().to_bytes(), Some(lossy()), 1200, now);
        copies.sent(LANE, &ack().to_bytes(), Some(lossy()), 1200, now);
        assert_eq!(copies.next_due(), None);
        copies.sent(LANE, &Ping { token: 1 }.to_bytes(), Some(lossy()), 1200, at(50));
        let with = copies.riders(LANE, &Arrived(false), 1200, at(50));
        assert_eq!(numbers(with), [0, 1]);
        let other = Lane::new(2, Class::Signal);
        assert_eq!(copies.riders(other, &Arrived(false), 1200, at(50)), None);
        assert_eq!(numbers(copies.due(lossy(), &Arrived(false), 1200, at(60))), [2, 0, 1]);
        assert_eq!(numbers(copies.due(lossy(), &Arrived(true), 1200, at(75))), [2]);
        assert_eq!(copies.items.len(), 1, "what has arrived is forgotten");
    }

    #[test]
    fn what_is_kept_is_bounded_and_forgotten() {
        let now = Instant::now();
        let mut copies = Copies::default();
        for token in 0..1000 {
            copies.sent(LANE, &Ping { token }.to_bytes(), Some(lossy()), 1200, now);
        }
        assert!(copies.items.len() <= KEPT_ITEMS && copies.bytes <= KEPT_BYTES);
        copies.due(lossy(), &Arrived(false), 1200, now + LATE + Duration::from_millis(1));
        assert!(copies.items.is_empty() && copies.bytes == 0);
    }

    #[test]
    fn a_silence_is_probed_with_what_has_not_arrived() {
        let now = Instant::now();
        let mut copies = Copies::default();
        copies.sent(LANE, &Ping { token: 7 }.to_bytes(), Some(lossy()), 1200, now);
        let first = copies.probe(&Arrived(false), 1200, EVERY, now);
        assert!(first.is_some_and(|d| d.len() > 4));
        assert_eq!(copies.probe(&Arrived(false), 1200, EVERY, now), None);
        let later = now + EVERY;
        assert!(copies.probe(&Arrived(false), 1200, EVERY, later).is_some());
    }
}
