//! Drives a load to its end: waits until all is delivered or nothing comes any more, and shows
//! how far it is.

use std::time::Duration;

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::procstat::{Meter, Used};

/// How long nothing may be delivered, all being sent, before the rest is given up as lost.
const QUIET: Duration = Duration::from_secs(10);

/// How often progress is looked at. Bounds how much longer than the load a run is measured.
const LOOK: Duration = Duration::from_millis(10);

/// Time between connecting and the first message, for handshakes to be really over.
const SETTLE: Duration = Duration::from_millis(500);

/// Connections that are being made at a time.
pub const CONNECTING: usize = 64;

/// What the processes used while the load ran.
pub struct Cost {
    pub server: Used,
    pub generator: Used,
}

/// How far a load is.
pub trait Progress {
    /// Deliveries so far.
    fn delivered(&self) -> u64;
    /// Deliveries that there will be, had nothing been shed.
    fn expected(&self) -> u64;
    /// Whether all that was sent is accounted for. Asked when all is sent.
    fn complete(&self) -> bool {
        self.delivered() >= self.expected()
    }
}

/// Starts the load after everyone is connected, and measures it, for `duration` at least. `start`
/// gets the instant of the first message and spawns the senders.
pub async fn measure(
    progress: &impl Progress,
    server_pids: &[u32],
    duration: Duration,
    start: impl FnOnce(Instant) -> JoinSet<Result<()>>,
) -> Result<Cost> {
    sleep(SETTLE).await;
    let server = Meter::start(server_pids)?;
    let generator = Meter::start(&[std::process::id()])?;
    let began = Instant::now();
    let mut senders = start(began);
    let bar = bar(progress.expected(), "deliveries");
    let mut last = (0, Instant::now());
    loop {
        sleep(LOOK).await;
        while let Some(result) = senders.try_join_next() {
            result.context("a sender stopped")??;
        }
        let delivered = progress.delivered();
        bar.set_position(delivered);
        if delivered != last.0 || !senders.is_empty() {
            last = (delivered, Instant::now());
        }
        if senders.is_empty()
            && began.elapsed() >= duration
            && (progress.complete() || last.1.elapsed() > QUIET)
        {
            break;
        }
    }
    bar.finish_and_clear();
    Ok(Cost { server: server.used()?, generator: generator.used()? })
}

/// Runs `connect` for `0..count`, [`CONNECTING`] at a time, and gives the results in that order.
pub async fn connect_all<T, F>(count: u32, connect: impl Fn(u32) -> F) -> Result<Vec<T>>
where
    T: Send + 'static,
    F: Future<Output = Result<T>> + Send + 'static,
{
    let bar = bar(count.into(), "connections");
    let mut tasks = JoinSet::new();
    let mut done: Vec<(u32, T)> = Vec::with_capacity(count as usize);
    for n in 0..count {
        if tasks.len() >= CONNECTING {
            done.extend(finished(tasks.join_next().await)?);
            bar.inc(1);
        }
        let connecting = connect(n);
        tasks.spawn(async move { connecting.await.map(|made| (n, made)) });
    }
    while let Some(result) = tasks.join_next().await {
        done.extend(finished(Some(result))?);
        bar.inc(1);
    }
    bar.finish_and_clear();
    done.sort_by_key(|(n, _)| *n);
    Ok(done.into_iter().map(|(_, made)| made).collect())
}

fn finished<T>(result: Option<Result<Result<T>, tokio::task::JoinError>>) -> Result<Option<T>> {
    result.transpose().context("connecting stopped")?.transpose().context("cannot connect")
}

/// The same for work without a known end; it counts entries.
pub fn spinner(what: &str) -> ProgressBar {
    let style =
        ProgressStyle::with_template("{elapsed:>4} {spinner} {human_pos} {msg} ({per_sec})")
            .unwrap_or_else(|_| ProgressStyle::default_spinner());
    ProgressBar::new_spinner().with_style(style).with_message(what.to_owned())
}

/// A bar on the terminal; none where standard error is not one.
pub fn bar(len: u64, what: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template(
        "{elapsed:>4} {bar:40} {human_pos} of {human_len} {msg} ({per_sec})",
    )
    .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(len).with_style(style).with_message(what)
}
