//! One try to connect: resolve, race the transports, greet, log in.
//!
//! Every racer dials one address over one transport and says Hello. The winner is the first that
//! has answered an application round trip (`Welcome`), since some networks let a handshake through
//! and nothing after it. The first racer whose handshake is done sends login and Session along with Hello;
//! the others log in only once they have won, or the two logins would be two devices of the same name
//! that push each other out.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use edgeway_proto::frame;
use edgeway_transport::Transport;
use tokio::{task::JoinSet, time::sleep};

use crate::{
    ClientConfig, ConnectError, TransportChoice,
    connector::Connector,
    greet::{Established, Flight, Greeting, LoginTurn, finish, greet},
    watch::Goal,
};

/// How long the first address of a family runs alone before one of the other family starts
/// (RFC 8305, section 8).
const FAMILY_HEAD_START: Duration = Duration::from_millis(250);

/// Where TCP has failed and only QUIC is under way, the server is most likely not there, and a UDP
/// socket is not told: QUIC gets so long from then on. Enough for a first flight and three more
/// of it.
const QUIC_ALONE: Duration = Duration::from_secs(3);

/// A handshake over QUIC without an end after so long has most likely lost several flights, and each next one
/// waits twice as long: another begins beside it.
const QUIC_AGAIN: Duration = Duration::from_secs(3);

/// A network may let the handshake and the first words over QUIC pass, and nothing after them. A login
/// that is not answered within this time is said over TCP as well.
const QUIC_LOGIN: Duration = Duration::from_secs(3);

/// How long a try of QUIC beside a connection over TCP may take.
const QUIC_BESIDE: Duration = Duration::from_secs(5);

/// One way to the server.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Way {
    pub(crate) transport: TransportChoice,
    pub(crate) addr: SocketAddr,
    /// When it starts, unless all before it have failed.
    after: Duration,
    /// Whether it is the second of its kind, for a first that is still under way then.
    again: bool,
}

impl Way {
    /// Whether it is worth a try, after these have failed.
    fn is_open(&self, failures: &[(Self, ConnectError)]) -> bool {
        let same = |way: &Self| (way.transport, way.addr) == (self.transport, self.addr);
        !self.again || !failures.iter().any(|(way, _)| same(way))
    }
}

/// Which transport starts first where both may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum First {
    Quic,
    /// QUIC did not get through lately.
    Tcp,
    /// Neither: there is no time to lose.
    Both,
}

/// The ways in the order in which they start.
fn ways(config: &ClientConfig, places: &Places, first: First) -> Vec<Way> {
    let quic = of_families(&places.quic);
    let tcp = places.tcp.as_deref().map(of_families);
    let mut ways = Vec::new();
    for n in 0..2 {
        let after = FAMILY_HEAD_START * u32::try_from(n).unwrap_or(0);
        let mut way = |transport, after| {
            let of_tcp = tcp.as_ref().filter(|_| transport != TransportChoice::Quic);
            if let Some(addr) = of_tcp.unwrap_or(&quic).get(n) {
                ways.push(Way { transport, addr: *addr, after, again: false });
            }
        };
        match config.transport {
            TransportChoice::Auto => {
                let (quic, tcp) = match first {
                    First::Quic => (Duration::ZERO, config.head_start),
                    First::Tcp => (config.head_start, Duration::ZERO),
                    First::Both => (Duration::ZERO, Duration::ZERO),
                };
                way(TransportChoice::Quic, after + quic);
                way(TransportChoice::Tcp, after + tcp);
            }
            one => way(one, after),
        }
    }
    if first != First::Both {
        let again = ways.iter().filter(|way| way.transport == TransportChoice::Quic);
        let again = again.map(|way| Way { after: way.after + QUIC_AGAIN, again: true, ..*way });
        ways.extend(again.collect::<Vec<_>>());
    }
    ways.sort_by_key(|way| way.after);
    ways
}

/// The addresses of a server.
#[derive(Debug, Default)]
struct Places {
    /// For all transports; with `tcp` for QUIC.
    quic: Vec<SocketAddr>,
    /// For TCP, where that is elsewhere.
    tcp: Option<Vec<SocketAddr>>,
}

impl Places {
    /// Where the names lead now; `endpoint` instead of those of the configuration.
    async fn find(config: &ClientConfig, endpoint: Option<&str>) -> Result<Self, ConnectError> {
        let quic = resolve(endpoint.unwrap_or(&config.server)).await?;
        let tcp = match config.tcp_server.as_ref().filter(|_| endpoint.is_none()) {
            Some(server) => Some(resolve(server).await?),
            None => None,
        };
        Ok(Self { quic, tcp })
    }
}

