//! How much is measured for each figure: as many samples as it asks for, in runs that this machine
//! carries.

use std::time::Duration;

use clap::ValueEnum;

use super::{Check, Figure, Row, Target};
use crate::weak::{
    offer::Offer,
    task::{Kind, Size, Task},
};

/// How much.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Suite {
    /// Every row from few samples, in some 25 minutes
    Quick,
    /// As many samples as each quantile asks for, in two and a quarter hours
    Full,
}

/// What is given on the command line, for every run.
#[derive(Debug, Clone, Default)]
pub struct Limits {
    pub clients: Option<u32>,
    pub seconds: Option<u32>,
    pub warm_up: Option<u32>,
    pub seeds: Option<Vec<u64>>,
}

/// Clients of a standard load at a time: 14,000 packets a second over QUIC with repair on a link that loses 10%, which
/// two slow cores carry for testbed, clients, peers and server together before they queue.
const CLIENTS: u32 = 100;

/// Who says something every 1.5 s is no load.
const ISOLATED_CLIENTS: u32 = 200;

/// Where a flood is offered, both directions talk at once, or clients start.
const FEWER_CLIENTS: u32 = 60;

/// Runs whose figures are put together, at least.
const SEEDS: u64 = 3;

/// Seconds that one direction of a run talks: short enough that there are several seeds, long enough
/// that connecting is not most of it, and that what a server does from time to time happens in it.
const SECONDS: std::ops::RangeInclusive<u32> = 10..=84;

/// The longest that something happens after the start of a schedule, with time for what follows.
const EVENTS_SECONDS: u32 = 30;

/// Profiles in which something happens at a moment.
const WITH_EVENTS: [&str; 4] = ["blackout-6s", "handover", "nat-rebind", "udp-blocked-midway"];

/// Everything that has to be measured for these rows, once each, in order; first what has a target, so that
/// who ends it early has that.
pub fn plan(rows: &[Row], suite: Suite, limits: &Limits) -> Vec<(Task, Size)> {
    let checks = || rows.iter().flat_map(|row| &row.checks);
    let told = |check: &&Check| check.target == Target::Told;
    let mut tasks: Vec<(Task, Size)> = Vec::new();
    for check in checks().filter(|check| !told(check)).chain(checks().filter(told)) {
        for task in check.tasks() {
            let size = size(task, check, suite);
            match tasks.iter_mut().find(|(one, _)| *one == task) {
                Some((_, planned)) => planned.grow(&size),
                None => tasks.push((task, size)),
            }
        }
    }
    // Bytes are compared between runs of one length.
    for check in checks() {
        if let Figure::Bytes { without } = check.figure {
            let pair = [check.task, without];
            let of = |(task, _): &&(Task, Size)| pair.contains(task);
            let longest = tasks.iter().filter(of).map(|(_, size)| size.seconds).max();
            for (_, size) in tasks.iter_mut().filter(|(task, _)| pair.contains(task)) {
                size.seconds = longest.unwrap_or(size.seconds);
            }
        }
    }
    tasks.iter_mut().for_each(|(_, size)| size.limit(limits));
    tasks
}

fn size(task: Task, check: &Check, suite: Suite) -> Size {
    let events = WITH_EVENTS.contains(&task.profile);
    let full = Size {
        clients: task.clients.unwrap_or(match task.kind {
            Kind::Talk { offer: Offer::Standard, .. } if !events => CLIENTS,
            Kind::Talk { offer: Offer::Isolated, .. } if !events => ISOLATED_CLIENTS,
            _ => FEWER_CLIENTS,
        }),
        seconds: match task.kind {
            Kind::Talk { .. } if !events => *SECONDS.start(),
            _ => EVENTS_SECONDS,
        },
        warm_up: 4,
        seeds: (1..=SEEDS).collect(),
    };
    match suite {
        Suite::Full => match task.kind {
            Kind::Talk { offer, .. } if !events => enough(full, offer, check),
            _ => full,
        },
        Suite::Quick => Size {
            clients: full.clients / 3,
            seconds: match task.kind {
                Kind::Talk { .. } if events => full.seconds,
                Kind::Share => 10,
                _ => 5,
            },
            warm_up: 2,
            seeds: vec![1],
        },
    }
}

/// About how long these take, for people who wait.
pub fn duration(tasks: &[(Task, Size)]) -> Duration {
    /// A server and its clients come and go, and what is late is waited for.
    const AROUND: u32 = 12;
    let of = |(task, size): &(Task, Size)| {
        let seeds = u32::try_from(size.seeds.len()).unwrap_or(u32::MAX);
        let directions = if WITH_EVENTS.contains(&task.profile) { 1 } else { 2 };
        match task.kind {
            Kind::Talk { .. } => seeds * (size.warm_up + directions * size.seconds + AROUND),
            Kind::Share => seeds * (8 + 2 * size.seconds + AROUND),
            Kind::Start(_) => seeds * 8,
            Kind::Testbed => 90,
        }
    };
    Duration::from_secs(tasks.iter().map(|task| u64::from(of(task))).sum())
}

/// As long and as often as it takes for the samples that the check asks for.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn enough(size: Size, offer: Offer, check: &Check) -> Size {
    let (Figure::Latency { class, .. } | Figure::Freshness { class, .. }) = check.figure else {
        // Signals are the fewest.
        let signals = Figure::Latency { class: edgeway_client::Class::Signal, share: 0.99 };
        let asks = matches!(check.figure, Figure::Times { .. });
        let check = Check { figure: signals, ..check.clone() };
        return if asks { enough(size, offer, &check) } else { size };
    };
    let a_second = f64::from(2 * size.clients) * offer.rate(class);
    let seconds = (check.samples as f64 / a_second).ceil();
    let a_run = ((seconds / SEEDS as f64).ceil() as u32).clamp(*SECONDS.start(), *SECONDS.end());
    let runs = (seconds / f64::from(a_run)).ceil() as u64;
    Size { seconds: a_run, seeds: (1..=runs.max(SEEDS)).collect(), ..size }
}

impl Size {
    /// At least as much as the other.
    fn grow(&mut self, other: &Self) {
        self.seconds = self.seconds.max(other.seconds);
        if other.seeds.len() > self.seeds.len() {
            self.seeds.clone_from(&other.seeds);
        }
    }

    fn limit(&mut self, limits: &Limits) {
        self.clients = limits.clients.unwrap_or(self.clients);
        self.seconds = limits.seconds.unwrap_or(self.seconds);
        self.warm_up = limits.warm_up.unwrap_or(self.warm_up);
        if let Some(seeds) = &limits.seeds {
            self.seeds.clone_from(seeds);
        }
    }
}
