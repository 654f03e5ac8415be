//! The handles that apps hold.

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use edgeway_proto::{Class, Seq, limits};
use edgeway_transport::Transport;
use tokio::sync::oneshot;

use crate::{
    ClientConfig, ConnectError, Connector, Event, Inbox, JoinOptions, Login, PathStats, RenewError,
    RequestError, Room, Rooms, Session, SessionId, Stats,
    connect::split_server,
    core::{Answer, Core, CoreConfig, Reads},
    dispatch::connect_somewhere,
    greet::Flight,
    session::Begin,
    shared::Shared,
    supervise::Supervisor,
};

/// Keeps the connection while a handle lives.
#[derive(Debug)]
pub(crate) struct Guard {
    pub(crate) shared: Arc<Shared>,
    pub(crate) device: String,
    pings: AtomicU64,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.shared.ask_close();
    }
}

impl Guard {
    /// Asks the core for something and waits for the answer.
    pub(crate) async fn ask<T>(
        &self,
        ask: impl FnOnce(&mut Core, Answer<T>),
    ) -> Result<T, RequestError> {
        let (answer, waiting) = oneshot::channel();
        self.shared.with(|core| ask(core, answer));
        waiting.await.unwrap_or(Err(RequestError::Closed))
    }
}

/// A client: one user on one device, connected as long as any of its handles lives
/// ([`Client`], [`Room`], [`Rooms`], [`Inbox`], [`Session`], [`Events`]). A lost connection is made anew by
/// itself, rooms are joined again, and messages without an ack are sent again, with nothing twice.
///
/// ```no_run
/// use edgeway_client::{Bytes, Client, ClientConfig, Event, Login};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let config = ClientConfig::new("chat.example.com:4433", Login::Development { user: "ann".into() });
/// let (client, mut events) = Client::connect(config).await?;
/// let room = client.join("math-101").await?;
/// room.send_chat(Bytes::from_static(b"hello")).await?;
/// while let Some(event) = events.next().await {
///     if let Event::Message(message) = event {
///         println!("{}: {}", message.sender, String::from_utf8_lossy(&message.payload));
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Client {
    guard: Arc<Guard>,
}

impl Client {
    /// Connects and logs in. Ready when the server has accepted the login; from then on the client
    /// keeps itself connected. The events must be taken, or the server soon sends nothing more, acks
    /// included. Dropping the future gives up.
    ///
    /// # Errors
    /// Says whose fault it is, and whether another try may help.
    pub async fn connect(config: ClientConfig) -> Result<(Self, Events), ConnectError> {
        let connector = Connector::of(&config)?;
        Self::connect_through(&connector, config).await
    }

