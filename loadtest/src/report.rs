//! What a scenario found: one JSON object, and a summary for the terminal.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fs,
    io::IsTerminal,
    path::Path,
    process::ExitCode,
};

use anyhow::{Context, Result};
use edgeway_proto::Class;
use hdrhistogram::Histogram;
use serde::Serialize;
use serde_json::Value;

use crate::{
    audit::{Audit, Findings, histogram},
    load::Output,
    procstat::{self, Used},
};

type Map = serde_json::Map<String, Value>;

/// Writes a report as one JSON object where it is wanted; whether that is standard output.
pub fn write_json(report: &impl Serialize, output: &Output) -> Result<bool> {
    let Some(path) = output.json.as_deref() else { return Ok(false) };
    let json = serde_json::to_string(report)?;
    let stdout = path == Path::new("-");
    if stdout {
        println!("{json}");
    } else {
        fs::write(path, json + "\n")
            .with_context(|| format!("cannot write the report to {}", path.display()))?;
    }
    Ok(stdout)
}

/// One-way latency, from the sender's call to the receiver's callback, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Latency {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

impl Latency {
    pub fn of(us: &Histogram<u64>) -> Self {
        #[allow(clippy::cast_precision_loss)] // microseconds of minutes
        let ms = |us: u64| us as f64 / 1000.0;
        let at = |quantile| ms(us.value_at_quantile(quantile));
        Self { p50: at(0.5), p90: at(0.9), p99: at(0.99), p999: at(0.999), max: ms(us.max()) }
    }
}

/// Counts of one class, or of all together. In deliveries, but for `sent`: always
/// `expected = delivered + lost + shed`.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Counts {
    /// Messages sent.
    pub sent: u64,
    /// Deliveries, had nothing been shed: each message once for each member.
    pub expected: u64,
    pub delivered: u64,
    pub lost: u64,
    pub duplicated: u64,
    pub reordered: u64,
    pub shed: u64,
    /// Messages of `sent` that the room's policy shed.
    pub shed_by_policy: u64,
    /// Deliveries of `shed` that single connections had no room for.
    pub shed_by_connection: u64,
    pub latency_ms: Latency,
}

impl Counts {
    /// `copies` is how many receivers each message has; `shed_by_policy` is in messages.
    fn of(found: &Findings, copies: u64, shed_by_policy: u64) -> Self {
        let expected = found.sent * copies;
        let shed = shed_by_policy * copies + found.missed;
        Self {
            sent: found.sent,
            expected,
            delivered: found.delivered,
            lost: expected.saturating_sub(found.delivered + shed),
            duplicated: found.duplicated,
            reordered: found.reordered,
            shed,
            shed_by_policy,
            shed_by_connection: found.missed,
            latency_ms: Latency::of(&found.latency_us),
        }
    }

    /// The same messages, to other receivers.
    fn join(&mut self, other: &Self) {
        let (sent, shed_by_policy) = (self.sent, self.shed_by_policy);
        self.add(other);
        (self.sent, self.shed_by_policy) = (sent, shed_by_policy);
    }

    fn add(&mut self, other: &Self) {
        self.sent += other.sent;
        self.expected += other.expected;
        self.delivered += other.delivered;
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.shed += other.shed;
        self.shed_by_policy += other.shed_by_policy;
        self.shed_by_connection += other.shed_by_connection;
    }

    /// Nothing lost, twice or out of order, and no more delivered than sent.
    pub fn held(&self) -> bool {
        self.lost == 0
            && self.duplicated == 0
            && self.reordered == 0
            && self.delivered + self.shed == self.expected
    }
}

/// What the server's processes used.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ServerCost {
    pub cpu_us_per_delivery: f64,
    pub cpu_cores: f64,
    pub rss_bytes: u64,
    pub rss_bytes_per_connection: f64,
    /// Resident before the first connection; taken off for `rss_bytes_per_connection`.
    pub rss_bytes_at_start: u64,
}

/// What the load generator used.
#[derive(Debug, Clone, Default, Serialize)]
pub struct GeneratorCost {
    pub cpu_cores: f64,
}

