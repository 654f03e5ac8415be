//! Pushes from business systems under load, a small one.
#![allow(clippy::unwrap_used)] // the helpers of tests

use std::process::{Command, Output};

use serde_json::Value;

fn run(line: &str) -> Output {
    // The program that is measured is another crate's: built beside ours.
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--package", "edgeway-cli"]);
    assert!(build.status().unwrap().success());
    let args: Vec<_> = line.split(' ').chain(["--json", "-"]).collect();
    Command::new(env!("CARGO_BIN_EXE_loadtest")).args(&args).output().unwrap()
}

#[test]
fn each_request_has_one_effect_and_what_does_not_hold_is_said() {
    let line = "push --rate 40 --secs 2 --rooms 10 --clients 6 --connections 4 --repeat-every 8";
    let output = run(&format!("{line} --p99-ms 10000"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    for (what, is) in [
        ("requests", 80),
        ("failed", 0),
        ("repeats", 10),
        ("repeats_known", 10),
        ("delivered", 160),
        ("lost", 0),
        ("duplicated", 0),
    ] {
        assert_eq!(report[what], is, "{what}: {said}");
    }
    let late = run("push --rate 10 --secs 1 --rooms 2 --clients 2 --connections 1 --p99-ms 0.001");
    assert_eq!(late.status.code(), Some(1), "{}", String::from_utf8_lossy(&late.stderr));
}
