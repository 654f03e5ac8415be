//! What was sent, what arrived, and why the rest did not.

use std::{ops::AddAssign, time::Duration};

use serde::Serialize;

/// Why a packet did not arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Independent loss.
    Random,
    /// A burst, or a spell of the Gilbert-Elliott model.
    Burst,
    /// The queue before the bottleneck was full.
    Queue,
    /// A blackout.
    Blackout,
    /// UDP does not pass.
    UdpBlocked,
    /// It belongs to a flow of before a change of address.
    OldPath,
    /// The NAT knows no flow that it belongs to.
    NoMapping,
    /// The testbed could not take or deliver it: a measurement in which there are any is void.
    Testbed,
}

/// Packets, and their bytes as IP packets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Count {
    /// How many.
    pub packets: u64,
    /// Of how many bytes together, IP headers included.
    pub bytes: u64,
}

impl Count {
    fn one(&mut self, bytes: u64) {
        self.packets += 1;
        self.bytes += bytes;
    }
}

impl AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.packets += other.packets;
        self.bytes += other.bytes;
    }
}

/// How long packets waited for others before the bottleneck.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Waited {
    /// All of them together, in microseconds.
    pub sum_us: u64,
    /// The one that waited longest, in microseconds.
    pub max_us: u64,
    /// How many got to the bottleneck.
    pub packets: u64,
}

/// One direction of a client's link.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct LinkCounters {
    /// What was put on the wire.
    pub sent: Count,
    /// What got to the other end, copies not counted.
    pub arrived: Count,
    /// What arrived twice.
    pub duplicated: u64,
    /// Before the bottleneck.
    pub queue: Waited,
    /// What did not arrive, by cause.
    pub lost: Losses,
}

/// What did not arrive, by cause.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs)] // as in `Cause`
pub struct Losses {
    pub random: Count,
    pub burst: Count,
    pub queue: Count,
    pub blackout: Count,
    pub udp_blocked: Count,
    pub old_path: Count,
    pub no_mapping: Count,
    pub testbed: Count,
}

impl Losses {
    /// What was lost for this cause.
    pub fn of(&mut self, cause: Cause) -> &mut Count {
        match cause {
            Cause::Random => &mut self.random,
            Cause::Burst => &mut self.burst,
            Cause::Queue => &mut self.queue,
            Cause::Blackout => &mut self.blackout,
            Cause::UdpBlocked => &mut self.udp_blocked,
            Cause::OldPath => &mut self.old_path,
            Cause::NoMapping => &mut self.no_mapping,
            Cause::Testbed => &mut self.testbed,
        }
    }

    /// Every cause with its count.
    pub fn all(&self) -> [(Cause, Count); 8] {
        [
            (Cause::Random, self.random),
            (Cause::Burst, self.burst),
            (Cause::Queue, self.queue),
            (Cause::Blackout, self.blackout),
            (Cause::UdpBlocked, self.udp_blocked),
            (Cause::OldPath, self.old_path),
            (Cause::NoMapping, self.no_mapping),
            (Cause::Testbed, self.testbed),
        ]
    }
}

impl LinkCounters {
    /// A packet was put on the wire.
    pub fn offered(&mut self, bytes: u64) {
        self.sent.one(bytes);
    }

    /// It waited so long for the bottleneck.
    pub fn waited(&mut self, time: Duration) {
        let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.queue.sum_us = self.queue.sum_us.saturating_add(us);
        self.queue.max_us = self.queue.max_us.max(us);
        self.queue.packets += 1;
    }

    /// It did not arrive.
    pub fn lost(&mut self, cause: Cause, bytes: u64) {
        self.lost.of(cause).one(bytes);
    }

    /// It arrived.
    pub fn delivered(&mut self, bytes: u64) {
        self.arrived.one(bytes);
    }
}

impl AddAssign for LinkCounters {
    fn add_assign(&mut self, other: Self) {
        self.sent += other.sent;
        self.arrived += other.arrived;
        self.duplicated += other.duplicated;
        self.queue.sum_us += other.queue.sum_us;
        self.queue.max_us = self.queue.max_us.max(other.queue.max_us);
        self.queue.packets += other.queue.packets;
        for (cause, count) in other.lost.all() {
            *self.lost.of(cause) += count;
        }
    }
}

/// Both directions of one client, or of all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct ClientCounters {
    /// From client to server.
    pub up: LinkCounters,
    /// From server to client.
    pub down: LinkCounters,
}

impl AddAssign for ClientCounters {
    fn add_assign(&mut self, other: Self) {
        self.up += other.up;
        self.down += other.down;
    }
}
