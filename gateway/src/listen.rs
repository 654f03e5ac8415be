//! Accepting: one loop for each listener, which never stops and never waits for a peer. Each
//! handshake is a task with a deadline.

use std::{io, sync::Arc, time::Duration};

use edgeway_transport::{AcceptError, Connection, QuicListener, TcpListener};
use tokio::time::error::Elapsed;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::{config::Limits, conn, context::Context, refuse::refuse, registry::Admission};

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
        let limits = ctx.limits();
        match ctx.registry.admit(incoming.remote().ip(), &limits) {
            Ok(admission) => {
                let task = serve(Arc::clone(&ctx), limits, incoming.handshake(), admission);
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
        let limits = ctx.limits();
        match incoming {
            Ok(incoming) => match ctx.registry.admit(incoming.remote().ip(), &limits) {
                Ok(admission) => {
                    let task = serve(Arc::clone(&ctx), limits, incoming.handshake(), admission);
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

/// Not an `async fn`: such a future keeps its arguments beside what became of them, and this one lives
/// as long as the connection.
fn serve(
    ctx: Arc<Context>,
    limits: Arc<Limits>,
    handshake: impl Future<Output = Result<Connection, AcceptError>> + Send,
    admission: Admission,
) -> impl Future<Output = ()> + Send {
    // Boxed: its state is large and short-lived.
    let handshake = Box::pin(tokio::time::timeout(limits.handshake_timeout, handshake));
    async move {
        let _admission = admission;
        let Some(serving) = established(ctx, limits, handshake.await) else { return };
        serving.await;
    }
}

fn established(
    ctx: Arc<Context>,
    limits: Arc<Limits>,
    handshake: Result<Result<Connection, AcceptError>, Elapsed>,
) -> Option<impl Future<Output = ()> + Send> {
    match handshake {
        Ok(Ok(connection)) => return Some(conn::serve(ctx, limits, connection)),
        Ok(Err(e)) => {
            ctx.metrics.refused("handshake");
            debug!(error = %e, "handshake failed");
        }
        Err(_) => ctx.metrics.refused("handshake_timeout"),
    }
    None
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
