//! `[events]`: as it stands in the file, and as it is used.

use std::{
    collections::BTreeMap,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;

use crate::FileLimits;

/// Whether this build has the sink "kafka".
pub const HAS_KAFKA: bool = cfg!(feature = "kafka");

/// `[events]`, nothing checked yet.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawEvents {
    /// `file`, `kafka` or `off`.
    pub sink: Option<String>,
    /// The directory of what is written.
    pub path: Option<String>,
    /// Classes whose messages are events too.
    pub messages: Vec<String>,
    /// Bytes of events that wait to be written.
    pub queue_bytes: Option<i64>,
    /// Milliseconds after which the disk has what was written.
    pub sync_ms: Option<i64>,
    /// `[events.file]`
    pub file: RawFile,
    /// `[events.kafka]`
    pub kafka: RawKafka,
}

/// `[events.file]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawFile {
    /// Bytes above which a file is closed.
    pub max_bytes: Option<i64>,
    /// Seconds after which a file is closed.
    pub max_age_s: Option<i64>,
    /// Files that are kept.
    pub keep_files: Option<i64>,
    /// Bytes that are kept.
    pub keep_bytes: Option<i64>,
}

/// `[events.kafka]`
#[derive(Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawKafka {
    /// HOST:PORT of some brokers.
    pub brokers: Vec<String>,
    /// The topic.
    pub topic: Option<String>,
    /// Bytes on disk while Kafka is away.
    pub spill_bytes: Option<i64>,
    /// More settings of librdkafka.
    pub properties: BTreeMap<String, String>,
}

impl std::fmt::Debug for RawKafka {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Properties may hold passwords: they do not belong into a log.
        f.debug_struct("RawKafka")
            .field("brokers", &self.brokers)
            .field("topic", &self.topic)
            .field("spill_bytes", &self.spill_bytes)
            .field("properties", &self.properties.keys())
            .finish()
    }
}

/// Where events go, and which.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where they go.
    pub sink: Sink,
    /// The directory of what is written: the files, or the spill of Kafka.
    pub dir: PathBuf,
    /// Names the process in events.
    pub node: String,
    /// Whether the messages of a class are events too: signal, binary, chat.
    pub messages: [bool; 3],
    /// The bound of what waits to be written.
    pub queue_bytes: usize,
    /// After this the disk has what was written. Zero: at once.
    pub sync: Duration,
}

/// Where events go.
#[derive(Debug, Clone)]
pub enum Sink {
    /// Nowhere.
    Off,
    /// Into files.
    File(FileLimits),
    /// To Kafka.
    Kafka(Kafka),
}

/// The topic of a Kafka.
#[derive(Clone)]
pub struct Kafka {
    /// HOST:PORT of some brokers.
    pub brokers: Vec<String>,
    /// The topic.
    pub topic: String,
    /// The bound of what waits on disk.
    pub spill_bytes: u64,
    /// More settings of librdkafka.
    pub properties: BTreeMap<String, String>,
}

impl std::fmt::Debug for Kafka {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kafka").field("brokers", &self.brokers).field("topic", &self.topic).finish()
    }
}

/// Names of the classes, in the order of [`Config::messages`].
const CLASSES: [&str; 3] = ["signal", "binary", "chat"];

/// What must hold for the promises that are made: nothing lost, twice, or out of order.
const OURS: [&str; 13] = [
    "bootstrap.servers",
    "metadata.broker.list",
    "enable.idempotence",
    "enable.gapless.guarantee",
    "acks",
    "request.required.acks",
    "message.timeout.ms",
    "delivery.timeout.ms",
    "max.in.flight",
    "max.in.flight.requests.per.connection",
    "retries",
    "message.send.max.retries",
    "transactional.id",
];

/// A few seconds of a busy process, or 40,000 events.
const QUEUE_BYTES: i64 = 8 << 20;
/// What a loss of power may cost, as with Redis and its appendfsync everysec.
const SYNC_MS: i64 = 1_000;
/// Opened by an editor without pain.
const FILE_BYTES: i64 = 64 << 20;
/// A file a day, at least.
const FILE_AGE_S: i64 = 86_400;
const KEEP_FILES: i64 = 100;
/// A small part of any disk; five million events.
const KEEP_BYTES: i64 = 1 << 30;
/// An hour of a thousand events a second.
const SPILL_BYTES: i64 = 1 << 30;

/// Notes a problem: key, and what is wrong and what would be right.
pub type Note<'a> = &'a mut dyn FnMut(String, String);

