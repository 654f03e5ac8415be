//! The gateway's metrics, by Prometheus convention. Handles are made once: nothing on the path of
//! a message looks a name up.

use edgeway_proto::{Class, CloseCode};
use metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, gauge};

/// Handles of what the path of a message counts.
#[derive(Clone)]
pub struct Metrics {
    delivered: [Counter; 3],
    behind: [Counter; 3],
    stale: [Counter; 3],
    writes: [Counter; 3],
    shed: Counter,
    uplink: [Counter; 3],
    uplink_shed: Counter,
    /// Connections that are open.
    pub connections: Gauge,
    /// Sessions that are open.
    pub sessions: Gauge,
    /// Groups that have members here.
    pub groups: Gauge,
    /// Bytes queued and in flight in all outboxes.
    pub outbox_bytes: Gauge,
    /// The same in the fullest.
    pub outbox_bytes_max: Gauge,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

impl Default for Metrics {
    fn default() -> Self {
        describe();
        let per_class =
            |name: &'static str| Class::ALL.map(|c| counter!(name, "class" => c.name()));
        Self {
            delivered: per_class("edgeway_gateway_deliveries_total"),
            behind: per_class("edgeway_gateway_behind_total"),
            stale: per_class("edgeway_gateway_stale_total"),
            writes: per_class("edgeway_gateway_writes_total"),
            uplink: per_class("edgeway_gateway_uplink_frames_total"),
            shed: counter!("edgeway_gateway_chat_shed_total"),
            uplink_shed: counter!("edgeway_gateway_uplink_shed_total"),
            connections: gauge!("edgeway_gateway_connections"),
            sessions: gauge!("edgeway_gateway_sessions"),
            groups: gauge!("edgeway_gateway_groups"),
            outbox_bytes: gauge!("edgeway_gateway_outbox_bytes"),
            outbox_bytes_max: gauge!("edgeway_gateway_outbox_bytes_max"),
        }
    }
}

fn describe() {
    describe_counter!("edgeway_gateway_deliveries_total", "messages pushed to an outbox, by class");
    describe_counter!(
        "edgeway_gateway_behind_total",
        "members that fell behind: their outbox was full"
    );
    describe_counter!(
        "edgeway_gateway_stale_total",
        "items dropped because another owner has followed the one that sent them, by class"
    );
    describe_counter!(
        "edgeway_gateway_writes_total",
        "times that frames were handed to a transport, by class"
    );
    describe_counter!("edgeway_gateway_chat_shed_total", "chat messages shed at a full outbox");
    describe_counter!(
        "edgeway_gateway_uplink_frames_total",
        "frames passed on to backends, by class"
    );
    describe_counter!("edgeway_gateway_uplink_shed_total", "chat frames shed at a full link");
    describe_counter!(
        "edgeway_gateway_refused_total",
        "connections refused before login, by reason"
    );
    describe_counter!("edgeway_gateway_closed_total", "connections closed by the gateway, by code");
    describe_counter!("edgeway_gateway_resumes_total", "logins by session token, by result");
    describe_counter!(
        "edgeway_gateway_early_data_total",
        "connections that began with early data, by whether their handshake was completed"
    );
    describe_counter!(
        "edgeway_gateway_open_timeouts_total",
        "Sessions closed because their backends did not answer"
    );
    describe_counter!("edgeway_gateway_link_lost_total", "links to backends that were lost");
    describe_gauge!("edgeway_gateway_connections", "connections that are open, by transport");
    describe_gauge!("edgeway_gateway_sessions", "Sessions that are open");
    describe_gauge!("edgeway_gateway_groups", "groups that have members on this gateway");
    describe_gauge!(
        "edgeway_gateway_outbox_bytes",
        "bytes queued for clients or on their way to them, once a second"
    );
    describe_gauge!(
        "edgeway_gateway_outbox_bytes_max",
        "the same of the connection that has most; gateway.limits.outbox_bytes bounds it"
    );
    describe_gauge!(
        "edgeway_gateway_link_bytes",
        "bytes that wait for a link, by backend and stream"
    );
}

impl Metrics {
    /// Deliveries of a publication, and chat shed to make room for it.
    pub fn published(&self, class: Class, delivered: u64, shed: u32) {
        self.delivered[class.index()].increment(delivered);
        if shed > 0 {
            self.shed.increment(u64::from(shed));
        }
    }

    /// Frames were handed to a transport.
    pub fn written(&self, class: Class) {
        self.writes[class.index()].increment(1);
    }

    /// A member fell behind.
    pub fn behind(&self, class: Class) {
        self.behind[class.index()].increment(1);
    }

    /// Something came of an owner that another one has followed.
    pub fn stale(&self, class: Class) {
        self.stale[class.index()].increment(1);
    }

    /// Frames passed on to a backend.
    pub fn uplink(&self, class: Class, frames: u64) {
        self.uplink[class.index()].increment(frames);
    }

    /// Chat that did not fit into a link.
    pub fn uplink_shed(&self) {
        self.uplink_shed.increment(1);
    }

    /// A connection was refused before it could log in.
    pub fn refused(&self, reason: &'static str) {
        counter!("edgeway_gateway_refused_total", "reason" => reason).increment(1);
    }

    /// A client has logged in by session token, or tried to.
    pub fn resumed(&self, accepted: bool) {
        let result = if accepted { "accepted" } else { "refused" };
        counter!("edgeway_gateway_resumes_total", "result" => result).increment(1);
    }

    /// A connection began with early data, and its handshake was completed, or not.
    pub fn early_data(&self, confirmed: bool) {
        let result = if confirmed { "confirmed" } else { "unconfirmed" };
        counter!("edgeway_gateway_early_data_total", "result" => result).increment(1);
    }

    /// Sessions were closed because their backends had not answered.
    pub fn unanswered(&self, sessions: usize) {
        counter!("edgeway_gateway_open_timeouts_total").increment(sessions as u64);
    }

    /// A connection was closed by the gateway.
    pub fn closed(&self, code: CloseCode) {
        counter!("edgeway_gateway_closed_total", "code" => code.name()).increment(1);
    }
}
