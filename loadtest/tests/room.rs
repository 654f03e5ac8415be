//! Rooms of real clients and a real `edgeway up`.
#![allow(clippy::unwrap_used)] // the helpers of tests

use std::{
    process::{Command, Output},
    sync::Once,
};

use serde_json::Value;

/// The program that is measured is another crate's: built once, beside ours.
fn edgeway() {
    static BUILT: Once = Once::new();
    BUILT.call_once(|| {
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--package", "edgeway-cli"]);
        assert!(build.status().unwrap().success());
    });
}

fn loadtest(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_loadtest")).args(args).output().unwrap()
}

/// Runs a scenario that must hold; its JSON object.
fn report(line: &str) -> Value {
    edgeway();
    let args: Vec<_> = line.split(' ').chain(["--json", "-"]).collect();
    let output = loadtest(&args);
    let said = String::from_utf8_lossy(&output.stderr);
    let json = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{line}: {said}{json}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn nothing_wrong(report: &Value) {
    for fault in ["lost", "duplicated", "reordered"] {
        for class in ["signal", "binary", "chat"] {
            assert_eq!(report["by_class"][class][fault], 0, "{class} {fault}");
        }
    }
    assert_eq!(report["problems"], Value::Array(vec![]));
}

#[test]
fn every_member_gets_everything_over_either_transport() {
    for transport in ["quic", "tcp", "mixed"] {
        let line = format!(
            "room --members 12 --rate 4 --burst --secs 2 --strokes 10 --transport {transport}"
        );
        let report = report(&line);
        nothing_wrong(&report);
        assert_eq!(report["by_class"]["chat"]["delivered"], 12 * 12 * 8, "{transport}");
        assert_eq!(report["by_class"]["signal"]["delivered"], 12 * 20);
        assert_eq!(report["by_class"]["binary"]["delivered"], 12 * 20);
        assert_eq!(report["shed"], 0);
    }
}

#[test]
fn rooms_keep_to_themselves() {
    let report = report("room --members 5 --rooms 3 --rate 4 --secs 2 --transport mixed");
    nothing_wrong(&report);
    assert_eq!(report["connections"], 15);
    assert_eq!(report["by_class"]["chat"]["delivered"], 3 * 5 * 5 * 8);
}

#[test]
fn what_policy_sheds_and_what_is_delivered_add_up() {
    let report = report("room --members 30 --rate 2 --burst --secs 3 --policy-on --warmup");
    nothing_wrong(&report);
    let chat = &report["by_class"]["chat"];
    let number = |key: &str| chat[key].as_u64().unwrap();
    assert!(number("shed_by_policy") > 0);
    assert_eq!(
        number("delivered") + 30 * number("shed_by_policy") + number("shed_by_connection"),
        30 * number("sent")
    );
}

#[test]
fn who_stops_reading_gets_every_signal_and_stroke_later() {
    let report = report(
        "room --members 8 --rate 20 --size 2000 --secs 6 --strokes 40 --stall 2 --stall-secs 4",
    );
    nothing_wrong(&report);
    let stall = &report["runs"][0]["stall"];
    assert!(stall["owed_signals"].as_u64().unwrap() > 0);
    assert!(stall["caught_up_ms"].is_f64());
    for class in ["signal", "binary"] {
        let class = &stall["by_class"][class];
        assert_eq!(class["delivered"], class["expected"]);
    }
    assert!(stall["by_class"]["chat"]["missed"].as_u64().unwrap() > 0);
}

#[test]
fn silent_members_are_held_and_their_memory_is_told() {
    for transport in ["quic", "tcp"] {
        let report =
            report(&format!("idle --connections 40 --rooms 2 --secs 1 --transport {transport}"));
        assert_eq!(report["connections"], 40);
        assert_eq!(report["problems"], Value::Array(vec![]));
        assert!(report["server"]["rss_bytes_per_connection"].as_f64().unwrap() > 1000.0);
    }
}

#[test]
fn the_floor_is_compared_and_the_latencies_are_drawn() {
    let picture = tempfile::NamedTempFile::new().unwrap();
    let line = "room --members 10 --rate 10 --burst --secs 2 --floor --repeat 2 --plot";
    let report = report(&format!("{line} {}", picture.path().display()));
    nothing_wrong(&report);
    assert_eq!(report["runs"].as_array().unwrap().len(), 2);
    assert!(report["detail"]["floor_ratio"].as_f64().is_some());
    assert_eq!(report["by_class"]["chat"]["delivered"], 2 * 10 * 10 * 20);
    assert!(std::fs::read_to_string(picture.path()).unwrap().contains("chat"));
}

#[test]
fn wrong_use_is_told_with_exit_status_2() {
    for (args, expected) in [
        (&["room", "--floor", "--transport", "tcp"][..], "bare QUIC"),
        (&["room", "--stall", "1"], "--secs"),
        (&["room", "--pid", "1"], "--server"),
        (&["room", "--policy-on", "--policy-off"], "--policy-o"),
        (&["room", "--batch", "10"], "--floor"),
        (&["idle", "--floor", "--transport", "tcp"], "bare QUIC"),
    ] {
        let output = loadtest(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(expected), "{args:?}: {said}");
    }
}

#[test]
fn a_server_that_cannot_be_started_is_told_with_exit_status_1() {
    let output = loadtest(&["room", "--members", "2", "--edgeway", "/nowhere/edgeway"]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("/nowhere/edgeway"), "{said}");
}
