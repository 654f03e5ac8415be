//! How long a client had no service after something happened to its path.

use std::time::{Duration, Instant};

use anyhow::Result;
use edgeway_client::Class;
use serde::Serialize;

use super::record::{Arrived, DIRECTIONS, Log, ms};
use crate::{
    stamp::Clock,
    weaknet::{draw::Direction, profile::What, timeline::Occurrence},
};

/// One event of one client, from one end.
#[derive(Debug, Clone, Serialize)]
pub struct Moment {
    pub client: u32,
    pub direction: Direction,
    /// "blackout", "hand_over", "rebind", "udp_block"
    pub what: &'static str,
    /// Seconds from the start: the end of a blackout, else the event itself.
    pub at_s: f64,
    /// Milliseconds to the first signal that arrived after a blackout; else to the first arrival of
    /// a message that was sent after the event. None where there was none.
    pub back_ms: Option<f64>,
    /// The longest time in which nothing arrived, of those that began up to [`WINDOW`] after the event;
    /// to the end of that window where nothing came any more.
    pub gap_ms: f64,
}

/// See [`Moment::gap_ms`].
const WINDOW: Duration = Duration::from_secs(3);

/// An event so shortly before the end that there may be no time for its consequences.
const TOO_LATE: Duration = Duration::from_secs(3);

/// Looks at every event of every client.
pub fn moments(
    log: &Log,
    clock: &Clock,
    start: Instant,
    lasts: Duration,
    clients: u32,
    schedule: impl Fn(u32) -> Result<Vec<Occurrence>>,
) -> Result<Vec<Moment>> {
    let mut moments = Vec::new();
    for client in 0..clients {
        for event in schedule(client)? {
            let (what, over) = match event.what {
                What::Blackout { lasts, .. } => ("blackout", event.at + lasts),
                What::HandOver(_) => ("hand_over", event.at),
                What::Rebind { .. } => ("rebind", event.at),
                What::BlockUdp { .. } => ("udp_block", event.at),
            };
            if over + TOO_LATE > lasts {
                continue;
            }
            let at_ns = clock.at_ns(start + over);
            for direction in DIRECTIONS {
                let heard = |one: &&Arrived| {
                    let sent = one.sent;
                    sent.client == client && sent.direction == direction && one.at_ns >= at_ns
                };
                let after = |one: &&Arrived| match what {
                    "blackout" => one.sent.class == Class::Signal,
                    _ => one.sent.at_ns >= at_ns,
                };
                let first = log.arrived.iter().filter(heard).find(after);
                moments.push(Moment {
                    client,
                    direction,
                    what,
                    at_s: over.as_secs_f64(),
                    back_ms: first.map(|one| ms(one.at_ns - at_ns)),
                    gap_ms: gap(log, client, direction, at_ns),
                });
            }
        }
    }
    Ok(moments)
}

/// The longest silence that began before the window after `at_ns` was over, and was not over before it.
fn gap(log: &Log, client: u32, direction: Direction, at_ns: u64) -> f64 {
    let until = at_ns.saturating_add(u64::try_from(WINDOW.as_nanos()).unwrap_or(u64::MAX));
    let arrivals = log.arrived.iter();
    let here = arrivals.filter(|one| one.sent.client == client && one.sent.direction == direction);
    let (mut last, mut longest) = (None, 0);
    for at in here.map(|one| one.at_ns).filter(|at| *at < until) {
        if let Some(last) = last.filter(|_| at >= at_ns) {
            longest = longest.max(at - last);
        }
        last = Some(at);
    }
    ms(longest.max(until - last.unwrap_or(at_ns)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weak::record::Sent;

    #[test]
    fn a_gap_is_the_longest_silence_around_the_event() {
        let sent = Sent { client: 0, direction: Direction::Up, class: Class::Chat, n: 0, at_ns: 0 };
        let gap_of = |at_ms: &[u64]| {
            let arrived = at_ms.iter().map(|at| Arrived { sent, at_ns: at * 1_000_000 }).collect();
            gap(&Log { arrived, ..Log::default() }, 0, Direction::Up, 1_000_000_000)
        };
        let close = |a: f64, b: f64| (a - b).abs() < 1e-6;
        // From the last before the event; one long before it does not count.
        assert!(close(gap_of(&[100, 900, 1400, 1600, 3950]), 2350.0));
        assert!(close(gap_of(&[100, 900, 1700, 1800, 2700, 3600, 3990]), 900.0));
        assert!(close(gap_of(&[100, 900]), 3100.0));
        assert!(close(gap_of(&[]), 3000.0));
    }
}
