//! What business systems push into rooms by HTTP: how long until members have it, and whether each request has one effect.

use std::{
    net::SocketAddr,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::{Context, Result, bail};
use edgeway_client::{Client, Event, Events, Room};
use hdrhistogram::Histogram;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};

use crate::{
    drive,
    fleet::{Fleet, Mix, room_name},
    http::Asker,
    load::Output,
    procstat,
    report::{Latency, write_json},
    server::ServerArgs,
    stamp::Clock,
    target::{Target, TargetArgs},
};

/// Latencies are counted up to this, in microseconds.
const LONGEST_US: u64 = 60_000_000;
/// A request that is not answered by then is not.
const PATIENCE: Duration = Duration::from_secs(10);
/// UDP sockets of all clients.
const SOCKETS: u32 = 4;
/// Problems that are told whole.
const TOLD: usize = 5;

/// What business systems push into rooms: latency to the clients, and one effect for each request
///
/// Requests come at their rate whether or not answers do, each a signal to one of the rooms in turn, with an
/// Idempotency-Key of its own. Every so many come twice. Latency is from when a request was due to the callback of a
/// member. It does not hold where a request fails, a message is missing or comes twice to a member, or the p99 is what
/// --p99-ms says or more.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Requests a second
    #[arg(long, value_name = "N", default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: u32,
    /// For how long
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    secs: u32,
    /// Rooms, in turn
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rooms: u32,
    /// Clients, half of them over QUIC
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    clients: u32,
    /// Members of each room
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=200))]
    members: u32,
    /// Connections that requests come over
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    connections: u32,
    /// Every so many requests come twice; 0 for none
    #[arg(long, value_name = "N", default_value_t = 100)]
    repeat_every: u32,
    /// Milliseconds, below which the p99 of the latency has to be
    #[arg(long, value_name = "MS", default_value_t = 100.0, value_parser = crate::load::positive)]
    p99_ms: f64,
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    output: Output,
}

/// The JSON object.
#[derive(Debug, Default, Serialize)]
struct Report {
    scenario: &'static str,
    rooms: u32,
    clients: u32,
    members_of_a_room: u32,
    wanted_per_second: u32,
    secs: u32,
    cores: usize,
    load_average_at_start: Option<f64>,
    requests: u64,
    failed: u64,
    /// Of those, how many came a second time.
    repeats: u64,
    /// Repeats that were answered as what they are.
    repeats_known: u64,
    expected: u64,
    delivered: u64,
    lost: u64,
    /// To a member, of one request.
    duplicated: u64,
    /// From when a request was due to a member's callback.
    latency_ms: Latency,
    /// From when a request was due to its answer.
    answer_ms: Latency,
    server_cpu_cores: f64,
    server_cpu_us_per_request: f64,
    generator_cpu_cores: f64,
    problems: Vec<String>,
}

pub fn run(args: Args) -> Result<ExitCode> {
    if args.members > args.clients {
        bail!(
            "--members is {}: a room cannot have more than the {} clients",
            args.members,
            args.clients
        );
    }
    tokio::runtime::Runtime::new()?.block_on(scenario(args))
}

async fn scenario(args: Args) -> Result<ExitCode> {
    let mut report = Report {
        scenario: "push",
        rooms: args.rooms,
        clients: args.clients,
        members_of_a_room: args.members,
        wanted_per_second: args.rate,
        secs: args.secs,
        cores: std::thread::available_parallelism().map_or(0, usize::from),
        load_average_at_start: procstat::load_average(),
        ..Report::default()
    };
    let key = edgeway_push::make_key().context("no random numbers for an API key")?;
    let config = format!(
        "\n[push.keys.load]\nhash = \"{}\"\nscopes = [\"send\"]\nper_second = 1000000\n",
        key.hash
    );
    let mut target =
        Target::open_with(&TargetArgs::of_own(args.server.clone()), true, &config).await?;
    let bench = Arc::new(Bench::new(&args, &target, key.key)?);
    let clients = connect(&args, &target, &bench).await?;
    let duration = Duration::from_secs(args.secs.into());
    let cost = drive::measure(&*bench, &target.pids, duration, |began| {
        let mut senders = JoinSet::new();
        for n in 0..args.connections {
            let (bench, connections) = (Arc::clone(&bench), args.connections);
            senders.spawn(async move { bench.send(began, n, connections).await });
        }
        senders
    })
    .await?;
    drop(clients);
    target.check()?;
    target.close().await?;
    report.server_cpu_cores = cost.server.cores();
    report.server_cpu_us_per_request = cost.server.cpu_us_each(bench.requests.into());
    report.generator_cpu_cores = cost.generator.cores();
    bench.tell(&mut report);
    finish(&report, &args.output)
}

