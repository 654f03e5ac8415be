use super::*;

fn stamp(sender: u32, n: u32) -> Stamp {
    Stamp { sender, n, sent_ns: 0 }
}

fn seq(counter: u64) -> Option<Seq> {
    Some(Seq { epoch: 1, counter })
}

/// What a receiver that gets these messages of one sender, in this order, is found to have got:
/// delivered, duplicated, reordered.
fn check(received: &[u32], expected: (u64, u64, u64)) {
    let audit = Audit::new();
    let mut receiver = audit.receiver(0, 1);
    for n in received {
        assert!(receiver.delivered(Class::Chat, None, stamp(0, *n), 1_000_000));
    }
    drop(receiver);
    let found = audit.findings(Class::Chat);
    assert_eq!((found.delivered, found.duplicated, found.reordered), expected, "{received:?}");
    assert_eq!(found.latency_us.len(), found.delivered);
}

#[test]
fn each_message_of_a_sender_counts_once_and_its_order_is_checked() {
    check(&[0, 1, 2, 3], (4, 0, 0));
    check(&[0, 3], (2, 0, 0)); // two are missing, which is for the caller to judge
    check(&[0, 1, 1, 2], (3, 1, 0));
    check(&[0, 2, 1], (3, 0, 1));
    check(&[0, 2, 1, 1], (3, 1, 1));
    check(&[70, 71, 0], (3, 0, 1));
    check(&[u32::MAX], (1, 0, 0));
}

#[test]
fn a_receiver_that_got_another_message_at_a_place_is_found() {
    let audit = Audit::new();
    let mut receivers = [audit.receiver(0, 2), audit.receiver(0, 2)];
    for (receiver, order) in receivers.iter_mut().zip([[0, 1], [1, 0]]) {
        receiver.delivered(Class::Signal, seq(1), stamp(order[0], 0), 0);
        receiver.delivered(Class::Signal, seq(2), stamp(order[1], 0), 0);
        receiver.flush();
    }
    assert_eq!(audit.findings(Class::Signal).reordered, 2);
}

#[test]
fn a_hole_in_the_order_hides_no_disagreement_and_is_none_itself() {
    let audit = Audit::new();
    let (mut whole, mut holes) = (audit.receiver(0, 1), audit.receiver(0, 1));
    for n in 0..5000 {
        whole.delivered(Class::Chat, seq(u64::from(n) + 1), stamp(0, n), 0);
        if n % 3 == 0 {
            holes.delivered(Class::Chat, seq(u64::from(n) + 1), stamp(0, n), 0);
        }
    }
    holes.delivered(Class::Chat, seq(6000), stamp(0, 6000), 0);
    whole.delivered(Class::Chat, seq(6000), stamp(0, 6001), 0);
    drop((whole, holes));
    assert_eq!(audit.findings(Class::Chat).reordered, 1);
}

#[test]
fn a_place_that_does_not_grow_is_found() {
    let audit = Audit::new();
    let mut receiver = audit.receiver(0, 2);
    receiver.delivered(Class::Chat, seq(2), stamp(0, 0), 0);
    receiver.delivered(Class::Chat, seq(1), stamp(1, 0), 0);
    drop(receiver);
    assert_eq!(audit.findings(Class::Chat).reordered, 1);
}

#[test]
fn rooms_and_classes_have_orders_of_their_own() {
    let audit = Audit::new();
    let (mut a, mut b) = (audit.receiver(0, 2), audit.receiver(1, 2));
    a.delivered(Class::Chat, seq(1), stamp(0, 0), 0);
    a.delivered(Class::Signal, seq(1), stamp(1, 0), 0);
    b.delivered(Class::Chat, seq(1), stamp(1, 0), 0);
    drop((a, b));
    for class in Class::ALL {
        assert_eq!(audit.findings(class).reordered, 0);
    }
}

#[test]
fn a_stamp_of_nobody_is_refused() {
    let audit = Audit::new();
    assert!(!audit.receiver(0, 3).delivered(Class::Chat, None, stamp(3, 0), 0));
}
