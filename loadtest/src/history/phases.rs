//! What is measured of each store, in turn.
#![allow(clippy::cast_precision_loss)] // figures for people

use std::{fs, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{
    Args, Kind,
    append::{Appended, Appender, Until},
    check::check,
    logs::{self, Log},
    read::{PLACES, READERS, Read, Reader},
    stores::{Opened, Size},
};
use crate::{
    drive, plot,
    procstat::{Meter, Used},
    report::{Latency, Report},
};

/// All phases of all stores.
pub async fn measure(args: &Args, report: &mut Report) -> Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get().min(1024));
    let shards = args.shards.unwrap_or(u32::try_from(cores)?.min(args.logs));
    report.rooms = args.logs;
    for (key, value) in [
        ("appends_per_s", json!(args.appends)),
        ("size", json!(args.size)),
        ("shards", json!(shards)),
        ("pages_per_s", json!(args.reads)),
        ("sync", json!(format!("{:?}", args.sync).to_lowercase())),
    ] {
        report.detail(key, value);
    }
    let mut drawn = Vec::new();
    for kind in &args.store {
        let told = || format!("the store {}", kind.name());
        let mut bench = Bench::open(*kind, args, shards).await.with_context(told)?;
        bench.run(report, &mut drawn).await.with_context(told)?;
        bench.close(report).await.with_context(told)?;
    }
    if let Some(path) = &args.plot {
        let svg = plot::latency_distribution("Appends, from coming to stored", &drawn, &[])?;
        fs::write(path, svg).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// One store and its logs.
struct Bench<'a> {
    args: &'a Args,
    kind: Kind,
    opened: Opened,
    logs: Arc<Vec<Arc<Log>>>,
    /// Nothing only while they append.
    appenders: Vec<Appender>,
}

/// What a phase used.
struct Cost {
    generator: Used,
    server: Option<Used>,
}

impl<'a> Bench<'a> {
    async fn open(kind: Kind, args: &'a Args, shards: u32) -> Result<Self> {
        let opened = Opened::open(kind, args).await?;
        let logs = logs::make(&*opened.store, args.logs).await?;
        let appender = |n: usize| {
            let own = logs.iter().skip(n).step_by(shards as usize).cloned().collect();
            Appender::new(Arc::clone(&opened.store), own, args.size, args.seed ^ n as u64)
        };
        let appenders = (0..shards as usize).map(appender).collect();
        Ok(Self { args, kind, opened, logs: Arc::new(logs), appenders })
    }

    async fn run(
        &mut self,
        report: &mut Report,
        drawn: &mut Vec<plot::Distribution>,
    ) -> Result<()> {
        let (args, name) = (self.args, self.kind.name());
        let fill = u64::from(args.fill) * self.logs.len() as u64;
        let share = fill.div_ceil(self.appenders.len() as u64);
        let filled = self.flat_out(&format!("{name}: filling"), Until::Entries(share)).await?;
        report.run(&[("store", json!(name)), ("fill", filled)]);

        let (done, _, figures) = self.paced(&format!("{name}: appends"), 0.0).await?;
        drawn.push(plot::Distribution::of_histogram(name, &done.latency_us));
        report.run(&[("append", figures)]);

        if args.reads > 0.0 {
            let (done, read, figures) =
                self.paced(&format!("{name}: appends and reads"), args.reads).await?;
            let title = format!("{name}, with reads");
            drawn.push(plot::Distribution::of_histogram(title, &done.latency_us));
            report.run(&[("reads", figures)]);
            report.problems.extend(read.wrong);
        }
        if args.max_secs > 0 {
            let end = Instant::now() + Duration::from_secs(args.max_secs.into());
            let title = format!("{name}: appends as fast as they go");
            let figures = self.flat_out(&title, Until::Time(end)).await?;
            report.run(&[("max", figures)]);
        }
        Ok(())
    }

    /// `--appends` a second, and so many pages.
    async fn paced(&mut self, title: &str, pages: f64) -> Result<(Appended, Read, Value)> {
        let start = Instant::now();
        let end = start + Duration::from_secs(self.args.secs.into());
        let rate = self.args.appends / self.appenders.len() as f64;
        let mut readers = JoinSet::new();
        let begun = Arc::default();
        for n in 0..(if pages > 0.0 { READERS } else { 0 }) {
            let reader = Reader {
                store: Arc::clone(&self.opened.store),
                logs: Arc::clone(&self.logs),
                begun: Arc::clone(&begun),
                seed: self.args.seed ^ (u64::from(n) << 32),
            };
            readers.spawn(reader.run(start, end, pages));
        }
        let (done, cost) = self
            .append(title, move |mut one| async move {
                let done = one.paced(start, end, rate).await?;
                Ok((one, done))
            })
            .await?;
        let mut read = Read::default();
        while let Some(one) = readers.join_next().await {
            read.add(one.context("a reader stopped")??);
        }
        let mut figures = appended(&done, &cost);
        if read.pages > 0 {
            figures["pages"] = pages_read(&read, start.elapsed());
        }
        Ok((done, read, figures))
    }

