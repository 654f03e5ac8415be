//! What an answer of dispatch costs, and whether clients are spread as the policy says.

mod asker;
mod decide;

use std::{collections::BTreeMap, fs, process::ExitCode, time::Duration};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use hdrhistogram::Histogram;
use serde::Serialize;
use tempfile::TempDir;
use tokio::{process::Command, task::JoinSet, time::Instant};

use crate::{
    child::{self, Child},
    load::Output,
    procstat::{self, Meter},
    report::{self, Latency},
    server::{ServerArgs, program},
};

/// Off its share by more than this, and the spread does not hold.
const SPREAD: f64 = 0.05;
/// Latencies are counted up to this, in microseconds.
const LONGEST_US: u64 = 60_000_000;

/// What an answer of dispatch costs on one core, and how clients are spread
///
/// First answers are made in this process, without HTTP: microseconds for each, and the spread over gateways whose
/// load is known. Then `edgeway dispatch` answers over HTTP with one worker thread, at a rate: latency, and CPU for
/// each answer. It does not hold where an answer is missing, the rate is not kept, or the spread is off by more than 5%.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Requests a second over HTTP
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: u32,
    /// For how long
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    secs: u32,
    /// Connections that ask
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    connections: u32,
    /// A connection of its own for each request, as after an outage
    #[arg(long)]
    fresh: bool,
    /// Gateways of the cluster; every third one has twice the weight
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1024))]
    gateways: u32,
    /// The policy
    #[arg(long, value_enum, default_value_t = Policy::Sticky)]
    policy: Policy,
    /// Answers that are made without HTTP
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    answers: u32,
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Policy {
    Weighted,
    #[value(name = "least_load")]
    LeastLoad,
    Sticky,
}

impl Policy {
    fn name(self) -> &'static str {
        match self {
            Self::Weighted => "weighted",
            Self::LeastLoad => "least_load",
            Self::Sticky => "sticky",
        }
    }
}

/// The JSON object.
#[derive(Debug, Serialize)]
struct Report {
    scenario: &'static str,
    policy: &'static str,
    gateways: u32,
    load_average_at_start: Option<f64>,
    cores: usize,
    without_http: WithoutHttp,
    http: OverHttp,
    problems: Vec<String>,
}

#[derive(Debug, Serialize)]
struct WithoutHttp {
    answers: u32,
    us_per_answer: f64,
    spread: Spread,
}

#[derive(Debug, Serialize)]
struct OverHttp {
    fresh_connections: bool,
    connections: u32,
    secs: f64,
    requests: u64,
    failed: u64,
    wanted_per_second: u32,
    requests_per_second: f64,
    latency_ms: Latency,
    server_cpu_cores: f64,
    server_cpu_us_per_request: f64,
    /// What one core would answer, by the CPU that was used.
    requests_per_second_of_a_core: f64,
    spread: Spread,
}

/// What chance is allowed. With three deviations one run in ten of this would be called uneven with
/// nothing wrong: ten gateways are judged, in each of three policies, with and without HTTP.
const DEVIATIONS: f64 = 5.5;

/// How far the counts of gateways are from their shares.
#[derive(Debug, Default, Serialize)]
struct Spread {
    /// 0.05 is 5% of a gateway's share.
    worst: f64,
    /// How far chance alone puts one of them off, [`DEVIATIONS`] standard deviations.
    by_chance: f64,
    /// Clients of each gateway.
    counts: BTreeMap<String, u64>,
}

/// A gateway of the test, and its weight.
fn gateways(count: u32) -> Vec<(String, u32)> {
    let one =
        |n: u32| (format!("gw-{n}.example:4433"), if n.is_multiple_of(3) { 200 } else { 100 });
    (0..count).map(one).collect()
}

impl Spread {
    #[allow(clippy::cast_precision_loss)] // figures for people
    fn of(counts: BTreeMap<String, u64>, gateways: &[(String, u32)]) -> Self {
        let all = counts.values().sum::<u64>() as f64;
        let weights = gateways.iter().map(|(_, weight)| f64::from(*weight)).sum::<f64>();
        let (mut worst, mut by_chance) = (0.0_f64, 0.0_f64);
        for (name, weight) in gateways {
            let share = all * f64::from(*weight) / weights;
            let count = counts.get(name).copied().unwrap_or(0) as f64;
            worst = worst.max((count - share).abs() / share.max(1.0));
            by_chance = by_chance.max(DEVIATIONS / share.max(1.0).sqrt());
        }
        Self { worst, by_chance, counts }
    }

    /// Within 5%, or within what chance alone does where there are few.
    fn check(&self, of: &str, problems: &mut Vec<String>) {
        if self.worst > SPREAD.max(self.by_chance) {
            problems
                .push(format!("{of}: a gateway is off its share by {:.1}%", self.worst * 100.0));
        }
    }
}

pub fn run(args: Args) -> Result<ExitCode> {
    tokio::runtime::Runtime::new()?.block_on(scenario(args))
}

