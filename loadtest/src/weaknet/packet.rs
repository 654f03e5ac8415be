//! The few header fields that the testbed reads and rewrites: addresses and ports of IPv4 with UDP
//! or TCP (RFC 791, 768, 9293).

use std::net::Ipv4Addr;

/// Which transport a packet belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// UDP.
    Udp,
    /// TCP.
    Tcp,
}

/// Where from and where to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Headers {
    /// UDP or TCP.
    pub transport: Transport,
    /// Where from.
    pub source: (Ipv4Addr, u16),
    /// Where to.
    pub destination: (Ipv4Addr, u16),
    /// Where the transport's header begins.
    offset: usize,
}

const SOURCE: usize = 12;
const DESTINATION: usize = 16;
const IP_CHECKSUM: usize = 10;

fn u16_at(packet: &[u8], at: usize) -> Option<u16> {
    let bytes = packet.get(at..at + 2)?;
    Some(u16::from_be_bytes([bytes[0], bytes[1]]))
}

fn address_at(packet: &[u8], at: usize) -> Option<Ipv4Addr> {
    let bytes: [u8; 4] = packet.get(at..at + 4)?.try_into().ok()?;
    Some(Ipv4Addr::from(bytes))
}

impl Headers {
    /// Reads them. `None` for what is not forwarded: other protocols (also ICMP, as in many
    /// networks), fragments, and what is cut off.
    pub fn read(packet: &[u8]) -> Option<Self> {
        let first = *packet.first()?;
        let fragment = u16_at(packet, 6)? & 0x3fff; // offset and "more fragments"
        if first >> 4 != 4 || fragment != 0 {
            return None;
        }
        let offset = usize::from(first & 0x0f) * 4;
        let (transport, least) = match *packet.get(9)? {
            17 => (Transport::Udp, 8),
            6 => (Transport::Tcp, 20),
            _ => return None,
        };
        if offset < 20 || packet.len() < offset + least {
            return None;
        }
        Some(Self {
            transport,
            source: (address_at(packet, SOURCE)?, u16_at(packet, offset)?),
            destination: (address_at(packet, DESTINATION)?, u16_at(packet, offset + 2)?),
            offset,
        })
    }

    /// Sets another source.
    pub fn set_source(&mut self, packet: &mut [u8], to: (Ipv4Addr, u16)) {
        self.rewrite(packet, SOURCE, self.offset, self.source, to);
        self.source = to;
    }

    /// Sets another destination.
    pub fn set_destination(&mut self, packet: &mut [u8], to: (Ipv4Addr, u16)) {
        self.rewrite(packet, DESTINATION, self.offset + 2, self.destination, to);
        self.destination = to;
    }

    fn rewrite(
        &self,
        packet: &mut [u8],
        address_at: usize,
        port_at: usize,
        from: (Ipv4Addr, u16),
        to: (Ipv4Addr, u16),
    ) {
        if from == to {
            return;
        }
        let words = |(address, port): (Ipv4Addr, u16)| {
            let [a, b, c, d] = address.octets();
            [u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]), port]
        };
        let (old, new) = (words(from), words(to));
        packet[address_at..address_at + 4].copy_from_slice(&to.0.octets());
        packet[port_at..port_at + 2].copy_from_slice(&to.1.to_be_bytes());
        // The transport's checksum covers the addresses too, in its pseudo header.
        let checksum = self.offset + if self.transport == Transport::Udp { 6 } else { 16 };
        let absent = self.transport == Transport::Udp && u16_at(packet, checksum) == Some(0);
        if !absent {
            amend(packet, checksum, &old, &new);
            if self.transport == Transport::Udp && u16_at(packet, checksum) == Some(0) {
                packet[checksum..checksum + 2].fill(0xff); // 0 would say that there is none
            }
        }
        amend(packet, IP_CHECKSUM, &old[..2], &new[..2]);
    }
}

