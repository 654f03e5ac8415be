//! The first words on a connection: Hello, Login and the chat Session, and what the gateway says to
//! them.

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
    /// Bytes of the frame that opened the chat Session.
    pub(crate) opened_bytes: usize,
    /// From Hello to Welcome.
    pub(crate) rtt: Duration,
    /// Another racer had sent a login too, which the server may see later than this one.
    pub(crate) raced: bool,
}

/// What every racer says.
#[derive(Clone)]
pub(crate) struct Flight {
    hello: Bytes,
    login: Bytes,
    open: Bytes,
}

impl Flight {
    pub(crate) fn new(config: &ClientConfig, device: &str) -> Self {
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
        send(sender, Lane::CONTROL, vec![self.login.clone()]).await?;
        send(sender, Lane::new(1, Class::Signal), vec![self.open.clone()]).await
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
    said: Instant,
}

impl Greeting {
    async fn hello(conn: Connection, flight: &Flight, all: bool) -> Result<Self, ConnectError> {
        let port = Arc::new(Port::default());
        let mut sink = PortSink::new(Arc::clone(&port));
        let Connection { mut receiver, mut sender, transport, remote: addr } = conn;
        let reading = Box::pin(async move { receiver.run(&mut sink).await });
        let said = Instant::now();
        if all {
            send(&mut sender, Lane::CONTROL, vec![flight.hello.clone(), flight.login.clone()])
                .await?;
            send(&mut sender, Lane::new(1, Class::Signal), vec![flight.open.clone()]).await?;
        } else {
            send(&mut sender, Lane::CONTROL, vec![flight.hello.clone()]).await?;
        }
        Ok(Self { reading, sender, port, transport, addr, early: Vec::new(), said })
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

pub(crate) async fn greet(
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

pub(crate) async fn finish(
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
        addr: winner.addr,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_text_is_cut_at_a_character() {
        let long = "ä".repeat(200);
        assert_eq!(short(&long).len(), 256);
        assert_eq!(short("short"), "short");
    }
}
