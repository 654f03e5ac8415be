//! One sample.

use serde::{Deserialize, Serialize};

/// What an instance had to do in the second before. All units are in the names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Load {
    /// When it was measured, on the instance's clock.
    pub at_unix_ms: u64,
    /// Of clients at a gateway; links at a backend.
    pub connections: u64,
    /// Sessions that are open.
    pub sessions: u64,
    /// Rooms and inboxes in memory.
    pub rooms: u64,
    /// Messages that came from clients.
    pub messages_in_per_second: f64,
    /// Messages pushed to clients.
    pub messages_out_per_second: f64,
    /// CPU used: 1 is one core all the time.
    pub cpu_cores: f64,
    /// Memory in RAM.
    pub memory_bytes: u64,
    /// The longest that something ready had to wait for its turn.
    pub loop_lag_ms: f64,
}

impl Load {
    /// The same without what is no number: anybody may have written it.
    #[must_use]
    pub fn sane(mut self) -> Self {
        for value in [
            &mut self.messages_in_per_second,
            &mut self.messages_out_per_second,
            &mut self.cpu_cores,
            &mut self.loop_lag_ms,
        ] {
            if !value.is_finite() || *value < 0.0 {
                *value = 0.0;
            }
        }
        self
    }

    /// Of several instances together: sums, the latest time, and the longest lag.
    #[must_use]
    pub fn plus(self, other: &Self) -> Self {
        Self {
            at_unix_ms: self.at_unix_ms.max(other.at_unix_ms),
            connections: self.connections.saturating_add(other.connections),
            sessions: self.sessions.saturating_add(other.sessions),
            rooms: self.rooms.saturating_add(other.rooms),
            messages_in_per_second: self.messages_in_per_second + other.messages_in_per_second,
            messages_out_per_second: self.messages_out_per_second + other.messages_out_per_second,
            cpu_cores: self.cpu_cores + other.cpu_cores,
            memory_bytes: self.memory_bytes.saturating_add(other.memory_bytes),
            loop_lag_ms: self.loop_lag_ms.max(other.loop_lag_ms),
        }
    }
}