/// Clients who are in their rooms: room `r` has the clients from `r * members` on, around the circle of them.
async fn connect(
    args: &Args,
    target: &Target,
    bench: &Arc<Bench>,
) -> Result<Vec<(Client, Vec<Room>)>> {
    let fleet = Fleet::new(target, Mix::Mixed, SOCKETS)?;
    let (rooms, members, clients) = (args.rooms, args.members, args.clients);
    drive::connect_all(clients, |n| {
        let (connecting, bench) = (fleet.connect(n), Arc::clone(bench));
        async move {
            let (client, events) = connecting.await?;
            let mut joined = Vec::new();
            for room in 0..rooms {
                let first = u64::from(room) * u64::from(members);
                let place = (u64::from(n) + u64::from(clients) - first % u64::from(clients))
                    % u64::from(clients);
                if place < u64::from(members) {
                    let name = &bench.rooms[room as usize];
                    let room = client.join(name).await;
                    joined.push(room.with_context(|| format!("cannot join {name}"))?);
                }
            }
            tokio::spawn(listen(events, bench));
            Ok((client, joined))
        }
    })
    .await
}

/// What the tasks share.
struct Bench {
    clock: Clock,
    http: SocketAddr,
    key: String,
    rooms: Vec<String>,
    rate: u32,
    members: u32,
    repeat_every: u32,
    p99_ms: f64,
    requests: u32,
    /// How often members got each request.
    got: Vec<AtomicU8>,
    delivered: AtomicU64,
    failed: AtomicU64,
    repeats: AtomicU64,
    repeats_known: AtomicU64,
    latency: Mutex<Histogram<u64>>,
    answers: Mutex<Histogram<u64>>,
    problems: Mutex<Vec<String>>,
}

impl drive::Progress for Bench {
    fn delivered(&self) -> u64 {
        self.delivered.load(Relaxed)
    }

    fn expected(&self) -> u64 {
        u64::from(self.requests) * u64::from(self.members)
    }
}

impl Bench {
    fn new(args: &Args, target: &Target, key: String) -> Result<Self> {
        let histogram = || Histogram::new_with_bounds(1, LONGEST_US, 3).map(Mutex::new);
        let requests = args.rate.checked_mul(args.secs).context("too many requests")?;
        Ok(Self {
            clock: Clock::start(),
            http: target.http().context("the server has no HTTP")?,
            key,
            rooms: (0..args.rooms).map(room_name).collect(),
            rate: args.rate,
            members: args.members,
            repeat_every: args.repeat_every,
            p99_ms: args.p99_ms,
            requests,
            got: (0..requests).map(|_| AtomicU8::new(0)).collect(),
            delivered: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            repeats: AtomicU64::new(0),
            repeats_known: AtomicU64::new(0),
            latency: histogram()?,
            answers: histogram()?,
            problems: Mutex::default(),
        })
    }

    fn room(&self, n: u32) -> &str {
        &self.rooms[n as usize % self.rooms.len()]
    }

    /// Sends what falls to one of all connections.
    async fn send(&self, began: Instant, connection: u32, connections: u32) -> Result<()> {
        let mut asker = Asker::new(self.http);
        for n in (connection..self.requests).step_by(connections as usize) {
            let due = began + Duration::from_secs(1).mul_f64(f64::from(n) / f64::from(self.rate));
            sleep_until(due).await;
            let request = self.request(n, self.clock.at_ns(due.into_std()));
            if self.ask(&mut asker, &request).await.is_some() {
                record(&self.answers, due.elapsed());
            }
            if self.repeat_every != 0 && n.is_multiple_of(self.repeat_every) {
                self.repeats.fetch_add(1, Relaxed);
                if self.ask(&mut asker, &request).await == Some(true) {
                    self.repeats_known.fetch_add(1, Relaxed);
                }
            }
        }
        Ok(())
    }

    fn request(&self, n: u32, due_ns: u64) -> Vec<u8> {
        let body = format!("{{\"text\":\"{n} {due_ns}\"}}");
        let (room, key, length) = (self.room(n), &self.key, body.len());
        // The names of rooms are new for each run, and so are these keys.
        format!(
            "POST /v1/rooms/{room}/messages HTTP/1.1\r\nHost: push\r\nAuthorization: Bearer {key}\r\n\
             Content-Type: application/json\r\nIdempotency-Key: {room}/{n}\r\nContent-Length: {length}\r\n\r\n{body}"
        )
        .into_bytes()
    }

