use super::*;

const SECOND: Duration = Duration::from_secs(1);
const UDP: Transport = Transport::Udp;
const TCP: Transport = Transport::Tcp;

fn nat() -> Nat {
    Nat::new(1, 7)
}

fn outer(nat: &mut Nat, at: Duration, transport: Transport, port: u16) -> (Ipv4Addr, u16) {
    nat.up(at, transport, port).unwrap().to
}

#[test]
fn every_address_tells_its_client() {
    for client in [0, 1, 255, 256, MAX_CLIENTS - 1] {
        assert_eq!(client_of(inner_address(client)), Some(client));
        assert_eq!(client_of(address(200, client)), Some(client));
    }
    assert_eq!(inner_address(0), Ipv4Addr::new(10, 77, 1, 0));
    assert_eq!(client_of(Ipv4Addr::new(10, 255, 0, 1)), None);
    assert_eq!(client_of(Ipv4Addr::new(192, 168, 1, 1)), None);
}

#[test]
fn nothing_is_changed_until_something_happens() {
    let mut nat = nat();
    assert_eq!(outer(&mut nat, SECOND, UDP, 5000), (inner_address(7), 5000));
    let back = nat.down(SECOND, UDP, (inner_address(7), 5000)).unwrap();
    assert_eq!((back.to, back.before), ((inner_address(7), 5000), 1));
    assert_eq!(nat.down(SECOND, TCP, (inner_address(7), 5000)), Err(Cause::NoMapping));
}

#[test]
fn a_dead_old_path_cuts_off_old_flows_and_lets_new_ones_through() {
    let mut nat = nat();
    let old = outer(&mut nat, SECOND, UDP, 5000);
    nat.change(2 * SECOND, Change::HandOver(OldPath::Dead));
    assert_eq!(nat.up(2 * SECOND, UDP, 5000), Err(Cause::OldPath));
    assert_eq!(nat.down(2 * SECOND, UDP, old), Err(Cause::OldPath));
    let new = outer(&mut nat, 2 * SECOND, UDP, 5001);
    assert_ne!(new.0, old.0);
    assert_eq!(client_of(new.0), Some(7));
    assert_eq!(nat.outer_address(), new.0);
    assert_eq!(nat.down(2 * SECOND, UDP, new).unwrap().to, (inner_address(7), 5001));
}

#[test]
fn a_dying_path_loses_and_then_is_dead() {
    let mut nat = nat();
    outer(&mut nat, SECOND, TCP, 5000);
    let dying = OldPath::Dying { lasts: 2 * SECOND, loss: 0.5 };
    nat.change(2 * SECOND, Change::HandOver(dying));
    assert!((nat.up(3 * SECOND, TCP, 5000).unwrap().loss - 0.5).abs() < f64::EPSILON);
    assert_eq!(nat.up(4 * SECOND, TCP, 5000), Err(Cause::OldPath));
}

#[test]
fn a_following_hand_over_moves_udp_and_cuts_off_tcp() {
    let mut nat = nat();
    let old = outer(&mut nat, SECOND, UDP, 5000);
    outer(&mut nat, SECOND, TCP, 5000);
    nat.change(2 * SECOND, Change::HandOver(OldPath::Follows));
    let new = outer(&mut nat, 2 * SECOND, UDP, 5000);
    assert_ne!(new.0, old.0);
    assert_eq!(new.1, old.1);
    assert_eq!(nat.down(2 * SECOND, UDP, old), Err(Cause::NoMapping));
    assert_eq!(nat.up(2 * SECOND, TCP, 5000), Err(Cause::OldPath));
}

#[test]
fn a_rebinding_gives_udp_another_port_and_leaves_tcp_alone() {
    let mut nat = nat();
    let (udp, tcp) = (outer(&mut nat, SECOND, UDP, 5000), outer(&mut nat, SECOND, TCP, 5000));
    nat.change(2 * SECOND, Change::Rebind { address: false });
    let new = outer(&mut nat, 2 * SECOND, UDP, 5000);
    assert_eq!(new.0, udp.0);
    assert_ne!(new.1, udp.1);
    assert_eq!(nat.down(2 * SECOND, UDP, udp), Err(Cause::NoMapping));
    assert_eq!(nat.down(2 * SECOND, UDP, new).unwrap().to.1, 5000);
    assert_eq!(outer(&mut nat, 2 * SECOND, TCP, 5000), tcp);
}

#[test]
fn many_hand_overs_never_confuse_flows() {
    let mut nat = nat();
    for round in 0..500_u16 {
        let at = SECOND * u32::from(round);
        nat.change(at, Change::HandOver(OldPath::Dead));
        let to = outer(&mut nat, at, UDP, 10_000 + round);
        assert_eq!(nat.down(at, UDP, to).unwrap().to, (inner_address(7), 10_000 + round));
        assert!(nat.flows.len() <= MAX_FLOWS && nat.by_outer.len() <= MAX_FLOWS);
    }
}
