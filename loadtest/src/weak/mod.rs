//! Weak networks: the real gateway and real clients over emulated links, beside what an app has
//! without them.

mod found;
mod html;
mod offer;
mod page;
mod plain;
mod record;
mod returns;
mod rows;
mod run;
mod sdk;
mod share;
pub mod sides;
mod starts;
mod task;

use std::{fs, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use edgeway_client::TransportChoice;
use serde::Serialize;

use self::{
    found::Found,
    offer::Offer,
    rows::{Limits, Results, Suite, Verdict},
    run::Spec,
    starts::From,
    task::{Measured, Size},
};
use crate::{
    server::ServerArgs,
    weaknet::{
        capacity, netns,
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
    /// Kinds of network, lossy-10 if none is given; see --list. With --row and --suite: only these
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    profile: Vec<String>,
    /// More profiles, in a file of the same form as the built-in ones
    #[arg(long, value_name = "FILE")]
    profiles: Option<PathBuf>,
    /// Say which profiles there are
    #[arg(long)]
    list: bool,
    /// What carries the connections, quic if none is given. With --row and --suite: only these
    #[arg(long, value_enum, value_name = "MODE,...", value_delimiter = ',')]
    transport: Vec<Mode>,
    /// Congestion control of kernel TCP
    #[arg(long, value_enum, value_name = "NAME,...", value_delimiter = ',', default_values_t = [Congestion::Cubic])]
    congestion: Vec<Congestion>,
    /// What is said on each connection
    #[arg(long, value_enum, default_value_t = Offer::Standard)]
    load: Offer,
    /// Links, 60 if not given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=2000))]
    clients: Option<u32>,
    /// For how long each direction talks, 30 if not given
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: Option<u32>,
    /// How long everyone talks before anything counts, 4 if not given
    #[arg(long, value_name = "SECONDS")]
    warm_up: Option<u32>,
    /// Seeds of what happens on the links, 1 if not given; figures are of all runs together
    #[arg(long, value_name = "N,...", value_delimiter = ',')]
    seeds: Option<Vec<u64>>,
    /// Apps tell their clients when the address has changed
    #[arg(long)]
    hint: bool,
    /// Measure these rows of the table of targets instead, and say what is held
    #[arg(long, value_name = "N,...", value_delimiter = ',', conflicts_with_all = ["congestion", "load", "hint"], value_parser = clap::value_parser!(u8).range(1..=14))]
    row: Vec<u8>,
    /// Measure every row, or those of --row: with so many samples (full if not given)
    #[arg(long, value_enum, conflicts_with_all = ["congestion", "load", "hint"])]
    suite: Option<Suite>,
    /// Exit with 0 also where a row is missed
    #[arg(long)]
    report_only: bool,
    /// Measure starts instead: from nothing, or from a connection given up, to the first message
    #[arg(long, value_enum, num_args = 0..=1, default_missing_value = "cold", conflicts_with_all = ["suite", "row"])]
    starts: Option<From>,
    /// Measure instead how many packets a second the testbed carries on this machine
    #[arg(long)]
    capacity: bool,
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
    hint: bool,
    size: Size,
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
    if args.capacity {
        return say_capacity();
    }
    if args.suite.is_some() || !args.row.is_empty() {
        return rows_of(args, &profiles);
    }
    if let Some(from) = args.starts {
        return starts_of(args, &profiles, from);
    }
    let mut found = Vec::new();
    for group in groups(args) {
        let all = measure(&args.server, &group, &profiles)?;
        all.say();
        found.push(all);
        // After each, so that what was measured is not lost with what comes.
        args.write_json(&found)?;
        args.write_html(&found.iter().collect::<Vec<_>>(), &[])?;
    }
    Ok(ExitCode::from(u8::from(found.iter().any(|one| !one.is_sound()))))
}

/// The table of targets, or some rows of it.
fn rows_of(args: &Args, profiles: &Profiles) -> Result<ExitCode> {
    let asked = |number: u8| args.row.is_empty() || args.row.contains(&number);
    let rows = rows::all().into_iter().filter(|row| asked(row.number));
    let rows: Vec<_> = rows.map(|row| row.only(&args.profile, &args.transport)).collect();
    let planned = rows::plan(&rows, args.suite.unwrap_or(Suite::Full), &args.limits());
    let mut results = Results::new();
    let mut failed = Vec::new();
    for (n, (task, size)) in planned.iter().enumerate() {
        let minutes = rows::duration(&planned[n..]).as_secs().div_ceil(60);
        println!("\n{} of {}, about {minutes} min left: {task}", n + 1, planned.len());
        // The others are measured all the same: hours of them are not lost for one.
        match task.measure(size, profiles, &args.server) {
            Ok(measured) => {
                measured.say();
                results.push((*task, measured));
            }
            Err(error) => {
                println!("failed: {error:#}");
                failed.push(format!("{error:#}"));
            }
        }
        args.write_rows(&results, &rows::judge(&rows, &results), &failed)?;
    }
    let verdicts = rows::judge(&rows, &results);
    rows::say(&verdicts);
    let unsound = results.iter().filter(|(_, one)| !one.is_sound());
    let unsound: Vec<_> = unsound.map(|(task, _)| task.to_string()).collect();
    if !unsound.is_empty() {
        println!(
            "the testbed was late or dropped packets, or there were problems: {}",
            unsound.join("; ")
        );
    }
    failed.iter().for_each(|error| println!("failed: {error}"));
    let missed = verdicts.iter().any(|verdict| verdict.held == Some(false));
    let bad = !failed.is_empty() || !args.report_only && (missed || !unsound.is_empty());
    Ok(ExitCode::from(u8::from(bad)))
}

fn starts_of(args: &Args, profiles: &Profiles, from: From) -> Result<ExitCode> {
    let mut all = Vec::new();
    for profile in args.profiles_or_default() {
        for mode in args.modes_or_default() {
            ensure!(mode != Mode::PlainTcp, "plain TCP has no rooms to start in");
            let profile = profiles.get(&profile)?;
            let one = starts::run(profile, mode, from, &args.size(), &args.server)?;
            one.say();
            all.push(one);
            args.write_json(&all)?;
        }
    }
    Ok(ExitCode::from(u8::from(all.iter().any(|one| one.failed > 0))))
}

fn say_capacity() -> Result<ExitCode> {
    for step in capacity::measure()? {
        println!("{step}");
    }
    Ok(ExitCode::SUCCESS)
}

fn groups(args: &Args) -> Vec<Group> {
    let mut groups = Vec::new();
    for profile in args.profiles_or_default() {
        for mode in args.modes_or_default() {
            // QUIC has no kernel TCP.
            let count = if mode.is_tcp() { args.congestion.len() } else { 1 };
            for congestion in args.congestion.iter().copied().take(count) {
                groups.push(Group {
                    profile: profile.clone(),
                    mode,
                    congestion,
                    offer: args.load,
                    hint: args.hint,
                    size: args.size(),
                });
            }
        }
    }
    groups
}

impl Args {
    fn profiles_or_default(&self) -> Vec<String> {
        if self.profile.is_empty() { vec!["lossy-10".to_owned()] } else { self.profile.clone() }
    }

    fn modes_or_default(&self) -> Vec<Mode> {
        if self.transport.is_empty() { vec![Mode::Quic] } else { self.transport.clone() }
    }

    fn size(&self) -> Size {
        Size {
            clients: self.clients.unwrap_or(60),
            seconds: self.seconds.unwrap_or(30),
            warm_up: self.warm_up.unwrap_or(4),
            seeds: self.seeds.clone().unwrap_or_else(|| vec![1]),
        }
    }

    fn limits(&self) -> Limits {
        Limits {
            clients: self.clients,
            seconds: self.seconds,
            warm_up: self.warm_up,
            seeds: self.seeds.clone(),
        }
    }

    fn write_json(&self, all: &impl Serialize) -> Result<()> {
        let Some(path) = &self.json else { return Ok(()) };
        fs::write(path, serde_json::to_string_pretty(all)? + "\n")
            .with_context(|| format!("cannot write {}", path.display()))
    }

    fn write_html(&self, found: &[&Found], verdicts: &[Verdict]) -> Result<()> {
        let Some(path) = &self.html else { return Ok(()) };
        fs::write(path, html::page(found, verdicts)?)
            .with_context(|| format!("cannot write {}", path.display()))
    }

    fn write_rows(&self, results: &Results, verdicts: &[Verdict], failed: &[String]) -> Result<()> {
        #[derive(Serialize)]
        struct All<'a> {
            rows: &'a [Verdict],
            measured: Vec<&'a Measured>,
            /// What could not be measured, and why.
            failed: &'a [String],
        }
        let measured: Vec<_> = results.iter().map(|(_, measured)| measured).collect();
        let talks = measured.iter().filter_map(|one| match one {
            Measured::Talk(found) => Some(&**found),
            _ => None,
        });
        self.write_html(&talks.collect::<Vec<_>>(), verdicts)?;
        self.write_json(&All { rows: verdicts, measured, failed })
    }
}

fn measure(server: &ServerArgs, group: &Group, profiles: &Profiles) -> Result<Found> {
    let mut found = Found::new(group);
    for seed in group.size.seeds.iter().copied() {
        let spec = Spec {
            profile: profiles.get(&group.profile)?.clone(),
            mode: group.mode,
            congestion: group.congestion.name(),
            offer: group.offer,
            clients: group.size.clients,
            talks: Duration::from_secs(group.size.seconds.into()),
            warm_up: Duration::from_secs(group.size.warm_up.into()),
            seed,
            hint: group.hint,
        };
        let outcome = run::run(spec, server)
            .with_context(|| format!("{} over {}", group.profile, group.mode.name()))?;
        found.add(&outcome);
    }
    Ok(found)
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
