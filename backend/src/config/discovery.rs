//! The rules of `[discovery]` and of the address that others dial.

use std::{net::SocketAddr, time::Duration};

use super::{RawDiscovery, check::Check};

/// Long enough that a busy process is not taken for dead (it says four times as often that it lives), and
/// short enough that a lesson goes on.
const LEASE_MS: i64 = 2_000;
/// What name servers answer is good for some seconds at least.
const DNS_MS: i64 = 5_000;

/// How instances are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Discovery {
    /// How long an instance may be silent in the registry before others take its rooms.
    pub lease: Duration,
    /// After which names are resolved again.
    pub dns: Duration,
}

impl Check<'_> {
    pub(super) fn discovery(&mut self, raw: &RawDiscovery) -> Discovery {
        let lease = self.number("discovery.lease_ms", raw.lease_ms, LEASE_MS, 500..=60_000);
        let dns = self.number("discovery.dns_ms", raw.dns_ms, DNS_MS, 100..=3_600_000);
        // The ranges make the conversions exact.
        let ms = |ms: i64| Duration::from_millis(ms.unsigned_abs());
        Discovery { lease: ms(lease), dns: ms(dns) }
    }

    pub(super) fn advertise(
        &mut self,
        raw: Option<String>,
        listen: SocketAddr,
        on_redis: bool,
    ) -> Option<String> {
        match raw.filter(|address| !address.is_empty()) {
            Some(address) => {
                if let Err(problem) = self.links.check_own(&address) {
                    self.problem("backend.advertise", format!("`{address}` {problem}"));
                }
                Some(address)
            }
            None if on_redis && listen.ip().is_unspecified() => {
                self.problem(
                    "backend.advertise",
                    format!(
                        "is missing: backend.listen = \"{listen}\" is no address that others can dial; \
                         name the one by which they reach this process, such as \"10.0.0.5:{}\"",
                        listen.port()
                    ),
                );
                None
            }
            None => None,
        }
    }
}
