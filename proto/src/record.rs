//! Records: how lanes share one TCP connection. A record is `lane: u8, length: varint`, then
//! that many bytes of whole frames of the lane. QUIC needs none: there each lane is a stream.

use bytes::{BufMut, Bytes, BytesMut};

use crate::{DecodeError, Lane, assemble::Assembler, limits, varint};

/// The first byte of a multiplexed connection: the control lane's.
pub const FIRST_BYTE: u8 = 0x00;

/// Appends the header of a record of `len` bytes.
pub fn put_header(out: &mut BytesMut, lane: Lane, len: usize) {
    out.put_u8(lane.to_byte());
    varint::put(out, len as u64);
}

/// Turns a stream of chunks into records, and holds never more than one.
#[derive(Debug, Default)]
pub struct RecordBuffer(Assembler);

impl RecordBuffer {
    /// Adds bytes that were read.
    pub fn push(&mut self, bytes: &[u8]) {
        self.0.push(Bytes::copy_from_slice(bytes));
    }

    /// Adds bytes that were read, without copying those of records that are whole. Take all
    /// records out before: what is still in there is copied otherwise.
    pub fn push_chunk(&mut self, chunk: Bytes) {
        self.0.push(chunk);
    }

    /// The next whole record, or `None` until more is pushed.
    ///
    /// # Errors
    /// A lane byte that names no lane, or a record above the limit.
    pub fn next_record(&mut self) -> Result<Option<(Lane, Bytes)>, DecodeError> {
        let Some((header, mut record)) = self.0.next(measure)? else { return Ok(None) };
        let lane = lane_of(record[0])?;
        let _ = record.split_to(header);
        Ok(Some((lane, record)))
    }

    /// Whether a record has begun and not ended.
    #[must_use]
    pub fn mid_record(&self) -> bool {
        !self.0.is_empty()
    }
}

/// The length of the header and of the content of the record at the front of `input`.
fn measure(input: &[u8]) -> Result<Option<(usize, usize)>, DecodeError> {
    if let Some(first) = input.first() {
        lane_of(*first)?;
    }
    let Some((len, len_len)) = input.get(1..).and_then(varint::get) else {
        return Ok(None);
    };
    match usize::try_from(len) {
        Ok(content) if content <= limits::RECORD_BYTES => Ok(Some((1 + len_len, content))),
        _ => Err(DecodeError::TooLarge { what: "record", len, max: limits::RECORD_BYTES }),
    }
}

fn lane_of(byte: u8) -> Result<Lane, DecodeError> {
    Lane::from_byte(byte).ok_or(DecodeError::Invalid {
        frame: "record",
        field: "lane",
        problem: "must be session x 4 + class, class 0 to 2, and 0 for the control lane",
    })
}
