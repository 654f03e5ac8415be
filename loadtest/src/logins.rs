//! Logins by password beside a room in which everyone signals: whether checking passwords holds signals up.

use std::{
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use bytes::Bytes;
use edgeway_backend::auth::PasswordHash;
use edgeway_client::{Client, ClientConfig, Connector, Event, Events, Login, TransportChoice};
use hdrhistogram::Histogram;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};

use crate::{
    drive,
    fleet::room_name,
    load::{Load, Output},
    median::median,
    procstat::{self, Meter},
    report::{Latency, write_json},
    server::ServerArgs,
    stamp::Clock,
    target::{Target, TargetArgs},
};

const PASSWORD: &str = "correct horse";
/// Users who log in and leave again, in turn.
const USERS: u32 = 100;
/// Latencies are counted up to this, in microseconds.
const LONGEST_US: u64 = 60_000_000;
/// Not counted at the ends of a phase, so that nothing of one is in the other.
const APART: Duration = Duration::from_millis(500);
/// With logins the p99 may be so much more: what runs of the same differ by.
const NOISE: f64 = 1.15;
const NOISE_MS: f64 = 1.0;

/// Whether checking passwords holds signals up: their latency with and without logins beside them
///
/// Members of one room signal all the time. In turn nobody logs in, and so many users a second do, each by password
/// on a connection of its own. It does not hold where a login fails, a signal is missing, or the median of the p99 is
/// more with logins than without by more than 15% and a millisecond.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Logins a second
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    logins: u32,
    /// Members of the room; half of them over QUIC
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    members: u32,
    /// Signals that each member sends a second
    #[arg(long, value_name = "N", default_value_t = 2.0, value_parser = crate::load::positive)]
    rate: f64,
    /// Seconds of a phase
    #[arg(long, value_name = "SECONDS", default_value_t = 20, value_parser = clap::value_parser!(u32).range(2..=3600))]
    secs: u32,
    /// Phases without and with logins
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    repeat: u32,
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    output: Output,
}

