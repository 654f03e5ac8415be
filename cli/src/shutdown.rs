//! Ctrl-C and SIGTERM: the first asks to finish, the second does not ask.

use std::process::exit;

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// What shells give for a process that Ctrl-C ended.
const FORCED: i32 = 130;

/// A token that is cancelled by the first signal. A second one ends the process at once.
///
/// # Errors
/// Where the system allows no signal handlers.
pub fn on_signals() -> anyhow::Result<CancellationToken> {
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for Ctrl-C")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    // SIGHUP would end a process that waits for something and does not listen for it yet.
    let _listening = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;
    let shutdown = CancellationToken::new();
    let asked = shutdown.clone();
    tokio::spawn(async move {
        either(&mut interrupt, &mut terminate).await;
        tracing::info!(
            "shutting down: clients are told and have time to leave; once more to force"
        );
        asked.cancel();
        either(&mut interrupt, &mut terminate).await;
        tracing::warn!("forced");
        exit(FORCED);
    });
    Ok(shutdown)
}

async fn either(interrupt: &mut Signal, terminate: &mut Signal) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
