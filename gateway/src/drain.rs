//! What happens to connections with time: those that do not log in or fall silent are closed,
//! and at the end all are told to go elsewhere.

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use edgeway_proto::{CloseCode, frame::GoAway};
use edgeway_transport::Transport;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{config::Limits, conn::Conn, context::Context, paths::SWEEPS, sessions::RETRY_MS};

/// How often connections are looked at. No timer for each: at a million of them that would cost
/// more memory than their state.
const SWEEP: Duration = Duration::from_secs(1);

/// Watches over time-outs and gauges until `shutdown`.
pub async fn sweep(ctx: Arc<Context>, shutdown: CancellationToken) {
    let mut round = 0u64;
    loop {
        round = round.wrapping_add(1);
        let limits = ctx.limits();
        let pause = SWEEP.min(limits.login_timeout.min(limits.open_timeout) / 2);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = shutdown.cancelled() => return,
        }
        // They may be others by now.
        let limits = ctx.limits();
        let conns = ctx.registry.all();
        #[allow(clippy::cast_precision_loss)] // gauges
        {
            ctx.metrics.connections.set(conns.len() as f64);
            ctx.metrics.sessions.set(ctx.hub.sessions() as f64);
            ctx.metrics.groups.set(ctx.hub.groups() as f64);
        }
        let (mut bytes, mut most) = (0, 0);
        for conn in conns {
            let used = conn.outbox.with(|p| {
                p.set_bound(limits.outbox_bytes);
                p.used()
            });
            bytes += used;
            most = most.max(used);
            if let Some(path) = &conn.path
                && conn.id % SWEEPS == round % SWEEPS
            {
                ctx.paths.sample(path);
            }
            check_times(&ctx, &limits, &conn);
        }
        give_up_unanswered(&ctx, limits.open_timeout);
        #[allow(clippy::cast_precision_loss)] // gauges
        {
            ctx.metrics.outbox_bytes.set(bytes as f64);
            ctx.metrics.outbox_bytes_max.set(most as f64);
        }
    }
}

/// Closes a connection whose time is over.
fn check_times(ctx: &Context, limits: &Limits, conn: &Conn) {
    let expires_ms = conn.expires_ms.load(Ordering::Relaxed);
    if expires_ms != 0 && crate::clock::unix_ms() >= expires_ms {
        conn.close(ctx, CloseCode::LoginExpired, "the login has run out", 0);
    } else if !conn.logged_in.load(Ordering::Acquire) {
        // The question who it is has a time-out of its own.
        let asked = conn.asked.load(Ordering::Acquire);
        if !asked && conn.since.elapsed() > limits.login_timeout {
            conn.close(ctx, CloseCode::LoginTimeout, "no login within the time allowed", 0);
        }
    // QUIC has an idle time-out of its own.
    } else if conn.transport == Transport::Tcp && conn.silence() > conn.limits.idle_timeout {
        conn.close(ctx, CloseCode::IdleTimeout, "nothing was heard", 0);
    }
}

/// Closes Sessions whose backends have not answered for `patience`: else their clients would wait for ever.
fn give_up_unanswered(ctx: &Context, patience: Duration) {
    let sessions = ctx.hub.unanswered(patience, Instant::now());
    if sessions.is_empty() {
        return;
    }
    let reason = format!("its backend has not answered for {patience:?}");
    ctx.links.give_up(&sessions, &reason, RETRY_MS);
    ctx.metrics.unanswered(sessions.len());
    let kinds: BTreeSet<_> = sessions.iter().map(|one| &*one.route.kind).collect();
    warn!(sessions = sessions.len(), ?kinds, "given up: their backends do not answer openings");
}

/// Tells every client to go, waits for those that do, and closes the rest.
pub async fn drain(ctx: &Context) {
    let drain = ctx.limits().drain;
    let reconnect_after_ms = crate::clock::ms(drain);
    let code = CloseCode::GoingAway.code();
    let go = GoAway { code, reconnect_after_ms, endpoint: "".into() }.to_bytes();
    for conn in ctx.registry.all() {
        if conn.logged_in.load(Ordering::Acquire) {
            conn.outbox.push_control(go.clone());
        } else {
            conn.close(
                ctx,
                CloseCode::GoingAway,
                "the server is shutting down",
                reconnect_after_ms,
            );
        }
    }
    let empty = async {
        while !ctx.registry.is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    if tokio::time::timeout(drain, empty).await.is_err() {
        for conn in ctx.registry.all() {
            conn.close(
                ctx,
                CloseCode::GoingAway,
                "the server is shutting down",
                reconnect_after_ms,
            );
        }
    }
}
