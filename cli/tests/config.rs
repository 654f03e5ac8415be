//! The exit codes and messages of configs and of wrong use.

#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;

use support::{output, write};

#[track_caller]
fn check(dir: &Path, args: &[&str], code: i32, told: &[&str]) {
    let output = output(dir, args);
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
    for what in told {
        assert!(said.contains(what), "{args:?}: no {what:?} in {said}");
    }
}

#[test]
fn check_tells_every_error_with_file_and_line_and_gives_1() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "bad.toml", "[gateway.listen]\nqiuc = \"x\"\n[log]\nlevel = \"loud\"\n");
    check(
        dir.path(),
        &["check", "bad.toml"],
        1,
        &[
            "bad.toml:2: gateway.listen.qiuc: unknown key; did you mean `quic`?",
            "bad.toml:4: log.level: ",
            "2 errors",
        ],
    );
}

#[test]
fn check_of_a_good_file_says_what_would_listen_where_and_gives_0() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "good.toml", "[gateway.listen]\nquic = \"127.0.0.1:5000\"\n");
    check(
        dir.path(),
        &["check", "good.toml"],
        0,
        &[
            "good.toml: ok",
            "QUIC 127.0.0.1:5000, TCP/TLS 127.0.0.1:4433",
            "127.0.0.1:8080",
            "for development",
        ],
    );
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../edgeway.example.toml");
    check(dir.path(), &["check", example], 0, &["ok"]);
}

#[test]
fn a_bad_config_starts_nothing_and_gives_2() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "bad.toml", "[rooms]\nmax_members = \"many\"\n");
    for args in [
        &["up", "--config", "bad.toml"][..],
        &["gateway", "--config", "bad.toml"],
        &["backend", "--config", "bad.toml", "--roles", "access,room,peer"],
    ] {
        check(dir.path(), args, 2, &["bad.toml:2: rooms.max_members: ", "nothing was started"]);
    }
    check(dir.path(), &["up", "--config", "none.toml"], 2, &["none.toml", "edgeway.example.toml"]);
    check(dir.path(), &["check", "none.toml"], 2, &["none.toml"]);
    assert!(!dir.path().join("edgeway-data").exists());
}

#[test]
fn listening_for_other_machines_with_the_development_login_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let told = ["--quic: ", "lets anyone in", "auth.mode = \"passwords\""];
    check(dir.path(), &["up", "--quic", "0.0.0.0:4433"], 2, &told);
}

#[test]
fn wrong_use_gives_2() {
    let dir = tempfile::tempdir().unwrap();
    for args in [&["dance"][..], &["up", "--no-such-flag"], &["chat"], &["gateway"], &[]] {
        check(dir.path(), args, 2, &["Usage"]);
    }
    check(dir.path(), &["--help"], 0, &["Examples:", "Exit codes:"]);
}
