//! What goes along with the login, before the server has answered anything: the joins of the chat
//! Session's rooms, and the first requests for what was missed there. So a client that comes back is in
//! its rooms, and has what was said meanwhile, after one round trip.

use bytes::Bytes;
use edgeway_proto::{Class, frame};

use super::{Core, FETCHES_MAX, JOIN_BYTES_MAX, Request, RoomId, room::Phase};
use crate::SessionId;

/// What the joins of a first flight may take: with hello, login and the handshake they fit into
/// the ten packets that may go out before the first answer (RFC 9002, section 7.2).
const FLIGHT_BYTES: usize = 8 * 1024;

/// What one join takes at most: a name and three positions.
const JOIN_FRAME_BYTES: usize = 256;

impl Core {
    /// The joins of the next connection's first flight, and what follows them. They are under way from
    /// now on: until [`connected`](Self::connected), or [`flight_failed`](Self::flight_failed).
    pub(crate) fn first_frames(&mut self) -> Vec<Bytes> {
        let rooms: Vec<RoomId> = self.rooms_of(SessionId::CHAT).collect();
        let (mut frames, mut bytes) = (Vec::new(), 0);
        let mut joined = Vec::new();
        for id in rooms {
            if bytes + JOIN_FRAME_BYTES > FLIGHT_BYTES || self.joining_bytes >= JOIN_BYTES_MAX {
                break;
            }
            if self.room(id).is_none_or(|room| room.phase != Phase::Waiting) {
                continue;
            }
            if let Some(join) = self.ask_join(id) {
                let join = join.to_bytes();
                bytes += join.len();
                frames.push(join);
                joined.push(id);
            }
        }
        for class in [Class::Signal, Class::Binary] {
            frames.extend(joined.iter().filter_map(|id| self.first_page(*id, class)));
        }
        frames
    }

    /// The request for what a room that was joined before has missed. It is known as the handle that
    /// it had; where that has changed the server refuses it, after the join.
    fn first_page(&mut self, id: RoomId, class: Class) -> Option<Bytes> {
        if self.fetching >= FETCHES_MAX {
            return None;
        }
        let room = self.room_mut(id)?;
        let group = room.group;
        let state = room.class(class);
        if !state.refill {
            return None;
        }
        state.order.asked();
        let after = state.order.last;
        let request = self.request(Request::Page(id, class));
        self.fetching += 1;
        Some(frame::History { request, group, class, after, limit: 0 }.to_bytes())
    }

    /// Pages of a room that are under way are not waited for any longer.
    pub(super) fn forget_pages(&mut self, id: RoomId) {
        let of_room = |request: &Request| matches!(request, Request::Page(of, _) if *of == id);
        let before = self.requests.len();
        self.requests.retain(|_, request| !of_room(request));
        self.fetching -= before - self.requests.len();
        if let Some(room) = self.room_mut(id) {
            for state in &mut room.classes {
                state.order.disconnected();
            }
        }
    }

    /// No connection came of it.
    pub(crate) fn flight_failed(&mut self) {
        let is_join = |request: &Request| matches!(request, Request::Join(_));
        let asked = self.requests.iter().filter(|(_, request)| is_join(request));
        let asked: Vec<u64> = asked.map(|(number, _)| *number).collect();
        for number in asked {
            let Some(Request::Join(id)) = self.requests.remove(&number) else { continue };
            self.join_ended(id);
            if let Some(room) = self.room_mut(id) {
                room.phase = Phase::Waiting;
            }
            self.forget_pages(id);
        }
    }
}
