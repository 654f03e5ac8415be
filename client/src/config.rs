//! What a client is told before it connects.

use std::{net::IpAddr, time::Duration};

/// Whom the client trusts to be the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// The certificate authorities of the public web.
    Web,
    /// Only the authorities in this PEM text, for example the development CA's `ca.pem`.
    Ca(Vec<u8>),
}

/// What carries the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TransportChoice {
    /// QUIC, and TCP with TLS a head start later: who answers first is used.
    #[default]
    Auto,
    /// Only QUIC.
    Quic,
    /// Only TCP with TLS.
    Tcp,
    /// Only TCP in the clear: for a listener on a trusted network.
    Plain,
}

/// How the client proves who the user is.
#[derive(Clone, PartialEq, Eq)]
pub enum Login {
    /// By word alone. Servers take it in development only.
    Development {
        /// The user's name.
        user: String,
    },
    /// With a password.
    Password {
        /// The user's name.
        user: String,
        /// The password.
        password: String,
    },
    /// With a signed token.
    Token {
        /// The user's name; empty where the token says it.
        user: String,
        /// The token.
        token: Vec<u8>,
    },
}

impl std::fmt::Debug for Login {
    // Secrets stay out of logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Development { user } => write!(f, "Development {{ user: {user:?} }}"),
            Self::Password { user, .. } => write!(f, "Password {{ user: {user:?}, .. }}"),
            Self::Token { user, .. } => write!(f, "Token {{ user: {user:?}, .. }}"),
        }
    }
}

/// All that [`Client::connect`](crate::Client::connect) needs. Make one with
/// [`new`](Self::new) and change what should differ.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// Where the server is: `host:port`. With [`dispatch`](Self::dispatch), where it is when dispatch cannot be
    /// asked and nothing is remembered of it; empty for nowhere.
    pub server: String,
    /// Where it is over TCP, where that is another address.
    pub tcp_server: Option<String>,
    /// Who says where to connect.
    pub dispatch: Option<DispatchConfig>,
    /// The ticket of dispatch, for a gateway that wants one; empty for none. With
    /// [`dispatch`](Self::dispatch) the client sets it itself.
    pub ticket: Vec<u8>,
    /// The name that the server's certificate must hold; `None` for the host of `server`.
    pub server_name: Option<String>,
    /// Whom to trust.
    pub trust: Trust,
    /// What carries the connection.
    pub transport: TransportChoice,
    /// The address of this machine that all sockets use, for a machine with several networks; `None`
    /// leaves it to the system. TCP in the clear does not look at it.
    pub bind: Option<IpAddr>,
    /// With [`TransportChoice::Auto`], how long QUIC runs alone before TCP starts too.
    pub head_start: Duration,
    /// Sends signals and strokes again as datagrams where the path loses packets, and asks the
    /// gateway to do so. Over QUIC only. On by default.
    pub repair: bool,
    /// Says the first words of a return before the handshake is complete, where the server takes that:
    /// never a password. Over QUIC only. On by default.
    pub early_data: bool,
    /// Uses bbr over TCP, where the kernel has it and permits it; else what the system has chosen. On by
    /// default.
    pub tcp_bbr: bool,
    /// Who the user is.
    pub login: Login,
    /// Names this installation of the app: at most 128 bytes, the same at each start, and different
    /// from the user's other devices. Empty: made up at random.
    pub device: String,
    /// Rooms to join along with the login, which saves a round trip.
    /// [`Client::join`](crate::Client::join) then gives the room.
    pub join: Vec<String>,
    /// Name and version of the app, for the server's logs.
    pub agent: String,
    /// How long one try to connect may take, login included.
    pub connect_timeout: Duration,
    /// Silence after which a connection counts as lost.
    pub idle_timeout: Duration,
    /// How long before its login ends the app is told ([`Event::LoginExpires`](crate::Event::LoginExpires)), or
    /// at half of its time where that is later.
    pub renew_before: Duration,
    /// The first delay between tries to reconnect; it doubles with each.
    pub backoff_min: Duration,
    /// The longest delay between tries to reconnect.
    pub backoff_max: Duration,
    /// What signals and strokes may take in memory until they are acknowledged. At this bound `send`
    /// waits and `send_nowait` answers [`SendError::Full`](crate::SendError::Full). At least 128 KiB.
    pub unacked_bytes: usize,
    /// What chat may take in memory until it is written. At this bound the oldest is dropped: its
    /// sender gets [`SendError::Dropped`](crate::SendError::Dropped).
    pub chat_queue_bytes: usize,
}

impl ClientConfig {
    /// The defaults, for a server of the public web.
    #[must_use]
    pub fn new(server: &str, login: Login) -> Self {
        Self {
            server: server.to_owned(),
            tcp_server: None,
            dispatch: None,
            ticket: Vec::new(),
            server_name: None,
            trust: Trust::Web,
            transport: TransportChoice::Auto,
            bind: None,
            head_start: Duration::from_millis(300),
            repair: true,
            early_data: true,
            tcp_bbr: true,
            login,
            device: String::new(),
            join: Vec::new(),
            agent: concat!("edgeway-client/", env!("CARGO_PKG_VERSION")).to_owned(),
            connect_timeout: Duration::from_secs(10),
            // Above three keep-alives of 12 s, so that the server's silence of a third is filled by its
            // pongs and it never has to ping.
            idle_timeout: Duration::from_secs(40),
            renew_before: Duration::from_secs(60),
            backoff_min: Duration::from_secs(1),
            backoff_max: Duration::from_secs(30),
            unacked_bytes: 256 * 1024,
            chat_queue_bytes: 64 * 1024,
        }
    }
}

impl ClientConfig {
    /// The defaults, for a client that asks dispatch where to connect.
    #[must_use]
    pub fn by_dispatch(url: &str, app: &str, login: Login) -> Self {
        let dispatch = Some(DispatchConfig::new(url, app));
        Self { dispatch, ..Self::new("", login) }
    }
}

/// How dispatch is asked. The user's name goes along.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DispatchConfig {
    /// `https://host[:port][/path]`, or http; without a path it is `/dispatch`. Its certificate is trusted as that of
    /// the server is.
    pub url: String,
    /// The app or tenant; empty for the default one.
    pub app: String,
    /// How long an answer may take. After that, an older answer is used, or [`ClientConfig::server`].
    pub timeout: Duration,
}

impl DispatchConfig {
    /// The defaults.
    #[must_use]
    pub fn new(url: &str, app: &str) -> Self {
        Self { url: url.to_owned(), app: app.to_owned(), timeout: Duration::from_secs(3) }
    }
}

/// What `unacked_bytes` is raised to: two messages of the largest size.
pub(crate) const UNACKED_MIN_BYTES: usize = 128 * 1024;

/// Credit granted on each signal lane: the default of both sides.
pub(crate) const CREDIT_SIGNAL_BYTES: u64 = 64 * 1024;
/// The same for binary and chat lanes: little, so that little of the low classes is under way.
pub(crate) const CREDIT_LOW_BYTES: u64 = 16 * 1024;
