//! What a client sends: frames of the connection itself are answered here, frames of its Sessions
//! are passed on to their backends unread, in batches of what arrived together.

use std::sync::{Arc, Weak, atomic::Ordering};

use bytes::Bytes;
use edgeway_proto::{
    CloseCode, DecodeError, Frame, Lane, RawFrame, Text,
    frame::{
        FIRST_SESSION_KIND, FIRST_SKIPPED_KIND, Hello, LoggedIn, Login, Open, Pong, ResumeRefused,
        method,
    },
    limits::{NAME_BYTES, REASON_BYTES},
};
use edgeway_transport::{Sink, Stop, Transport};
use parking_lot::Mutex;

use crate::{
    conn::Conn,
    context::Context,
    handshake,
    registry::Device,
    renew,
    sessions::{Identity, Sessions},
};

/// How far the connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Hello,
    Login,
    /// The login has been sent to access, or was accepted.
    LoggedIn,
}

/// See the module.
#[derive(Debug)]
pub struct Reader {
    ctx: Arc<Context>,
    conn: Arc<Conn>,
    phase: Phase,
    /// Of Hello, until the login; empty for none.
    ticket: Bytes,
    /// Shared with the task that waits for the answer to the login.
    sessions: Arc<Mutex<Sessions>>,
}

impl Reader {
    /// The reader of a new connection.
    pub fn new(ctx: Arc<Context>, conn: Arc<Conn>) -> Self {
        let sessions = Sessions::new(Arc::clone(&ctx), Arc::clone(&conn));
        let (phase, ticket) = (Phase::Hello, Bytes::new());
        Self { ctx, conn, phase, ticket, sessions: Arc::new(Mutex::new(sessions)) }
    }

    /// For those who wait for something of the Sessions: gone with the connection.
    #[must_use]
    pub fn sessions(&self) -> Weak<Mutex<Sessions>> {
        Arc::downgrade(&self.sessions)
    }

    /// The client is done.
    pub fn leave(&self) {
        self.sessions.lock().leave();
    }

    fn control(&mut self, frame: &RawFrame) -> Result<(), Stop> {
        if self.phase == Phase::Hello && frame.kind != Hello::KIND {
            return Err(Stop::new(CloseCode::Protocol, "the first frame must be Hello"));
        }
        let parsed = match frame.parse() {
            Err(DecodeError::UnknownKind(FIRST_SKIPPED_KIND..)) => return Ok(()),
            parsed => parsed?,
        };
        match parsed {
            Frame::Hello(hello) => self.hello(&hello),
            Frame::Login(login) => self.login(login),
            Frame::Ping(ping) => {
                self.conn.outbox.push_control(Pong { token: ping.token }.to_bytes());
                Ok(())
            }
            Frame::Pong(_) => Ok(()),
            Frame::Renew(renew) => renew::begin(&self.ctx, &self.conn, &self.sessions, renew),
            Frame::Credit(credit) => {
                let session = u8::try_from(credit.session).unwrap_or(0);
                let lane = Lane::new(session, credit.class);
                self.conn.outbox.credit(lane, credit.total);
                Ok(())
            }
            // A bare connection has no other lane for what is the Session's.
            _ => Err(Stop::new(
                CloseCode::Protocol,
                format!("a frame of kind 0x{:02x} does not belong on the control lane", frame.kind),
            )),
        }
    }

    fn hello(&mut self, hello: &Hello) -> Result<(), Stop> {
        if self.phase != Phase::Hello {
            return Err(Stop::new(CloseCode::Protocol, "a second Hello"));
        }
        let version = handshake::negotiate(hello)?;
        self.phase = Phase::Login;
        self.ticket = Bytes::copy_from_slice(&hello.token);
        self.conn.outbox.with(|p| {
            p.set_window(handshake::window(hello));
            if handshake::understands_copies(hello) {
                p.enable_repair();
            }
        });
        let welcome = handshake::welcome(version, self.conn.id, &self.conn.limits);
        self.conn.outbox.push_control(welcome.to_bytes());
        Ok(())
    }

    fn login(&mut self, login: Login) -> Result<(), Stop> {
        let resumes = login.method == method::RESUME;
        let again =
            self.phase == Phase::LoggedIn && self.conn.may_ask_again.swap(false, Ordering::AcqRel);
        if self.phase != Phase::Login && !again {
            return Err(Stop::new(CloseCode::Protocol, "a second Login"));
        }
        if again && resumes {
            return Err(Stop::new(CloseCode::LoginFailed, "the session token was refused"));
        }
        if login.user.len() > NAME_BYTES
            || login.device.is_empty()
            || login.device.len() > NAME_BYTES
        {
            let reason = "user must be at most 128 bytes, device 1 to 128 bytes";
            return Err(Stop::new(CloseCode::LoginFailed, reason));
        }
        // Who has a session token has been let in before.
        let expected = if resumes { None } else { self.ctx.tickets.check(&self.ticket)? };
        self.phase = Phase::LoggedIn;
        self.conn.asked.store(true, Ordering::Release);
        let (ctx, conn, sessions) =
            (Arc::clone(&self.ctx), Arc::clone(&self.conn), self.sessions());
        self.ctx.tracker.spawn(async move {
            if resumes || confirmed(&conn).await {
                log_in(&ctx, &conn, &sessions, login, expected).await;
            }
        });
        Ok(())
    }

