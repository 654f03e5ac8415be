//! `edgeway backend`: one or more roles as a process of their own.

use std::path::PathBuf;

use edgeway_backend::Roles;

use crate::{
    args::not_empty,
    config::{File, Settings, Use},
    failure::Outcome,
    flags::{LinkFiles, set_data_dir, set_http},
    output::say,
    serve::{self, Server, ready_line},
    shutdown,
};

/// Run backend roles: access (logins and Sessions), room (rooms and their history), binary (their whiteboard
/// strokes, where those are to be apart), peer (inboxes), push (the HTTP API for business systems).
///
/// Flags give one process its own address, directory and slot, so that one config file serves
/// several. The address must be one of its roles' in [backends], or nobody finds it.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  edgeway backend --config edgeway.toml --roles access,room,peer
  edgeway backend --config edgeway.toml --roles room --listen 127.0.0.1:7412 --data-dir room-2 \\
                  --slot 2 --http 127.0.0.1:8084

It prints a line `ready grpc=ADDR http=ADDR` once it can be reached.")]
pub struct Args {
    /// Config file; edgeway.example.toml explains every key.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// What this process does: access, room, binary, peer, push, separated by commas.
    #[arg(long, value_name = "ROLES", value_parser = Roles::parse)]
    roles: Roles,
    /// Address for gateways and other backends.
    #[arg(long, value_name = "IP:PORT")]
    listen: Option<String>,
    /// Directory of this process's store.
    #[arg(long, value_name = "DIR", value_parser = not_empty())]
    data_dir: Option<String>,
    /// Number of this process among those with stores of their own, 0 to 63.
    #[arg(long, value_name = "N")]
    slot: Option<i64>,
    /// Name of this process in logs and to gateways.
    #[arg(long, value_parser = not_empty())]
    name: Option<String>,
    /// Address for metrics and health; `off` for none.
    #[arg(long, value_name = "IP:PORT")]
    http: Option<String>,
    #[command(flatten)]
    link: LinkFiles,
}

/// Runs the command.
///
/// # Errors
/// Where it cannot start, or broke.
pub fn run(args: Args, log: Option<&str>) -> Outcome {
    let roles = args.roles;
    let load = move || {
        let mut file = File::read(Some(&args.config))?;
        file.set("--listen", "backend.listen", args.listen.clone(), |raw, v| {
            raw.backend.listen = Some(v)
        });
        file.set("--slot", "backend.slot", args.slot, |raw, v| raw.backend.slot = Some(v));
        file.set("--name", "backend.name", args.name.clone(), |raw, v| raw.backend.name = Some(v));
        set_data_dir(&mut file, args.data_dir.clone());
        set_http(&mut file, args.http.clone());
        args.link.apply(&mut file);
        Ok(file)
    };
    serve::with_settings(Box::new(load), Use::Backend(roles), log, |settings, server| {
        backend(settings, roles, server)
    })
}

async fn backend(settings: Settings, roles: Roles, mut server: Server) -> anyhow::Result<()> {
    let shutdown = shutdown::on_signals()?;
    let metrics = serve::metrics()?;
    let http = server.add_http(settings.process.http, metrics).await?;
    let Some(grpc) = server.add_backend(settings.backend, roles, &shutdown).await? else {
        return Ok(());
    };
    let running = server.start();
    if running.wait_ready(&shutdown).await {
        let mut values = vec![("grpc", grpc.to_string())];
        values.extend(http.map(|addr| ("http", addr.to_string())));
        say(&ready_line(&values));
    }
    running.finish(shutdown).await
}
