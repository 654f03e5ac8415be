//! What arrives in rooms: deliveries, pages, gaps, acks.

use std::sync::Arc;

use edgeway_proto::{
    Class, CloseCode, Lane, Seq,
    frame::{self, Frame},
};
use edgeway_transport::Stop;

use super::{
    Core, Fetch, RoomId, cursor::is_cursor, order::Live, outgoing::Acked, rooms::message,
    sessions::Early,
};
use crate::{AckStatus, Event, SessionId};

/// Bytes of frames held for rooms whose `Joined` is still to come: the credit of the lanes that can
/// overtake it bounds them already.
const EARLY_BYTES: usize = 64 * 1024;

/// The place of a message that expired before it could be delivered.
pub(super) fn is_void(deliver: &frame::Deliver) -> bool {
    deliver.expires_ms == 1
        && deliver.payload.0.is_empty()
        && deliver.sender.is_empty()
        && deliver.key.is_empty()
}

impl Core {
    pub(super) fn deliver(
        &mut self,
        session: SessionId,
        lane: Lane,
        deliver: frame::Deliver,
        bytes: usize,
    ) -> Result<(), Stop> {
        if deliver.class != lane.class {
            return Err(Stop::new(CloseCode::Protocol, "a delivery on the lane of another class"));
        }
        let Some(id) = self.room_of_group(session, deliver.group) else {
            self.hold(session, lane, deliver.group, Frame::Deliver(deliver), bytes);
            return Ok(());
        };
        self.live(session, id, deliver);
        Ok(())
    }

    fn live(&mut self, session: SessionId, id: RoomId, deliver: frame::Deliver) {
        let (class, seq) = (deliver.class, deliver.seq);
        let Some(room) = self.rooms.get_mut(id.index) else { return };
        match room.classes[class.index()].order.live(seq, class.reliable()) {
            Live::Deliver => {}
            Live::After(after, missed) => {
                let name = Arc::clone(&room.name);
                let upto = Seq::new(seq.epoch, seq.counter - 1);
                self.stats.missed += missed;
                self.arrived
                    .push_part(Event::Gap { session, room: name, class, after, upto, missed }, 0);
            }
            Live::Old => {
                self.stats.duplicates += 1;
                return;
            }
            Live::Skip => return,
            Live::Hole => {
                self.stats.holes += 1;
                self.want_fetch(Fetch::Page(id, class));
                self.pump_fetches();
                return;
            }
        }
        self.give(session, id, deliver, usize::MAX);
    }

    /// Gives a message to the app.
    pub(super) fn give(
        &mut self,
        session: SessionId,
        id: RoomId,
        deliver: frame::Deliver,
        bytes: usize,
    ) {
        let Some(room) = self.rooms.get_mut(id.index) else { return };
        if is_void(&deliver) {
            return;
        }
        let message = message(session, &room.name, deliver);
        if message.class == Class::Signal && !message.key.is_empty() {
            room.set_state(&message);
            if room.cursor.is_some() && is_cursor(&message.key) {
                return;
            }
        }
        self.stats.messages += 1;
        self.arrived.push_part(Event::Message(message), bytes);
    }

    /// Holds a frame that overtook the `Joined` of its room; without a join under way it belongs to
    /// a room that was left.
    fn hold(&mut self, session: SessionId, lane: Lane, group: u64, frame: Frame, bytes: usize) {
        let Some(session) = self.session(session) else { return };
        if session.joining == 0 || session.early_bytes + bytes > EARLY_BYTES {
            return;
        }
        session.early_bytes += bytes;
        session.early.push(Early { lane, group, frame, bytes });
        self.arrived.hold();
    }

    /// After a `Joined`: works on what was held for it, and forgets what nobody will claim.
    pub(super) fn release_early(&mut self, id: SessionId) -> Result<(), Stop> {
        let Some(session) = self.session(id) else { return Ok(()) };
        if session.early.is_empty() {
            return Ok(());
        }
        let waiting = session.joining > 0;
        let held = std::mem::take(&mut session.early);
        session.early_bytes = 0;
        for early in held {
            let before = self.arrived.resume(early.lane, early.bytes);
            let known = self.groups.contains_key(&(id, early.group));
            match early.frame {
                _ if !known && !waiting => {}
                Frame::Deliver(deliver) => self.deliver(id, early.lane, deliver, early.bytes)?,
                Frame::Behind(behind) => self.behind(id, early.lane, behind, early.bytes),
                Frame::Gap(gap) => self.gap(id, early.lane, gap, early.bytes),
                _ => {}
            }
            self.arrived.back(before);
        }
        Ok(())
    }

    pub(super) fn behind(
        &mut self,
        session: SessionId,
        lane: Lane,
        frame: frame::Behind,
        bytes: usize,
    ) {
        let Some(id) = self.room_of_group(session, frame.group) else {
            self.hold(session, lane, frame.group, Frame::Behind(frame), bytes);
            return;
        };
        let Some(room) = self.room_mut(id) else { return };
        if room.class(frame.class).order.behind(frame.head) {
            self.want_fetch(Fetch::Page(id, frame.class));
            self.pump_fetches();
        }
    }

    pub(super) fn gap(&mut self, session: SessionId, lane: Lane, frame: frame::Gap, bytes: usize) {
        let Some(id) = self.room_of_group(session, frame.group) else {
            self.hold(session, lane, frame.group, Frame::Gap(frame), bytes);
            return;
        };
        self.skip(id, frame.class, |order| order.skip_to(frame.upto));
    }

    /// Reports what is given up.
    pub(super) fn skip(
        &mut self,
        id: RoomId,
        class: Class,
        skip: impl FnOnce(&mut super::order::Order) -> Option<(Seq, u64)>,
    ) {
        let Some(room) = self.room_mut(id) else { return };
        let (session, name) = (room.session, Arc::clone(&room.name));
        let order = &mut room.class(class).order;
        let Some((after, missed)) = skip(order) else { return };
        let upto = order.last;
        let room = name;
        self.stats.missed += missed;
        self.event(if class.reliable() {
            Event::HistoryLost { session, room, class, after }
        } else {
            Event::Gap { session, room, class, after, upto, missed }
        });
    }

    pub(super) fn ack(&mut self, session: SessionId, ack: &frame::Ack) {
        let Some(id) = self.room_of_group(session, ack.group) else { return };
        let Some(wire) = self.wire_of(session) else { return };
        let mut refusal = None;
        if ack.status == edgeway_proto::AckStatus::Refused
            && let Some(session) = self.session(session)
        {
            refusal = session.refusal.take();
        }
        let Some(room) = self.room_mut(id) else { return };
        let out = &mut room.class(ack.class).out;
        let acked = out.ack(ack, || match refusal {
            Some((code, detail)) => (Some(code), detail.to_string()),
            None => (None, String::new()),
        });
        match acked {
            Acked::Done(entry, result) => {
                match &result {
                    Ok(ack) if ack.status == AckStatus::Shed => self.stats.shed += 1,
                    Ok(_) => self.stats.acked += 1,
                    Err(_) => self.stats.failed += 1,
                }
                let bytes = entry.cost();
                entry.resolve(result);
                self.chat_acked(ack.class, bytes);
            }
            Acked::Again => {
                let count = out.len();
                self.lanes.messages(Lane::new(wire, ack.class), id, count);
                self.recount_chat();
            }
            Acked::Unknown => {}
        }
    }
}
