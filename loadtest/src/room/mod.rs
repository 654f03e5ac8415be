//! Rooms whose members all talk: the whole path of a message through real clients and a real
//! server, every delivery checked.

mod compare;
mod history;
mod members;
mod receive;
mod run;
mod send;
mod shared;
mod stall;

use std::{fs, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, Result};

use self::{compare::Compared, run::Ran};
use crate::{
    fleet::Mix,
    load::{Load, Output},
    plot,
    report::Report,
    server::ServerArgs,
    target::TargetArgs,
};
pub use history::History;

/// A room in which everyone talks, and signals among the chat
///
/// Every member sends and receives what all send, its own messages included. Each delivery is
/// checked: nothing lost, nothing twice, the order of each sender, and one order for all members,
/// whatever gateway or transport they are on. What the room's policy shed (by the acks of the
/// senders) and what single connections missed (by the gaps that clients are told of) must add up
/// with what was delivered to exactly what was sent.
///
/// The room's policy is off unless --policy-on is given, so that all chat is delivered.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    load: Load,
    /// Rooms, each with --members of its own
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rooms: u32,
    /// What carries the connections
    #[arg(long, value_enum, default_value_t = Mix::Quic)]
    transport: Mix,
    /// Signals a second in all, at random times and from random members
    #[arg(long, value_name = "N", default_value_t = 10.0, value_parser = rate)]
    signals: f64,
    /// Whiteboard strokes a second in all, likewise
    #[arg(long, value_name = "N", default_value_t = 0.0, value_parser = rate)]
    strokes: f64,
    /// The room passes on all chat; this is the default
    #[arg(long, conflicts_with = "policy_on")]
    policy_off: bool,
    /// The room passes on as much chat a second as it does by default, and sheds the rest
    #[arg(long)]
    policy_on: bool,
    /// UDP sockets that the clients share
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1024))]
    sockets: u32,
    /// Talk for 3 s before measuring
    #[arg(long)]
    warmup: bool,
    /// Send only signals for the first SECONDS, to compare their latency with that among chat
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    alone: u32,
    /// So many members stop reading in the middle, and read again later
    #[arg(long, value_name = "N", default_value_t = 0)]
    stall: u32,
    /// For how long they stop
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    stall_secs: u32,
    /// Measure so often, each time with a server and connections of its own; counts add up, and
    /// comparisons are the median
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    repeat: u32,
    /// After each run also measure the floor: a bare QUIC server that moves the same bytes
    #[arg(long)]
    floor: bool,
    /// With --floor: messages that its server writes at once; by default what the gateway is
    /// seen to write at once, or what comes within 20 ms
    #[arg(long, value_name = "N", requires = "floor", value_parser = clap::value_parser!(u32).range(1..))]
    batch: Option<u32>,
    /// After each run also measure nats-server with TLS on the same chat
    #[arg(long, value_name = "PATH")]
    nats: Option<PathBuf>,
    /// Draw the latencies of each class: .svg
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    output: Output,
    /// Where chat with and without its history is compared.
    #[arg(skip)]
    history: Option<History>,
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(n) if n == 0.0 || (0.001..=100_000.0).contains(&n) => Ok(n),
        _ => Err("0, or a number from 0.001 to 100000, is wanted".to_owned()),
    }
}

impl Args {
    /// Chat, and signals among it, on a server of its own.
    pub fn of_chat(
        load: Load,
        rooms: u32,
        transport: Mix,
        server: ServerArgs,
        history: History,
    ) -> Self {
        Self {
            load,
            rooms,
            transport,
            signals: 10.0,
            strokes: 0.0,
            policy_off: true,
            policy_on: false,
            sockets: 8,
            warmup: true,
            alone: 0,
            stall: 0,
            stall_secs: 0,
            repeat: 1,
            floor: false,
            batch: None,
            nats: None,
            plot: None,
            target: TargetArgs::of_own(server),
            output: Output::default(),
            history: Some(history),
        }
    }

    /// What does not go together.
    fn wrong(&self) -> Option<&'static str> {
        let compared = self.floor || self.nats.is_some();
        if self.floor && self.transport != Mix::Quic {
            Some("--floor is bare QUIC: it goes with --transport quic only")
        } else if compared && self.rooms > 1 {
            Some("--floor and --nats compare one room: they do not go with --rooms")
        } else if self.stall > 0 && self.stall_secs + 2 > self.load.secs {
            Some("--stall needs --secs to be at least 2 more than --stall-secs")
        } else if self.stall >= self.load.members {
            Some("--stall must leave members that read: it must be less than --members")
        } else if self.stall > 0 && self.rooms > 1 {
            Some("--stall looks at one room: it does not go with --rooms")
        } else if self.policy_on && self.target.is_foreign() {
            Some("--policy-on is for a server of its own: with --server its config decides")
        } else {
            None
        }
    }

    /// From the first message to the last.
    fn duration(&self) -> Duration {
        self.alone() + self.load.duration()
    }

    fn alone(&self) -> Duration {
        Duration::from_secs(self.alone.into())
    }
}

/// Runs the load once and adds what came of it to the report.
pub async fn once(args: &Args, report: &mut Report) -> Result<Ran> {
    run::once(args, report).await
}

pub fn run(args: Args) -> Result<ExitCode> {
    if let Some(wrong) = args.wrong() {
        eprintln!("loadtest: {wrong}");
        return Ok(ExitCode::from(2));
    }
    tokio::runtime::Runtime::new()?.block_on(scenario(args))
}

async fn scenario(args: Args) -> Result<ExitCode> {
    let mut report = Report::new("room", args.transport.name());
    report.members = args.load.members;
    report.rooms = args.rooms;
    report.connections = args.load.members * args.rooms;
    report.secs = args.load.secs;
    report.seed = args.load.seed;
    report.detail("burst", args.load.burst);
    report.detail("policy", if args.policy_on { "on" } else { "off" });
    let mut compared = Compared::default();
    for _ in 0..args.repeat {
        let ran = run::once(&args, &mut report).await?;
        compared.measure(&args, &ran, &mut report).await?;
    }
    compared.report(&mut report);
    if let Some(path) = &args.plot {
        let all = report.latencies.iter().filter(|(_, all)| !all.is_empty());
        let all: Vec<_> =
            all.map(|(class, all)| plot::Distribution::of_histogram(*class, all)).collect();
        let svg = plot::latency_distribution("One-way latency, call to callback", &all, &[])?;
        fs::write(path, svg).with_context(|| format!("cannot write {}", path.display()))?;
    }
    report.finish(&args.output)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn wrong(line: &str) -> Option<&'static str> {
        let words = ["room"].into_iter().chain(line.split_whitespace());
        Line::try_parse_from(words).unwrap().args.wrong()
    }

    #[test]
    fn what_does_not_go_together_is_told() {
        for (line, expected) in [
            ("--floor --transport tcp", "bare QUIC"),
            ("--floor --rooms 2", "one room"),
            ("--nats nats-server --rooms 2", "one room"),
            ("--stall 1", "--secs"),
            ("--stall 3 --members 3 --secs 60", "less than --members"),
            ("--stall 1 --rooms 2 --secs 60", "one room"),
            ("--policy-on --server localhost:4433", "its config"),
        ] {
            assert!(wrong(line).is_some_and(|said| said.contains(expected)), "{line}");
        }
        for line in ["", "--floor", "--stall 1 --secs 40", "--server a:1,b:2 --pid 1,2,3"] {
            assert_eq!(wrong(line), None, "{line}");
        }
    }
}
