//! What an owner tells about itself.

use edgeway_proto::Class;
use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use crate::room::{ACK_STATUSES, Counts, Kind};

/// The metrics of one shard. Handles, so that no name is looked up for each message.
pub(super) struct Metrics {
    messages: [[Counter; 5]; 3],
    pub(super) rooms: Gauge,
    members: Gauge,
    pub(super) control_bytes: Gauge,
    pub(super) bulk_bytes: Gauge,
    pub(super) pending_bytes: Gauge,
    pub(super) unstored_bytes: Gauge,
    pub(super) unstored_dropped: Counter,
    pub(super) append_seconds: Histogram,
    pub(super) append_errors: Counter,
    pub(super) load_errors: Counter,
    pub(super) read_errors: Counter,
    pub(super) history_refused: Counter,
    pub(super) joins_refused: Counter,
    pub(super) fenced: Counter,
    pub(super) handed_over: Counter,
    pub(super) routes: Counter,
    pub(super) lookups: Counter,
    pub(super) early_routes: Gauge,
    pub(super) early_routes_dropped: Counter,
}

impl Metrics {
    pub(super) fn new(kind: Kind, shard: usize) -> Self {
        let kind = name(kind);
        let shard = shard.to_string();
        let gauge = |name: &'static str| gauge!(name, "kind" => kind, "shard" => shard.clone());
        let count = |name: &'static str| counter!(name, "kind" => kind);
        let error = |op: &'static str| counter!("edgeway_owner_store_errors_total", "kind" => kind, "op" => op);
        Self {
            messages: Class::ALL.map(|class| {
                ACK_STATUSES.map(|(_, outcome)| {
                    counter!("edgeway_owner_messages_total", "kind" => kind,
                        "class" => class.name(), "outcome" => outcome)
                })
            }),
            rooms: gauge("edgeway_owner_rooms"),
            members: gauge("edgeway_owner_members"),
            control_bytes: gauge("edgeway_owner_control_queue_bytes"),
            bulk_bytes: gauge("edgeway_owner_bulk_queue_bytes"),
            pending_bytes: gauge("edgeway_owner_append_queue_bytes"),
            unstored_bytes: gauge("edgeway_owner_chat_append_queue_bytes"),
            unstored_dropped: count("edgeway_owner_chat_unstored_total"),
            append_seconds: histogram!("edgeway_owner_append_seconds", "kind" => kind),
            append_errors: error("append"),
            load_errors: error("load"),
            read_errors: error("read"),
            history_refused: count("edgeway_owner_history_refused_total"),
            joins_refused: count("edgeway_owner_joins_refused_total"),
            fenced: count("edgeway_owner_fenced_total"),
            handed_over: count("edgeway_owner_handed_over_total"),
            routes: count("edgeway_owner_routes_told_total"),
            lookups: count("edgeway_owner_strokes_looked_up_total"),
            early_routes: gauge("edgeway_owner_early_routes"),
            early_routes_dropped: count("edgeway_owner_early_routes_dropped_total"),
        }
    }

    /// Takes over what the rooms counted.
    pub(super) fn add(&self, counts: Counts) {
        for (counters, counts) in self.messages.iter().zip(counts.acks) {
            for (counter, count) in counters.iter().zip(counts) {
                if count > 0 {
                    counter.increment(count);
                }
            }
        }
        if counts.members != 0 {
            self.members.increment(counts.members as f64);
        }
    }
}

/// How a kind is called in metrics.
pub(super) const fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Room | Kind::Apart => "room",
        Kind::Strokes => "strokes",
        Kind::Inbox => "inbox",
    }
}

/// A gauge's value.
pub(super) fn level(n: usize) -> f64 {
    f64::from(u32::try_from(n).unwrap_or(u32::MAX))
}
