//! The client of Kafka: librdkafka, as an idempotent producer that waits for all replicas and never gives up.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use metrics::gauge;
use parking_lot::Mutex;
use rdkafka::{
    ClientConfig, ClientContext,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode},
    message::DeliveryResult,
    producer::{BaseProducer, BaseRecord, Producer, ProducerContext},
};

use crate::{
    config,
    relay::{Broker, NotSent, Outcome, Rejection},
    segment::Record,
};

/// What must hold, whatever else is configured ([`config`] refuses these keys).
const SETTINGS: [(&str, &str); 5] = [
    ("enable.idempotence", "true"),
    ("acks", "all"),
    // What is rejected stops all behind it, so that none of the same user passes it.
    ("enable.gapless.guarantee", "true"),
    // For ever: what waits is bounded by the window, and the rest is on disk.
    ("message.timeout.ms", "0"),
    // The window is what bounds.
    ("queue.buffering.max.messages", "100000"),
];

/// What an operator may say otherwise.
const DEFAULTS: [(&str, &str); 5] = [
    ("client.id", "edgeway"),
    ("compression.type", "lz4"),
    ("linger.ms", "5"),
    // As the clients in Java place keys, so that all producers of a topic agree.
    ("partitioner", "murmur2_random"),
    // When Kafka is back, it is seen within a second.
    ("reconnect.backoff.max.ms", "1000"),
];

pub(crate) struct Client {
    settings: ClientConfig,
    topic: String,
    context: Context,
    producer: Option<BaseProducer<Context>>,
}

#[derive(Clone, Default)]
struct Context(Arc<Shared>);

#[derive(Default)]
struct Shared {
    outcomes: Mutex<Vec<Outcome>>,
    is_away: AtomicBool,
}

impl Client {
    /// Kafka need not be there.
    pub(crate) fn new(kafka: &config::Kafka) -> Result<Self, String> {
        let mut settings = ClientConfig::new();
        settings.set_log_level(RDKafkaLogLevel::Warning);
        for (name, value) in DEFAULTS {
            settings.set(name, value);
        }
        for (name, value) in &kafka.properties {
            settings.set(name, value);
        }
        settings.set("bootstrap.servers", kafka.brokers.join(","));
        for (name, value) in SETTINGS {
            settings.set(name, value);
        }
        let (topic, context) = (kafka.topic.clone(), Context::default());
        let mut client = Self { settings, topic, context, producer: None };
        client.restart()?;
        gauge!("edgeway_events_kafka_away").set(0.0);
        Ok(client)
    }
}

impl Broker for Client {
    fn send(&mut self, position: u64, record: &Record) -> Result<(), NotSent> {
        let Some(producer) = &self.producer else {
            let why = "there is no client".to_owned();
            return Err(NotSent::Rejected(Rejection { why, of_event: false }));
        };
        let message = BaseRecord::with_opaque_to(&self.topic, Box::new(position))
            .key(&record.key)
            .payload(&record.value)
            .timestamp(record.at_ms.cast_signed());
        match producer.send(message) {
            Ok(()) => Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                Err(NotSent::Full)
            }
            Err((error, _)) => Err(NotSent::Rejected(rejection(&error))),
        }
    }

    fn poll(&mut self, wait: Duration) -> Vec<Outcome> {
        let Some(producer) = &self.producer else { return Vec::new() };
        producer.poll(wait);
        let mut outcomes = std::mem::take(&mut *self.context.0.outcomes.lock());
        if let Some((code, why)) = producer.client().fatal_error() {
            let why = format!("{code}: {why}");
            outcomes.push(Outcome::Rejected(None, Rejection { why, of_event: false }));
        }
        if outcomes.iter().any(|outcome| matches!(outcome, Outcome::Delivered(_))) {
            self.context.is_back();
        }
        outcomes
    }

    fn restart(&mut self) -> Result<(), String> {
        // What it holds comes back as outcomes while it ends.
        self.producer = None;
        self.context.0.outcomes.lock().clear();
        let made = self.settings.create_with_context(self.context.clone());
        self.producer = Some(made.map_err(|error| error.to_string())?);
        Ok(())
    }
}

fn rejection(error: &KafkaError) -> Rejection {
    use RDKafkaErrorCode::{
        InvalidMessage, InvalidMessageSize, InvalidRecord, InvalidTimestamp, MessageSizeTooLarge,
    };
    let of_event = matches!(
        error.rdkafka_error_code(),
        Some(
            InvalidMessage
                | InvalidMessageSize
                | InvalidRecord
                | InvalidTimestamp
                | MessageSizeTooLarge
        )
    );
    Rejection { why: error.to_string(), of_event }
}

impl Context {
    fn is_back(&self) {
        if self.0.is_away.swap(false, Ordering::Relaxed) {
            gauge!("edgeway_events_kafka_away").set(0.0);
            tracing::info!("Kafka is back");
        }
    }
}

impl ClientContext for Context {
    fn error(&self, error: KafkaError, reason: &str) {
        use RDKafkaErrorCode::{AllBrokersDown, Authentication, Fatal, Resolve};
        match error.rdkafka_error_code() {
            Some(AllBrokersDown | Authentication | Resolve)
                if !self.0.is_away.swap(true, Ordering::Relaxed) =>
            {
                gauge!("edgeway_events_kafka_away").set(1.0);
                tracing::warn!(reason, "Kafka is away; events wait on disk");
            }
            // It comes with what was rejected.
            Some(Fatal) => {}
            _ => tracing::debug!(%error, reason, "Kafka"),
        }
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // What is to be known comes as an error; this is told again with each attempt.
        tracing::debug!(?level, facility, message, "librdkafka");
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = Box<u64>;

    fn delivery(&self, result: &DeliveryResult<'_>, position: Box<u64>) {
        let outcome = match result {
            Ok(_) => Outcome::Delivered(*position),
            Err((error, _)) => Outcome::Rejected(Some(*position), rejection(error)),
        };
        self.0.outcomes.lock().push(outcome);
    }
}
