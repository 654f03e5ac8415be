//! The first words on a connection: Hello, Login and the chat Session, and what the gateway says to
//! them.

use std::{
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use edgeway_proto::{
    Class, CloseCode, Lane, Text, VERSION,
    frame::{self, Frame, param},
};
use edgeway_transport::{Connection, DialError, Dialer, End, Sender, Settled, Transport};

use crate::{
    ClientConfig, ConnectError, Login, TransportChoice,
    connect::Way,
    connector::Connector,
    core::open_chat,
    port::{Port, PortSink},
    queue::initial_credit,
    shared::Incoming,
};

/// Reads a connection until it ends.
pub(crate) type Reading = Pin<Box<dyn Future<Output = End> + Send>>;

/// A connection whose login is done.
pub(crate) struct Established {
    pub(crate) reading: Reading,
    pub(crate) sender: Sender,
    pub(crate) port: Arc<Port>,
    pub(crate) transport: Transport,
    /// Where it leads.
    pub(crate) addr: SocketAddr,
    pub(crate) welcome: frame::Welcome,
    pub(crate) logged_in: frame::LoggedIn,
    /// What came beside: for the client.
    pub(crate) early: Vec<Incoming>,
    /// Whether the server has taken what was said before the handshake was complete.
    pub(crate) early_data: bool,
    /// Whether the session token was good.
    pub(crate) resumed: bool,
    /// Bytes of the chat Session's frames that went along with the login.
    pub(crate) opened_bytes: usize,
    /// From Hello to Welcome.
    pub(crate) rtt: Duration,
    /// Another racer had sent a login too, which the server may see later than this one.
    pub(crate) raced: bool,
}

/// What a login has got, so that the next one need not prove anew who it is.
#[derive(Clone)]
pub(crate) struct Resume {
    user: Text,
    token: Bytes,
}

impl Resume {
    pub(crate) fn new(logged_in: &frame::LoggedIn) -> Option<Self> {
        let token = Bytes::copy_from_slice(&logged_in.token);
        (!token.is_empty()).then(|| Self { user: logged_in.user.detached(), token })
    }

    /// Of a login that was renewed.
    pub(crate) fn renewed(user: &str, renewed: &frame::Renewed) -> Option<Self> {
        let token = Bytes::copy_from_slice(&renewed.token);
        (!token.is_empty()).then(|| Self { user: Text::from(user.to_owned()), token })
    }
}

/// What every racer says.
#[derive(Clone)]
pub(crate) struct Flight {
    hello: Bytes,
    /// By session token, where there is one.
    resume: Option<Bytes>,
    login: Bytes,
    /// The chat Session's first frames: open, joins, and what follows them.
    open: Vec<Bytes>,
    /// Whether it may go out before a handshake is complete.
    early_data: bool,
}

impl Flight {
    pub(crate) fn new(
        config: &ClientConfig,
        device: &str,
        resume: Option<Resume>,
        frames: Vec<Bytes>,
    ) -> Self {
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
            token: Bytes::copy_from_slice(&config.ticket),
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
        let resume = resume.map(|Resume { user, token }| {
            let method = frame::method::RESUME;
            frame::Login { method, user, device: device.into(), secret: token }.to_bytes()
        });
        let open = std::iter::once(open_chat()).chain(frames).collect();
        let early_data = config.early_data;
        Self { hello: hello.to_bytes(), resume, login: login.to_bytes(), open, early_data }
    }

    /// The login that is tried first.
    fn first_login(&self) -> &Bytes {
        self.resume.as_ref().unwrap_or(&self.login)
    }

    async fn send_login(&self, sender: &mut Sender) -> Result<(), ConnectError> {
        send(sender, Lane::CONTROL, vec![self.first_login().clone()]).await?;
        send(sender, Lane::new(1, Class::Signal), self.open.clone()).await
    }
}

async fn send(sender: &mut Sender, lane: Lane, mut frames: Vec<Bytes>) -> Result<(), ConnectError> {
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
pub(crate) struct Greeting {
    reading: Reading,
    sender: Sender,
    port: Arc<Port>,
    pub(crate) transport: Transport,
    addr: SocketAddr,
    early: Vec<Incoming>,
    /// Whether the server has taken what was said before the handshake was complete.
    early_data: bool,
    said: Instant,
    /// From Hello to Welcome.
    rtt: Duration,
}

impl Greeting {
    async fn hello(conn: Connection, flight: &Flight, all: bool) -> Result<Self, ConnectError> {
        let port = Arc::new(Port::default());
        let mut sink = PortSink::new(Arc::clone(&port));
        let Connection { mut receiver, mut sender, transport, remote: addr, .. } = conn;
        let reading = Box::pin(async move { receiver.run(&mut sink).await });
        let said = Instant::now();
        if all {
            let words = vec![flight.hello.clone(), flight.first_login().clone()];
            send(&mut sender, Lane::CONTROL, words).await?;
            send(&mut sender, Lane::new(1, Class::Signal), flight.open.clone()).await?;
        } else {
            send(&mut sender, Lane::CONTROL, vec![flight.hello.clone()]).await?;
        }
        Ok(Self {
            reading,
            sender,
            port,
            transport,
            addr,
            early: Vec::new(),
            early_data: false,
            said,
            rtt: Duration::ZERO,
        })
    }

    /// Waits for a frame of the control lane that `pick` takes; keeps the others.
    async fn wait<T>(&mut self, pick: fn(Frame) -> Option<T>) -> Result<T, ConnectError> {
        loop {
            self.early.extend(self.port.take());
            if let Some(found) = self.pick(pick) {
                return Ok(found);
            }
            tokio::select! {
                biased;
                end = &mut self.reading => return Err(refused(end)),
                () = self.port.arrived.notified() => {}
            }
        }
    }

    fn pick<T>(&mut self, pick: fn(Frame) -> Option<T>) -> Option<T> {
        let picked = |incoming: &Incoming| match incoming {
            Incoming::Frame(lane, frame) if lane.is_control() => frame.parse().ok().and_then(pick),
            _ => None,
        };
        let mut early = self.early.iter().enumerate();
        let (at, found) = early.find_map(|(at, incoming)| Some((at, picked(incoming)?)))?;
        self.early.remove(at);
        Some(found)
    }
}

/// What a login is answered with.
enum Answer {
    LoggedIn(frame::LoggedIn),
    /// The session token is not good any more.
    Refused,
}

fn answer(frame: Frame) -> Option<Answer> {
    match frame {
        Frame::LoggedIn(logged_in) => Some(Answer::LoggedIn(logged_in)),
        Frame::ResumeRefused(_) => Some(Answer::Refused),
        _ => None,
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

/// Which of several racers logs in along with its Hello: the first that can say it, and only one, or the
/// two logins would be two devices of the same name that push each other out.
#[derive(Debug, Clone)]
pub(crate) struct LoginTurn(Arc<AtomicBool>);

impl LoginTurn {
    /// Of a race in which somebody logs in, or nobody.
    pub(crate) fn new(somebody: bool) -> Self {
        Self(Arc::new(AtomicBool::new(!somebody)))
    }

    /// Whether it is the caller's; only once.
    fn take(&self) -> bool {
        !self.0.swap(true, Ordering::AcqRel)
    }

    /// Whether nobody has it, or will.
    pub(crate) fn is_over(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Dials and says Hello, with the login where it has the turn; also whether it had.
pub(crate) async fn greet(
    connector: &Connector,
    name: &str,
    flight: &Flight,
    way: Way,
    turn: &LoginTurn,
) -> Result<(Greeting, frame::Welcome, bool), ConnectError> {
    // A session token may be said before the handshake is complete, a password may not.
    let early = flight.early_data && (flight.resume.is_some() || turn.is_over());
    let dialer = connector.dialer();
    let dialed = match way.transport {
        TransportChoice::Auto | TransportChoice::Quic if early => {
            dialer.quic_early(way.addr, name).await
        }
        TransportChoice::Auto | TransportChoice::Quic => dialer.quic(way.addr, name).await,
        TransportChoice::Tcp => dialer.tcp(way.addr, name).await,
        TransportChoice::Plain => Dialer::plain(way.addr, false).await,
    };
    let mut conn = dialed.map_err(dial_error)?;
    // Not sooner: where UDP is blocked, QUIC never comes so far, and must not keep TCP from it.
    let login = turn.take();
    let early = conn.early.take();
    let mut greeting = Greeting::hello(conn, flight, login).await;
    let mut accepted = false;
    if let Some(early) = early {
        match early.settle().await {
            Settled::Accepted => accepted = true,
            // The server knows nothing of it: all is said again.
            Settled::Rejected(conn) => greeting = Greeting::hello(*conn, flight, login).await,
            Settled::Failed(e) => return Err(dial_error(DialError::Quic(e))),
        }
    }
    let mut greeting = greeting?;
    greeting.early_data = accepted;
    let welcome = greeting
        .wait(|frame| match frame {
            Frame::Welcome(welcome) => Some(welcome),
            _ => None,
        })
        .await?;
    // Not later: a connection that is raced beside another may wait before it logs in.
    greeting.rtt = greeting.said.elapsed();
    Ok((greeting, welcome, login))
}

pub(crate) async fn finish(
    mut winner: Greeting,
    welcome: frame::Welcome,
    login: bool,
    raced: bool,
    flight: &Flight,
) -> Result<Established, ConnectError> {
    if welcome.version != VERSION {
        let reason = format!("the server chose version {}", welcome.version);
        winner.sender.close(CloseCode::Version, &reason, 0).await;
        return Err(ConnectError::VersionUnsupported { reason });
    }
    if !login {
        flight.send_login(&mut winner.sender).await?;
    }
    let mut resumed = flight.resume.is_some();
    let logged_in = loop {
        match winner.wait(answer).await? {
            Answer::LoggedIn(logged_in) => break logged_in,
            Answer::Refused if resumed => {
                resumed = false;
                send(&mut winner.sender, Lane::CONTROL, vec![flight.login.clone()]).await?;
            }
            // Said again, it changes nothing.
            Answer::Refused => {}
        }
    };
    Ok(Established {
        reading: winner.reading,
        sender: winner.sender,
        port: winner.port,
        transport: winner.transport,
        addr: winner.addr,
        welcome,
        logged_in,
        resumed,
        early: winner.early,
        early_data: winner.early_data,
        opened_bytes: flight.open.iter().map(Bytes::len).sum(),
        rtt: winner.rtt,
        raced,
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_racer_logs_in_along_with_its_hello_and_nobody_where_nobody_shall() {
        let turn = LoginTurn::new(true);
        let other = turn.clone();
        assert!(!turn.is_over());
        assert!(other.take() && turn.is_over() && !turn.take());
        let nobody = LoginTurn::new(false);
        assert!(nobody.is_over() && !nobody.take());
    }

    #[test]
    fn long_text_is_cut_at_a_character() {
        let long = "ä".repeat(200);
        assert_eq!(short(&long).len(), 256);
        assert_eq!(short("short"), "short");
    }
}
