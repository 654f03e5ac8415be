//! Puts what has a header that tells its length (frames, records) together from chunks.

use bytes::{Bytes, BytesMut};

use crate::DecodeError;

/// Reads a header: its length and the length of what follows, or `None` where more is needed.
type Measure = fn(&[u8]) -> Result<Option<(usize, usize)>, DecodeError>;

/// Each byte is copied a bounded number of times, however the chunks are cut: units within a
/// chunk not at all, those that straddle chunks as they come in. What is held of an unfinished unit
/// is at most twice what was received of it, whatever length its header promises.
#[derive(Debug, Default)]
pub(crate) struct Assembler {
    /// A unit that has begun in an earlier chunk.
    begun: BytesMut,
    /// What is left of the latest chunk; follows `begun`.
    chunk: Bytes,
}

impl Assembler {
    pub(crate) fn push(&mut self, chunk: Bytes) {
        if self.chunk.is_empty() {
            self.chunk = chunk;
        } else {
            let mut joined = BytesMut::with_capacity(self.chunk.len() + chunk.len());
            joined.extend_from_slice(&self.chunk);
            joined.extend_from_slice(&chunk);
            self.chunk = joined.freeze();
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.begun.is_empty() && self.chunk.is_empty()
    }

    /// The next whole unit, after the length of its header.
    pub(crate) fn next(&mut self, measure: Measure) -> Result<Option<(usize, Bytes)>, DecodeError> {
        if self.begun.is_empty() {
            if let Some((header, content)) = measure(&self.chunk)?
                && self.chunk.len() >= header + content
            {
                return Ok(Some((header, self.chunk.split_to(header + content))));
            }
            // The beginning of the next unit is copied out: it must not keep a large chunk alive.
            self.begun = BytesMut::from(std::mem::take(&mut self.chunk).as_ref());
            return Ok(None);
        }
        loop {
            if let Some((header, content)) = measure(&self.begun)? {
                return Ok(self.fill(header + content).then(|| (header, self.finish())));
            }
            // Inside the header: at most eight bytes are taken one by one.
            if self.chunk.is_empty() {
                return Ok(None);
            }
            self.begun.extend_from_slice(&self.chunk.split_to(1));
        }
    }

    /// Moves what the begun unit lacks from the chunk; whether it is whole.
    fn fill(&mut self, whole: usize) -> bool {
        let lacks = whole - self.begun.len();
        let part = self.chunk.split_to(lacks.min(self.chunk.len()));
        let needed = self.begun.len() + part.len();
        if needed > self.begun.capacity() {
            // Doubled, so that tiny chunks do not copy it each time, but never beyond the unit.
            let mut larger = BytesMut::with_capacity(whole.min(needed.max(2 * self.begun.len())));
            larger.extend_from_slice(&self.begun);
            self.begun = larger;
        }
        self.begun.extend_from_slice(&part);
        part.len() == lacks
    }

    fn finish(&mut self) -> Bytes {
        // An idle connection holds no buffer.
        std::mem::take(&mut self.begun).freeze()
    }
}
