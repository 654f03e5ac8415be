//! `edgeway user`: users with passwords.

use std::{
    fs,
    io::{BufRead, Write, stdin},
    path::{Path, PathBuf},
};

use anyhow::{Context, anyhow, bail};
use clap::Subcommand;
use edgeway_backend::auth::{PasswordHash, parse_users, user_line};

use crate::{args::not_empty, failure::Outcome, output::say};

/// Keep users with passwords: hashes for the config, or a users file.
///
/// Passwords are read from standard input, one line, so that they are in no history of a shell. A running server takes a
/// changed file (auth.users_file) within a second.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  edgeway user hash                               reads a password, prints its hash for [auth.users]
  edgeway user add ada --file users.txt           reads a password; a user who is there gets another one
  edgeway user remove ada --file users.txt
  edgeway user list --file users.txt")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print the argon2id hash of a password.
    Hash,
    /// Add a user to a users file, or give one another password.
    Add(One),
    /// Take a user out of a users file.
    Remove(One),
    /// Print the names in a users file.
    List {
        /// The users file.
        #[arg(long, value_name = "FILE")]
        file: PathBuf,
    },
}

#[derive(Debug, clap::Args)]
struct One {
    /// The user's name.
    #[arg(value_name = "USER", value_parser = not_empty())]
    user: String,
    /// The users file.
    #[arg(long, value_name = "FILE")]
    file: PathBuf,
}

pub fn run(args: Args) -> Outcome {
    match args.command {
        Command::Hash => say(&hash()?.to_string()),
        Command::Add(One { user, file }) => {
            let text = if file.exists() { read(&file)? } else { String::new() };
            // Before a password is asked for.
            user_line(&user, &PasswordHash::new(b"").context("cannot hash")?)
                .map_err(|problem| anyhow!(problem))?;
            let line = user_line(&user, &hash()?).map_err(|problem| anyhow!(problem))?;
            let (mut text, was_there) = without(&text, &user);
            text.push_str(&line);
            text.push('\n');
            replace(&file, &text)?;
            let done = if was_there { "has another password" } else { "added" };
            say(&format!("{user}: {done}"));
        }
        Command::Remove(One { user, file }) => {
            let (text, was_there) = without(&read(&file)?, &user);
            if !was_there {
                return Err(anyhow!("there is no `{user}` in {}", file.display()).into());
            }
            replace(&file, &text)?;
            say(&format!("{user}: removed"));
        }
        Command::List { file } => {
            let users =
                parse_users(&read(&file)?).map_err(|e| anyhow!("{}: {e}", file.display()))?;
            let names: Vec<_> = users.into_keys().collect();
            if !names.is_empty() {
                say(&names.join("\n"));
            }
        }
    }
    Ok(())
}

/// Of the password on standard input.
fn hash() -> anyhow::Result<PasswordHash> {
    let mut line = String::new();
    stdin().lock().read_line(&mut line).context("cannot read a password from standard input")?;
    let password = line.trim_end_matches(['\n', '\r']);
    if password.is_empty() {
        bail!("no password on standard input; write one line, such as: edgeway user hash < FILE");
    }
    PasswordHash::new(password.as_bytes()).context("cannot hash the password")
}

/// What is in a users file that is right: one that is not is left alone.
fn read(file: &Path) -> anyhow::Result<String> {
    let text =
        fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    parse_users(&text).map_err(|e| anyhow!("{}: {e}", file.display()))?;
    Ok(text)
}

/// Without a user's line, and whether there was one. All else stays, comments too.
fn without(text: &str, user: &str) -> (String, bool) {
    let is_of = |line: &&str| line.trim().split_once(':').is_some_and(|(name, _)| name == user);
    let kept = text.lines().filter(|line| !is_of(line)).map(|line| format!("{line}\n"));
    (kept.collect(), text.lines().any(|line| is_of(&line)))
}

/// Puts a file in the place of another at once: a server that reads it sees the old one or the new.
fn replace(file: &Path, text: &str) -> anyhow::Result<()> {
    let mut name = file.file_name().context("the users file has no name")?.to_owned();
    name.push(".new");
    let new = file.with_file_name(name);
    let write = || {
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).truncate(true);
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut out = options.open(&new)?;
        if let Ok(old) = fs::metadata(file) {
            // Whoever may read the old one may read the new one.
            out.set_permissions(old.permissions())?;
        }
        out.write_all(text.as_bytes())?;
        out.sync_all()?;
        fs::rename(&new, file)
    };
    write().with_context(|| format!("cannot write {}", file.display()))
}
