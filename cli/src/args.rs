//! The command line. Each command's own flags are in its file.

use clap::{Parser, Subcommand, builder::NonEmptyStringValueParser};

use crate::{backend, certs, chat, check, config, dispatch, gateway, key, token, up, user};

const EXAMPLES: &str = "\
Examples:
  edgeway up                                     everything on this machine; nothing to set up
  edgeway chat --user ada --room lesson-1        talk to it, from two terminals
  edgeway check edgeway.toml                     is this config right?
  edgeway gateway --config edgeway.toml          the parts as processes of their own
  edgeway backend --config edgeway.toml --roles access,room,peer
  edgeway dispatch --config edgeway.toml         tells clients where to connect
  edgeway certs --help                           certificates, so that they can be on several machines
  edgeway user --help                            users with passwords
  edgeway token --help                           signed tokens
  edgeway key --help                             API keys for business systems

Exit codes: 0 done, 1 it failed or did not hold, 2 wrong use or a bad config.";

/// Real-time rooms at the edge: QUIC first, TCP where it must be.
#[derive(Debug, Parser)]
#[command(name = "edgeway", version, after_help = EXAMPLES, arg_required_else_help = true)]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
    /// What is logged to standard error, over the config's log.level: `debug`, or
    /// `info,edgeway_gateway=trace`.
    #[arg(long, global = true, value_name = "LEVELS", value_parser = levels)]
    pub log: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    Up(up::Args),
    Gateway(gateway::Args),
    Backend(backend::Args),
    Dispatch(dispatch::Args),
    Check(check::Args),
    Certs(certs::Args),
    Chat(chat::Args),
    User(user::Args),
    Token(token::Args),
    Key(key::Args),
}

fn levels(text: &str) -> Result<String, String> {
    config::check_levels(text).map(|()| text.to_owned())
}

/// A name that is not empty.
pub fn not_empty() -> NonEmptyStringValueParser {
    NonEmptyStringValueParser::new()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Command, clap::Error> {
        Args::try_parse_from(line.split(' ')).map(|args| args.command)
    }

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn the_lines_that_the_documentation_gives_are_taken() {
        for line in [
            "edgeway up",
            "edgeway up --config edgeway.toml --quic 127.0.0.1:0",
            "edgeway gateway --config c.toml --name gw-2 --quic 127.0.0.1:1 --tcp 127.0.0.1:2 \
             --plain off --http off",
            "edgeway backend --config c.toml --roles access,room,peer --listen 127.0.0.1:1 \
             --data-dir d --slot 3 --http 127.0.0.1:0",
            "edgeway dispatch --config c.toml --listen off --tls-listen 127.0.0.1:0 --http off",
            "edgeway check edgeway.toml",
            "edgeway certs ca",
            "edgeway certs ca --dir d --days 365 --force",
            "edgeway certs link gw-1 --host 10.0.0.1 --host gw.internal --days 90 --out d --force",
            "edgeway chat --user ada --room r --server localhost:4433 --transport tcp --ca ca.pem",
            "edgeway user hash",
            "edgeway user add ada --file users.txt",
            "edgeway user remove ada --file users.txt",
            "edgeway user list --file users.txt",
            "edgeway token sign --alg EdDSA --key main.key --kid main --user ada --secs 3600 --room maths-*",
            "edgeway token verify --config edgeway.toml TOKEN",
            "edgeway token inspect",
            "edgeway key billing --scope send --scope read --per-second 5000",
            "edgeway --log debug up",
            "edgeway up --log info,edgeway_gateway=trace",
        ] {
            parse(line).unwrap_or_else(|e| panic!("{line}: {e}"));
        }
    }

    #[test]
    fn wrong_use_is_refused() {
        for line in [
            "edgeway gateway",
            "edgeway backend --config c.toml",
            "edgeway backend --config c.toml --roles access,cook",
            "edgeway check",
            "edgeway dispatch",
            "edgeway certs",
            "edgeway certs link",
            "edgeway certs ca --days 0",
            "edgeway chat --user ada",
            "edgeway chat --user ada --room r --transport pigeon",
            "edgeway up --log loud",
            "edgeway user add ada",
            "edgeway key billing",
            "edgeway key billing --scope sing",
            "edgeway key a.b --scope send",
            "edgeway token sign --alg none --key k --kid k --user ada",
        ] {
            let error = parse(line).err().unwrap_or_else(|| panic!("taken: {line}"));
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }
}
