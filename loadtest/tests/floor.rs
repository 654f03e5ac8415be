//! The program as people and scripts use it.
#![allow(clippy::unwrap_used)] // the helpers of tests

use std::process::{Command, Output};

fn loadtest(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_loadtest")).args(args).output().unwrap()
}

/// Runs a scenario that must hold; its JSON object.
fn report(args: &[&str]) -> serde_json::Value {
    let output = loadtest(&[args, &["--json", "-"]].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {said}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_burst_reaches_every_member_once_and_in_one_order() {
    for batching in [&["--batch-ms", "20"][..], &["--batch", "20"], &["--batch", "7"]] {
        let load = ["floor", "--members", "20", "--rate", "5", "--burst", "--secs", "2"];
        let report = report(&[&load, batching].concat());
        assert_eq!(report["sent"], 200, "{batching:?}");
        assert_eq!(report["delivered"], 4000);
        for fault in ["lost", "duplicated", "reordered", "shed"] {
            assert_eq!(report[fault], 0, "{fault}");
        }
        assert_eq!(report["by_class"]["chat"]["delivered"], 4000);
        assert!(report["server"]["rss_bytes"].as_u64().unwrap() > 1_000_000);
    }
}

#[test]
fn idle_connections_are_held_and_their_memory_is_told() {
    let report = report(&["floor", "--idle", "--connections", "50", "--secs", "1"]);
    assert_eq!(report["connections"], 50);
    assert!(report["server"]["rss_bytes_per_connection"].as_f64().unwrap() > 1000.0);
}

#[test]
fn wrong_use_is_told_with_exit_status_2() {
    for (args, expected) in [
        (&["floor", "--members", "0"][..], "--members"),
        (&["floor", "--size", "8"], "16 (the stamp"),
        (&["floor", "--frame-bytes", "100"], "--frame-bytes must be"),
        (&["floor", "--connections", "5"], "--idle"),
        (&["nonsense"], "nonsense"),
    ] {
        let output = loadtest(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(expected), "{args:?}: {said}");
    }
}

#[test]
fn a_server_that_is_not_there_is_told_with_exit_status_1() {
    let output = loadtest(&["nats", "--nats-server", "/nowhere/nats-server", "--secs", "1"]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("--nats-server"), "{said}");
}
