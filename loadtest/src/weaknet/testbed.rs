//! The testbed as a scenario uses it.

use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use super::{
    counters::ClientCounters,
    device::Device,
    forwarder::{Forwarder, Shared},
    nat::{INNER_NETWORK, MAX_CLIENTS, inner_address},
    netns::{Namespace, Route},
    path::Path,
    profile::{OldPath, Profile},
    timeline::{Change, Occurrence},
};

/// Where the server is to listen.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(10, 255, 0, 1);

/// The clients' device; no client has this address.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 254, 0, 1);

/// The loopback device of the clients' namespace owns their whole network, so every client's
/// address can be bound.
const CLIENT_NETWORK: (Ipv4Addr, u8) = (Ipv4Addr::new(10, INNER_NETWORK, 0, 1), 16);

/// A server's and a clients' namespace with an emulated link for each client; gone when dropped.
pub struct Testbed {
    // Fields are dropped in this order: the devices go before their namespaces.
    forwarder: Forwarder,
    server: Namespace,
    clients: Namespace,
    /// Of server and clients.
    routes: [Route; 2],
    count: u32,
}

/// What the testbed counted, for a report.
#[derive(Debug, Clone, Serialize)]
pub struct Counters {
    /// All clients together.
    pub total: ClientCounters,
    /// Each client.
    pub by_client: Vec<ClientCounters>,
    /// How the testbed itself did.
    pub testbed: Health,
}

/// How well the testbed kept what it promises: a measurement is good if packets are late by far
/// less than what is measured, and nothing was lost by the testbed.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Health {
    /// How late packets were handed over, against when they should have arrived.
    pub late_ms: Lateness,
    /// Packets that the kernel dropped before the testbed could read them, or after it handed them
    /// over.
    pub kernel_drops: u64,
    /// UDP packets that came through and were dropped because a socket's buffer was full: its
    /// program was not scheduled for too long.
    pub socket_drops: u64,
    /// Packets that are not UDP or TCP over IPv4 (ICMP, mostly), or are of no client.
    pub ignored: u64,
    /// Packets on their way at the moment.
    pub on_the_way: usize,
}

/// Milliseconds.
#[derive(Debug, Clone, Default, Serialize)]
#[allow(missing_docs)] // quantiles
pub struct Lateness {
    pub p50: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

impl Testbed {
    /// Builds it. The schedule of the profile begins at once; see [`Testbed::restart`].
    ///
    /// Needs root, or a user namespace of ours ([`super::netns::become_root`]), and `/dev/net/tun`.
    pub fn start(profile: &Profile, clients: u32, seed: u64) -> Result<Self> {
        ensure!(
            (1..=MAX_CLIENTS).contains(&clients),
            "a testbed has 1 to {MAX_CLIENTS} clients, not {clients}"
        );
        let server = Namespace::create(None)?;
        let client_side = Namespace::create(Some(CLIENT_NETWORK))?;
        for namespace in [&server, &client_side] {
            // A connection must not start with what an earlier one learned of the path.
            namespace.set_sysctl("ipv4/tcp_no_metrics_save", "1")?;
        }
        let paths = Path::all(profile, seed, clients);
        let device = Device::create(&client_side, "clients", GATEWAY)?;
        let server_device = Device::create(&server, "server", SERVER)?;
        let routes = [server_device.route(), device.route()];
        let forwarder = Forwarder::start(paths, device, server_device)?;
        Ok(Self { forwarder, server, clients: client_side, routes, count: clients })
    }

    /// Where the server runs; it listens on [`SERVER`].
    pub fn server(&self) -> &Namespace {
        &self.server
    }

    /// Where the clients run; each binds its sockets to its [`Testbed::client_address`].
    pub fn clients(&self) -> &Namespace {
        &self.clients
    }

    /// What client `client` binds to, always; which address the server sees is up to its path.
    pub fn client_address(&self, client: u32) -> Ipv4Addr {
        inner_address(client)
    }

    /// How the server sees new flows of a client at the moment.
    pub fn outer_address(&self, client: u32) -> Result<Ipv4Addr> {
        self.on_path(client, |path, now| path.outer_address(now))
    }

    /// Congestion control of kernel TCP, "cubic" or "bbr" for instance, for connections of both
    /// sides that are made from now on, whoever makes them.
    pub fn set_tcp_congestion(&self, name: &str) -> Result<()> {
        let [server, clients] = &self.routes;
        self.server.set_tcp_congestion(server, name)?;
        self.clients.set_tcp_congestion(clients, name)
    }

    /// Starts the schedule and the numbering of packets anew and counts from 0: when all is
    /// connected and the measurement begins. Its time 0 is returned.
    pub fn restart(&self) -> Instant {
        self.forwarder.with(|shared| {
            let now = shared.now();
            for path in &mut shared.paths {
                path.restart(now);
                path.reset_counters();
            }
            shared.lateness_us.reset();
            shared.ignored = 0;
            shared.started + now
        })
    }

