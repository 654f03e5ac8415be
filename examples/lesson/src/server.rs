//! `edgeway up` as a child, with a config that its own commands help to write.

use std::{
    fs,
    process::{Output, Stdio},
};

use anyhow::{Context, Result, bail, ensure};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, Command},
};

use crate::Stage;

const USERS: [(&str, &str); 4] =
    [("ada", "chalk"), ("bob", "ball"), ("cid", "cake"), ("dora", "sand")];

pub struct Server {
    child: Child,
    pub quic: String,
    pub tcp: String,
    pub http: String,
    /// Certificates that clients trust, in PEM.
    pub ca: Vec<u8>,
    /// The school's API key.
    pub key: String,
}

impl Server {
    pub async fn start(stage: Stage<'_>) -> Result<Self> {
        let (config, key) = config(stage).await?;
        fs::write(stage.dir.join("words.txt"), "darn\n")?;
        fs::write(stage.dir.join("edgeway.toml"), config)?;
        let any = "127.0.0.1:0";
        let mut child = Command::new(stage.edgeway)
            .args(["up", "--config", "edgeway.toml", "--quic", any, "--tcp", any, "--http", any])
            .current_dir(stage.dir)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", stage.edgeway.display()))?;
        let mut lines = BufReader::new(child.stdout.take().context("no output")?).lines();
        let ready = loop {
            match lines.next_line().await? {
                Some(line) if line.starts_with("ready ") => break line,
                Some(_) => {}
                None => bail!("edgeway has ended before it was ready"),
            }
        };
        // Nothing may wait for its output to be read.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let at = |name: &str| {
            let mut parts = ready.split(' ');
            let found = parts.find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
            found.map(str::to_owned).with_context(|| format!("no {name} in: {ready}"))
        };
        let ca = fs::read(stage.dir.join("edgeway-data/certs/ca.pem"))?;
        Ok(Self { quic: at("quic")?, tcp: at("tcp")?, http: at("http")?, ca, key, child })
    }

    /// Asks it to end, and waits.
    pub async fn stop(&mut self) -> Result<()> {
        let id = self.child.id().context("edgeway has ended already")?;
        Command::new("kill").arg(id.to_string()).status().await.context("cannot run kill")?;
        let status = self.child.wait().await?;
        ensure!(status.success(), "edgeway ended with {status}");
        Ok(())
    }
}

/// Users with passwords, a list of words, and a key for the school's systems; and that key.
async fn config(stage: Stage<'_>) -> Result<(String, String)> {
    let mut config = "[auth]\nmode = \"passwords\"\n\n[auth.users]\n".to_owned();
    for (user, password) in USERS {
        let hash = ask(stage, &["user", "hash"], password).await?;
        config += &format!("{user} = \"{}\"\n", hash.trim());
    }
    config += "\n[filter]\nwords_file = \"words.txt\"\n\n";
    let scopes = ["send", "moderate", "read"].map(|scope| ["--scope", scope]).concat();
    let made = ask(stage, &[&["key", "school"], &scopes[..]].concat(), "").await?;
    let key = made.lines().find_map(|line| line.strip_prefix('#')?.rsplit(' ').next());
    let key = key.context("no key")?.to_owned();
    Ok((config + &made, key))
}

/// What a command of `edgeway` says, given a line.
async fn ask(stage: Stage<'_>, args: &[&str], line: &str) -> Result<String> {
    let mut child = Command::new(stage.edgeway)
        .args(args)
        .current_dir(stage.dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", stage.edgeway.display()))?;
    let mut stdin = child.stdin.take().context("no input")?;
    // It may want none.
    let _ = stdin.write_all(format!("{line}\n").as_bytes()).await;
    drop(stdin);
    let Output { status, stdout, .. } = child.wait_with_output().await?;
    ensure!(status.success(), "edgeway {}: {status}", args.join(" "));
    Ok(String::from_utf8(stdout)?)
}
