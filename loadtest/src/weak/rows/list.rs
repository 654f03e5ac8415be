//! The rows, with their targets.

use edgeway_client::Class;

use super::{Check, Figure, Row, Target};
use crate::weak::{
    Congestion, Mode,
    offer::Offer,
    starts::From,
    task::{Kind, Task},
};

/// Samples that a p99 and a p99.9 ask for.
const P99: usize = 10_000;
const P999: usize = 50_000;

/// Clients at a time where a p99.9 is quoted.
const P999_CLIENTS: u32 = 200;

/// Events and starts that their quantiles ask for.
const MOMENTS: usize = 100;

/// Of all profiles here.
const RTT_MS: f64 = 100.0;

/// The profiles of independent loss, with the p99 of signals and of strokes that must be reached,
/// and the bytes on the wire that it may cost.
const LOSSY: [(&str, f64, f64, f64); 4] = [
    ("lossy-1", 65.0, 80.0, 1.6),
    ("lossy-5", 65.0, 100.0, 1.6),
    ("lossy-10", 75.0, 210.0, 1.6),
    ("lossy-20", 90.0, 300.0, 2.1),
];

/// The numbers of the rows.
pub fn numbers() -> std::ops::RangeInclusive<u8> {
    1..=14
}

/// Every row.
pub fn all() -> Vec<Row> {
    let of_each = [
        signals(),
        beside_tcp(),
        isolated(),
        strokes(),
        bytes(),
        bursts(),
        bufferbloat(),
        blackout(),
        handover(),
        rebind(),
        udp_blocked(),
        starts(),
        shares(),
        vec![check(
            Task { kind: Kind::Testbed, ..quic("clean", Offer::Standard) },
            "checks of the testbed that did not hold",
            Figure::Testbed,
            Target::AtMost(0.0),
            0,
        )],
    ];
    numbers().zip(of_each).map(|(number, checks)| Row { number, checks }).collect()
}

fn talk(profile: &'static str, mode: Mode, congestion: Congestion, offer: Offer) -> Task {
    let kind = Kind::Talk { offer, hint: false };
    Task { profile, mode, congestion, clients: None, kind }
}

fn quic(profile: &'static str, offer: Offer) -> Task {
    talk(profile, Mode::Quic, Congestion::Cubic, offer)
}

fn check(task: Task, what: &str, figure: Figure, target: Target, samples: usize) -> Check {
    Check { what: format!("{task}: {what}"), task, figure, target, samples }
}

fn p99(task: Task, target: Target) -> Check {
    let figure = Figure::Latency { class: Class::Signal, share: 0.99 };
    check(task, "signal p99", figure, target, P99)
}

fn signals() -> Vec<Check> {
    let mut checks = Vec::new();
    for (profile, signal, ..) in LOSSY {
        checks.push(p99(quic(profile, Offer::Standard), Target::AtMost(signal)));
    }
    for (profile, most) in [("lossy-5", 110.0), ("lossy-10", 160.0)] {
        let figure = Figure::Latency { class: Class::Signal, share: 0.999 };
        let target = Target::AtMost(most);
        let task = Task { clients: Some(P999_CLIENTS), ..quic(profile, Offer::Standard) };
        checks.push(check(task, "signal p99.9", figure, target, P999));
        checks.push(p99(task, Target::Told));
    }
    checks
}

fn beside_tcp() -> Vec<Check> {
    let both = [Congestion::Cubic, Congestion::Bbr];
    let mut checks = Vec::new();
    for (profile, ..) in LOSSY {
        let plain = both.map(|one| talk(profile, Mode::PlainTcp, one, Offer::Standard));
        let ours = both.map(|one| talk(profile, Mode::Tcp, one, Offer::Standard));
        let no_repair = talk(profile, Mode::QuicNorepair, Congestion::Cubic, Offer::Standard);
        let quic = quic(profile, Offer::Standard);
        let beside = plain.into_iter().chain(ours).chain([no_repair, quic]);
        checks.extend(beside.map(|task| p99(task, Target::Told)));
        let target = match profile {
            "lossy-10" => Target::AtLeast(8.0),
            "lossy-20" => Target::AtLeast(20.0),
            _ => Target::Told,
        };
        let figure = Figure::Times { share: 0.99, than: plain.to_vec() };
        let what = "signal p99 better than the better plain TCP by";
        checks.push(check(quic, what, figure, target, P99));
    }
    checks
}

