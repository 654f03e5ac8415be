//! The gateway's part, with what the gateway crate cannot know: which backends this process runs
//! itself, where its certificate comes from, and who may log in.

use std::net::SocketAddr;

use anyhow::anyhow;
use edgeway_backend::config::{Place, parse_places};
use edgeway_gateway::config::{self as gateway, RawBackends, RawDispatched, RawGateway};
use edgeway_linktls::Links;
use edgeway_stat::{CLUSTER_BYTES, Endpoint, WEIGHT_MAX};

use super::{Problem, ROLES, ROLES_OF_UP, RawFile, Use};
use crate::discovery::Places;

/// Certificate chain and key, PEM.
pub type Pem = (Vec<u8>, Vec<u8>);

/// Stands for the backends of `up` until they are bound.
const UNBOUND: &str = "127.0.0.1:1";

/// A gateway's settings, checked; complete once certificate and backends are there.
#[derive(Debug, Clone)]
pub struct GatewaySettings {
    raw: RawGateway,
    backends: RawBackends,
    tls: Option<Pem>,
    links: Links,
}

impl GatewaySettings {
    pub(super) fn validate(
        raw: &RawFile,
        purpose: Use,
        links: Links,
        problems: &mut Vec<Problem>,
    ) -> Self {
        let mut settings =
            Self { raw: raw.gateway.clone(), backends: raw.backends.clone(), tls: None, links };
        if purpose == Use::Up || (purpose == Use::Dispatch && raw.backends.is_empty()) {
            settings.serve_roles_at(UNBOUND);
        }
        let is_backend = matches!(purpose, Use::Backend(_) | Use::Dispatch);
        let before = problems.len();
        if !is_backend {
            settings.read_tls(problems);
        }
        let is_told = problems.len() > before;
        settings.check_login(raw.auth.is_development(), problems);
        // A certificate that another process has, or that is made later, is not missing.
        let may_lack_tls = is_told || is_backend || (purpose == Use::Up && settings.makes_tls());
        settings.check_dispatched(raw, purpose, problems);
        settings.check_places(purpose, problems);
        let (raw, backends) = (settings.raw.clone(), settings.fixed());
        let found = gateway::validate(raw, backends, settings.tls.clone(), &settings.links);
        let found = found.err().unwrap_or_default();
        let counts = |p: &gateway::Problem| !(may_lack_tls && p.key.starts_with("gateway.tls"));
        let found = found.into_iter().filter(counts);
        problems.extend(found.map(|p| Problem { key: p.key, problem: p.problem }));
        settings
    }

    /// Where clients reach it, as configured: what it is, and the address.
    pub fn listening(&self) -> Vec<(&'static str, &str)> {
        let listen = &self.raw.listen;
        [("QUIC", &listen.quic), ("TCP/TLS", &listen.tcp), ("TCP in the clear", &listen.plain)]
            .into_iter()
            .map(|(what, addr)| (what, addr.as_str()))
            .filter(|(_, addr)| !addr.is_empty())
            .collect()
    }

    /// The addresses of [`Self::listening`].
    pub fn addrs(&self) -> Vec<SocketAddr> {
        self.listening().iter().filter_map(|(_, addr)| addr.parse().ok()).collect()
    }

    /// Name of the gateway.
    pub fn name(&self) -> &str {
        &self.raw.name
    }

    /// The backends and their addresses.
    pub fn backends(&self) -> &RawBackends {
        &self.backends
    }

    /// Whether development certificates are to be made: none are configured.
    pub fn makes_tls(&self) -> bool {
        self.raw.tls.cert.is_empty() && self.raw.tls.key.is_empty()
    }

    /// Uses a certificate that was made.
    pub fn with_tls(mut self, cert: &str, key: &str) -> Self {
        self.tls = Some((cert.into(), key.into()));
        self
    }

    /// The roles of `up` are reached at this address.
    pub fn with_roles_at(mut self, addr: SocketAddr) -> Self {
        self.serve_roles_at(&addr.to_string());
        self
    }

    /// What the gateway runs with.
    ///
    /// # Errors
    /// Where the certificate that was made is not good.
    pub fn config(self) -> anyhow::Result<gateway::Config> {
        let backends = self.fixed();
        let Self { raw, tls, links, .. } = self;
        gateway::validate(raw, backends, tls, &links).map_err(|problems| {
            let lines: Vec<_> =
                problems.iter().map(|p| format!("{}: {}", p.key, p.problem)).collect();
            anyhow!("the gateway cannot start: {}", lines.join("; "))
        })
    }

    /// Where the instances of each backend are to be found. What cannot be read is left out: it was told.
    pub fn places(&self) -> Places {
        let read = |list: &Vec<String>| list.iter().flat_map(|item| Place::parse(item)).collect();
        self.backends.iter().map(|(name, list)| (name.clone(), read(list))).collect()
    }

    /// Those whose addresses the config says.
    fn fixed(&self) -> RawBackends {
        let fixed = |places: Vec<Place>| {
            places.iter().filter(|place| place.is_fixed()).map(ToString::to_string).collect()
        };
        self.places().into_iter().map(|(name, places)| (name, fixed(places))).collect()
    }

