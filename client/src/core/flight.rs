//! What goes along with the login, before the server has answered anything: the joins of the chat
//! Session's rooms. So a client that comes back is in its rooms after one round trip.

use bytes::Bytes;

use super::{Core, JOIN_BYTES_MAX, Request, RoomId, room::Phase};
use crate::SessionId;

/// What the joins of a first flight may take: with hello, login and the handshake they fit into
/// the ten packets that may go out before the first answer (RFC 9002, section 7.2).
const FLIGHT_BYTES: usize = 8 * 1024;

/// What one join takes at most: a name and three positions.
const JOIN_FRAME_BYTES: usize = 256;

impl Core {
    /// The joins of the next connection's first flight. They are under way from now on: until
    /// [`connected`](Self::connected), or [`flight_failed`](Self::flight_failed).
    pub(crate) fn first_joins(&mut self) -> Vec<Bytes> {
        let rooms: Vec<RoomId> = self.rooms_of(SessionId::CHAT).collect();
        let (mut joins, mut bytes) = (Vec::new(), 0);
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
                joins.push(join);
            }
        }
        joins
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
        }
    }
}
