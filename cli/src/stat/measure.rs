//! The samples: counts from the metrics that the process exports anyway, CPU and memory from the system, and how
//! long what is ready waits for its turn.

use std::{
    sync::atomic::Ordering,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use edgeway_stat::{Load, Used};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::{
    runtime::Handle,
    time::{Instant, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;

use super::Stat;

/// Between two samples.
pub const INTERVAL: Duration = Duration::from_secs(1);
/// How often a runtime is asked for a turn.
const TURN: Duration = Duration::from_millis(100);

/// What is counted from the start of the process on.
#[derive(Debug, Clone, Copy, Default)]
struct Totals {
    messages_in: f64,
    messages_out: f64,
    cpu: Duration,
}

impl Stat {
    /// Measures until `stop`; also how long turns are waited for on `edge`, beside the runtime that this runs on.
    pub async fn run(self, metrics: PrometheusHandle, edge: Handle, stop: CancellationToken) {
        let others = [Handle::current(), edge].map(|on| {
            let (stat, stop) = (self.clone(), stop.clone());
            on.spawn(async move {
                tokio::select! {
                    () = stat.watch_turns() => {}
                    () = stop.cancelled() => {}
                }
            })
        });
        tokio::select! {
            () = self.sample(&metrics) => {}
            () = stop.cancelled() => {}
        }
        for other in others {
            let _ = other.await;
        }
    }

    async fn watch_turns(&self) {
        loop {
            let due = Instant::now() + TURN;
            tokio::time::sleep_until(due).await;
            let lag = u64::try_from(due.elapsed().as_micros()).unwrap_or(u64::MAX);
            self.0.lag_us.fetch_max(lag, Ordering::Relaxed);
        }
    }

    async fn sample(&self, metrics: &PrometheusHandle) {
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut before, mut at) = (None, Instant::now());
        loop {
            ticks.tick().await;
            let (text, used, now) = (metrics.render(), Used::now(), Instant::now());
            let (mut load, totals) = read(&text, used);
            if let Some(before) = before {
                load.rates(before, totals, now - at);
            }
            (before, at) = (Some(totals), now);
            #[allow(clippy::cast_precision_loss, reason = "microseconds of a lag")]
            let lag = self.0.lag_us.swap(0, Ordering::Relaxed) as f64;
            load.loop_lag_ms = round(lag / 1000.0);
            metrics::gauge!("edgeway_stat_loop_lag_seconds").set(lag / 1e6);
            metrics::gauge!("edgeway_stat_cpu_cores").set(load.cpu_cores);
            #[allow(clippy::cast_precision_loss, reason = "a gauge")]
            metrics::gauge!("edgeway_stat_memory_bytes").set(load.memory_bytes as f64);
            self.0.ring.lock().push(load);
        }
    }
}

/// What a change over time makes of totals.
trait Rates {
    fn rates(&mut self, before: Totals, now: Totals, time: Duration);
}

impl Rates for Load {
    fn rates(&mut self, before: Totals, now: Totals, time: Duration) {
        let time = time.as_secs_f64().max(0.001);
        let rate = |before: f64, now: f64| round((now - before).max(0.0) / time);
        self.messages_in_per_second = rate(before.messages_in, now.messages_in);
        self.messages_out_per_second = rate(before.messages_out, now.messages_out);
        self.cpu_cores = rate(before.cpu.as_secs_f64(), now.cpu.as_secs_f64());
    }
}

fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// From the text of /metrics. A gateway counts what clients send before the owners of rooms do.
fn read(text: &str, used: Used) -> (Load, Totals) {
    let sum = |name: &str| {
        let values = text.lines().filter_map(|line| {
            let rest = line.strip_prefix(name).filter(|rest| rest.starts_with(['{', ' ']))?;
            rest.rsplit(' ').next()?.parse::<f64>().ok()
        });
        values.fold(None, |sum: Option<f64>, value| Some(sum.unwrap_or(0.0) + value))
    };
    let first = |names: [&str; 2]| names.into_iter().find_map(sum).unwrap_or(0.0);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts")]
    let count = |names| first(names).max(0.0) as u64;
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let load = Load {
        at_unix_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
        connections: count(["edgeway_gateway_connections", "edgeway_backend_links"]),
        sessions: count(["edgeway_gateway_sessions", "edgeway_access_sessions"]),
        rooms: count(["edgeway_owner_rooms", "edgeway_gateway_groups"]),
        memory_bytes: used.memory_bytes,
        ..Load::default()
    };
    let totals = Totals {
        messages_in: first(["edgeway_gateway_uplink_frames_total", "edgeway_owner_messages_total"]),
        messages_out: first(["edgeway_gateway_deliveries_total", "edgeway_owner_delivered_total"]),
        cpu: used.cpu,
    };
    (load, totals)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# HELP edgeway_gateway_connections x\nedgeway_gateway_connections 7\n\
        edgeway_gateway_deliveries_total{class=\"chat\"} 100\nedgeway_gateway_deliveries_total{class=\"signal\"} 11\n\
        edgeway_gateway_deliveries_total_more 5\nedgeway_owner_rooms{kind=\"room\"} 3\nedgeway_backend_links 1\n";

    #[test]
    fn a_sample_is_read_from_the_metrics() {
        let used = Used { cpu: Duration::from_secs(1), memory_bytes: 5 };
        let (mut load, before) = read(TEXT, used);
        assert_eq!((load.connections, load.rooms, load.sessions, load.memory_bytes), (7, 3, 0, 5));
        assert!((before.messages_out - 111.0).abs() < 1e-9);
        let now =
            Totals { messages_out: 311.0, cpu: used.cpu + Duration::from_millis(500), ..before };
        load.rates(before, now, Duration::from_secs(2));
        assert!((load.messages_out_per_second - 100.0).abs() < 1e-9);
        assert!((load.cpu_cores - 0.25).abs() < 1e-9);
        // A counter that began anew is no negative rate.
        load.rates(now, before, Duration::from_secs(2));
        assert!(load.messages_out_per_second.abs() < 1e-9);
    }
}
