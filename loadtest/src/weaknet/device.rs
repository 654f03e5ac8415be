//! The TUN device of a namespace: its only way out, and it leads to the forwarder.

use std::{
    io,
    net::Ipv4Addr,
    os::fd::{AsFd, BorrowedFd},
};

use anyhow::{Context, Result};
use tun_rs::{DeviceBuilder, SyncDevice};

use super::netns::{Namespace, Route};

/// As of most networks.
pub const MTU: u16 = 1500;

/// Packets that the kernel holds for the forwarder: what 200 clients send in the 10 ms that it may
/// once not be scheduled for, ten times over.
const KERNEL_QUEUE: u32 = 20_000;

/// A TUN device.
pub struct Device {
    tun: SyncDevice,
    route: Route,
}

/// What a device leads to: all addresses of the testbed.
const NETWORK: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 0, 0, 0), 8);

impl Device {
    /// Makes one inside `namespace`, up, with an `address` of the network it leads to.
    pub fn create(namespace: &Namespace, name: &str, address: Ipv4Addr) -> Result<Self> {
        let (tun, device) = namespace.run(|| {
            let tun = DeviceBuilder::new()
                .name(name)
                .ipv4(address, NETWORK.1, None)
                .mtu(MTU)
                .build_sync()
                .context(
                    "cannot make a TUN device: is /dev/net/tun there, and may it be opened?",
                )?;
            tun.set_nonblocking(true).context("cannot set up the TUN device")?;
            let index = tun.if_index().context("the TUN device has no index")?;
            Ok((tun, index))
        })?;
        namespace.set_queue(device, KERNEL_QUEUE)?;
        let route = Route { device, source: address, network: NETWORK.0, prefix: NETWORK.1 };
        Ok(Self { tun, route })
    }

    /// What it leads to.
    pub fn route(&self) -> Route {
        self.route
    }

    /// The next packet, if there is one.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match self.tun.recv(buffer) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Gives a packet to the namespace.
    pub fn send(&self, packet: &[u8]) -> io::Result<()> {
        self.tun.send(packet).map(drop)
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.tun.as_fd()
    }
}
