//! What joins cost: members who come and go by the thousand, and one user who joins hundreds of rooms.

mod churn;
mod crowd;
mod door;
mod many;
mod redis;
mod site;

use std::process::ExitCode;

use anyhow::Result;
use clap::ValueEnum;

use crate::{load::Output, report::Report, server::ServerArgs};

/// Where joins come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Where {
    /// The gRPC door of access, as a gateway does: members come and go, pipelined
    Access,
    /// A gateway, by the SDK: one user joins many rooms in one call
    Gateway,
}

/// Where rooms live when their owner does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    Embedded,
    Redis,
}

/// Joins and leaves: how many a second, what each costs, and how long hundreds at once take
///
/// At the door of access (--door access, the default) a room has --members who stay, and guests
/// join and leave it --rate times a second, each leave sent as soon as its join is answered.
/// Everything is pipelined over one link. The latency of a join is from when it was due to its
/// answer, so that a server that falls behind is not spared. With several --members, such as
/// 50,50000, each is measured with a server of its own, and the CPU of a join is compared: it must
/// not grow by more than --ratio.
///
/// At a gateway (--door gateway, or --many) one user joins --many rooms of --members each, in one
/// call of the SDK, --repeat times by another user each. It must take less than --within-ms, and the
/// presence of the rooms must neither be told more than once or twice nor all at the same moment.
/// With --store redis the commands that the joins cost are reported, by Redis's own account.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Where joins come in [default: access; gateway with --many]
    #[arg(long, value_enum)]
    door: Option<Where>,
    /// Members who stay in each room; several numbers are measured one after the other
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "500", value_parser = clap::value_parser!(u32).range(1..=99_000))]
    members: Vec<u32>,
    /// Rooms that the guests come to
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rooms: u32,
    /// Joins a second, each followed by its leave
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: u32,
    /// For how long guests come
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    secs: u32,
    /// Guests, each a user of its own; where all are in or on their way, joins come late
    #[arg(long, value_name = "N", default_value_t = 4000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    guests: u32,
    /// How much more CPU a join may cost with the most --members than with the fewest
    #[arg(long, value_name = "TIMES", default_value_t = 1.3)]
    ratio: f64,
    /// Rooms that one user joins in one call [default: 300]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    many: Option<u32>,
    /// How often, by another user each
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    repeat: u32,
    /// How long the call may take
    #[arg(long, value_name = "MS", default_value_t = 500)]
    within_ms: u32,
    /// The store; of redis a server of its own is started, unless --redis names one
    #[arg(long, value_enum, default_value_t = Kind::Embedded)]
    store: Kind,
    /// The Redis that runs already: redis://HOST:PORT. What is written there stays, under keys that begin
    /// with `loadtest-`
    #[arg(long, value_name = "URL")]
    redis: Option<String>,
    /// Use a backend that runs already, with the roles access and room, by its gRPC address
    #[arg(long, value_name = "HOST:PORT", conflicts_with_all = ["edgeway", "store", "redis"])]
    backend: Option<String>,
    /// With --backend: process ids of all its processes on this machine, for CPU
    #[arg(long, value_name = "PID,...", value_delimiter = ',', requires = "backend")]
    pid: Vec<u32>,
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    output: Output,
}

impl Args {
    fn at_gateway(&self) -> bool {
        self.door == Some(Where::Gateway) || self.many.is_some()
    }

    /// What does not go together.
    fn wrong(&self) -> Option<&'static str> {
        if self.many.is_some() && self.door == Some(Where::Access) {
            Some("--many is one call of the SDK: it goes with --door gateway")
        } else if self.at_gateway() && self.backend.is_some() {
            Some("--backend names the door of access: it does not go with --door gateway or --many")
        } else if self.at_gateway() && self.members.len() > 1 {
            Some("--many takes one number of --members")
        } else if self.redis.is_some() && self.store != Kind::Redis {
            Some("--redis names a server: it goes with --store redis")
        } else {
            None
        }
    }

    /// The name of the store in reports.
    fn store(&self) -> &'static str {
        match (self.store, &self.backend) {
            (_, Some(_)) => "unknown",
            (Kind::Redis, None) => "redis",
            (Kind::Embedded, None) => "embedded",
        }
    }
}

pub fn run(args: Args) -> Result<ExitCode> {
    if let Some(wrong) = args.wrong() {
        eprintln!("loadtest: {wrong}");
        return Ok(ExitCode::from(2));
    }
    tokio::runtime::Runtime::new()?.block_on(scenario(args))
}

async fn scenario(args: Args) -> Result<ExitCode> {
    let report =
        if args.at_gateway() { many::measure(&args).await? } else { churn::measure(&args).await? };
    report.finish(&args.output)
}

/// The beginning of a report of either kind.
fn report(args: &Args, transport: &str) -> Report {
    let mut report = Report::new("joins", transport);
    report.detail("store", args.store());
    report
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

    fn args(line: &str) -> Args {
        let words = ["joins"].into_iter().chain(line.split_whitespace());
        Line::try_parse_from(words).unwrap().args
    }

    #[test]
    fn what_does_not_go_together_is_told() {
        for (line, expected) in [
            ("--many 300 --door access", "--door gateway"),
            ("--many 300 --backend a:1", "--backend"),
            ("--door gateway --members 5,6", "one number"),
            ("--redis redis://a:1", "--store redis"),
        ] {
            assert!(args(line).wrong().is_some_and(|said| said.contains(expected)), "{line}");
        }
        for line in ["", "--members 50,50000", "--many 300", "--store redis --redis redis://a:1"] {
            assert_eq!(args(line).wrong(), None, "{line}");
        }
        assert!(args("--many 7").at_gateway() && !args("--door access").at_gateway());
    }
}
