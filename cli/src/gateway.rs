//! `edgeway gateway`: a gateway as a process of its own.

use std::path::PathBuf;

use crate::{
    args::not_empty,
    config::{File, Settings, Use},
    failure::Outcome,
    flags::{LinkFiles, Listen},
    output::say,
    serve::{self, Server, ready_line},
    shutdown,
};

/// Run a gateway: the part that clients connect to.
///
/// It dials every address of [backends]. Flags give one process its own name and addresses, so
/// that one config file serves several.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  edgeway gateway --config edgeway.toml
  edgeway gateway --config edgeway.toml --name gw-2 --quic 127.0.0.1:4434 --tcp 127.0.0.1:4434 \\
                  --http 127.0.0.1:8082

It prints a line `ready quic=ADDR tcp=ADDR http=ADDR` once every backend is reached.")]
pub struct Args {
    /// Config file; edgeway.example.toml explains every key.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Name of this gateway in logs and to backends.
    #[arg(long, value_parser = not_empty())]
    name: Option<String>,
    #[command(flatten)]
    listen: Listen,
    #[command(flatten)]
    link: LinkFiles,
}

/// Runs the command.
///
/// # Errors
/// Where it cannot start, or broke.
pub fn run(args: Args, log: Option<&str>) -> Outcome {
    let load = move || {
        let mut file = File::read(Some(&args.config))?;
        file.set("--name", "gateway.name", args.name.clone(), |raw, v| raw.gateway.name = v);
        args.listen.apply(&mut file);
        args.link.apply(&mut file);
        Ok(file)
    };
    serve::with_settings(Box::new(load), Use::Gateway, log, gateway)
}

async fn gateway(settings: Settings, mut server: Server) -> anyhow::Result<()> {
    let shutdown = shutdown::on_signals()?;
    let metrics = serve::metrics()?;
    let keys = settings.dispatch.live.keys;
    let clients = server.add_gateway(settings.gateway, Box::new(|settings| settings), keys)?;
    let http = server.add_http(settings.process.http, metrics).await?;
    let running = server.start();
    if running.wait_ready(&shutdown).await {
        let mut values: Vec<_> =
            clients.into_iter().map(|(name, addr)| (name, addr.to_string())).collect();
        values.extend(http.map(|addr| ("http", addr.to_string())));
        say(&ready_line(&values));
    }
    running.finish(shutdown).await
}
