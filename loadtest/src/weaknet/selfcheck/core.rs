//! The pure core, on a clock of its own: 100,000 packets take no longer than they take to compute.

use std::time::Duration;

use super::{Verdict, mean_and_sigma, mode, ms, runs};
use crate::weaknet::{
    counters::Cause,
    draw::Direction,
    link::{Fate, Link},
    profile::{Bottleneck, Bursts, GilbertElliott, Jitter, LinkSpec, Shape},
    timeline::Outage,
    units::{Queue, Rate},
};

/// Packets of each check.
pub const PACKETS: u32 = 100_000;

const MS: Duration = Duration::from_millis(1);

/// All checks of the core.
#[allow(clippy::cast_precision_loss)] // counts of packets
pub fn check(seed: u64) -> Vec<Verdict> {
    let mut verdicts = vec![];
    for share in [0.01, 0.05, 0.1, 0.2] {
        verdicts.push(independent_loss(seed, share));
    }
    for (shape, reorder) in
        [(Shape::Even, false), (Shape::Even, true), (Shape::Tail, false), (Shape::Tail, true)]
    {
        verdicts.push(mean_delay(seed, shape, reorder));
    }
    verdicts.extend(gilbert_elliott(seed));
    for length in [60, 200] {
        verdicts.extend(bursts(seed, MS * length));
    }
    verdicts.extend(rate_and_queue(seed));
    verdicts.push(duplicates(seed));
    verdicts.push(blackout(seed));
    verdicts.push(same_fates(seed));
    verdicts
}

fn none(_: Duration) -> Option<Outage> {
    None
}

/// Sends packets of 100 bytes, `gap` apart.
fn send(spec: &LinkSpec, seed: u64, gap: Duration) -> (Link, Vec<(Duration, Fate)>) {
    let mut link = Link::new(spec, seed, 0, Direction::Up);
    let fates = (0..PACKETS)
        .map(|number| {
            let now = gap * number;
            (now, link.send(now, Duration::ZERO, 100, none))
        })
        .collect();
    (link, fates)
}

fn lost(fates: &[(Duration, Fate)]) -> impl Iterator<Item = bool> {
    fates.iter().map(|(_, fate)| matches!(fate, Fate::Lost(_)))
}

#[allow(clippy::cast_precision_loss)] // counts of packets
fn share_of(items: impl Iterator<Item = bool>) -> f64 {
    items.filter(|on| *on).count() as f64 / f64::from(PACKETS)
}

fn binomial_sigma(share: f64) -> f64 {
    (share * (1.0 - share) / f64::from(PACKETS)).sqrt()
}

fn independent_loss(seed: u64, share: f64) -> Verdict {
    let spec = LinkSpec { loss: share, ..LinkSpec::default() };
    let (_, fates) = send(&spec, seed, MS);
    let measured = share_of(lost(&fates));
    Verdict::figure("independent loss, share", share, measured, binomial_sigma(share))
}

fn mean_delay(seed: u64, shape: Shape, reorder: bool) -> Verdict {
    let spread = 20 * MS;
    // The mean of an even spread is half of it; a tail is cut off at 8 times its mean.
    let (mean, name) = match shape {
        Shape::Even => (spread / 2, "even"),
        Shape::Tail => (spread.mul_f64(1.0 - (-8.0_f64).exp()), "tail"),
    };
    // Long slots for what keeps order, so that no delay falls faster than time passes.
    let slot = if reorder { MS } else { 200 * MS };
    let jitter = Some(Jitter { spread, slot, shape, reorder });
    let spec = LinkSpec { delay: 50 * MS, jitter, ..LinkSpec::default() };
    // Packets as far apart as slots are independent of each other, and two slots at most share.
    let (_, fates) = send(&spec, seed, slot);
    let delays: Vec<_> = fates
        .iter()
        .filter_map(|(now, fate)| match fate {
            Fate::Arrives { at, .. } => Some(ms(*at - *now)),
            Fate::Lost(_) => None,
        })
        .collect();
    let (measured, sigma) = mean_and_sigma(&delays);
    let order = if reorder { "reordering" } else { "in order" };
    Verdict::figure(
        format!("mean delay, jitter {name}, {order}, ms"),
        ms(50 * MS + mean),
        measured,
        sigma,
    )
}

#[allow(clippy::cast_precision_loss)] // counts of spells
fn gilbert_elliott(seed: u64) -> Vec<Verdict> {
    let (good, bad) = (900 * MS, 100 * MS);
    let model = GilbertElliott { good, bad, loss_good: 0.0, loss_bad: 1.0 };
    let spec = LinkSpec { gilbert_elliott: Some(model), ..LinkSpec::default() };
    let gap = 10 * MS;
    let (_, fates) = send(&spec, seed, gap);
    let (g, b) = (good.as_secs_f64(), bad.as_secs_f64());
    let total = (gap * PACKETS).as_secs_f64();
    // Variance of the time that an alternating renewal process spends in one state.
    let sigma = (2.0 * (g * b).powi(2) / ((g + b).powi(3) * total)).sqrt();
    let share = share_of(lost(&fates));
    // The model looked at each 10 ms is a chain that stays bad with this probability.
    let share_bad = b / (g + b);
    let stays = share_bad + (1.0 - share_bad) * (-gap.as_secs_f64() * (1.0 / g + 1.0 / b)).exp();
    let lengths: Vec<_> = runs(lost(&fates)).iter().map(|run| *run as f64 * ms(gap)).collect();
    let (mean, mean_sigma) = mean_and_sigma(&lengths);
    vec![
        Verdict::figure("Gilbert-Elliott, share lost", share_bad, share, sigma),
        Verdict::figure(
            "Gilbert-Elliott, mean bad spell as seen, ms",
            ms(gap) / (1.0 - stays),
            mean,
            mean_sigma,
        ),
    ]
}

