//! The floor: what QUIC itself costs. A bare quinn server, in a process of its own, moves the
//! bytes that a room moves, in the same batches and over as many sockets; or it holds idle
//! connections. There are no rooms, no sequence numbers, no credit and no history.

mod burst;
mod endpoint;
mod idle;
pub mod server;
mod wire;

use std::{env, net::SocketAddr, process::ExitCode};

use anyhow::{Context, Result};
use tempfile::TempDir;
use tokio::process::Command;

use crate::{
    child::{self, Child},
    load::{Load, Output},
    procstat,
    report::Report,
    tls,
};

/// Name of the hidden command that is the server.
pub const SERVER_COMMAND: &str = "floor-server";

/// What a Deliver frame takes besides its payload, names of 12 bytes included.
const DELIVER_OVERHEAD: usize = 40;

/// Batch interval in milliseconds: that of a room's chat.
const BATCH_MS: u64 = 20;

/// More than any header takes.
const MAX_OVERHEAD: usize = 1024;

/// What a bare quinn server needs for the same work: the limit to compare `room` and `idle` with
///
/// Every member sends, and the server gathers what comes within the batch
/// interval (20 ms, the chat batch of a room) and writes it to every connection's unidirectional
/// stream, encoded once and shared. With --idle: every connection opens the two streams that an
/// Edgeway client in one room has, exchanges a small message on each, and is silent.
///
/// QUIC settings, TLS and socket buffers are those of Edgeway's own transport.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    load: Load,
    /// Bytes of a message with its frame on the way down; by default the payload and 40, about
    /// what a Deliver frame takes
    #[arg(long, value_name = "BYTES")]
    frame_bytes: Option<usize>,
    #[command(flatten)]
    batching: Batching,
    /// UDP sockets that the clients share
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1024))]
    sockets: u32,
    /// Hold idle connections instead
    #[arg(long)]
    idle: bool,
    /// With --idle: connections to hold
    #[arg(long, value_name = "N", default_value_t = 10_000, requires = "idle", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    connections: u32,
    #[command(flatten)]
    output: Output,
}

/// When the server passes on what it has gathered.
#[derive(clap::Args, Debug, Clone)]
pub struct Batching {
    /// Pass on at most once in this time; the first message after a pause goes at once
    #[arg(long, value_name = "MS", default_value_t = BATCH_MS)]
    batch_ms: u64,
    /// Pass on every N messages instead, whenever they come, each batch written by itself
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    batch: Option<u32>,
    /// Also pass on so many messages a second at once, to everyone: the signals of a room
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1000))]
    signals: u32,
}

impl Args {
    /// Bytes that a frame adds to the payload on the way down.
    fn overhead(&self) -> Result<usize> {
        let Some(frame_bytes) = self.frame_bytes else { return Ok(DELIVER_OVERHEAD) };
        let overhead = frame_bytes.checked_sub(self.load.size);
        overhead.filter(|n| (wire::MIN_OVERHEAD..=MAX_OVERHEAD).contains(n)).with_context(|| {
            format!(
                "--frame-bytes must be the size of the payload ({}) and {} to {MAX_OVERHEAD} bytes",
                self.load.size,
                wire::MIN_OVERHEAD
            )
        })
    }
}

pub fn run(args: Args) -> Result<ExitCode> {
    let overhead = match args.overhead() {
        Ok(overhead) => overhead,
        Err(error) => {
            eprintln!("loadtest: {error}");
            return Ok(ExitCode::from(2));
        }
    };
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let measured = if args.idle {
            idle::run(&args, overhead).await
        } else {
            burst::run(&args, overhead).await
        };
        measured?.finish(&args.output)
    })
}

/// The floor of a burst whose frames have `frame_bytes` on the way down.
pub async fn of_burst(
    load: &Load,
    frame_bytes: Option<usize>,
    batch: Option<u32>,
    signals: u32,
    sockets: u32,
) -> Result<Report> {
    let batching = Batching { batch_ms: BATCH_MS, batch, signals };
    let (load, output) = (load.clone(), Output::default());
    let args = Args { load, frame_bytes, batching, sockets, idle: false, connections: 0, output };
    burst::run(&args, args.overhead()?).await
}

/// The floor of idle connections, looked at for `load.secs`.
pub async fn of_idle(load: Load, connections: u32, sockets: u32) -> Result<Report> {
    let batching = Batching { batch_ms: BATCH_MS, batch: None, signals: 0 };
    let output = Output::default();
    let args = Args { load, frame_bytes: None, batching, sockets, idle: true, connections, output };
    idle::run(&args, args.overhead()?).await
}

/// The bare server's process.
struct FloorServer {
    child: Child,
    addr: SocketAddr,
    ca_pem: String,
    dir: TempDir,
}

impl FloorServer {
    async fn start(args: &Args, overhead: usize) -> Result<Self> {
        let dir = TempDir::with_prefix("loadtest-floor-").context("no temporary directory")?;
        let certs = tls::certs(dir.path())?;
        let mut command = Command::new(env::current_exe()?);
        command.arg(SERVER_COMMAND).arg("--certs").arg(dir.path());
        command.arg("--overhead").arg(overhead.to_string());
        command.arg("--batch-ms").arg(args.batching.batch_ms.to_string());
        if let Some(batch) = args.batching.batch {
            command.arg("--batch").arg(batch.to_string());
        }
        command.arg("--signals").arg(args.batching.signals.to_string());
        if args.idle {
            command.arg("--idle");
        }
        let log = dir.path().join("stderr.log");
        let mut child = Child::start("the bare server", command, &log)?;
        let addr = child::with_log(child.line(server::READY).await, &log)?;
        let addr = addr.parse().context("the bare server said no address")?;
        Ok(Self { child, addr, ca_pem: certs.ca_pem, dir })
    }

    fn pid(&self) -> u32 {
        self.child.pid()
    }

    fn rss_bytes(&self) -> Result<u64> {
        procstat::rss_bytes(self.pid())
    }

    /// Ends it; what it did.
    async fn stop(mut self) -> Result<server::Summary> {
        self.child.close_stdin();
        let log = self.dir.path().join("stderr.log");
        let summary = child::with_log(self.child.line(server::SUMMARY).await, &log)?;
        self.child.stop().await?;
        serde_json::from_str(&summary).context("the bare server's summary")
    }
}
