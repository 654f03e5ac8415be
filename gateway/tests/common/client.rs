//! A client on bare lanes: it sends what the test says, also what is wrong.

use std::collections::HashMap;

use bytes::Bytes;
use edgeway_proto::{
    Class, CloseCode, Frame, Lane, RawFrame,
    frame::{CloseSession, Credit, Hello, Login, Open, Ping, method, param},
};
use edgeway_transport::{Connection, Dialer, End, Receiver, Sender, Sink, Stop};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::{Edge, within};

/// How a connection is carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    Quic,
    Tcp,
    Plain,
    Legacy,
}

impl Via {
    pub fn quic() -> Self {
        Self::Quic
    }
    pub fn tcp() -> Self {
        Self::Tcp
    }
    pub fn plain() -> Self {
        Self::Plain
    }
    pub fn legacy() -> Self {
        Self::Legacy
    }
}

struct Collect(UnboundedSender<(Lane, RawFrame)>);

impl Sink for Collect {
    fn frame(&mut self, lane: Lane, frame: RawFrame) -> Result<(), Stop> {
        let _ = self.0.send((lane, frame));
        Ok(())
    }
    fn flush(&mut self) {}
    fn ended(&mut self, _: Lane) {}
}

/// Grants without end: what such a client receives is not counted.
pub const ALL: u64 = (1 << 62) - 1;

pub struct Client {
    pub sender: Sender,
    seen: UnboundedReceiver<(Lane, RawFrame)>,
    end: tokio::task::JoinHandle<End>,
    start: Option<tokio::sync::oneshot::Sender<()>>,
    /// What the gateway allows on each lane, and what was sent.
    pub allowed: HashMap<Lane, u64>,
    pub sent: HashMap<Lane, u64>,
}

impl Client {
    pub async fn dial(edge: &Edge, via: Via) -> Result<Connection, edgeway_transport::DialError> {
        match via {
            Via::Quic => edge.dialer.quic(edge.quic, "localhost").await,
            Via::Tcp => edge.dialer.tcp(edge.tcp, "localhost").await,
            Via::Plain => Dialer::plain(edge.plain, false).await,
            Via::Legacy => Dialer::plain(edge.plain, true).await,
        }
    }

    /// Connects and says nothing.
    pub async fn connect(edge: &Edge, via: Via) -> Self {
        Self::on(within(Self::dial(edge, via)).await.unwrap(), true)
    }

    /// Connects, and reads nothing until [`read`](Self::read).
    pub async fn connect_deaf(edge: &Edge, via: Via) -> Self {
        Self::on(within(Self::dial(edge, via)).await.unwrap(), false)
    }

    /// Speaks on a connection that was made elsewhere.
    pub fn over(connection: Connection) -> Self {
        Self::on(connection, true)
    }

    fn on(connection: Connection, reads: bool) -> Self {
        let Connection { receiver, sender, .. } = connection;
        let (to, seen) = unbounded_channel();
        let (start, started) = tokio::sync::oneshot::channel();
        let run = async move |mut receiver: Receiver| {
            let _ = started.await;
            receiver.run(&mut Collect(to)).await
        };
        let end = tokio::spawn(run(receiver));
        let mut client = Self {
            sender,
            seen,
            end,
            start: Some(start),
            allowed: HashMap::new(),
            sent: HashMap::new(),
        };
        if reads {
            client.read();
        }
        client
    }

    pub fn read(&mut self) {
        if let Some(start) = self.start.take() {
            let _ = start.send(());
        }
    }

    /// Logs in, where the gateway lets it.
    pub async fn try_login(connection: Connection, user: &str) -> Option<Self> {
        let mut client = Self::on(connection, true);
        let first = client.try_send(Lane::CONTROL, hello([ALL; 3])).await;
        if !first || !client.try_send(Lane::CONTROL, login(user, "secret")).await {
            return None;
        }
        loop {
            let (_, raw) = within(client.seen.recv()).await?;
            if raw.kind == edgeway_proto::frame::LoggedIn::KIND {
                return Some(client);
            }
        }
    }

    /// Connects and logs in, granting everything.
    pub async fn login(edge: &Edge, via: Via, user: &str) -> Self {
        Self::login_granting(edge, via, user, [ALL; 3]).await
    }

    pub async fn login_granting(edge: &Edge, via: Via, user: &str, credit: [u64; 3]) -> Self {
        let mut client = Self::connect(edge, via).await;
        client.control(hello(credit)).await;
        client.control(login(user, "secret")).await;
        client.until(|f| matches!(f, Frame::LoggedIn(l) if l.user == *user)).await;
        client
    }

    /// Writes bytes to a lane, counted as sent.
    pub async fn send(&mut self, lane: Lane, bytes: Bytes) {
        *self.sent.entry(lane).or_default() += bytes.len() as u64;
        let sent = async {
            self.sender.send(lane, &mut [bytes]).await?;
            self.sender.flush().await
        };
        within(sent).await.unwrap();
    }

    /// The same, where the gateway may have closed meanwhile.
    pub async fn try_send(&mut self, lane: Lane, bytes: Bytes) -> bool {
        let sent = async {
            self.sender.send(lane, &mut [bytes]).await?;
            self.sender.flush().await
        };
        within(sent).await.is_ok()
    }

