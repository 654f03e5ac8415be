//! `edgeway chat`: a client for a terminal, and for scripts.
//!
//! `connect` turns flags into a client, `terminal` is the keyboard and the screen, `command` what a
//! typed line means, `paint` how things look, `history` the lines from before one came, and `talk`
//! what goes on between them.

mod command;
mod connect;
mod history;
mod paint;
mod talk;
mod terminal;

use std::path::PathBuf;

use anyhow::Context;
use clap::ValueEnum;
use edgeway_client::TransportChoice;

use crate::{args::not_empty, failure::Outcome, logging, shutdown};
use paint::Painter;
use talk::Talk;
use terminal::Terminal;

/// Talk in a room.
///
/// Lines of chat from a terminal, or from a pipe: then it sends every line, waits for the answers,
/// and leaves. Messages go to standard output, everything else to standard error where the output
/// is not a terminal.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  edgeway chat --user ada --room lesson-1
  edgeway chat --user bob --room lesson-1 --transport tcp
  echo 'the quiz starts' | edgeway chat --user ada --room lesson-1
  edgeway chat --user ada --room lesson-1 < /dev/null           (reads what was said)
  ADA_PASSWORD=... edgeway chat --user ada --room lesson-1 --server edge.example.com:4433 \\
                                --password-env ADA_PASSWORD

In the room: /help tells what else there is (signals, room state, direct messages).")]
pub struct Args {
    /// Who you are.
    #[arg(long, value_name = "NAME", value_parser = not_empty())]
    user: String,
    /// Where to talk. The first to come makes the room.
    #[arg(long, value_name = "NAME", value_parser = not_empty())]
    room: String,
    /// The server.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:4433")]
    server: String,
    /// What carries it; auto is QUIC, and TCP where QUIC does not answer soon.
    #[arg(long, value_enum, default_value = "auto")]
    transport: Transport,
    /// The authority whose certificates are trusted, PEM. [default: for a server on this machine what
    /// `edgeway up` made in ./edgeway-data, otherwise those of the public web]
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Names this installation: your other devices have other names. [default: random]
    #[arg(long, value_name = "NAME", value_parser = not_empty())]
    device: Option<String>,
    /// Environment variable that holds your password. [default: no password]
    #[arg(long, value_name = "VARIABLE")]
    password_env: Option<String>,
    /// Environment variable that holds your signed token (`edgeway token`).
    #[arg(long, value_name = "VARIABLE", conflicts_with = "password_env")]
    token_env: Option<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Transport {
    Auto,
    Quic,
    Tcp,
}

impl From<Transport> for TransportChoice {
    fn from(transport: Transport) -> Self {
        match transport {
            Transport::Auto => Self::Auto,
            Transport::Quic => Self::Quic,
            Transport::Tcp => Self::Tcp,
        }
    }
}

/// The client keeps its user informed itself; logs would break the prompt.
const LOG: &str = "off";

/// Runs the command.
///
/// # Errors
/// Where there is no connection, or it ended against the user's will.
pub fn run(args: Args, log: Option<&str>) -> Outcome {
    logging::start(log.unwrap_or(LOG));
    // One connection: one thread is plenty.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    Ok(runtime.block_on(chat(args))?)
}

async fn chat(args: Args) -> anyhow::Result<()> {
    let shutdown = shutdown::on_signals()?;
    let (client, events) = connect::connect(&args).await?;
    let terminal = Terminal::open(&format!("{}> ", args.user))?;
    let painter = Painter::new(terminal.has_color(), jiff::tz::TimeZone::system());
    let mut talk = Talk::join(client, &args.room, terminal, painter).await?;
    talk.run(events, shutdown).await
}
