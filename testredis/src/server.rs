//! One server.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::find::binary;

/// Starts a server, says which process it is, and ends it when nobody holds the other end of its
/// standard input any more: also when the process of the test was killed. Asked to, it leaves the
/// directory.
const WATCHDOG: &str = r#"
dir=$1; shift
"$@" >>"$dir/log" 2>&1 </dev/null &
pid=$!
echo $pid
read -r word
kill -9 $pid 2>/dev/null
wait $pid 2>/dev/null
[ "$word" = keep ] || rm -rf "$dir"
"#;

/// Longer than any server takes to start.
const START: Duration = Duration::from_secs(20);
/// Ports may be taken by others between being found free and being bound.
const ATTEMPTS: usize = 5;
/// A node of a Cluster listens for the other nodes at this distance.
const BUS: u16 = 10_000;

/// How a server is started.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Who connects must give it.
    pub password: Option<String>,
    /// Whether what was answered survives [`Server::stop`].
    pub durable: bool,
    /// More arguments, such as `--maxmemory` and `1mb`.
    pub args: Vec<String>,
}

/// A running server.
pub struct Server {
    port: u16,
    options: Options,
    running: Option<Running>,
    dir: TempDir,
}

struct Running {
    watchdog: Child,
    stdin: Option<ChildStdin>,
    pid: u32,
}

impl Server {
    /// Starts a server on a free port of loopback and waits until it answers.
    ///
    /// # Panics
    /// Where there is no server to start, or it does not start.
    #[must_use]
    pub fn start(options: &Options) -> Self {
        Self::start_with(options, |_| Vec::new())
    }

    /// The same, with arguments that depend on the port.
    pub(crate) fn start_with(options: &Options, args: impl Fn(u16) -> Vec<String>) -> Self {
        let mut told = String::new();
        for _ in 0..ATTEMPTS {
            let (port, dir) = (free_port(), tempfile::tempdir().unwrap());
            let mut options = options.clone();
            options.args.extend(args(port));
            let mut server = Self { port, options, running: None, dir };
            match server.run() {
                Ok(()) => return server,
                Err(e) => told = e,
            }
        }
        panic!("{} does not start: {told}", binary().display());
    }

    /// Its port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where it is, with its password.
    #[must_use]
    pub fn url(&self) -> String {
        url("redis", self.options.password.as_deref(), self.port)
    }

    /// Kills it, as a crash would; [`Self::resume`] starts it again.
    pub fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.end("keep\n");
        }
    }

    /// Starts it again, where it was and with what it kept.
    ///
    /// # Panics
    /// Where it does not start.
    pub fn resume(&mut self) {
        if let Err(e) = self.run() {
            panic!("{} does not start again: {e}", binary().display());
        }
    }

    /// Halts it: it takes connections and answers nothing. [`Self::go_on`] ends that.
    pub fn halt(&self) {
        self.signal("-STOP");
    }

    /// Goes on after [`Self::halt`].
    pub fn go_on(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let pid = self.running.as_ref().unwrap().pid.to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    fn run(&mut self) -> Result<(), String> {
        let durable = if self.options.durable { "yes" } else { "no" };
        let port = self.port.to_string();
        let mut command = Command::new("sh");
        command.args(["-c", WATCHDOG, "watchdog"]).arg(self.dir.path()).arg(binary());
        command.args(["--port", &port, "--bind", "127.0.0.1", "--dir"]).arg(self.dir.path());
        command.args(["--save", "", "--appendonly", durable, "--appendfsync", "always"]);
        if let Some(password) = &self.options.password {
            command.args(["--requirepass", password]);
        }
        command.args(&self.options.args).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut watchdog = command.spawn().map_err(|e| format!("sh: {e}"))?;
        let mut pid = String::new();
        BufReader::new(watchdog.stdout.take().unwrap()).read_line(&mut pid).unwrap();
        let pid = pid.trim().parse().map_err(|_| "no process".to_owned())?;
        let stdin = watchdog.stdin.take();
        self.running = Some(Running { watchdog, stdin, pid });
        let deadline = Instant::now() + START;
        while !self.answers() {
            let log = log(self.dir.path());
            let ended = ["Failed listening", "FATAL", "aborting"].iter().any(|w| log.contains(w));
            if ended || Instant::now() > deadline {
                self.stop();
                return Err(log);
            }
            sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Whether it is there and has read what it kept.
    fn answers(&self) -> bool {
        let ask = || -> std::io::Result<Vec<u8>> {
            let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
            stream.set_read_timeout(Some(Duration::from_secs(1)))?;
            stream.write_all(b"PING\r\n")?;
            let mut answer = vec![0; 7];
            stream.read_exact(&mut answer)?;
            Ok(answer)
        };
        ask().is_ok_and(|answer| answer.starts_with(b"+PONG") || answer.starts_with(b"-NOAUTH"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.end("");
        }
    }
}

impl Running {
    fn end(mut self, word: &str) {
        if let Some(mut stdin) = self.stdin.take() {
            // A watchdog that is gone has ended its server.
            let _ = stdin.write_all(word.as_bytes());
        }
        let _ = self.watchdog.wait();
    }
}

pub(crate) fn url(scheme: &str, password: Option<&str>, port: u16) -> String {
    let login = password.map_or(String::new(), |password| format!(":{password}@"));
    format!("{scheme}://{login}127.0.0.1:{port}")
}

/// A port that is free, as is the one that a node of a Cluster has beside it.
pub(crate) fn free_port() -> u16 {
    loop {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let bus = port.checked_add(BUS);
        if bus.is_some_and(|bus| TcpListener::bind(("127.0.0.1", bus)).is_ok()) {
            return port;
        }
    }
}

fn log(dir: &Path) -> String {
    std::fs::read_to_string(dir.join("log")).unwrap_or_default()
}
