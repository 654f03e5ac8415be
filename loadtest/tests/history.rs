//! The stores themselves, and chat with and without its history.
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

fn loadtest(line: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_loadtest")).args(line.split(' ')).output().unwrap()
}

/// Runs what must hold; its JSON object.
fn report(line: &str) -> Value {
    let output = loadtest(&format!("{line} --json -"));
    let said = String::from_utf8_lossy(&output.stderr);
    let json = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{line}: {said}{json}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn both_stores_take_what_is_appended_and_give_pages_of_it_meanwhile() {
    let picture = tempfile::NamedTempFile::new().unwrap();
    let report = report(&format!(
        "history --logs 5 --appends 500 --size 80 --secs 1 --fill 600 --reads 60 --max-secs 1 --batch 50 \
         --plot {}",
        picture.path().display()
    ));
    assert_eq!(report["problems"], Value::Array(vec![]));
    let runs = report["runs"].as_array().unwrap();
    assert_eq!([&runs[0]["store"], &runs[1]["store"]], ["embedded", "redis"]);
    let mut entries = 0;
    for run in runs {
        let number = |path: &str| run.pointer(path).and_then(Value::as_f64).unwrap();
        assert!(number("/fill/entries") >= 3000.0);
        // What is asked for comes, however slow the store is.
        assert!((498.0..=502.0).contains(&number("/append/entries")), "{run}");
        assert!(number("/max/entries") >= 50.0);
        assert!(number("/max/entries_per_commit") == 50.0);
        assert_eq!(number("/reads/pages/pages"), 60.0);
        assert_eq!(number("/reads/pages/entries_per_page"), 200.0, "all pages are full");
        for latency in ["append/latency_ms", "append/commit_ms", "reads/pages/middle_ms"] {
            assert!(number(&format!("/{latency}/max")) >= number(&format!("/{latency}/p50")));
        }
        let parts = ["fill", "append", "reads", "max"];
        let sum: f64 = parts.iter().map(|part| number(&format!("/{part}/entries"))).sum();
        assert_eq!(sum, number("/entries"), "every entry is there");
        // Less than the frame itself is no size.
        assert!(number("/size/disk_bytes_per_entry") > 80.0);
        entries += run["entries"].as_u64().unwrap();
    }
    assert!(runs[1].pointer("/size/memory_bytes_per_entry").unwrap().as_f64().unwrap() > 80.0);
    assert_eq!([&report["sent"], &report["delivered"]], [entries, entries]);
    let drawn = std::fs::read_to_string(picture.path()).unwrap();
    assert!(drawn.contains("redis, with reads"));
}

#[test]
fn chat_is_compared_with_its_history_on_and_off_and_only_then_stored() {
    edgeway();
    // On a busy machine the ratio of two short runs may be anything.
    let report = report(
        "history --compare-chat --members 6 --rooms 2 --rate 5 --secs 2 --repeat 2 --most 10000",
    );
    assert_eq!(report["problems"], Value::Array(vec![]));
    let runs = report["runs"].as_array().unwrap();
    let on = |run: &Value| (run["store"].clone(), run["history"].clone());
    let turns: Vec<_> = runs.iter().map(on).collect();
    let turn = |store: &str, history: &str| (Value::from(store), Value::from(history));
    let [first, second] = ["embedded", "redis"].map(|store| {
        [turn(store, "on"), turn(store, "off"), turn(store, "off"), turn(store, "on")]
    });
    assert_eq!(turns, [first, second].concat(), "neither is always the first");
    for run in runs {
        let stored = run["stored"].as_f64().unwrap();
        // Two rooms of six who say ten things each, and ten signals a second in all.
        assert_eq!(stored > 100.0, run["history"] == "on", "{run}");
    }
    for store in ["embedded", "redis"] {
        assert!(report["detail"][store]["ratio"].as_f64().is_some());
    }
}

#[test]
fn more_than_is_allowed_is_told_with_exit_status_1() {
    edgeway();
    let output = loadtest(
        "history --compare-chat --store embedded --members 4 --rate 5 --secs 1 --repeat 1 --most 0.001",
    );
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("times, above 0.001"), "{said}");
}

#[test]
fn wrong_use_is_told_with_exit_status_2() {
    for (line, expected) in [
        ("history --store embedded --redis redis://localhost", "--store does not have redis"),
        ("history --redis localhost", "redis://"),
        ("history --members 5", "--compare-chat"),
        ("history --logs 1 --shards 2", "--shards"),
    ] {
        let output = loadtest(line);
        assert_eq!(output.status.code(), Some(2), "{line}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(expected), "{line}: {said}");
    }
}

#[test]
fn a_redis_that_is_not_there_is_told_with_exit_status_1() {
    // Nobody listens on port 1.
    let output = loadtest("history --store redis --redis redis://127.0.0.1:1");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("the store redis") && said.contains("--redis"), "{said}");
}