/// Checks the section. What is wrong is noted, and stands as it is by default.
#[must_use]
pub fn validate(raw: RawEvents, data_dir: &Path, node: &str, note: Note<'_>) -> Config {
    let mut check = Check { note };
    let sink = check.sink(&raw);
    let dir = match raw.path.filter(|path| !path.is_empty()) {
        Some(path) => path.into(),
        None => data_dir.join("events"),
    };
    let queue = check.number("queue_bytes", raw.queue_bytes, QUEUE_BYTES, 1 << 16..=1 << 30);
    let sync = check.number("sync_ms", raw.sync_ms, SYNC_MS, 0..=3_600_000);
    Config {
        sink,
        dir,
        node: node.to_owned(),
        messages: check.messages(&raw.messages),
        queue_bytes: usize::try_from(queue).unwrap_or_default(),
        sync: Duration::from_millis(sync.unsigned_abs()),
    }
}

struct Check<'a> {
    note: Note<'a>,
}

impl Check<'_> {
    fn problem(&mut self, key: &str, problem: impl Into<String>) {
        (self.note)(format!("events.{key}"), problem.into());
    }

    fn sink(&mut self, raw: &RawEvents) -> Sink {
        let file = self.file(&raw.file);
        let kafka = &raw.kafka;
        let sink = raw.sink.as_deref().unwrap_or("file");
        if !kafka.brokers.is_empty() && matches!(sink, "file" | "off") {
            let problem =
                format!("has no effect with events.sink = \"{sink}\"; set events.sink = \"kafka\"");
            self.problem("kafka.brokers", problem);
        }
        match sink {
            "file" => Sink::File(file),
            "off" => Sink::Off,
            "kafka" => {
                if !HAS_KAFKA {
                    self.problem(
                        "sink",
                        "this `edgeway` was built without Kafka; build it with `cargo build --release -p \
                         edgeway-cli --features kafka`, or use \"file\"",
                    );
                }
                Sink::Kafka(self.kafka(&raw.kafka))
            }
            other => {
                let problem = format!(
                    "`{other}` is unknown; \"file\" writes files in events.path, \"kafka\" to the topic of \
                     [events.kafka], and \"off\" nothing"
                );
                self.problem("sink", problem);
                Sink::Off
            }
        }
    }

    fn file(&mut self, raw: &RawFile) -> FileLimits {
        let bytes = 1 << 16..=1 << 40;
        let file = self.number("file.max_bytes", raw.max_bytes, FILE_BYTES, bytes.clone());
        let age = self.number("file.max_age_s", raw.max_age_s, FILE_AGE_S, 1..=31_536_000);
        let files = self.number("file.keep_files", raw.keep_files, KEEP_FILES, 1..=100_000);
        let keep = self.number("file.keep_bytes", raw.keep_bytes, KEEP_BYTES, bytes);
        if file > keep {
            let problem =
                format!("{file} is more than events.file.keep_bytes, {keep}; write that or less");
            self.problem("file.max_bytes", problem);
        }
        FileLimits {
            file_bytes: file.unsigned_abs(),
            file_age: Duration::from_secs(age.unsigned_abs()),
            keep_files: usize::try_from(files).unwrap_or_default(),
            keep_bytes: keep.unsigned_abs(),
        }
    }

    fn kafka(&mut self, raw: &RawKafka) -> Kafka {
        if raw.brokers.is_empty() {
            self.problem(
                "kafka.brokers",
                "is empty; name some brokers, such as [\"kafka-1:9092\"]",
            );
        }
        for (i, broker) in raw.brokers.iter().enumerate() {
            let port = broker.rsplit_once(':').filter(|(host, _)| !host.is_empty());
            let is_one = port.is_some_and(|(_, port)| port.parse::<u16>().is_ok_and(|p| p > 0));
            if !is_one || broker.contains([',', ' ', '/']) {
                let problem =
                    format!("`{broker}` is no broker; write HOST:PORT, such as kafka-1:9092");
                self.problem(&format!("kafka.brokers.{i}"), problem);
            }
        }
        let topic = raw.topic.clone().unwrap_or_else(|| "edgeway-events".to_owned());
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let is_dots = matches!(topic.as_str(), "" | "." | "..");
        if is_dots || topic.len() > 249 || !topic.chars().all(is_plain) {
            let problem =
                format!("`{topic}` is no topic; write 1 to 249 letters, digits, and - _ .");
            self.problem("kafka.topic", problem);
        }
        for name in raw.properties.keys().filter(|name| OURS.contains(&name.as_str())) {
            let problem = if name.ends_with("servers") || name.ends_with("list") {
                "is said by events.kafka.brokers"
            } else {
                "is Edgeway's to say: with another value events could be lost, come twice, or out of order"
            };
            self.problem(&format!("kafka.properties.{name}"), problem);
        }
        let spill = raw.spill_bytes;
        let spill = self.number("kafka.spill_bytes", spill, SPILL_BYTES, 16 << 20..=1 << 42);
        Kafka {
            brokers: raw.brokers.clone(),
            topic,
            spill_bytes: spill.unsigned_abs(),
            properties: raw.properties.clone(),
        }
    }

    fn messages(&mut self, raw: &[String]) -> [bool; 3] {
        for (i, name) in raw.iter().enumerate().filter(|(_, n)| !CLASSES.contains(&n.as_str())) {
            let problem = format!("`{name}` is no class; there are {}", CLASSES.join(", "));
            self.problem(&format!("messages.{i}"), problem);
        }
        CLASSES.map(|class| raw.iter().any(|name| name == class))
    }

    fn number(
        &mut self,
        key: &str,
        raw: Option<i64>,
        default: i64,
        range: RangeInclusive<i64>,
    ) -> i64 {
        match raw {
            None => default,
            Some(n) if range.contains(&n) => n,
            Some(n) => {
                let (least, most) = (range.start(), range.end());
                let problem = format!(
                    "{n} is out of range; {least} to {most} are allowed, {default} is the default"
                );
                self.problem(key, problem);
                default
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(raw: RawEvents) -> Vec<(String, String)> {
        let mut found = Vec::new();
        let _ = validate(raw, Path::new("data"), "room-1", &mut |key, problem| {
            found.push((key, problem))
        });
        if !HAS_KAFKA {
            found.retain(|(_, problem)| !problem.contains("--features kafka"));
        }
        found
    }

    fn kafka(kafka: RawKafka) -> RawEvents {
        RawEvents { sink: Some("kafka".to_owned()), kafka, ..RawEvents::default() }
    }

    #[track_caller]
    fn check(raw: RawEvents, key: &str, told: &str) {
        let found = problems(raw);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].0 == format!("events.{key}") && found[0].1.contains(told), "{found:?}");
    }

    #[test]
    fn each_wrong_key_is_told_with_what_would_be_right() {
        let base = RawEvents::default;
        check(RawEvents { sink: Some("disk".into()), ..base() }, "sink", "\"off\" nothing");
        check(
            RawEvents { messages: vec!["chat".into(), "strokes".into()], ..base() },
            "messages.1",
            "binary",
        );
        check(
            RawEvents { queue_bytes: Some(1), ..base() },
            "queue_bytes",
            "8388608 is the default",
        );
        check(RawEvents { sync_ms: Some(-1), ..base() }, "sync_ms", "0 to");
        let file = RawFile { keep_files: Some(0), ..RawFile::default() };
        check(RawEvents { file, ..base() }, "file.keep_files", "1 to");
        let file = RawFile { keep_bytes: Some(1 << 20), ..RawFile::default() };
        check(RawEvents { file, ..base() }, "file.max_bytes", "1048576; write that or less");
        let there = || RawKafka { brokers: vec!["kafka:9092".into()], ..RawKafka::default() };
        check(RawEvents { kafka: there(), ..base() }, "kafka.brokers", "events.sink = \"kafka\"");
        check(kafka(RawKafka::default()), "kafka.brokers", "is empty");
        for bad in ["kafka", "kafka:0", ":9092", "http://kafka:9092", "a:1,b:2"] {
            let brokers = vec!["kafka:9092".into(), bad.into()];
            check(kafka(RawKafka { brokers, ..there() }), "kafka.brokers.1", "HOST:PORT");
        }
        for bad in ["", "..", "a b", "\u{e4}"] {
            check(kafka(RawKafka { topic: Some(bad.into()), ..there() }), "kafka.topic", "249");
        }
        let properties = BTreeMap::from([("acks".to_owned(), "0".to_owned())]);
        check(kafka(RawKafka { properties, ..there() }), "kafka.properties.acks", "could be lost");
        check(kafka(RawKafka { spill_bytes: Some(1), ..there() }), "kafka.spill_bytes", "16777216");
        assert_eq!(problems(kafka(there())), []);
    }

    #[test]
    fn a_build_without_kafka_says_how_to_get_one_with_it() {
        let mut told = String::new();
        let raw = kafka(RawKafka { brokers: vec!["kafka:9092".into()], ..RawKafka::default() });
        let _ =
            validate(raw, Path::new("data"), "room-1", &mut |_, problem| told.push_str(&problem));
        assert_eq!(told.contains("--features kafka"), !HAS_KAFKA, "{told}");
    }

    #[test]
    fn properties_are_not_printed() {
        let properties = BTreeMap::from([("sasl.password".to_owned(), "secret".to_owned())]);
        let raw = RawKafka { properties: properties.clone(), ..RawKafka::default() };
        assert!(!format!("{raw:?}").contains("secret"));
        let (brokers, topic) = (Vec::new(), "t".to_owned());
        let kafka = Kafka { brokers, topic, spill_bytes: 1, properties };
        assert!(!format!("{kafka:?}").contains("secret"));
    }
}
