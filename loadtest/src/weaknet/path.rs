//! Everything between one client and the server: its two links, its NAT, and what happens when.
//!
//! Pure: the caller says what time it is and holds packets until they arrive.

use std::{net::Ipv4Addr, time::Duration};

use super::{
    counters::{Cause, ClientCounters, LinkCounters},
    draw::Direction,
    link::{Fate, Link, Waist},
    nat::{Nat, Passage},
    packet::{Headers, Transport},
    profile::Profile,
    timeline::{Change, Occurrence, Outage, Timeline},
};

/// One client's path.
#[derive(Debug, Clone)]
pub struct Path {
    up: Link,
    down: Link,
    nat: Nat,
    timeline: Timeline,
    /// When the schedule began, on the caller's clock.
    begun: Duration,
    /// A blackout by command, in time of the schedule.
    blackout: Option<(Duration, Outage)>,
    /// A block of UDP by command.
    udp_blocked: bool,
}

impl Path {
    /// The paths of all clients, whose schedules begin at 0.
    pub fn all(profile: &Profile, seed: u64, clients: u32) -> Vec<Self> {
        let shared = profile.shared.then(<[Waist; 2]>::default);
        (0..clients)
            .map(|client| {
                let waists = shared.clone().unwrap_or_default();
                Self::through(waists, profile, seed, client)
            })
            .collect()
    }

    /// A path of a client that shares nothing, whose schedule begins at 0.
    pub fn new(profile: &Profile, seed: u64, client: u32) -> Self {
        Self::through(<[Waist; 2]>::default(), profile, seed, client)
    }

    fn through([up, down]: [Waist; 2], profile: &Profile, seed: u64, client: u32) -> Self {
        Self {
            up: Link::through(up, &profile.up, seed, client, Direction::Up),
            down: Link::through(down, &profile.down, seed, client, Direction::Down),
            nat: Nat::new(seed, client),
            timeline: Timeline::new(&profile.events, seed, client),
            begun: Duration::ZERO,
            blackout: None,
            udp_blocked: false,
        }
    }

    /// Starts the schedule anew: packets are numbered from 0, time is counted from now.
    pub fn restart(&mut self, now: Duration) {
        self.begun = now;
        self.blackout = None;
        self.timeline.restart();
        self.up.restart();
        self.down.restart();
    }

    /// Makes the changes of the schedule that are due.
    fn advance(&mut self, now: Duration) {
        let since = now.saturating_sub(self.begun);
        while let Some((at, change)) = self.timeline.next_change(since) {
            self.nat.change(self.begun + at, change);
        }
    }

    /// A packet from the client: what becomes of it; its source is rewritten.
    pub fn up(&mut self, now: Duration, headers: &mut Headers, packet: &mut [u8]) -> Fate {
        self.advance(now);
        let passage = self
            .nat
            .up(now, headers.transport, headers.source.1)
            .and_then(|passage| self.admit(now, headers.transport, passage))
            .and_then(|passage| self.up.survives(passage.loss).map(|()| passage));
        match passage {
            Ok(passage) => {
                headers.set_source(packet, passage.to);
                self.send(Direction::Up, now, bytes(packet))
            }
            Err(cause) => self.up.refuse(bytes(packet), cause),
        }
    }

    /// A packet from the server: what becomes of it. Its flow is looked for when it arrives, for a
    /// NAT stands at the client's end.
    pub fn down(&mut self, now: Duration, packet: &[u8]) -> Fate {
        self.send(Direction::Down, now, bytes(packet))
    }

    /// A packet from the server is at the client's end: whether it gets in; its destination is
    /// rewritten. A `copy` is not counted.
    pub fn arrive_down(&mut self, now: Duration, packet: &mut [u8], copy: bool) -> bool {
        self.advance(now);
        let Some(mut headers) = Headers::read(packet) else { return false };
        let passage = self
            .nat
            .down(now, headers.transport, headers.destination)
            .and_then(|passage| self.admit(now, headers.transport, passage))
            .and_then(|passage| self.down.survives(passage.loss).map(|()| passage));
        match passage {
            Ok(passage) => {
                headers.set_destination(packet, passage.to);
                if !copy {
                    self.down.counters.delivered(bytes(packet));
                }
                true
            }
            Err(cause) => {
                if !copy {
                    self.down.counters.lost(cause, bytes(packet));
                }
                false
            }
        }
    }

    /// A packet from the client is at the server's end.
    pub fn arrive_up(&mut self, packet: &[u8]) {
        self.up.counters.delivered(bytes(packet));
    }

    /// Whether UDP of a flow passes.
    fn admit(
        &self,
        now: Duration,
        transport: Transport,
        passage: Passage,
    ) -> Result<Passage, Cause> {
        let scheduled = self.timeline.udp_block(now.saturating_sub(self.begun));
        let passes = if self.udp_blocked { Some(0) } else { scheduled };
        match passes {
            Some(passes) if transport == Transport::Udp && passage.before >= passes => {
                Err(Cause::UdpBlocked)
            }
            _ => Ok(passage),
        }
    }

    fn send(&mut self, direction: Direction, now: Duration, bytes: u64) -> Fate {
        let (timeline, blackout) = (&self.timeline, self.blackout);
        let outage = |at| {
            let commanded = blackout.filter(|(from, outage)| (*from..outage.until).contains(&at));
            commanded.map(|(_, outage)| outage).or_else(|| timeline.outage(at))
        };
        let link = match direction {
            Direction::Up => &mut self.up,
            Direction::Down => &mut self.down,
        };
        link.send(now, self.begun, bytes, outage)
    }

    /// Makes a change now.
    pub fn change(&mut self, now: Duration, change: Change) {
        self.advance(now);
        self.nat.change(now, change);
    }

    /// Nothing passes from now on for this long.
    pub fn black_out(&mut self, now: Duration, lasts: Duration) {
        let from = now.saturating_sub(self.begun);
        self.blackout = Some((from, Outage { until: from + lasts, held: false }));
    }

    /// Lets UDP pass no more, or again.
    pub fn block_udp(&mut self, blocked: bool) {
        self.udp_blocked = blocked;
    }

    /// What the schedule has in store before `end`, in time of the schedule.
    pub fn schedule(&self, end: Duration) -> Vec<Occurrence> {
        self.timeline.until(end)
    }

    /// The client's address as the server sees new flows.
    pub fn outer_address(&mut self, now: Duration) -> Ipv4Addr {
        self.advance(now);
        self.nat.outer_address()
    }

    /// What was counted.
    pub fn counters(&self) -> ClientCounters {
        ClientCounters { up: self.up.counters, down: self.down.counters }
    }

    /// Starts counting anew.
    pub fn reset_counters(&mut self) {
        self.up.counters = LinkCounters::default();
        self.down.counters = LinkCounters::default();
    }

    /// A packet that the testbed itself could not carry.
    pub fn failed(&mut self, direction: Direction, bytes: u64) {
        let link = match direction {
            Direction::Up => &mut self.up,
            Direction::Down => &mut self.down,
        };
        link.counters.lost(Cause::Testbed, bytes);
    }
}

fn bytes(packet: &[u8]) -> u64 {
    packet.len() as u64
}

#[cfg(test)]
mod tests;
