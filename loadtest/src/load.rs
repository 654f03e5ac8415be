//! The load that scenarios have in common, and when each message of it is sent.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use tokio::time::{Instant, sleep_until};

use crate::stamp::STAMP_BYTES;

/// How many speak, how often, how much.
#[derive(Args, Debug, Clone)]
pub struct Load {
    /// Members of the room; each sends and each receives what all send, its own included
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub members: u32,
    /// Messages that each member sends a second
    #[arg(long, value_name = "N", default_value_t = 1.0, value_parser = positive)]
    pub rate: f64,
    /// All members send at the same instant, instead of spread evenly over the interval
    #[arg(long)]
    pub burst: bool,
    /// Bytes of a message's payload
    #[arg(long, value_name = "BYTES", default_value_t = 100, value_parser = payload_size)]
    pub size: usize,
    /// For how long members send
    #[arg(long, value_name = "SECONDS", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub secs: u32,
    /// Seed of everything random
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
}

/// Where the report goes besides the terminal.
#[derive(Args, Debug, Clone, Default)]
pub struct Output {
    /// Write the report as one JSON object to FILE; `-` for standard output
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// A rate, or a factor.
pub fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(n) if (0.001..=10_000.0).contains(&n) => Ok(n),
        _ => Err("a number from 0.001 to 10000 is wanted".to_owned()),
    }
}

/// Bytes of a payload that can be checked.
pub fn payload_size(text: &str) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(n) if (STAMP_BYTES..=edgeway_proto::limits::PAYLOAD_BYTES).contains(&n) => Ok(n),
        _ => Err(format!(
            "from {STAMP_BYTES} (the stamp that is checked) to {} bytes are wanted",
            edgeway_proto::limits::PAYLOAD_BYTES
        )),
    }
}

impl Load {
    /// The times at which `member` sends, the first ones from `start` on.
    pub fn ticks(&self, member: u32, start: Instant) -> Ticks {
        let interval = Duration::from_secs_f64(1.0 / self.rate);
        let offset = match self.burst {
            true => Duration::ZERO,
            false => interval.mul_f64(f64::from(member) / f64::from(self.members)),
        };
        Ticks { at: start + offset, interval, end: start + self.duration(), n: 0 }
    }

    /// Nobody says anything for `secs`.
    pub fn silent(secs: u32) -> Self {
        Self { members: 0, rate: 1.0, burst: false, size: STAMP_BYTES, secs, seed: 0 }
    }

    pub fn duration(&self) -> Duration {
        Duration::from_secs(self.secs.into())
    }

    /// Messages that all members together will send.
    pub fn messages(&self) -> u64 {
        let start = Instant::now();
        (0..self.members).map(|member| u64::from(self.ticks(member, start).count())).sum()
    }
}

/// When one member sends.
#[derive(Debug, Clone)]
pub struct Ticks {
    at: Instant,
    interval: Duration,
    end: Instant,
    n: u32,
}

impl Ticks {
    /// Waits for the next time; the number of the message, or `None` at the end. A member that is
    /// late sends at once and stays on schedule: nobody is spared because the machine is busy.
    pub async fn next(&mut self) -> Option<u32> {
        let at = self.advance()?;
        sleep_until(at).await;
        Some(self.n - 1)
    }

    /// The first of those that are still to come.
    pub fn first(&self) -> Instant {
        self.at
    }

    /// Whether none is still to come.
    pub fn is_over(&self) -> bool {
        self.at >= self.end
    }

    fn advance(&mut self) -> Option<Instant> {
        let at = self.at;
        (at < self.end).then(|| {
            self.at += self.interval;
            self.n += 1;
            at
        })
    }

    fn count(mut self) -> u32 {
        while self.advance().is_some() {}
        self.n
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(members: u32, rate: f64, burst: bool, secs: u32) -> Load {
        Load { members, rate, burst, size: 100, secs, seed: 1 }
    }

    #[test]
    fn every_member_sends_rate_times_secs_messages() {
        for burst in [false, true] {
            assert_eq!(load(500, 1.0, burst, 20).messages(), 10_000);
            assert_eq!(load(3, 20.0, burst, 2).messages(), 120);
            assert_eq!(load(1, 0.5, burst, 20).messages(), 10);
        }
    }

    #[test]
    fn a_burst_is_at_one_instant_and_other_load_is_spread() {
        let start = Instant::now();
        let first = |burst, member| load(4, 1.0, burst, 1).ticks(member, start).at - start;
        assert_eq!(first(true, 3), Duration::ZERO);
        assert_eq!(first(false, 3), Duration::from_millis(750));
    }
}
