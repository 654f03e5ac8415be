//! One connection: its reader, its writer, and what is known of it to the rest of the gateway.

use std::{
    net::SocketAddr,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use edgeway_proto::CloseCode;
use edgeway_transport::{Connection, Early, End, Receiver, Stop, Transport};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::{
    config::Limits,
    context::Context,
    outbox::{self, Closing, Outbox, Policy},
    paths::Sampled,
    reader::Reader,
    registry::Device,
    sessions::Sessions,
    writer,
};

/// How long a client is given to take the last words.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// A connection, as the rest of the gateway knows it.
#[derive(Debug)]
pub struct Conn {
    /// Unique in the life of the gateway; in logs and in Welcome.
    pub id: u64,
    /// What waits to be written.
    pub outbox: Arc<Outbox>,
    /// The peer's address at the handshake.
    pub remote: SocketAddr,
    /// What carries it.
    pub transport: Transport,
    /// Its path, over QUIC.
    pub path: Option<Sampled>,
    /// Bounds and times when it was accepted: what Welcome has told the client holds to the end.
    pub limits: Arc<Limits>,
    /// When it was accepted.
    pub since: Instant,
    /// Whether the client has sent its login.
    pub asked: AtomicBool,
    /// Whether it may send another, because its session token was refused.
    pub may_ask_again: AtomicBool,
    /// Where it began with early data: cancelled once its handshake is complete.
    pub early: Option<CancellationToken>,
    /// Whose it is, once it counts as that.
    pub device: OnceLock<Arc<Device>>,
    /// When the login ends, in milliseconds since 1970; 0 for never.
    pub expires_ms: AtomicU64,
    /// Whether the login is being renewed.
    pub renewing: AtomicBool,
    /// Whether the login was accepted.
    pub logged_in: AtomicBool,
    /// Whether it is being closed: what still comes is dropped.
    pub closing: AtomicBool,
    code: OnceLock<CloseCode>,
    heard_ms: AtomicU64,
}

impl Conn {
    fn new(ctx: &Context, limits: Arc<Limits>, connection: &Connection) -> Self {
        let outbox = Outbox::new(outbox::Limits {
            outbox_bytes: limits.outbox_bytes,
            uplink_credit: limits.uplink_credit,
        });
        if connection.transport == Transport::Tcp {
            outbox.with(Policy::grant_by_quarters);
        }
        Self {
            id: ctx.registry.next_id(),
            outbox: Arc::new(outbox),
            remote: connection.remote,
            transport: connection.transport,
            path: connection.sender.path().cloned().map(Sampled::new),
            limits,
            since: Instant::now(),
            asked: AtomicBool::new(false),
            may_ask_again: AtomicBool::new(false),
            early: connection.early.is_some().then(CancellationToken::new),
            device: OnceLock::new(),
            expires_ms: AtomicU64::new(0),
            renewing: AtomicBool::new(false),
            logged_in: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            code: OnceLock::new(),
            heard_ms: AtomicU64::new(0),
        }
    }

    /// Something was heard of the client.
    pub fn heard(&self) {
        let ms = crate::clock::ms(self.since.elapsed());
        self.heard_ms.store(ms, Ordering::Relaxed);
    }

    /// How long nothing was heard.
    #[must_use]
    pub fn silence(&self) -> Duration {
        let heard = Duration::from_millis(self.heard_ms.load(Ordering::Relaxed));
        self.since.elapsed().saturating_sub(heard)
    }

    /// Closes it and tells the client why. The first reason stands.
    pub fn close(&self, ctx: &Context, code: CloseCode, reason: &str, retry_after_ms: u64) {
        self.close_with(ctx, Closing { code, reason: reason.into(), retry_after_ms });
    }

    /// The same, with the reason put together already.
    pub fn close_with(&self, ctx: &Context, closing: Closing) {
        if !self.closing.swap(true, Ordering::AcqRel) {
            debug!(connection = self.id, code = %closing.code, reason = closing.reason, "closing");
            ctx.metrics.closed(closing.code);
            // Set once: the swap let only one in.
            let _ = self.code.set(closing.code);
            self.outbox.close(closing);
        }
    }
}

/// Serves a connection until it ends. What it registered is taken back by guards.
///
/// Not an `async fn`: such a future keeps its arguments beside what became of them, and this one lives
/// as long as the connection.
pub fn serve(
    ctx: Arc<Context>,
    limits: Arc<Limits>,
    connection: Connection,
) -> impl Future<Output = ()> + Send {
    let conn = Arc::new(Conn::new(&ctx, limits, &connection));
    let Connection { mut receiver, sender, early, .. } = connection;
    let outbox = Arc::clone(&conn.outbox);
    let writer = writer::run(sender, outbox, ctx.turns.clone(), Arc::clone(&ctx.metrics));
    let mut writer = Abort(tokio::spawn(writer));
    let mut reader = Reader::new(Arc::clone(&ctx), Arc::clone(&conn));
    if let Some(early) = early {
        let confirming = confirm(Arc::clone(&ctx), Arc::clone(&conn), reader.sessions(), early);
        ctx.tracker.spawn(confirming);
    }
    async move {
        let _registered = ctx.registry.add(&conn);
        let end = tokio::select! {
            end = receiver.run(&mut reader) => Some(end),
            _ = &mut writer.0 => None,
        };
        if has_left(end.as_ref(), &conn) {
            reader.leave();
        }
        // Sessions end now, not when the last words have been said.
        drop(reader);
        // Boxed, like all that is rare.
        Box::pin(last_words(&ctx, &conn, end, &mut writer, &mut receiver)).await;
    }
}

/// Tells the client why, where it does not know, and lets it hear that.
async fn last_words(
    ctx: &Context,
    conn: &Conn,
    end: Option<End>,
    writer: &mut Abort,
    receiver: &mut Receiver,
) {
    if let Some(path) = &conn.path {
        ctx.paths.sample(path);
    }
    match end {
        Some(End::Stopped(Stop { code, reason })) => {
            conn.close(ctx, code, &reason, 0);
            let _ = tokio::time::timeout(LAST_WORDS, &mut writer.0).await;
            let _ = tokio::time::timeout(LAST_WORDS, receiver.drain()).await;
        }
        // The writer has closed the connection, or found it broken.
        None => {
            let _ = tokio::time::timeout(LAST_WORDS, receiver.drain()).await;
        }
        Some(end) => debug!(connection = conn.id, ?end, "ended"),
    }
}

/// Waits for the end of the handshake of a connection that began with early data. Until then its first
/// flight may be a replay: it ends no other connection, and its Sessions do nothing that others see.
async fn confirm(
    ctx: Arc<Context>,
    conn: Arc<Conn>,
    sessions: Weak<Mutex<Sessions>>,
    early: Early,
) {
    let complete = tokio::time::timeout(conn.limits.handshake_timeout, early.confirmed()).await;
    let confirmed = complete.unwrap_or(false);
    ctx.metrics.early_data(confirmed);
    if !confirmed {
        return conn.close(&ctx, CloseCode::LoginTimeout, "the handshake was not completed", 0);
    }
    if let Some(sessions) = sessions.upgrade() {
        sessions.lock().confirm();
    }
    if let Some(early) = &conn.early {
        early.cancel();
    }
}

/// Whether the client has gone for good, as far as is known, and has not just lost its connection.
fn has_left(end: Option<&End>, conn: &Conn) -> bool {
    let code = conn.code.get().copied().or(match end {
        Some(End::Peer { code, .. } | End::Stopped(Stop { code, .. })) => Some(*code),
        Some(End::Lost(_) | End::Local) | None => None,
    });
    code.is_some_and(|code| !code.expects_return())
}

/// A task that ends with its owner.
struct Abort(tokio::task::JoinHandle<()>);

impl Drop for Abort {
    fn drop(&mut self) {
        self.0.abort();
    }
}
