//! What is written next.

use std::time::Instant;

use bytes::{BufMut, Bytes, BytesMut};
use edgeway_proto::{Class, Lane, frame, varint};
use edgeway_transport::Stop;

use super::{
    Core, RoomId,
    lanes::{Item, batch_bytes},
    room::Phase,
};
use crate::RawFrame;

/// What a write may hold before a message of unknown size is added to it: a record takes 64 KiB, a
/// message 60 KiB and its names.
const BEFORE_MESSAGE_BYTES: usize = 3 * 1024;

/// One thing for the writer to do.
#[derive(Debug)]
pub(crate) enum Write {
    /// Whole frames for a lane.
    Frames(Lane, Bytes),
    /// The streams of a Session end.
    Finish(u8),
    /// Close the connection.
    Close(Stop),
}

/// A raw frame as the wire has it.
pub(super) fn raw_bytes(frame: &RawFrame) -> Bytes {
    let mut out = BytesMut::with_capacity(frame.body.len() + 5);
    out.put_u8(frame.kind);
    varint::put(&mut out, frame.body.len() as u64);
    out.put_slice(&frame.body);
    out.freeze()
}

impl Core {
    /// Whether [`next_write`](Self::next_write) has something.
    pub(crate) fn wants_write(&self) -> bool {
        self.closing.is_some() || self.lanes.wants_write()
    }

    /// Grants the peer credit for a lane that brought something.
    pub(crate) fn grant(&mut self, lane: Lane, total: u64) {
        // Of a Session that is closed nobody wants to know.
        if self.session_of(lane.session).is_some() {
            let credit =
                frame::Credit { session: u64::from(lane.session), class: lane.class, total };
            self.lanes.control(credit.to_bytes());
        }
    }

    /// What is most urgent: control, then the classes in their order, as far as credit allows. Strokes
    /// and chat only where `low`.
    pub(crate) fn next_write(&mut self, now: Instant, low: bool) -> Option<Write> {
        if let Some(stop) = self.closing.take() {
            return Some(Write::Close(stop));
        }
        let write = self.pick(now, low)?;
        if let Write::Frames(_, bytes) = &write {
            self.stats.sent_bytes += bytes.len() as u64;
        }
        Some(write)
    }

    fn pick(&mut self, now: Instant, low: bool) -> Option<Write> {
        if !self.lanes.control.is_empty() {
            let mut out = BytesMut::new();
            for frame in self.lanes.control.drain(..) {
                out.extend_from_slice(&frame);
            }
            return Some(Write::Frames(Lane::CONTROL, out.freeze()));
        }
        if let Some(session) = self.lanes.finish.pop_front() {
            return Some(Write::Finish(session));
        }
        loop {
            let lane = self.lanes.next(low)?;
            let bytes = self.take(lane, now);
            if self.lanes.lane(lane).parted() {
                self.lanes.close(lane.session);
            }
            if !bytes.is_empty() {
                return Some(Write::Frames(lane, bytes));
            }
        }
    }

    /// Takes frames off a lane's queue: one at least, then up to a batch.
    fn take(&mut self, lane: Lane, now: Instant) -> Bytes {
        let mut out = BytesMut::new();
        loop {
            let queue = self.lanes.lane(lane);
            if !queue.may_send() {
                break;
            }
            let before = out.len();
            match queue.queue.front() {
                // Frames up to the largest share no write with others.
                Some(Item::Frame(frame))
                    if before > 0 && before + frame.len() > batch_bytes(lane.class) =>
                {
                    break;
                }
                Some(Item::Message(_)) if before >= BEFORE_MESSAGE_BYTES => break,
                Some(_) => {}
                None => break,
            }
            match queue.queue.pop_front() {
                Some(Item::Frame(frame)) => {
                    queue.frame_bytes = queue.frame_bytes.saturating_sub(frame.len());
                    if before == 0 && frame.len() >= batch_bytes(lane.class) {
                        queue.took(frame.len());
                        return frame;
                    }
                    out.extend_from_slice(&frame);
                }
                Some(Item::Message(room)) => self.write_message(room, lane, now, &mut out),
                None => break,
            }
            self.lanes.lane(lane).took(out.len() - before);
        }
        out.freeze()
    }

    fn write_message(&mut self, id: RoomId, lane: Lane, now: Instant, out: &mut BytesMut) {
        let Some(room) = self.room_mut(id) else { return };
        // Joined again, everything has its turn again.
        if room.phase != Phase::Joined {
            return;
        }
        let group = room.group;
        // Dropped or answered meanwhile, there is none left.
        let state = room.class(lane.class);
        let Some((cost, again)) = state.out.write(group, lane.class, now, out) else { return };
        self.stats.resent += u64::from(again);
        if lane.class == Class::Chat {
            self.chat_written(id, cost, now);
        }
    }
}
