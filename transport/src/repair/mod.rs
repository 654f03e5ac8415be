//! Repair: small frames that matter go on their stream and, where the path loses packets, again as
//! datagrams, on a schedule of our own. The receiver takes whichever comes first.
//!
//! quinn's probe timer resends no data (it sends pings, and the data follows their ack), so one
//! lost packet costs a probe timeout and a round trip. A copy costs ten milliseconds.
//!
//! A copy names its lane and the number of its first frame on that lane, counted from 0 since the
//! lane began. Both ends count alike because a stream keeps its order. So repair is exact and
//! below what frames mean: the receiver gives each frame of a lane once and in order, whether it came
//! by stream or by copy. Everything here but the driver is pure: no I/O, no clock.

mod copies;
mod driver;
mod estimate;
mod reorder;
mod schedule;
mod silence;

pub(crate) use driver::Repair;
pub(crate) use reorder::Reorder;
use schedule::{PathView, Repaired};

use bytes::{BufMut, Bytes, BytesMut};
use edgeway_proto::{Class, Lane, varint};

/// Whether frames of a lane are copied and therefore counted.
pub(crate) fn repaired(lane: Lane) -> Option<Repaired> {
    match (lane.is_control(), lane.class) {
        (true, _) | (_, Class::Signal) => Some(Repaired::Signal),
        (_, Class::Binary) => Some(Repaired::Stroke),
        (_, Class::Chat) => None,
    }
}

/// Appends a copy: `lane: u8, first frame: varint, length: varint, whole frames`. A datagram is one
/// or more of them.
pub(crate) fn put_copy(out: &mut BytesMut, lane: Lane, first: u64, frames: &Bytes) {
    out.put_u8(lane.to_byte());
    varint::put(out, first);
    varint::put(out, frames.len() as u64);
    out.put_slice(frames);
}

/// The bytes that a copy takes beside its frames, at most.
pub(crate) const COPY_HEADER_BYTES: usize = 1 + 8 + 4;

/// Takes the next copy off a datagram. `None` at its end, or where it makes no sense: a datagram
/// may be ignored, since it only repeats what the streams carry.
pub(crate) fn take_copy(datagram: &mut Bytes) -> Option<(Lane, u64, Bytes)> {
    let lane = Lane::from_byte(*datagram.first()?)?;
    let (first, first_len) = varint::get(datagram.get(1..)?)?;
    let (len, len_len) = varint::get(datagram.get(1 + first_len..)?)?;
    let header = 1 + first_len + len_len;
    let end = header.checked_add(usize::try_from(len).ok()?)?;
    if end > datagram.len() {
        return None;
    }
    let copy = datagram.split_to(end);
    Some((lane, first, copy.slice(header..)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_read_as_they_were_put_and_nonsense_is_ignored() {
        let mut out = BytesMut::new();
        put_copy(&mut out, Lane::new(3, Class::Signal), 70, &Bytes::from_static(b"one"));
        put_copy(&mut out, Lane::CONTROL, 0, &Bytes::from_static(b"two"));
        let whole = out.freeze();
        let mut datagram = whole.clone();
        let one = (Lane::new(3, Class::Signal), 70, Bytes::from_static(b"one"));
        assert_eq!(take_copy(&mut datagram), Some(one));
        assert_eq!(take_copy(&mut datagram), Some((Lane::CONTROL, 0, Bytes::from_static(b"two"))));
        assert_eq!(take_copy(&mut datagram), None);
        for cut in 0..whole.len() {
            let mut datagram = whole.slice(..cut);
            while take_copy(&mut datagram).is_some() {}
        }
        assert_eq!(take_copy(&mut Bytes::from_static(&[0xff, 0, 0])), None);
    }
}
