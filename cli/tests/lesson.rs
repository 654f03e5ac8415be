//! The example `examples/lesson`, against the program of this build: it checks what it tells, and ends.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::{path::Path, time::Duration};

use edgeway_example_lesson::{Stage, lesson};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lesson_runs_from_dispatch_to_replay_and_tells_what_happens() {
    let dir = tempfile::tempdir().unwrap();
    let edgeway = Path::new(env!("CARGO_BIN_EXE_edgeway"));
    let stage = Stage { edgeway, dir: dir.path(), pause: Duration::ZERO };
    let mut told = Vec::new();
    let played = tokio::time::timeout(Duration::from_secs(240), lesson(stage, &mut told)).await;
    let told = String::from_utf8(told).unwrap();
    played
        .unwrap_or_else(|_| panic!("it hangs after: {told}"))
        .unwrap_or_else(|e| panic!("{e:#}, after: {told}"));
    for part in [
        "dispatch", "refused", "page 12", "****", "strokes", "quiz", "curl", "muted", "replayed",
        "history",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
}
