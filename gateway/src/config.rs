//! The gateway's configuration: what the file says, and what the program uses.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use edgeway_linktls::{Identity, Links};
use edgeway_transport::tls::ServerTls;
use serde::{Deserialize, Serialize};

use crate::{
    limits::Rates,
    routing::{Key, RawRoute, Route, Routes},
};

pub use crate::routing::{RawBackends, Routing};

/// Section `[gateway]` as the file has it. Every key has a default.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawGateway {
    /// Names this gateway in logs and to backends.
    pub name: String,
    /// Where it listens.
    pub listen: RawListen,
    /// Its certificate.
    pub tls: RawTls,
    /// Bounds and times.
    pub limits: RawLimits,
    /// Which backend serves each Session type, over the defaults; "" for none.
    pub routes: BTreeMap<String, RawRoute>,
    /// The backend that is asked about logins.
    pub login: String,
    /// How clients are sent to it.
    pub dispatch: RawDispatched,
}

impl Default for RawGateway {
    fn default() -> Self {
        Self {
            name: "gateway".into(),
            listen: RawListen::default(),
            tls: RawTls::default(),
            limits: RawLimits::default(),
            routes: default_routes(),
            login: "access".into(),
            dispatch: RawDispatched::default(),
        }
    }
}

/// `[gateway.dispatch]`: what a gateway tells of itself, for dispatch to send clients there.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawDispatched {
    /// The cluster that it belongs to.
    pub cluster: String,
    /// Its share of clients, beside the weights of the others; 0 for none.
    pub weight: u32,
    /// Takes no new clients.
    pub draining: bool,
    /// HOST:PORT where clients reach it over QUIC, where that is not the address that it listens on.
    pub quic: String,
    /// The same over TCP with TLS.
    pub tcp: String,
    /// The name that its certificate holds; empty for the host of the address.
    pub server_name: String,
    /// Lets only those in whom dispatch has sent.
    pub require_ticket: bool,
}

impl Default for RawDispatched {
    fn default() -> Self {
        Self {
            cluster: "main".into(),
            weight: 100,
            draining: false,
            quic: String::new(),
            tcp: String::new(),
            server_name: String::new(),
            require_ticket: false,
        }
    }
}

fn default_routes() -> BTreeMap<String, RawRoute> {
    let kinds = ["chat", "im", "push", "research_push"];
    kinds.into_iter().map(|kind| (kind.into(), "access".into())).collect()
}

/// `[gateway.listen]`: addresses, empty for off.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawListen {
    /// UDP address for QUIC.
    pub quic: String,
    /// TCP address for TLS; multiplexed and legacy clients.
    pub tcp: String,
    /// TCP address in the clear, for legacy clients behind something that ends TLS.
    pub plain: String,
    /// Whether TCP connections use bbr, where the kernel has it and permits it; else what the system has
    /// chosen.
    pub tcp_bbr: bool,
}

impl Default for RawListen {
    fn default() -> Self {
        let address = "127.0.0.1:4433";
        Self { quic: address.into(), tcp: address.into(), plain: String::new(), tcp_bbr: true }
    }
}

/// `[gateway.tls]`: PEM files. Both empty: the development certificate, where there is one.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawTls {
    /// Certificate chain.
    pub cert: String,
    /// Private key.
    pub key: String,
}

/// `[gateway.limits]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawLimits {
    /// Connections at a time. At 40 KB each, a million need 40 GB.
    pub connections: u64,
    /// Connections at a time from one address; a school's NAT has many pupils behind it.
    pub connections_per_ip: u64,
    /// Sessions of a connection: the five types, and three of one's own. Each costs memory on an idle connection.
    pub sessions_per_connection: u64,
    /// Bytes queued and in flight for a connection: two seconds of a busy room at 1 Mbit/s.
    pub outbox_bytes: u64,
    /// Credit granted to clients on signal lanes.
    pub credit_signal_bytes: u64,
    /// Credit granted to clients on binary lanes.
    pub credit_binary_bytes: u64,
    /// Credit granted to clients on chat lanes.
    pub credit_chat_bytes: u64,
    /// TLS handshake.
    pub handshake_timeout_ms: u64,
    /// From the first byte to the login.
    pub login_timeout_ms: u64,
    /// From a Session's opening to its backend's answer.
    pub open_timeout_ms: u64,
    /// Silence after which a connection is given up.
    pub idle_timeout_ms: u64,
    /// How long the place of a lost connection is kept in its rooms; 0 for not at all.
    pub grace_ms: u64,
    /// Bytes that a user may send a second, twice that at once; more is slowed down.
    pub user_bytes_per_second: u64,
    /// Frames that a user may send a second, twice that at once; more is slowed down.
    pub user_frames_per_second: u64,
    /// After this time of a shutdown the connections that are left are closed.
    pub drain_ms: u64,
}

