//! `edgeway up`: everything in one process.

use std::{fmt, net::SocketAddr, path::PathBuf};

use edgeway_backend::{Roles, config::Auth};

use crate::{
    args::not_empty,
    certs,
    config::{File, GatewaySettings, Settings, Use},
    failure::Outcome,
    flags::{Listen, set_data_dir},
    output::say,
    serve::{self, Server, ready_line},
    shutdown,
};

/// Run everything in one process: the edge, rooms, inboxes, history. Nothing to set up.
///
/// Listens on this machine only and lets anyone in under any name, until a config says otherwise.
/// Makes itself a development certificate on first start. The history stays in the data directory.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  edgeway up
  edgeway up --data-dir /tmp/demo --quic 127.0.0.1:5000 --tcp 127.0.0.1:5000
  edgeway up --config edgeway.toml      (edgeway.example.toml explains every key)

It prints a line `ready quic=ADDR tcp=ADDR http=ADDR ca=FILE` once clients can come.
Ctrl-C tells clients and stops; a second one stops at once.")]
pub struct Args {
    /// Config file; without it, everything has its default.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Directory of history and certificates. [default: edgeway-data]
    #[arg(long, value_name = "DIR", value_parser = not_empty())]
    data_dir: Option<String>,
    #[command(flatten)]
    listen: Listen,
}

/// Runs the command.
///
/// # Errors
/// Where it cannot start, or a part of it broke.
pub fn run(args: Args, log: Option<&str>) -> Outcome {
    let load = move || {
        let mut file = File::read(args.config.as_deref())?;
        set_data_dir(&mut file, args.data_dir.clone());
        args.listen.apply(&mut file);
        Ok(file)
    };
    serve::with_settings(Box::new(load), Use::Up, log, up)
}

/// What is told once clients can come.
struct Welcome {
    clients: Vec<(&'static str, SocketAddr)>,
    http: Option<SocketAddr>,
    /// Of its own listeners.
    dispatch: Vec<(&'static str, SocketAddr)>,
    data_dir: PathBuf,
    /// The authority of a development certificate.
    ca: Option<PathBuf>,
    for_development: bool,
}

async fn up(settings: Settings, mut server: Server) -> anyhow::Result<()> {
    let Settings { process, gateway, backend, dispatch, dispatch_tls, .. } = settings;
    let shutdown = shutdown::on_signals()?;
    let metrics = serve::metrics()?;
    let data_dir = backend.data_dir.clone();
    let for_development = matches!(backend.auth, Auth::Development);
    let certs = match gateway.makes_tls() {
        true => Some(certs::ensure(&data_dir, &gateway.addrs())?),
        false => None,
    };
    let ca = certs.as_ref().map(|certs| certs.ca_path.clone());
    let http = server.add_http(process.http, metrics).await?;
    let Some(roles_at) = server.add_backend(backend, Roles::up(), &shutdown).await? else {
        return Ok(());
    };
    let of_clients =
        certs.as_ref().map(|certs| (certs.cert_pem.clone().into(), certs.key_pem.clone().into()));
    let dispatch_tls = dispatch_tls.or(of_clients);
    let complete = move |settings: GatewaySettings| {
        let settings = settings.with_roles_at(roles_at);
        match &certs {
            Some(certs) => settings.with_tls(&certs.cert_pem, &certs.key_pem),
            None => settings,
        }
    };
    let clients = server.add_gateway(gateway, Box::new(complete), dispatch.live.keys.clone())?;
    let dispatch = server.add_dispatch(&dispatch, dispatch_tls.as_ref()).await?;
    let running = server.start();
    if running.wait_ready(&shutdown).await {
        say(&Welcome { clients, http, dispatch, data_dir, ca, for_development }.to_string());
    }
    running.finish(shutdown).await
}

impl fmt::Display for Welcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let clients: Vec<_> =
            self.clients.iter().map(|(name, at)| format!("{name} {at}")).collect();
        writeln!(f, "Edgeway is up.")?;
        writeln!(f, "  clients   {}", clients.join(", "))?;
        if let Some(http) = self.http {
            writeln!(
                f,
                "  http      http://{http}/metrics, /healthz, /readyz, /stat, /dispatch, /v1, /docs/"
            )?;
        }
        writeln!(f, "  data      {}", self.data_dir.display())?;
        if self.for_development {
            writeln!(f, "  login     for development: anyone on this machine, under any name")?;
        }
        if let Some(ca) = &self.ca {
            writeln!(f, "  trust     {} (a development certificate)", ca.display())?;
        }
        writeln!(f, "{}", self.ready_line())?;
        writeln!(f, "Try, in two more terminals:")?;
        let more = self.chat_flags("quic");
        writeln!(f, "  edgeway chat --user ada --room lesson-1{more}")?;
        let more = self.chat_flags("tcp");
        write!(f, "  edgeway chat --user bob --room lesson-1{more} --transport tcp")
    }
}

impl Welcome {
    fn ready_line(&self) -> String {
        let mut values: Vec<_> =
            self.clients.iter().map(|(name, addr)| (*name, addr.to_string())).collect();
        values.extend(self.http.map(|addr| ("http", addr.to_string())));
        values.extend(self.dispatch.iter().map(|(name, addr)| (*name, addr.to_string())));
        // The last one, and absolute: it may hold spaces, and scripts run elsewhere.
        let ca = self.ca.as_ref().map(|ca| ca.canonicalize().unwrap_or_else(|_| ca.clone()));
        values.extend(ca.map(|ca| ("ca", ca.display().to_string())));
        ready_line(&values)
    }

    /// What `chat` must be told because it is not its default. The transports may have ports of
    /// their own.
    fn chat_flags(&self, transport: &str) -> String {
        let mut flags = String::new();
        let listener = self.clients.iter().find(|(name, _)| *name == transport);
        if let Some((_, addr)) = listener.filter(|(_, addr)| addr.port() != 4433) {
            flags += &format!(" --server {addr}");
        }
        if let Some(ca) = self.ca.as_ref().filter(|ca| certs::of_local_up().as_ref() != Some(ca)) {
            flags += &format!(" --ca {}", ca.display());
        }
        flags
    }
}