    /// Whether it was known as a repeat; none where it failed.
    async fn ask(&self, asker: &mut Asker, request: &[u8]) -> Option<bool> {
        let problem = match timeout(PATIENCE, asker.ask(request)).await {
            Ok(Ok(answer)) if answer.is_ok() => {
                return Some(answer.header("idempotent-replayed") == Some("true"));
            }
            Ok(Ok(answer)) => answer.body,
            Ok(Err(error)) => format!("{error:#}"),
            Err(_) => "no answer".to_owned(),
        };
        asker.hang_up();
        self.failed.fetch_add(1, Relaxed);
        let mut problems = self.problems.lock();
        if problems.len() < TOLD {
            problems.push(format!("a request failed: {problem}"));
        }
        None
    }

    /// A message came to a member.
    fn got(&self, room: &str, payload: &[u8]) {
        let now = self.clock.now_ns();
        let parsed = std::str::from_utf8(payload).ok().and_then(|text| text.split_once(' '));
        let parsed = parsed.and_then(|(n, due)| Some((n.parse::<u32>().ok()?, due.parse().ok()?)));
        let Some((n, due)) = parsed.filter(|(n, _): &(u32, u64)| *n < self.requests) else {
            return;
        };
        if self.room(n) != room {
            self.problems
                .lock()
                .push(format!("message {n} is for {}, and came to {room}", self.room(n)));
            return;
        }
        self.got[n as usize].fetch_add(1, Relaxed);
        self.delivered.fetch_add(1, Relaxed);
        record(&self.latency, Duration::from_nanos(now.saturating_sub(due)));
    }

    fn tell(&self, report: &mut Report) {
        let members = u64::from(self.members);
        let got = || self.got.iter().map(|got| u64::from(got.load(Relaxed)));
        report.requests = self.requests.into();
        report.expected = report.requests * members;
        report.delivered = self.delivered.load(Relaxed);
        report.lost = got().map(|got| members.saturating_sub(got)).sum();
        report.duplicated = got().map(|got| got.saturating_sub(members)).sum();
        report.failed = self.failed.load(Relaxed);
        report.repeats = self.repeats.load(Relaxed);
        report.repeats_known = self.repeats_known.load(Relaxed);
        report.latency_ms = Latency::of(&self.latency.lock());
        report.answer_ms = Latency::of(&self.answers.lock());
        report.problems = std::mem::take(&mut *self.problems.lock());
        let mut wrong = |count: u64, what: &str| {
            if count > 0 {
                report.problems.push(format!("{count} {what}"));
            }
        };
        wrong(report.lost, "deliveries are missing");
        wrong(report.duplicated, "deliveries came twice");
        wrong(report.failed, "requests failed");
        wrong(report.repeats - report.repeats_known, "repeats were not known as such");
        let (p99, most) = (report.latency_ms.p99, self.p99_ms);
        if p99 >= most {
            report.problems.push(format!("the p99 is {p99:.1} ms; it must be below {most}"));
        }
    }
}

async fn listen(mut events: Events, bench: Arc<Bench>) {
    loop {
        let batch = events.next_batch(64).await;
        if batch.is_empty() {
            return;
        }
        for event in batch {
            if let Event::Message(message) = event {
                bench.got(&message.room, &message.payload);
            }
        }
    }
}

fn record(histogram: &Mutex<Histogram<u64>>, took: Duration) {
    let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    histogram.lock().saturating_record(us.max(1));
}

fn finish(report: &Report, output: &Output) -> Result<ExitCode> {
    let Report { requests, secs, rooms, expected, delivered, lost, duplicated, .. } = report;
    eprintln!(
        "  {requests} requests in {secs} s into {rooms} rooms; load {:?} at the start",
        report.load_average_at_start
    );
    eprintln!("  deliveries  {delivered} of {expected}, lost {lost}, twice {duplicated}");
    eprintln!("  repeats     {} known of {}", report.repeats_known, report.repeats);
    for (what, of) in [("to members", &report.latency_ms), ("to answers", &report.answer_ms)] {
        eprintln!(
            "  {what}  p50 {:.1} p99 {:.1} p99.9 {:.1} max {:.1} ms",
            of.p50, of.p99, of.p999, of.max
        );
    }
    eprintln!(
        "  cpu         {:.2} cores of the server, {:.1} us a request; {:.2} cores of the generator",
        report.server_cpu_cores, report.server_cpu_us_per_request, report.generator_cpu_cores
    );
    report.problems.iter().for_each(|problem| eprintln!("  problem     {problem}"));
    write_json(report, output)?;
    Ok(ExitCode::from(u8::from(!report.problems.is_empty())))
}
