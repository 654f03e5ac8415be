//! One thing that is measured, how much of it, and what came of it.

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use super::{
    Congestion, Group, Mode,
    found::Found,
    measure,
    offer::Offer,
    share::{self, Shares},
    starts::{self, From, Starts},
};
use crate::{
    server::ServerArgs,
    weaknet::{
        profile::Profiles,
        selfcheck::{self, Verdict, core, wire},
    },
};

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Task {
    pub profile: &'static str,
    pub mode: Mode,
    /// Of kernel TCP.
    pub congestion: Congestion,
    /// How many at a time, where a figure says so.
    pub clients: Option<u32>,
    pub kind: Kind,
}

/// In which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Everyone talks.
    Talk { offer: Offer, hint: bool },
    /// Clients start.
    Start(From),
    /// Ours beside bulk flows of others.
    Share,
    /// The testbed itself.
    Testbed,
}

/// How much of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Size {
    pub clients: u32,
    /// For how long each direction talks.
    pub seconds: u32,
    pub warm_up: u32,
    pub seeds: Vec<u64>,
}

/// What came of it.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Measured {
    Talk(Box<Found>),
    Starts(Starts),
    Shares(Shares),
    Testbed(Vec<selfcheck::Verdict>),
}

impl Task {
    /// Measures it. To be called where no runtime is.
    pub fn measure(
        &self,
        size: &Size,
        profiles: &Profiles,
        server: &ServerArgs,
    ) -> Result<Measured> {
        let profile = profiles.get(self.profile)?;
        let measured = match self.kind {
            Kind::Talk { offer, hint } => {
                let group = Group {
                    profile: self.profile.to_owned(),
                    mode: self.mode,
                    congestion: self.congestion,
                    offer,
                    hint,
                    size: size.clone(),
                };
                measure(server, &group, profiles).map(|found| Measured::Talk(Box::new(found)))
            }
            Kind::Start(from) => {
                ensure!(self.mode != Mode::PlainTcp, "plain TCP has no rooms to start in");
                starts::run(profile, self.mode, from, size, server).map(Measured::Starts)
            }
            Kind::Share => {
                share::run(profile, self.mode, self.congestion, size, server).map(Measured::Shares)
            }
            Kind::Testbed => check_testbed(size).map(Measured::Testbed),
        };
        measured.with_context(|| self.to_string())
    }
}

/// The whole of it takes about as many packets as the issue of a measurement has.
fn check_testbed(size: &Size) -> Result<Vec<Verdict>> {
    let wire_size = if size.clients < 50 { wire::Size::SMALL } else { wire::Size::FULL };
    let mut verdicts = core::check(1);
    verdicts.extend(wire::check(wire_size, 1)?);
    Ok(verdicts)
}

impl std::fmt::Display for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.kind == Kind::Testbed {
            return f.write_str("the testbed itself");
        }
        write!(f, "{}, {}", self.profile, self.mode.name())?;
        if self.mode.is_tcp() {
            write!(f, " ({})", self.congestion.name())?;
        }
        match self.kind {
            Kind::Talk { hint: true, .. } => f.write_str(", with hint")?,
            Kind::Talk { offer: Offer::Isolated, .. } => f.write_str(", isolated")?,
            Kind::Start(from) => write!(f, ", {}", from.name())?,
            _ => {}
        }
        self.clients.map_or(Ok(()), |clients| write!(f, ", {clients} clients"))
    }
}

impl Measured {
    /// Prints a summary.
    pub fn say(&self) {
        match self {
            Self::Talk(found) => found.say(),
            Self::Starts(starts) => starts.say(),
            Self::Shares(shares) => shares.say(),
            Self::Testbed(verdicts) => verdicts.iter().for_each(|verdict| println!("{verdict}")),
        }
    }

    /// Whether the figures can be trusted.
    pub fn is_sound(&self) -> bool {
        match self {
            Self::Talk(found) => found.is_sound(),
            Self::Shares(shares) => shares.testbed_drops == 0,
            Self::Starts(_) | Self::Testbed(_) => true,
        }
    }
}