    /// The same, sharing a socket and TLS with other clients. `config.trust`, `config.bind` and
    /// `config.tcp_bbr` are not looked at.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub async fn connect_through(
        connector: &Connector,
        config: ClientConfig,
    ) -> Result<(Self, Events), ConnectError> {
        check(&config)?;
        let device = device(&config)?;
        let shared = Arc::new(Shared::new(
            CoreConfig {
                chat_queue_bytes: config.chat_queue_bytes,
                backoff_min: config.backoff_min,
                backoff_max: config.backoff_max,
                seed: random()?,
            },
            config.unacked_bytes,
        ));
        let frames = shared.with(|core| {
            for room in &config.join {
                // Whoever wants to know how it ends asks by `join`.
                let (answer, _) = oneshot::channel();
                core.join(SessionId::CHAT, room, &JoinOptions::default(), answer);
            }
            core.first_frames()
        });
        let base = Arc::new(config);
        let flight = |place: &ClientConfig| Flight::new(place, &device, None, frames.clone());
        let connecting = connect_somewhere(connector, &base, None, flight, None);
        let (mut established, config) = Box::pin(connecting).await?;
        let guard = Arc::new(Guard {
            shared: Arc::clone(&shared),
            device: device.clone(),
            pings: AtomicU64::new(0),
        });
        let connector = connector.clone();
        let supervisor = Supervisor { shared, connector, base, config, device };
        supervisor.begin(&mut established, |_| {});
        tokio::spawn(supervisor.run(established));
        let events = Events { guard: Arc::clone(&guard) };
        Ok((Self { guard }, events))
    }

    /// The user's name, as the server knows it.
    #[must_use]
    pub fn user(&self) -> String {
        self.guard.shared.user()
    }

    /// The device's name: made up where the configuration left it empty.
    #[must_use]
    pub fn device(&self) -> String {
        self.guard.device.clone()
    }

    /// What carries the connection; `None` while there is none.
    #[must_use]
    pub fn transport(&self) -> Option<Transport> {
        self.guard.shared.transport()
    }

    /// Joins a room of the chat Session; messages are delivered from now on. Joining a room twice gives
    /// the same room. While the client is reconnecting, it waits. Dropping the future may leave the
    /// room joined.
    ///
    /// # Errors
    /// The server refused it, or the client is closed.
    pub async fn join(&self, room: &str) -> Result<Room, RequestError> {
        self.join_with(room, JoinOptions::default()).await
    }

    /// Joins a room, from a position, or only to send.
    ///
    /// # Errors
    /// As [`join`](Self::join).
    pub async fn join_with(&self, room: &str, options: JoinOptions) -> Result<Room, RequestError> {
        Room::join(&self.guard, SessionId::CHAT, room, options).await
    }

    /// Joins many rooms of the chat Session in one call: a teacher's hundreds take about as long as one.
    /// The answers are in the order of the names; what is wrong with one room is not the others' fault.
    /// A Session has 1,000 rooms at most. Dropping the future may leave the rooms joined.
    pub async fn join_all(&self, rooms: Vec<String>) -> Vec<Result<Room, RequestError>> {
        Room::join_all(&self.guard, SessionId::CHAT, rooms).await
    }

    /// One's own messages from other users, and theirs.
    ///
    /// # Errors
    /// As [`join`](Self::join).
    pub async fn im(&self) -> Result<Inbox, RequestError> {
        self.inbox("im").await
    }

    /// One's own inbox of a Session type: `im`, `push`, `research_push`. What comes from now on is delivered.
    ///
    /// # Errors
    /// As [`join`](Self::join); and where the server has no such Session type.
    pub async fn inbox(&self, kind: &str) -> Result<Inbox, RequestError> {
        self.open_inbox(kind, Begin::Live).await
    }

    /// The same; what has come after `after`, while nobody was there, is delivered first: all that is kept where it is
    /// [`Seq::ZERO`]. For apps that keep the place of the last message that they have dealt with.
    ///
    /// # Errors
    /// As [`inbox`](Self::inbox).
    pub async fn inbox_from(&self, kind: &str, after: Seq) -> Result<Inbox, RequestError> {
        self.open_inbox(kind, Begin::After(after)).await
    }

    /// The same, from where this device has got to, by what it [acknowledged](Inbox::acknowledge); all that is kept
    /// where it never did. For this the device needs a name that stays:
    /// [`ClientConfig::device`](crate::ClientConfig::device).
    ///
    /// # Errors
    /// As [`inbox`](Self::inbox).
    pub async fn inbox_from_cursor(&self, kind: &str) -> Result<Inbox, RequestError> {
        self.open_inbox(kind, Begin::Cursor).await
    }

    /// Listens to a topic of a Session type, `push` or `research_push`. What comes from now on is delivered, as
    /// [`Event::Message`] of the room `topic/NAME`; with `after`, all that is kept behind that place comes first.
    /// Nothing can be sent to it from here.
    ///
    /// # Errors
    /// As [`join`](Self::join); and where the login may not, or the Session type has no topics.
    pub async fn topic(
        &self,
        kind: &str,
        topic: &str,
        after: Option<Seq>,
    ) -> Result<Room, RequestError> {
        self.listen(kind, &format!("topic/{topic}"), after).await
    }

    /// Listens to what is sent to everyone, as [`topic`](Self::topic) does: the room `@everyone`.
    ///
    /// # Errors
    /// As [`topic`](Self::topic).
    pub async fn everyone(&self, kind: &str, after: Option<Seq>) -> Result<Room, RequestError> {
        self.listen(kind, "@everyone", after).await
    }

    async fn listen(
        &self,
        kind: &str,
        name: &str,
        after: Option<Seq>,
    ) -> Result<Room, RequestError> {
        let open = self.guard.ask(|core, answer| core.open(kind, &[], Reads::Client, answer));
        let positions = after.into_iter().map(|after| (Class::Signal, after)).collect();
        let options = JoinOptions { positions, send_only: false };
        Room::join(&self.guard, open.await?, name, options).await
    }

    async fn open_inbox(&self, kind: &str, begin: Begin) -> Result<Inbox, RequestError> {
        let open = self.guard.ask(|core, answer| core.open(kind, &[], Reads::Client, answer));
        Inbox::join(&self.guard, open.await?, begin).await
    }

    /// Opens a Session of any type whose backend knows rooms as the chat Session does: they are joined,
    /// joined again, and kept in order by the client. Frames of the backend's own go beside them. Asked
    /// for the same type twice, it is the same Session.
    ///
    /// # Errors
    /// The server has no such Session type, or its backend cannot be reached.
    pub async fn rooms(
        &self,
        kind: &str,
        headers: Vec<(String, String)>,
    ) -> Result<Rooms, RequestError> {
        let open = self.guard.ask(|core, answer| core.open(kind, &headers, Reads::Both, answer));
        Ok(Rooms::new(&self.guard, open.await?))
    }

    /// Opens a Session whose frames are the backend's own. It is opened again after a reconnect.
    ///
    /// # Errors
    /// The server has no such Session type, or its backend cannot be reached.
    pub async fn open(
        &self,
        kind: &str,
        headers: Vec<(String, String)>,
    ) -> Result<Session, RequestError> {
        let open = self.guard.ask(|core, answer| core.open(kind, &headers, Reads::App, answer));
        Ok(Session::new(&self.guard, open.await?))
    }

    /// Proves anew who the user is, by a token, so that the login does not end when it would have: after
    /// [`Event::LoginExpires`], or whenever there is a new token. Rooms that the new token does not permit are left
    /// ([`Event::Left`]). The connections to come log in by this token. How long the login holds now; `None` for without end.
    ///
    /// # Errors
    /// The login goes on as it was, to its end.
    pub async fn renew(&self, token: Vec<u8>) -> Result<Option<Duration>, RenewError> {
        self.guard.shared.renew(Login::Token { user: self.user(), token }).await
    }

    /// The same by password.
    ///
    /// # Errors
    /// As [`renew`](Self::renew).
    pub async fn renew_by_password(
        &self,
        password: String,
    ) -> Result<Option<Duration>, RenewError> {
        self.guard.shared.renew(Login::Password { user: self.user(), password }).await
    }

    /// Measures the round trip to the server now.
    ///
    /// # Errors
    /// There is no connection, or it was lost.
    pub async fn ping(&self) -> Result<Duration, RequestError> {
        let token = self.guard.pings.fetch_add(1, Ordering::Relaxed) + 1;
        let (answer, waiting) = oneshot::channel();
        let said = Instant::now();
        self.guard.shared.with(|core| core.ping(token, Some(answer)))?;
        waiting.await.map_err(|_| RequestError::ConnectionLost)?;
        let rtt = said.elapsed();
        self.guard.shared.set_rtt(rtt);
        Ok(rtt)
    }

    /// The round trip that was measured last: by [`ping`](Self::ping), or when the connection was made.
    #[must_use]
    pub fn rtt(&self) -> Option<Duration> {
        self.guard.shared.rtt()
    }

    /// What was counted.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.guard.shared.stats()
    }

    /// What is known of the connection's path: round trip, losses, repairs, and what was done when it fell
    /// silent.
    #[must_use]
    pub fn path(&self) -> PathStats {
        let shared = &self.guard.shared;
        let stats = shared.stats();
        let mut path = shared.signs.stats(shared.server_idle());
        path.transport = shared.transport();
        path.rtt = path.rtt.or(shared.rtt()).filter(|_| path.transport.is_some());
        path.missed = stats.missed;
        path.reconnects = stats.reconnects;
        path
    }

    /// For when the app goes to the background, where each packet wakes a radio, or comes back. In
    /// the background an idle connection rests as long as the network is known to bear; on the way
    /// back it is seen at once whether the path is still there.
    pub fn set_background(&self, background: bool) {
        let signs = &self.guard.shared.signs;
        signs.heartbeat.lock().set_background(background);
        if !background {
            signs.ask_beat();
        }
        self.guard.shared.write.notify_one();
    }

    /// Gives the connection up and makes a new one at once: for when the system says that the network
    /// changed, or is there again.
    pub fn reconnect(&self) {
        self.guard.shared.ask_reconnect();
    }

    /// For when the system says that the network has changed. A QUIC connection goes on from a new
    /// socket and says so at once, and so do those of other clients that share its [`Connector`]; where
    /// that is not answered, fresh connections are raced beside it. A connection over TCP is made anew.
    /// What was learned of the old network is forgotten.
    pub fn network_changed(&self) {
        self.guard.shared.ask_move();
    }

    /// Closes the client, for all its handles. Messages without an ack are given up: wait for those that
    /// matter before. Returns when the connection is closed.
    pub async fn close(&self) {
        let shared = &self.guard.shared;
        shared.ask_close();
        loop {
            let over = shared.over.notified();
            tokio::pin!(over);
            over.as_mut().enable();
            if shared.with(|core| core.is_closed()) {
                return;
            }
            over.await;
        }
    }
}