    pub async fn control(&mut self, frame: Bytes) {
        self.send(Lane::CONTROL, frame).await;
    }

    /// Sends, but only once there is credit, as a good client does.
    pub async fn send_within_credit(&mut self, lane: Lane, bytes: Bytes, initial: u64) {
        while self.sent.get(&lane).copied().unwrap_or(0)
            >= self.allowed.get(&lane).copied().unwrap_or(initial)
        {
            self.until(|f| matches!(f, Frame::Credit(_))).await;
        }
        self.send(lane, bytes).await;
    }

    /// The next frame. Credit is taken note of.
    pub async fn next(&mut self) -> (Lane, Frame) {
        let (lane, frame) = loop {
            let Some((lane, raw)) = within(self.seen.recv()).await else {
                panic!("the connection has ended: {:?}", (&mut self.end).await)
            };
            // Echoes of kinds of our own.
            if raw.kind < 0x80 || lane.is_control() {
                break (lane, raw.parse().unwrap());
            }
        };
        if let Frame::Credit(c) = &frame {
            let lane = Lane::new(u8::try_from(c.session).unwrap(), c.class);
            self.allowed.insert(lane, c.total);
        }
        (lane, frame)
    }

    /// The next raw frame on a lane of a Session, of whatever kind.
    pub async fn raw(&mut self) -> (Lane, RawFrame) {
        loop {
            let (lane, raw) = within(self.seen.recv()).await.expect("the connection goes on");
            if !lane.is_control() {
                return (lane, raw);
            }
        }
    }

    /// Reads until a frame is the one.
    pub async fn until(&mut self, is: impl Fn(&Frame) -> bool) -> (Lane, Frame) {
        loop {
            let (lane, frame) = self.next().await;
            if is(&frame) {
                return (lane, frame);
            }
        }
    }

    /// Asks for a Session; does not wait.
    pub async fn ask(&mut self, session: u8, kind: &str) {
        let open = Open { session: session.into(), kind: kind.into(), headers: vec![] };
        self.send(Lane::new(session, Class::Signal), open.to_bytes()).await;
    }

    /// Opens a Session.
    pub async fn open(&mut self, session: u8, kind: &str) {
        self.ask(session, kind).await;
        self.until(|f| matches!(f, Frame::Opened(o) if o.session == u64::from(session))).await;
    }

    /// Waits for the end of a Session.
    pub async fn session_end(&mut self, session: u8) -> CloseSession {
        let is = |f: &Frame| matches!(f, Frame::CloseSession(c) if c.session == u64::from(session));
        match self.until(is).await {
            (lane, Frame::CloseSession(close)) => {
                assert_eq!(lane, Lane::new(session, Class::Signal));
                close
            }
            other => unreachable!("{other:?}"),
        }
    }

    pub async fn session_code(&mut self, session: u8) -> CloseCode {
        CloseCode::from_code(self.session_end(session).await.code)
    }

    /// Grants a lane so much in all.
    pub async fn grant(&mut self, lane: Lane, total: u64) {
        let credit = Credit { session: lane.session.into(), class: lane.class, total };
        self.control(credit.to_bytes()).await;
    }

    /// Shows that the connection is well: a ping is answered.
    pub async fn is_well(&mut self) {
        self.control(Ping { token: 4711 }.to_bytes()).await;
        self.until(|f| matches!(f, Frame::Pong(p) if p.token == 4711)).await;
    }

    /// Shows that a Session is well: what it sends comes back.
    pub async fn echoes(&mut self, session: u8) {
        let text = format!("echo {session}");
        let mut frame = vec![0x90, u8::try_from(text.len()).unwrap()];
        frame.extend_from_slice(text.as_bytes());
        let lane = Lane::new(session, Class::Signal);
        self.send(lane, frame.clone().into()).await;
        loop {
            let (got, raw) = self.raw().await;
            if got == lane && raw.whole[..] == frame[..] {
                return;
            }
        }
    }

    /// Goes without a word: both halves of it.
    pub async fn vanish(self) {
        self.end.abort();
        let _ = self.end.await;
    }

    /// How it ended.
    pub async fn end(mut self) -> End {
        self.read();
        within(self.end).await.unwrap()
    }

    /// The code that the gateway closed it with.
    pub async fn code(self) -> CloseCode {
        match self.end().await {
            End::Peer { code, .. } => code,
            other => panic!("not closed by the gateway: {other:?}"),
        }
    }
}

pub fn hello(credit: [u64; 3]) -> Bytes {
    let params = vec![
        (param::CREDIT_SIGNAL, credit[0]),
        (param::CREDIT_BINARY, credit[1]),
        (param::CREDIT_CHAT, credit[2]),
    ];
    Hello { version_min: 1, version_max: 1, params, ..Hello::default() }.to_bytes()
}

pub fn login(user: &str, secret: &'static str) -> Bytes {
    let (user, device) = (user.into(), "device".into());
    Login { method: 1, user, device, secret: Bytes::from_static(secret.as_bytes()) }.to_bytes()
}

/// A login by session token.
pub fn resume(user: &str, token: &'static str) -> Bytes {
    let (user, device) = (user.into(), "device".into());
    let secret = Bytes::from_static(token.as_bytes());
    Login { method: method::RESUME, user, device, secret }.to_bytes()
}
