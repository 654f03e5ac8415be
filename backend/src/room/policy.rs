//! Which chat messages a room forwards when there are more than it may. Pure: no clock.
//!
//! A bucket holds one second's worth of messages and is refilled continuously. What waits at a
//! tick competes for the tokens there are; nothing is kept for a later tick, because chat that
//! waits is chat that is late. The one served longest ago has the best claim, and whoever is
//! served often must leave tokens in the bucket for those with a better claim who are not here
//! right now: otherwise a flooder, who is always here, would get every token as it appears.

use std::{collections::HashMap, time::Duration};

/// Who spoke within this time counts as a speaker for whom tokens are kept. Twice the period of
/// somebody who says something each second.
const ACTIVE: Duration = Duration::from_secs(2);

/// Speakers that are told apart. Above, those who spoke longest ago are forgotten.
const SPEAKERS_MAX: usize = 4096;

/// One message's token: a bucket of `n` a second gains `n` units in each nanosecond.
const TOKEN: u64 = 1_000_000_000;

/// The state of the policy.
#[derive(Debug)]
pub(crate) struct ChatPolicy {
    per_second: u32,
    /// Billionths of a token, so that a full bucket is full and not nearly so.
    nanotokens: u64,
    refilled: Duration,
    tick: u64,
    speakers: HashMap<usize, Speaker>,
    /// Reused between ticks.
    claims: Vec<Claim>,
    absent: Vec<Option<Duration>>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Speaker {
    /// The last tick at which the speaker had a candidate.
    tick: u64,
    /// How many of the tick's candidates are the speaker's.
    in_tick: u32,
    offered: Duration,
    served: Option<Duration>,
    /// Messages forwarded, fading within about a second.
    usage: f64,
    usage_at: Duration,
}

/// A candidate; the smaller, the better its claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Claim {
    /// The first message of everyone goes before the second of anyone.
    nth: u32,
    served: Option<Duration>,
    /// Equal claims are decided anew at each tick.
    draw: u64,
    index: usize,
}

impl ChatPolicy {
    /// A policy of so many messages a second; 0 forwards everything.
    pub(crate) fn new(per_second: u32, now: Duration) -> Self {
        Self {
            per_second,
            nanotokens: u64::from(per_second) * TOKEN,
            refilled: now,
            tick: 0,
            speakers: HashMap::new(),
            claims: Vec::new(),
            absent: Vec::new(),
        }
    }

    /// Forwards so many a second from now on. What was saved up at the old rate stays, as far as it fits.
    pub(crate) fn set_rate(&mut self, per_second: u32, now: Duration) {
        self.refill(now);
        let full = u64::from(per_second) * TOKEN;
        self.nanotokens = if self.per_second == 0 { full } else { self.nanotokens.min(full) };
        self.per_second = per_second;
    }

    /// Decides over one tick's candidates, of which the speakers are given in order of arrival.
    /// `chosen` is set to one answer for each.
    pub(crate) fn choose(&mut self, now: Duration, candidates: &[usize], chosen: &mut Vec<bool>) {
        chosen.clear();
        if self.per_second == 0 {
            chosen.resize(candidates.len(), true);
            return;
        }
        chosen.resize(candidates.len(), false);
        self.refill(now);
        self.line_up(now, candidates);
        let capacity = f64::from(self.per_second);
        // A claim behind all others needs a full bucket, however many the others are.
        let absent = self.absent.len().max(1);
        let each = ((capacity - 1.0) / as_f64(absent)).min(1.0);
        for claim in &self.claims {
            if self.nanotokens < TOKEN {
                break;
            }
            let Some(speaker) = self.speakers.get_mut(&candidates[claim.index]) else { continue };
            let better = self.absent.partition_point(|served| *served < claim.served);
            speaker.fade(now);
            // For those who have not spoken lately and are not known: the first message of a second is
            // free, further ones leave up to half of the bucket.
            let own = (speaker.usage - 1.0).clamp(0.0, (capacity / 2.0).min(capacity - 1.0));
            let leave = own.max(as_f64(better) * each);
            if (self.nanotokens - TOKEN) as f64 >= leave * TOKEN as f64 {
                self.nanotokens -= TOKEN;
                speaker.usage += 1.0;
                speaker.served = Some(now);
                chosen[claim.index] = true;
            }
        }
    }

