//! The addresses of one client as the server sees them.
//!
//! A client's own address never changes: that of the network it is in does. Each flow (transport
//! and port of the client) has the outer address and port that it got when it began, so a change
//! of address leaves old flows where they were, and they can be cut off, die slowly, or follow.

use std::{collections::HashMap, net::Ipv4Addr, time::Duration};

use super::{
    counters::Cause,
    draw::{Draw, Purpose},
    packet::Transport,
    profile::OldPath,
    timeline::Change,
};

/// Flows of one client that are known at a time; beyond it the one unused for longest is
/// forgotten, as by any NAT. A client under test has a handful.
const MAX_FLOWS: usize = 256;

/// The network of the clients' own addresses: 10.77.0.0/16.
pub const INNER_NETWORK: u8 = 77;

/// The networks of later addresses, taken in turn: 10.128.0.0/16 and on.
const OUTER_NETWORKS: std::ops::Range<u8> = 128..228;

/// The first clients' addresses end in .1.0, so that none looks like a network or a broadcast.
const FIRST: u32 = 256;

/// More clients than a 2-core machine will carry.
pub const MAX_CLIENTS: u32 = 10_000;

/// The address of a client in one of the networks.
fn address(network: u8, client: u32) -> Ipv4Addr {
    let [.., high, low] = (FIRST + client).to_be_bytes();
    Ipv4Addr::new(10, network, high, low)
}

/// The client's own address: what its sockets bind to.
pub fn inner_address(client: u32) -> Ipv4Addr {
    address(INNER_NETWORK, client)
}

/// Which client an address belongs to, whatever the network.
pub fn client_of(address: Ipv4Addr) -> Option<u32> {
    match address.octets() {
        [10, network, high, low]
            if network == INNER_NETWORK || OUTER_NETWORKS.contains(&network) =>
        {
            (u32::from(high) << 8 | u32::from(low)).checked_sub(FIRST)
        }
        _ => None,
    }
}

/// How a packet of a flow fares.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Passage {
    /// Outer address and port going up; the client's own going down.
    pub to: (Ipv4Addr, u16),
    /// Probability that it is lost because the flow's path is dying.
    pub loss: f64,
    /// How many packets of the flow there were before, both ways.
    pub before: u32,
}

#[derive(Debug, Clone)]
struct Flow {
    network: u8,
    outer_port: u16,
    /// When it is cut off, and how much it loses until then.
    end: Option<(Duration, f64)>,
    packets: u32,
    used: Duration,
}

/// The NAT that one client is behind.
#[derive(Debug, Clone)]
pub struct Nat {
    client: u32,
    ports: Draw,
    drawn: u64,
    network: u8,
    flows: HashMap<(Transport, u16), Flow>,
    by_outer: HashMap<(Transport, u8, u16), u16>,
}

impl Nat {
    /// One that changes nothing yet.
    pub fn new(seed: u64, client: u32) -> Self {
        Self {
            client,
            ports: Draw::new(seed, client, None, Purpose::Port, 0),
            drawn: 0,
            network: INNER_NETWORK,
            flows: HashMap::new(),
            by_outer: HashMap::new(),
        }
    }

    /// The client's address as the server sees new flows.
    pub fn outer_address(&self) -> Ipv4Addr {
        address(self.network, self.client)
    }

    /// A packet from the client's `port` upwards.
    pub fn up(&mut self, now: Duration, transport: Transport, port: u16) -> Result<Passage, Cause> {
        if !self.flows.contains_key(&(transport, port)) {
            self.begin(now, transport, port);
        }
        let client = self.client;
        let flow = self.flows.get_mut(&(transport, port)).ok_or(Cause::Testbed)?;
        flow.pass(now).map(|(loss, before)| Passage {
            to: (address(flow.network, client), flow.outer_port),
            loss,
            before,
        })
    }

    /// A packet from the server to the client's outer address and port.
    pub fn down(
        &mut self,
        now: Duration,
        transport: Transport,
        outer: (Ipv4Addr, u16),
    ) -> Result<Passage, Cause> {
        let network = outer.0.octets()[1];
        let port = *self.by_outer.get(&(transport, network, outer.1)).ok_or(Cause::NoMapping)?;
        let flow = self.flows.get_mut(&(transport, port)).ok_or(Cause::NoMapping)?;
        flow.pass(now).map(|(loss, before)| Passage {
            to: (inner_address(self.client), port),
            loss,
            before,
        })
    }

