//! The kernel's bbr, and its probe of the round trip.
//!
//! bbr (v1, as Linux has it) sends four packets a round trip for 200 ms, every 10 s, to see the round trip
//! without a queue. Where a lane's credit is in flight nothing leaves until all but three of its packets
//! are acknowledged, and then a signal stands behind what the kernel took before it: on a link of
//! 1 Mbit/s with 100 ms of round trip 250 ms instead of 80. Nothing is gained by it, since credit keeps the
//! queue short. A controller that is chosen anew takes the least round trip that the kernel has seen,
//! keeps its window, and counts its 10 s from then on; so it is chosen anew before they are over.

use std::{
    sync::LazyLock,
    time::{Duration, Instant},
};

use socket2::SockRef;
use tokio::net::TcpStream;

/// Below bbr's 10 s by as much as a busy connection may be without a write.
const AGAIN: Duration = Duration::from_secs(8);

const BBR: &[u8] = b"bbr";

/// Always permitted, and keeps no state.
const BETWEEN: &[u8] = b"reno";

/// Whether any process may choose bbr. Asked once: who has given it up for another must be able to
/// come back to it.
static ALLOWED: LazyLock<bool> = LazyLock::new(|| {
    let names = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_allowed_congestion_control");
    names.is_ok_and(|names| names.split_ascii_whitespace().any(|name| name.as_bytes() == BBR))
});

/// Has a connection use bbr, where there is one.
pub(crate) fn prefer(stream: &TcpStream) {
    if *ALLOWED {
        // What it had carries it too.
        let _ = SockRef::from(stream).set_tcp_congestion(BBR);
    }
}

/// Keeps bbr's probe from a connection that writes. Does nothing for those of another controller.
#[derive(Debug)]
pub(crate) struct Fresh {
    /// When it is chosen anew; `None` where there is nothing to do.
    next: Option<Instant>,
}

impl Fresh {
    pub(crate) fn of(stream: &TcpStream) -> Self {
        let bbr = *ALLOWED && SockRef::from(stream).tcp_congestion().is_ok_and(|n| named(&n));
        Self { next: bbr.then(|| Instant::now() + AGAIN) }
    }

    /// Before a write.
    pub(crate) fn keep(&mut self, stream: &TcpStream) {
        let Some(next) = self.next else { return };
        let now = Instant::now();
        if now < next {
            return;
        }
        let socket = SockRef::from(stream);
        let chosen =
            socket.set_tcp_congestion(BETWEEN).and_then(|()| socket.set_tcp_congestion(BBR));
        self.next = chosen.is_ok().then(|| now + AGAIN);
    }
}

/// The kernel fills the name up with zeros.
fn named(name: &[u8]) -> bool {
    name.strip_prefix(BBR).is_some_and(|rest| rest.iter().all(|byte| *byte == 0))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dialled = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (dialled, listener.accept().await.unwrap().0)
    }

    fn controller(stream: &TcpStream) -> Vec<u8> {
        SockRef::from(stream).tcp_congestion().unwrap()
    }

    #[test]
    fn names_end_with_zeros() {
        assert!(named(b"bbr") && named(b"bbr\0\0\0"));
        assert!(!named(b"bbr2\0") && !named(b"cubic\0") && !named(b""));
    }

    #[tokio::test]
    async fn bbr_is_chosen_where_it_may_be_and_stays_after_it_is_chosen_anew() {
        let (stream, _peer) = pair().await;
        let before = controller(&stream);
        prefer(&stream);
        let mut fresh = Fresh::of(&stream);
        assert_eq!(fresh.next.is_some(), *ALLOWED);
        if !*ALLOWED {
            assert_eq!(controller(&stream), before, "another controller is left alone");
            return;
        }
        fresh.next = Some(Instant::now());
        fresh.keep(&stream);
        assert!(named(&controller(&stream)));
        assert!(fresh.next.unwrap() > Instant::now(), "and will be again");
    }

    #[tokio::test]
    async fn another_controller_is_left_alone() {
        let (stream, _peer) = pair().await;
        SockRef::from(&stream).set_tcp_congestion(BETWEEN).unwrap();
        let mut fresh = Fresh::of(&stream);
        assert!(fresh.next.is_none());
        fresh.keep(&stream);
        assert!(controller(&stream).starts_with(BETWEEN));
    }
}
