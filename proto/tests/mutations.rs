//! A million broken inputs through each decoder: no panic, and no memory beyond the frame limit.
//!
//! In a binary of its own, with one test: the allocator counts for the whole process.
#![allow(clippy::unwrap_used)]

mod common;

use bytes::{Bytes, BytesMut};
use common::{encoded, examples};
use edgeway_proto::{
    Frame, FrameBuffer, Lane, frame, limits, record, record::RecordBuffer, varint,
};
use peak_alloc::PeakAlloc;
use rand::{Rng, RngExt, SeedableRng, rngs::SmallRng};

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

const MUTATIONS: usize = 1_000_000;

/// What a decoder may have on the heap beyond its input: one frame, and the allocator's and
/// `Bytes`' own small change.
const PARSE_BYTES: usize = limits::FRAME_BODY_BYTES + 512;

/// A stream's decoder may hold a chunk beside that, and while its buffer doubles the half-sized one.
const STREAM_BYTES: usize = limits::RECORD_BYTES * 3 / 2 + CHUNK_BYTES + 512;
const CHUNK_BYTES: usize = 4096;

/// Runs `f`, and fails where it had more than `max` bytes on the heap at a time.
fn bounded(max: usize, input: &[u8], f: impl FnOnce()) {
    let before = HEAP.current_usage();
    HEAP.reset_peak_usage();
    f();
    let used = HEAP.peak_usage().saturating_sub(before);
    assert!(used <= max, "{used} bytes on the heap, {max} allowed, for {}", common::hex(input));
}

/// Breaks `input` in one of the ways in which peers break frames.
fn mutate(input: &mut Vec<u8>, rng: &mut SmallRng) {
    for _ in 0..rng.random_range(1..4) {
        let at = rng.random_range(0..=input.len());
        match rng.random_range(0..7) {
            0 if at < input.len() => input[at] ^= 1 << rng.random_range(0..8),
            1 if at < input.len() => input[at] = rng.random(),
            2 => input.truncate(at),
            3 => input.insert(at, rng.random()),
            4 => {
                // A length or count of any size.
                let mut number = Vec::new();
                varint::put(&mut number, rng.random::<u64>() >> rng.random_range(0..64));
                input.splice(at..(at + number.len()).min(input.len()), number);
            }
            5 => input.extend_from_within(at..),
            _ if at < input.len() => input[at] = if rng.random() { 0xff } else { 0 },
            _ => {}
        }
        input.truncate(CHUNK_BYTES);
    }
}

fn random(input: &mut Vec<u8>, rng: &mut SmallRng) {
    input.resize(rng.random_range(0..64), 0);
    rng.fill_bytes(input);
}

fn decode_frames(input: &Bytes, cut: usize) {
    let mut buffer = FrameBuffer::default();
    for chunk in [input.slice(..cut), input.slice(cut..)] {
        buffer.push(chunk);
        while let Ok(Some(frame)) = buffer.next_frame() {
            let _ = frame.parse();
        }
    }
}

fn decode_records(input: &[u8], cut: usize) {
    let mut buffer = RecordBuffer::default();
    for chunk in [&input[..cut], &input[cut..]] {
        buffer.push(chunk);
        while let Ok(Some((_, mut content))) = buffer.next_record() {
            while let Ok(Some(frame)) = frame::split(&mut content) {
                let _ = frame.parse();
            }
        }
    }
}

/// Inputs that mean to be expensive: the most items, the longest promises.
fn greedy() -> Vec<Vec<u8>> {
    let mut inputs = Vec::new();
    for (kind, _) in Frame::KINDS {
        for fill in [0x00, 0x01, 0x40, 0x44, 0x7f, 0x80, 0xbf, 0xff] {
            let mut input = vec![*kind, 0x80, 0x01, 0x00, 0x00];
            input.resize(5 + limits::FRAME_BODY_BYTES, fill);
            inputs.push(input);
        }
    }
    let names = [vec![0x44, 0x00], vec![0; 1024], vec![0x44, 0x00], vec![0; 1024]].concat();
    let body = [vec![0; 4], names].concat();
    let mut presence = vec![0x4c];
    varint::put(&mut presence, body.len() as u64);
    presence.extend(body);
    inputs.push(presence);
    inputs
}

#[test]
fn a_million_mutations_make_no_decoder_panic_or_allocate_beyond_the_frame_limit() {
    HEAP.reset_peak_usage();
    drop(std::hint::black_box(vec![0u8; 10 * STREAM_BYTES]));
    assert!(HEAP.peak_usage() > 10 * STREAM_BYTES, "the allocator counts");
    let mut rng = SmallRng::seed_from_u64(1);
    let frames: Vec<Vec<u8>> = examples().iter().map(|f| encoded(f).to_vec()).collect();
    let mut input = Vec::new();
    let mut good = 0;
    for n in 0..MUTATIONS {
        input.clear();
        if n % 4 == 3 {
            random(&mut input, &mut rng);
        } else {
            input.extend_from_slice(&frames[n % frames.len()]);
            mutate(&mut input, &mut rng);
        }
        let bytes = Bytes::copy_from_slice(&input);
        let cut = rng.random_range(0..=bytes.len());
        bounded(PARSE_BYTES, &input, || {
            let _ = varint::get(&bytes);
            if let Some((kind, _)) = bytes.split_first() {
                let body = frame::measure(&bytes).ok().flatten().map_or(1, |(header, _)| header);
                good += usize::from(Frame::parse(*kind, bytes.slice(body..)).is_ok());
            }
        });
        bounded(STREAM_BYTES, &input, || decode_frames(&bytes, cut));
        let mut records = BytesMut::new();
        record::put_header(&mut records, Lane::from_byte(4).unwrap(), bytes.len());
        records.extend_from_slice(&bytes);
        if n % 2 == 0 {
            // The header of the record is broken as well.
            let at = rng.random_range(0..records.len());
            records[at] = rng.random();
        }
        let cut = cut.min(records.len());
        bounded(STREAM_BYTES, &input, || decode_records(&records, cut));
    }
    // Mutations that break everything would test only the first check.
    assert!(good > MUTATIONS / 10, "only {good} of the mutants were frames");
    for input in greedy() {
        let bytes = Bytes::copy_from_slice(&input);
        bounded(PARSE_BYTES, &input[..20], || {
            let _ = Frame::parse(bytes[0], bytes.slice(5..));
            let _ = frame::split(&mut bytes.clone()).unwrap().unwrap().parse();
        });
        for cut in [1, 5, 1000] {
            bounded(STREAM_BYTES, &input[..20], || decode_frames(&bytes, cut));
        }
    }
}