    async fn flat_out(&mut self, title: &str, until: Until) -> Result<Value> {
        let batch = self.args.batch;
        let (done, cost) = self
            .append(title, move |mut one| async move {
                let done = one.flat_out(batch, until).await?;
                Ok((one, done))
            })
            .await?;
        Ok(appended(&done, &cost))
    }

    /// Lets all appenders work, and waits for them.
    async fn append<F>(
        &mut self,
        title: &str,
        work: impl Fn(Appender) -> F,
    ) -> Result<(Appended, Cost)>
    where
        F: Future<Output = Result<(Appender, Appended)>> + Send + 'static,
    {
        let server = self.opened.pids();
        let meters = (Meter::start(&[std::process::id()])?, Meter::start(&server)?);
        let mut working = JoinSet::new();
        for one in self.appenders.drain(..) {
            working.spawn(work(one));
        }
        let before = self.stored();
        let bar = drive::spinner(title);
        let mut done = Appended::default();
        while !working.is_empty() {
            tokio::select! {
                Some(one) = working.join_next() => {
                    let (one, part) = one.context("an appender stopped")??;
                    done.add(&part);
                    self.appenders.push(one);
                }
                () = sleep(Duration::from_millis(200)) => bar.set_position(self.stored() - before),
            }
        }
        bar.finish_and_clear();
        let server = (!server.is_empty()).then(|| meters.1.used()).transpose()?;
        Ok((done, Cost { generator: meters.0.used()?, server }))
    }

    fn stored(&self) -> u64 {
        self.logs.iter().map(|log| log.stored()).sum()
    }

    async fn close(self, report: &mut Report) -> Result<()> {
        let found = check(&*self.opened.store, &self.logs).await?;
        if !found.held() {
            report.problems.push(format!(
                "{}: of {} entries {} are lost, {} twice, {} out of order",
                self.kind.name(),
                found.sent,
                found.lost,
                found.duplicated,
                found.reordered
            ));
        }
        let total = &mut report.total;
        total.sent += found.sent;
        total.expected += found.expected;
        total.delivered += found.delivered;
        total.lost += found.lost;
        total.duplicated += found.duplicated;
        total.reordered += found.reordered;
        drop(self.appenders);
        let size = self.opened.close().await?;
        report.run(&[("entries", json!(found.sent)), ("size", of_each(size, found.sent))]);
        Ok(())
    }
}

fn appended(done: &Appended, cost: &Cost) -> Value {
    let mut figures = json!({
        "entries": done.entries,
        "entries_per_s": each(done.entries, cost.generator.wall.as_secs_f64()),
        "latency_ms": Latency::of(&done.latency_us),
        "commit_ms": Latency::of(&done.commit_us),
        "commits": done.commits,
        "entries_per_commit": each(done.entries, done.commits as f64),
        "late_ms_max": done.late.as_secs_f64() * 1e3,
        "cpu_us_per_entry": cost.generator.cpu_us_each(done.entries),
    });
    if let Some(server) = cost.server {
        figures["server_cpu_us_per_entry"] = json!(server.cpu_us_each(done.entries));
    }
    figures
}

fn pages_read(read: &Read, took: Duration) -> Value {
    let secs = took.as_secs_f64();
    let mut figures = json!({
        "pages": read.pages,
        "pages_per_s": each(read.pages, secs),
        "entries_per_s": each(read.entries, secs),
        "entries_per_page": each(read.entries, read.pages as f64),
    });
    for (place, latency_us) in PLACES.iter().zip(&read.latency_us) {
        figures[format!("{place}_ms")] = json!(Latency::of(latency_us));
    }
    figures
}

fn of_each(size: Size, entries: u64) -> Value {
    let each = |bytes: Option<u64>| bytes.map(|bytes| each(bytes, entries as f64));
    json!({
        "disk_bytes": size.disk_bytes,
        "disk_bytes_per_entry": each(size.disk_bytes),
        "memory_bytes": size.memory_bytes,
        "memory_bytes_per_entry": each(size.memory_bytes),
    })
}

fn each(count: u64, of: f64) -> f64 {
    if of > 0.0 { count as f64 / of } else { 0.0 }
}
