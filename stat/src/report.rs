//! What an instance tells of itself with each heartbeat: one line of JSON, bounded, read with care.

use serde::{Deserialize, Serialize};

use crate::Load;

/// Bytes of a report. It travels four times a lease.
pub const REPORT_BYTES: usize = 2048;
/// Of a cluster's name.
pub const CLUSTER_BYTES: usize = 64;
/// The heaviest weight.
pub const WEIGHT_MAX: u32 = 1_000_000;
/// Of an address or a name that a certificate holds.
const ADDRESS_BYTES: usize = 260;

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// The cluster that it belongs to.
    pub cluster: String,
    /// Where its HTTP is; empty for nowhere.
    pub http: String,
    /// How many connections it may have; 0 where there is no bound.
    pub connections_max: u64,
    /// Cores that it can use.
    pub cores: u64,
    /// Where clients reach it; only of a gateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<Endpoint>,
    /// The last sample.
    pub load: Load,
}

/// Where clients reach a gateway, and how many of them it wants.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Endpoint {
    /// HOST:PORT for QUIC; empty for none.
    pub quic: String,
    /// HOST:PORT for TCP with TLS; empty for none.
    pub tcp: String,
    /// The name that its certificate holds; empty for the host of the address.
    pub server_name: String,
    /// Its share, beside those of the others; 0 for no clients at all.
    pub weight: u32,
    /// It takes no new clients.
    pub draining: bool,
}

impl Report {
    /// As a line. `None` where it would be too long.
    #[must_use]
    pub fn text(&self) -> Option<String> {
        serde_json::to_string(self).ok().filter(|text| text.len() <= REPORT_BYTES)
    }

    /// Of a line that anybody may have written. `None` where it is none.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        let fits = text.len() <= REPORT_BYTES;
        let mut report: Self = fits.then(|| serde_json::from_str(text).ok())??;
        report.load = report.load.sane();
        let good = is_text(&report.cluster, CLUSTER_BYTES)
            && is_text(&report.http, ADDRESS_BYTES)
            && report.gateway.as_ref().is_none_or(Endpoint::is_good);
        good.then_some(report)
    }
}

impl Endpoint {
    /// Whether clients can be sent there.
    #[must_use]
    pub fn is_good(&self) -> bool {
        let address = |text: &str| text.is_empty() || is_address(text);
        address(&self.quic)
            && address(&self.tcp)
            && !(self.quic.is_empty() && self.tcp.is_empty())
            && is_text(&self.server_name, ADDRESS_BYTES)
            && self.weight <= WEIGHT_MAX
    }
}

fn is_text(text: &str, most: usize) -> bool {
    text.len() <= most && !text.contains(char::is_control)
}

/// Whether it can be dialled: HOST:PORT.
fn is_address(text: &str) -> bool {
    let parts = text.rsplit_once(':');
    is_text(text, ADDRESS_BYTES)
        && !text.contains(char::is_whitespace)
        && parts.is_some_and(|(host, port)| {
            !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port != 0)
        })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn report() -> Report {
        let gateway = Endpoint {
            quic: "10.0.0.1:4433".into(),
            tcp: "[::1]:4433".into(),
            server_name: "gw.example".into(),
            weight: 100,
            draining: true,
        };
        let load = Load { connections: 7, cpu_cores: 0.25, ..Load::default() };
        Report { cluster: "main".into(), gateway: Some(gateway), load, ..Report::default() }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let text = report().text().unwrap();
        assert_eq!(Report::read(&text), Some(report()));
        assert!(!text.contains('\n') && text.len() < 600, "{text}");
    }

    #[test]
    fn what_cannot_be_dialled_is_no_report() {
        for (from, to) in [
            ("10.0.0.1:4433", "10.0.0.1"),
            ("10.0.0.1:4433", "10.0.0.1:0"),
            ("10.0.0.1:4433", "10.0 0.1:1"),
            ("\"main\"", "\"ma\\u0000in\""),
            ("\"weight\":100", "\"weight\":1000001"),
            ("\"weight\":100", "\"weight\":-1"),
        ] {
            let text = report().text().unwrap();
            assert!(text.contains(from));
            assert_eq!(Report::read(&text.replace(from, to)), None, "{to}");
        }
        assert_eq!(Report::read(&" ".repeat(REPORT_BYTES + 1)), None);
        let long = Report { cluster: "x".repeat(REPORT_BYTES), ..Report::default() };
        assert_eq!(long.text(), None);
    }

    proptest! {
        #[test]
        fn nothing_that_anybody_writes_breaks_the_reader(text in any::<String>()) {
            let _ = Report::read(&text);
        }
    }
}
