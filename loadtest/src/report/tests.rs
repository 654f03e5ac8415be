use std::time::Duration;

use super::*;
use crate::stamp::Stamp;

fn used(cpu: u64, wall: u64) -> Used {
    Used { cpu: Duration::from_secs(cpu), wall: Duration::from_secs(wall) }
}

/// A report of a room of two: one chat message sent by each, and the second one's lost by the
/// second member.
fn report(shed_by_policy: u64, missed: u64) -> Report {
    let audit = Audit::new();
    let mut receivers = [audit.receiver(0, 2), audit.receiver(0, 2)];
    for sender in 0..2 {
        audit.sent(Class::Chat);
        for (at, receiver) in receivers.iter_mut().enumerate() {
            if (sender, at) != (1, 1) {
                let stamp = Stamp { sender, n: 0, sent_ns: 0 };
                receiver.delivered(Class::Chat, None, stamp, 5_000_000);
            }
        }
    }
    receivers[1].missed(Class::Chat, missed);
    drop(receivers);
    let mut report = Report::new("room", "quic");
    report.connections = 2;
    report.deliveries(&[(&audit, 2)], shed_by_policy);
    report.cost(used(3, 10), used(5, 10), 3_000_000, 1_000_000);
    report
}

#[test]
fn what_did_not_arrive_is_lost() {
    let report = report(0, 0);
    let total = &report.total;
    assert_eq!((total.sent, total.expected, total.delivered, total.lost), (2, 4, 3, 1));
    assert!(!total.held());
}

#[test]
fn what_was_shed_is_not_lost() {
    let report = report(0, 1);
    assert_eq!((report.total.lost, report.total.shed), (0, 1));
    assert!(report.total.held());
}

#[test]
fn more_than_was_sent_does_not_hold() {
    assert!(!report(1, 0).total.held());
}

#[test]
fn the_json_object_has_the_names_that_scripts_rely_on() {
    let json = serde_json::to_value(report(0, 0)).unwrap();
    for key in [
        "scenario",
        "transport",
        "members",
        "rooms",
        "secs",
        "seed",
        "sent",
        "expected",
        "delivered",
        "lost",
        "duplicated",
        "reordered",
        "shed",
        "deliveries_per_s",
    ] {
        assert!(json.get(key).is_some(), "{key}");
    }
    for class in ["signal", "chat", "binary"] {
        for key in ["sent", "expected", "delivered", "lost", "duplicated", "reordered", "shed"] {
            assert!(json["by_class"][class][key].is_u64(), "{class} {key}");
        }
    }
    for key in ["p50", "p90", "p99", "p999", "max"] {
        assert!((json["latency_ms"][key].as_f64().unwrap() - 5.0).abs() < 0.01, "{key}");
        assert!(json["by_class"]["chat"]["latency_ms"][key].is_f64(), "{key}");
    }
    assert_eq!(json["server"]["cpu_us_per_delivery"], 1e6);
    assert_eq!(json["server"]["cpu_cores"], 0.3);
    assert_eq!(json["server"]["rss_bytes"], 3_000_000);
    assert_eq!(json["server"]["rss_bytes_per_connection"], 1e6);
    assert_eq!(json["generator"]["cpu_cores"], 0.5);
}

#[test]
fn runs_add_up() {
    let mut twice = report(0, 1);
    let audit = Audit::new();
    let (mut a, mut b) = (audit.receiver(0, 1), audit.part().receiver(0, 1));
    audit.sent(Class::Signal);
    let stamp = Stamp { sender: 0, n: 0, sent_ns: 0 };
    a.delivered(Class::Signal, None, stamp, 1_000_000);
    b.missed(Class::Signal, 0);
    let part = audit.part();
    drop(a);
    twice.deliveries(&[(&audit, 1), (&part, 1)], 0);
    twice.cost(used(1, 10), used(1, 10), 3_000_000, 1_000_000);
    let total = &twice.total;
    assert_eq!((total.sent, total.expected, total.delivered, total.lost), (3, 6, 4, 1));
    assert_eq!(twice.server.cpu_us_per_delivery, 1e6);
    assert_eq!(twice.deliveries_per_s, 0.2);
    twice.problems.push("the server said so".to_owned());
    assert!(twice.summary().contains("the server said so") && !twice.held());
}
