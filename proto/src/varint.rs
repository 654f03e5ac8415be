//! Variable-length integers of QUIC (RFC 9000, section 16): the two high bits of the first byte
//! say how long the number is, 1, 2, 4 or 8 bytes.

use bytes::BufMut;

/// The largest number that fits: 62 bits.
pub const MAX: u64 = (1 << 62) - 1;

/// The number of bytes that `value` takes. Numbers above [`MAX`] are written as `MAX`.
#[must_use]
pub const fn len(value: u64) -> usize {
    match value {
        0..=0x3f => 1,
        0x40..=0x3fff => 2,
        0x4000..=0x3fff_ffff => 4,
        _ => 8,
    }
}

/// Appends `value`. Numbers above [`MAX`] saturate: no counter of the protocol can reach it.
pub fn put(out: &mut impl BufMut, value: u64) {
    let value = value.min(MAX);
    let bytes = value.to_be_bytes();
    match len(value) {
        1 => out.put_u8(bytes[7]),
        2 => out.put_slice(&[bytes[6] | 0x40, bytes[7]]),
        4 => out.put_slice(&[bytes[4] | 0x80, bytes[5], bytes[6], bytes[7]]),
        _ => out.put_u64(value | 0xc000_0000_0000_0000),
    }
}

/// Reads a number from the front of `input`: the number and the bytes it took, or `None` where
/// `input` ends before it does.
#[must_use]
pub fn get(input: &[u8]) -> Option<(u64, usize)> {
    let first = *input.first()?;
    let len = 1usize << (first >> 6);
    let tail = input.get(1..len)?;
    let value = tail.iter().fold(u64::from(first & 0x3f), |n, b| (n << 8) | u64::from(*b));
    Some((value, len))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_examples_of_rfc_9000_appendix_a1() {
        for (bytes, value) in [
            (&[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c][..], 151_288_809_941_952_652),
            (&[0x9d, 0x7f, 0x3e, 0x7d], 494_878_333),
            (&[0x7b, 0xbd], 15_293),
            (&[0x25], 37),
        ] {
            assert_eq!(get(bytes), Some((value, bytes.len())));
            let mut out = Vec::new();
            put(&mut out, value);
            assert_eq!(out, bytes);
        }
    }

    proptest! {
        #[test]
        fn what_is_put_is_got(value in 0..=MAX) {
            let mut out = Vec::new();
            put(&mut out, value);
            prop_assert_eq!(out.len(), len(value));
            prop_assert_eq!(get(&out), Some((value, out.len())));
            for cut in 0..out.len() {
                prop_assert_eq!(get(&out[..cut]), None);
            }
        }
    }
}
