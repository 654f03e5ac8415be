//! Child processes that are measured: started, waited for until they are ready, and ended by
//! their own id whatever happens.

use std::{fs::File, path::Path, process::Stdio, time::Duration};

use anyhow::{Context, Result, bail};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child as Process, ChildStdin, ChildStdout, Command},
    time::timeout,
};

/// A server that is not ready by then will not be.
pub const READY: Duration = Duration::from_secs(30);

/// A running child process; killed when dropped.
pub struct Child {
    process: Process,
    pid: u32,
    name: String,
    stdin: Option<ChildStdin>,
    lines: Option<Lines<BufReader<ChildStdout>>>,
}

impl Child {
    /// Starts `command`, its standard error going to `log`.
    pub fn start(name: &str, mut command: Command, log: &Path) -> Result<Self> {
        let file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(file).kill_on_drop(true);
        let mut process = command.spawn().with_context(|| {
            format!("cannot start {}", command.as_std().get_program().to_string_lossy())
        })?;
        let pid = process.id().context("the process has no id")?;
        let stdin = process.stdin.take();
        let lines = process.stdout.take().map(|out| BufReader::new(out).lines());
        Ok(Self { process, pid, name: name.to_owned(), stdin, lines })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Waits for a line on its standard output that starts with `start`, and gives the rest of
    /// it.
    pub async fn line(&mut self, start: &str) -> Result<String> {
        let Some(lines) = &mut self.lines else { bail!("{} has no output", self.name) };
        let wait = async {
            while let Some(line) = lines.next_line().await? {
                if let Some(rest) = line.strip_prefix(start) {
                    return Ok(Some(rest.trim().to_owned()));
                }
            }
            anyhow::Ok(None)
        };
        match timeout(READY, wait).await {
            Ok(Ok(Some(rest))) => Ok(rest),
            Ok(Ok(None)) => bail!("{} ended before it said {start:?}", self.name),
            Ok(Err(e)) => Err(e).context(format!("cannot read what {} says", self.name)),
            Err(_) => bail!("{} did not say {start:?} within {READY:?}", self.name),
        }
    }

    /// Goes on reading its output, so that a full pipe never stops it.
    pub fn drain(&mut self) {
        if let Some(mut lines) = self.lines.take() {
            tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        }
    }

    /// Closes its standard input: our own servers then say what they counted, and end.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Whether it is still running.
    pub fn check(&mut self) -> Result<()> {
        match self.process.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} ended early: {status}", self.name),
        }
    }

    /// Ends it and waits until it is gone.
    pub async fn stop(mut self) -> Result<()> {
        self.process.kill().await.with_context(|| format!("cannot end {}", self.name))
    }
}

/// Adds the last lines of a log to an error.
pub fn with_log<T>(result: Result<T>, log: &Path) -> Result<T> {
    result.map_err(|error| {
        let text = std::fs::read_to_string(log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        match lines.get(lines.len().saturating_sub(10)..) {
            Some(tail) if !tail.is_empty() => {
                error.context(format!("its last words were:\n{}", tail.join("\n")))
            }
            _ => error,
        }
    })
}
