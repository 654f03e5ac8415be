//! Weak networks: the real gateway and real clients over emulated links, beside what an app has
//! without them.

mod found;
mod html;
mod offer;
mod plain;
mod record;
mod returns;
mod run;
mod sdk;
pub mod sides;
mod starts;
mod suite;

use std::{fs, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, Result};
use clap::ValueEnum;
use edgeway_client::TransportChoice;

use self::{found::Found, offer::Offer, run::Spec, suite::Suite};
use crate::{
    server::ServerArgs,
    weaknet::{
        netns,
        profile::Profiles,
        selfcheck::{core, wire},
    },
};

/// Signals, strokes and chat over emulated weak networks
///
/// Each client has a link of its own between two network namespaces, and rooms with a peer that sits
/// beside the server: so each direction is measured by itself, from the call that sends to the
/// receiver's callback, on one clock. First the clients talk, then their peers, each for --seconds;
/// where the profile has events, both at once and in one room, so that the link also carries what a
/// client itself has said. Everyone talks for --warm-up before that, so
/// that estimates of the path are warm. What has not arrived when a run ends is lost, and counts.
///
/// Needs root, or user namespaces, and /dev/net/tun. Nothing outside this process is changed.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Kinds of network; see --list
    #[arg(long, value_name = "NAME,...", value_delimiter = ',', default_value = "lossy-10")]
    profile: Vec<String>,
    /// More profiles, in a file of the same form as the built-in ones
    #[arg(long, value_name = "FILE")]
    profiles: Option<PathBuf>,
    /// Say which profiles there are
    #[arg(long)]
    list: bool,
    /// What carries the connections
    #[arg(long, value_enum, value_name = "MODE,...", value_delimiter = ',', default_values_t = [Mode::Quic])]
    transport: Vec<Mode>,
    /// Congestion control of kernel TCP
    #[arg(long, value_enum, value_name = "NAME,...", value_delimiter = ',', default_values_t = [Congestion::Cubic])]
    congestion: Vec<Congestion>,
    /// What is said on each connection
    #[arg(long, value_enum, default_value_t = Offer::Standard)]
    load: Offer,
    /// Links
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=2000))]
    clients: u32,
    /// For how long each direction talks
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: u32,
    /// How long everyone talks before anything counts
    #[arg(long, value_name = "SECONDS", default_value_t = 4)]
    warm_up: u32,
    /// Seeds of what happens on the links; figures are of all runs together
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "1")]
    seeds: Vec<u64>,
    /// Apps tell their clients when the address has changed
    #[arg(long)]
    hint: bool,
    /// Run a standard set instead
    #[arg(long, value_enum, conflicts_with_all = ["profile", "transport", "congestion", "load"])]
    suite: Option<Suite>,
    /// Measure starts instead: from connecting to the first message
    #[arg(long, conflicts_with = "suite")]
    starts: bool,
    /// Check the testbed itself instead: that links do what profiles say
    #[arg(long, value_enum, num_args = 0..=1, default_missing_value = "small")]
    selfcheck: Option<CheckSize>,
    /// Write all figures to FILE
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write tables and plots to FILE, as one page
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    #[command(flatten)]
    server: ServerArgs,
}

/// What carries the messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Edgeway over QUIC
    Quic,
    /// Edgeway over its TCP fallback
    Tcp,
    /// Edgeway over QUIC, without repair copies
    QuicNorepair,
    /// One TLS connection over TCP and no priorities, without Edgeway
    PlainTcp,
    /// Edgeway over whichever of QUIC and TCP answers first
    Auto,
}

impl Mode {
    pub fn name(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::Tcp => "tcp",
            Self::QuicNorepair => "quic-norepair",
            Self::PlainTcp => "plain-tcp",
            Self::Auto => "auto",
        }
    }

    fn transport(self) -> TransportChoice {
        match self {
            Self::Quic | Self::QuicNorepair => TransportChoice::Quic,
            Self::Tcp | Self::PlainTcp => TransportChoice::Tcp,
            Self::Auto => TransportChoice::Auto,
        }
    }

    fn is_tcp(self) -> bool {
        matches!(self, Self::Tcp | Self::PlainTcp)
    }
}