    fn session(&mut self, lane: Lane, frame: RawFrame) -> Result<(), Stop> {
        let mut sessions = self.sessions.lock();
        if frame.kind == Open::KIND {
            let open = Open::parse(frame.body)?;
            if open.session != u64::from(lane.session) {
                let reason =
                    format!("Open of Session {} on a lane of {}", open.session, lane.session);
                return Err(Stop::new(CloseCode::Protocol, reason));
            }
            return sessions.open(lane.session, open, frame.whole.len());
        }
        sessions.received(lane, frame.whole.len())?;
        if frame.kind >= FIRST_SESSION_KIND {
            sessions.pass_on(lane, frame.whole);
            return Ok(());
        }
        match frame.parse()? {
            Frame::CloseSession(_) => sessions.closed_by_client(lane.session),
            Frame::CaughtUp(c) => sessions.caught_up(lane, &c, frame.whole.len()),
            _ => {
                let reason = format!(
                    "a frame of kind 0x{:02x} does not belong on a Session's lane",
                    frame.kind
                );
                return Err(Stop::new(CloseCode::Protocol, reason));
            }
        }
        Ok(())
    }
}

/// Waits until a first flight is known to be no replay. False: it will not be.
async fn confirmed(conn: &Conn) -> bool {
    let Some(early) = &conn.early else { return true };
    tokio::time::timeout(conn.limits.handshake_timeout, early.cancelled()).await.is_ok()
}

/// Asks who a login is, and goes on with the answer. `sessions` are gone where the connection ends
/// meanwhile; `expected` is the user whom the ticket names.
async fn log_in(
    ctx: &Context,
    conn: &Conn,
    sessions: &Weak<Mutex<Sessions>>,
    login: Login,
    expected: Option<Box<str>>,
) {
    let resumes = login.method == method::RESUME;
    let device = login.device.to_string();
    let asking = handshake::login(&ctx.links, login, conn.remote.to_string());
    let answer = tokio::time::timeout(ctx.limits().login_timeout, asking).await;
    if resumes && let Ok(answer) = &answer {
        ctx.metrics.resumed(answer.is_ok());
    }
    match answer {
        Ok(Ok(accepted)) => {
            let Some(sessions) = sessions.upgrade() else { return };
            if expected.is_some_and(|user| *user != *accepted.user) {
                let reason = "the ticket is for another user";
                return conn.close(ctx, CloseCode::LoginFailed, reason, 0);
            }
            let logged_in = LoggedIn {
                user: accepted.user.as_str().into(),
                expires_ms: accepted.expires_ms,
                generation: accepted.generation,
                token: accepted.token,
            };
            conn.expires_ms.store(accepted.expires_ms, Ordering::Relaxed);
            conn.logged_in.store(true, Ordering::Release);
            let device = Arc::new(Device { user: accepted.user, device });
            let rights = accepted.rights.map(Arc::new);
            // Whoever has heard that it is logged in finds it so.
            let mut sessions = sessions.lock();
            conn.outbox.push_control(logged_in.to_bytes());
            sessions.identify(Identity { device, generation: accepted.generation, rights });
        }
        Ok(Err(closing)) if resumes && closing.code == CloseCode::LoginFailed => {
            // Not the end: the client proves by other means who it is, and what it has sent stands.
            conn.may_ask_again.store(true, Ordering::Release);
            conn.asked.store(false, Ordering::Release);
            let reason = &closing.reason[..closing.reason.floor_char_boundary(REASON_BYTES)];
            let reason = Text::from(reason.to_owned());
            conn.outbox.push_control(ResumeRefused { reason }.to_bytes());
        }
        Ok(Err(closing)) => conn.close_with(ctx, closing),
        Err(_) => {
            let reason = "the login could not be checked in time";
            conn.close(ctx, CloseCode::AuthUnavailable, reason, 0);
        }
    }
}

impl Sink for Reader {
    fn frame(&mut self, lane: Lane, frame: RawFrame) -> Result<(), Stop> {
        if self.conn.closing.load(Ordering::Acquire) {
            return Ok(());
        }
        if lane.is_control() { self.control(&frame) } else { self.session(lane, frame) }
    }

    fn flush(&mut self) {
        if self.conn.transport == Transport::Tcp {
            self.conn.heard();
        }
        self.sessions.lock().flush();
    }

    fn ended(&mut self, lane: Lane) {
        if lane.is_control() {
            let reason = "the control stream was ended";
            self.conn.close(&self.ctx, CloseCode::Protocol, reason, 0);
        } else if lane.class == edgeway_proto::Class::Signal {
            self.sessions.lock().closed_by_client(lane.session);
        }
    }
}
