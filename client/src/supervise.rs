//! Keeps a client connected: drives its connection, and makes a new one where that may help.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use edgeway_proto::{CloseCode, frame::param};
use edgeway_transport::{End, Stop, Transport};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::{
    ClientConfig, ConnectError, Event,
    after::{After, after_end, again, verdict},
    beside::Beside,
    connect::Found,
    connector::Connector,
    core::{Core, GoAway, param_of},
    dispatch::connect_somewhere,
    greet::{Established, Flight},
    memory::PROVEN,
    pulse::{Pulse, server_idle},
    shared::Shared,
    takeover::{Aborting, Old, released},
    writer::{Ended, write},
};

/// After a connection that lasted so long the first try goes at once.
const AT_ONCE: Duration = Duration::from_secs(10);

/// After a connection that lasted so long delays begin anew.
const GOOD: Duration = Duration::from_secs(30);

/// How long a close may take: the peer is told or cannot be.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// The longest random part of coming back when a server goes away.
const GO_AWAY_JITTER: Duration = Duration::from_secs(5);

/// The token of the ping after a move. The app's own begin at 1.
const MOVED_TOKEN: u64 = 0;

/// Keeps one client connected.
pub(crate) struct Supervisor {
    pub(crate) shared: Arc<Shared>,
    pub(crate) connector: Connector,
    /// As the app has given it.
    pub(crate) base: Arc<ClientConfig>,
    /// That of the place where the connection leads: the same without dispatch.
    pub(crate) config: Arc<ClientConfig>,
    pub(crate) device: String,
}

/// How a connection ended for its client.
enum Driven {
    /// It is lost, or closed.
    Ended(After),
    /// A fresh connection takes over from it.
    Switch(Box<Found>, Old),
}

async fn sleep_until(when: Option<Instant>) {
    match when {
        Some(when) => tokio::time::sleep_until(when.into()).await,
        None => std::future::pending().await,
    }
}

impl Supervisor {
    /// Runs until the client is closed, by either side.
    pub(crate) async fn run(mut self, mut established: Established) {
        let mut tries = 0u32;
        // One at a time.
        let mut _parting: Aborting<()>;
        loop {
            let begun = Instant::now();
            self.shared.logged_in(
                &established.welcome,
                &established.logged_in,
                self.config.renew_before,
            );
            let after = match self.drive(established).await {
                Driven::Ended(after) => after,
                Driven::Switch(found, old) => {
                    let taken = self.take_over(*found).await;
                    if let Err(After::Over(code, reason)) = taken {
                        old.close(code, &reason).await;
                        return self.shared.finished(code, reason);
                    }
                    _parting = Aborting(tokio::spawn(old.end()));
                    match taken {
                        Ok(next) => {
                            established = next;
                            continue;
                        }
                        Err(after) => after,
                    }
                }
            };
            let (mut reason, mut delay, mut endpoint) = match after {
                After::Again { reason, delay, endpoint } => (reason, delay, endpoint),
                After::Over(code, reason) => return self.shared.finished(code, reason),
            };
            if begun.elapsed() >= GOOD {
                tries = 0;
            }
            let mut at_once = begun.elapsed() >= AT_ONCE || tries == 0;
            established = loop {
                tries = tries.saturating_add(1);
                let attempt = tries;
                let event = Event::Reconnecting { reason, attempt };
                let backoff = self.shared.with(|core| {
                    core.event(event);
                    core.backoff(attempt)
                });
                let wait = match delay {
                    Some(wait) => wait + self.shared.with(|core| core.jitter(wait / 2)),
                    None if at_once => Duration::ZERO,
                    None => backoff,
                };
                at_once = false;
                if !self.wait(wait).await {
                    return self.shared.finished(CloseCode::Normal, "closed by the app".into());
                }
                match self.connect(endpoint.take().as_deref()).await {
                    Some(Ok((established, config))) => {
                        self.config = config;
                        // Asked meanwhile, it is what the app wants.
                        self.shared.take_reconnect();
                        break established;
                    }
                    None => {
                        return self.shared.finished(CloseCode::Normal, "closed by the app".into());
                    }
                    Some(Err(e)) => match verdict(&e) {
                        Some(code) => return self.shared.finished(code, e.to_string()),
                        None => (reason, delay) = (e.to_string(), e.retry_after()),
                    },
                }
            };
            self.reconnected(&mut established);
        }
    }

    fn reconnected(&self, established: &mut Established) {
        let Established { transport, resumed, early_data, .. } = *established;
        self.begin(established, |core| {
            core.stats.reconnects += 1;
            core.stats.resumes += u64::from(resumed);
            core.stats.early_data += u64::from(early_data);
            core.event(Event::Reconnected { transport, resumed });
        });
    }

