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

/// Acks that are kept for the case of a silence: those of one round trip of a busy client. A lost
/// one holds up the signals behind it on its lane.
const KEPT_ACKS: usize = 32;

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
    /// Counts what is written to a lane, and keeps it where it is to be repaired (`path`).
    pub(crate) fn sent(
        &mut self,
        lane: Lane,
        frames: &Bytes,
        path: Option<PathView>,
        max_bytes: usize,
        now: Instant,
    ) {
        let Some(what) = repaired(lane) else { return };
        let signal = what == Repaired::Signal;
        let what = if in_passing(frames) { Repaired::Stroke } else { what };
        // Only a client that talks gets acks: what idle ones are told costs no memory.
        let ack = signal && frames.first() == Some(&Ack::KIND);
        let kept = what == Repaired::Signal || ack;
        let at = match self.counts.iter().position(|(l, _)| *l == lane) {
            Some(at) => at,
            None => {
                self.counts.push((lane, 0));
                self.counts.len() - 1
            }
        };
        let first = self.counts[at].1;
        self.counts[at].1 += count(frames);
        let Some(path) = path else { return };
        let fits = frames.len() + COPY_HEADER_BYTES <= max_bytes;
        if !fits || self.bytes + frames.len() > KEPT_BYTES || self.items.len() == KEPT_ITEMS {
            return;
        }
        if kept && what == Repaired::Stroke {
            self.forget_an_ack();
        }
        let mut item = Item {
            lane,
            what,
            kept,
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
        }
        self.forget(acked, now);
        (!out.is_empty()).then(|| out.freeze())
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

    /// Makes room for another ack where there are as many as are kept.
    fn forget_an_ack(&mut self) {
        let is_ack = |i: &Item| i.kept && i.what == Repaired::Stroke;
        if self.items.iter().filter(|i| is_ack(i)).count() >= KEPT_ACKS
            && let Some(at) = self.items.iter().position(is_ack)
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

/// Whether nobody waits for any of these frames: acks of strokes and chat, credit, and presence are
/// many. They are copied like strokes, so that a lost one does not hold up the signals behind it for
/// long, and a thousand pupils who come into a room cost no more than they must.
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
        assert_eq!(times(true, lossy(), LANE), [8, 20, 40, 75]);
        assert_eq!(times(false, lossy(), LANE), [8, 20, 40, 75, 150, 230, 400]);
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
        let ack = Ack {
            group: 1,
            class: Class::Chat,
            id: 1,
            status: edgeway_proto::AckStatus::Accepted,
            seq: edgeway_proto::Seq::ZERO,
            expected: 0,
        };
        for _ in 0..100 {
            copies.sent(LANE, &ack.to_bytes(), Some(clean), 1200, now);
        }
        assert_eq!(copies.items.len(), KEPT_ACKS);
        copies.sent(LANE, &Ping { token: 1 }.to_bytes(), Some(clean), 1200, now);
        let mut probe = copies.probe(&Arrived(false), 1200, EVERY, now).unwrap();
        let mut numbers = Vec::new();
        while let Some((_, first, _)) = super::super::take_copy(&mut probe) {
            numbers.push(first);
        }
        assert_eq!(numbers, (68..=100).collect::<Vec<_>>());
        assert!(copies.due(clean, &Arrived(true), 1200, now).is_none());
        assert!(copies.items.is_empty(), "arrived");
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
