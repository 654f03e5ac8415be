//! Telling of faults: counted each, logged at a rate that nobody can raise.

use std::{
    collections::HashMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use metrics::counter;
use parking_lot::Mutex;
use tracing::{debug, warn};

use crate::fault::Fault;

/// One line of each cause in this time; the others are counted and told with the next.
const EVERY: Duration = Duration::from_secs(1);

/// Lets one line of each cause through. There are as many entries as causes.
#[derive(Debug, Default)]
pub(crate) struct Report(Mutex<HashMap<&'static str, (Instant, u64)>>);

impl Report {
    /// Of a peer that dialled.
    pub(crate) fn refused(&self, peer: SocketAddr, fault: &Fault) {
        let cause = fault.label();
        counter!("edgeway_links_refused_total", "cause" => cause).increment(1);
        // Whoever looks whether the port is open does this every few seconds.
        if *fault == Fault::Gone {
            debug!(%peer, "a peer went away before it was a link");
            return;
        }
        if let Some(held_back) = self.pass(cause, Instant::now()) {
            warn!(%peer, cause, held_back, "a link is refused: {fault}");
        }
    }

    /// How many were held back since the last line that was let through; `None`: hold this one back.
    fn pass(&self, cause: &'static str, now: Instant) -> Option<u64> {
        let mut causes = self.0.lock();
        match causes.get_mut(cause) {
            Some((last, held_back)) if now.duration_since(*last) < EVERY => {
                *held_back += 1;
                None
            }
            found => {
                let held_back = found.map_or(0, |(_, held_back)| *held_back);
                causes.insert(cause, (now, 0));
                Some(held_back)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_one_cause_is_one_line_and_hides_no_other() {
        let (report, now) = (Report::default(), Instant::now());
        assert_eq!(report.pass("clear", now), Some(0));
        assert_eq!((0..1000).filter_map(|_| report.pass("clear", now)).count(), 0);
        assert_eq!(report.pass("other_ca", now), Some(0));
        assert_eq!(report.pass("clear", now + EVERY), Some(1000));
    }
}
