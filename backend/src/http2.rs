//! HTTP/2 as the links need it: few connections, long streams, small messages that must not wait.

use std::time::Duration;

use tonic::transport::{Endpoint, Server};

/// How long a dead peer may go unseen: this, and once more for the answer. Shorter than what a
/// client takes to give up; long enough for a process that is stopped in a debugger or swapped.
const KEEPALIVE: Duration = Duration::from_secs(5);

/// What one stream may have on its way: 64 KiB, the default, would stop a link of 1 ms at 64 MB/s
/// and one of 20 ms at 3 MB/s.
const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;

/// What all streams of a connection may have on their way together: clear of both streams of a
/// link, so that a stalled BULK does not take the window from CONTROL.
const CONNECTION_WINDOW_BYTES: u32 = 8 * STREAM_WINDOW_BYTES;

/// HTTP/2's smallest. A frame is what a signal on another stream of the connection waits behind.
const FRAME_BYTES: u32 = 16 * 1024;

/// Streams of one peer: two for each link and role, and logins, of which thousands may come at once.
const STREAMS: u32 = 4096;

/// A server for links and logins.
pub(crate) fn server() -> Server {
    Server::builder()
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES)
        .max_concurrent_streams(STREAMS)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
}

/// A client with the same settings.
pub(crate) fn client(endpoint: Endpoint) -> Endpoint {
    endpoint
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .keep_alive_while_idle(true)
}