fn check(config: &ClientConfig) -> Result<(), ConnectError> {
    if let Some(dispatch) = &config.dispatch {
        crate::dispatch::check(dispatch)?;
    }
    if config.dispatch.is_none() || !config.server.is_empty() {
        split_server(&config.server)?;
    }
    if let Some(server) = &config.tcp_server {
        split_server(server)?;
    }
    let (user, secret) = match &config.login {
        Login::Development { user } => (user, 0),
        Login::Password { user, password } => (user, password.len()),
        Login::Token { user, token } => (user, token.len()),
    };
    let problem = if user.len() > limits::NAME_BYTES {
        "login: the user's name may have 128 bytes"
    } else if config.device.len() > limits::NAME_BYTES {
        "device: may have 128 bytes"
    } else if secret > limits::SECRET_BYTES {
        "login: password or token may have 8 KiB"
    } else if config.join.iter().any(|room| room.is_empty() || room.len() > limits::NAME_BYTES) {
        "join: the name of a room has 1 to 128 bytes"
    } else {
        return Ok(());
    };
    Err(ConnectError::Config { problem: problem.into() })
}

fn random() -> Result<u64, ConnectError> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes)
        .map_err(|e| ConnectError::Config { problem: format!("no randomness: {e}") })?;
    Ok(u64::from_le_bytes(bytes))
}

