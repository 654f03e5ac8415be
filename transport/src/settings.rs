//! The QUIC settings of both ends, each with its reason.

use std::{sync::Arc, time::Duration};

use crate::congestion::RealtimeConfig;
use quinn::{IdleTimeout, TransportConfig, VarInt};

/// What is chosen for every connection of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Sessions that a connection may have open. Each permitted stream costs memory on an idle
    /// connection (quinn inserts its slot in advance), so few are permitted.
    pub sessions: u8,
    /// Silence after which a connection is given up.
    pub idle_timeout: Duration,
    /// How often a client sends something on an idle connection, so that NAT bindings for UDP
    /// (which may expire after 30 s) stay; `None` where the owner of the connection does so
    /// ([`Sender::beat`](crate::Sender::beat)). The server sends nothing by itself: at a million
    /// connections its pings would cost a core.
    pub keep_alive: Option<Duration>,
    /// TCP connections use bbr where the kernel has it and permits it to this process, else what the system
    /// has chosen for the route. At 10% loss the p99 of plain TCP is six times better with it than with
    /// cubic.
    pub tcp_bbr: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            // The five types and three of one's own.
            sessions: 8,
            idle_timeout: Duration::from_secs(30),
            keep_alive: Some(Duration::from_secs(12)),
            tcp_bbr: true,
        }
    }
}

/// Receive window of a stream. The credit of a signal lane (64 KiB) and one frame above it, so
/// that credit is what holds a sender back and never the stream.
const STREAM_WINDOW: u32 = 160 * 1024;

/// Receive window of a connection: the most that a peer can make this end hold.
const CONNECTION_WINDOW: u32 = 640 * 1024;

/// Send window of a connection: the outbox bound (256 KB) and the credit of the low lanes fit
/// into it, so that a low lane can never keep a signal out of quinn's buffer.
const SEND_WINDOW: u64 = 512 * 1024;

/// Datagrams outrank streams in quinn, so little of them may wait.
const DATAGRAM_BUFFER: usize = 16 * 1024;

/// What is assumed before the first measurement. The default, 333 ms, makes the loss of the first
/// flight cost a second; 100 ms halved the handshake's p95 at 5% loss.
const INITIAL_RTT: Duration = Duration::from_millis(100);

fn common(settings: Settings) -> TransportConfig {
    let mut config = TransportConfig::default();
    config
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW))
        .send_window(SEND_WINDOW)
        .datagram_receive_buffer_size(Some(DATAGRAM_BUFFER))
        .datagram_send_buffer_size(DATAGRAM_BUFFER)
        .initial_rtt(INITIAL_RTT)
        .congestion_controller_factory(Arc::new(RealtimeConfig))
        // Costs 9 KB of an idle connection, and probes that a lossy path loses.
        .mtu_discovery_config(None)
        // 60 s at most, so it fits.
        .max_idle_timeout(IdleTimeout::try_from(settings.idle_timeout).ok());
    config
}

/// What a gateway uses.
#[must_use]
pub fn server_transport(settings: Settings) -> Arc<TransportConfig> {
    let mut config = common(settings);
    config
        // The control stream and one for each Session.
        .max_concurrent_bidi_streams(VarInt::from(u32::from(settings.sessions) + 1))
        // A binary and a chat lane for each Session.
        .max_concurrent_uni_streams(VarInt::from(u32::from(settings.sessions) * 2));
    Arc::new(config)
}

/// What a client uses.
#[must_use]
pub fn client_transport(settings: Settings) -> Arc<TransportConfig> {
    let mut config = common(settings);
    config
        // A gateway opens no bidirectional streams.
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from(u32::from(settings.sessions) * 2))
        .keep_alive_interval(settings.keep_alive);
    Arc::new(config)
}
