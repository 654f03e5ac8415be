//! One try to connect: resolve, race the transports, greet, log in.
//!
//! Every racer dials one address over one transport and says Hello. The winner is the first that
//! has answered an application round trip (`Welcome`), since some networks let a handshake through
//! and nothing after it. The first racer sends login and Session along with Hello; a later one, started
//! while another is under way, logs in only once it has won, or the two logins would be two devices
//! of the same name that push each other out.

use std::{
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use edgeway_proto::{
    Class, CloseCode, Lane, VERSION,
    frame::{self, Frame, param},
};
use edgeway_transport::{Connection, DialError, Dialer, End, Sender, Transport};
use tokio::{task::JoinSet, time::sleep};

use crate::{
    ClientConfig, ConnectError, Login, TransportChoice,
    connector::Connector,
    core::open_chat,
    port::{Port, PortSink},
    queue::initial_credit,
    shared::Incoming,
};

/// How long the first address of a family runs alone before one of the other family starts
/// (RFC 8305, section 8).
const FAMILY_HEAD_START: Duration = Duration::from_millis(250);

/// Reads a connection until it ends.
pub(crate) type Reading = Pin<Box<dyn Future<Output = End> + Send>>;

/// A connection whose login is done.
pub(crate) struct Established {
    pub(crate) reading: Reading,
    pub(crate) sender: Sender,
    pub(crate) port: Arc<Port>,
    pub(crate) transport: Transport,
    pub(crate) welcome: frame::Welcome,
    pub(crate) logged_in: frame::LoggedIn,
    /// What came beside: for the client.
    pub(crate) early: Vec<Incoming>,
    /// Bytes of the frame that opened the chat Session.
    pub(crate) opened_bytes: usize,
    /// From Hello to Welcome.
    pub(crate) rtt: Duration,
    /// Another racer had sent a login too, which the server may see later than this one.
    pub(crate) raced: bool,
}

/// What every racer says.
#[derive(Clone)]
struct Flight {
    hello: Bytes,
    login: Bytes,
    open: Bytes,
}

impl Flight {
    fn new(config: &ClientConfig, device: &str) -> Self {
        let mut params = vec![
            (param::CREDIT_SIGNAL, initial_credit(Class::Signal)),
            (param::CREDIT_BINARY, initial_credit(Class::Binary)),
            (param::CREDIT_CHAT, initial_credit(Class::Chat)),
            (param::IDLE_MS, u64::try_from(config.idle_timeout.as_millis()).unwrap_or(0)),
        ];
        if config.repair {
            params.push((param::REPAIR, 1));
        }
        let hello = frame::Hello {
            version_min: VERSION,
            version_max: VERSION,
            agent: short(&config.agent).into(),
            token: Bytes::new(),
            params,
        };
        let (method, user, secret) = match &config.login {
            Login::Development { user } => (frame::method::DEVELOPMENT, user, Bytes::new()),
            Login::Password { user, password } => {
                (frame::method::PASSWORD, user, Bytes::copy_from_slice(password.as_bytes()))
            }
            Login::Token { user, token } => {
                (frame::method::TOKEN, user, Bytes::copy_from_slice(token))
            }
        };
        let login =
            frame::Login { method, user: user.as_str().into(), device: device.into(), secret };
        Self { hello: hello.to_bytes(), login: login.to_bytes(), open: open_chat() }
    }

    async fn send_login(&self, sender: &mut Sender) -> Result<(), ConnectError> {
        send(sender, Lane::CONTROL, &[&self.login]).await?;
        send(sender, Lane::new(1, Class::Signal), &[&self.open]).await
    }
}

async fn send(sender: &mut Sender, lane: Lane, frames: &[&Bytes]) -> Result<(), ConnectError> {
    let mut frames: Vec<Bytes> = frames.iter().map(|f| Bytes::clone(f)).collect();
    let lost = |e: &dyn std::fmt::Display| ConnectError::Unreachable { reason: e.to_string() };
    sender.send(lane, &mut frames).await.map_err(|e| lost(&e))?;
    sender.flush().await.map_err(|e| lost(&e))
}

/// Text that fits into a frame.
fn short(text: &str) -> &str {
    let end = (0..=text.len().min(edgeway_proto::limits::REASON_BYTES))
        .rev()
        .find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

/// A connection that has said Hello and waits for the answer, or has it.
struct Greeting {
    reading: Reading,
    sender: Sender,
    port: Arc<Port>,
    transport: Transport,
    early: Vec<Incoming>,
    said: Instant,
}

impl Greeting {
    async fn hello(conn: Connection, flight: &Flight, all: bool) -> Result<Self, ConnectError> {
        let port = Arc::new(Port::default());
        let mut sink = PortSink::new(Arc::clone(&port));
        let Connection { mut receiver, mut sender, transport, .. } = conn;
        let reading = Box::pin(async move { receiver.run(&mut sink).await });
        let said = Instant::now();
        if all {
            send(&mut sender, Lane::CONTROL, &[&flight.hello, &flight.login]).await?;
            send(&mut sender, Lane::new(1, Class::Signal), &[&flight.open]).await?;
        } else {
            send(&mut sender, Lane::CONTROL, &[&flight.hello]).await?;
        }
        Ok(Self { reading, sender, port, transport, early: Vec::new(), said })
    }

    /// Waits for a frame of the control lane that `pick` takes; keeps the others.
    async fn wait<T>(&mut self, pick: fn(Frame) -> Option<T>) -> Result<T, ConnectError> {
        loop {
            let mut found = None;
            for incoming in self.port.take() {
                match &incoming {
                    Incoming::Frame(lane, frame) if lane.is_control() && found.is_none() => {
                        found = frame.parse().ok().and_then(pick);
                        if found.is_none() {
                            self.early.push(incoming);
                        }
                    }
                    _ => self.early.push(incoming),
                }
            }
            if let Some(found) = found {
                return Ok(found);
            }
            tokio::select! {
                biased;
                end = &mut self.reading => return Err(refused(end)),
                () = self.port.arrived.notified() => {}
            }
        }
    }
}

fn refused(end: End) -> ConnectError {
    match end {
        End::Peer { code, reason, retry_after_ms } => {
            ConnectError::closed(code, reason, retry_after_ms)
        }
        End::Stopped(stop) => ConnectError::Refused {
            code: stop.code,
            reason: format!("the server broke the protocol: {}", stop.reason),
            retry_after: None,
        },
        End::Lost(reason) => ConnectError::Unreachable { reason },
        End::Local => ConnectError::Unreachable { reason: "closed by this end".into() },
    }
}

/// One way to the server.
#[derive(Debug, Clone, Copy)]
struct Way {
    transport: TransportChoice,
    addr: SocketAddr,
    /// When it starts, unless all before it have failed.
    after: Duration,
}

/// The ways in the order in which they start.
fn ways(config: &ClientConfig, addrs: &[SocketAddr]) -> Vec<Way> {
    let v4 = addrs.iter().find(|a| a.is_ipv4());
    let v6 = addrs.iter().find(|a| a.is_ipv6());
    let mut ways = Vec::new();
    for (n, addr) in v4.into_iter().chain(v6).enumerate() {
        let after = FAMILY_HEAD_START * u32::try_from(n).unwrap_or(0);
        let way = |transport, after| Way { transport, addr: *addr, after };
        match config.transport {
            TransportChoice::Auto => {
                ways.push(way(TransportChoice::Quic, after));
                ways.push(way(TransportChoice::Tcp, after + config.head_start));
            }
            one => ways.push(way(one, after)),
        }
    }
    ways.sort_by_key(|way| way.after);
    ways
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
    device: &str,
    endpoint: Option<&str>,
) -> Result<Established, ConnectError> {
    let connecting = connect_all(connector, config, device, endpoint);
    match tokio::time::timeout(config.connect_timeout, connecting).await {
        Ok(result) => result,
        Err(_) => Err(ConnectError::TimedOut),
    }
}

async fn connect_all(
    connector: &Connector,
    config: &ClientConfig,
    device: &str,
    endpoint: Option<&str>,
) -> Result<Established, ConnectError> {
    let (name, _) = split_server(&config.server)?;
    let (host, port) = split_server(endpoint.unwrap_or(&config.server))?;
    let addrs: Vec<SocketAddr> = tokio::net::lookup_host((host, port))
        .await
        .map_err(|e| ConnectError::Resolve { host: host.into(), reason: e.to_string() })?
        .collect();
    // A server may say where to come back to, and not who it is: the name stays.
    let name: Arc<str> = config.server_name.as_deref().unwrap_or(name).into();
    let flight = Flight::new(config, device);
    let race = Race { connector, name, flight: &flight, racers: JoinSet::new(), logins: 0 };
    let (winner, welcome, logged_in, raced) = race.run(ways(config, &addrs)).await?;
    finish(winner, welcome, logged_in, raced, &flight).await
}

/// The racers under way.
struct Race<'a> {
    connector: &'a Connector,
    name: Arc<str>,
    flight: &'a Flight,
    racers: JoinSet<Result<(Greeting, frame::Welcome, bool), (Way, ConnectError)>>,
    /// Racers that have sent a login.
    logins: u32,
}

impl Race<'_> {
    /// The first that is welcomed; whether it has sent its login; whether another one has too.
    async fn run(
        mut self,
        ways: Vec<Way>,
    ) -> Result<(Greeting, frame::Welcome, bool, bool), ConnectError> {
        let begun = tokio::time::Instant::now();
        let mut ways = ways.into_iter().peekable();
        let mut failures = Vec::new();
        loop {
            if self.racers.is_empty() && !self.start(ways.next()) {
                return Err(worst(failures));
            }
            let next = ways.peek().map(|way| begun + way.after);
            tokio::select! {
                biased;
                ended = self.racers.join_next() => match ended {
                    Some(Ok(Ok((greeting, welcome, login)))) => {
                        let raced = self.logins > u32::from(login);
                        return Ok((greeting, welcome, login, raced));
                    }
                    Some(Ok(Err((way, e)))) => {
                        if is_verdict(&e) {
                            return Err(e);
                        }
                        failures.push((way, e));
                    }
                    Some(Err(_)) | None => {}
                },
                () = at(next) => {
                    self.start(ways.next());
                }
            }
        }
    }

    fn start(&mut self, way: Option<Way>) -> bool {
        let Some(way) = way else { return false };
        let login = self.racers.is_empty();
        self.logins += u32::from(login);
        let (connector, name, flight) =
            (self.connector.clone(), Arc::clone(&self.name), self.flight.clone());
        self.racers.spawn(async move {
            let greeted = greet(&connector, &name, &flight, way, login).await;
            greeted.map(|(greeting, welcome)| (greeting, welcome, login)).map_err(|e| (way, e))
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

async fn greet(
    connector: &Connector,
    name: &str,
    flight: &Flight,
    way: Way,
    login: bool,
) -> Result<(Greeting, frame::Welcome), ConnectError> {
    let dialed = match way.transport {
        TransportChoice::Auto | TransportChoice::Quic => {
            connector.dialer().quic(way.addr, name).await
        }
        TransportChoice::Tcp => connector.dialer().tcp(way.addr, name).await,
        TransportChoice::Plain => Dialer::plain(way.addr, false).await,
    };
    let conn = dialed.map_err(dial_error)?;
    let mut greeting = Greeting::hello(conn, flight, login).await?;
    let welcome = greeting
        .wait(|frame| match frame {
            Frame::Welcome(welcome) => Some(welcome),
            _ => None,
        })
        .await?;
    Ok((greeting, welcome))
}

async fn finish(
    mut winner: Greeting,
    welcome: frame::Welcome,
    login: bool,
    raced: bool,
    flight: &Flight,
) -> Result<Established, ConnectError> {
    let rtt = winner.said.elapsed();
    if welcome.version != VERSION {
        let reason = format!("the server chose version {}", welcome.version);
        winner.sender.close(CloseCode::Version, &reason, 0).await;
        return Err(ConnectError::VersionUnsupported { reason });
    }
    if !login {
        flight.send_login(&mut winner.sender).await?;
    }
    let picked = |frame| match frame {
        Frame::LoggedIn(logged_in) => Some(logged_in),
        _ => None,
    };
    let early = std::mem::take(&mut winner.early);
    let (logged_in, early) = take_early(early, picked);
    winner.early = early;
    let logged_in = match logged_in {
        Some(logged_in) => logged_in,
        None => winner.wait(picked).await?,
    };
    Ok(Established {
        reading: winner.reading,
        sender: winner.sender,
        port: winner.port,
        transport: winner.transport,
        welcome,
        logged_in,
        early: winner.early,
        opened_bytes: flight.open.len(),
        rtt,
        raced,
    })
}

/// Takes what `pick` wants from what came along with an earlier frame.
fn take_early<T>(early: Vec<Incoming>, pick: fn(Frame) -> Option<T>) -> (Option<T>, Vec<Incoming>) {
    let mut found = None;
    let mut others = Vec::new();
    for incoming in early {
        if let Incoming::Frame(lane, frame) = &incoming
            && lane.is_control()
            && found.is_none()
        {
            found = frame.parse().ok().and_then(pick);
            if found.is_some() {
                continue;
            }
        }
        others.push(incoming);
    }
    (found, others)
}

fn dial_error(e: DialError) -> ConnectError {
    if let Some(reason) = certificate_problem(&e) {
        return ConnectError::Certificate { reason };
    }
    match e {
        DialError::Name(name) => ConnectError::Config {
            problem: format!("`{name}` is no name that a certificate can hold; set server_name"),
        },
        DialError::Quic(quinn::ConnectionError::ApplicationClosed(close)) => ConnectError::closed(
            CloseCode::from_code(close.error_code.into_inner()),
            String::from_utf8_lossy(&close.reason).into_owned(),
            0,
        ),
        other => ConnectError::Unreachable { reason: other.to_string() },
    }
}

/// What is wrong with the server's certificate, where that is the trouble.
fn certificate_problem(e: &DialError) -> Option<String> {
    match e {
        DialError::Tcp(e) => match e.get_ref()?.downcast_ref::<rustls::Error>()? {
            e @ (rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented) => {
                Some(e.to_string())
            }
            _ => None,
        },
        // This end's own alert: bad certificate (42) to unknown authority (48), or a signature that
        // does not fit (51).
        DialError::Quic(quinn::ConnectionError::TransportError(e)) => {
            let code = u64::from(e.code);
            matches!(code, 0x12a..=0x130 | 0x133).then(|| e.to_string())
        }
        _ => None,
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
        let addrs = ["127.0.0.1:1".parse().unwrap()];
        let ways = ways(&config, &addrs);
        assert_eq!(ways[0].transport, TransportChoice::Quic);
        assert_eq!((ways[1].transport, ways[1].after), (TransportChoice::Tcp, config.head_start));
    }

    #[test]
    fn long_text_is_cut_at_a_character() {
        let long = "ä".repeat(200);
        assert_eq!(short(&long).len(), 256);
        assert_eq!(short("short"), "short");
    }
}
