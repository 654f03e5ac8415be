//! What happens to connections with time: those that do not log in or fall silent are closed,
//! and at the end all are told to go elsewhere.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use edgeway_proto::{CloseCode, frame::GoAway};
use edgeway_transport::Transport;
use tokio_util::sync::CancellationToken;

use crate::{context::Context, paths::SWEEPS};

/// How often connections are looked at. No timer for each: at a million of them that would cost
/// more memory than their state.
const SWEEP: Duration = Duration::from_secs(1);

/// Watches over time-outs and gauges until `shutdown`.
pub async fn sweep(ctx: Arc<Context>, shutdown: CancellationToken) {
    let mut ticks = tokio::time::interval(SWEEP.min(ctx.limits.login_timeout / 2));
    let mut round = 0u64;
    loop {
        round = round.wrapping_add(1);
        tokio::select! {
            _ = ticks.tick() => {}
            () = shutdown.cancelled() => return,
        }
        let conns = ctx.registry.all();
        #[allow(clippy::cast_precision_loss)] // gauges
        {
            ctx.metrics.connections.set(conns.len() as f64);
            ctx.metrics.sessions.set(ctx.hub.sessions() as f64);
            ctx.metrics.groups.set(ctx.hub.groups() as f64);
        }
        let (mut bytes, mut most) = (0, 0);
        for conn in conns {
            let used = conn.outbox.with(|p| p.used());
            bytes += used;
            most = most.max(used);
            if let Some(path) = &conn.path
                && conn.id % SWEEPS == round % SWEEPS
            {
                ctx.paths.sample(path);
            }
            let expires_ms = conn.expires_ms.load(Ordering::Relaxed);
            if expires_ms != 0 && crate::clock::unix_ms() >= expires_ms {
                conn.close(&ctx, CloseCode::LoginExpired, "the login has run out", 0);
            } else if !conn.logged_in.load(Ordering::Acquire) {
                // The question who it is has a time-out of its own.
                let asked = conn.asked.load(Ordering::Acquire);
                if !asked && conn.since.elapsed() > ctx.limits.login_timeout {
                    conn.close(
                        &ctx,
                        CloseCode::LoginTimeout,
                        "no login within the time allowed",
                        0,
                    );
                }
            // QUIC has an idle time-out of its own.
            } else if conn.transport == Transport::Tcp && conn.silence() > ctx.limits.idle_timeout {
                conn.close(&ctx, CloseCode::IdleTimeout, "nothing was heard", 0);
            }
        }
        #[allow(clippy::cast_precision_loss)] // gauges
        {
            ctx.metrics.outbox_bytes.set(bytes as f64);
            ctx.metrics.outbox_bytes_max.set(most as f64);
        }
    }
}

/// Tells every client to go, waits for those that do, and closes the rest.
pub async fn drain(ctx: &Context) {
    let reconnect_after_ms = crate::clock::ms(ctx.limits.drain);
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
    if tokio::time::timeout(ctx.limits.drain, empty).await.is_err() {
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