impl Default for RawLimits {
    fn default() -> Self {
        Self {
            connections: 1_000_000,
            connections_per_ip: 20_000,
            sessions_per_connection: 8,
            outbox_bytes: 256 * 1024,
            credit_signal_bytes: 64 * 1024,
            credit_binary_bytes: 16 * 1024,
            credit_chat_bytes: 16 * 1024,
            handshake_timeout_ms: 10_000,
            login_timeout_ms: 10_000,
            open_timeout_ms: 10_000,
            idle_timeout_ms: 30_000,
            grace_ms: 30_000,
            user_bytes_per_second: 256 * 1024,
            user_frames_per_second: 500,
            drain_ms: 1_000,
        }
    }
}

/// Something wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Dotted key.
    pub key: String,
    /// What is wrong, and what would be right.
    pub problem: String,
}

/// Bounds and times that the program uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// See [`RawLimits`].
    pub connections: u64,
    /// See [`RawLimits`].
    pub connections_per_ip: u64,
    /// See [`RawLimits`].
    pub sessions: u8,
    /// See [`RawLimits`].
    pub outbox_bytes: usize,
    /// By class.
    pub uplink_credit: [u64; 3],
    /// See [`RawLimits`].
    pub handshake_timeout: Duration,
    /// See [`RawLimits`].
    pub login_timeout: Duration,
    /// See [`RawLimits`].
    pub open_timeout: Duration,
    /// See [`RawLimits`].
    pub idle_timeout: Duration,
    /// See [`RawLimits`].
    pub grace: Duration,
    /// See [`RawLimits`].
    pub rates: Rates,
    /// See [`RawLimits`].
    pub drain: Duration,
}

/// What a gateway runs with.
#[derive(Debug, Clone)]
pub struct Config {
    /// Its name.
    pub name: String,
    /// UDP address for QUIC.
    pub quic: Option<SocketAddr>,
    /// TCP address for TLS.
    pub tcp: Option<SocketAddr>,
    /// TCP address in the clear.
    pub plain: Option<SocketAddr>,
    /// Whether TCP connections use bbr.
    pub tcp_bbr: bool,
    /// Its certificate.
    pub tls: Option<ServerTls>,
    /// Bounds and times.
    pub limits: Limits,
    /// Where Sessions and logins go.
    pub routing: Routing,
    /// With which backends are dialled; none in the clear.
    pub links: Option<Identity>,
}

struct Checker(Vec<Problem>);

impl Checker {
    fn add(&mut self, key: &str, problem: impl Into<String>) {
        self.0.push(Problem { key: key.into(), problem: problem.into() });
    }

    fn addr(&mut self, key: &str, value: &str) -> Option<SocketAddr> {
        if value.is_empty() {
            return None;
        }
        let addr = value.parse();
        if addr.is_err() {
            self.add(key, format!("`{value}` is no address; expected IP:PORT such as \"127.0.0.1:4433\", or \"\" for off"));
        }
        addr.ok()
    }

    fn range(&mut self, key: &str, value: u64, min: u64, max: u64) -> u64 {
        if !(min..=max).contains(&value) {
            self.add(key, format!("{value} is out of range; expected {min} to {max}"));
        }
        value.clamp(min, max)
    }
}

/// Checks everything and reports all that is wrong. `tls` is the certificate chain and key, PEM,
/// that the caller has read; `links` says which backends can be dialled.
///
/// # Errors
/// Every problem, with its key.
pub fn validate(
    raw: RawGateway,
    backends: RawBackends,
    tls: Option<(Vec<u8>, Vec<u8>)>,
    links: &Links,
) -> Result<Config, Vec<Problem>> {
    let mut check = Checker(Vec::new());
    let quic = check.addr("gateway.listen.quic", &raw.listen.quic);
    let tcp = check.addr("gateway.listen.tcp", &raw.listen.tcp);
    let plain = check.addr("gateway.listen.plain", &raw.listen.plain);
    if raw.listen.quic.is_empty() && raw.listen.tcp.is_empty() && raw.listen.plain.is_empty() {
        check.add("gateway.listen", "nothing to listen on; set quic, tcp or plain");
    }
    if plain.is_some() && plain == tcp {
        check.add("gateway.listen.plain", "the same address as tcp; give it a port of its own");
    }
    let tls = match tls {
        Some((cert, key)) => match ServerTls::from_pem(&cert, &key) {
            Ok(tls) => Some(tls),
            Err(e) => {
                check.add("gateway.tls", e.to_string());
                None
            }
        },
        None => {
            if quic.is_some() || tcp.is_some() {
                check.add("gateway.tls", "QUIC and TLS need a certificate; set cert and key to PEM files (`edgeway up` makes one for development: certs/server.pem and certs/server.key in its data directory)");
            }
            None
        }
    };
    let limits = limits(&raw.limits, &mut check);
    let routes = routes(raw.routes, &backends, &mut check);
    if !backends.contains_key(&raw.login) {
        check.add("gateway.login", format!("backend `{}` is not in [backends]", raw.login));
    }
    for (name, nodes) in &backends {
        for (i, node) in nodes.iter().enumerate() {
            if let Err(problem) = links.check(node) {
                check.add(&format!("backends.{name}.{i}"), format!("`{node}` {problem}"));
            }
        }
    }
    if check.0.is_empty() {
        Ok(Config {
            name: raw.name,
            quic,
            tcp,
            plain,
            tcp_bbr: raw.listen.tcp_bbr,
            tls,
            limits,
            routing: Routing { routes, login: raw.login, backends },
            links: links.identity().cloned(),
        })
    } else {
        Err(check.0)
    }
}

