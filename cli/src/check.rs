//! `edgeway check`: every error of a config, or what would listen where.

use std::path::PathBuf;

use anyhow::anyhow;
use edgeway_backend::config::{Auth, Checked, StoreConfig};
use edgeway_linktls::{About, Identity};

use crate::{
    config::{BadConfig, File, ROLES_OF_UP, Settings, Use},
    failure::Outcome,
    output::say,
};

/// Say everything that is wrong with a config, or what would listen where.
///
/// Each error is a line `FILE:LINE: KEY: PROBLEM`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  edgeway check edgeway.toml
  edgeway check edgeway.toml && edgeway up --config edgeway.toml

Exit codes: 0 the config is right, 1 it has errors, 2 it cannot be read.")]
pub struct Args {
    /// The config to check. (edgeway.example.toml explains every key.)
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Runs the command.
///
/// # Errors
/// Where the config is not right.
pub fn run(args: &Args) -> Outcome {
    let name = args.file.display();
    let file = File::read(Some(&args.file))?;
    let purpose = if file.is_of_a_cluster() { Use::Gateway } else { Use::Up };
    match file.settings(purpose) {
        Ok(settings) => {
            let of = if purpose == Use::Up { "`edgeway up`" } else { "processes of their own" };
            say(&format!("{name}: ok, for {of}\n{}", summary(&settings, purpose)));
            Ok(())
        }
        Err(BadConfig::Wrong(report)) => {
            say(&report.to_string());
            let s = if report.len() == 1 { "" } else { "s" };
            Err(anyhow!("{name} has {} error{s}", report.len()).into())
        }
        Err(unreadable) => Err(unreadable.into()),
    }
}

fn summary(settings: &Settings, purpose: Use) -> String {
    let Settings { process, gateway, backend, dispatch, links, notes, .. } = settings;
    let listening: Vec<_> =
        gateway.listening().iter().map(|(what, addr)| format!("{what} {addr}")).collect();
    let mut lines = vec![format!("  gateway   {}: {}", gateway.name(), listening.join(", "))];
    for (name, addrs) in gateway.backends() {
        let here = purpose == Use::Up && ROLES_OF_UP.contains(&name.as_str());
        let place = if here { "in the same process".to_owned() } else { addrs.join(", ") };
        lines.push(format!("  backend   {name}: {place}"));
    }
    lines.push(format!("  links     {}", of_links(links.as_ref())));
    let http = process.http.map_or("off".to_owned(), |addr| addr.to_string());
    let login = match &backend.auth {
        Auth::Development => "anyone, under any name (for development)".to_owned(),
        Auth::Checked(checked) => describe(checked),
    };
    lines.push(format!("  http      {http} (/metrics, /healthz, /readyz, /stat)"));
    lines.push(format!("  data      {}", backend.data_dir.display()));
    if let StoreConfig::Redis(redis) = &backend.store {
        let history = redis.history.as_ref().map(|server| format!(", histories on {server}"));
        lines.push(format!("  store     {}{}", redis.state, history.unwrap_or_default()));
    }
    let live = &dispatch.live;
    lines.push(format!(
        "  dispatch  {} apps to {}",
        live.apps.len(),
        live.clusters.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
    ));
    lines.push(format!("  login     {login}"));
    lines.extend(notes.iter().map(|note| format!("  note      {note}")));
    lines.join("\n")
}

fn of_links(links: Option<&Identity>) -> String {
    let Some(links) = links else { return "in the clear, on loopback only".to_owned() };
    let About { subject, issuer, until, .. } = links.about();
    format!("TLS with certificates of both sides: {subject} of {issuer}, until {until}")
}

fn describe(checked: &Checked) -> String {
    let passwords = checked.passwords.as_ref();
    let tokens = checked.tokens.as_ref();
    let callback = checked.callback.as_ref();
    let said = [
        passwords.map(|users| format!("passwords of {} users", users.len())),
        tokens.map(|tokens| {
            let keys: Vec<_> =
                tokens.keys.iter().map(|(kid, key)| format!("{kid} ({key:?})")).collect();
            format!("signed tokens by the keys {}", keys.join(", "))
        }),
        callback.map(|_| "whom the endpoint at auth.callback.url lets in".to_owned()),
    ];
    said.into_iter().flatten().collect::<Vec<_>>().join("; ")
}