fn isolated() -> Vec<Check> {
    let row =
        |of: (&'static str, f64, f64, f64)| p99(quic(of.0, Offer::Isolated), Target::AtMost(of.1));
    LOSSY.map(row).to_vec()
}

fn strokes() -> Vec<Check> {
    let mut checks = Vec::new();
    for (profile, _, most, _) in LOSSY {
        let task = quic(profile, Offer::Standard);
        let figure = Figure::Latency { class: Class::Binary, share: 0.99 };
        checks.push(check(task, "stroke p99", figure, Target::AtMost(most), P99));
        let what = "strokes missing, twice or out of order";
        let figure = Figure::Wrong { class: Class::Binary };
        checks.push(check(task, what, figure, Target::AtMost(0.0), 0));
    }
    checks
}

fn bytes() -> Vec<Check> {
    let row = |profile, offer, most| {
        let without = talk(profile, Mode::QuicNorepair, Congestion::Cubic, offer);
        let figure = Figure::Bytes { without };
        let what = "bytes on the wire, of those without repair";
        check(quic(profile, offer), what, figure, Target::AtMost(most), 0)
    };
    let mut checks = vec![row("clean", Offer::Standard, 1.02)];
    for (profile, _, _, most) in LOSSY {
        checks.push(row(profile, Offer::Standard, most));
    }
    for (profile, ..) in LOSSY {
        checks.push(row(profile, Offer::Isolated, 3.0));
    }
    checks
}

fn bursts() -> Vec<Check> {
    [("burst-60", 150.0), ("burst-200", 320.0)]
        .map(|(profile, most)| p99(quic(profile, Offer::Standard), Target::AtMost(most)))
        .to_vec()
}

fn bufferbloat() -> Vec<Check> {
    let tcp = |congestion| talk("bufferbloat", Mode::Tcp, congestion, Offer::Flood);
    let mut checks = Vec::new();
    for task in [quic("bufferbloat", Offer::Flood), tcp(Congestion::Cubic), tcp(Congestion::Bbr)] {
        checks.push(p99(task, Target::AtMost(150.0)));
        let lost = "signals and strokes lost";
        checks.push(check(task, lost, Figure::Lost, Target::AtMost(0.0), 0));
        let missing = Figure::Missing { class: Class::Chat };
        // Three times what the link carries is offered.
        checks.push(check(task, "chat shed", missing, Target::AtLeast(60.0), 0));
        let fresh = Figure::Freshness { class: Class::Chat, share: 0.9 };
        checks.push(check(task, "p90 of chat that is delivered", fresh, Target::Told, P99));
    }
    checks
}

fn back(task: Task, event: &'static str, share: f64, most: f64) -> Check {
    let quantile = if share < 0.95 { "p90" } else { "p99" };
    let what = format!("back after {event}, {quantile}");
    let figure = Figure::Back { what: event, share };
    let target = if most.is_finite() { Target::AtMost(most) } else { Target::Told };
    check(task, &what, figure, target, MOMENTS)
}

fn nothing_lost(task: Task) -> [Check; 2] {
    let none = Target::AtMost(0.0);
    [
        check(task, "signals and strokes lost", Figure::Lost, none, 0),
        check(task, "leaves and joins seen by others", Figure::Seen, none, 0),
    ]
}

fn chat_counted(task: Task) -> Check {
    let what = "chat that neither arrived nor was counted";
    check(task, what, Figure::Unaccounted, Target::AtMost(0.0), 0)
}

fn blackout() -> Vec<Check> {
    let task = quic("blackout-6s", Offer::Standard);
    let mut checks = vec![back(task, "blackout", 0.9, 150.0)];
    checks.extend(nothing_lost(task));
    for congestion in [Congestion::Cubic, Congestion::Bbr] {
        let plain = talk("blackout-6s", Mode::PlainTcp, congestion, Offer::Standard);
        checks.push(back(plain, "blackout", 0.9, f64::INFINITY));
    }
    checks
}

fn handover() -> Vec<Check> {
    let mut checks = Vec::new();
    for (hint, most) in [(true, 250.0), (false, 3000.0)] {
        let kind = Kind::Talk { offer: Offer::Standard, hint };
        let task = Task { kind, ..quic("handover", Offer::Standard) };
        checks.push(back(task, "hand_over", 0.99, most));
        checks.extend(nothing_lost(task));
        checks.push(chat_counted(task));
    }
    checks
}

fn rebind() -> Vec<Check> {
    let task = quic("nat-rebind", Offer::Standard);
    let gap = Figure::Gap { what: "rebind" };
    let mut checks = vec![check(task, "longest gap", gap, Target::AtMost(500.0), MOMENTS)];
    checks.extend(nothing_lost(task));
    checks.push(chat_counted(task));
    checks
}

fn udp_blocked() -> Vec<Check> {
    let auto = |profile| talk(profile, Mode::Auto, Congestion::Cubic, Offer::Standard);
    let head_start = edgeway_client::ClientConfig::new("", crate::weak::sides::login(""))
        .head_start
        .as_secs_f64()
        * 1000.0;
    let cold = Task { kind: Kind::Start(From::Cold), ..auto("udp-blocked") };
    let midway = auto("udp-blocked-midway");
    let mut checks = vec![
        start(cold, Target::AtMost(head_start + 4.0 * RTT_MS)),
        back(midway, "udp_block", 0.99, 3000.0),
    ];
    checks.extend(nothing_lost(midway));
    checks.push(chat_counted(midway));
    checks
}

fn start(task: Task, target: Target) -> Check {
    check(task, "first message, p90", Figure::Start { share: 0.9 }, target, MOMENTS)
}

fn starts() -> Vec<Check> {
    let from = |mode, from| Task {
        kind: Kind::Start(from),
        ..talk("clean", mode, Congestion::Cubic, Offer::Standard)
    };
    let rtt = |count: f64| Target::AtMost(count * RTT_MS);
    vec![
        start(from(Mode::Quic, From::Cold), rtt(2.5)),
        start(from(Mode::Tcp, From::Cold), rtt(3.5)),
        start(from(Mode::Quic, From::Warm), rtt(2.25)),
        start(from(Mode::Quic, From::Early), rtt(1.25)),
        start(from(Mode::Tcp, From::Warm), Target::Told),
    ]
}

fn shares() -> Vec<Check> {
    let row = |mode| {
        let beside = talk("bottleneck-5m", mode, Congestion::Cubic, Offer::Greedy);
        let task = Task { kind: Kind::Share, ..beside };
        check(task, "most that ours took", Figure::Share, Target::AtMost(1.5), 0)
    };
    vec![row(Mode::Quic), row(Mode::Tcp)]
}
