//! Edgeway itself as a child process: `edgeway up` with a config, a data directory and ports of
//! its own.

use std::{
    env, fs,
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use clap::Args;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::Command,
};

use crate::child::{self, Child};

/// Which Edgeway is measured.
#[derive(Args, Debug, Clone)]
pub struct ServerArgs {
    /// The `edgeway` program; by default the one beside this program
    #[arg(long, value_name = "PATH")]
    pub edgeway: Option<PathBuf>,
}

/// Where a server listens.
#[derive(Debug, Clone, Copy)]
pub struct Listen {
    pub quic: SocketAddr,
    pub tcp: SocketAddr,
    pub http: SocketAddr,
    /// Whether TCP uses bbr where it may.
    pub tcp_bbr: bool,
}

/// A running `edgeway up`; ended when dropped.
pub struct Server {
    child: Child,
    /// Where it takes QUIC.
    pub quic: SocketAddr,
    /// Where it takes TCP with TLS.
    pub tcp: SocketAddr,
    /// Where its metrics are.
    pub http: SocketAddr,
    /// The authority that `up` made for itself, in PEM: what clients trust.
    pub ca_pem: String,
    dir: TempDir,
}

impl Server {
    /// Starts it and waits until it is ready. `more` is more of its config.
    pub async fn start(args: &ServerArgs, more: &str) -> Result<Self> {
        let [quic, tcp, http] = [free_udp_port()?, free_tcp_port()?, free_tcp_port()?];
        let command = Command::new(program(args)?);
        Self::start_as(command, Listen { quic, tcp, http, tcp_bbr: true }, more).await
    }

    /// Starts it by `command`, which is the program alone. `more` is more of its config.
    pub async fn start_as(mut command: Command, listen: Listen, more: &str) -> Result<Self> {
        let dir = TempDir::with_prefix("edgeway-loadtest-").context("no temporary directory")?;
        let config = dir.path().join("edgeway.toml");
        fs::write(&config, config_text(listen, dir.path(), more))
            .with_context(|| format!("cannot write {}", config.display()))?;
        command.arg("up").arg("--config").arg(&config).current_dir(dir.path());
        let log = dir.path().join("stderr.log");
        let mut child = Child::start("edgeway up", command, &log)?;
        child::with_log(child.line("ready").await, &log)?;
        child.drain();
        let ca = dir.path().join("data").join("certs").join("ca.pem");
        let ca_pem =
            fs::read_to_string(&ca).with_context(|| format!("cannot read {}", ca.display()))?;
        let Listen { quic, tcp, http, .. } = listen;
        Ok(Self { child, quic, tcp, http, ca_pem, dir })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// Fails where it is no longer running, with its last words.
    pub fn check(&mut self) -> Result<()> {
        child::with_log(self.child.check(), &self.dir.path().join("stderr.log"))
    }

    /// Ends it.
    pub async fn stop(self) -> Result<()> {
        self.child.stop().await
    }
}

/// The metrics of a server, in the text format of Prometheus: the sum of one over all labels that
/// hold `label`.
pub async fn metric(http: SocketAddr, name: &str, label: &str) -> Result<Option<f64>> {
    let mut stream = TcpStream::connect(http).await.context("no metrics")?;
    // The oldest version: the answer is neither cut into chunks nor kept open after it.
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (_, text) = answer.split_once("\r\n\r\n").context("no answer for metrics")?;
    let lines = text.lines().filter(|line| {
        let rest = line.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with(['{', ' '])) && line.contains(label)
    });
    let values = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    Ok(values.reduce(|a, b| a + b))
}

/// The program that is measured.
pub fn program(args: &ServerArgs) -> Result<PathBuf> {
    if let Some(path) = &args.edgeway {
        return Ok(path.clone());
    }
    let path = env::current_exe()?.with_file_name("edgeway");
    if !path.exists() {
        bail!(
            "{} is not there; build it (cargo build --release), or name it with --edgeway",
            path.display()
        );
    }
    Ok(path)
}

/// The config file. Written as text: what is measured is what a person could write.
fn config_text(listen: Listen, dir: &Path, more: &str) -> String {
    let Listen { quic, tcp, http, tcp_bbr } = listen;
    let data = toml_string(&dir.join("data").to_string_lossy());
    format!(
        "[gateway.listen]\nquic = \"{quic}\"\ntcp = \"{tcp}\"\n\
         tcp_bbr = {tcp_bbr}\n\n[http]\nlisten = \"{http}\"\n\n\
         [backend]\ndata_dir = {data}\n{more}"
    )
}

fn toml_string(text: &str) -> String {
    format!("\"{}\"", text.escape_default())
}

const LOOPBACK: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);

/// A UDP port that was free a moment ago.
pub fn free_udp_port() -> Result<SocketAddr> {
    Ok(UdpSocket::bind(LOOPBACK)?.local_addr()?)
}

/// A TCP port that was free a moment ago.
pub fn free_tcp_port() -> Result<SocketAddr> {
    Ok(TcpListener::bind(LOOPBACK)?.local_addr()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_config_is_the_one_a_person_would_write() {
        let addr = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let listen = Listen { quic: addr(1), tcp: addr(2), http: addr(3), tcp_bbr: false };
        let config = |more| config_text(listen, Path::new("/tmp/a \"b\""), more);
        assert_eq!(
            config("\n[rooms]\nchat_per_second = 0\n"),
            "[gateway.listen]\nquic = \"127.0.0.1:1\"\ntcp = \"127.0.0.1:2\"\ntcp_bbr = false\n\n\
             [http]\nlisten = \"127.0.0.1:3\"\n\n\
             [backend]\ndata_dir = \"/tmp/a \\\"b\\\"/data\"\n\n\
             [rooms]\nchat_per_second = 0\n"
        );
        assert!(!config("").contains("[rooms]"));
    }
}
