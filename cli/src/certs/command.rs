//! `edgeway certs`: certificates of the links between processes.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Subcommand, value_parser};
use edgeway_certs::{DevCa, Request, Usage};
use edgeway_linktls::DEFAULT_NAME;

use crate::{args::not_empty, failure::Outcome, output::say};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Make certificates for the links between processes, which are TLS with certificates of both sides.
///
/// Without any, processes link on one machine only. A certificate says that its owner belongs to the cluster:
/// whoever has one may dial every process, and serve as any. So give each process (or each machine) its own, and
/// keep ca.key where none of them runs.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example, a gateway on 10.0.0.1 and all backends on 10.0.0.2. On a machine of the operator:

  edgeway certs ca                                  makes edgeway-links/ca.pem and ca.key
  edgeway certs link gw-1 --host 10.0.0.1           makes edgeway-links/gw-1.pem and gw-1.key
  edgeway certs link backend-1 --host 10.0.0.2

To each machine go ca.pem and its own two files, and nothing else:

  scp edgeway-links/{ca.pem,gw-1.pem,gw-1.key} 10.0.0.1:/etc/edgeway/
  scp edgeway-links/{ca.pem,backend-1.pem,backend-1.key} 10.0.0.2:/etc/edgeway/

In the config of both, where link.pem and link.key are what those files are called there:

  [backend]                                         [links]
  listen = \"10.0.0.2:7400\"                          ca = \"/etc/edgeway/ca.pem\"
  [backends]                                        cert = \"/etc/edgeway/link.pem\"
  access = [\"10.0.0.2:7400\"]                        key = \"/etc/edgeway/link.key\"
  room = [\"10.0.0.2:7400\"]
  peer = [\"10.0.0.2:7400\"]

`edgeway check` says what is wrong with them and how long they last. Before they run out: issue with --force, copy, and send
SIGHUP to the process or POST /reload to its HTTP address. It uses the new ones for new connections, and keeps those that stand.
To replace the CA: let links.ca hold both ca.pem, one after the other, until every process has a new certificate.")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Ca(Ca),
    Link(Link),
}

/// Make a CA: what all processes of the cluster trust.
#[derive(Debug, clap::Args)]
struct Ca {
    /// Where its files go: ca.pem for every process, ca.key for nobody.
    #[arg(long, value_name = "DIR", default_value = "edgeway-links")]
    dir: PathBuf,
    /// How long it is good. Replacing it is work on every machine.
    #[arg(long, value_name = "N", default_value_t = 3650, value_parser = value_parser!(u32).range(1..=36_500))]
    days: u32,
    /// Replace a CA that is there. All certificates must be issued anew.
    #[arg(long)]
    force: bool,
}

/// Issue a process its certificate, for both dialling and serving.
#[derive(Debug, clap::Args)]
struct Link {
    /// Name of the process (or of the machine, for all of its processes); names the files.
    #[arg(value_name = "NAME")]
    process: String,
    /// Host name or IP address at which it is reached. Edgeway does not ask for it; other gRPC clients do.
    #[arg(long = "host", value_name = "HOST", value_parser = not_empty())]
    hosts: Vec<String>,
    /// Directory of the CA.
    #[arg(long, value_name = "DIR", default_value = "edgeway-links")]
    dir: PathBuf,
    /// Where the files go; that of the CA by default.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// How long it is good.
    #[arg(long, value_name = "N", default_value_t = 397, value_parser = value_parser!(u32).range(1..=36_500))]
    days: u32,
    /// The cluster's name as in links.name: clusters with one CA and different names do not link.
    #[arg(long, value_name = "NAME", default_value = DEFAULT_NAME, value_parser = not_empty())]
    cluster: String,
    /// Replace its certificate where there is one.
    #[arg(long)]
    force: bool,
}

/// Runs the command.
///
/// # Errors
/// Where a file is there already, or cannot be written.
pub fn run(args: Args) -> Outcome {
    let said = match args.command {
        Command::Ca(args) => make(&args),
        Command::Link(args) => issue(&args),
    };
    say(&said.map_err(anyhow::Error::new)?);
    Ok(())
}

fn make(args: &Ca) -> Result<String, edgeway_certs::CertError> {
    let ca = DevCa::make(&args.dir, "Edgeway link CA", DAY * args.days, args.force)?;
    let key = args.dir.join("ca.key");
    Ok(format!(
        "{}: for links.ca of every process\n{}: keep it here; whoever has it can join the cluster\n\
         Next: edgeway certs link NAME{}",
        ca.path().display(),
        key.display(),
        if args.dir == Path::new("edgeway-links") {
            String::new()
        } else {
            format!(" --dir {}", args.dir.display())
        }
    ))
}

fn issue(args: &Link) -> Result<String, edgeway_certs::CertError> {
    let ca = DevCa::existing(&args.dir)?;
    let hosts = args.hosts.iter().map(String::as_str);
    let names: Vec<_> = std::iter::once(args.cluster.as_str()).chain(hosts).collect();
    let request = Request {
        subject: &args.process,
        names: &names,
        usage: Usage::Peer,
        lifetime: DAY * args.days,
    };
    let out = args.out.as_ref().unwrap_or(&args.dir);
    let saved = ca.issue_to(out, &request, args.force)?;
    let name = match args.cluster.as_str() {
        DEFAULT_NAME => String::new(),
        name => format!("\nname = \"{name}\""),
    };
    Ok(format!(
        "The certificate of {}, good until {}. In the config of its process:\n\
         [links]\nca = \"{}\"\ncert = \"{}\"\nkey = \"{}\"{name}",
        args.process,
        saved.until,
        ca.path().display(),
        saved.cert_path.display(),
        saved.key_path.display(),
    ))
}
