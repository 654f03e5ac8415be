//! Chance that depends on nothing but what it is drawn for.
//!
//! Nothing here has a state: the draw for packet 17 of client 3 upwards is the same in every run
//! with the same seed, whatever else was drawn before.

use std::time::Duration;

use serde::Serialize;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Which way a packet goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// From the client to the server.
    Up,
    /// From the server to the client.
    Down,
}

/// What is drawn; two purposes never share their numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Whether a packet is lost by independent loss.
    Loss,
    /// Whether a packet is lost in a state of the Gilbert-Elliott model.
    StateLoss,
    /// How long a state of the Gilbert-Elliott model lasts.
    Sojourn,
    /// Where in its slot a burst lies.
    Burst,
    /// How much jitter a slot of time has.
    Jitter,
    /// Whether a packet arrives twice.
    Duplicate,
    /// How late its copy is.
    CopyDelay,
    /// How far an event is put off for this client.
    Stagger,
    /// Whether a packet on a dying path is lost.
    Dying,
    /// Which port a NAT gives.
    Port,
}

/// A row of random numbers, each a function of its index.
#[derive(Debug, Clone, Copy)]
pub struct Draw {
    key: u64,
}

impl Draw {
    /// The numbers for one purpose on one link. `direction` is `None` for what both directions of
    /// a client share; `which` tells things of the same purpose apart.
    pub fn new(
        seed: u64,
        client: u32,
        direction: Option<Direction>,
        purpose: Purpose,
        which: u32,
    ) -> Self {
        let direction = direction.map_or(0, |direction| direction as u32 + 1);
        let mut text = [0; 16];
        for (bytes, value) in
            text.chunks_exact_mut(4).zip([client, direction, purpose as u32, which])
        {
            bytes.copy_from_slice(&value.to_le_bytes());
        }
        Self { key: xxh3_64_with_seed(&text, seed) }
    }

    /// All bits of number `index`.
    pub fn bits(self, index: u64) -> u64 {
        xxh3_64_with_seed(&index.to_le_bytes(), self.key)
    }

    /// Number `index`, evenly spread over 0 to 1, 1 not included.
    #[allow(clippy::cast_precision_loss)] // 53 bits are what an f64 holds
    pub fn unit(self, index: u64) -> f64 {
        (self.bits(index) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Whether what happens with probability `share` happens to number `index`.
    pub fn hits(self, index: u64, share: f64) -> bool {
        share > 0.0 && self.unit(index) < share
    }

    /// A time from 0 to `most`, evenly spread.
    pub fn time(self, index: u64, most: Duration) -> Duration {
        most.mul_f64(self.unit(index))
    }

    /// A time, exponentially spread, of this mean.
    pub fn exponential(self, index: u64, mean: Duration) -> Duration {
        // 1 - u is never 0, so the logarithm is finite: at most 37 times the mean.
        mean.mul_f64(-(1.0 - self.unit(index)).ln())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(seed: u64, client: u32, direction: Option<Direction>, purpose: Purpose) -> Draw {
        Draw::new(seed, client, direction, purpose, 0)
    }

    #[test]
    fn a_number_depends_on_seed_client_direction_purpose_and_index() {
        let base = draw(1, 2, Some(Direction::Up), Purpose::Loss).unit(3);
        assert!((base - draw(1, 2, Some(Direction::Up), Purpose::Loss).unit(3)).abs() < 1e-15);
        for other in [
            draw(2, 2, Some(Direction::Up), Purpose::Loss),
            draw(1, 3, Some(Direction::Up), Purpose::Loss),
            draw(1, 2, Some(Direction::Down), Purpose::Loss),
            draw(1, 2, None, Purpose::Loss),
            draw(1, 2, Some(Direction::Up), Purpose::Jitter),
            Draw::new(1, 2, Some(Direction::Up), Purpose::Loss, 1),
        ] {
            assert!((base - other.unit(3)).abs() > 1e-9);
        }
    }

    #[test]
    fn means_are_as_asked_for() {
        let numbers = draw(9, 0, None, Purpose::Sojourn);
        let count = 100_000_u32;
        let mean =
            |of: &dyn Fn(u64) -> f64| (0..u64::from(count)).map(of).sum::<f64>() / f64::from(count);
        assert!((mean(&|i| numbers.unit(i)) - 0.5).abs() < 0.005);
        let second = Duration::from_secs(1);
        assert!((mean(&|i| numbers.exponential(i, second).as_secs_f64()) - 1.0).abs() < 0.02);
    }
}