/// The JSON object of a scenario.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    pub scenario: &'static str,
    pub transport: String,
    pub members: u32,
    pub rooms: u32,
    pub secs: u32,
    pub seed: u64,
    pub connections: u32,
    #[serde(flatten)]
    pub total: Counts,
    pub deliveries_per_s: f64,
    pub by_class: BTreeMap<&'static str, Counts>,
    pub server: ServerCost,
    pub generator: GeneratorCost,
    /// Load average of the machine when the scenario began: near 0 on a quiet one.
    pub load_average_at_start: Option<f64>,
    pub cores: usize,
    /// What did not hold besides the counts, in words.
    pub problems: Vec<String>,
    /// Settings and findings of this scenario only.
    pub detail: Map,
    /// Figures of single runs.
    pub runs: Vec<Map>,
    /// All latencies, by class.
    #[serde(skip)]
    pub latencies: BTreeMap<&'static str, Histogram<u64>>,
    #[serde(skip)]
    used: Option<(Used, Used)>,
}

impl Report {
    /// The beginning of a report; to be made before the load.
    pub fn new(scenario: &'static str, transport: &str) -> Self {
        Self {
            scenario,
            transport: transport.to_owned(),
            rooms: 1,
            load_average_at_start: procstat::load_average(),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            ..Self::default()
        }
    }

    /// Adds a setting or finding of this scenario only.
    pub fn detail(&mut self, key: &str, value: impl Into<Value>) {
        self.detail.insert(key.to_owned(), value.into());
    }

    /// Adds figures of a single run under `runs`: a new run where a figure is there already.
    pub fn run(&mut self, figures: &[(&str, Value)]) {
        let repeats = |run: &Map| figures.iter().any(|(key, _)| run.contains_key(*key));
        if self.runs.last().is_none_or(repeats) {
            self.runs.push(Map::new());
        }
        let Some(run) = self.runs.last_mut() else { return };
        for (key, value) in figures {
            run.insert((*key).to_owned(), value.clone());
        }
    }

    /// Adds what the receivers of a run got. `copies` is how many of an audit's receivers each
    /// message has, `shed_by_policy` how many messages of chat nobody got. Latencies are the first
    /// audit's.
    pub fn deliveries(&mut self, audits: &[(&Audit, u64)], shed_by_policy: u64) {
        for class in Class::ALL {
            let shed = if class == Class::Chat { shed_by_policy } else { 0 };
            let mut all: Option<Counts> = None;
            for (audit, copies) in audits {
                let found = audit.findings(class);
                let counts = Counts::of(&found, *copies, shed);
                match &mut all {
                    Some(all) => all.join(&counts),
                    None => {
                        all = Some(counts);
                        merge(self.latencies.entry(class.name()), found.latency_us);
                    }
                }
            }
            let Some(counts) = all else { continue };
            self.total.add(&counts);
            let of_class = self.by_class.entry(class.name()).or_default();
            of_class.add(&counts);
            of_class.latency_ms =
                self.latencies.get(class.name()).map(Latency::of).unwrap_or_default();
        }
        let mut all = histogram();
        self.latencies.values().for_each(|one| all.add(one).unwrap_or(())); // the same bounds
        self.total.latency_ms = Latency::of(&all);
    }

    /// Adds what a run cost, its deliveries being counted already.
    #[allow(clippy::cast_precision_loss)] // figures for people
    pub fn cost(&mut self, server: Used, generator: Used, rss_bytes: u64, at_start: u64) {
        let (server, generator) = match self.used {
            Some((before, generator_before)) => (before + server, generator_before + generator),
            None => (server, generator),
        };
        self.used = Some((server, generator));
        self.deliveries_per_s =
            self.total.delivered as f64 / server.wall.as_secs_f64().max(f64::EPSILON);
        let per_connection =
            rss_bytes.saturating_sub(at_start) as f64 / f64::from(self.connections.max(1));
        self.server = ServerCost {
            cpu_us_per_delivery: server.cpu_us_each(self.total.delivered),
            cpu_cores: server.cores(),
            rss_bytes,
            rss_bytes_per_connection: per_connection,
            rss_bytes_at_start: at_start,
        };
        self.generator = GeneratorCost { cpu_cores: generator.cores() };
    }

    /// Whether everything held.
    pub fn held(&self) -> bool {
        self.total.held() && self.problems.is_empty()
    }

