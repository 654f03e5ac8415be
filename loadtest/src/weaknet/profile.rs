//! What a network is like: links per direction, and what happens to each client when.
//!
//! Profiles are read from TOML (`profiles/weaknet.toml` is built in and describes the keys); a
//! file of the user's adds to them or replaces some.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use super::{
    draw::Direction,
    units::{Queue, Rate},
};
use anyhow::{Context, Result, bail};

mod raw;

/// The profiles that come with the program.
const BUILT_IN: &str = include_str!("../../profiles/weaknet.toml");

/// A named kind of network, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    /// Its name.
    pub name: String,
    /// Where it is met, and where its numbers come from.
    pub reason: String,
    /// From client to server.
    pub up: LinkSpec,
    /// From server to client.
    pub down: LinkSpec,
    /// All clients share one bottleneck in each direction, rather than each having its own.
    pub shared: bool,
    /// What happens to every client, both directions alike.
    pub events: Vec<Event>,
}

/// One direction of a client's link.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LinkSpec {
    /// The least time from one end to the other.
    pub delay: Duration,
    /// What is added to it.
    pub jitter: Option<Jitter>,
    /// Probability that a packet is lost, each by itself.
    pub loss: f64,
    /// Loss in spells of random length.
    pub gilbert_elliott: Option<GilbertElliott>,
    /// Total loss in bursts of one length.
    pub bursts: Option<Bursts>,
    /// The bottleneck, with its queue; what does not fit is dropped at the tail.
    pub bottleneck: Option<Bottleneck>,
    /// Probability that a packet arrives twice.
    pub duplicate: f64,
}

/// Delay that wanders.
#[derive(Debug, Clone, PartialEq)]
pub struct Jitter {
    /// The most that is added, or the mean of it for [`Shape::Tail`].
    pub spread: Duration,
    /// For how long one draw holds.
    pub slot: Duration,
    /// How it is spread.
    pub shape: Shape,
    /// Whether a packet may overtake another.
    pub reorder: bool,
}

/// How jitter is spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Evenly from 0.
    Even,
    /// Exponentially: mostly little, sometimes much.
    Tail,
}

/// The model of Gilbert and Elliott, in time rather than packets, so that it does not depend on
/// who sends how much.
#[derive(Debug, Clone, PartialEq)]
pub struct GilbertElliott {
    /// Mean length of a good spell.
    pub good: Duration,
    /// Mean length of a bad spell.
    pub bad: Duration,
    /// Probability of loss in a good spell.
    pub loss_good: f64,
    /// Probability of loss in a bad spell.
    pub loss_bad: f64,
}

/// Total loss for exactly `length`, `share` of the time.
#[derive(Debug, Clone, PartialEq)]
pub struct Bursts {
    /// Length of each.
    pub length: Duration,
    /// Share of the time that they fill.
    pub share: f64,
    /// Whether both directions have them at the same time.
    pub together: bool,
}

/// A rate and the queue before it.
#[derive(Debug, Clone, PartialEq)]
pub struct Bottleneck {
    /// Bits a second, of whole IP packets.
    pub rate: Rate,
    /// What may wait.
    pub queue: Queue,
}

/// Something that happens to a client, once or again and again.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// When, from the start of the schedule.
    pub when: When,
    /// What.
    pub what: What,
}

/// When something happens.
#[derive(Debug, Clone, PartialEq)]
pub struct When {
    /// The first time.
    pub at: Duration,
    /// Again after each of these.
    pub every: Option<Duration>,
    /// Put off by up to this, drawn for each client and time, so that clients do not move in step.
    pub stagger: Duration,
}

/// What may happen to a client's path.
#[derive(Debug, Clone, PartialEq)]
pub enum What {
    /// Nothing passes for a time.
    Blackout {
        /// For how long.
        lasts: Duration,
        /// Packets are held and arrive afterwards, rather than being lost.
        held: bool,
    },
    /// The client gets another address.
    HandOver(OldPath),
    /// The NAT gives the client's UDP flows another port.
    Rebind {
        /// And another address.
        address: bool,
    },
    /// UDP does not pass.
    BlockUdp {
        /// For how long; for good if `None`.
        lasts: Option<Duration>,
        /// So many packets of each flow (both ways) pass all the same.
        passes: u32,
    },
}

/// What becomes of flows that a client had before it got another address.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum OldPath {
    /// They are cut off: what only a new socket brings back.
    Dead,
    /// They live on with loss for a time, and are then cut off.
    Dying {
        /// For how long.
        lasts: Duration,
        /// Probability that a packet is lost meanwhile.
        loss: f64,
    },
    /// UDP goes on from the new address at once, as from a socket bound to no address; TCP is cut
    /// off.
    Follows,
}

impl Profile {
    /// A profile in which both directions are alike and nothing happens.
    pub fn symmetric(name: &str, link: LinkSpec) -> Self {
        Self {
            name: name.to_owned(),
            reason: String::new(),
            up: link.clone(),
            down: link,
            shared: false,
            events: vec![],
        }
    }

    /// The link of one direction.
    pub fn link(&self, direction: Direction) -> &LinkSpec {
        match direction {
            Direction::Up => &self.up,
            Direction::Down => &self.down,
        }
    }
}

/// All the profiles there are.
#[derive(Debug, Clone)]
pub struct Profiles(BTreeMap<String, Profile>);

impl Profiles {
    /// The built-in ones, and those of `file`, which win.
    pub fn load(file: Option<&Path>) -> Result<Self> {
        let mut all = Self::parse(BUILT_IN).context("the built-in profiles")?;
        if let Some(path) = file {
            let text = fs::read_to_string(path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            all.0.extend(Self::parse(&text).with_context(|| path.display().to_string())?.0);
        }
        Ok(all)
    }

    /// Reads profiles; the error has everything that is wrong, each with its key.
    pub fn parse(text: &str) -> Result<Self> {
        raw::parse(text).map(Self)
    }

    /// The profile of this name.
    pub fn get(&self, name: &str) -> Result<&Profile> {
        if let Some(profile) = self.0.get(name) {
            return Ok(profile);
        }
        let names: Vec<_> = self.0.keys().map(String::as_str).collect();
        bail!("there is no profile {name:?}; there are: {}", names.join(", "))
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Profile> {
        self.0.values()
    }
}

#[cfg(test)]
mod tests;