    /// Makes a change; it concerns the flows there are.
    pub fn change(&mut self, now: Duration, change: Change) {
        match change {
            Change::HandOver(old) => {
                self.next_network();
                match old {
                    OldPath::Dead => self.end_flows(now, 1.0, |_| true),
                    OldPath::Dying { lasts, loss } => self.end_flows(now + lasts, loss, |_| true),
                    OldPath::Follows => {
                        self.end_flows(now, 1.0, |transport| transport == Transport::Tcp);
                        self.move_udp(false);
                    }
                }
            }
            Change::Rebind { address } => {
                if address {
                    self.next_network();
                    self.end_flows(now, 1.0, |transport| transport == Transport::Tcp);
                }
                self.move_udp(true);
            }
        }
    }

    fn next_network(&mut self) {
        self.network = match self.network + 1 {
            next if OUTER_NETWORKS.contains(&next) => next,
            _ => OUTER_NETWORKS.start,
        };
    }

    fn begin(&mut self, now: Duration, transport: Transport, port: u16) {
        if self.flows.len() >= MAX_FLOWS {
            let oldest = self.flows.iter().min_by_key(|(_, flow)| flow.used).map(|(key, _)| *key);
            if let Some(key) = oldest {
                self.flows.remove(&key);
                self.by_outer.retain(|(transport, ..), port| (*transport, *port) != key);
            }
        }
        let network = self.network;
        let taken = self.by_outer.contains_key(&(transport, network, port));
        let outer_port = if taken { self.free_port(transport) } else { port };
        self.by_outer.insert((transport, network, outer_port), port);
        let flow = Flow { network, outer_port, end: None, packets: 0, used: now };
        self.flows.insert((transport, port), flow);
    }

    fn end_flows(&mut self, at: Duration, loss: f64, which: impl Fn(Transport) -> bool) {
        for ((transport, _), flow) in &mut self.flows {
            let sooner = flow.end.is_none_or(|(end, _)| at < end);
            if which(*transport) && sooner {
                flow.end = Some((at, loss));
            }
        }
    }

    /// Gives UDP flows that still live the present address and, where `ports`, another port.
    fn move_udp(&mut self, ports: bool) {
        let network = self.network;
        let mut moving: Vec<_> = self
            .flows
            .iter()
            .filter(|((transport, _), flow)| *transport == Transport::Udp && flow.end.is_none())
            .map(|((_, port), flow)| (*port, flow.network, flow.outer_port))
            .collect();
        moving.sort_unstable(); // so that ports are drawn in an order that repeats
        for (port, old_network, old_port) in moving {
            self.by_outer.remove(&(Transport::Udp, old_network, old_port));
            let taken = self.by_outer.contains_key(&(Transport::Udp, network, old_port));
            let outer_port = if ports || taken { self.free_port(Transport::Udp) } else { old_port };
            self.by_outer.insert((Transport::Udp, network, outer_port), port);
            if let Some(flow) = self.flows.get_mut(&(Transport::Udp, port)) {
                (flow.network, flow.outer_port) = (network, outer_port);
            }
        }
    }

    /// A port that no flow has; there are far more ports than flows.
    fn free_port(&mut self, transport: Transport) -> u16 {
        loop {
            #[allow(clippy::cast_possible_truncation)] // 16 random bits are wanted
            let port = self.ports.bits(self.drawn) as u16;
            self.drawn += 1;
            let free = !self.by_outer.contains_key(&(transport, self.network, port));
            if port >= 1024 && free {
                return port;
            }
        }
    }
}

impl Flow {
    /// The loss that a packet meets, and how many there were before it.
    fn pass(&mut self, now: Duration) -> Result<(f64, u32), Cause> {
        let loss = match self.end {
            Some((end, _)) if end <= now => return Err(Cause::OldPath),
            Some((_, loss)) => loss,
            None => 0.0,
        };
        self.used = now;
        let before = self.packets;
        self.packets = self.packets.saturating_add(1);
        Ok((loss, before))
    }
}

#[cfg(test)]
mod tests;
