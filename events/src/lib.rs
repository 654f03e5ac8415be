//! Events: who is online, who is in which room, and what is said there, for others to read; into files, or to Kafka.
//! docs/EVENTS.md is what they can rely on.
//!
//! Recording never waits: an event goes into a bounded queue, from which a thread of its own writes.
//!
//! ```
//! # let dir = tempfile::tempdir().unwrap();
//! use edgeway_events::{Event, Events, What, config};
//! let config = config::validate(Default::default(), dir.path(), "room-1", &mut |_, _| {});
//! let (events, writer) = Events::start(config)?;
//! events.record(Event { user: "ada".into(), what: What::Online { device: "phone".into() } });
//! writer.stop();
//! # Ok::<(), edgeway_events::StartError>(())
//! ```

pub mod config;
mod event;
mod file;
mod home;
#[cfg(feature = "kafka")]
mod kafka;
mod metrics;
mod queue;
#[cfg_attr(
    not(feature = "kafka"),
    allow(dead_code, reason = "what only Kafka needs is tested without it")
)]
mod relay;
#[cfg_attr(not(feature = "kafka"), allow(dead_code, reason = "as above"))]
mod segment;
#[cfg_attr(not(feature = "kafka"), allow(dead_code, reason = "as above"))]
mod spool;
#[cfg_attr(not(feature = "kafka"), allow(dead_code, reason = "as above"))]
mod window;
#[cfg_attr(not(feature = "kafka"), allow(dead_code, reason = "as above"))]
mod writer;

use std::{io, path::PathBuf, sync::Arc, thread};

use config::{Config, Sink};
pub use event::{Cause, Event, Message, VERSION, What};
pub use file::FileLimits;
use file::Lines;
use home::Home;
use metrics::Metrics;
use queue::{NotTaken, Queue};
use writer::Writing;

/// Why events cannot be written. All are for the operator.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The directory cannot be used.
    #[error(
        "cannot write events in {}: {source}; name a directory in events.path that this user may write, or set \
         events.sink = \"off\"",
        dir.display()
    )]
    Dir {
        /// `events.path`.
        dir: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The client of Kafka does not take its settings.
    #[error("events.kafka: {0}")]
    Kafka(String),
}

/// Takes events. Cheap to clone; the default takes none.
#[derive(Debug, Clone, Default)]
pub struct Events(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    queue: Arc<Queue>,
    metrics: Arc<Metrics>,
    messages: [bool; 3],
}

/// The thread that writes; the default has none.
#[derive(Debug, Default)]
pub struct Writer(Option<(Arc<Queue>, thread::JoinHandle<()>)>);

impl Events {
    /// Opens the sink and starts to write.
    ///
    /// # Errors
    /// Where the directory cannot be used, or the settings of Kafka are none. Kafka itself need not be there.
    pub fn start(config: Config) -> Result<(Self, Writer), StartError> {
        let Config { sink, dir, node, messages, queue_bytes, sync } = config;
        let name = match &sink {
            Sink::Off => return Ok(Default::default()),
            Sink::File(_) => "file",
            Sink::Kafka(_) => "kafka",
        };
        let failed = |source| StartError::Dir { dir: dir.clone(), source };
        let home = Home::open(&dir).map_err(failed)?;
        let dir = home.dir().to_owned();
        let failed = |source| StartError::Dir { dir: dir.clone(), source };
        let queue = Arc::new(Queue::new(queue_bytes));
        let metrics = Arc::new(Metrics::new(name));
        let writing =
            Writing { queue: Arc::clone(&queue), home, node, metrics: Arc::clone(&metrics), sync };
        let run: Box<dyn FnOnce() + Send> = match sink {
            Sink::Off => Box::new(|| {}),
            Sink::File(limits) => {
                let lines = Lines::open(dir.clone(), limits).map_err(failed)?;
                Box::new(|| writing.into_files(lines))
            }
            Sink::Kafka(kafka) => to_kafka(&kafka, writing)?,
        };
        let thread = thread::Builder::new().name("events".to_owned()).spawn(run).map_err(failed)?;
        let writer = Writer(Some((Arc::clone(&queue), thread)));
        Ok((Self(Some(Arc::new(Inner { queue, metrics, messages }))), writer))
    }

