//! What the events tell about themselves.

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use crate::Event;

pub(crate) struct Metrics {
    recorded: [Counter; 5],
    pub(crate) written: Counter,
    pub(crate) write_errors: Counter,
    pub(crate) queue_bytes: Gauge,
    pub(crate) file_bytes: Gauge,
    pub(crate) spilled: Counter,
    pub(crate) spill_bytes: Gauge,
    pub(crate) rejected: Counter,
    pub(crate) delivery_seconds: Histogram,
    pub(crate) queue_full: Counter,
    pub(crate) stopped: Counter,
    pub(crate) spill_full: Counter,
    pub(crate) refused: Counter,
    pub(crate) lost: Counter,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

impl Metrics {
    pub(crate) fn new(sink: &'static str) -> Self {
        let dropped =
            |cause: &'static str| counter!("edgeway_events_dropped_total", "cause" => cause);
        Self {
            recorded: Event::TYPES
                .map(|name| counter!("edgeway_events_recorded_total", "type" => name)),
            written: counter!("edgeway_events_written_total", "sink" => sink),
            write_errors: counter!("edgeway_events_write_errors_total"),
            queue_bytes: gauge!("edgeway_events_queue_bytes"),
            file_bytes: gauge!("edgeway_events_file_bytes"),
            spilled: counter!("edgeway_events_spilled_total"),
            spill_bytes: gauge!("edgeway_events_spill_bytes"),
            rejected: counter!("edgeway_events_rejected_total"),
            delivery_seconds: histogram!("edgeway_events_delivery_seconds", "sink" => sink),
            queue_full: dropped("queue_full"),
            stopped: dropped("stopped"),
            spill_full: dropped("spill_full"),
            refused: dropped("refused"),
            lost: dropped("disk"),
        }
    }

    pub(crate) fn recorded(&self, event: &Event) {
        self.recorded[event.index()].increment(1);
    }

    /// An event has arrived that was recorded then.
    pub(crate) fn delivered(&self, recorded_ms: u64, now_ms: u64) {
        self.written.increment(1);
        self.delivery_seconds.record(now_ms.saturating_sub(recorded_ms) as f64 / 1000.0);
    }
}
