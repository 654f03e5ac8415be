//! History: what the stores append and read, and what keeping chat costs those who chat.

mod append;
mod chat;
mod check;
mod logs;
mod phases;
mod read;
mod stores;

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::ValueEnum;
use edgeway_backend::store::RedisUrl;

use crate::{
    fleet::Mix,
    load::{self, Output},
    report::Report,
    server::ServerArgs,
};

/// What history takes and gives, and what keeping chat costs those who chat
///
/// Without --compare-chat the stores themselves are measured, in this process and as a backend uses
/// them: each core has one commit under way, and what comes meanwhile makes up the next. In turn for
/// each store:
///
///   fill    messages are appended as fast as they are taken, so that logs have a beginning
///   append  --appends a second, over all logs at random
///   reads   the same, while pages of 200 are read from the beginning, the middle and the end of logs
///   max     as many as it takes, in commits of --batch
///
/// The latency of an append is from the message's coming to the answer that it is stored, the wait for
/// the commit before it included. At the end every log is read through: each entry there, once, in order.
///
/// With --compare-chat rooms of real clients talk through a real `edgeway up`, by turns with `history.chat`
/// on and off; the p99 of chat may not be more than --most times what it is without. That all chat is
/// stored, or none of it, is checked.
#[derive(clap::Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Which stores, in this order
    #[arg(
        long,
        value_enum,
        value_name = "STORE,...",
        value_delimiter = ',',
        default_value = "embedded,redis"
    )]
    store: Vec<Kind>,
    /// The Redis or Valkey server; by default one is started that keeps a log on disk. What is
    /// written there is removed at the end
    #[arg(long, value_name = "URL", value_parser = redis_url)]
    redis: Option<String>,
    /// What an append survives: on a Redis of its own, appendfsync everysec or always
    #[arg(long, value_enum, default_value_t = Keeps::Process)]
    sync: Keeps,
    /// Directory for the embedded store; by default that of the system for what is temporary
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Logs: as many rooms
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    logs: u32,
    /// Messages appended a second, over all logs
    #[arg(long, value_name = "N", default_value_t = 5000.0, value_parser = rate)]
    appends: f64,
    /// Bytes of a message's payload
    #[arg(long, value_name = "BYTES", default_value_t = 100, value_parser = load::payload_size)]
    size: usize,
    /// For how long each phase lasts; of a comparison, each run
    #[arg(long, value_name = "SECONDS", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    secs: u32,
    /// Messages in each log before anything is measured
    #[arg(long, value_name = "N", default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    fill: u32,
    /// Pages read a second; 0 for no reads
    #[arg(long, value_name = "N", default_value_t = 200.0, value_parser = rate_or_none)]
    reads: f64,
    /// For how long appends go as fast as they can; 0 for not at all
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u32).range(0..=600))]
    max_secs: u32,
    /// Messages of a commit while appends go as fast as they can
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=16_384))]
    batch: u32,
    /// Commits under way at a time; by default as a backend has them: one a core
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    shards: Option<u32>,
    /// Seed of everything random
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Measure chat with its history on and off instead
    #[arg(long)]
    compare_chat: bool,
    /// Draw the latencies of appends: .svg
    #[arg(long, value_name = "FILE", conflicts_with = "compare_chat")]
    plot: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    talk: Talk,
}

/// Who talks in a comparison.
#[derive(clap::Args, Debug)]
#[command(next_help_heading = "With --compare-chat")]
struct Talk {
    /// Members of each room
    #[arg(long, value_name = "N", default_value_t = 500, requires = "compare_chat", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    members: u32,
    /// Rooms
    #[arg(long, value_name = "N", default_value_t = 1, requires = "compare_chat", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rooms: u32,
    /// Messages that each member sends a second
    #[arg(long, value_name = "N", default_value_t = 1.0, requires = "compare_chat", value_parser = load::positive)]
    rate: f64,
    /// All members send at the same instant
    #[arg(long, requires = "compare_chat")]
    burst: bool,
    /// What carries the connections
    #[arg(long, value_enum, default_value_t = Mix::Quic, requires = "compare_chat")]
    transport: Mix,
    /// Runs with history on and as many with it off, by turns; the medians are compared
    #[arg(long, value_name = "N", default_value_t = 5, requires = "compare_chat", value_parser = clap::value_parser!(u32).range(1..=100))]
    repeat: u32,
    /// How many times the p99 of chat without history it may be with it
    #[arg(long, value_name = "TIMES", default_value_t = 1.5, requires = "compare_chat", value_parser = load::positive)]
    most: f64,
    #[command(flatten)]
    server: ServerArgs,
}

