//! Guests who come and go at a real `edgeway up`, and one who joins many rooms.
#![allow(clippy::unwrap_used)] // the helpers of tests

use std::process::Command;

use serde_json::Value;

/// Runs a scenario that must hold; its JSON object.
fn report(line: &str) -> Value {
    // The program that is measured is another crate's: built beside ours.
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--package", "edgeway-cli"]);
    assert!(build.status().unwrap().success());
    let args: Vec<_> = line.split(' ').chain(["--json", "-"]).collect();
    let output = Command::new(env!("CARGO_BIN_EXE_loadtest")).args(&args).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let json = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{line}: {said}{json}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn everybody_who_comes_is_let_in_and_out() {
    let report =
        report("joins --members 3,30 --rooms 2 --guests 50 --rate 100 --secs 2 --ratio 1000");
    let runs = report["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 2);
    for (run, members) in runs.iter().zip([3, 30]) {
        assert_eq!((&run["members"], &run["joins"]), (&members.into(), &200.into()));
        assert_eq!(run["errors"], 0);
        assert!(run["latency_ms"]["p99"].as_f64().unwrap() > 0.0);
    }
    assert!(report["detail"].as_object().unwrap().contains_key("cpu_ratio"));
}

#[test]
fn one_user_joins_many_rooms_in_one_call_and_each_tells_it_once() {
    let report = report("joins --many 40 --members 3 --repeat 2 --within-ms 60000");
    for run in report["runs"].as_array().unwrap() {
        assert_eq!((&run["presences"], &run["presences_of_a_room"]), (&40.into(), &1.into()));
    }
    assert!(report["detail"]["new_rooms_ms"].as_f64().unwrap() > 0.0);
}

#[test]
fn what_cannot_be_is_refused() {
    let loadtest = env!("CARGO_BIN_EXE_loadtest");
    for line in
        ["joins --many 300 --door access", "joins --redis redis://localhost", "joins --rate 0"]
    {
        let output = Command::new(loadtest).args(line.split(' ')).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{line}");
    }
}