#[allow(clippy::cast_precision_loss)] // counts of bursts
fn bursts(seed: u64, length: Duration) -> Vec<Verdict> {
    let share = 0.1;
    let bursts = Some(Bursts { length, share, together: false });
    let spec = LinkSpec { bursts, ..LinkSpec::default() };
    let (_, fates) = send(&spec, seed, MS);
    let lengths = runs(lost(&fates));
    let (common, count) = mode(&lengths);
    let name = format!("bursts of {} ms", length.as_millis());
    let exact = |run: &&usize| run.abs_diff(common) <= 1;
    let odd = lengths.len() - lengths.iter().filter(exact).count();
    vec![
        Verdict::figure(format!("{name}, share of time"), share, share_of(lost(&fates)), 0.0),
        Verdict::figure(format!("{name}, length, ms"), ms(length), common as f64, 0.0),
        // Two that touch are seen as one: in one pair of a thousand or so.
        Verdict::figure(
            format!("{name}, of another length, share"),
            0.0,
            odd as f64 / lengths.len().max(1) as f64,
            0.01 / 3.0,
        ),
        Verdict::holds(format!("{name} are seen"), count > 0),
    ]
}

#[allow(clippy::cast_precision_loss)] // bytes
fn rate_and_queue(seed: u64) -> Vec<Verdict> {
    let mut verdicts = vec![];
    for (name, queue) in [("1 s", Queue::Time(1000 * MS)), ("125 kB", Queue::Bytes(125_000))] {
        let bottleneck = Some(Bottleneck { rate: Rate(1e6), queue });
        let spec = LinkSpec { delay: 50 * MS, bottleneck, ..LinkSpec::default() };
        // 100 bytes each 0.4 ms: 2 Mbit/s into 1.
        let (link, fates) = send(&spec, seed, MS * 2 / 5);
        let arrivals: Vec<_> = fates
            .iter()
            .filter_map(|(now, fate)| match fate {
                Fate::Arrives { at, .. } => Some((*at, *at - *now)),
                Fate::Lost(_) => None,
            })
            .collect();
        let (Some((first, _)), Some((last, _))) = (arrivals.first(), arrivals.last()) else {
            return vec![Verdict::never("nothing arrives through a bottleneck", 1)];
        };
        let bits = (arrivals.len() - 1) as f64 * 800.0;
        let rate = bits / (*last - *first).as_secs_f64() / 1e6;
        let most = arrivals.iter().map(|(_, delay)| *delay).max().unwrap_or_default();
        let others = link
            .counters
            .lost
            .all()
            .iter()
            .any(|(cause, count)| *cause != Cause::Queue && count.packets > 0);
        verdicts.extend([
            Verdict::figure(format!("rate, queue of {name}, Mbit/s"), 1.0, rate, 0.0),
            Verdict::figure(format!("longest delay, queue of {name}, ms"), 1050.0, ms(most), 0.0),
            Verdict::holds(format!("only the queue of {name} loses"), !others),
        ]);
    }
    verdicts
}

fn duplicates(seed: u64) -> Verdict {
    let spec = LinkSpec { duplicate: 0.01, ..LinkSpec::default() };
    let (_, fates) = send(&spec, seed, MS);
    let twice =
        share_of(fates.iter().map(|(_, fate)| matches!(fate, Fate::Arrives { copy: Some(_), .. })));
    Verdict::figure("duplicates, share", 0.01, twice, binomial_sigma(0.01))
}

fn blackout(seed: u64) -> Verdict {
    let mut link = Link::new(&LinkSpec::default(), seed, 0, Direction::Up);
    let covers = |at: Duration| at >= 10_000 * MS && at < 16_000 * MS;
    let outage = |at| covers(at).then_some(Outage { until: 16_000 * MS, held: false });
    let wrong = (0..PACKETS)
        .filter(|number| {
            let fate = link.send(MS * *number, Duration::ZERO, 100, outage);
            matches!(fate, Fate::Lost(_)) != covers(MS * *number)
        })
        .count();
    Verdict::never("packets on the wrong side of a blackout", wrong)
}

/// Two runs with one seed, in one of which another client sends in between.
fn same_fates(seed: u64) -> Verdict {
    let spec = LinkSpec {
        delay: 50 * MS,
        jitter: Some(Jitter { spread: 20 * MS, slot: MS, shape: Shape::Tail, reorder: true }),
        loss: 0.05,
        gilbert_elliott: Some(GilbertElliott {
            good: 900 * MS,
            bad: 100 * MS,
            loss_good: 0.0,
            loss_bad: 0.5,
        }),
        bursts: Some(Bursts { length: 60 * MS, share: 0.1, together: false }),
        bottleneck: Some(Bottleneck { rate: Rate(1e6), queue: Queue::Time(200 * MS) }),
        duplicate: 0.01,
    };
    let (_, alone) = send(&spec, seed, MS);
    let mut link = Link::new(&spec, seed, 0, Direction::Up);
    let mut other = Link::new(&spec, seed, 1, Direction::Up);
    let differ = alone
        .iter()
        .filter(|(now, fate)| {
            other.send(*now, Duration::ZERO, 700, none);
            link.send(*now, Duration::ZERO, 100, none) != *fate
        })
        .count();
    Verdict::never("fates that differ between runs of one seed", differ)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_core_does_what_is_configured() {
        for seed in [1, 2] {
            let failed: Vec<_> = check(seed).into_iter().filter(|verdict| !verdict.held).collect();
            assert!(failed.is_empty(), "seed {seed}: {failed:#?}");
        }
    }
}
