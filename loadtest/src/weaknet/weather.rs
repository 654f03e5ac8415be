//! What a link is like at a moment: good or bad spells, bursts, jitter. All of it is a function of
//! time and seed alone, so it is the same for whoever sends how much.

use std::time::Duration;

use super::{
    draw::{Direction, Draw, Purpose},
    profile::{Bursts, GilbertElliott, Jitter, Shape},
};

/// Nanoseconds, as slots are counted.
fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX) // 584 years
}

/// Bursts of one length, one in each slot of time at a random place in it.
#[derive(Debug, Clone)]
pub struct BurstClock {
    length: Duration,
    slot: Duration,
    phase: Duration,
    draw: Draw,
}

impl BurstClock {
    /// The bursts of a client's link; those of both directions coincide if they are `together`.
    pub fn new(bursts: &Bursts, seed: u64, client: u32, direction: Direction) -> Self {
        let direction = (!bursts.together).then_some(direction);
        let draw = Draw::new(seed, client, direction, Purpose::Burst, 0);
        let slot = bursts.length.div_f64(bursts.share);
        // Clients' slots do not begin together, or all would have their first burst within one.
        Self { length: bursts.length, slot, phase: draw.time(u64::MAX, slot), draw }
    }

    /// Whether a burst is on.
    pub fn covers(&self, at: Duration) -> bool {
        let (at, slot) = (nanos(at + self.phase), nanos(self.slot).max(1));
        let place = self.draw.time(at / slot, self.slot.saturating_sub(self.length));
        let within = at % slot;
        within >= nanos(place) && within < nanos(place + self.length)
    }
}

/// Good and bad spells in turn, each of a random (exponential) length.
#[derive(Debug, Clone)]
pub struct Spells {
    model: GilbertElliott,
    draw: Draw,
    /// Index of the spell that `ends` closes; spells with an odd index are bad.
    index: u64,
    ends: Duration,
}

impl Spells {
    /// The spells of a client's link, from time 0.
    pub fn new(model: &GilbertElliott, seed: u64, client: u32, direction: Direction) -> Self {
        let draw = Draw::new(seed, client, Some(direction), Purpose::Sojourn, 0);
        let bad_share = model.bad.as_secs_f64() / (model.good + model.bad).as_secs_f64();
        // Begun in the long-run share, so that a short run is not better than a long one.
        let index = u64::from(draw.hits(u64::MAX, bad_share));
        let mut spells = Self { model: model.clone(), draw, index, ends: Duration::ZERO };
        spells.ends = spells.length();
        spells
    }

    fn length(&self) -> Duration {
        let mean = if self.index % 2 == 1 { self.model.bad } else { self.model.good };
        self.draw.exponential(self.index, mean)
    }

    /// With what probability a packet is lost at `at`; `at` never goes back.
    pub fn loss_at(&mut self, at: Duration) -> f64 {
        while self.ends <= at {
            self.index += 1;
            self.ends += self.length();
        }
        if self.index % 2 == 1 { self.model.loss_bad } else { self.model.loss_good }
    }
}

/// Delay that wanders.
#[derive(Debug, Clone)]
pub struct JitterClock {
    jitter: Jitter,
    draw: Draw,
}

/// Exponential jitter is cut off here, in multiples of its mean.
const TAIL: f64 = 8.0;

impl JitterClock {
    /// The jitter of a client's link.
    pub fn new(jitter: &Jitter, seed: u64, client: u32, direction: Direction) -> Self {
        let draw = Draw::new(seed, client, Some(direction), Purpose::Jitter, 0);
        Self { jitter: jitter.clone(), draw }
    }

    fn of_slot(&self, slot: u64) -> Duration {
        match self.jitter.shape {
            Shape::Even => self.draw.time(slot, self.jitter.spread),
            Shape::Tail => self
                .draw
                .exponential(slot, self.jitter.spread)
                .min(self.jitter.spread.mul_f64(TAIL)),
        }
    }

    /// What is added to the delay at `at`. Where order is kept it moves from one slot's value to
    /// the next, elsewhere it jumps, and packets overtake.
    pub fn at(&self, at: Duration) -> Duration {
        let slot = nanos(self.jitter.slot).max(1);
        let (index, within) = (nanos(at) / slot, nanos(at) % slot);
        let this = self.of_slot(index);
        if self.jitter.reorder {
            return this;
        }
        #[allow(clippy::cast_precision_loss)] // a slot is far below 2^52 nanoseconds
        let progress = within as f64 / slot as f64;
        this.mul_f64(1.0 - progress) + self.of_slot(index + 1).mul_f64(progress)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn every_burst_has_its_length_and_they_fill_their_share() {
        let bursts = Bursts { length: 60 * MS, share: 0.1, together: false };
        let clock = BurstClock::new(&bursts, 7, 3, Direction::Down);
        let (mut lengths, mut on) = (vec![], 0_u32);
        for step in 0..6_000_000_u32 {
            if clock.covers(MS / 10 * step) {
                on += 1;
            } else if on > 0 {
                lengths.push(on);
                on = 0;
            }
        }
        assert_eq!(lengths.len(), 1000); // 600 s, one in each 600 ms
        let exact = lengths[1..].iter().filter(|steps| (599..=601).contains(*steps)).count();
        assert!(exact >= 997, "{exact} of 999"); // two may touch
    }

    #[test]
    fn bursts_of_both_directions_coincide_only_if_together() {
        let agree = |together| {
            let bursts = Bursts { length: 60 * MS, share: 0.1, together };
            let up = BurstClock::new(&bursts, 7, 3, Direction::Up);
            let down = BurstClock::new(&bursts, 7, 3, Direction::Down);
            (0..100_000).all(|step| up.covers(MS * step) == down.covers(MS * step))
        };
        assert!(agree(true));
        assert!(!agree(false));
    }

    #[test]
    fn spells_do_not_depend_on_how_often_they_are_looked_at() {
        let model = GilbertElliott { good: 900 * MS, bad: 100 * MS, loss_good: 0.0, loss_bad: 1.0 };
        let mut often = Spells::new(&model, 5, 0, Direction::Up);
        let mut seldom = often.clone();
        for step in 0..100_000 {
            let loss = often.loss_at(MS * step);
            if step % 977 == 0 {
                assert!((loss - seldom.loss_at(MS * step)).abs() < f64::EPSILON);
            }
        }
    }

    #[test]
    fn jitter_that_keeps_order_has_no_jumps() {
        let jitter = Jitter { spread: 20 * MS, slot: 20 * MS, shape: Shape::Even, reorder: false };
        let clock = JitterClock::new(&jitter, 5, 0, Direction::Up);
        for step in 0..100_000 {
            let (now, next) = (clock.at(MS / 10 * step), clock.at(MS / 10 * (step + 1)));
            assert!(now.abs_diff(next) <= MS / 10 + Duration::from_nanos(10));
        }
    }
}