    /// The client is connected from now on. Before the app is told: what it says then is not refused for
    /// want of a connection.
    pub(crate) fn begin(&self, established: &mut Established, tell: impl FnOnce(&mut Core)) {
        if self.config.repair && param_of(&established.welcome, param::REPAIR) == Some(1) {
            established.sender.enable_repair();
        }
        let shared = &self.shared;
        shared.queue.reset();
        shared.set_rtt(established.rtt);
        shared.signs.connected(established.sender.path().cloned(), Instant::now());
        shared.set_server_idle(server_idle(&established.welcome));
        shared.set_connection(Some(established.transport), Some(&established.logged_in.user));
        established.port.give_to(Arc::clone(shared));
        shared.with(|core| {
            tell(core);
            core.connected(&established.welcome, established.opened_bytes);
        });
    }

    /// What is said on a connection: by the last session token, and with the joins that are to be.
    /// Those are under way from now on.
    fn flight(&self) -> Flight {
        self.flights()(&self.config)
    }

    /// The same for whatever place it leads to.
    fn flights(&self) -> impl Fn(&ClientConfig) -> Flight {
        let frames = self.shared.with(Core::first_frames);
        let (login, resume) = self.shared.next_login();
        move |place| {
            let (resume, frames) = (resume.clone(), frames.clone());
            match login.clone() {
                Some(login) => {
                    let config = ClientConfig { login, ..place.clone() };
                    Flight::new(&config, &self.device, resume, frames)
                }
                None => Flight::new(place, &self.device, resume, frames),
            }
        }
    }

    /// What came of a flight; `None` where the app closed the client meanwhile.
    async fn flown<T, E>(
        &self,
        flying: impl Future<Output = Result<T, E>>,
    ) -> Option<Result<T, E>> {
        let result = self.unless_closed(flying).await;
        if matches!(result, Some(Err(_))) {
            self.shared.with(Core::flight_failed);
        }
        result
    }

    /// Logs in on a fresh connection that takes over; what comes instead where that fails.
    async fn take_over(&self, found: Found) -> Result<Established, After> {
        let taking = async {
            self.shared.queue.drained().await;
            let flight = self.flight();
            let taking = found.take(&flight);
            let taken = tokio::time::timeout(self.config.connect_timeout, taking).await;
            taken.unwrap_or(Err(ConnectError::TimedOut))
        };
        // Boxed: its state is large, and gone once it is connected.
        match self.flown(Box::pin(taking)).await {
            Some(Ok(mut established)) => {
                self.reconnected(&mut established);
                Ok(established)
            }
            Some(Err(e)) => match verdict(&e) {
                Some(code) => Err(After::Over(code, e.to_string())),
                None => Err(again(e.to_string())),
            },
            None => Err(After::Over(CloseCode::Normal, "closed by the app".into())),
        }
    }

    /// Waits before a try. False where the app has closed the client.
    async fn wait(&self, delay: Duration) -> bool {
        let waiting = async {
            sleep(delay).await;
            self.shared.queue.drained().await;
        };
        tokio::pin!(waiting);
        loop {
            if self.shared.close_asked() {
                return false;
            }
            // Asked to connect at once: the network is there again.
            let moved = self.shared.take_move();
            if moved {
                self.forget_network();
            }
            if self.shared.take_reconnect() || moved {
                self.shared.queue.drained().await;
                return true;
            }
            tokio::select! {
                () = &mut waiting => return true,
                () = self.shared.control.notified() => {}
            }
        }
    }

    /// One try; `None` where the app closed the client meanwhile.
    async fn connect(
        &self,
        endpoint: Option<&str>,
    ) -> Option<Result<(Established, Arc<ClientConfig>), ConnectError>> {
        let flight = self.flights();
        let present = Some(self.config.as_ref());
        let connecting = connect_somewhere(&self.connector, &self.base, present, flight, endpoint);
        // Boxed: its state is large, and gone once it is connected.
        self.flown(Box::pin(connecting)).await
    }

    /// What comes of something; `None` where the app closed the client meanwhile.
    async fn unless_closed<T>(&self, what: impl Future<Output = T>) -> Option<T> {
        tokio::pin!(what);
        loop {
            tokio::select! {
                result = &mut what => return Some(result),
                () = self.shared.control.notified() => {
                    if self.shared.close_asked() {
                        return None;
                    }
                }
            }
        }
    }