    fn refill(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.refilled);
        let rate = u64::from(self.per_second);
        let nanos = u64::try_from(passed.as_nanos()).unwrap_or(u64::MAX);
        let gained = nanos.saturating_mul(rate);
        self.nanotokens = self.nanotokens.saturating_add(gained).min(rate * TOKEN);
        self.refilled = now;
        if passed > ACTIVE {
            self.speakers.clear();
        }
    }

    /// Sorts the candidates by claim, and notes the claims of those who are not here.
    fn line_up(&mut self, now: Duration, candidates: &[usize]) {
        self.tick += 1;
        self.claims.clear();
        for (index, who) in candidates.iter().enumerate() {
            let speaker = self.speakers.entry(*who).or_default();
            if speaker.tick != self.tick {
                speaker.tick = self.tick;
                speaker.in_tick = 0;
            }
            let nth = speaker.in_tick;
            speaker.in_tick += 1;
            speaker.offered = now;
            let served = if nth == 0 { speaker.served } else { Some(now) };
            self.claims.push(Claim { nth, served, draw: draw(*who, self.tick), index });
        }
        self.claims.sort_unstable();
        self.speakers.retain(|_, s| now.saturating_sub(s.offered) <= ACTIVE);
        if self.speakers.len() > SPEAKERS_MAX {
            self.forget_the_quietest();
        }
        self.absent.clear();
        let tick = self.tick;
        self.absent.extend(self.speakers.values().filter(|s| s.tick != tick).map(|s| s.served));
        self.absent.sort_unstable();
    }

    fn forget_the_quietest(&mut self) {
        let mut offered: Vec<_> = self.speakers.values().map(|s| s.offered).collect();
        let cut = offered.len() - SPEAKERS_MAX;
        let (_, limit, _) = offered.select_nth_unstable(cut);
        let (limit, tick) = (*limit, self.tick);
        self.speakers.retain(|_, s| s.tick == tick || s.offered > limit);
    }
}

impl Speaker {
    fn fade(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.usage_at);
        self.usage *= (-passed.as_secs_f64()).exp();
        self.usage_at = now;
    }
}