async fn scenario(args: Args) -> Result<ExitCode> {
    let load_average_at_start = procstat::load_average();
    let gateways = gateways(args.gateways);
    let mut problems = Vec::new();
    let without_http = decide::measure(args.policy.name(), &gateways, args.answers)?;
    without_http.spread.check("without HTTP", &mut problems);
    let http = over_http(&args, &gateways).await?;
    http.spread.check("over HTTP", &mut problems);
    if http.failed > 0 {
        problems.push(format!("{} requests were not answered", http.failed));
    }
    if http.requests_per_second < f64::from(args.rate) * 0.95 {
        problems.push(format!(
            "{:.0} requests a second, of {} that were wanted",
            http.requests_per_second, args.rate
        ));
    }
    let report = Report {
        scenario: "dispatch",
        policy: args.policy.name(),
        gateways: args.gateways,
        load_average_at_start,
        cores: std::thread::available_parallelism().map_or(0, usize::from),
        without_http,
        http,
        problems,
    };
    report.finish(&args.output)
}

async fn over_http(args: &Args, gateways: &[(String, u32)]) -> Result<OverHttp> {
    let dir = TempDir::with_prefix("edgeway-loadtest-").context("no temporary directory")?;
    let config = dir.path().join("edgeway.toml");
    fs::write(&config, config_text(args.policy, gateways))
        .with_context(|| format!("cannot write {}", config.display()))?;
    let mut command = Command::new(program(&args.server)?);
    command.args(["dispatch", "--listen", "127.0.0.1:0", "--http", "off", "--config"]);
    command.arg(&config).current_dir(dir.path());
    let log = dir.path().join("stderr.log");
    let mut server = Child::start("edgeway dispatch", command, &log)?;
    let ready = child::with_log(server.line("ready").await, &log)?;
    let Some(addr) = ready.split(' ').find_map(|part| part.strip_prefix("dispatch=")) else {
        bail!("it does not say where it listens: {ready}");
    };
    let addr = addr.parse().context("its address")?;
    server.drain();
    let meter = Meter::start(&[server.pid()])?;
    let pace = asker::Pace {
        addr,
        begun: Instant::now(),
        time: Duration::from_secs(args.secs.into()),
        between: Duration::from_secs_f64(f64::from(args.connections) / f64::from(args.rate)),
        fresh: args.fresh,
    };
    let mut askers = JoinSet::new();
    for n in 0..args.connections {
        askers.spawn(asker::ask(pace, n, args.connections));
    }
    let mut counts = BTreeMap::<String, u64>::new();
    let (mut failed, mut requests) = (0, 0);
    let mut latency = Histogram::new_with_bounds(1, LONGEST_US, 3)?;
    while let Some(asked) = askers.join_next().await {
        let asked = asked?;
        failed += asked.failed;
        requests += asked.requests;
        latency.add(&asked.latency)?;
        for (name, count) in asked.counts {
            *counts.entry(name).or_default() += count;
        }
    }
    let (used, secs) = (meter.used()?, pace.begun.elapsed().as_secs_f64());
    child::with_log(server.check(), &log)?;
    server.stop().await?;
    let each = used.cpu_us_each(requests);
    #[allow(clippy::cast_precision_loss)] // figures for people
    Ok(OverHttp {
        fresh_connections: args.fresh,
        connections: args.connections,
        secs,
        requests,
        failed,
        wanted_per_second: args.rate,
        requests_per_second: requests as f64 / secs,
        latency_ms: Latency::of(&latency),
        server_cpu_cores: used.cores(),
        server_cpu_us_per_request: each,
        requests_per_second_of_a_core: 1e6 / each.max(0.001),
        spread: Spread::of(counts, gateways),
    })
}

fn config_text(policy: Policy, gateways: &[(String, u32)]) -> String {
    let list: Vec<_> = gateways
        .iter()
        .map(|(quic, weight)| format!("{{ quic = \"{quic}\", weight = {weight} }}"))
        .collect();
    format!(
        "[runtime]\nthreads = 1\n[dispatch]\nper_ip_per_second = 0\n[dispatch.clusters.main]\npolicy = \"{}\"\n\
         gateways = [{}]\n",
        policy.name(),
        list.join(", ")
    )
}

impl Report {
    fn finish(self, output: &Output) -> Result<ExitCode> {
        report::write_json(&self, output)?;
        let OverHttp { latency_ms, .. } = &self.http;
        eprintln!(
            "dispatch, {} over {} gateways\n  without HTTP  {:.2} us an answer; the worst share is off by {:.2}%\n  \
             over HTTP     {:.0} requests a second of {}, {} failed; p50 {:.2} ms, p99 {:.2} ms\n  \
             CPU           {:.1} us a request: {:.0} a second of one core; the worst share is off by {:.2}%",
            self.policy,
            self.gateways,
            self.without_http.us_per_answer,
            self.without_http.spread.worst * 100.0,
            self.http.requests_per_second,
            self.http.wanted_per_second,
            self.http.failed,
            latency_ms.p50,
            latency_ms.p99,
            self.http.server_cpu_us_per_request,
            self.http.requests_per_second_of_a_core,
            self.http.spread.worst * 100.0,
        );
        for problem in &self.problems {
            eprintln!("  does not hold: {problem}");
        }
        Ok(ExitCode::from(u8::from(!self.problems.is_empty())))
    }
}
