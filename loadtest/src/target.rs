//! The server that is measured: `edgeway up`, started for it, or processes that run already.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use edgeway_client::Trust;

use crate::{
    procstat,
    server::{Server, ServerArgs},
};

/// What is measured.
#[derive(Args, Debug, Clone)]
pub struct TargetArgs {
    #[command(flatten)]
    own: ServerArgs,
    /// Use gateways that run already, instead of an `edgeway up` of its own; members are spread
    /// over them. QUIC and TCP must have the same port
    #[arg(long, value_name = "HOST:PORT,...", value_delimiter = ',', conflicts_with = "edgeway")]
    server: Vec<String>,
    /// With --server: process ids of all its processes on this machine, for CPU and memory
    #[arg(long, value_name = "PID,...", value_delimiter = ',', requires = "server")]
    pid: Vec<u32>,
    /// With --server: authority of its certificates, PEM; by default those of the public web
    #[arg(long, value_name = "FILE", requires = "server")]
    ca: Option<PathBuf>,
}

impl TargetArgs {
    /// A server of its own.
    pub fn of_own(own: ServerArgs) -> Self {
        Self { own, server: Vec::new(), pid: Vec::new(), ca: None }
    }

    /// Whether the server is not ours, so that its config is not either.
    pub fn is_foreign(&self) -> bool {
        !self.server.is_empty()
    }
}

/// Where a gateway takes connections.
#[derive(Debug, Clone)]
pub struct Gateway {
    pub quic: String,
    pub tcp: String,
}

/// A server that is ready.
pub struct Target {
    own: Option<Server>,
    pub gateways: Vec<Gateway>,
    pub pids: Vec<u32>,
    pub trust: Trust,
    /// Resident memory before the first connection.
    pub rss_bytes_at_start: u64,
}

impl Target {
    /// Starts the server, or takes the ones that are there. `policy_off` lets all chat through.
    pub async fn open(args: &TargetArgs, policy_off: bool) -> Result<Self> {
        Self::open_with(args, policy_off, "").await
    }

    /// The same; `more` is more of the config of a server that it starts.
    pub async fn open_with(args: &TargetArgs, policy_off: bool, more: &str) -> Result<Self> {
        let mut target = if args.is_foreign() {
            Self::foreign(args)?
        } else {
            let policy = if policy_off { "\n[rooms]\nchat_per_second = 0\n" } else { "" };
            Self::own(Server::start(&args.own, &format!("{policy}{more}")).await?)
        };
        target.rss_bytes_at_start = target.rss_bytes()?;
        Ok(target)
    }

    fn foreign(args: &TargetArgs) -> Result<Self> {
        let trust = match &args.ca {
            Some(path) => Trust::Ca(
                fs::read(path).with_context(|| format!("cannot read {}", path.display()))?,
            ),
            None => Trust::Web,
        };
        let gateway = |addr: &String| Gateway { quic: addr.clone(), tcp: addr.clone() };
        let gateways = args.server.iter().map(gateway).collect();
        Ok(Self { own: None, gateways, pids: args.pid.clone(), trust, rss_bytes_at_start: 0 })
    }

    fn own(server: Server) -> Self {
        let gateway = Gateway { quic: server.quic.to_string(), tcp: server.tcp.to_string() };
        Self {
            gateways: vec![gateway],
            pids: vec![server.pid()],
            trust: Trust::Ca(server.ca_pem.clone().into_bytes()),
            rss_bytes_at_start: 0,
            own: Some(server),
        }
    }

    /// Resident memory of all its processes.
    pub fn rss_bytes(&self) -> Result<u64> {
        procstat::rss_bytes_of(&self.pids)
    }

    /// Where its metrics are, where they are ours to ask.
    pub fn http(&self) -> Option<std::net::SocketAddr> {
        self.own.as_ref().map(|own| own.http)
    }

    /// What its metrics say, where they are ours to ask: the sum over all labels that hold `label`.
    pub async fn metric(&self, name: &str, label: &str) -> Option<f64> {
        crate::server::metric(self.http()?, name, label).await.ok()?
    }

    /// Fails where our own is no longer running, with its last words.
    pub fn check(&mut self) -> Result<()> {
        self.own.as_mut().map_or(Ok(()), Server::check)
    }

    /// Ends it, if it is ours.
    pub async fn close(self) -> Result<()> {
        match self.own {
            Some(server) => server.stop().await,
            None => Ok(()),
        }
    }
}
