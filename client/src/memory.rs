//! What is remembered of the ways to servers, on the network that is there now: whether UDP gets
//! through, and when it is worth another try. Pure: no I/O, no clock. Forgotten after a while and when the
//! network changes.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// For how long it is remembered that TCP won.
const REMEMBERED: Duration = Duration::from_secs(600);

/// Servers that are remembered at a time; the oldest is forgotten first.
const SERVERS_MAX: usize = 64;

/// When QUIC is tried again after TCP has won: soon, since a lost packet or two may have been the
/// reason, then at doubling distances. A try is a handful of packets.
const TRY_FIRST: Duration = Duration::from_secs(5);
const TRY_MAX: Duration = Duration::from_secs(300);

/// A QUIC connection that lasted so long shows that UDP gets through for good, and not only its first
/// packets.
pub(crate) const PROVEN: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy)]
struct Entry {
    /// When something was learned last.
    learned: Instant,
    /// TCP is taken first.
    tcp: bool,
    /// Tries of QUIC that failed, and connections over it that fell silent, since it was proven.
    failures: u32,
    try_at: Instant,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    servers: HashMap<Box<str>, Entry>,
}

impl Memory {
    fn known(&self, server: &str, now: Instant) -> Option<&Entry> {
        self.servers.get(server).filter(|e| now.saturating_duration_since(e.learned) < REMEMBERED)
    }

    /// Whether TCP goes first.
    pub(crate) fn tcp_first(&self, server: &str, now: Instant) -> bool {
        self.known(server, now).is_some_and(|e| e.tcp)
    }

    /// When a client that is on TCP tries QUIC again. `None` where nothing was learned about it:
    /// then [`tcp_won`](Self::tcp_won) has not been called, and is to be.
    pub(crate) fn try_quic_at(&self, server: &str) -> Option<Instant> {
        self.servers.get(server).filter(|e| e.tcp).map(|e| e.try_at)
    }

    /// QUIC did not get through, and TCP did; or a try of QUIC beside TCP has failed.
    pub(crate) fn tcp_won(&mut self, server: &str, now: Instant) {
        let failures = self.known(server, now).map_or(0, |e| e.failures);
        let wait = TRY_FIRST.saturating_mul(1 << failures.min(16)).min(TRY_MAX);
        let failures = failures.saturating_add(1);
        self.make_room(server);
        let entry = Entry { learned: now, tcp: true, failures, try_at: now + wait };
        self.servers.insert(server.into(), entry);
    }

    /// A client is on TCP without a race having been lost just now: QUIC is tried when it is due.
    pub(crate) fn on_tcp(&mut self, server: &str, now: Instant) {
        if self.known(server, now).is_none_or(|e| !e.tcp) {
            self.tcp_won(server, now);
        }
    }

    /// QUIC was the first to be welcomed. What failed before counts until it is proven, so that a
    /// network that lets only first packets through is not tried again and again.
    pub(crate) fn quic_won(&mut self, server: &str) {
        if let Some(entry) = self.servers.get_mut(server) {
            entry.tcp = false;
        }
    }

    /// QUIC has carried a connection for [`PROVEN`].
    pub(crate) fn quic_proven(&mut self, server: &str) {
        self.servers.remove(server);
    }

    /// The network has changed.
    pub(crate) fn clear(&mut self) {
        self.servers.clear();
    }

    fn make_room(&mut self, server: &str) {
        if self.servers.len() >= SERVERS_MAX && !self.servers.contains_key(server) {
            let oldest = self.servers.iter().min_by_key(|(_, e)| e.learned);
            if let Some(oldest) = oldest.map(|(name, _)| name.clone()) {
                self.servers.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: &str = "a.example:4433";

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn what_won_is_remembered_for_a_while_and_on_this_network() {
        let now = Instant::now();
        let mut memory = Memory::default();
        assert!(!memory.tcp_first(SERVER, now));
        memory.tcp_won(SERVER, now);
        assert!(memory.tcp_first(SERVER, now + REMEMBERED - secs(1)));
        assert!(!memory.tcp_first("b.example:4433", now));
        assert!(!memory.tcp_first(SERVER, now + REMEMBERED));
        memory.clear();
        assert!(!memory.tcp_first(SERVER, now));
    }

    #[test]
    fn quic_is_tried_again_at_doubling_distances() {
        let mut now = Instant::now();
        let mut memory = Memory::default();
        let mut waits = Vec::new();
        for _ in 0..9 {
            memory.tcp_won(SERVER, now);
            let at = memory.try_quic_at(SERVER).unwrap();
            waits.push((at - now).as_secs());
            now = at;
        }
        assert_eq!(waits, [5, 10, 20, 40, 80, 160, 300, 300, 300]);
    }

    #[test]
    fn a_network_that_passes_only_first_packets_is_tried_ever_less() {
        let now = Instant::now();
        let mut memory = Memory::default();
        memory.tcp_won(SERVER, now);
        memory.quic_won(SERVER);
        assert!(!memory.tcp_first(SERVER, now));
        memory.tcp_won(SERVER, now);
        assert_eq!(memory.try_quic_at(SERVER), Some(now + secs(10)));
        memory.quic_won(SERVER);
        memory.quic_proven(SERVER);
        memory.tcp_won(SERVER, now);
        assert_eq!(memory.try_quic_at(SERVER), Some(now + secs(5)));
    }

    #[test]
    fn being_on_tcp_is_no_failure() {
        let now = Instant::now();
        let mut memory = Memory::default();
        memory.on_tcp(SERVER, now);
        memory.on_tcp(SERVER, now + secs(3));
        assert_eq!(memory.try_quic_at(SERVER), Some(now + secs(5)));
    }

    #[test]
    fn it_remembers_so_many_servers() {
        let now = Instant::now();
        let mut memory = Memory::default();
        for n in 0..1000 {
            memory.tcp_won(&format!("{n}.example:1"), now + Duration::from_millis(n));
        }
        assert_eq!(memory.servers.len(), SERVERS_MAX);
        assert!(memory.tcp_first("999.example:1", now + secs(1)));
    }
}