async fn resolve(server: &str) -> Result<Vec<SocketAddr>, ConnectError> {
    let (host, port) = split_server(server)?;
    let found = tokio::net::lookup_host((host, port)).await;
    let found =
        found.map_err(|e| ConnectError::Resolve { host: host.into(), reason: e.to_string() })?;
    Ok(found.collect())
}

/// The first address of each family.
fn of_families(addrs: &[SocketAddr]) -> Vec<SocketAddr> {
    let v4 = addrs.iter().find(|a| a.is_ipv4());
    let v6 = addrs.iter().find(|a| a.is_ipv6());
    v4.into_iter().chain(v6).copied().collect()
}

/// Host and port of `host:port`, where IPv6 addresses stand in brackets.
pub(crate) fn split_server(server: &str) -> Result<(&str, u16), ConnectError> {
    let problem = || ConnectError::Config {
        problem: format!(
            "server `{server}`: expected host:port, for example chat.example.com:4433"
        ),
    };
    let (host, port) = server.rsplit_once(':').ok_or_else(problem)?;
    let port = port.parse().map_err(|_| problem())?;
    let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    if host.is_empty() { Err(problem()) } else { Ok((host, port)) }
}

/// Connects and logs in, within the time that the configuration allows. `endpoint` is where the
/// server said to come back to.
pub(crate) async fn connect(
    connector: &Connector,
    config: &ClientConfig,
    flight: &Flight,
    endpoint: Option<&str>,
) -> Result<Established, ConnectError> {
    let connecting = connect_all(connector, config, flight, endpoint);
    match tokio::time::timeout(config.connect_timeout, connecting).await {
        Ok(result) => result,
        Err(_) => Err(ConnectError::TimedOut),
    }
}

async fn connect_all(
    connector: &Connector,
    config: &ClientConfig,
    flight: &Flight,
    endpoint: Option<&str>,
) -> Result<Established, ConnectError> {
    let (name, _) = split_server(&config.server)?;
    let addrs = Places::find(config, endpoint).await?;
    // A server may say where to come back to, and not who it is: the name stays.
    let name: Arc<str> = config.server_name.as_deref().unwrap_or(name).into();
    let remembered = connector.memory(|m| m.tcp_first(&config.server, Instant::now()));
    let first = if remembered { First::Tcp } else { First::Quic };
    let race = Race::new(connector, Arc::clone(&name), flight, true);
    let (winner, welcome, logged_in, raced) = race.run(ways(config, &addrs, first)).await?;
    if config.transport == TransportChoice::Auto {
        connector.memory(|memory| match winner.transport {
            Transport::Quic => memory.quic_won(&config.server),
            Transport::Tcp if remembered => {}
            Transport::Tcp => memory.tcp_won(&config.server, Instant::now()),
        });
    }
    let quic = winner.transport == Transport::Quic;
    let finishing = finish(winner, welcome, logged_in, raced, flight);
    if !quic || config.transport != TransportChoice::Auto {
        return finishing.await;
    }
    if let Ok(finished) = tokio::time::timeout(QUIC_LOGIN, finishing).await {
        return finished;
    }
    connector.memory(|memory| memory.tcp_won(&config.server, Instant::now()));
    let mut ways = ways(config, &addrs, First::Both);
    ways.retain(|way| way.transport == TransportChoice::Tcp);
    let race = Race::new(connector, name, flight, true);
    let (winner, welcome, logged_in, _) = race.run(ways).await?;
    // The login over QUIC may still reach the server.
    finish(winner, welcome, logged_in, true, flight).await
}

/// A fresh connection beside the present one: welcomed, and not logged in.
pub(crate) struct Found {
    greeting: Greeting,
    welcome: frame::Welcome,
}

impl Found {
    pub(crate) const fn transport(&self) -> Transport {
        self.greeting.transport
    }

    /// Logs in. From then on the server knows no other connection of this device; by session token it
    /// goes on in its rooms, and nobody sees it leave or join.
    pub(crate) async fn take(self, flight: &Flight) -> Result<Established, ConnectError> {
        finish(self.greeting, self.welcome, false, false, flight).await
    }
}

