//! Does what [`watch`](crate::watch) decides: moves the connection to a new socket, and runs races
//! of fresh connections beside it.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use edgeway_transport::{Path, Transport};
use tokio::time::Instant;

use crate::{
    TransportChoice,
    connect::{Found, look},
    error::ConnectError,
    supervise::Supervisor,
    takeover::Aborting,
    watch::{Act, Goal, View, Watch},
    writer::until,
};

/// Sockets are made anew for clients that fall silent at such distances at least.
const REBIND_SILENT: Duration = Duration::from_secs(2);

/// The same for hints of apps: all clients of a process get theirs at the same moment.
const REBIND_HINT: Duration = Duration::from_millis(100);

/// Watches over one connection.
pub(crate) struct Beside<'a> {
    supervisor: &'a Supervisor,
    watch: Watch,
    path: Option<Arc<Path>>,
    rtt: Duration,
    addr: SocketAddr,
    tries: u32,
    goal: Goal,
    race: Option<Aborting<Result<Found, ConnectError>>>,
    found: Option<Found>,
}

impl<'a> Beside<'a> {
    /// Of a connection that leads to `addr`; `path` where it is over QUIC.
    pub(crate) fn new(
        supervisor: &'a Supervisor,
        path: Option<Arc<Path>>,
        rtt: Duration,
        addr: SocketAddr,
    ) -> Self {
        let quic = path.is_some();
        let try_quic = (!quic && supervisor.config.transport == TransportChoice::Auto)
            .then(|| {
                supervisor.connector.memory(|memory| {
                    memory.on_tcp(&supervisor.config.server, now());
                    memory.try_quic_at(&supervisor.config.server)
                })
            })
            .flatten();
        let watch = Watch::new(quic, try_quic);
        let goal = Goal::Service;
        Self { supervisor, watch, path, rtt, addr, tries: 0, goal, race: None, found: None }
    }

    fn view(&self) -> View {
        let signs = &self.supervisor.shared.signs;
        let view = signs.view(self.path.as_deref(), self.rtt, now());
        View { fickle: signs.falls.lock().fickle(now()), ..view }
    }

    /// The app says that the network has changed. False where the connection cannot follow.
    pub(crate) fn moved(&mut self) -> bool {
        if self.path.is_none() || self.supervisor.connector.rebind(REBIND_HINT).is_err() {
            return false;
        }
        self.race = None;
        self.found = None;
        self.watch.moved(now(), self.view());
        self.say_moved();
        true
    }

    fn say_moved(&self) {
        let shared = &self.supervisor.shared;
        shared.signs.moved();
        shared.write.notify_one();
    }

    /// Runs until a fresh connection is to take over. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Found {
        loop {
            while let Some(act) = self.watch.step(now(), self.view()) {
                if let Some(found) = self.act(act) {
                    return found;
                }
            }
            let wake = self.watch.next(now());
            let raced = async {
                match &mut self.race {
                    Some(race) => (&mut race.0).await.ok(),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                ended = raced => {
                    self.race = None;
                    self.ended(ended.and_then(Result::ok));
                }
                () = until(wake) => {}
            }
        }
    }

    fn act(&mut self, act: Act) -> Option<Found> {
        let sup = self.supervisor;
        tracing::debug!(?act, "about a connection");
        match act {
            // Where there is no socket to be had the race has to do.
            Act::Rebind => {
                sup.shared.signs.falls.lock().fell(now());
                if sup.connector.rebind(REBIND_SILENT).is_ok() {
                    self.say_moved();
                }
            }
            Act::Race(goal) => self.race(goal),
            Act::Drop => {
                self.race = None;
                self.found = None;
            }
            Act::BindingWasDead => sup.shared.signs.binding_was_dead(),
            Act::Switch(_) => {
                let found = self.found.take()?;
                self.learn(found.transport());
                sup.shared.signs.switched();
                return Some(found);
            }
        }
        None
    }

    fn race(&mut self, goal: Goal) {
        let sup = self.supervisor;
        sup.shared.signs.raced();
        self.goal = goal;
        let (connector, config) = (sup.connector.clone(), Arc::clone(&sup.config));
        let device = sup.device.clone();
        // First where the connection leads to: there is no time for names, and they may not be
        // resolvable now. In another network that address may not be reachable.
        let addr = Some(self.addr).filter(|_| self.tries.is_multiple_of(2));
        self.tries = self.tries.wrapping_add(1);
        let fickle = sup.shared.signs.falls.lock().fickle(now());
        let race = async move { look(&connector, &config, &device, addr, goal, fickle).await };
        self.race = Some(Aborting(tokio::spawn(race)));
    }

    fn ended(&mut self, found: Option<Found>) {
        match found {
            Some(found) => {
                self.found = Some(found);
                self.watch.welcomed(now());
                if self.goal == Goal::Service {
                    // The network answers: the present connection is asked once more.
                    self.supervisor.shared.signs.ask_again();
                    self.supervisor.shared.write.notify_one();
                }
            }
            None => {
                let sup = self.supervisor;
                let auto = sup.config.transport == TransportChoice::Auto;
                let try_quic = (self.path.is_none() && auto).then(|| {
                    sup.connector.memory(|memory| {
                        if self.goal == Goal::Quic {
                            memory.tcp_won(&sup.config.server, now());
                        }
                        memory.try_quic_at(&sup.config.server)
                    })
                });
                self.watch.failed(now(), try_quic.flatten());
            }
        }
    }

    /// Remembers what won.
    fn learn(&self, won: Transport) {
        let sup = self.supervisor;
        if sup.config.transport != TransportChoice::Auto {
            return;
        }
        sup.connector.memory(|memory| match won {
            Transport::Quic => memory.quic_won(&sup.config.server),
            Transport::Tcp => memory.tcp_won(&sup.config.server, now()),
        });
    }
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}