    /// What the schedule has in store for a client before `end`, in order; from the time that
    /// [`Testbed::restart`] returned.
    pub fn schedule(&self, client: u32, end: Duration) -> Result<Vec<Occurrence>> {
        self.on_path(client, |path, _| path.schedule(end))
    }

    /// Gives a client another address, now.
    pub fn hand_over(&self, client: u32, old: OldPath) -> Result<()> {
        self.on_path(client, |path, now| path.change(now, Change::HandOver(old)))
    }

    /// Gives the UDP flows of a client other ports, and another address where `address`, now.
    pub fn rebind(&self, client: u32, address: bool) -> Result<()> {
        self.on_path(client, |path, now| path.change(now, Change::Rebind { address }))
    }

    /// Lets no packet of a client pass from now on for this long.
    pub fn black_out(&self, client: u32, lasts: Duration) -> Result<()> {
        self.on_path(client, |path, now| path.black_out(now, lasts))
    }

    /// Lets UDP of a client pass no more, or again.
    pub fn block_udp(&self, client: u32, blocked: bool) -> Result<()> {
        self.on_path(client, |path, _| path.block_udp(blocked))
    }

    fn on_path<T>(&self, client: u32, work: impl FnOnce(&mut Path, Duration) -> T) -> Result<T> {
        self.forwarder.with(|shared| {
            let now = shared.now();
            let path = usize::try_from(client).ok().and_then(|index| shared.paths.get_mut(index));
            path.map(|path| work(path, now)).with_context(|| {
                format!("there is no client {client}: they are 0 to {}", self.count - 1)
            })
        })
    }

    /// What was counted since the last [`Testbed::restart`] (drops of the kernel: since the start).
    pub fn counters(&self) -> Result<Counters> {
        ensure!(self.forwarder.is_running(), "the emulated link broke; see the log");
        let (mut kernel_drops, mut socket_drops) = (0, 0);
        for namespace in [&self.server, &self.clients] {
            kernel_drops += device_drops(&namespace.kernel_counters("dev")?);
            socket_drops += udp_buffer_errors(&namespace.kernel_counters("snmp")?);
        }
        Ok(self.forwarder.with(|shared| {
            let by_client: Vec<_> = shared.paths.iter().map(Path::counters).collect();
            let mut total = ClientCounters::default();
            by_client.iter().for_each(|client| total += *client);
            Counters { total, by_client, testbed: Health::of(shared, kernel_drops, socket_drops) }
        }))
    }
}

impl Health {
    fn of(shared: &Shared, kernel_drops: u64, socket_drops: u64) -> Self {
        #[allow(clippy::cast_precision_loss)] // microseconds of minutes
        let ms = |us: u64| us as f64 / 1000.0;
        let at = |quantile| ms(shared.lateness_us.value_at_quantile(quantile));
        let late_ms = match shared.lateness_us.len() {
            0 => Lateness::default(),
            _ => Lateness {
                p50: at(0.5),
                p99: at(0.99),
                p999: at(0.999),
                max: ms(shared.lateness_us.max()),
            },
        };
        Self {
            late_ms,
            kernel_drops,
            socket_drops,
            ignored: shared.ignored,
            on_the_way: shared.on_the_way,
        }
    }
}

/// What the devices dropped in either direction, from `/proc/net/dev`.
fn device_drops(devices: &str) -> u64 {
    const RECEIVED_DROPPED: usize = 3;
    const SENT_DROPPED: usize = 11;
    devices
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(_, numbers)| {
            let numbers: Vec<u64> =
                numbers.split_whitespace().filter_map(|number| number.parse().ok()).collect();
            let at = |index| numbers.get(index).copied().unwrap_or(0);
            at(RECEIVED_DROPPED) + at(SENT_DROPPED)
        })
        .sum()
}

/// `RcvbufErrors` of UDP, from `/proc/net/snmp`: a line of names and one of numbers.
fn udp_buffer_errors(counters: &str) -> u64 {
    let mut lines = counters.lines().filter(|line| line.starts_with("Udp:"));
    let (Some(names), Some(numbers)) = (lines.next(), lines.next()) else { return 0 };
    names
        .split_whitespace()
        .zip(numbers.split_whitespace())
        .find(|(name, _)| *name == "RcvbufErrors")
        .and_then(|(_, number)| number.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_of_the_kernel_are_read_in_both_directions() {
        let text = "Inter-|   Receive |  Transmit\n face |bytes packets errs drop\n\
            lo: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n clients: 0 0 0 1 0 0 0 0 0 0 0 2 0 0 0 0\n";
        assert_eq!(device_drops(text), 4 + 12 + 1 + 2);
    }

    #[test]
    fn full_buffers_of_udp_sockets_are_read() {
        let text = "Ip: Forwarding\nIp: 1\nUdp: InDatagrams NoPorts RcvbufErrors\nUdp: 9 8 7\n\
            UdpLite: InDatagrams\nUdpLite: 5\n";
        assert_eq!(udp_buffer_errors(text), 7);
        assert_eq!(udp_buffer_errors(""), 0);
    }
}
