//! What waits to be written: a queue for each lane, strict priority between classes, and the peer's
//! credit.

use std::collections::VecDeque;

use bytes::Bytes;
use edgeway_proto::{Class, Lane};

use super::RoomId;

/// Frames of the control lane that may wait. Above it pings of the peer are not answered (it does
/// not read what it asks for), and the app's fail.
const CONTROL_MAX: usize = 64;

/// What one item of a lane's queue stands for.
#[derive(Debug)]
pub(crate) enum Item {
    /// A whole frame.
    Frame(Bytes),
    /// The next message of a room that is not written yet; numbered and encoded when it goes.
    Message(RoomId),
}

/// A lane as this end writes it.
#[derive(Debug)]
pub(crate) struct OutLane {
    pub(crate) lane: Lane,
    sent: u64,
    total: u64,
    pub(crate) queue: VecDeque<Item>,
    /// Bytes of frames in the queue.
    pub(crate) frame_bytes: usize,
    /// The Session's lanes end when the queue is empty.
    parting: bool,
}

impl OutLane {
    pub(crate) fn open(&self) -> bool {
        self.sent < self.total && !self.queue.is_empty()
    }

    pub(crate) fn took(&mut self, bytes: usize) {
        self.sent += bytes as u64;
    }

    pub(crate) fn parted(&self) -> bool {
        self.parting && self.queue.is_empty()
    }

    pub(crate) const fn may_send(&self) -> bool {
        self.sent < self.total
    }
}

/// All that waits on one connection.
#[derive(Debug, Default)]
pub(crate) struct Lanes {
    pub(crate) control: VecDeque<Bytes>,
    /// Few: three for each Session at most. Sorted by class, so that the first that may send is the
    /// most urgent; those of one class take turns.
    lanes: Vec<OutLane>,
    /// Sessions whose streams are to be finished.
    pub(crate) finish: VecDeque<u8>,
    /// What the peer grants at first, by class.
    initial: [u64; 3],
}

impl Lanes {
    /// A new connection.
    pub(crate) fn reset(&mut self, initial: [u64; 3]) {
        *self = Self { initial, ..Self::default() };
    }

    pub(crate) fn lane(&mut self, lane: Lane) -> &mut OutLane {
        let at = match self.lanes.iter().position(|l| l.lane == lane) {
            Some(at) => at,
            None => {
                let total = self.initial[lane.class.index()];
                let at = self.lanes.partition_point(|l| l.lane.class <= lane.class);
                let queue = VecDeque::new();
                self.lanes.insert(
                    at,
                    OutLane { lane, sent: 0, total, queue, frame_bytes: 0, parting: false },
                );
                at
            }
        };
        &mut self.lanes[at]
    }

    /// Credit: bounded by the number of lanes, and never left out.
    pub(crate) fn control(&mut self, frame: Bytes) {
        self.control.push_back(frame);
    }

    /// Pings and pongs: left out where too much waits already. Whether it was taken.
    pub(crate) fn ping(&mut self, frame: Bytes) -> bool {
        let room = self.control.len() < CONTROL_MAX;
        if room {
            self.control.push_back(frame);
        }
        room
    }

    pub(crate) fn frame(&mut self, lane: Lane, frame: Bytes) {
        let lane = self.lane(lane);
        lane.frame_bytes += frame.len();
        lane.queue.push_back(Item::Frame(frame));
    }

    pub(crate) fn messages(&mut self, lane: Lane, room: RoomId, count: usize) {
        let queue = &mut self.lane(lane).queue;
        queue.extend(std::iter::repeat_with(|| Item::Message(room)).take(count));
    }

    pub(crate) fn credit(&mut self, lane: Lane, total: u64) {
        // A lane that nothing was written to yet has its initial credit, and more from now on.
        let lane = self.lane(lane);
        lane.total = lane.total.max(total);
    }

    /// A Session is over: nothing of it is written any more.
    pub(crate) fn close(&mut self, session: u8) {
        self.lanes.retain(|l| l.lane.session != session);
        self.finish.push_back(session);
    }

    /// This end closes a Session: `frame` is the last that is written, if anything was.
    pub(crate) fn part(&mut self, session: u8, frame: Bytes) {
        let signal = Lane::new(session, Class::Signal);
        if self.lane(signal).sent == 0 {
            self.close(session);
            return;
        }
        self.lanes.retain(|l| l.lane.session != session || l.lane == signal);
        let lane = self.lane(signal);
        lane.frame_bytes = frame.len();
        lane.queue = VecDeque::from([Item::Frame(frame)]);
        lane.parting = true;
    }

    /// Whether something of a Session's number is still to be written.
    pub(crate) fn uses(&self, session: u8) -> bool {
        self.lanes.iter().any(|l| l.lane.session == session)
    }

    /// The most urgent lane that has something and may send it, of strokes and chat only where `low`.
    /// Goes behind its equals.
    pub(crate) fn next(&mut self, low: bool) -> Option<Lane> {
        let may = |l: &OutLane| l.open() && (low || l.lane.class == Class::Signal);
        let at = self.lanes.iter().position(may)?;
        let class = self.lanes[at].lane.class;
        let end = self.lanes.partition_point(|l| l.lane.class <= class);
        let lane = self.lanes[at].lane;
        self.lanes[at..end].rotate_left(1);
        Some(lane)
    }

    pub(crate) fn wants_write(&self) -> bool {
        !self.control.is_empty() || !self.finish.is_empty() || self.lanes.iter().any(OutLane::open)
    }
}

/// Bytes written to a lane before the choice is made anew. Little of the low classes, so that a
/// signal overtakes them soon; a signal waits for nobody.
pub(crate) const fn batch_bytes(class: Class) -> usize {
    match class {
        Class::Signal => 16 * 1024,
        Class::Binary | Class::Chat => 4 * 1024,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_go_before_strokes_before_chat_and_credit_holds_each_back() {
        let mut lanes = Lanes::default();
        lanes.reset([10, 10, 10]);
        for class in [Class::Chat, Class::Binary, Class::Signal] {
            lanes.frame(Lane::new(1, class), Bytes::from_static(b"x"));
        }
        let mut seen = Vec::new();
        while let Some(lane) = lanes.next(true) {
            seen.push(lane.class);
            lanes.lane(lane).took(10);
        }
        assert_eq!(seen, [Class::Signal, Class::Binary, Class::Chat]);
        lanes.credit(Lane::new(1, Class::Chat), 20);
        assert_eq!(lanes.next(false), None, "held back");
        assert_eq!(lanes.next(true), Some(Lane::new(1, Class::Chat)));
    }

    #[test]
    fn sessions_of_one_class_take_turns() {
        let mut lanes = Lanes::default();
        lanes.reset([100; 3]);
        for session in [1, 2, 1, 2] {
            lanes.frame(Lane::new(session, Class::Signal), Bytes::from_static(b"x"));
        }
        let order: Vec<u8> = (0..4)
            .filter_map(|_| {
                let lane = lanes.next(true)?;
                lanes.lane(lane).queue.pop_front();
                Some(lane.session)
            })
            .collect();
        assert_eq!(order, [1, 2, 1, 2]);
    }
}