fn routes(raw: BTreeMap<String, RawRoute>, backends: &RawBackends, check: &mut Checker) -> Routes {
    let mut all = default_routes();
    all.extend(raw);
    let mut routes = Routes::new();
    for (kind, RawRoute { backend, policy, key }) in all {
        if backend.is_empty() {
            continue;
        }
        let at = format!("gateway.routes.{kind}");
        if !backends.contains_key(&backend) {
            let known: Vec<_> = backends.keys().map(String::as_str).collect();
            let problem = format!(
                "backend `{backend}` is not in [backends]; there are: {}",
                known.join(", ")
            );
            check.add(&at, problem);
        }
        if kind.is_empty() || kind.len() > edgeway_proto::limits::NAME_BYTES {
            check.add(&at, "a Session type is named by 1 to 128 bytes");
        }
        match Key::parse(&key) {
            Ok(key) => {
                let kind: Arc<str> = kind.into();
                routes.insert(Arc::clone(&kind), Route { kind, backend, policy, key });
            }
            Err(problem) => check.add(&format!("{at}.key"), problem),
        }
    }
    routes
}

fn limits(raw: &RawLimits, check: &mut Checker) -> Limits {
    let mut range =
        |key: &str, value, min, max| check.range(&format!("gateway.limits.{key}"), value, min, max);
    let ms = Duration::from_millis;
    // A frame of the largest size must fit with what is in flight.
    const MIN_OUTBOX: u64 = 128 * 1024;
    const MAX_CREDIT: u64 = 1024 * 1024;
    const HOUR_MS: u64 = 3_600_000;
    Limits {
        connections: range("connections", raw.connections, 1, 100_000_000),
        connections_per_ip: range("connections_per_ip", raw.connections_per_ip, 1, 100_000_000),
        sessions: u8::try_from(range(
            "sessions_per_connection",
            raw.sessions_per_connection,
            1,
            63,
        ))
        .unwrap_or(63),
        outbox_bytes: usize::try_from(range(
            "outbox_bytes",
            raw.outbox_bytes,
            MIN_OUTBOX,
            64 << 20,
        ))
        .unwrap_or(usize::MAX),
        uplink_credit: [
            range("credit_signal_bytes", raw.credit_signal_bytes, 1024, MAX_CREDIT),
            range("credit_binary_bytes", raw.credit_binary_bytes, 1024, MAX_CREDIT),
            range("credit_chat_bytes", raw.credit_chat_bytes, 1024, MAX_CREDIT),
        ],
        handshake_timeout: ms(range(
            "handshake_timeout_ms",
            raw.handshake_timeout_ms,
            100,
            HOUR_MS,
        )),
        login_timeout: ms(range("login_timeout_ms", raw.login_timeout_ms, 100, HOUR_MS)),
        open_timeout: ms(range("open_timeout_ms", raw.open_timeout_ms, 100, HOUR_MS)),
        idle_timeout: ms(range("idle_timeout_ms", raw.idle_timeout_ms, 1000, HOUR_MS)),
        grace: ms(range("grace_ms", raw.grace_ms, 0, HOUR_MS)),
        rates: Rates {
            bytes_per_second: range(
                "user_bytes_per_second",
                raw.user_bytes_per_second,
                1,
                u64::MAX,
            ),
            frames_per_second: range(
                "user_frames_per_second",
                raw.user_frames_per_second,
                1,
                u64::MAX,
            ),
        },
        drain: ms(range("drain_ms", raw.drain_ms, 0, HOUR_MS)),
    }
}
