//! `GET /stat` and `GET /stat/all`; docs/DISPATCH.md says what is in them.

use std::time::Duration;

use edgeway_backend::registry::Instance;
use edgeway_stat::{Load, Report};
use serde::Serialize;

use super::{Stat, measure::INTERVAL};

/// Loads of the registry that are older are not those of now.
const STALE: Duration = Duration::from_secs(5);

#[derive(Serialize)]
struct Own<'a> {
    name: &'a str,
    roles: &'a [String],
    version: &'static str,
    interval_ms: u64,
    report: Report,
    recent: Vec<Load>,
}

#[derive(Serialize)]
struct All {
    source: &'static str,
    /// None where the registry has not answered yet.
    registry_age_ms: Option<u64>,
    is_stale: bool,
    total: Load,
    instances: Vec<One>,
}

#[derive(Serialize)]
struct One {
    name: String,
    address: String,
    roles: Vec<String>,
    /// None where it is of a version that tells nothing.
    report: Option<Report>,
}

/// This process; with its recent samples, or without.
pub fn own(stat: &Stat, recent: bool) -> String {
    let inner = &stat.0;
    let recent = if recent { inner.ring.lock().recent() } else { Vec::new() };
    to_text(&Own {
        name: &inner.name,
        roles: &inner.roles,
        version: env!("CARGO_PKG_VERSION"),
        interval_ms: ms(INTERVAL),
        report: stat.report(),
        recent,
    })
}

/// All that the registry knows; without a registry, this process.
pub async fn all(stat: &Stat) -> String {
    let inner = &stat.0;
    let Some(looker) = inner.looker.get() else {
        let one = One {
            name: inner.name.clone(),
            address: String::new(),
            roles: inner.roles.clone(),
            report: Some(stat.report()),
        };
        return to_text(&of("self", Some(Duration::ZERO), vec![one]));
    };
    let view = looker.clone().now().await;
    let instances = view.instances.iter().map(|one| {
        let Instance { name, address, roles, report, .. } = one.clone();
        One { name, address, roles, report: Report::read(&report) }
    });
    to_text(&of("registry", view.read_at.map(|at| at.elapsed()), instances.collect()))
}

fn of(source: &'static str, age: Option<Duration>, instances: Vec<One>) -> All {
    let loads = instances.iter().filter_map(|one| one.report.as_ref()).map(|report| &report.load);
    let total = loads.fold(Load::default(), Load::plus);
    let is_stale = age.is_none_or(|age| age > STALE);
    All { source, registry_age_ms: age.map(ms), is_stale, total, instances }
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn to_text<T: Serialize>(value: &T) -> String {
    // Texts and numbers can always be written.
    serde_json::to_string_pretty(value).unwrap_or_default() + "\n"
}