/// A store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    Embedded,
    Redis,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Redis => "redis",
        }
    }
}

/// As `history.sync` has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Keeps {
    /// The death of the process
    Process,
    /// The loss of power
    Disk,
}

fn redis_url(text: &str) -> Result<String, &'static str> {
    RedisUrl::parse(text).map(|_| text.to_owned())
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(n) if (0.1..=10_000_000.0).contains(&n) => Ok(n),
        _ => Err("a number from 0.1 to 10000000 is wanted".to_owned()),
    }
}

fn rate_or_none(text: &str) -> Result<f64, String> {
    if text == "0" { Ok(0.0) } else { rate(text).map_err(|wanted| format!("0, or {wanted}")) }
}

impl Args {
    /// What does not go together.
    fn wrong(&self) -> Option<&'static str> {
        if self.redis.is_some() && !self.store.contains(&Kind::Redis) {
            Some("--redis names a server, and --store does not have redis")
        } else if self.redis.is_some() && self.sync == Keeps::Disk {
            Some("--sync disk is for a Redis of its own: with --redis its config decides")
        } else if self.shards.is_some_and(|shards| shards > self.logs) {
            Some("--shards must not be more than --logs: each has logs of its own")
        } else {
            None
        }
    }
}

pub fn run(args: &Args) -> Result<ExitCode> {
    if let Some(wrong) = args.wrong() {
        eprintln!("loadtest: {wrong}");
        return Ok(ExitCode::from(2));
    }
    tokio::runtime::Runtime::new()?.block_on(scenario(args))
}

async fn scenario(args: &Args) -> Result<ExitCode> {
    let transport = if args.compare_chat { args.talk.transport.name() } else { "none" };
    let mut report = Report::new("history", transport);
    report.secs = args.secs;
    report.seed = args.seed;
    if args.compare_chat {
        chat::compare(args, &mut report).await?;
    } else {
        phases::measure(args, &mut report).await?;
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

    fn parse(line: &str) -> Result<Args, String> {
        let words = ["history"].into_iter().chain(line.split_whitespace());
        Line::try_parse_from(words).map(|line| line.args).map_err(|error| error.to_string())
    }

    #[test]
    fn what_does_not_go_together_is_told() {
        for (line, expected) in [
            ("--store embedded --redis redis://localhost", "--store does not have redis"),
            ("--redis redis://localhost --sync disk", "its config"),
            ("--logs 2 --shards 3", "--shards"),
        ] {
            let wrong = parse(line).unwrap().wrong();
            assert!(wrong.is_some_and(|said| said.contains(expected)), "{line}: {wrong:?}");
        }
        for line in ["", "--store redis --redis redis://localhost", "--compare-chat --members 9"] {
            assert_eq!(parse(line).unwrap().wrong(), None, "{line}");
        }
    }

    #[test]
    fn what_is_no_value_is_told() {
        for (line, expected) in [
            ("--redis localhost:6379", "redis://"),
            ("--store disk", "embedded, redis"),
            ("--members 9", "--compare-chat"),
            ("--appends 0", "0.1"),
            ("--reads some", "0, or a number"),
            ("--size 1", "bytes are wanted"),
            ("--compare-chat --plot a.svg", "cannot be used with"),
        ] {
            let told = parse(line).unwrap_err();
            assert!(told.contains(expected), "{line}: {told}");
        }
    }
}