/// Amends a checksum for words that changed (RFC 1624, equation 3).
fn amend(packet: &mut [u8], at: usize, old: &[u16], new: &[u16]) {
    let Some(checksum) = u16_at(packet, at) else { return };
    let mut sum = u32::from(!checksum);
    for (old, new) in old.iter().zip(new) {
        sum += u32::from(!old) + u32::from(*new);
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    #[allow(clippy::cast_possible_truncation)] // folded above
    let checksum = !(sum as u16);
    packet[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The checksum of RFC 1071, computed the long way.
    fn sum(parts: &[&[u8]]) -> u16 {
        let mut sum = 0_u32;
        for part in parts {
            for pair in part.chunks(2) {
                sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
            }
        }
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !u16::try_from(sum).unwrap()
    }

    /// A packet with right checksums.
    pub fn packet(
        transport: Transport,
        from: (Ipv4Addr, u16),
        to: (Ipv4Addr, u16),
        payload: &[u8],
    ) -> Vec<u8> {
        let (number, header, at) = match transport {
            Transport::Udp => (17, 8, 6),
            Transport::Tcp => (6, 20, 16),
        };
        let mut body = vec![0; header];
        body[..2].copy_from_slice(&from.1.to_be_bytes());
        body[2..4].copy_from_slice(&to.1.to_be_bytes());
        body.extend_from_slice(payload);
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        if transport == Transport::Udp {
            body[4..6].copy_from_slice(&length);
        }
        let pseudo = [&from.0.octets()[..], &to.0.octets(), &[0, number], &length].concat();
        let checksum = sum(&[&pseudo, &body]).to_be_bytes();
        body[at..at + 2].copy_from_slice(&checksum);
        let total = u16::try_from(20 + body.len()).unwrap().to_be_bytes();
        let mut ip = vec![0x45, 0, total[0], total[1], 0, 0, 0x40, 0, 64, number, 0, 0];
        ip.extend(from.0.octets());
        ip.extend(to.0.octets());
        let checksum = sum(&[&ip]).to_be_bytes();
        ip[10..12].copy_from_slice(&checksum);
        ip.extend(body);
        ip
    }

    proptest! {
        #[test]
        fn a_rewritten_packet_is_the_one_that_would_have_been_made_with_these_addresses(
            udp: bool,
            old: (u32, u16),
            new: (u32, u16),
            other: (u32, u16),
            payload in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            let transport = if udp { Transport::Udp } else { Transport::Tcp };
            let at = |(address, port): (u32, u16)| (Ipv4Addr::from(address), port);
            let mut up = packet(transport, at(old), at(other), &payload);
            let expected = packet(transport, at(new), at(other), &payload);
            let mut headers = Headers::read(&up).unwrap();
            headers.set_source(&mut up, at(new));
            // 0 and 0xffff are the same number in ones' complement, where UDP has no 0.
            prop_assert_eq!(normal(&up, udp), normal(&expected, udp));

            let mut down = packet(transport, at(other), at(old), &payload);
            let expected = packet(transport, at(other), at(new), &payload);
            let mut headers = Headers::read(&down).unwrap();
            headers.set_destination(&mut down, at(new));
            prop_assert_eq!(normal(&down, udp), normal(&expected, udp));
        }
    }

    fn normal(packet: &[u8], udp: bool) -> Vec<u8> {
        let mut packet = packet.to_vec();
        for at in [10, if udp { 26 } else { 36 }] {
            if packet[at..at + 2] == [0, 0] {
                packet[at..at + 2].fill(0xff);
            }
        }
        packet
    }

    #[test]
    fn what_is_not_forwarded_is_none() {
        let at = (Ipv4Addr::LOCALHOST, 1);
        let good = packet(Transport::Udp, at, at, b"x");
        assert!(Headers::read(&good).is_some());
        for (index, value) in [(0, 0x65), (0, 0x41), (6, 0x20), (9, 1)] {
            let mut bad = good.clone();
            bad[index] = value;
            assert_eq!(Headers::read(&bad), None, "byte {index}");
        }
        assert_eq!(Headers::read(&good[..27]), None);
        assert_eq!(Headers::read(&[]), None);
    }
}