    /// Writes the report where it is wanted; the exit status says whether it held.
    pub fn finish(self, output: &Output) -> Result<ExitCode> {
        let json_to_stdout = write_json(&self, output)?;
        if !json_to_stdout || std::io::stderr().is_terminal() {
            eprint!("{}", self.summary());
        }
        Ok(ExitCode::from(u8::from(!self.held())))
    }

    fn summary(&self) -> String {
        use std::fmt::Write;
        let mut text = String::new();
        let mut line = |name: &str, value: String| {
            let _ = writeln!(text, "  {name:<12} {value}");
        };
        let connected = self.connections > 0;
        line(
            "what",
            match connected {
                true => format!(
                    "{} over {}, {} connections",
                    self.scenario, self.transport, self.connections
                ),
                false => self.scenario.to_owned(),
            },
        );
        if self.total.sent > 0 {
            self.delivery_lines(&mut line);
        }
        if connected {
            line("server", self.server_line());
            line("generator", format!("{:.2} cores", self.generator.cpu_cores));
        }
        if let Some(load) = self.load_average_at_start {
            line("machine", format!("{} cores, load average {load:.2} at the start", self.cores));
        }
        for (key, value) in &self.detail {
            line(key, text_of(value));
        }
        for (n, run) in self.runs.iter().enumerate() {
            let name = if self.runs.len() > 1 { format!("run {}", n + 1) } else { String::new() };
            run.iter().for_each(|(key, value)| line(&name, format!("{key}: {}", text_of(value))));
        }
        for problem in &self.problems {
            line("PROBLEM", problem.clone());
        }
        text
    }

    fn delivery_lines(&self, line: &mut impl FnMut(&str, String)) {
        let total = &self.total;
        let (delivered, expected) = (total.delivered, total.expected);
        if self.connections > 0 {
            let per_s = self.deliveries_per_s;
            let text =
                format!("{delivered} of {expected} ({per_s:.0}/s), {} messages sent", total.sent);
            line("delivered", text);
        } else {
            line("there", format!("{delivered} of {expected} entries"));
        }
        let verdict = if total.held() { "held" } else { "DID NOT HOLD" };
        line(
            "checked",
            format!(
                "lost {}, duplicated {}, reordered {}, shed {}: {verdict}",
                total.lost, total.duplicated, total.reordered, total.shed
            ),
        );
        for (class, counts) in self.by_class.iter().filter(|(_, counts)| counts.delivered > 0) {
            let Latency { p50, p90, p99, p999, max } = counts.latency_ms;
            line(
                class,
                format!(
                    "p50 {p50:.1}  p90 {p90:.1}  p99 {p99:.1}  p99.9 {p999:.1}  max {max:.1} ms"
                ),
            );
        }
    }

    #[allow(clippy::cast_precision_loss)] // figures for people
    fn server_line(&self) -> String {
        let cost = &self.server;
        let mut text = format!("{:.2} cores", cost.cpu_cores);
        if self.total.delivered > 0 {
            text += &format!(", {:.2} us of CPU a delivery", cost.cpu_us_per_delivery);
        }
        text + &format!(
            ", {:.1} MB resident, {:.1} KB a connection",
            cost.rss_bytes as f64 / 1e6,
            cost.rss_bytes_per_connection / 1e3
        )
    }
}

/// A figure for people.
fn text_of(value: &Value) -> String {
    match value {
        Value::Number(n) if n.is_f64() => n.as_f64().map(|n| format!("{n:.3}")).unwrap_or_default(),
        Value::Object(map) => {
            let all = map.iter().map(|(key, value)| match value {
                Value::Object(_) => format!("{key} ({})", text_of(value)),
                _ => format!("{key} {}", text_of(value)),
            });
            all.collect::<Vec<_>>().join(", ")
        }
        Value::String(text) => text.clone(),
        Value::Null => "unknown".to_owned(),
        other => other.to_string(),
    }
}

fn merge(into: Entry<'_, &'static str, Histogram<u64>>, more: Histogram<u64>) {
    match into {
        Entry::Occupied(mut all) => all.get_mut().add(more).unwrap_or(()), // the same bounds
        Entry::Vacant(none) => drop(none.insert(more)),
    }
}

#[cfg(test)]
#[path = "report/tests.rs"]
mod tests;
