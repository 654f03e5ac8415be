//! The same work elsewhere, in turn with the room: the machine is as busy and as warm for both.

use anyhow::{Context, Result};
use serde_json::json;

use super::{Args, run::Ran};
use crate::{floor, median::median, nats, report::Report};

/// Server CPU a delivery of each run, in microseconds.
#[derive(Default)]
pub struct Compared {
    room: Vec<f64>,
    floor: Vec<f64>,
    nats: Vec<f64>,
}

impl Compared {
    /// After a run of the room, measures what else was asked for.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // small and positive
    pub async fn measure(&mut self, args: &Args, ran: &Ran, report: &mut Report) -> Result<()> {
        self.room.push(ran.cpu_us_per_delivery);
        if args.floor {
            let batch = args.batch.or(ran.messages_per_write.map(|n| n.round().max(1.0) as u32));
            let frame_bytes = Some(ran.frame_bytes.round() as usize);
            let floor = floor::of_burst(
                &args.load,
                frame_bytes,
                batch,
                args.signals.round() as u32,
                args.sockets,
            )
            .await
            .context("the floor")?;
            report.run(&[("floor", figures(&floor))]);
            check("the floor", &floor, report);
            self.floor.push(floor.server.cpu_us_per_delivery);
        }
        if let Some(program) = &args.nats {
            let nats = nats::of_burst(program, &args.load).await?;
            report.run(&[("nats", figures(&nats))]);
            check("nats-server", &nats, report);
            self.nats.push(nats.server.cpu_us_per_delivery);
        }
        Ok(())
    }

    /// Adds the medians.
    pub fn report(&self, report: &mut Report) {
        for (key, other) in [("floor", &self.floor), ("nats", &self.nats)] {
            let ratios = self.room.iter().zip(other).map(|(ours, theirs)| ours / theirs);
            if let Some(ratio) = median(ratios.collect()) {
                let name = format!("{key}_ratio");
                report.detail(&name, ratio);
                let us = median(other.clone());
                report.detail(&format!("{key}_cpu_us_per_delivery"), us);
            }
        }
    }
}

fn figures(report: &Report) -> serde_json::Value {
    json!({
        "cpu_us_per_delivery": report.server.cpu_us_per_delivery,
        "cpu_cores": report.server.cpu_cores,
        "generator_cores": report.generator.cpu_cores,
        "p99_ms": report.total.latency_ms.p99,
        "delivered": report.total.delivered,
        "detail": report.detail,
    })
}

fn check(what: &str, other: &Report, report: &mut Report) {
    if !other.held() {
        report.problems.push(format!("{what} did not deliver everything: no comparison"));
    }
}
