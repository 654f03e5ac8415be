//! Accepting: one loop for each listener, which never stops and never waits for a peer. Each
//! handshake is a task with a deadline.

use std::{io, sync::Arc, time::Duration};

use edgeway_transport::{QuicListener, TcpListener};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::{conn, context::Context, refuse::refuse, registry::Admission};

/// After an error of the process (too many open files), not of a connection.
const PAUSE: Duration = Duration::from_millis(100);

/// Accepts QUIC clients until `shutdown`.
pub async fn quic(ctx: Arc<Context>, listener: QuicListener, shutdown: CancellationToken) {
    loop {
        let incoming = tokio::select! {
            incoming = listener.accept() => incoming,
            () = shutdown.cancelled() => break,
        };
        let Some(incoming) = incoming else { break };
        match ctx.registry.admit(incoming.remote().ip(), &ctx.limits) {
            Ok(admission) => {
                let task = serve(Arc::clone(&ctx), incoming.handshake(), admission);
                ctx.tracker.spawn(task);
            }
            Err(refusal) => {
                ctx.metrics.refused(refusal.name());
                match ctx.refusals.place() {
                    Some(place) => {
                        ctx.tracker.spawn(refuse(incoming.handshake(), refusal.reason(), place));
                    }
                    None => incoming.refuse(),
                }
            }
        }
    }
    listener.refuse_new();
}

/// Accepts TCP clients until `shutdown`.
pub async fn tcp(ctx: Arc<Context>, listener: TcpListener, shutdown: CancellationToken) {
    loop {
        let incoming = tokio::select! {
            incoming = listener.accept() => incoming,
            () = shutdown.cancelled() => return,
        };
        match incoming {
            Ok(incoming) => match ctx.registry.admit(incoming.remote().ip(), &ctx.limits) {
                Ok(admission) => {
                    let task = serve(Arc::clone(&ctx), incoming.handshake(), admission);
                    ctx.tracker.spawn(task);
                }
                Err(refusal) => {
                    ctx.metrics.refused(refusal.name());
                    if let Some(place) = ctx.refusals.place() {
                        ctx.tracker.spawn(refuse(incoming.handshake(), refusal.reason(), place));
                    }
                }
            },
            Err(e) if of_connection(&e) => debug!(error = %e, "a client went away at once"),
            Err(e) => {
                warn!(error = %e, "cannot accept; is the limit on open files high enough?");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn serve(
    ctx: Arc<Context>,
    handshake: impl Future<
        Output = Result<edgeway_transport::Connection, edgeway_transport::AcceptError>,
    >,
    admission: Admission,
) {
    // Boxed: its state is large and short-lived, and this task lives as long as the connection.
    let handshake = Box::pin(handshake);
    match tokio::time::timeout(ctx.limits.handshake_timeout, handshake).await {
        Ok(Ok(connection)) => conn::serve(ctx, connection).await,
        Ok(Err(e)) => {
            ctx.metrics.refused("handshake");
            debug!(error = %e, "handshake failed");
        }
        Err(_) => ctx.metrics.refused("handshake_timeout"),
    }
    drop(admission);
}

/// Whether an error of `accept` is about one connection, so that the next may be fine.
fn of_connection(e: &io::Error) -> bool {
    matches!(
        e.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}
