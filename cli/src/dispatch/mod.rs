//! `edgeway dispatch`: tells clients where to connect, as a process of its own. `up` does it too.

mod feed;

use std::{path::PathBuf, sync::Arc};

use edgeway_dispatch::{
    server::Tls,
    ticket::{BadTicket, Keys},
};
use edgeway_gateway::{BadTicket as Refused, CheckTicket};

use crate::{
    config::{File, Settings, Use},
    failure::Outcome,
    flags::set_http,
    output::say,
    serve::{self, Server, ready_line},
    shutdown,
};

pub use feed::feed;

/// Tell clients where to connect, over HTTP and HTTPS.
///
/// It answers `GET /dispatch?app=..&user=..` with the gateways of the app's cluster, in the order of the cluster's
/// policy, and a ticket. docs/DISPATCH.md says more.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  edgeway dispatch --config edgeway.toml
  edgeway dispatch --config edgeway.toml --listen 127.0.0.1:8091 --tls-listen off --http off
  curl 'http://127.0.0.1:8090/dispatch?app=default&user=ada'

It prints a line `ready dispatch=ADDR tls=ADDR http=ADDR` once it answers.")]
pub struct Args {
    /// Config file; edgeway.example.toml explains every key.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Address for HTTP; `off` for none.
    #[arg(long, value_name = "IP:PORT")]
    listen: Option<String>,
    /// Address for HTTPS; `off` for none.
    #[arg(long, value_name = "IP:PORT")]
    tls_listen: Option<String>,
    /// Address for metrics and health; `off` for none.
    #[arg(long, value_name = "IP:PORT")]
    http: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// Where it cannot start, or broke.
pub fn run(args: Args, log: Option<&str>) -> Outcome {
    let load = move || {
        let mut file = File::read(Some(&args.config))?;
        let off = |text: String| if text == "off" { String::new() } else { text };
        let listen = args.listen.clone().map(off);
        file.set("--listen", "dispatch.listen", listen, |raw, v| raw.dispatch.listen = Some(v));
        let tls_listen = args.tls_listen.clone().map(off);
        file.set("--tls-listen", "dispatch.tls_listen", tls_listen, |raw, v| {
            raw.dispatch.tls_listen = v;
        });
        set_http(&mut file, args.http.clone());
        Ok(file)
    };
    serve::with_settings(Box::new(load), Use::Dispatch, log, dispatch)
}

async fn dispatch(settings: Settings, mut server: Server) -> anyhow::Result<()> {
    let shutdown = shutdown::on_signals()?;
    let metrics = serve::metrics()?;
    let http = server.add_http(settings.process.http, metrics).await?;
    let addrs = server.add_dispatch(&settings.dispatch, settings.dispatch_tls.as_ref()).await?;
    let running = server.start();
    if running.wait_ready(&shutdown).await {
        let mut values: Vec<_> =
            addrs.into_iter().map(|(name, addr)| (name, addr.to_string())).collect();
        values.extend(http.map(|addr| ("http", addr.to_string())));
        say(&ready_line(&values));
    }
    running.finish(shutdown).await
}

/// Checks tickets for a gateway of `cluster`.
pub fn check_by(keys: Keys, cluster: String) -> CheckTicket {
    Arc::new(move |ticket| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let secs = now.map_or(0, |since| since.as_secs());
        keys.check(ticket, &cluster, secs).map_err(|problem| match problem {
            BadTicket::Expired => Refused::Expired,
            other => Refused::Refused(other.to_string()),
        })
    })
}

/// The certificate of HTTPS.
///
/// # Errors
/// Where there is none, or it is not good.
pub fn tls(pem: Option<&(Vec<u8>, Vec<u8>)>) -> anyhow::Result<Tls> {
    let Some((cert, key)) = pem else {
        anyhow::bail!(
            "dispatch.tls_listen needs a certificate: set dispatch.tls.cert and dispatch.tls.key to PEM files"
        );
    };
    Tls::new(cert, key).map_err(|problem| anyhow::anyhow!("dispatch.tls: {problem}"))
}
