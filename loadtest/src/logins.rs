//! Logins beside a room in which everyone signals: whether checking passwords holds signals up.

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
use edgeway_backend::auth::{Algorithm, Claims, PasswordHash, SigningKey};
use edgeway_client::{Client, ClientConfig, Connector, Event, Events, Login, TransportChoice};
use hdrhistogram::Histogram;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};

use crate::{
    busy::{self, Busy},
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
/// Signs the tokens of a run.
const SECRET: &str = "a secret for the tokens of one run";
const KID: &str = "loadtest";
/// For how long a token is good: longer than any run.
const TOKEN_SECS: u64 = 7 * 24 * 3600;
/// Users who log in and leave again, in turn.
const USERS: u32 = 100;
/// Latencies are counted up to this, in microseconds.
const LONGEST_US: u64 = 60_000_000;
/// Not counted at the ends of a phase, so that nothing of one is in the other.
const APART: Duration = Duration::from_millis(500);
/// With passwords the p99 may be so much more: what runs of the same differ by.
const NOISE: f64 = 1.15;
const NOISE_MS: f64 = 1.0;

/// Whether checking passwords holds signals up: their latency without logins, with tokens, with passwords
///
/// Members of one room signal all the time. In turn nobody logs in, so many users a second do by token, as many by token
/// while this program counts to nothing for as long as a check of a password takes, and as many by password, each on a
/// connection of its own. Connections cost both ends their TLS, which share the cores here, and cores that are busy in
/// the least priority cost something by themselves on many machines; what the checks cost is what they differ by from
/// that. It does not hold where a login fails, a signal is missing, or the median of the p99 is more with passwords than
/// beside the counting by more than 15% and a millisecond.
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
    /// Phases of each kind
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
    tokens: Vec<Phase>,
    busy: Vec<Phase>,
    passwords: Vec<Phase>,
    /// Of a core's time, what a check of a password takes with nothing beside.
    check_ms: f64,
    /// Of the medians of the p99: passwords against tokens beside busy cores.
    p99_ratio: Option<f64>,
    /// Passwords against tokens.
    p99_ratio_to_tokens: Option<f64>,
    /// Tokens against no logins.
    p99_ratio_of_tokens: Option<f64>,
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

/// What happens in a phase beside the signals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Logins {
    None,
    Tokens,
    /// By token, and for each as much work of the least priority in this program as a check takes.
    Busy,
    Passwords,
}