    /// Drives a connection that has begun to its end.
    async fn drive(&self, established: Established) -> Driven {
        let Established { mut reading, sender, transport, raced, .. } = established;
        let begun = Instant::now();
        let shared = &self.shared;
        let path = sender.path().cloned();
        let idle = server_idle(&established.welcome);
        let mut early = established.early;
        if let Err(stop) = shared.receive(&mut early) {
            shared.with(|core| core.stop(stop));
        }
        let pulse = Pulse::new(path.clone(), self.config.idle_timeout, idle, begun);
        let release = CancellationToken::new();
        let writing = write(Arc::clone(shared), sender, pulse, release.clone());
        let mut beside = Beside::new(self, path, established.rtt, established.addr);
        let mut writer = Aborting(tokio::spawn(writing));
        let mut going: Option<(GoAway, std::pin::Pin<Box<tokio::time::Sleep>>)> = None;
        let mut switch = None;
        let after = loop {
            if shared.close_asked() {
                break self.close(CloseCode::Normal, &mut writer).await;
            }
            if shared.take_reconnect() {
                break again("asked by the app".into());
            }
            if shared.take_move() {
                self.forget_network();
                if !beside.moved() {
                    break again("the network changed".into());
                }
                // Waits for no answer: it only has the server learn the new address.
                let _ = shared.with(|core| core.ping(MOVED_TOKEN, None));
            }
            if going.is_none()
                && let Some(away) = shared.with(Core::take_going_away)
            {
                let jitter = away.after.min(GO_AWAY_JITTER);
                let jitter = shared.with(|core| core.jitter(jitter));
                let wait = Box::pin(sleep(away.after + jitter));
                going = Some((away, wait));
            }
            let leave = async {
                match &mut going {
                    Some((_, wait)) => wait.await,
                    None => std::future::pending().await,
                }
            };
            let expiring = self.shared.expiring();
            tokio::select! {
                end = &mut reading => break self.ended(end, raced, begun, &mut writer).await,
                ended = &mut writer.0 => match ended {
                    Ok(Ended::Closed(reason)) => break again(reason),
                    Ok(Ended::Silent(sender)) => {
                        let close = sender.close(CloseCode::IdleTimeout, "nothing heard", 0);
                        let _ = tokio::time::timeout(CLOSE_TIMEOUT, close).await;
                        break again("nothing was heard for the idle time".into());
                    }
                    // The reader knows why: it ends too, and soon.
                    Ok(Ended::Broken | Ended::Released(_)) | Err(_) => {
                        let end = tokio::time::timeout(CLOSE_TIMEOUT, &mut reading).await;
                        let end = end.unwrap_or(End::Lost("it takes no more".into()));
                        break after_end(end, raced, begun);
                    }
                },
                () = sleep_until(expiring) => self.shared.tell_expiry(Instant::now()),
                () = leave => {
                    let endpoint = going.take().and_then(|(away, _)| away.endpoint);
                    // It will be back: it does not leave its rooms.
                    let _ = self.close(CloseCode::GoingAway, &mut writer).await;
                    break After::Again {
                        reason: "the server goes away".into(),
                        delay: Some(Duration::ZERO),
                        endpoint,
                    };
                }
                found = beside.next() => {
                    release.cancel();
                    let sender = released(&mut writer).await;
                    switch = Some((Box::new(found), Old { reading, sender }));
                    break again("another connection takes over".into());
                }
                () = shared.control.notified() => {}
            }
        };
        drop(writer);
        if transport == Transport::Quic && begun.elapsed() >= PROVEN {
            self.connector.memory(|memory| memory.quic_proven(&self.config.server));
        }
        shared.signs.disconnected();
        shared.set_connection(None, None);
        shared.login.lock().disconnected();
        shared.with(Core::disconnected);
        match switch {
            Some((found, old)) => Driven::Switch(found, old),
            None => Driven::Ended(after),
        }
    }

    /// Nothing of what was learned holds in another network.
    fn forget_network(&self) {
        self.connector.memory(crate::memory::Memory::clear);
        self.shared.signs.heartbeat.lock().forget();
        *self.shared.signs.falls.lock() = crate::watch::Falls::default();
    }

    /// Closes the connection.
    async fn close(&self, code: CloseCode, writer: &mut Aborting<Ended>) -> After {
        self.shared.with(|core| core.stop(Stop::new(code, "")));
        // Where it takes longer there is nobody to tell.
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, &mut writer.0).await;
        After::Over(CloseCode::Normal, "closed by the app".into())
    }

    /// The reader has ended: closes what is left.
    async fn ended(
        &self,
        end: End,
        raced: bool,
        begun: Instant,
        writer: &mut Aborting<Ended>,
    ) -> After {
        if let End::Stopped(stop) = &end {
            // This end found a fault: the peer is told.
            self.shared.with(|core| core.stop(stop.clone()));
            let _ = tokio::time::timeout(CLOSE_TIMEOUT, &mut writer.0).await;
        }
        after_end(end, raced, begun)
    }
}
