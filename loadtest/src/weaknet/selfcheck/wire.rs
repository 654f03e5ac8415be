//! The testbed as a whole: real sockets, TUN devices, and time.

use std::{
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use anyhow::{Context, Result};

use super::Verdict;
use crate::weaknet::{Profile, Testbed, profile::LinkSpec, testbed::SERVER};

mod change;
mod tcp;
mod udp;

/// How much is sent.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Clients that send at the same time.
    pub clients: u32,
    /// Packets of each client, upwards; each that arrives is echoed.
    pub packets: u32,
    /// Time between two packets of a client.
    pub gap: Duration,
    /// How long a bottleneck is kept full.
    pub flood: Duration,
}

impl Size {
    /// For continuous integration: some seconds, and a share of a small machine.
    pub const SMALL: Self = Self {
        clients: 20,
        packets: 150,
        gap: Duration::from_millis(10),
        flood: Duration::from_secs(2),
    };

    /// 100,000 packets up and nearly as many down, in a bit over a minute.
    pub const FULL: Self = Self {
        clients: 50,
        packets: 2000,
        gap: Duration::from_millis(20),
        flood: Duration::from_secs(10),
    };
}

/// All checks that need the devices.
pub fn check(size: Size, seed: u64) -> Result<Vec<Verdict>> {
    let mut verdicts = udp::echo(size, seed).context("packets of many clients")?;
    verdicts.extend(udp::flood(size, seed).context("a full bottleneck")?);
    verdicts.extend(tcp::check(size, seed).context("TCP")?);
    verdicts.extend(change::check(seed).context("changes of address")?);
    Ok(verdicts)
}

fn testbed(link: LinkSpec, clients: u32, seed: u64) -> Result<Testbed> {
    Testbed::start(&Profile::symmetric("selfcheck", link), clients, seed)
}

/// A socket of the server.
fn server_socket(testbed: &Testbed, port: u16) -> Result<UdpSocket> {
    testbed.server().run(|| Ok(UdpSocket::bind((SERVER, port))?)).context("the server's socket")
}

/// A socket of a client.
fn client_socket(testbed: &Testbed, client: u32) -> Result<UdpSocket> {
    let address = SocketAddr::from((testbed.client_address(client), 0));
    testbed.clients().run(|| Ok(UdpSocket::bind(address)?)).context("a client's socket")
}
