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
}

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
                });
            }
        }
    }
    Ok(moments)
}