/// Looks for another connection to the server beside the present one, at an address that was good or, where
/// `addr` is `None`, wherever the name leads. It says Hello and no more, so nothing changes for the
/// server yet. Where QUIC is `fickle` TCP has the head start.
pub(crate) async fn look(
    connector: &Connector,
    config: &ClientConfig,
    device: &str,
    addr: Option<SocketAddr>,
    goal: Goal,
    fickle: bool,
) -> Result<Found, ConnectError> {
    let looking = async {
        let (host, _) = split_server(&config.server)?;
        // An address is good for both transports where both have the same.
        let addrs = match addr.filter(|_| config.tcp_server.is_none()) {
            Some(addr) => Places { quic: vec![addr], tcp: None },
            None => Places::find(config, None).await?,
        };
        let name: Arc<str> = config.server_name.as_deref().unwrap_or(host).into();
        // What comes after Hello is said by who wins, in the state that its client is in then.
        let flight = Flight::new(config, device, None, Vec::new());
        let first = if fickle { First::Tcp } else { First::Both };
        let mut ways = ways(config, &addrs, first);
        if goal == Goal::Quic {
            ways.retain(|way| way.transport == TransportChoice::Quic);
        }
        let race = Race::new(connector, name, &flight, false);
        let (greeting, welcome, ..) = race.run(ways).await?;
        Ok(Found { greeting, welcome })
    };
    let time = match goal {
        Goal::Service => config.connect_timeout,
        Goal::Quic => config.connect_timeout.min(QUIC_BESIDE),
    };
    tokio::time::timeout(time, looking).await.unwrap_or(Err(ConnectError::TimedOut))
}

/// Who is welcomed first: with its greeting, and whether it has sent its login.
type Greeted = (Greeting, frame::Welcome, bool);

/// The racers under way.
struct Race<'a> {
    connector: &'a Connector,
    name: Arc<str>,
    flight: &'a Flight,
    racers: JoinSet<Result<Greeted, (Way, ConnectError)>>,
    turn: LoginTurn,
}

impl<'a> Race<'a> {
    /// `login`: whether one of them sends its login along.
    fn new(connector: &'a Connector, name: Arc<str>, flight: &'a Flight, login: bool) -> Self {
        let turn = LoginTurn::new(login);
        Self { connector, name, flight, racers: JoinSet::new(), turn }
    }

    /// The first that is welcomed; whether it has sent its login; whether another one has too.
    async fn run(
        mut self,
        ways: Vec<Way>,
    ) -> Result<(Greeting, frame::Welcome, bool, bool), ConnectError> {
        let begun = tokio::time::Instant::now();
        let mut others = ways.iter().filter(|way| way.transport != TransportChoice::Quic).count();
        let mut ways = ways.into_iter().peekable();
        let mut failures = Vec::new();
        let mut alone = None;
        loop {
            while ways.next_if(|way| !way.is_open(&failures)).is_some() {}
            if self.racers.is_empty() && !self.start(ways.next()) {
                return Err(worst(failures));
            }
            let next = ways.peek().map(|way| begun + way.after);
            tokio::select! {
                biased;
                ended = self.racers.join_next() => match ended {
                    Some(Ok(Ok((greeting, welcome, login)))) => {
                        let raced = self.turn.is_over() && !login;
                        return Ok((greeting, welcome, login, raced));
                    }
                    Some(Ok(Err((way, e)))) => {
                        if is_verdict(&e) {
                            return Err(e);
                        }
                        others -= usize::from(way.transport != TransportChoice::Quic);
                        failures.push((way, e));
                        if others == 0 {
                            alone = Some(tokio::time::Instant::now() + QUIC_ALONE);
                        }
                    }
                    Some(Err(_)) | None => {}
                },
                () = at(next) => {
                    self.start(ways.next());
                }
                () = at(alone) => {
                    return Err(and_no_answer(worst(failures)));
                }
            }
        }
    }

    fn start(&mut self, way: Option<Way>) -> bool {
        let Some(way) = way else { return false };
        let (connector, name, flight, turn) = (
            self.connector.clone(),
            Arc::clone(&self.name),
            self.flight.clone(),
            self.turn.clone(),
        );
        self.racers.spawn(async move {
            greet(&connector, &name, &flight, way, &turn).await.map_err(|e| (way, e))
        });
        true
    }
}

async fn at(when: Option<tokio::time::Instant>) {
    match when {
        Some(when) => sleep(when - tokio::time::Instant::now()).await,
        None => std::future::pending().await,
    }
}

