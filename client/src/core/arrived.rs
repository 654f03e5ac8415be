//! What came out of frames: events for the app, and what each lane's bytes became.

use edgeway_proto::Lane;

use crate::Event;

/// What an event costs that no frame paid for (reconnects): its place in memory.
const UNPAID_BYTES: u32 = 256;

/// The lane number of what belongs to no lane of the present connection.
pub(crate) const NO_LANE: u8 = u8::MAX;

/// Bytes of one lane.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LaneBytes {
    pub(crate) lane: u8,
    /// Of all frames that came.
    pub(crate) received: u64,
    /// Of the last of them: the one frame that may go beyond the credit.
    pub(crate) last: u64,
    /// Of those that the app will not have to take.
    pub(crate) done: u64,
}

/// Collects until the caller takes it.
#[derive(Debug, Default)]
pub(crate) struct Arrived {
    pub(crate) events: Vec<Event>,
    /// For each event the lane that gets its bytes back when the app has taken it, and how many.
    pub(crate) costs: Vec<(u8, u32)>,
    pub(crate) lanes: Vec<LaneBytes>,
    lane: u8,
    left: u32,
}

impl Arrived {
    /// The frame that is worked on next, and its bytes.
    pub(crate) fn begin(&mut self, lane: Lane, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        // The control lane has no credit.
        self.lane = if lane.is_control() { NO_LANE } else { lane.to_byte() };
        self.left = bytes;
        if let Some(lane) = self.current() {
            lane.received += u64::from(bytes);
            lane.last = u64::from(bytes);
        }
    }

    /// Works on a frame that was held back: it was counted when it came.
    pub(crate) fn resume(&mut self, lane: Lane, bytes: usize) -> (u8, u32) {
        let before = (self.lane, self.left);
        self.lane = lane.to_byte();
        self.left = u32::try_from(bytes).unwrap_or(u32::MAX);
        before
    }

    /// Goes on with the frame that [`resume`](Self::resume) interrupted.
    pub(crate) fn back(&mut self, before: (u8, u32)) {
        self.end();
        (self.lane, self.left) = before;
    }

    fn current(&mut self) -> Option<&mut LaneBytes> {
        let lane = self.lane;
        if lane == NO_LANE {
            return None;
        }
        let at = match self.lanes.iter().position(|l| l.lane == lane) {
            Some(at) => at,
            None => {
                self.lanes.push(LaneBytes { lane, received: 0, last: 0, done: 0 });
                self.lanes.len() - 1
            }
        };
        self.lanes.get_mut(at)
    }

    /// The frame is held back: its bytes are not given back yet.
    pub(crate) fn hold(&mut self) {
        self.left = 0;
    }

    /// Adds an event that takes all that is left of the frame's bytes.
    pub(crate) fn push(&mut self, event: Event) {
        self.push_part(event, usize::MAX);
    }

    /// Adds an event that takes `bytes` of the frame's.
    pub(crate) fn push_part(&mut self, event: Event, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.left);
        self.left -= bytes;
        self.events.push(event);
        self.costs.push(if bytes == 0 { (NO_LANE, UNPAID_BYTES) } else { (self.lane, bytes) });
    }

    /// The frame is done.
    pub(crate) fn end(&mut self) {
        let left = u64::from(std::mem::take(&mut self.left));
        if left > 0
            && let Some(lane) = self.current()
        {
            lane.done += left;
        }
        self.lane = NO_LANE;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.events.is_empty() && self.lanes.is_empty()
    }
}
