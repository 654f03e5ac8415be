//! The order of gateways for one client. Pure.
//!
//! | policy | order |
//! |---|---|
//! | `weighted` | at random, each first as often as its weight says |
//! | `least_load` | by connections for each unit of weight, those that were just sent there included; the busy ones last |
//! | `sticky` | by rendezvous hashing of the user with the weights, so that who returns meets the same one; the busy ones, and those that have more than [`BOUND`] times their share, last. Without a user: `least_load` |
//!
//! Where the load is not known of each, all go by weights alone.

use serde::Deserialize;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// How many times its share a gateway may have before returning users are sent on to their next one.
pub const BOUND: f64 = 1.25;
/// Above its share, a gateway always may have so many: with few clients a share means nothing.
pub const SLACK: f64 = 100.0;
/// CPU above this share of its cores is busy.
const BUSY_CPU: f64 = 0.9;
/// So is a loop that lags longer: signals are late by it.
const BUSY_LAG_MS: f64 = 250.0;

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// By weights alone.
    Weighted,
    /// The least loaded first.
    LeastLoad,
    /// The same one for a returning user.
    #[default]
    Sticky,
}

impl Policy {
    /// As in the config.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Weighted => "weighted",
            Self::LeastLoad => "least_load",
            Self::Sticky => "sticky",
        }
    }
}

/// A gateway that may be given: it lives, is not draining, and has a weight.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// Its place in the table.
    pub index: usize,
    /// Names it for the hash, the same in each process.
    pub seed: u64,
    /// Above 0.
    pub weight: u32,
    /// Connections, and those that were sent there lately; 0 where it is not known.
    pub connections: u64,
    /// It cannot take more without harm.
    pub busy: bool,
}

/// Whether a gateway has as much to do as it can.
#[must_use]
pub fn is_busy(load: &edgeway_stat::Load, cores: u64, connections: u64, most: u64) -> bool {
    #[allow(clippy::cast_precision_loss, reason = "a count of cores")]
    let cpu = cores > 0 && load.cpu_cores >= BUSY_CPU * cores as f64;
    cpu || load.loop_lag_ms >= BUSY_LAG_MS || (most > 0 && connections >= most)
}

/// What one answer is made by.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// Who asks, where it says so.
    pub user: Option<&'a str>,
    /// Different for each request.
    pub nonce: u64,
    /// Whether the load of each candidate is known.
    pub loads: bool,
    /// How many are wanted.
    pub most: usize,
}

/// The places of the best, in order.
#[must_use]
pub fn order(policy: Policy, candidates: &[Candidate], ask: Ask<'_>) -> Vec<usize> {
    let policy = match (policy, ask.user) {
        (Policy::LeastLoad, _) if !ask.loads => Policy::Weighted,
        (Policy::Sticky, None) if ask.loads => Policy::LeastLoad,
        (Policy::Sticky, None) => Policy::Weighted,
        (policy, _) => policy,
    };
    let key = match (policy, ask.user) {
        (Policy::Sticky, Some(user)) => Key::User(user),
        _ => Key::Nonce(ask.nonce),
    };
    let bound = Bound::of(candidates);
    let mut ranked: Vec<_> = candidates
        .iter()
        .map(|one| {
            let lot = key.lot(one);
            let (late, rank) = match policy {
                Policy::Weighted => (ask.loads && one.busy, lot),
                Policy::Sticky => (ask.loads && (one.busy || bound.is_above(one)), lot),
                Policy::LeastLoad => (one.busy, one.per_weight()),
            };
            (late, rank, lot, one.index)
        })
        .collect();
    let by = |a: &(bool, f64, f64, usize), b: &(bool, f64, f64, usize)| {
        a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)).then(a.2.total_cmp(&b.2))
    };
    let most = ask.most.min(ranked.len());
    if most > 0 && most < ranked.len() {
        ranked.select_nth_unstable_by(most - 1, by);
        ranked.truncate(most);
    }
    ranked.sort_unstable_by(by);
    ranked.into_iter().map(|(.., index)| index).collect()
}

enum Key<'a> {
    User(&'a str),
    Nonce(u64),
}

impl Key<'_> {
    /// Weighted rendezvous hashing: who draws the least is first, as often as its weight says.
    fn lot(&self, one: &Candidate) -> f64 {
        let hash = match self {
            Self::User(user) => xxh3_64_with_seed(user.as_bytes(), one.seed),
            Self::Nonce(nonce) => xxh3_64_with_seed(&nonce.to_le_bytes(), one.seed),
        };
        // 53 bits, above 0 and below 1.
        #[allow(clippy::cast_precision_loss, reason = "53 bits fit")]
        let uniform = ((hash >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
        -uniform.ln() / f64::from(one.weight)
    }
}

impl Candidate {
    #[allow(clippy::cast_precision_loss, reason = "a count of connections")]
    fn per_weight(&self) -> f64 {
        self.connections as f64 / f64::from(self.weight)
    }
}

/// What each unit of weight may have.
struct Bound(f64);

impl Bound {
    #[allow(clippy::cast_precision_loss, reason = "a count of connections")]
    fn of(candidates: &[Candidate]) -> Self {
        let weight: f64 = candidates.iter().map(|one| f64::from(one.weight)).sum();
        let connections: u64 = candidates.iter().map(|one| one.connections).sum();
        Self(BOUND * (connections as f64 + 1.0) / weight)
    }

    #[allow(clippy::cast_precision_loss, reason = "a count of connections")]
    fn is_above(&self, one: &Candidate) -> bool {
        one.connections as f64 >= self.0 * f64::from(one.weight) + SLACK
    }
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
