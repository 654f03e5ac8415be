//! Gives the frames of one lane once and in order, whether they come by stream or by copy.

use std::collections::BTreeMap;

use edgeway_proto::RawFrame;

/// Copies held that came before their predecessors. What does not fit comes by stream.
const HELD_BYTES: usize = 64 * 1024;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Reorder {
    /// Number of the next frame that the stream will bring.
    by_stream: u64,
    /// Number of the next frame to be given.
    next: u64,
    held: BTreeMap<u64, RawFrame>,
    held_bytes: usize,
}

impl Reorder {
    /// A frame came by stream. It is given back unless a copy was faster.
    pub(crate) fn stream(&mut self, frame: RawFrame) -> Option<RawFrame> {
        let number = self.by_stream;
        self.by_stream += 1;
        if number < self.next {
            return None;
        }
        self.next = number + 1;
        self.forget(number);
        Some(frame)
    }

    /// A copy of frame `number` came. It is given back where it is the next one; where it comes
    /// before its predecessors it is held.
    pub(crate) fn copy(&mut self, number: u64, frame: RawFrame) -> Option<RawFrame> {
        if number < self.next {
            return None;
        }
        if number == self.next {
            self.next += 1;
            self.forget(number);
            return Some(frame);
        }
        let bytes = frame.whole.len();
        if self.held_bytes + bytes <= HELD_BYTES && !self.held.contains_key(&number) {
            self.held_bytes += bytes;
            self.held.insert(number, frame);
        }
        None
    }

    /// A held frame whose turn has come. To be asked for after each frame that was given.
    pub(crate) fn released(&mut self) -> Option<RawFrame> {
        if self.held.is_empty() {
            return None;
        }
        let frame = self.held.remove(&self.next)?;
        self.held_bytes -= frame.whole.len();
        self.next += 1;
        Some(frame)
    }

    fn forget(&mut self, number: u64) {
        if !self.held.is_empty()
            && let Some(frame) = self.held.remove(&number)
        {
            self.held_bytes -= frame.whole.len();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use bytes::{Bytes, BytesMut};
    use edgeway_proto::frame::{Ping, split};
    use proptest::prelude::*;

    use super::*;

    fn frame(token: u64) -> RawFrame {
        let mut out = BytesMut::new();
        Ping { token }.encode(&mut out);
        let mut bytes: Bytes = out.freeze();
        split(&mut bytes).unwrap().unwrap()
    }

    proptest! {
        /// Whatever copies come, in whatever order and however often, each frame is given once and
        /// in order.
        #[test]
        fn each_frame_once_and_in_order(copies in prop::collection::vec((0u64..50, any::<bool>()), 0..300)) {
            let mut reorder = Reorder::default();
            let mut given = Vec::new();
            let mut streamed = 0;
            let mut take = |reorder: &mut Reorder, first: Option<RawFrame>| {
                let mut next = first;
                while let Some(frame) = next {
                    given.push(frame);
                    next = reorder.released();
                }
            };
            for (number, by_copy) in copies {
                let first = if by_copy {
                    reorder.copy(number, frame(number))
                } else if streamed < 50 {
                    streamed += 1;
                    reorder.stream(frame(streamed - 1))
                } else {
                    None
                };
                take(&mut reorder, first);
            }
            while streamed < 50 {
                let first = reorder.stream(frame(streamed));
                streamed += 1;
                take(&mut reorder, first);
            }
            prop_assert_eq!(given, (0..50).map(frame).collect::<Vec<_>>());
            prop_assert!(reorder.held.is_empty() && reorder.held_bytes == 0);
        }
    }
}