const KINDS: [Logins; 4] = [Logins::None, Logins::Tokens, Logins::Busy, Logins::Passwords];

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
        Target::open_with(&TargetArgs::of_own(args.server.clone()), true, &config()?).await?;
    let check = check_takes()?;
    report.check_ms = check.as_secs_f64() * 1000.0;
    let bench = Arc::new(Bench::new(&target, check)?);
    let room: Arc<str> = room_name(0).into();
    let members = drive::connect_all(args.members, |n| {
        let (bench, room) = (Arc::clone(&bench), Arc::clone(&room));
        async move {
            let login = bench.login(Logins::Tokens, format!("member-{n}"))?;
            let (client, events) = bench.connect(n, login).await?;
            let joined = client.join(&room).await.context("cannot join")?;
            Ok((client, events, joined))
        }
    })
    .await?;
    let phases = args.repeat * u32::try_from(KINDS.len())?;
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
    for (phase, logins) in (0..phases).zip(KINDS.into_iter().cycle()) {
        let from = began + Duration::from_secs((args.secs * phase).into());
        let found = bench.phase(&args, &target, from, logins).await?;
        match logins {
            Logins::None => report.without.push(found),
            Logins::Tokens => report.tokens.push(found),
            Logins::Busy => report.busy.push(found),
            Logins::Passwords => report.passwords.push(found),
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

/// The least of five, of a thread of its own: the first ones warm up.
fn check_takes() -> Result<Duration> {
    let hash = PasswordHash::new(PASSWORD.as_bytes()).context("cannot hash")?;
    let times = (0..5).map(|_| {
        let began = busy::used();
        std::hint::black_box(hash.verify(PASSWORD.as_bytes()));
        busy::used() - began
    });
    times.min().context("no check")
}

/// Who comes and goes has a password; anyone may have a token.
fn config() -> Result<String> {
    let hash = PasswordHash::new(PASSWORD.as_bytes()).context("cannot hash")?;
    let users: String = (0..USERS).map(|n| format!("user-{n} = \"{hash}\"\n")).collect();
    let key = format!("{KID} = {{ alg = \"HS256\", key = \"{SECRET}\" }}");
    Ok(format!(
        "\n[auth]\nmode = [\"passwords\", \"tokens\"]\n\n[auth.users]\n{users}\n[auth.tokens.keys]\n{key}\n"
    ))
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
    key: SigningKey,
    busy: Busy,
    /// What a check of a password takes.
    check: Duration,
}

impl Bench {
    fn new(target: &Target, check: Duration) -> Result<Self> {
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
            key: SigningKey::new(Algorithm::Hs256, SECRET.as_bytes())?,
            busy: Busy::start(std::thread::available_parallelism().map_or(1, usize::from))?,
            check,
        })
    }

    /// Number `n`, by QUIC and by TCP in turn.
    async fn connect(&self, n: u32, login: Login) -> Result<(Client, Events)> {
        let quic = n.is_multiple_of(2);
        let (addr, transport) = match quic {
            true => (&self.gateway.quic, TransportChoice::Quic),
            false => (&self.gateway.tcp, TransportChoice::Tcp),
        };
        let config = ClientConfig {
            transport,
            agent: "loadtest".to_owned(),
            ..ClientConfig::new(addr, login)
        };
        let connector = &self.connectors[usize::from(quic)];
        Client::connect_through(connector, config).await.context("cannot log in")
    }

    fn login(&self, logins: Logins, user: String) -> Result<Login> {
        if logins == Logins::Passwords {
            return Ok(Login::Password { user, password: PASSWORD.to_owned() });
        }
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
        let claims = Claims {
            sub: user.clone(),
            exp: now.as_secs() + TOKEN_SECS,
            nbf: None,
            iss: None,
            aud: None,
            rooms: None,
            speak: None,
            rights: None,
        };
        Ok(Login::Token { user, token: self.key.sign(KID, &claims)?.into() })
    }

    fn delivered(&self) -> u64 {
        *self.delivered.lock()
    }

    async fn phase(
        self: &Arc<Self>,
        args: &Args,
        target: &Target,
        from: Instant,
        logins: Logins,
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
            if logins == Logins::Busy {
                self.busy.take(self.check);
            }
            if logins != Logins::None {
                let login = self.login(logins, format!("user-{}", n % USERS))?;
                let bench = Arc::clone(self);
                users.spawn(async move { bench.log_in(n, login).await });
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

    async fn log_in(&self, n: u32, login: Login) {
        let began = Instant::now();
        match self.connect(n, login).await {
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
    let (Some(without), Some(tokens)) = (p99(&report.without), p99(&report.tokens)) else { return };
    let (Some(busy), Some(passwords)) = (p99(&report.busy), p99(&report.passwords)) else { return };
    report.p99_ratio = Some(passwords / busy.max(0.001));
    report.p99_ratio_to_tokens = Some(passwords / tokens.max(0.001));
    report.p99_ratio_of_tokens = Some(tokens / without.max(0.001));
    if passwords > busy * NOISE && passwords > busy + NOISE_MS {
        report.problems.push(format!(
            "the p99 of signals is {passwords:.1} ms with passwords, {busy:.1} with tokens beside cores that are as busy"
        ));
    }
}

fn finish(report: &Report, output: &Output) -> Result<ExitCode> {
    let all = [
        ("without", &report.without),
        ("tokens", &report.tokens),
        ("busy", &report.busy),
        ("passwords", &report.passwords),
    ];
    for (name, phases) in all {
        for phase in phases {
            let Phase { signals, latency_ms: of, server_cpu_cores: cores, logins, login_ms } =
                phase;
            eprintln!(
                "  {name:<9} {signals} signals, p50 {:.1} p99 {:.1} max {:.1} ms, {cores:.2} cores; {logins} logins, p50 {:.0} p99 {:.0} ms",
                of.p50, of.p99, of.max, login_ms.p50, login_ms.p99
            );
        }
    }
    if let (Some(passwords), Some(to_tokens), Some(tokens)) =
        (report.p99_ratio, report.p99_ratio_to_tokens, report.p99_ratio_of_tokens)
    {
        eprintln!(
            "  p99       with passwords {passwords:.2} times that of tokens beside cores as busy, {to_tokens:.2} times that of tokens; tokens {tokens:.2} times that of no logins"
        );
    }
    report.problems.iter().for_each(|problem| eprintln!("  problem  {problem}"));
    write_json(report, output)?;
    Ok(ExitCode::from(u8::from(!report.problems.is_empty())))
}
