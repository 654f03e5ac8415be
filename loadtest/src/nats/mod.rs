//! The same burst through nats-server with TLS, for comparison.

mod client;

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use anyhow::{Context, Result};
use bytes::BytesMut;
use edgeway_certs::DevCerts;
use edgeway_proto::Class;
use tempfile::TempDir;
use tokio::{
    net::TcpStream,
    process::Command,
    task::JoinSet,
    time::{Instant, sleep},
};

use self::client::{Receiver, Sender};
use crate::{
    audit::{Audit, Whole},
    child::{self, Child},
    drive,
    load::{Load, Output},
    procstat,
    report::Report,
    server::free_tcp_port,
    stamp::{self, Stamp},
    tls,
};

/// The subject that all members publish and subscribe to.
const SUBJECT: &str = "room";

/// What nats-server with TLS needs for the same burst
///
/// Every member is a connection that subscribes to one subject and publishes to it. To get the
/// server: go install github.com/nats-io/nats-server/v2@latest
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The nats-server program
    #[arg(long, value_name = "PATH", default_value = "nats-server")]
    nats_server: PathBuf,
    #[command(flatten)]
    load: Load,
    #[command(flatten)]
    output: Output,
}

pub fn run(args: Args) -> Result<ExitCode> {
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(of_burst(&args.nats_server, &args.load))?.finish(&args.output)
}

/// What `program` needs for a burst.
pub async fn of_burst(program: &Path, load: &Load) -> Result<Report> {
    let mut report = Report::new("nats", "tcp");
    let dir = TempDir::with_prefix("loadtest-nats-").context("no temporary directory")?;
    let certs = tls::certs(dir.path())?;
    let addr = free_tcp_port()?;
    let server = start(program, addr, &certs, dir.path()).await?;
    let at_start = procstat::rss_bytes(server.pid())?;
    let tls = Arc::new(tls::tcp_client(&certs.ca_pem)?);
    let connections = drive::connect_all(load.members, |_| {
        let tls = Arc::clone(&tls);
        async move { client::connect(addr, tls, SUBJECT).await }
    })
    .await?;

    let audit = Audit::new();
    let mut receivers = JoinSet::new();
    let mut clients = Vec::with_capacity(connections.len());
    for (sender, receiver) in connections {
        receivers.spawn(receive(receiver, Arc::clone(&audit), load.members));
        clients.push(sender);
    }
    let expected = load.messages() * u64::from(load.members);
    let progress = Whole { audit: &audit, expected };
    let cost = drive::measure(&progress, &[server.pid()], load.duration(), |start| {
        let mut senders = JoinSet::new();
        for (member, client) in (0..).zip(&clients) {
            senders.spawn(send(client.clone(), Arc::clone(&audit), load.clone(), member, start));
        }
        senders
    })
    .await?;
    let rss_bytes = procstat::rss_bytes(server.pid())?;
    receivers.shutdown().await;
    server.stop().await?;

    report.members = load.members;
    report.connections = load.members;
    report.secs = load.secs;
    report.seed = load.seed;
    report.deliveries(&[(&audit, load.members.into())], 0);
    report.cost(cost.server, cost.generator, rss_bytes, at_start);
    report.detail("burst", load.burst);
    Ok(report)
}

/// Starts the server and waits until it takes connections.
async fn start(program: &Path, addr: SocketAddr, certs: &DevCerts, dir: &Path) -> Result<Child> {
    let config = dir.join("nats.conf");
    let text = format!(
        "listen: \"{addr}\"\nmax_connections: 100000\n\
         tls {{\n  cert_file: {:?}\n  key_file: {:?}\n  timeout: 20\n}}\n",
        certs.cert_path, certs.key_path
    );
    fs::write(&config, text).with_context(|| format!("cannot write {}", config.display()))?;
    let mut command = Command::new(program);
    command.arg("--config").arg(&config);
    let log = dir.join("nats.log");
    let mut child = Child::start("nats-server", command, &log)
        .context("--nats-server must name the program; go install github.com/nats-io/nats-server/v2@latest makes it")?;
    let deadline = Instant::now() + child::READY;
    while TcpStream::connect(addr).await.is_err() {
        child::with_log(child.check(), &log)?;
        anyhow::ensure!(Instant::now() < deadline, "nats-server takes no connections");
        sleep(std::time::Duration::from_millis(20)).await;
    }
    Ok(child)
}

async fn send(
    client: Sender,
    audit: Arc<Audit>,
    load: Load,
    member: u32,
    start: Instant,
) -> Result<()> {
    let filler = stamp::filler(load.size, load.seed ^ u64::from(member));
    let mut ticks = load.ticks(member, start);
    while let Some(n) = ticks.next().await {
        audit.sent(Class::Chat);
        let mut payload = BytesMut::with_capacity(load.size);
        Stamp { sender: member, n, sent_ns: audit.clock.now_ns() }.write(&mut payload, &filler);
        client.write(&client::publish(SUBJECT, &payload.freeze())).await?;
    }
    Ok(())
}

async fn receive(mut receiver: Receiver, audit: Arc<Audit>, members: u32) -> Result<()> {
    let mut audited = audit.receiver(0, members as usize);
    loop {
        receiver
            .read(|payload| {
                if let Some(stamp) = Stamp::read(payload) {
                    // NATS promises no order over several senders, so none is checked.
                    audited.delivered(Class::Chat, None, stamp, audit.clock.now_ns());
                }
            })
            .await?;
        audited.flush();
    }
}
