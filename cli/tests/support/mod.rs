//! Processes of `edgeway` in a directory of their own, on ports of their own.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, clippy::print_stderr, dead_code)]

pub mod api;
pub mod events;
pub mod node;
pub mod python;
pub mod talk;

use std::{
    io::{BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, ExitStatus, Output, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::Duration,
};

/// Far above what a busy machine needs: what hangs fails here.
const PATIENCE: Duration = Duration::from_secs(60);

/// `edgeway` with its arguments, run in `dir`.
pub fn edgeway(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_edgeway"));
    command.current_dir(dir).args(args).env("NO_COLOR", "1");
    command
}

/// Runs to the end; gives the exit code, standard output and standard error.
pub fn run(dir: &Path, args: &[&str], input: &str) -> (i32, String, String) {
    let mut process = Process::spawn(dir, args);
    process.type_in(input);
    process.finish()
}

/// A process, its output read line by line; killed when dropped.
pub struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    seen: Vec<String>,
    errors: Option<thread::JoinHandle<String>>,
}

impl Process {
    pub fn spawn(dir: &Path, args: &[&str]) -> Self {
        let mut process = Self::spawn_with_log(dir, args);
        let mut stderr = process.child.stderr.take().unwrap();
        process.errors = Some(thread::spawn(move || {
            let mut text = Vec::new();
            let _ = stderr.read_to_end(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        }));
        process
    }

    /// The same, of which nobody reads standard error: whoever did is gone.
    pub fn spawn_unheard(dir: &Path, args: &[&str]) -> Self {
        let mut process = Self::spawn_with_log(dir, args);
        drop(process.child.stderr.take());
        process
    }

    fn spawn_with_log(dir: &Path, args: &[&str]) -> Self {
        let mut child = edgeway(dir, args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (out, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|l| out.send(l)));
        let stdin = child.stdin.take();
        Self { child, stdin, lines, seen: Vec::new(), errors: None }
    }

    /// Writes to its standard input, which stays open.
    pub fn type_in(&mut self, text: &str) {
        // It may have ended already; then its exit code tells.
        let _ = self.stdin.as_mut().unwrap().write_all(text.as_bytes());
    }

    /// Waits for a line of standard output that holds `what`.
    #[track_caller]
    pub fn wait_for(&mut self, what: &str) -> String {
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if line.contains(what) {
                        return line;
                    }
                }
                Err(RecvTimeoutError::Timeout) => panic!("no {what:?} in {:#?}", self.seen),
                Err(RecvTimeoutError::Disconnected) => {
                    let _ = self.child.kill();
                    let errors = self.errors.take().map(|e| e.join().unwrap());
                    panic!(
                        "ended without {what:?}: {:#?} {}",
                        self.seen,
                        errors.unwrap_or_default()
                    );
                }
            }
        }
    }

    /// Sends a signal: `TERM`, `INT`, `KILL`.
    pub fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    /// Closes its input and waits for its end.
    #[track_caller]
    pub fn finish(mut self) -> (i32, String, String) {
        self.stdin = None;
        let status = self.wait();
        while let Ok(line) = self.lines.recv() {
            self.seen.push(line);
        }
        let errors = self.errors.take().map(|e| e.join().unwrap()).unwrap_or_default();
        (status.code().unwrap_or(-1), self.seen.join("\n"), errors)
    }

    #[track_caller]
    fn wait(&mut self) -> ExitStatus {
        let start = std::time::Instant::now();
        while start.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            thread::sleep(Duration::from_millis(5));
        }
        panic!("did not end: {:#?}", self.seen);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // Where a test fails, what its processes had to say.
        if thread::panicking()
            && let Some(Ok(log)) = self.errors.take().map(thread::JoinHandle::join)
        {
            eprintln!("-- {}\n{log}", self.seen.join(" / "));
        }
    }
}

/// `edgeway up` that is ready, on free ports.
pub struct Up {
    pub process: Process,
    pub quic: String,
    pub tcp: String,
    pub http: String,
    pub ca: String,
}

impl Up {
    pub fn start(dir: &Path) -> Self {
        let free = "127.0.0.1:0";
        Self::ready(Process::spawn(dir, &["up", "--quic", free, "--tcp", free, "--http", free]))
    }

    /// Once it is ready.
    pub fn ready(mut process: Process) -> Self {
        let ready = process.wait_for("ready ");
        let value = |name: &str| {
            let rest =
                ready.split_once(&format!(" {name}=")).unwrap_or_else(|| panic!("{ready}")).1;
            rest.split(' ').next().unwrap().to_owned()
        };
        let (quic, tcp, http, ca) = (value("quic"), value("tcp"), value("http"), value("ca"));
        Self { process, quic, tcp, http, ca }
    }

    /// A `chat` of this server in `room`.
    pub fn chat(&self, dir: &Path, user: &str, transport: &str) -> Process {
        Process::spawn(dir, &self.chat_args(user, transport))
    }

    pub fn chat_args<'a>(&'a self, user: &'a str, transport: &'a str) -> [&'a str; 9] {
        let server = if transport == "quic" { &self.quic } else { &self.tcp };
        ["chat", "--user", user, "--room", "lesson", "--server", server, "--transport", transport]
    }
}

/// A request over HTTP/1.0; gives the whole answer.
pub fn get(addr: &str, path: &str) -> String {
    ask(addr, "GET", path)
}

/// The same, with a method and without a body.
pub fn ask(addr: &str, method: &str, path: &str) -> String {
    let mut stream = std::net::TcpStream::connect(addr).unwrap();
    write!(stream, "{method} {path} HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// As many free ports. (They are held until all are known, so that they differ.)
pub fn free_ports<const N: usize>() -> [String; N] {
    let held = [(); N].map(|()| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    held.map(|listener| listener.local_addr().unwrap().to_string())
}

/// A file of a test.
pub fn write(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

/// Only its exit code and output, for a command without input.
pub fn output(dir: &Path, args: &[&str]) -> Output {
    edgeway(dir, args).stdin(Stdio::null()).output().unwrap()
}
