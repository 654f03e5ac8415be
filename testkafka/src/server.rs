//! A server: one node, broker and controller in one.

use std::{
    fmt::Write as _,
    fs,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::find::{Program, run};

/// Starts the server, says which process it is, and ends it when nobody holds the other end of its
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

/// Longer than it takes on a busy machine.
const START: Duration = Duration::from_secs(120);
/// Ports may be taken by others between being found free and being bound.
const ATTEMPTS: usize = 3;
/// Any is good.
const CLUSTER: &str = "MkU3OEVBNTcwNTJENDM2Qg";

/// A Kafka with topics of three partitions, which it makes when they are written to.
pub struct Kafka {
    pub(crate) program: &'static Program,
    port: u16,
    running: Option<Running>,
    dir: TempDir,
}

struct Running {
    watchdog: Child,
    stdin: Option<ChildStdin>,
    pid: u32,
}

impl Kafka {
    /// The program, fetched where it is not there yet.
    ///
    /// # Errors
    /// What is missing, and what to do.
    pub fn find() -> Result<&'static Program, &'static str> {
        Program::find()
    }
}

impl Program {
    /// Starts a server on free ports of loopback, with settings beside its own, and waits until it answers.
    ///
    /// # Panics
    /// Where it does not start.
    #[must_use]
    pub fn start(&'static self, settings: &[(&str, &str)]) -> Kafka {
        let mut told = String::new();
        for _ in 0..ATTEMPTS {
            let dir = tempfile::tempdir().unwrap();
            let [port, controller] = free_ports();
            configure(dir.path(), port, controller, settings);
            let mut kafka = Kafka { program: self, port, running: None, dir };
            let mut format = self.java("kafka.tools.StorageTool");
            format.args(["format", "-t", CLUSTER, "-c"]).arg(kafka.config());
            run(&mut format).unwrap();
            match kafka.run() {
                Ok(()) => return kafka,
                Err(e) => told = e,
            }
        }
        panic!("Kafka does not start: {told}");
    }
}

impl Kafka {
    /// HOST:PORT.
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
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
            panic!("Kafka does not start again: {e}");
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

    fn config(&self) -> std::path::PathBuf {
        self.dir.path().join("server.properties")
    }

    fn run(&mut self) -> Result<(), String> {
        let mut command = Command::new("sh");
        command.args(["-c", WATCHDOG, "watchdog"]).arg(self.dir.path());
        let mut java = self.program.java("kafka.Kafka");
        java.arg(self.config());
        command.arg(java.get_program()).args(java.get_args());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut watchdog = command.spawn().map_err(|e| format!("sh: {e}"))?;
        let mut pid = String::new();
        BufReader::new(watchdog.stdout.take().unwrap()).read_line(&mut pid).unwrap();
        let pid = pid.trim().parse().map_err(|_| "no process".to_owned())?;
        let stdin = watchdog.stdin.take();
        self.running = Some(Running { watchdog, stdin, pid });
        let deadline = Instant::now() + START;
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            let is_gone = !Command::new("kill")
                .args(["-0", &pid.to_string()])
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|status| status.success());
            if is_gone || Instant::now() > deadline {
                self.stop();
                return Err(fs::read_to_string(self.dir.path().join("log")).unwrap_or_default());
            }
            sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

impl Drop for Kafka {
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

fn configure(dir: &Path, port: u16, controller: u16, settings: &[(&str, &str)]) {
    let mut text = format!(
        "process.roles=broker,controller\n\
         node.id=1\n\
         listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
         advertised.listeners=PLAINTEXT://127.0.0.1:{port}\n\
         controller.listener.names=CONTROLLER\n\
         controller.quorum.voters=1@127.0.0.1:{controller}\n\
         inter.broker.listener.name=PLAINTEXT\n\
         log.dirs={}\n\
         num.partitions=3\n\
         offsets.topic.num.partitions=1\n\
         offsets.topic.replication.factor=1\n\
         transaction.state.log.replication.factor=1\n\
         transaction.state.log.min.isr=1\n\
         group.initial.rebalance.delay.ms=0\n",
        dir.join("data").display()
    );
    for (name, value) in settings {
        let _ = writeln!(text, "{name}={value}");
    }
    fs::write(dir.join("server.properties"), text).unwrap();
}

/// Two that are free: held until both are known, so that they differ.
fn free_ports() -> [u16; 2] {
    let held = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    held.map(|listener| listener.local_addr().unwrap().port())
}