fn device(config: &ClientConfig) -> Result<String, ConnectError> {
    if config.device.is_empty() {
        Ok(format!("{:016x}", random()?))
    } else {
        Ok(config.device.clone())
    }
}

/// What happens to a client, in order. Dropping it discards what arrives: for clients that only send.
#[derive(Debug)]
pub struct Events {
    guard: Arc<Guard>,
}

impl Events {
    /// The next event; `None` after [`Event::Closed`]. Cancel-safe.
    pub async fn next(&mut self) -> Option<Event> {
        self.next_batch(1).await.pop()
    }

    /// Waits for an event and takes up to `max` that are there; none once it is over. The cheapest way to
    /// take many. Cancel-safe.
    pub async fn next_batch(&mut self, max: usize) -> Vec<Event> {
        let shared = &self.guard.shared;
        let max = max.max(1);
        let (events, grants) = poll_fn(|cx| shared.queue.poll(cx, max)).await;
        if grants {
            shared.write.notify_one();
        }
        events
    }

    /// Takes up to `max` events that are there, without waiting.
    pub fn try_batch(&mut self, max: usize) -> Vec<Event> {
        let shared = &self.guard.shared;
        let (events, grants) = shared.queue.take(max);
        if grants {
            shared.write.notify_one();
        }
        events
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.guard.shared.queue.discard();
        self.guard.shared.write.notify_one();
    }
}