/// Whether no other way can have another result: the server itself has spoken, or the caller erred.
fn is_verdict(e: &ConnectError) -> bool {
    matches!(
        e,
        ConnectError::LoginFailed { .. }
            | ConnectError::VersionUnsupported { .. }
            | ConnectError::Refused { .. }
            | ConnectError::Config { .. }
    )
}

/// The same, where QUIC is still without an answer.
fn and_no_answer(e: ConnectError) -> ConnectError {
    match e {
        ConnectError::Unreachable { reason } => {
            ConnectError::Unreachable { reason: format!("{reason}; QUIC: no answer") }
        }
        other => other,
    }
}

/// One error for all that failed: the one that says most.
fn worst(failures: Vec<(Way, ConnectError)>) -> ConnectError {
    if let Some((_, e)) =
        failures.iter().find(|(_, e)| matches!(e, ConnectError::Certificate { .. }))
    {
        return e.clone();
    }
    let each = failures.iter().map(|(way, e)| match e {
        ConnectError::Unreachable { reason } => {
            format!("{:?} {}: {reason}", way.transport, way.addr)
        }
        other => format!("{:?} {}: {other}", way.transport, way.addr),
    });
    ConnectError::Unreachable { reason: each.collect::<Vec<_>>().join("; ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Login;

    #[test]
    fn server_is_host_and_port() {
        assert_eq!(split_server("a.example:4433").unwrap(), ("a.example", 4433));
        assert_eq!(split_server("[::1]:4433").unwrap(), ("::1", 4433));
        for bad in ["a.example", ":1", "a:b", "a:70000", ""] {
            assert!(split_server(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn quic_starts_first_and_tcp_a_head_start_later() {
        let config = ClientConfig::new("x:1", Login::Development { user: "u".into() });
        let addrs = Places { quic: vec!["127.0.0.1:1".parse().unwrap()], tcp: None };
        let ways = ways(&config, &addrs, First::Quic);
        assert_eq!(ways[0].transport, TransportChoice::Quic);
        assert_eq!((ways[1].transport, ways[1].after), (TransportChoice::Tcp, config.head_start));
    }

    #[test]
    fn tcp_is_dialled_where_it_is() {
        let config = ClientConfig::new("x:1", Login::Development { user: "u".into() });
        let addr = |text: &str| text.parse().unwrap();
        let quic = vec![addr("127.0.0.1:1"), addr("[::1]:1")];
        let ways =
            ways(&config, &Places { quic, tcp: Some(vec![addr("127.0.0.1:2")]) }, First::Quic);
        let all: Vec<_> =
            ways.iter().filter(|way| !way.again).map(|way| (way.transport, way.addr)).collect();
        use TransportChoice::{Quic, Tcp};
        let expected =
            [(Quic, addr("127.0.0.1:1")), (Quic, addr("[::1]:1")), (Tcp, addr("127.0.0.1:2"))];
        assert_eq!(all, expected);
    }

    #[test]
    fn quic_is_tried_again_beside_a_handshake_that_does_not_end_and_not_after_one_that_failed() {
        let config = ClientConfig::new("x:1", Login::Development { user: "u".into() });
        let addrs = Places { quic: vec!["127.0.0.1:1".parse().unwrap()], tcp: None };
        let ways = ways(&config, &addrs, First::Quic);
        let again = ways.iter().position(|way| way.again).unwrap();
        assert_eq!((again, ways[again].transport), (2, TransportChoice::Quic));
        assert_eq!(ways[again].after, QUIC_AGAIN);
        let failed = |way: Way| (way, ConnectError::TimedOut);
        assert!(ways[again].is_open(&[]) && ways[again].is_open(&[failed(ways[1])]));
        assert!(!ways[again].is_open(&[failed(ways[0])]));
    }

    #[test]
    fn tcp_goes_first_where_it_is_remembered_and_nobody_waits_in_a_silence() {
        let config = ClientConfig::new("x:1", Login::Development { user: "u".into() });
        let addrs = Places { quic: vec!["127.0.0.1:1".parse().unwrap()], tcp: None };
        let first = ways(&config, &addrs, First::Tcp);
        assert_eq!((first[0].transport, first[0].after), (TransportChoice::Tcp, Duration::ZERO));
        assert_eq!(first[1].after, config.head_start);
        assert!(ways(&config, &addrs, First::Both).iter().all(|way| way.after.is_zero()));
    }
}
