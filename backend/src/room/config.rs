//! The numbers of a room, each with its reason.

use std::time::Duration;

use edgeway_proto::limits;

use super::Filtering;

/// What a room goes by. The values are valid: see [`crate::shard::OwnerConfig`].
#[derive(Debug, Clone)]
pub struct RoomConfig {
    /// Chat messages forwarded a second; a screen shows 10 to 20, and more only flickers.
    /// 0: all of them.
    pub chat_per_second: u32,
    /// Chat is forwarded at most once in this time, so that what arrives together costs one push.
    pub chat_batch: Duration,
    /// Chat messages that may wait for the next batch. What comes above is shed, and counted.
    pub chat_waiting: usize,
    /// Payloads that may wait for the next batch. What comes above is shed, and counted.
    pub chat_waiting_bytes: usize,
    /// Whether chat is stored, behind its delivery. Signals and strokes always are: repair needs them.
    pub chat_history: bool,
    /// Who came and went is told at most once in this time.
    pub presence_interval: Duration,
    /// Above this many users presence is told as a count, without names.
    pub presence_names_max: usize,
    /// Sessions that may be attached, senders to an inbox included. Above: `room_full`.
    pub members_max: usize,
    /// Bytes of one payload. Above: `too_large`.
    pub payload_bytes: usize,
    /// Keys of room state. Above: `too_large`.
    pub state_keys: usize,
    /// Bytes of room state, as whole frames. Above: `too_large`.
    pub state_bytes: usize,
    /// Signals and strokes that may wait for the store. Above: refused with `unavailable`.
    pub pending_bytes: usize,
    /// Devices whose last message ids are remembered. Above: the longest idle is forgotten.
    pub senders_max: usize,
    /// Messages of one device and class whose place is remembered, to answer repeats with it.
    pub recent_ids: usize,
    /// A room without members is kept in memory for this long.
    pub idle_unload: Duration,
    /// What is said, and by whom; none for all of it.
    pub filter: Option<Filtering>,
}

impl Default for RoomConfig {
    fn default() -> Self {
        Self {
            chat_per_second: 20,
            chat_batch: Duration::from_millis(20),
            // 500 members sending at once, and 8 times that.
            chat_waiting: 4096,
            chat_waiting_bytes: 2 << 20,
            chat_history: true,
            presence_interval: Duration::from_secs(1),
            presence_names_max: 1000,
            members_max: 100_000,
            payload_bytes: limits::PAYLOAD_BYTES,
            state_keys: limits::STATE_KEYS,
            state_bytes: limits::STATE_BYTES,
            pending_bytes: 8 << 20,
            senders_max: 100_000,
            recent_ids: 32,
            idle_unload: Duration::from_secs(60),
            filter: None,
        }
    }
}