    /// What it tells of itself, for dispatch.
    pub fn dispatched(&self) -> &RawDispatched {
        &self.raw.dispatch
    }

    /// The certificate of the gateway, where it is of files.
    pub fn tls(&self) -> Option<&Pem> {
        self.tls.as_ref()
    }

    fn check_dispatched(&self, raw: &RawFile, purpose: Use, problems: &mut Vec<Problem>) {
        let RawDispatched { cluster, weight, quic, tcp, server_name, require_ticket, .. } =
            &self.raw.dispatch;
        if cluster.is_empty() || cluster.len() > CLUSTER_BYTES {
            let problem = format!("a cluster is named by 1 to {CLUSTER_BYTES} bytes");
            problems.push(Problem::new("gateway.dispatch.cluster", problem));
        }
        if *weight > WEIGHT_MAX {
            let problem = format!("{weight} is out of range; expected 0 to {WEIGHT_MAX}");
            problems.push(Problem::new("gateway.dispatch.weight", problem));
        }
        for (key, quic) in [("quic", quic), ("tcp", tcp)] {
            let quic = quic.clone();
            if !quic.is_empty() && !(Endpoint { quic, ..Endpoint::default() }).is_good() {
                let problem = "expected HOST:PORT where clients reach it, or \"\" for the address that it listens on";
                problems.push(Problem::new(format!("gateway.dispatch.{key}"), problem));
            }
        }
        if server_name.len() > 253 {
            let problem = "is longer than a host name can be: 253 bytes";
            problems.push(Problem::new("gateway.dispatch.server_name", problem));
        }
        // `up` signs and checks in one process, and makes up a key.
        if *require_ticket && raw.dispatch.ticket_keys.is_empty() && purpose != Use::Up {
            let problem = "needs dispatch.ticket_keys, the same here and where dispatch runs";
            problems.push(Problem::new("gateway.dispatch.require_ticket", problem));
        }
    }

    fn check_places(&self, purpose: Use, problems: &mut Vec<Problem>) {
        for (name, list) in &self.backends {
            let key = format!("backends.{name}");
            let is_role = ROLES.contains(&name.as_str());
            if list.is_empty() {
                let problem = "no instance; expected a list of \"HOST:PORT\"";
                problems.push(Problem::new(&key, problem));
            }
            // Those of the roles are checked with the backends' part.
            if is_role && purpose != Use::Up {
                continue;
            }
            let wrong = parse_places(&key, list).err().unwrap_or_default();
            problems.extend(wrong.into_iter().map(Problem::from));
            for (i, _) in list.iter().enumerate().filter(|(_, item)| *item == "registry") {
                let problem = format!(
                    "`registry` knows Edgeway's own roles ({}), and `{name}` is none of them; list its \
                     instances as HOST:PORT, or \"dns:HOST:PORT\" for all addresses of a name",
                    ROLES.join(", ")
                );
                problems.push(Problem::new(format!("{key}.{i}"), problem));
            }
        }
    }

    fn serve_roles_at(&mut self, addr: &str) {
        self.backends.retain(|name, _| !ROLES.contains(&name.as_str()));
        for role in ROLES_OF_UP {
            self.backends.insert(role.to_owned(), vec![addr.to_owned()]);
        }
    }

    fn read_tls(&mut self, problems: &mut Vec<Problem>) {
        let tls = &self.raw.tls;
        self.tls = read_pem("gateway.tls", &tls.cert, &tls.key, problems);
    }

    /// Who can be reached from other machines must know who is there.
    fn check_login(&self, is_development: bool, problems: &mut Vec<Problem>) {
        if !is_development {
            return;
        }
        let listen = &self.raw.listen;
        for (key, addr) in [("quic", &listen.quic), ("tcp", &listen.tcp), ("plain", &listen.plain)]
        {
            if addr.parse::<SocketAddr>().is_ok_and(|addr| !addr.ip().is_loopback()) {
                problems.push(Problem::new(
                    format!("gateway.listen.{key}"),
                    format!(
                        "{addr} can be reached from other machines, and auth.mode = \"development\" \
                         lets anyone in under any name; set auth.mode = \"passwords\" with \
                         [auth.users] (docs/AUTH.md has other ways), or listen on loopback, such as 127.0.0.1:4433"
                    ),
                ));
            }
        }
    }
}

/// Certificate chain and key of a section, from their files; none where neither is set.
pub(super) fn read_pem(
    section: &str,
    cert_path: &str,
    key_path: &str,
    problems: &mut Vec<Problem>,
) -> Option<Pem> {
    let mut read = |key: &str, path: &str, other: &str| {
        let key = format!("{section}.{key}");
        if path.is_empty() {
            if !other.is_empty() {
                let problem = "is missing: a certificate and its key go together";
                problems.push(Problem::new(&key, problem));
            }
            return None;
        }
        let read = std::fs::read(path);
        read.map_err(|e| {
            let problem =
                format!("cannot read {path}: {e}; name a PEM file that this user may read");
            problems.push(Problem::new(&key, problem));
        })
        .ok()
    };
    let cert = read("cert", cert_path, key_path);
    let key = read("key", key_path, cert_path);
    cert.zip(key)
}
