//! Writes a connection: what is most urgent first, as far as credit allows.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use edgeway_proto::{
    Lane,
    frame::{Ping, Welcome, param},
};
use edgeway_transport::Sender;
use tokio::time::sleep_until;

use crate::{
    core::{Write, param_of},
    shared::Shared,
};

/// How often a TCP connection is asked whether it is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(12);

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
}

/// Writes until the connection is over.
/// A QUIC connection needs no `keep_alive`: it does so by itself.
pub(crate) async fn write(
    shared: Arc<Shared>,
    mut sender: Sender,
    mut keep_alive: Option<KeepAlive>,
) -> Ended {
    let mut unflushed = false;
    let mut tend = None;
    loop {
        if sender.tend_sooner() || tend.is_some_and(|due| due <= Instant::now()) {
            tend = sender.tend();
        }
        let (write, timeout) = shared.next_write();
        let done = match write {
            Some(Write::Frames(lane, bytes)) => {
                unflushed = true;
                sender.send(lane, &mut [bytes]).await
            }
            Some(Write::Finish(session)) => {
                sender.finish(session);
                Ok(())
            }
            Some(Write::Close(stop)) => {
                sender.close(stop.code, &stop.reason, 0).await;
                return Ended::Closed(stop.reason);
            }
            None if std::mem::take(&mut unflushed) => sender.flush().await,
            None => {
                let keep_alive = keep_alive.as_ref().map(|k| k.next);
                let wake = [timeout, keep_alive, tend].into_iter().flatten().min();
                tokio::select! {
                    biased;
                    () = shared.write.notified() => {}
                    () = until(wake) => {}
                }
                Ok(())
            }
        };
        if done.is_err() {
            return Ended::Broken;
        }
        if let Some(keep_alive) = &mut keep_alive
            && keep_alive.next <= Instant::now()
        {
            if keep_alive.silent(&shared) {
                return Ended::Silent(sender);
            }
            // Also where much is heard: the server has an idle time too.
            let ping = Ping { token: KEEP_ALIVE_TOKEN }.to_bytes();
            if sender.send(Lane::CONTROL, &mut [ping]).await.is_err() {
                return Ended::Broken;
            }
            unflushed = true;
        }
    }
}

async fn until(when: Option<Instant>) {
    match when {
        Some(when) => sleep_until(when.into()).await,
        None => std::future::pending().await,
    }
}

/// Watches a TCP connection without reading a clock for each frame.
pub(crate) struct KeepAlive {
    every: Duration,
    next: Instant,
    idle: Duration,
    last: Instant,
}

impl KeepAlive {
    /// Gives up after `idle`; the gateway does so after what it said.
    pub(crate) fn new(idle: Duration, welcome: &Welcome) -> Self {
        let now = Instant::now();
        let theirs = Duration::from_millis(param_of(welcome, param::IDLE_MS).unwrap_or(60_000));
        // A third, so that two may be lost before either side gives up.
        let every = KEEP_ALIVE.min(idle / 3).min(theirs / 3).max(Duration::from_millis(10));
        Self { every, next: now + every, idle, last: now }
    }

    /// Whether the connection has been silent for too long.
    fn silent(&mut self, shared: &Shared) -> bool {
        let now = Instant::now();
        self.next = now + self.every;
        if shared.heard.swap(false, Ordering::Relaxed) {
            self.last = now;
        }
        now.duration_since(self.last) >= self.idle
    }
}