/// The JSON object.
#[derive(Debug, Default, Serialize)]
struct Report {
    scenario: &'static str,
    members: u32,
    signals_per_second: f64,
    logins_per_second: u32,
    secs: u32,
    cores: usize,
    load_average_at_start: Option<f64>,
    /// In turn.
    without: Vec<Phase>,
    with: Vec<Phase>,
    /// Of the medians of the p99, with against without.
    p99_ratio: Option<f64>,
    problems: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Phase {
    signals: u64,
    latency_ms: Latency,
    server_cpu_cores: f64,
    logins: u64,
    login_ms: Latency,
}

pub fn run(args: Args) -> Result<ExitCode> {
    tokio::runtime::Runtime::new()?.block_on(scenario(args))
}

async fn scenario(args: Args) -> Result<ExitCode> {
    let mut report = Report {
        scenario: "logins",
        members: args.members,
        signals_per_second: f64::from(args.members) * args.rate,
        logins_per_second: args.logins,
        secs: args.secs,
        cores: std::thread::available_parallelism().map_or(0, usize::from),
        load_average_at_start: procstat::load_average(),
        ..Report::default()
    };
    let mut target =
        Target::open_with(&TargetArgs::of_own(args.server.clone()), true, &config(&args)?).await?;
    let bench = Arc::new(Bench::new(&target)?);
    let room: Arc<str> = room_name(0).into();
    let members = drive::connect_all(args.members, |n| {
        let (bench, room) = (Arc::clone(&bench), Arc::clone(&room));
        async move {
            let (client, events) = bench.connect(n, format!("member-{n}")).await?;
            let joined = client.join(&room).await.context("cannot join")?;
            Ok((client, events, joined))
        }
    })
    .await?;
    let phases = args.repeat * 2;
    let load = Load {
        members: args.members,
        rate: args.rate,
        burst: false,
        size: 8,
        secs: args.secs * phases,
        seed: 0,
    };
    let began = Instant::now() + APART;
    let mut speaking = JoinSet::new();
    let mut clients = Vec::new();
    for (n, (client, events, room)) in members.into_iter().enumerate() {
        tokio::spawn(listen(events, Arc::clone(&bench)));
        let mut ticks = load.ticks(u32::try_from(n).unwrap_or(u32::MAX), began);
        let bench = Arc::clone(&bench);
        speaking.spawn(async move {
            while ticks.next().await.is_some() {
                let sent = Bytes::copy_from_slice(&bench.clock.now_ns().to_be_bytes());
                room.send_signal_nowait(sent).context("a signal")?;
                bench.sent.fetch_add(1, Relaxed);
            }
            Ok::<_, anyhow::Error>(())
        });
        clients.push(client);
    }
    let bar = drive::bar(phases.into(), "phases");
    for phase in 0..phases {
        let from = began + Duration::from_secs((args.secs * phase).into());
        let found = bench.phase(&args, &target, from, phase % 2 == 1).await?;
        if phase % 2 == 1 {
            report.with.push(found)
        } else {
            report.without.push(found)
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    while let Some(result) = speaking.join_next().await {
        result.context("a sender stopped")??;
    }
    let expected = u64::from(bench.sent.load(Relaxed)) * u64::from(args.members);
    let end = Instant::now() + Duration::from_secs(10);
    while bench.delivered() < expected && Instant::now() < end {
        tokio::time::sleep(APART).await;
    }
    let delivered = bench.delivered();
    if delivered != expected {
        report.problems.push(format!("of {expected} deliveries of signals {delivered} came"));
    }
    let failed = bench.failed.load(Relaxed);
    if failed > 0 {
        report.problems.push(format!("{failed} logins failed"));
    }
    drop(clients);
    target.check()?;
    target.close().await?;
    decide(&mut report);
    finish(&report, &args.output)
}

/// Users by password: members, and those who come and go.
fn config(args: &Args) -> Result<String> {
    let hash = PasswordHash::new(PASSWORD.as_bytes()).context("cannot hash")?;
    let members = (0..args.members).map(|n| format!("member-{n} = \"{hash}\"\n"));
    let users = (0..USERS).map(|n| format!("user-{n} = \"{hash}\"\n"));
    let users: String = members.chain(users).collect();
    Ok(format!("\n[auth]\nmode = \"passwords\"\n\n[auth.users]\n{users}"))
}

/// What the tasks share.
struct Bench {
    clock: Clock,
    connectors: [Connector; 2],
    gateway: crate::target::Gateway,
    /// 0: not counted; 1: without logins, or with.
    counting: AtomicU8,
    signals: Mutex<Histogram<u64>>,
    logins: Mutex<Histogram<u64>>,
    sent: AtomicU32,
    delivered: Mutex<u64>,
    failed: AtomicU32,
}

impl Bench {
    fn new(target: &Target) -> Result<Self> {
        let histogram = || Histogram::new_with_bounds(1, LONGEST_US, 3).map(Mutex::new);
        Ok(Self {
            clock: Clock::start(),
            connectors: [Connector::new(&target.trust)?, Connector::new(&target.trust)?],
            gateway: target.gateways.first().context("no gateway")?.clone(),
            counting: AtomicU8::new(0),
            signals: histogram()?,
            logins: histogram()?,
            sent: AtomicU32::new(0),
            delivered: Mutex::new(0),
            failed: AtomicU32::new(0),
        })
    }

    /// Number `n`, by QUIC and by TCP in turn.
    async fn connect(&self, n: u32, user: String) -> Result<(Client, Events)> {
        let quic = n.is_multiple_of(2);
        let (addr, transport) = match quic {
            true => (&self.gateway.quic, TransportChoice::Quic),
            false => (&self.gateway.tcp, TransportChoice::Tcp),
        };
        let login = Login::Password { user, password: PASSWORD.to_owned() };
        let config = ClientConfig {
            transport,
            agent: "loadtest".to_owned(),
            ..ClientConfig::new(addr, login)
        };
        let connector = &self.connectors[usize::from(quic)];
        Client::connect_through(connector, config).await.context("cannot log in")
    }

    fn delivered(&self) -> u64 {
        *self.delivered.lock()
    }

    async fn phase(
        self: &Arc<Self>,
        args: &Args,
        target: &Target,
        from: Instant,
        logins: bool,
    ) -> Result<Phase> {
        let until = from + Duration::from_secs(args.secs.into());
        sleep_until(from).await;
        let mut users = JoinSet::new();
        let every = Duration::from_secs(1) / args.logins;
        let (mut next, mut n) = (from, 0);
        let mut meter = None;
        self.signals.lock().reset();
        self.logins.lock().reset();
        while Instant::now() < until - APART {
            if meter.is_none() && from.elapsed() >= APART {
                self.counting.store(1, Relaxed);
                meter = Some(Meter::start(&target.pids)?);
            }
            if logins {
                let bench = Arc::clone(self);
                users.spawn(async move { bench.log_in(n).await });
                n += 1;
            }
            while users.try_join_next().is_some() {}
            next += every;
            sleep_until(next).await;
        }
        self.counting.store(0, Relaxed);
        let used = meter.context("a phase is too short")?.used()?;
        let signals = self.signals.lock().clone();
        while users.join_next().await.is_some() {}
        let logins = self.logins.lock().clone();
        Ok(Phase {
            signals: signals.len(),
            latency_ms: Latency::of(&signals),
            server_cpu_cores: used.cores(),
            logins: logins.len(),
            login_ms: Latency::of(&logins),
        })
    }

    async fn log_in(&self, n: u32) {
        let began = Instant::now();
        match self.connect(n, format!("user-{}", n % USERS)).await {
            Ok((client, _events)) => {
                self.record(&self.logins, began.elapsed());
                client.close().await;
            }
            Err(error) => {
                tracing::warn!("{error:#}");
                self.failed.fetch_add(1, Relaxed);
            }
        }
    }

    fn record(&self, histogram: &Mutex<Histogram<u64>>, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        histogram.lock().saturating_record(us.max(1));
    }
}

async fn listen(mut events: Events, bench: Arc<Bench>) {
    loop {
        let batch = events.next_batch(64).await;
        if batch.is_empty() {
            return;
        }
        let now = bench.clock.now_ns();
        for event in batch {
            let Event::Message(message) = event else { continue };
            let Ok(sent) = message.payload[..].try_into().map(u64::from_be_bytes) else { continue };
            *bench.delivered.lock() += 1;
            if bench.counting.load(Relaxed) != 0 {
                bench.record(&bench.signals, Duration::from_nanos(now.saturating_sub(sent)));
            }
        }
    }
}

fn decide(report: &mut Report) {
    let p99 = |phases: &[Phase]| median(phases.iter().map(|phase| phase.latency_ms.p99).collect());
    let (Some(without), Some(with)) = (p99(&report.without), p99(&report.with)) else { return };
    report.p99_ratio = Some(with / without.max(0.001));
    if with > without * NOISE && with > without + NOISE_MS {
        report
            .problems
            .push(format!("the p99 of signals is {with:.1} ms with logins, {without:.1} without"));
    }
}

fn finish(report: &Report, output: &Output) -> Result<ExitCode> {
    for (name, phases) in [("without", &report.without), ("with", &report.with)] {
        for phase in phases {
            let Phase { signals, latency_ms: of, server_cpu_cores: cores, logins, login_ms } =
                phase;
            eprintln!(
                "  {name:<8} {signals} signals, p50 {:.1} p99 {:.1} max {:.1} ms, {cores:.2} cores; {logins} logins, p50 {:.0} p99 {:.0} ms",
                of.p50, of.p99, of.max, login_ms.p50, login_ms.p99
            );
        }
    }
    if let Some(ratio) = report.p99_ratio {
        eprintln!("  p99      {ratio:.2} times with logins");
    }
    report.problems.iter().for_each(|problem| eprintln!("  problem  {problem}"));
    write_json(report, output)?;
    Ok(ExitCode::from(u8::from(!report.problems.is_empty())))
}
