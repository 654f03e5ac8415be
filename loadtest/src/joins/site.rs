//! The server whose joins are measured.

use std::net::SocketAddr;

use anyhow::{Result, anyhow};
use edgeway_testredis as testredis;
use tokio::{process::Command, task::spawn_blocking};

use super::{Args, Kind};
use crate::server::{Listen, Server, free_tcp_port, free_udp_port, program};

/// A server that is ready.
pub struct Site {
    /// Ours; none where it ran already.
    pub server: Option<Server>,
    /// The gRPC door of access.
    pub backend: String,
    pub pids: Vec<u32>,
    /// Where its Redis is.
    pub redis: Option<String>,
    _own_redis: Option<testredis::Server>,
}

impl Site {
    /// Starts `edgeway up` with a door of a known address, or takes the backend that is there.
    pub async fn open(args: &Args) -> Result<Self> {
        if let Some(backend) = &args.backend {
            let (backend, pids) = (backend.clone(), args.pid.clone());
            return Ok(Self { server: None, backend, pids, redis: None, _own_redis: None });
        }
        let own_redis = match args.store {
            Kind::Redis if args.redis.is_none() => Some(start_redis().await?),
            Kind::Redis | Kind::Embedded => None,
        };
        let redis = args.redis.clone().or(own_redis.as_ref().map(testredis::Server::url));
        let [tcp, http, backend] = [free_tcp_port()?, free_tcp_port()?, free_tcp_port()?];
        let listen = Listen { quic: free_udp_port()?, tcp, http, tcp_bbr: true };
        let command = Command::new(program(&args.server)?);
        let server = Server::start_as(command, listen, &config(backend, redis.as_deref())).await?;
        let (backend, pids) = (backend.to_string(), vec![server.pid()]);
        Ok(Self { server: Some(server), backend, pids, redis, _own_redis: own_redis })
    }

    /// Fails where ours is no longer running, with its last words.
    pub fn check(&mut self) -> Result<()> {
        self.server.as_mut().map_or(Ok(()), Server::check)
    }

    /// Ends it, if it is ours.
    pub async fn close(self) -> Result<()> {
        match self.server {
            Some(server) => server.stop().await,
            None => Ok(()),
        }
    }
}

async fn start_redis() -> Result<testredis::Server> {
    let start = || -> Result<testredis::Server> {
        testredis::find()
            .map_err(|told| anyhow!("no Redis to start: name one with --redis\n{told}"))?;
        Ok(testredis::Server::start(&testredis::Options::default()))
    };
    spawn_blocking(start).await?
}

/// What is added to the config, which ends within `[backend]`.
fn config(backend: SocketAddr, redis: Option<&str>) -> String {
    let listen = format!("listen = \"{backend}\"\n");
    let Some(url) = redis else { return listen };
    let prefix = format!("loadtest-{:08x}", rand::random::<u32>());
    let url = url.escape_default();
    format!(
        "{listen}\n[store]\nengine = \"redis\"\n\n[store.redis]\nurl = \"{url}\"\nprefix = \"{prefix}\"\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_config_is_what_a_person_would_write() {
        let addr: SocketAddr = "127.0.0.1:7".parse().unwrap();
        assert_eq!(config(addr, None), "listen = \"127.0.0.1:7\"\n");
        let redis = config(addr, Some("redis://localhost:6379"));
        let parsed: toml::Table = format!("[backend]\n{redis}").parse().unwrap();
        assert_eq!(parsed["store"]["redis"]["url"].as_str(), Some("redis://localhost:6379"));
        assert_eq!(parsed["backend"]["listen"].as_str(), Some("127.0.0.1:7"));
    }
}
