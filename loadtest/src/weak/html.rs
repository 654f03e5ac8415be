//! The report as one page.

use std::collections::BTreeMap;

use anyhow::Result;
use edgeway_client::Class;

use super::{
    found::{Found, number},
    page::{self, Part},
    rows::Verdict,
};
use crate::plot::{self, Distribution, Series};

/// Tables and plots of everything found.
pub fn page(found: &[&Found], verdicts: &[Verdict]) -> Result<String> {
    let mut networks: BTreeMap<(&str, &str, u32), Vec<&Found>> = BTreeMap::new();
    for one in found.iter().copied() {
        networks.entry((&one.profile, one.load, one.clients)).or_default().push(one);
    }
    let mut parts = vec![Part::Text(
        "One-way latency in milliseconds, from the call that sends to the receiver's callback. \
         What did not arrive counts: a dash says that so many messages never came. Quantiles of \
         chat, which may be shed, are of what was delivered."
            .to_owned(),
    )];
    if !verdicts.is_empty() {
        parts.push(Part::Heading("Targets".to_owned()));
        parts.push(Part::Table(targets(verdicts)));
    }
    for ((profile, load, clients), all) in networks {
        parts.push(Part::Heading(format!("{profile}, load {load}, {clients} clients")));
        parts.extend(all.first().map(|one| Part::Text(one.reason.clone())));
        parts.push(Part::Table(table(&all)));
        for (class, title) in [(Class::Signal, "Signals"), (Class::Binary, "Strokes")] {
            let distributions: Vec<_> = all
                .iter()
                .filter_map(|one| Some((one.name(), one.both(class)?)))
                .filter(|(_, both)| !both.fates.latency_ms.is_empty())
                .map(|(name, both)| Distribution::of_values(name, &both.fates.latency_ms))
                .collect();
            if !distributions.is_empty() {
                let svg = plot::latency_distribution(
                    &format!("{title}, {profile}: those delivered"),
                    &distributions,
                    &[],
                )?;
                parts.push(Part::Plot(svg));
            }
        }
        if all.iter().any(|one| !one.back.is_empty()) {
            parts.push(Part::Table(backs(&all)));
            let lines: Vec<_> = all
                .iter()
                .map(|one| Series { name: one.name(), values: one.signals_over_time.clone() })
                .collect();
            let svg =
                plot::time_line("Signals of one client, by when they were sent", &lines, &[])?;
            parts.push(Part::Plot(svg));
        }
    }
    Ok(page::page("Edgeway on weak networks", &parts))
}

fn targets(verdicts: &[Verdict]) -> Vec<Vec<String>> {
    let head = ["row", "what", "must be", "is", "samples", ""];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(verdicts.iter().map(|verdict| verdict.cells().to_vec()));
    rows
}

fn table(all: &[&Found]) -> Vec<Vec<String>> {
    let head = ["", "class", "sent", "missing", "p50", "p90", "p99", "p99.9", "max", "wire bytes"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for one in all {
        for row in one.rows.iter().filter(|row| row.sent > 0 && row.direction == "both") {
            let q = row.latency_ms;
            let mut cells = vec![
                one.name(),
                row.class.to_owned(),
                row.sent.to_string(),
                (row.sent - row.delivered).to_string(),
            ];
            cells.extend([q.p50, q.p90, q.p99, q.p999, q.max].map(number));
            cells.push(one.wire.bytes.to_string());
            rows.push(cells);
        }
    }
    rows
}

fn backs(all: &[&Found]) -> Vec<Vec<String>> {
    let head = ["back after", "way", "times", "never", "p50", "p90", "max"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for one in all {
        for back in &one.back {
            let mut cells = vec![
                format!("{}, {}", back.what, one.name()),
                format!("{:?}", back.direction).to_lowercase(),
                back.count.to_string(),
                back.never.to_string(),
            ];
            cells.extend([back.back_ms.p50, back.back_ms.p90, back.back_ms.max].map(number));
            rows.push(cells);
        }
    }
    rows
}
