//! Dispatch under load, a small one.
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
fn answers_are_made_and_clients_are_spread_by_each_policy() {
    // So many answers that 5% of a share is more than chance does.
    for policy in ["weighted", "least_load", "sticky"] {
        let line = format!(
            "dispatch --rate 50 --secs 2 --connections 4 --answers 200000 --policy {policy}"
        );
        let report = report(&line);
        assert_eq!(
            (&report["http"]["requests"], &report["http"]["failed"]),
            (&100.into(), &0.into())
        );
        assert_eq!(report["without_http"]["spread"]["counts"].as_object().unwrap().len(), 10);
        assert!(report["without_http"]["us_per_answer"].as_f64().unwrap() > 0.0);
    }
    let fresh = report("dispatch --rate 20 --secs 1 --connections 2 --answers 1000 --fresh");
    assert_eq!(fresh["http"]["requests"], 20);
}
