//! What happens to a client and when: a function of profile, seed and client.

use std::time::Duration;

use super::{
    draw::{Draw, Purpose},
    profile::{Event, OldPath, What},
};

/// An event of one client at its moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Occurrence {
    /// From the start of the schedule.
    pub at: Duration,
    /// What happens.
    pub what: What,
}

/// A moment at which nothing passes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outage {
    /// When it is over.
    pub until: Duration,
    /// Whether packets wait for that, rather than being lost.
    pub held: bool,
}

/// A change that has to be made to the client's addresses.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Change {
    /// Another address.
    HandOver(OldPath),
    /// Other ports, or other ports and another address.
    Rebind {
        /// And another address.
        address: bool,
    },
}

/// The events of one client.
#[derive(Debug, Clone)]
pub struct Timeline {
    events: Vec<(Event, Draw)>,
    /// How many changes of each event have been given out.
    done: Vec<u64>,
}

impl Timeline {
    /// What this profile has in store for `client`.
    pub fn new(events: &[Event], seed: u64, client: u32) -> Self {
        let events: Vec<_> = (0..)
            .zip(events)
            .map(|(index, event)| {
                (event.clone(), Draw::new(seed, client, None, Purpose::Stagger, index))
            })
            .collect();
        Self { done: vec![0; events.len()], events }
    }

    /// Everything that happens before `end`, in order.
    pub fn until(&self, end: Duration) -> Vec<Occurrence> {
        let mut all: Vec<_> = self
            .events
            .iter()
            .flat_map(|(event, draw)| {
                (0..)
                    .map_while(|time| moment(event, *draw, time))
                    .take_while(|at| *at < end)
                    .map(|at| Occurrence { at, what: event.what.clone() })
            })
            .collect();
        all.sort_by_key(|occurrence| occurrence.at);
        all
    }

    /// The blackout that covers `at`.
    pub fn outage(&self, at: Duration) -> Option<Outage> {
        self.events.iter().find_map(|(event, draw)| match event.what {
            What::Blackout { lasts, held } => last_before(event, *draw, at)
                .filter(|begin| at < *begin + lasts)
                .map(|begin| Outage { until: begin + lasts, held }),
            _ => None,
        })
    }

    /// How many packets of a UDP flow pass at `at`; `None`: all of them.
    pub fn udp_block(&self, at: Duration) -> Option<u32> {
        self.events.iter().find_map(|(event, draw)| match event.what {
            What::BlockUdp { lasts, passes } => last_before(event, *draw, at)
                .filter(|begin| lasts.is_none_or(|lasts| at < *begin + lasts))
                .map(|_| passes),
            _ => None,
        })
    }

    /// The next change up to `now` that was not given out before.
    pub fn next_change(&mut self, now: Duration) -> Option<(Duration, Change)> {
        let due = (0..self.events.len()).filter_map(|index| {
            let (event, draw) = &self.events[index];
            let change = match event.what {
                What::HandOver(old_path) => Change::HandOver(old_path),
                What::Rebind { address } => Change::Rebind { address },
                _ => return None,
            };
            let at = moment(event, *draw, self.done[index]).filter(|at| *at <= now)?;
            Some((index, at, change))
        });
        let (index, at, change) = due.min_by_key(|(_, at, _)| *at)?;
        self.done[index] += 1;
        Some((at, change))
    }

    /// Starts the schedule anew.
    pub fn restart(&mut self) {
        self.done.fill(0);
    }
}

/// When an event happens for the `time`th time, counted from 0.
fn moment(event: &Event, draw: Draw, time: u64) -> Option<Duration> {
    let slot = match event.when.every {
        Some(every) => every.checked_mul(u32::try_from(time).ok()?)?,
        None if time == 0 => Duration::ZERO,
        None => return None,
    };
    Some(event.when.at + slot + draw.time(time, event.when.stagger))
}

/// When it last happened, up to `at`. An event is over before its next slot begins, so the one of
/// the present slot is the only one that can be on.
fn last_before(event: &Event, draw: Draw, at: Duration) -> Option<Duration> {
    let since = at.checked_sub(event.when.at)?;
    let slot = event.when.every.map_or(0, |every| since.as_nanos() / every.as_nanos().max(1));
    moment(event, draw, u64::try_from(slot).ok()?).filter(|begin| *begin <= at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weaknet::profile::When;

    const SECOND: Duration = Duration::from_secs(1);

    fn timeline(what: What, every: Option<Duration>, stagger: Duration, client: u32) -> Timeline {
        let when = When { at: 10 * SECOND, every, stagger };
        Timeline::new(&[Event { when, what }], 1, client)
    }

    #[test]
    fn a_blackout_covers_what_the_list_of_events_says() {
        let what = What::Blackout { lasts: 6 * SECOND, held: false };
        let timeline = timeline(what, Some(30 * SECOND), 5 * SECOND, 4);
        let listed = timeline.until(200 * SECOND);
        assert_eq!(listed.len(), 7);
        for step in 0..20_000 {
            let at = SECOND / 100 * step;
            let expected = listed.iter().find(|o| o.at <= at && at < o.at + 6 * SECOND);
            let found = timeline.outage(at);
            assert_eq!(found.map(|outage| outage.until), expected.map(|o| o.at + 6 * SECOND));
        }
    }

    #[test]
    fn clients_are_staggered_and_keep_within_their_slot() {
        let at = |client| {
            let timeline = timeline(What::Rebind { address: false }, None, 5 * SECOND, client);
            timeline.until(100 * SECOND)[0].at
        };
        let moments: Vec<_> = (0..50).map(at).collect();
        assert!(moments.iter().all(|at| (10 * SECOND..15 * SECOND).contains(at)));
        assert!(moments.iter().any(|other| other.abs_diff(moments[0]) > SECOND));
    }

    #[test]
    fn each_change_is_given_out_once_and_again_after_a_restart() {
        let mut timeline =
            timeline(What::HandOver(OldPath::Dead), Some(20 * SECOND), Duration::ZERO, 0);
        assert_eq!(timeline.next_change(9 * SECOND), None);
        let change = Change::HandOver(OldPath::Dead);
        for _ in 0..2 {
            assert_eq!(timeline.next_change(31 * SECOND), Some((10 * SECOND, change)));
            assert_eq!(timeline.next_change(31 * SECOND), Some((30 * SECOND, change)));
            assert_eq!(timeline.next_change(31 * SECOND), None);
            timeline.restart();
        }
    }

    #[test]
    fn a_block_without_an_end_lasts() {
        let block = |lasts| timeline(What::BlockUdp { lasts, passes: 3 }, None, SECOND, 2);
        assert_eq!(block(None).udp_block(9 * SECOND), None);
        assert_eq!(block(None).udp_block(3600 * SECOND), Some(3));
        assert_eq!(block(Some(5 * SECOND)).udp_block(3600 * SECOND), None);
    }
}