/// A number that looks random, from the speaker and the tick (SplitMix64's finish).
fn draw(who: usize, tick: u64) -> u64 {
    let mut x = (who as u64) ^ tick.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

fn as_f64(n: usize) -> f64 {
    f64::from(u32::try_from(n).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TICK: Duration = Duration::from_millis(20);

    /// Runs ticks of 20 ms; `arrivals(tick)` says who speaks. Offered and forwarded by speaker.
    fn run(
        per_second: u32,
        ticks: u64,
        speakers: usize,
        arrivals: impl Fn(u64) -> Vec<usize>,
    ) -> (Vec<u64>, Vec<u64>) {
        let mut policy = ChatPolicy::new(per_second, Duration::ZERO);
        let (mut offered, mut forwarded) = (vec![0; speakers], vec![0; speakers]);
        let mut chosen = Vec::new();
        for tick in 0..ticks {
            let candidates = arrivals(tick);
            let now = TICK * u32::try_from(tick).unwrap();
            policy.choose(now, &candidates, &mut chosen);
            assert_eq!(chosen.len(), candidates.len());
            for (who, yes) in candidates.iter().zip(&chosen) {
                offered[*who] += 1;
                forwarded[*who] += u64::from(*yes);
            }
        }
        (offered, forwarded)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_flooder_takes_nothing_from_ten_who_speak_once_a_second(
            phases in prop::collection::vec(0u64..50, 10),
        ) {
            // Speaker 10 sends two messages in every tick: 100 a second.
            let (offered, forwarded) = run(20, 50 * 30, 11, |tick| {
                let mut now: Vec<usize> = vec![10, 10];
                now.extend((0..10).filter(|i| phases[*i] == tick % 50));
                now
            });
            prop_assert_eq!(&offered[..10], &forwarded[..10]);
            // And what nobody else wants is not wasted.
            prop_assert!(forwarded[10] >= 30 * 9, "the flooder got {}", forwarded[10]);
        }

        #[test]
        fn who_speaks_up_once_in_a_while_is_heard_over_a_flooder(
            gaps in prop::collection::vec(60u64..400, 20),
        ) {
            let mut at = 0;
            let times: Vec<u64> = gaps.iter().map(|gap| { at += gap; at }).collect();
            let (offered, forwarded) = run(20, at + 1, 2, |tick| {
                let mut now = vec![0; 3];
                now.extend(times.contains(&tick).then_some(1));
                now
            });
            prop_assert_eq!(offered[1], forwarded[1]);
        }

        #[test]
        fn never_more_than_the_rate_and_one_second_s_worth(
            per_second in 1u32..50,
            arrivals in prop::collection::vec(prop::collection::vec(0usize..20, 0..30), 1..300),
        ) {
            let ticks = arrivals.len() as u64;
            let (_, forwarded) = run(per_second, ticks, 20, |tick| {
                arrivals[usize::try_from(tick).unwrap()].clone()
            });
            let total: u64 = forwarded.iter().sum();
            let most = f64::from(per_second) * (1.0 + TICK.as_secs_f64() * as_f64(arrivals.len()));
            prop_assert!(as_f64(usize::try_from(total).unwrap()) <= most);
        }
    }

    fn check_even(per_second: u32, seconds: u64, phase: impl Fn(usize) -> u64) {
        let (_, forwarded) = run(per_second, 50 * seconds, 500, |tick| {
            (0..500).filter(|i| phase(*i) == tick % 50).collect()
        });
        let (min, max) = (forwarded.iter().min().unwrap(), forwarded.iter().max().unwrap());
        assert!(max - min <= 2, "between {min} and {max} forwarded");
        let total: u64 = forwarded.iter().sum();
        assert!(total >= u64::from(per_second) * (seconds - 1), "only {total} forwarded");
    }

    #[test]
    fn five_hundred_who_all_speak_at_once_each_second_are_heard_equally() {
        check_even(20, 200, |_| 0);
    }

    #[test]
    fn five_hundred_who_speak_each_second_one_after_the_other_are_heard_equally() {
        check_even(20, 200, |i| i as u64 % 50);
    }

    #[test]
    fn one_speaker_alone_gets_the_whole_rate() {
        for per_second in [1, 2, 3, 20, 100] {
            let (_, forwarded) = run(per_second, 50 * 60, 1, |_| vec![0; 10]);
            let least = u64::from(per_second) * 55;
            assert!(forwarded[0] >= least, "{} of {least} at {per_second}/s", forwarded[0]);
        }
    }

    #[test]
    fn another_rate_holds_from_the_moment_that_it_is_set() {
        let mut policy = ChatPolicy::new(20, Duration::ZERO);
        let mut chosen = Vec::new();
        let mut forwarded = |policy: &mut ChatPolicy, second: u64| -> usize {
            let ticks = (0..50).map(|n| Duration::from_millis(second * 1000 + n * 20));
            let each = ticks.map(|now| {
                policy.choose(now, &[0; 10], &mut chosen);
                chosen.iter().filter(|yes| **yes).count()
            });
            each.sum()
        };
        forwarded(&mut policy, 0);
        for (second, rate) in [(1, 5), (3, 100), (5, 1), (7, 20)] {
            policy.set_rate(rate, Duration::from_secs(second));
            forwarded(&mut policy, second);
            let settled = forwarded(&mut policy, second + 1);
            assert!(
                settled.abs_diff(rate as usize) <= 1 + rate as usize / 10,
                "{settled} at {rate}"
            );
        }
        policy.set_rate(0, Duration::from_secs(9));
        assert_eq!(forwarded(&mut policy, 9), 500);
        policy.set_rate(20, Duration::from_secs(10));
        assert!(forwarded(&mut policy, 10) <= 40);
    }

    #[test]
    fn with_the_policy_off_everything_is_forwarded() {
        let (offered, forwarded) = run(0, 100, 3, |_| vec![0, 1, 2, 2, 2]);
        assert_eq!(offered, forwarded);
    }
}
