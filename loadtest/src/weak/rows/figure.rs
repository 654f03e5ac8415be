//! The figures of which the table is made.

use edgeway_client::Class;

use super::Results;
use crate::weak::{
    found::Found,
    record::Fates,
    task::{Measured, Task},
};

/// What is looked at in what was measured.
#[derive(Debug, Clone)]
pub enum Figure {
    /// One-way latency that a share of all messages sent did not exceed, ms.
    Latency { class: Class, share: f64 },
    /// The same of those delivered, ms.
    Freshness { class: Class, share: f64 },
    /// Messages of a class that did not arrive, arrived twice or out of order.
    Wrong { class: Class },
    /// Messages of reliable classes that did not arrive.
    Lost,
    /// Chat that neither arrived nor was counted as missed or shed.
    Unaccounted,
    /// Messages of a class that did not arrive, of all, per cent.
    Missing { class: Class },
    /// How many times better the quantile of signals is than the best of the others.
    Times { share: f64, than: Vec<Task> },
    /// Bytes on the wire, in multiples of those of another on the same seeds.
    Bytes { without: Task },
    /// Time to service after what happened to the path, both directions, ms.
    Back { what: &'static str, share: f64 },
    /// Longest time in which nothing arrived, both directions, ms.
    Gap { what: &'static str },
    /// Leaves and joins that others saw.
    Seen,
    /// Time to the first message of a start, ms.
    Start { share: f64 },
    /// The largest share that ours took, in fair shares.
    Share,
    /// Checks of the testbed that did not hold.
    Testbed,
}

/// Its value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Value {
    /// Infinite where it is a time and the end did not come.
    pub number: f64,
    /// Of how many samples.
    pub samples: usize,
}

#[allow(clippy::cast_precision_loss)] // counts of messages
fn count(number: usize, samples: usize) -> Value {
    Value { number: number as f64, samples }
}

impl Figure {
    /// Its unit.
    pub fn unit(&self) -> &'static str {
        match self {
            Self::Latency { .. }
            | Self::Freshness { .. }
            | Self::Back { .. }
            | Self::Gap { .. }
            | Self::Start { .. } => " ms",
            Self::Times { .. } | Self::Bytes { .. } => " times",
            Self::Missing { .. } => "%",
            Self::Share => " fair shares",
            Self::Wrong { .. } | Self::Lost | Self::Unaccounted | Self::Seen | Self::Testbed => "",
        }
    }

    /// Its value for `task`; none where that was not measured, or nothing of it.
    pub fn of(&self, task: Task, results: &Results) -> Option<Value> {
        let measured = results.iter().find(|(one, _)| *one == task).map(|(_, found)| found)?;
        match measured {
            Measured::Talk(found) => self.of_talk(found, results),
            Measured::Starts(starts) => match self {
                Self::Start { share } => Some(quantile(&starts.fates, *share)),
                _ => None,
            },
            Measured::Shares(shares) => match self {
                Self::Share => {
                    shares.most().map(|number| Value { number, samples: shares.runs.len() })
                }
                _ => None,
            },
            Measured::Testbed(verdicts) => {
                let failed = verdicts.iter().filter(|verdict| !verdict.held).count();
                Some(count(failed, verdicts.len()))
            }
        }
    }

    #[allow(clippy::cast_precision_loss)] // counts of messages and bytes
    fn of_talk(&self, found: &Found, results: &Results) -> Option<Value> {
        match self {
            Self::Latency { class, share } => {
                found.both(*class).map(|row| quantile(&row.fates, *share))
            }
            Self::Freshness { class, share } => {
                let row = found.both(*class)?;
                let number = row.fates.quantile_of_delivered(*share).unwrap_or(f64::INFINITY);
                Some(Value { number, samples: row.delivered })
            }
            Self::Wrong { class } => {
                let row = found.both(*class)?;
                Some(count(row.sent - row.delivered + row.twice + row.out_of_order, row.sent))
            }
            Self::Lost => {
                let reliable = Class::ALL.into_iter().filter(|class| class.reliable());
                let rows = reliable.filter_map(|class| found.both(class));
                let (lost, sent) = rows.fold((0, 0), |(lost, sent), row| {
                    (lost + row.sent - row.delivered, sent + row.sent)
                });
                Some(count(lost, sent))
            }
            Self::Unaccounted => {
                let row = found.both(Class::Chat)?;
                Some(count(usize::try_from(found.chat_unaccounted?).ok()?, row.sent))
            }
            Self::Missing { class } => {
                let row = found.both(*class)?;
                let share = (row.sent - row.delivered) as f64 / row.sent.max(1) as f64;
                Some(Value { number: 100.0 * share, samples: row.sent })
            }
            Self::Times { share, than } => {
                let signals = Self::Latency { class: Class::Signal, share: *share };
                let ours = signals.of_talk(found, results)?;
                let others = than.iter().map(|task| signals.of(*task, results));
                let best = others.collect::<Option<Vec<_>>>()?;
                let best = best.iter().map(|value| value.number).fold(f64::INFINITY, f64::min);
                // Where none of both ever came there is nothing to compare.
                ours.number
                    .is_finite()
                    .then_some(Value { number: best / ours.number, samples: ours.samples })
            }
            Self::Bytes { without } => {
                let (_, other) = results.iter().find(|(one, _)| one == without)?;
                let Measured::Talk(other) = other else { return None };
                bytes(found, other)
            }
            Self::Back { what, share } => {
                let of = found.moments.iter().filter(|one| one.what == *what);
                let mut fates = Fates::default();
                for moment in of {
                    fates.sent += 1;
                    fates.latency_ms.extend(moment.back_ms);
                }
                fates.latency_ms.sort_by(f64::total_cmp);
                (fates.sent > 0).then(|| quantile(&fates, *share))
            }
            Self::Gap { what } => {
                let of = found.moments.iter().filter(|one| one.what == *what);
                let gaps: Vec<_> = of.map(|one| one.gap_ms).collect();
                let longest = gaps.iter().copied().max_by(f64::total_cmp);
                longest.map(|number| Value { number, samples: gaps.len() })
            }
            Self::Seen => {
                Some(count(usize::try_from(found.leaves + found.joins).ok()?, found.moments.len()))
            }
            Self::Start { .. } | Self::Share | Self::Testbed => None,
        }
    }
}

fn quantile(fates: &Fates, share: f64) -> Value {
    Value { number: fates.quantile(share).unwrap_or(f64::INFINITY), samples: fates.sent }
}

/// The ratio of what is on the wire, of the seeds that both have had; none where they were not the
/// same otherwise.
#[allow(clippy::cast_precision_loss)] // bytes of minutes
fn bytes(found: &Found, without: &Found) -> Option<Value> {
    let same = (found.clients, found.seconds) == (without.clients, without.seconds);
    let common = |seed: &u64| found.seeds.contains(seed) && without.seeds.contains(seed);
    let sum = |of: &Found| -> u64 {
        of.wire_by_phase.iter().filter(|one| common(&one.0)).map(|(_, _, wire)| wire.bytes).sum()
    };
    let (with, without) = (sum(found), sum(without));
    (same && without > 0).then(|| Value {
        number: with as f64 / without as f64,
        samples: found.seeds.iter().filter(|seed| common(seed)).count(),
    })
}
