//! What many clients of one process share.

use std::{
    io,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use edgeway_transport::{
    Dialer, Settings,
    tls::{self, ClientTls},
};

use parking_lot::Mutex;

use crate::{
    ClientConfig, ConnectError, Trust,
    dispatch::{Answers, Https},
    memory::Memory,
};

/// TLS and the UDP socket that connections are made with. A process with many clients makes one (or a
/// few, to spread them over several sockets) and connects with
/// [`Client::connect_through`](crate::Client::connect_through).
#[derive(Debug, Clone)]
pub struct Connector {
    dialer: Arc<Dialer>,
    trust: Arc<Trust>,
    known: Arc<Mutex<Known>>,
}

/// What the clients of a connector have found out.
#[derive(Debug, Default)]
struct Known {
    memory: Memory,
    /// What dispatch has said.
    answers: Answers,
    /// TLS to dispatch, once it is needed.
    https: Option<Https>,
    /// When the sockets were made anew last.
    rebound: Option<Instant>,
}

impl Connector {
    /// A connector that trusts `trust`. Sockets are made when they are first needed.
    ///
    /// # Errors
    /// [`ConnectError::Config`] where the PEM text is not readable.
    pub fn new(trust: &Trust) -> Result<Self, ConnectError> {
        Self::with(trust, None, true)
    }

    /// What a client with this configuration makes for itself.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn of(config: &ClientConfig) -> Result<Self, ConnectError> {
        Self::with(&config.trust, config.bind, config.tcp_bbr)
    }

    fn with(trust: &Trust, bind: Option<IpAddr>, tcp_bbr: bool) -> Result<Self, ConnectError> {
        let to_dispatch = Arc::new(trust.clone());
        let trust = match trust {
            Trust::Web => tls::Trust::Web,
            Trust::Ca(pem) => tls::Trust::Ca(pem.clone()),
        };
        let tls = ClientTls::new(&trust)
            .map_err(|e| ConnectError::Config { problem: format!("trust: {e}") })?;
        // Each connection's writer keeps it alive, at distances that it learns.
        let settings = Settings { keep_alive: None, tcp_bbr, ..Settings::default() };
        let dialer = Arc::new(Dialer::new(tls, settings).bind(bind));
        Ok(Self { dialer, trust: to_dispatch, known: Arc::default() })
    }

    /// Makes the UDP sockets anew, unless another client has done so just now. Not for each of many
    /// clients that fall silent together: each move is one for all of them.
    pub(crate) fn rebind(&self, not_since: Duration) -> io::Result<()> {
        let now = Instant::now();
        {
            let mut known = self.known.lock();
            if known.rebound.is_some_and(|at| now.saturating_duration_since(at) < not_since) {
                return Ok(());
            }
            known.rebound = Some(now);
        }
        self.dialer.rebind()
    }

    /// What is remembered of the ways to servers.
    pub(crate) fn memory<T>(&self, work: impl FnOnce(&mut Memory) -> T) -> T {
        work(&mut self.known.lock().memory)
    }

    /// What dispatch has said.
    pub(crate) fn answers<T>(&self, work: impl FnOnce(&mut Answers) -> T) -> T {
        work(&mut self.known.lock().answers)
    }

    /// TLS to dispatch.
    pub(crate) fn https(&self) -> Result<Https, ConnectError> {
        let mut known = self.known.lock();
        let https = match known.https.take() {
            Some(https) => https,
            None => Https::new(&self.trust)?,
        };
        known.https = Some(https.clone());
        Ok(https)
    }

    pub(crate) fn dialer(&self) -> &Dialer {
        &self.dialer
    }
}
