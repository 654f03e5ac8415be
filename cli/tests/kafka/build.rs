//! In a build without Kafka: a build that has it, and in that the tests of Kafka. Else all who build the tests
//! would need what librdkafka is built with.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{kafka, tell};

/// What builds librdkafka.
const TOOLS: [&str; 3] = ["make", "bash", "cc"];
/// Of this package and of `edgeway-events`, which has tests of its own.
const FEATURES: &str = "edgeway-cli/kafka,edgeway-events/kafka";
/// What cargo tells the tests of a package. Some build scripts look at it, and would run again for another value.
const OF_PACKAGE: [&str; 3] = ["CARGO_BIN_", "CARGO_MANIFEST_", "CARGO_PKG_"];

#[test]
fn storage_the_tests_of_kafka_pass_in_a_build_that_has_it() {
    let name = "storage: events in Kafka";
    let is_there = |tool: &&str| Command::new(tool).arg("--version").output().is_ok();
    if let Some(tool) = TOOLS.iter().find(|tool| !is_there(tool)) {
        return tell(&format!(
            "SKIPPED {name}: librdkafka is built with `{tool}`, which is not there\n"
        ));
    }
    if kafka(name).is_none() {
        return;
    }
    let (target, profile) = build_dir();
    let _kept = Kept::new(&target.join(&profile).join("edgeway"));
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in env::vars_os() {
        if OF_PACKAGE.iter().any(|of| name.to_string_lossy().starts_with(of)) {
            cargo.env_remove(name);
        }
    }
    // The whole workspace: so nearly all is built already, with the same features of what others wrote.
    cargo.args(["test", "--workspace", "--locked", "--features", FEATURES, "--test", "kafka"]);
    if profile != "debug" {
        cargo.args(["--profile", &profile]);
    }
    cargo.arg("--target-dir").arg(target);
    cargo.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
    assert!(cargo.status().unwrap().success(), "see above");
}

/// The directory that cargo builds into, and the profile: this program is in `DIR/PROFILE/deps`.
fn build_dir() -> (PathBuf, String) {
    let program = env::current_exe().unwrap();
    let dir = program.parent().and_then(Path::parent).unwrap();
    let profile = dir.file_name().unwrap().to_string_lossy().into_owned();
    (dir.parent().unwrap().to_owned(), profile)
}

/// The `edgeway` of this build: the other build puts its own in its place, and the tests that follow are of this one.
struct Kept {
    program: PathBuf,
    copy: PathBuf,
}

impl Kept {
    fn new(program: &Path) -> Self {
        let copy = program.with_extension("without-kafka");
        let _ = fs::remove_file(&copy);
        fs::copy(program, &copy).unwrap();
        Self { program: program.to_owned(), copy }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let Err(error) = fs::rename(&self.copy, &self.program) {
            tell(&format!("{}: {error}\n", self.copy.display()));
        }
    }
}
