//! `edgeway key`: API keys for business systems.

use anyhow::Context;
use edgeway_push::{Scope, make_key};

use crate::{failure::Outcome, output::say};

/// Make an API key for a business system: the key itself, which is shown once, and what the config needs of it.
///
/// The config has only a hash. A running server takes a changed config within a second.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  edgeway key billing --scope send
  edgeway key school --scope send --scope moderate --scope read --per-second 5000 >> edgeway.toml

Lines for the config go to standard output, with the key in a comment: take that out and keep it.")]
pub struct Args {
    /// Name of the key in [push.keys], for logs and metrics.
    #[arg(value_name = "NAME", value_parser = name)]
    name: String,
    /// What it may do: send, moderate, read; may be given several times.
    #[arg(long = "scope", value_name = "SCOPE", required = true, value_parser = scope)]
    scopes: Vec<Scope>,
    /// Messages in a second. [default: 1000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    per_second: Option<u32>,
}

fn scope(name: &str) -> Result<Scope, String> {
    let all = Scope::ALL.map(Scope::name).join(", ");
    Scope::parse(name).ok_or_else(|| format!("there are {all}"))
}

/// What needs no quotes as a key of TOML.
fn name(name: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !name.is_empty() && name.chars().all(fits) {
        return Ok(name.to_owned());
    }
    Err("letters, digits, - and _ of ASCII".to_owned())
}

/// Runs the command.
///
/// # Errors
/// Where the system has no random numbers.
pub fn run(args: Args) -> Outcome {
    let made = make_key().context("the system gives no random numbers")?;
    let scopes: Vec<_> = args.scopes.iter().map(|scope| format!("\"{}\"", scope.name())).collect();
    let mut lines = vec![
        format!("# The key, for the caller alone: {}", made.key),
        format!("[push.keys.{}]", args.name),
        format!("hash = \"{}\"", made.hash),
        format!("scopes = [{}]", scopes.join(", ")),
    ];
    lines.extend(args.per_second.map(|n| format!("per_second = {n}")));
    say(&lines.join("\n"));
    Ok(())
}
