//! A process that has said where it listens.

use std::path::Path;

use super::{Process, get};

pub struct Node {
    pub process: Process,
    ready: String,
}

impl Node {
    /// Starts one and waits until it is ready.
    pub fn start(dir: &Path, args: &[&str]) -> Self {
        let mut process = Process::spawn(dir, args);
        let ready = process.wait_for("ready ");
        Self { process, ready }
    }

    /// An address of its line `ready`.
    pub fn at(&self, name: &str) -> String {
        let rest =
            self.ready.split_once(&format!("{name}=")).unwrap_or_else(|| panic!("{}", self.ready));
        rest.1.split(' ').next().unwrap().to_owned()
    }

    /// The sum of a metric over those of its labels that hold `label`.
    pub fn metric(&self, name: &str, label: &str) -> f64 {
        let all = get(&self.at("http"), "/metrics");
        let of = |line: &&str| {
            let rest = line.strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with(['{', ' ']) && rest.contains(label))
        };
        let values = all.lines().filter(of);
        values.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    }

    /// Ends it in order; what it has logged.
    pub fn end(self) -> String {
        self.process.signal("TERM");
        let (code, _, log) = self.process.finish();
        assert_eq!(code, 0, "{log}");
        log
    }
}
