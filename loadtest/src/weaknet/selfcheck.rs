//! The testbed measures itself: does it do what a profile says, within 2% or three standard
//! deviations, whichever is more?

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::Serialize;

pub mod core;
pub mod wire;

/// How far a figure may be off, as a share of what is expected.
const TOLERANCE: f64 = 0.02;

/// One thing that was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Verdict {
    /// What it is, with its unit.
    pub what: String,
    /// As configured.
    pub expected: f64,
    /// As found.
    pub measured: f64,
    /// How far it may be off.
    pub allowed: f64,
    /// Whether it is within that.
    pub held: bool,
    /// Whether a busy machine may spoil it.
    pub timing: bool,
}

impl Verdict {
    /// A figure that chance moves by `sigma`.
    pub fn figure(what: impl Into<String>, expected: f64, measured: f64, sigma: f64) -> Self {
        let allowed = (expected.abs() * TOLERANCE).max(3.0 * sigma);
        let held = (measured - expected).abs() <= allowed;
        Self { what: what.into(), expected, measured, allowed, held, timing: false }
    }

    /// A figure in which the time counts that this machine takes to run the check.
    pub fn timing(what: impl Into<String>, expected: f64, measured: f64, sigma: f64) -> Self {
        Self { timing: true, ..Self::figure(what, expected, measured, sigma) }
    }

    /// Something that is so or is not.
    pub fn holds(what: impl Into<String>, held: bool) -> Self {
        let measured = f64::from(u8::from(held));
        Self { what: what.into(), expected: 1.0, measured, allowed: 0.0, held, timing: false }
    }

    /// Something that must be so and not otherwise, as a count of exceptions.
    pub fn never(what: impl Into<String>, exceptions: usize) -> Self {
        #[allow(clippy::cast_precision_loss)] // counts of packets
        let measured = exceptions as f64;
        Self {
            what: what.into(),
            expected: 0.0,
            measured,
            allowed: 0.0,
            held: exceptions == 0,
            timing: false,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, expected, measured, allowed, held, timing: _ } = self;
        let mark = if *held { "ok  " } else { "FAIL" };
        write!(f, "{mark} {what:<58} {measured:>10.4}  of {expected:>10.4} +- {allowed:.4}")
    }
}

/// Mean of some numbers, and the standard deviation of that mean if they are independent.
#[allow(clippy::cast_precision_loss)] // counts of packets
fn mean_and_sigma(numbers: &[f64]) -> (f64, f64) {
    let count = numbers.len().max(1) as f64;
    let mean = numbers.iter().sum::<f64>() / count;
    let variance = numbers.iter().map(|number| (number - mean).powi(2)).sum::<f64>() / count;
    (mean, (variance / count).sqrt())
}

/// Lengths of the runs of `true`, in items, without those that touch an end.
fn runs(items: impl IntoIterator<Item = bool>) -> Vec<usize> {
    let (mut lengths, mut length, mut whole) = (vec![], 0, false);
    for on in items {
        match (on, length) {
            (true, _) => length += 1,
            (false, 0) => whole = true,
            (false, _) => {
                if whole {
                    lengths.push(length);
                }
                (length, whole) = (0, true);
            }
        }
    }
    lengths
}

/// What is most common, and how often it is.
fn mode(lengths: &[usize]) -> (usize, usize) {
    let mut counts = BTreeMap::new();
    for length in lengths {
        *counts.entry(*length).or_insert(0) += 1;
    }
    counts.into_iter().max_by_key(|(_, count)| *count).unwrap_or((0, 0))
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
