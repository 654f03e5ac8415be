//! The floor's frames: a length, as many bytes of nothing as Edgeway's headers take, a payload.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// The length in front of each frame: bytes that follow it.
const LENGTH_BYTES: usize = 2;

/// Bytes that a Send frame of Edgeway takes besides its payload.
pub const UPLINK_OVERHEAD: usize = 14;

/// The smallest overhead: the length alone.
pub const MIN_OVERHEAD: usize = LENGTH_BYTES;

/// Starts a frame of `overhead` bytes around a payload of `payload` bytes, which the caller
/// appends.
pub fn start_frame(out: &mut BytesMut, overhead: usize, payload: usize) {
    let header = overhead.saturating_sub(LENGTH_BYTES);
    // The arguments bound the sum: 60 KiB of payload and 1 KiB of overhead.
    out.put_u16_le(u16::try_from(header + payload).unwrap_or(u16::MAX));
    out.put_bytes(0, header);
}

/// Takes frames out of a stream of chunks.
#[derive(Default)]
pub struct Frames {
    /// The beginning of a frame that ended outside of its chunk.
    partial: BytesMut,
}

impl Frames {
    /// Gives the payload of each whole frame to `each`.
    pub fn push(&mut self, mut chunk: Bytes, overhead: usize, mut each: impl FnMut(&[u8])) {
        let header = overhead.saturating_sub(LENGTH_BYTES);
        let mut give = |frame: &[u8]| {
            if let Some(payload) = frame.get(LENGTH_BYTES + header..) {
                each(payload);
            }
        };
        while !self.partial.is_empty() && !chunk.is_empty() {
            let wanted = whole(&self.partial).unwrap_or(LENGTH_BYTES) - self.partial.len();
            let part = chunk.split_to(wanted.min(chunk.len()));
            self.partial.extend_from_slice(&part);
            if whole(&self.partial) == Some(self.partial.len()) {
                give(&self.partial);
                self.partial.clear();
            }
        }
        while let Some(length) = whole(&chunk).filter(|length| *length <= chunk.len()) {
            give(&chunk[..length]);
            chunk.advance(length);
        }
        self.partial.extend_from_slice(&chunk);
    }
}

/// Bytes of the frame that `bytes` begins with, where they say it already.
fn whole(bytes: &[u8]) -> Option<usize> {
    let length: &[u8; LENGTH_BYTES] = bytes.first_chunk()?;
    Some(LENGTH_BYTES + usize::from(u16::from_le_bytes(*length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_whole_however_the_stream_is_cut() {
        let payloads: Vec<Vec<u8>> = (1..20u8).map(|n| vec![n; usize::from(n) * 20]).collect();
        let mut stream = BytesMut::new();
        for payload in &payloads {
            start_frame(&mut stream, 40, payload.len());
            stream.put_slice(payload);
        }
        let stream = stream.freeze();
        for size in [1, 2, 3, 41, 100, 1200, stream.len()] {
            let (mut frames, mut got) = (Frames::default(), Vec::new());
            for at in (0..stream.len()).step_by(size) {
                let chunk = stream.slice(at..stream.len().min(at + size));
                frames.push(chunk, 40, |payload| got.push(payload.to_vec()));
            }
            assert_eq!(got, payloads, "cut every {size} bytes");
        }
    }

    #[test]
    fn a_frame_has_the_size_that_was_asked_for() {
        let mut frame = BytesMut::new();
        start_frame(&mut frame, 40, 100);
        frame.put_bytes(1, 100);
        assert_eq!(frame.len(), 140);
    }
}
