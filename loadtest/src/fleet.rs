//! Real clients, as many as wanted, over a few sockets.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use clap::ValueEnum;
use edgeway_client::{Client, ClientConfig, Connector, Events, Login, TransportChoice};

use crate::target::{Gateway, Target};

/// A machine that makes thousands of connections at once is slow to make each.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(60);

/// Tries to connect: a burst of handshakes may overflow a socket's buffer again and again for one
/// of them, which is no fault to stop for, but one to tell.
const TRIES: u32 = 5;

/// What carries the connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mix {
    Quic,
    /// TCP with TLS
    Tcp,
    /// Half of each
    Mixed,
}

impl Mix {
    pub fn name(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::Tcp => "tcp",
            Self::Mixed => "mixed",
        }
    }

    fn is_quic(self, turn: usize) -> bool {
        match self {
            Self::Quic => true,
            Self::Tcp => false,
            Self::Mixed => turn.is_multiple_of(2),
        }
    }
}

/// Makes clients, in turn over the sockets, the gateways and the transports.
pub struct Fleet {
    connectors: Vec<Connector>,
    gateways: Vec<Gateway>,
    mix: Mix,
    again: Arc<AtomicU32>,
}

impl Fleet {
    /// `sockets` UDP sockets are shared by all clients over QUIC.
    pub fn new(target: &Target, mix: Mix, sockets: u32) -> Result<Self> {
        let connectors = (0..sockets).map(|_| Connector::new(&target.trust));
        let connectors = connectors.collect::<Result<_, _>>()?;
        let (gateways, again) = (target.gateways.clone(), Arc::default());
        Ok(Self { connectors, gateways, mix, again })
    }

    /// Connects and logs in client number `n`, a user of its own.
    pub fn connect(
        &self,
        n: u32,
    ) -> impl Future<Output = Result<(Client, Events)>> + Send + 'static {
        let turn = n as usize;
        let connector = self.connectors[turn % self.connectors.len()].clone();
        let config = self.config(turn, format!("member-{n:05}"));
        let again = Arc::clone(&self.again);
        async move {
            for _ in 1..TRIES {
                match Client::connect_through(&connector, config.clone()).await {
                    Err(error) if error.may_retry() => {
                        tracing::info!(%error, "connecting again");
                        again.fetch_add(1, Relaxed);
                    }
                    result => return result.with_context(|| config.server),
                }
            }
            let server = config.server.clone();
            Client::connect_through(&connector, config).await.with_context(|| server)
        }
    }

    /// How often connecting had to be tried again so far.
    pub fn tried_again(&self) -> u32 {
        self.again.load(Relaxed)
    }

    fn config(&self, turn: usize, user: String) -> ClientConfig {
        let gateway = &self.gateways[turn % self.gateways.len()];
        let quic = self.mix.is_quic(turn / self.gateways.len());
        let (addr, transport) = match quic {
            true => (&gateway.quic, TransportChoice::Quic),
            false => (&gateway.tcp, TransportChoice::Tcp),
        };
        ClientConfig {
            transport,
            connect_timeout: CONNECT_TIMEOUT,
            agent: "loadtest".to_owned(),
            ..ClientConfig::new(addr, Login::Development { user })
        }
    }
}

/// A name that no room had before, so that what a server already holds does not matter.
pub fn room_name(n: u32) -> String {
    format!("load-{:08x}-{n}", rand::random::<u32>())
}