/// Of kernel TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Congestion {
    Cubic,
    Bbr,
}

impl Congestion {
    fn name(self) -> &'static str {
        match self {
            Self::Cubic => "cubic",
            Self::Bbr => "bbr",
        }
    }
}

/// How much of the testbed is checked.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum CheckSize {
    /// Some seconds
    Small,
    /// 100,000 packets
    Full,
}

/// Runs whose figures belong together: they differ in their seed only.
#[derive(Debug, Clone)]
struct Group {
    profile: String,
    mode: Mode,
    congestion: Congestion,
    offer: Offer,
    clients: u32,
    seconds: u32,
    seeds: Vec<u64>,
    hint: bool,
}

/// To be called before any thread is started.
pub fn run(args: &Args) -> Result<ExitCode> {
    let profiles = Profiles::load(args.profiles.as_deref())?;
    if args.list {
        profiles.iter().for_each(|profile| println!("{:<20} {}", profile.name, profile.reason));
        return Ok(ExitCode::SUCCESS);
    }
    netns::become_root()?;
    if let Some(size) = args.selfcheck {
        return selfcheck(size);
    }
    if args.starts {
        return starts_of(args, &profiles);
    }
    let mut found = Vec::new();
    for group in groups(args) {
        let all = measure(args, &group, &profiles)?;
        all.say();
        found.push(all);
        // After each, so that what was measured is not lost with what comes.
        write(args, &found)?;
    }
    Ok(ExitCode::from(u8::from(found.iter().any(|one| !one.is_sound()))))
}

fn starts_of(args: &Args, profiles: &Profiles) -> Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    for profile in &args.profile {
        for mode in args.transport.iter().copied().filter(|mode| *mode != Mode::PlainTcp) {
            let one = starts::run(args, profiles.get(profile)?, mode)?;
            if one != ExitCode::SUCCESS {
                code = one;
            }
        }
    }
    Ok(code)
}

fn groups(args: &Args) -> Vec<Group> {
    if let Some(suite) = args.suite {
        return suite.groups();
    }
    let mut groups = Vec::new();
    for profile in &args.profile {
        for mode in args.transport.iter().copied() {
            // QUIC has no kernel TCP.
            let count = if mode.is_tcp() { args.congestion.len() } else { 1 };
            for congestion in args.congestion.iter().copied().take(count) {
                groups.push(Group {
                    profile: profile.clone(),
                    mode,
                    congestion,
                    offer: args.load,
                    clients: args.clients,
                    seconds: args.seconds,
                    seeds: args.seeds.clone(),
                    hint: args.hint,
                });
            }
        }
    }
    groups
}

fn measure(args: &Args, group: &Group, profiles: &Profiles) -> Result<Found> {
    let mut found = Found::new(group, args.warm_up);
    for seed in group.seeds.iter().copied() {
        let spec = Spec {
            profile: profiles.get(&group.profile)?.clone(),
            mode: group.mode,
            congestion: group.congestion.name(),
            offer: group.offer,
            clients: group.clients,
            talks: Duration::from_secs(group.seconds.into()),
            warm_up: Duration::from_secs(args.warm_up.into()),
            seed,
            hint: group.hint,
        };
        let outcome = run::run(spec, &args.server)
            .with_context(|| format!("{} over {}", group.profile, group.mode.name()))?;
        found.add(&outcome);
    }
    Ok(found)
}

fn write(args: &Args, found: &[Found]) -> Result<()> {
    if let Some(path) = &args.json {
        fs::write(path, serde_json::to_string_pretty(found)? + "\n")
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    if let Some(path) = &args.html {
        fs::write(path, html::page(found)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn selfcheck(size: CheckSize) -> Result<ExitCode> {
    let mut verdicts = core::check(1);
    let size = match size {
        CheckSize::Small => wire::Size::SMALL,
        CheckSize::Full => wire::Size::FULL,
    };
    verdicts.extend(wire::check(size, 1)?);
    verdicts.iter().for_each(|verdict| println!("{verdict}"));
    let failed = verdicts.iter().filter(|verdict| !verdict.held).count();
    println!("{failed} of {} did not hold", verdicts.len());
    Ok(ExitCode::from(u8::from(failed > 0)))
}
