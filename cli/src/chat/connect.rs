//! From flags to a client that is connected.

use std::{net::IpAddr, path::Path};

use anyhow::{Context, anyhow};
use edgeway_client::{Client, ClientConfig, ConnectError, Events, Login, Trust};

use super::Args;
use crate::certs;

pub async fn connect(args: &Args) -> anyhow::Result<(Client, Events)> {
    let mut config = ClientConfig::new(&args.server, login(args)?);
    config.trust = trust(args)?;
    config.transport = args.transport.into();
    config.device = args.device.clone().unwrap_or_default();
    config.agent = concat!("edgeway-chat/", env!("CARGO_PKG_VERSION")).to_owned();
    Client::connect(config).await.map_err(|error| {
        let hint = hint(&error, &args.server);
        let error = anyhow::Error::new(error);
        match hint {
            Some(hint) => anyhow!("cannot connect to {}: {error:#}; {hint}", args.server),
            None => error.context(format!("cannot connect to {}", args.server)),
        }
    })
}

fn login(args: &Args) -> anyhow::Result<Login> {
    let user = args.user.clone();
    if let Some(variable) = &args.token_env {
        let token = std::env::var(variable).with_context(|| {
            format!("no token: the environment variable {variable} (--token-env) cannot be read")
        })?;
        return Ok(Login::Token { user, token: token.into_bytes() });
    }
    let Some(variable) = &args.password_env else { return Ok(Login::Development { user }) };
    let password = std::env::var(variable).with_context(|| {
        format!("no password: the environment variable {variable} (--password-env) cannot be read")
    })?;
    Ok(Login::Password { user, password })
}

fn trust(args: &Args) -> anyhow::Result<Trust> {
    let read = |path: &Path| {
        let pem = std::fs::read(path)
            .with_context(|| format!("cannot read the authority {}", path.display()))?;
        Ok(Trust::Ca(pem))
    };
    match &args.ca {
        Some(path) => read(path),
        None if is_this_machine(&args.server) => {
            certs::of_local_up().map_or(Ok(Trust::Web), |path| read(&path))
        }
        None => Ok(Trust::Web),
    }
}

fn is_this_machine(server: &str) -> bool {
    let host = server.rsplit_once(':').map_or(server, |(host, _)| host);
    let host = host.trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn hint(error: &ConnectError, server: &str) -> Option<&'static str> {
    match error {
        ConnectError::Certificate { .. } if is_this_machine(server) => Some(
            "name the ca.pem that `edgeway up` printed with --ca, or run this where it was started",
        ),
        ConnectError::Certificate { .. } => {
            Some("name the authority that signed the server's certificate with --ca FILE")
        }
        ConnectError::Unreachable { .. } | ConnectError::TimedOut if is_this_machine(server) => {
            Some("is `edgeway up` running?")
        }
        ConnectError::LoginFailed { .. } => {
            Some("a password is given with --password-env VARIABLE, a token with --token-env")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_development_authority_is_only_for_this_machine() {
        for server in ["127.0.0.1:4433", "localhost:1", "[::1]:4433", "127.0.0.2:1"] {
            assert!(is_this_machine(server), "{server}");
        }
        for server in ["edge.example.com:4433", "10.0.0.1:4433", "localhost.example.com:1"] {
            assert!(!is_this_machine(server), "{server}");
        }
    }
}