    /// Records an event. Never waits; one that has no room is dropped and counted.
    pub fn record(&self, event: Event) {
        let Some(inner) = &self.0 else { return };
        inner.metrics.recorded(&event);
        match inner.queue.push(event) {
            Ok(()) => {}
            Err(NotTaken::Full) => inner.metrics.queue_full.increment(1),
            Err(NotTaken::Stopped) => inner.metrics.stopped.increment(1),
        }
    }

    /// Whether anything is recorded.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Whether messages of a class are events: signal, binary, chat.
    #[must_use]
    pub fn takes_messages(&self) -> [bool; 3] {
        self.0.as_ref().map_or([false; 3], |inner| inner.messages)
    }
}

impl Writer {
    /// Writes what was recorded, and ends. Kafka is given some seconds; what it has not taken then is sent at the next
    /// start. Blocks.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        if let Some((queue, thread)) = self.0.take() {
            queue.stop();
            // It has no reason to panic; what it wrote is written.
            let _ = thread.join();
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(feature = "kafka")]
fn to_kafka(
    kafka: &config::Kafka,
    writing: Writing,
) -> Result<Box<dyn FnOnce() + Send>, StartError> {
    /// What Kafka's client may hold in memory: some seconds of a busy process.
    const WINDOW: window::Limits = window::Limits { events: 10_000, bytes: 8 << 20 };
    let dir = writing.home.dir().to_owned();
    let spool = spool::Spool::open(dir.join("spill"), kafka.spill_bytes);
    let spool = spool.map_err(|source| StartError::Dir { dir, source })?;
    let client = kafka::Client::new(kafka).map_err(StartError::Kafka)?;
    let relay = relay::Relay::new(spool, client, WINDOW);
    Ok(Box::new(|| writing.into_kafka(relay)))
}

/// The config was checked before; this is for those who did not.
#[cfg(not(feature = "kafka"))]
fn to_kafka(_: &config::Kafka, _: Writing) -> Result<Box<dyn FnOnce() + Send>, StartError> {
    Err(StartError::Kafka("this build has no Kafka".to_owned()))
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        path::Path,
        time::{Duration, Instant},
    };

    use super::*;

    /// The numbers of the events in the files.
    fn numbers(dir: &Path) -> Vec<u64> {
        let files = home::numbered(dir, "events-", ".jsonl").unwrap();
        let texts = files.iter().map(|(_, path)| fs::read_to_string(path).unwrap());
        let number = |line: &str| -> u64 {
            let event: serde_json::Value = serde_json::from_str(line).unwrap();
            event["id"].as_str().unwrap().rsplit_once('-').unwrap().1.parse().unwrap()
        };
        texts.flat_map(|text| text.lines().map(number).collect::<Vec<_>>()).collect()
    }

    #[track_caller]
    fn until(is_so: impl Fn() -> bool) {
        let start = Instant::now();
        while !is_so() {
            assert!(start.elapsed() < Duration::from_secs(60));
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn a_disk_that_fails_costs_no_more_than_what_finds_no_room_in_memory_and_nothing_comes_twice() {
        let all = tempfile::tempdir().unwrap();
        let (dir, away) = (all.path().join("events"), all.path().join("away"));
        // A file for each event.
        let limits = FileLimits {
            file_bytes: 1,
            file_age: Duration::from_secs(3600),
            keep_files: 1000,
            keep_bytes: 1 << 20,
        };
        let (sink, node) = (Sink::File(limits), "node".to_owned());
        let config = Config {
            sink,
            dir: dir.clone(),
            node,
            messages: [false; 3],
            queue_bytes: 2000,
            sync: Duration::ZERO,
        };
        let (events, writer) = Events::start(config).unwrap();
        let record = || {
            let what = What::Online { device: "phone".to_owned() };
            events.record(Event { user: "ada".to_owned(), what });
        };
        let queue = &events.0.as_ref().unwrap().queue;
        record();
        until(|| numbers(&dir) == [1]);
        fs::rename(&dir, &away).unwrap();
        record();
        // Now it is the writer's, who cannot write it.
        until(|| queue.bytes() == 0);
        (0..100).for_each(|_| record());
        fs::rename(&away, &dir).unwrap();
        until(|| queue.bytes() == 0);
        record();
        writer.stop();
        let written = numbers(&dir);
        assert_eq!((&written[..3], written.last()), (&[1, 2, 3][..], Some(&103)));
        assert!(written.is_sorted_by(|a, b| a < b), "{written:?}");
    }
}
