//! Runs the lesson beside the `edgeway` program that was built with it.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, bail};
use clap::Parser;
use edgeway_example_lesson::{Stage, lesson};

/// One lesson of a small class through the whole system, told line by line: dispatch, logins, a room, signals, chat with a
/// word that is filtered, strokes, a quiz, what the school's own systems do by HTTP, and the replay.
///
/// Everything in it is made up, but for the system: a real `edgeway up`, real clients over QUIC and TCP, real curl.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Two seconds between the scenes, to read along
    #[arg(long)]
    slow: bool,
    /// The `edgeway` program; by default the one beside this program
    #[arg(long, value_name = "PATH")]
    edgeway: Option<PathBuf>,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let beside = std::env::current_exe()?.with_file_name("edgeway");
    let edgeway = args.edgeway.unwrap_or(beside);
    if !edgeway.exists() {
        bail!("{} is not there: start examples/lesson/run, which builds it", edgeway.display());
    }
    let dir = tempfile::tempdir().context("no temporary directory")?;
    let pause = if args.slow { Duration::from_secs(2) } else { Duration::ZERO };
    let stage = Stage { edgeway: &edgeway, dir: dir.path(), pause };
    let mut out = std::io::stdout();
    tokio::runtime::Runtime::new()?.block_on(lesson(stage, &mut out))
}
