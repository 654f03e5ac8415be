use super::*;
use crate::weaknet::{
    nat::inner_address,
    packet::tests::packet,
    profile::{Bottleneck, LinkSpec, OldPath, Profiles},
    units::{Queue, Rate},
};

const MS: Duration = Duration::from_millis(1);
const SERVER: (Ipv4Addr, u16) = (Ipv4Addr::new(10, 255, 0, 1), 4433);

/// A client and a server that send through a path at one moment each.
struct Ends {
    path: Path,
}

impl Ends {
    fn new(profile: &Profile) -> Self {
        Self { path: Path::new(profile, 1, 0) }
    }

    fn clean() -> Self {
        let link = LinkSpec { delay: 50 * MS, ..LinkSpec::default() };
        Self::new(&Profile::symmetric("test", link))
    }

    /// From the client's `port`; when it arrives and from where.
    fn up(
        &mut self,
        at: Duration,
        transport: Transport,
        port: u16,
    ) -> Result<(Duration, (Ipv4Addr, u16)), Cause> {
        let mut packet = packet(transport, (inner_address(0), port), SERVER, b"up");
        let mut headers = Headers::read(&packet).unwrap();
        match self.path.up(at, &mut headers, &mut packet) {
            Fate::Arrives { at, .. } => Ok((at, Headers::read(&packet).unwrap().source)),
            Fate::Lost(cause) => Err(cause),
        }
    }

    /// To the client's outer address; which of its ports gets it, if it gets in.
    fn down(&mut self, at: Duration, transport: Transport, to: (Ipv4Addr, u16)) -> Option<u16> {
        let mut packet = packet(transport, SERVER, to, b"down");
        match self.path.down(at, &packet) {
            Fate::Arrives { at, .. } => {
                let arrived = self.path.arrive_down(at, &mut packet, false);
                arrived.then(|| Headers::read(&packet).unwrap().destination.1)
            }
            Fate::Lost(_) => None,
        }
    }
}

#[test]
fn what_is_on_its_way_down_when_the_address_changes_is_lost() {
    let mut ends = Ends::clean();
    let (_, from) = ends.up(MS, Transport::Udp, 5000).unwrap();
    let mut late = packet(Transport::Udp, SERVER, from, b"late");
    let Fate::Arrives { at, .. } = ends.path.down(100 * MS, &late) else { panic!("lost") };
    ends.path.change(120 * MS, Change::HandOver(OldPath::Dead));
    assert!(!ends.path.arrive_down(at, &mut late, false));
    assert_eq!(ends.path.counters().down.lost.old_path.packets, 1);
}

#[test]
fn a_rebinding_of_the_schedule_happens_at_its_time_and_again_after_a_restart() {
    let profiles = Profiles::load(None).unwrap();
    let mut ends = Ends::new(profiles.get("nat-rebind").unwrap());
    let moment = ends.path.schedule(20_000 * MS)[0].at;
    for begun in [Duration::ZERO, 100_000 * MS] {
        if begun > Duration::ZERO {
            ends.path.restart(begun);
        }
        let port = |ends: &mut Ends, at| ends.up(begun + at, Transport::Udp, 5000).unwrap().1.1;
        let before = port(&mut ends, moment - MS);
        assert_ne!(port(&mut ends, moment), before);
    }
}

#[test]
fn a_block_of_udp_lets_tcp_through_and_as_many_packets_as_it_says() {
    let profiles = Profiles::load(None).unwrap();
    let mut ends = Ends::new(profiles.get("udp-blocked").unwrap());
    assert_eq!(ends.up(MS, Transport::Udp, 5000), Err(Cause::UdpBlocked));
    assert!(ends.up(MS, Transport::Tcp, 5000).is_ok());

    let mut ends = Ends::new(profiles.get("udp-first-packets").unwrap());
    let passed = (0..20).filter(|_| ends.up(MS, Transport::Udp, 5000).is_ok()).count();
    assert_eq!(passed, 12);
}

#[test]
fn commands_black_out_and_block_one_client() {
    let mut ends = Ends::clean();
    let (_, from) = ends.up(MS, Transport::Udp, 5000).unwrap();
    ends.path.black_out(100 * MS, 50 * MS);
    assert_eq!(ends.up(149 * MS, Transport::Udp, 5000), Err(Cause::Blackout));
    assert_eq!(ends.down(149 * MS, Transport::Udp, from), None);
    assert!(ends.up(150 * MS, Transport::Udp, 5000).is_ok());
    ends.path.block_udp(true);
    assert_eq!(ends.up(300 * MS, Transport::Udp, 5000), Err(Cause::UdpBlocked));
    assert_eq!(ends.down(300 * MS, Transport::Udp, from), None);
    ends.path.block_udp(false);
    assert_eq!(ends.down(400 * MS, Transport::Udp, from), Some(5000));
}

#[test]
fn every_packet_is_counted_once_in_each_direction() {
    let profiles = Profiles::load(None).unwrap();
    let mut ends = Ends::new(profiles.get("train").unwrap());
    let client = (inner_address(0), 5000);
    for step in 0..20_000 {
        if let Ok((_, from)) = ends.up(MS * 3 * step, Transport::Udp, 5000) {
            ends.path.arrive_up(&packet(Transport::Udp, from, SERVER, b"up"));
        }
        ends.down(MS * 3 * step, Transport::Udp, client);
    }
    let counters = ends.path.counters();
    for link in [counters.up, counters.down] {
        let lost: u64 = link.lost.all().iter().map(|(_, count)| count.packets).sum();
        assert_eq!(link.sent.packets, link.arrived.packets + lost);
        assert!(link.lost.blackout.packets > 0 && link.lost.burst.packets > 0);
    }
}

#[test]
fn clients_share_a_bottleneck_only_where_the_profile_says_so() {
    let waits = |shared| {
        let bottleneck = Bottleneck { rate: Rate(1e6), queue: Queue::Time(100 * MS) };
        let link = LinkSpec { bottleneck: Some(bottleneck), ..LinkSpec::default() };
        let profile = Profile { shared, ..Profile::symmetric("test", link) };
        let mut paths = Path::all(&profile, 1, 2);
        let mut at = |client: u32| {
            let mut up = packet(Transport::Udp, (inner_address(client), 5000), SERVER, &[0; 972]);
            let mut headers = Headers::read(&up).unwrap();
            match paths[client as usize].up(MS, &mut headers, &mut up) {
                Fate::Arrives { at, .. } => Some(at),
                Fate::Lost(_) => None,
            }
        };
        assert_eq!(at(0), Some(9 * MS)); // 1000 bytes
        let second = at(1);
        (second, paths[1].counters().up.queue.max_us)
    };
    assert_eq!(waits(false), (Some(9 * MS), 0));
    assert_eq!(waits(true), (Some(17 * MS), 8000));
}
