//! The example backend in Python, as a process.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, Stdio},
};

/// A running one; killed when dropped.
pub struct Python {
    child: Child,
    /// Where gateways dial.
    pub addr: String,
}

impl Python {
    /// Starts it on a free port. None where this machine has no Python that can, which is told.
    pub fn start(args: &[&str]) -> Option<Self> {
        let run = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/python/run");
        let setup = Command::new(&run).arg("--setup").output().unwrap();
        if setup.status.code() == Some(3) {
            // Not by a macro of the standard library: the harness would hide it.
            let why = String::from_utf8_lossy(&setup.stderr);
            let why = why.lines().rfind(|l| l.starts_with("error")).unwrap_or_default();
            let told = format!("SKIPPED the example in Python: {why}\n");
            std::io::stderr().write_all(told.as_bytes()).unwrap();
            return None;
        }
        assert!(setup.status.success(), "{}", String::from_utf8_lossy(&setup.stderr));
        let mut command = Command::new(&run);
        command.args(["--listen", "127.0.0.1:0"]).args(args).stdout(Stdio::piped());
        let mut python = Self { child: command.spawn().unwrap(), addr: String::new() };
        let mut lines = BufReader::new(python.child.stdout.take().unwrap()).lines();
        let ready = lines.next().expect("it ended before it was ready").unwrap();
        let addr = ready.strip_prefix("ready grpc=").unwrap_or_else(|| panic!("{ready}"));
        python.addr = addr.to_owned();
        // What it says must go somewhere, or it stops.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        Some(python)
    }

    /// Sends a signal: `STOP`, `CONT`.
    pub fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
