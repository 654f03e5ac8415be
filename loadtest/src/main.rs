//! Load, and the floors to compare it with.
#![allow(clippy::print_stdout, clippy::print_stderr)] // a program for the terminal

mod audit;
mod busy;
mod child;
mod dispatch;
mod drive;
mod fleet;
mod floor;
mod history;
mod http;
mod idle;
mod joins;
mod load;
mod logins;
mod median;
mod nats;
#[cfg_attr(not(target_os = "linux"), allow(dead_code))] // time lines are of the testbed
mod plot;
mod procstat;
mod push;
mod report;
mod room;
mod server;
mod settle;
mod stamp;
mod target;
mod tls;
#[cfg(target_os = "linux")]
mod weak;
#[cfg(target_os = "linux")]
#[allow(dead_code)] // the testbed is whole; a scenario needs parts of it
mod weaknet;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Measures Edgeway, and what the same work costs elsewhere.
///
/// Each scenario starts the server it measures as a child process, puts load on it, checks what
/// every receiver got (nothing lost, nothing twice, one order), reads CPU and memory of the server
/// from /proc, prints a summary and, with --json FILE, writes the same as one JSON object.
///
/// Measure on a quiet machine: a build beside a measurement moves p99 by 100 ms. The load average
/// at the start is part of the report.
#[derive(Parser)]
#[command(version, max_term_width = 100, after_long_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    scenario: Scenario,
}

const EXAMPLES: &str = "\
Examples:
  A class of 500 who all speak at once every second, half over QUIC and half over TCP:
      loadtest room --members 500 --rate 1 --burst --size 100 --secs 20 --transport mixed
  The same over QUIC, five times, beside what bare QUIC needs for the same bytes:
      loadtest room --burst --floor --repeat 5
  Ten of them stop reading for 30 s:
      loadtest room --burst --secs 60 --strokes 50 --stall 10
  What 10,000 idle members cost, and what bare QUIC needs for as many:
      loadtest idle --connections 10000 --floor
  10,000 members a second who come and go in a room of 50 and in one of 50,000, with Redis:
      loadtest joins --members 50,50000 --rate 10000 --store redis
  One user who joins 300 rooms of 500 in one call:
      loadtest joins --many 300 --members 500
  Whether 50 logins by password a second hold signals up:
      loadtest logins --logins 50
  5,000 messages a second that business systems push into 1,000 rooms, for 30 s:
      loadtest push --rate 5000 --rooms 1000 --secs 30
  A class of 500 who all speak at once every second, on a bare QUIC server:
      loadtest floor --members 500 --rate 1 --burst --size 100 --secs 20
  What 10,000 idle connections cost a bare QUIC server:
      loadtest floor --idle --connections 10000
  The same burst through nats-server with TLS:
      loadtest nats --nats-server /usr/local/bin/nats-server --burst
  What the embedded store and a Redis append and read, 5,000 messages a second:
      loadtest history --appends 5000
  What keeping chat costs a class of 500 who chat:
      loadtest history --compare-chat --store embedded
  What dispatch answers on one core, 10,000 requests a second, each on a connection of its own:
      loadtest dispatch --rate 10000 --fresh
  Links that lose 10%, over QUIC and over plain TCP, with plots:
      loadtest weaknet --profile lossy-10 --transport quic,plain-tcp --html weak.html

Exit status: 0 it held, 1 it did not (messages lost, twice, out of order; server failed), 2 wrong use.";

#[derive(Subcommand)]
enum Scenario {
    Room(Box<room::Args>),
    Idle(Box<idle::Args>),
    Joins(Box<joins::Args>),
    Logins(Box<logins::Args>),
    Push(Box<push::Args>),
    Floor(floor::Args),
    Nats(nats::Args),
    History(Box<history::Args>),
    Dispatch(Box<dispatch::Args>),
    #[cfg(target_os = "linux")]
    Weaknet(Box<weak::Args>),
    #[cfg(target_os = "linux")]
    #[command(hide = true, name = weak::sides::EXEC_COMMAND)]
    WeaknetExec(weak::sides::ExecArgs),
    #[command(hide = true, name = floor::SERVER_COMMAND)]
    FloorServer(floor::server::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env()
                .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn")),
        )
        .with_writer(std::io::stderr)
        .init();
    let outcome = match cli.scenario {
        Scenario::Room(args) => room::run(*args),
        Scenario::Idle(args) => idle::run(*args),
        Scenario::Joins(args) => joins::run(*args),
        Scenario::Logins(args) => logins::run(*args),
        Scenario::Push(args) => push::run(*args),
        Scenario::Floor(args) => floor::run(args),
        Scenario::Nats(args) => nats::run(args),
        Scenario::History(args) => history::run(&args),
        Scenario::Dispatch(args) => dispatch::run(*args),
        #[cfg(target_os = "linux")]
        Scenario::Weaknet(args) => weak::run(&args),
        #[cfg(target_os = "linux")]
        Scenario::WeaknetExec(args) => weak::sides::exec(&args),
        Scenario::FloorServer(args) => floor::server::run(args),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("loadtest: {error:#}");
        ExitCode::from(1)
    })
}
