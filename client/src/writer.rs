//! Writes a connection: what is most urgent first, as far as credit allows.

use std::{sync::Arc, time::Instant};

use edgeway_proto::{Lane, frame::Ping};
use edgeway_transport::Sender;
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;

use crate::{
    core::Write,
    pulse::{Do, Pulse},
    shared::Shared,
};

/// The token of pings that nobody waits for.
const KEEP_ALIVE_TOKEN: u64 = 0;

/// How a writer ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// The connection takes no more; its reader knows why.
    Broken,
    /// This end closed it.
    Closed(String),
    /// Nothing was heard for the idle time.
    Silent(Sender),
    /// It was told to stop; a part of a frame may be written.
    Released(Sender),
}

/// Writes until the connection is over, or another is to be written (`release`).
pub(crate) async fn write(
    shared: Arc<Shared>,
    mut sender: Sender,
    mut pulse: Pulse,
    release: CancellationToken,
) -> Ended {
    let mut unflushed = false;
    let mut tend = None;
    loop {
        if shared.signs.take_nudge() && sender.moved() {
            tend = sender.tend();
        }
        if sender.tend_sooner() || tend.is_some_and(|due| due <= Instant::now()) {
            tend = sender.tend();
        }
        // Into a silence go only signals: what else was lost there would hold up what comes after it, and a
        // small packet that is first on a path that the server does not know yet lets it answer little.
        let (write, timeout) = shared.next_write(!sender.is_silent());
        let done = match write {
            Some(Write::Frames(lane, bytes)) => {
                unflushed = true;
                let mut frames = [bytes];
                tokio::select! {
                    biased;
                    done = sender.send(lane, &mut frames) => Some(done),
                    () = release.cancelled() => None,
                    () = stuck(&mut pulse, &shared) => return Ended::Silent(sender),
                }
            }
            Some(Write::Finish(session)) => {
                sender.finish(session);
                Some(Ok(()))
            }
            Some(Write::Close(stop)) => {
                sender.close(stop.code, &stop.reason, 0).await;
                return Ended::Closed(stop.reason);
            }
            None if std::mem::take(&mut unflushed) => {
                pulse.wrote(Instant::now(), &shared.signs);
                tokio::select! {
                    biased;
                    done = sender.flush() => Some(done),
                    () = release.cancelled() => None,
                }
            }
            None => match pulse.step(Instant::now(), &shared.signs) {
                Ok(next) => {
                    let wake = [timeout, tend, Some(next)].into_iter().flatten().min();
                    tokio::select! {
                        biased;
                        () = shared.write.notified() => {}
                        () = release.cancelled() => return Ended::Released(sender),
                        () = until(wake) => {}
                    }
                    Some(Ok(()))
                }
                Err(Do::GiveUp) => return Ended::Silent(sender),
                Err(Do::Tell) => {
                    shared.control.notify_one();
                    Some(Ok(()))
                }
                Err(Do::Beat) => {
                    unflushed = true;
                    if sender.beat() {
                        Some(Ok(()))
                    } else {
                        let ping = Ping { token: KEEP_ALIVE_TOKEN }.to_bytes();
                        Some(sender.send(Lane::CONTROL, &mut [ping]).await)
                    }
                }
            },
        };
        match done {
            Some(Ok(())) => {}
            Some(Err(_)) => return Ended::Broken,
            None => return Ended::Released(sender),
        }
    }
}

/// Watches a connection that takes no more for now. Returns when it is to be given up.
async fn stuck(pulse: &mut Pulse, shared: &Shared) {
    loop {
        let now = Instant::now();
        match pulse.step(now, &shared.signs) {
            Ok(next) => sleep_until(next.into()).await,
            Err(Do::Tell) => shared.control.notify_one(),
            // What is stuck asks for an answer as well.
            Err(Do::Beat) => pulse.wrote(now, &shared.signs),
            Err(Do::GiveUp) => return,
        }
    }
}

pub(crate) async fn until(when: Option<Instant>) {
    match when {
        Some(when) => sleep_until(when.into()).await,
        None => std::future::pending().await,
    }
}
