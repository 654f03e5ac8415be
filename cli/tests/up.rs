//! What `edgeway up` and `edgeway chat` promise, as processes on real sockets.

#![allow(clippy::unwrap_used)]

mod support;

use support::{Process, Up, ask, get, run, write};

const ANY: &str = "127.0.0.1:0";

#[test]
fn up_says_what_listens_and_what_to_try_and_serves_metrics_and_health() {
    let dir = tempfile::tempdir().unwrap();
    let mut up = Up::start(dir.path());
    assert!(up.ca.ends_with("edgeway-data/certs/ca.pem") && up.ca.starts_with('/'), "{}", up.ca);
    up.process.wait_for("edgeway chat --user");
    assert!(get(&up.http, "/healthz").starts_with("HTTP/1.0 200"));
    assert!(get(&up.http, "/readyz").starts_with("HTTP/1.0 200"));
    assert!(get(&up.http, "/metrics").contains("# TYPE edgeway_"));
    up.process.signal("TERM");
    let (code, said, _) = up.process.finish();
    assert_eq!(code, 0);
    assert!(said.contains("for development"), "{said}");
}

#[test]
fn quic_and_tcp_talk_in_one_room_and_each_message_comes_once() {
    let dir = tempfile::tempdir().unwrap();
    let up = Up::start(dir.path());
    let mut bob = up.chat(dir.path(), "bob", "tcp");
    let mut ada = up.chat(dir.path(), "ada", "quic");
    ada.type_in("/signal are you there?\n");
    bob.wait_for("ada (signal): are you there?");
    bob.type_in("yes\n");
    ada.wait_for("bob: yes");
    ada.type_in("/state page 7\n/msg bob psst\n");
    bob.wait_for("ada (page): 7");
    bob.wait_for("ada (to you): psst");

    let (code, ada_saw, ada_notes) = ada.finish();
    assert_eq!(code, 0, "{ada_notes}");
    let (code, bob_saw, bob_notes) = bob.finish();
    assert_eq!(code, 0, "{bob_notes}");
    for saw in [&ada_saw, &bob_saw] {
        for line in ["ada (signal): are you there?", "bob: yes", "ada (page): 7"] {
            assert_eq!(saw.matches(line).count(), 1, "{line:?} in {saw}");
        }
    }
    assert!(!ada_saw.contains("psst"), "{ada_saw}");
    assert!(ada_notes.contains("over QUIC") && bob_notes.contains("over TCP"), "{ada_notes}");
}

#[test]
fn who_comes_late_reads_what_was_said_also_after_the_server_was_killed() {
    let dir = tempfile::tempdir().unwrap();
    let mut up = Up::start(dir.path());
    let early = "/signal page 1\n/state page 2\n/signal page 3\n";
    let (code, _, notes) = run(dir.path(), &up.chat_args("ada", "quic"), early);
    assert_eq!(code, 0, "{notes}");
    for transport in ["quic", "tcp"] {
        let (code, saw, notes) = run(dir.path(), &up.chat_args("late", transport), "");
        assert_eq!(code, 0, "{notes}");
        let said: Vec<_> = saw.lines().map(|line| line.split_once(' ').unwrap().1).collect();
        assert_eq!(said, ["ada (signal): page 1", "ada (page): 2", "ada (signal): page 3"]);
        assert!(notes.contains("state: page = 2"), "{notes}");

        // An ack survives the death of the process.
        up.process.signal("KILL");
        drop(up);
        up = Up::start(dir.path());
    }
    let (_, saw, _) = run(dir.path(), &up.chat_args("ada", "quic"), "/signal page 4\n");
    assert!(saw.contains("page 1") && saw.contains("(signal): page 4"), "{saw}");
    let (_, saw, _) = run(dir.path(), &up.chat_args("late", "quic"), "");
    assert_eq!(saw.matches("page 1").count(), 1, "{saw}");
    assert!(saw.lines().last().unwrap().ends_with("page 4"), "{saw}");
}

#[test]
fn who_comes_late_reads_chat_only_where_it_is_kept() {
    for (kept, hellos) in [(true, 1), (false, 0)] {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "edgeway.toml", &format!("[history]\nchat = {kept}\n"));
        let args = ["up", "--config", "edgeway.toml", "--quic", ANY, "--tcp", ANY, "--http", ANY];
        let up = Up::ready(Process::spawn(dir.path(), &args));
        let said = "hello\n/signal page 1\n";
        let (code, saw, notes) = run(dir.path(), &up.chat_args("ada", "quic"), said);
        assert_eq!(code, 0, "{notes}");
        assert!(saw.contains("ada: hello") && saw.contains("page 1"), "{saw}");
        // In order, so that what is stored behind is stored.
        up.process.signal("TERM");
        let (code, _, log) = up.process.finish();
        assert_eq!(code, 0, "{log}");

        let up = Up::ready(Process::spawn(dir.path(), &args));
        let (code, saw, notes) = run(dir.path(), &up.chat_args("late", "quic"), "");
        assert_eq!(code, 0, "{notes}");
        assert_eq!(saw.matches("ada: hello").count(), hellos, "kept: {kept}: {saw}");
        assert_eq!(saw.matches("ada (signal): page 1").count(), 1, "{saw}");
    }
}

#[test]
fn a_client_is_told_of_a_shutdown_and_comes_back_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let addr = format!("127.0.0.1:{port}");
    let args = ["up", "--quic", &addr, "--tcp", &addr, "--http", "off"];
    let mut up = Process::spawn(dir.path(), &args);
    up.wait_for("ready ");
    let chat = ["chat", "--user", "ada", "--room", "lesson", "--server", &addr];
    let mut ada = Process::spawn(dir.path(), &chat);
    ada.type_in("/signal before\n");
    ada.wait_for("before");
    up.signal("TERM");
    let (code, ..) = up.finish();
    assert_eq!(code, 0);
    let mut up = Process::spawn(dir.path(), &args);
    up.wait_for("ready ");
    ada.type_in("/signal after\n");
    ada.wait_for("after");
    let (code, _, notes) = ada.finish();
    assert_eq!(code, 0, "{notes}");
    assert!(notes.contains("back, over "), "{notes}");
}

#[test]
fn both_signals_end_it_cleanly() {
    for signal in ["TERM", "INT"] {
        let dir = tempfile::tempdir().unwrap();
        let up = Up::start(dir.path());
        up.process.signal(signal);
        let (code, _, log) = up.process.finish();
        assert_eq!(code, 0, "{log}");
        assert!(log.contains("stopped") && !log.contains("ERROR"), "{log}");
    }
}

#[test]
fn it_serves_and_ends_in_order_where_nobody_reads_its_log_any_more() {
    let dir = tempfile::tempdir().unwrap();
    let args = ["up", "--quic", ANY, "--tcp", ANY, "--http", ANY];
    let up = Up::ready(Process::spawn_unheard(dir.path(), &args));
    let (code, saw, notes) = run(dir.path(), &up.chat_args("ada", "quic"), "/signal page 1\n");
    assert_eq!(code, 0, "{notes}");
    assert!(saw.contains("page 1"), "{saw}");
    up.process.signal("TERM");
    let (code, ..) = up.process.finish();
    assert_eq!(code, 0);
}

#[test]
fn a_port_or_directory_in_use_is_told_with_the_next_step() {
    let dir = tempfile::tempdir().unwrap();
    let up = Up::start(dir.path());
    let elsewhere = tempfile::tempdir().unwrap();
    for (flags, told) in [
        (["--quic", up.quic.as_str(), "--tcp", ANY, "--http", "off"], "gateway.listen.quic"),
        (["--quic", ANY, "--tcp", up.tcp.as_str(), "--http", "off"], "gateway.listen.tcp"),
        (["--quic", ANY, "--tcp", ANY, "--http", up.http.as_str()], "--http"),
    ] {
        let args = [&["up"], &flags[..]].concat();
        let (code, _, error) = run(elsewhere.path(), &args, "");
        assert_eq!(code, 1, "{error}");
        assert!(error.contains(told) && error.contains("another process has that port"), "{error}");
    }
    let args = ["up", "--quic", ANY, "--tcp", ANY, "--http", "off"];
    let (code, _, error) = run(dir.path(), &args, "");
    assert_eq!(code, 1, "{error}");
    assert!(error.contains("edgeway-data") && error.contains("in use"), "{error}");

    write(elsewhere.path(), "file", "");
    let args = [&args[..], &["--data-dir", "file/data"]].concat();
    let (code, _, error) = run(elsewhere.path(), &args, "");
    assert_eq!(code, 1, "{error}");
    assert!(error.contains("file/data"), "{error}");
}

#[test]
fn a_login_is_checked_where_passwords_are_configured() {
    let dir = tempfile::tempdir().unwrap();
    let hash = edgeway_backend::auth::PasswordHash::new(b"secret").unwrap();
    let text = format!("[auth]\nmode = \"passwords\"\n[auth.users]\nada = \"{hash}\"\n");
    write(dir.path(), "edgeway.toml", &text);
    let args = ["up", "--config", "edgeway.toml", "--quic", ANY, "--tcp", ANY, "--http", "off"];
    let mut up = Process::spawn(dir.path(), &args);
    let ready = up.wait_for("ready ");
    let server = ready.split("quic=").nth(1).unwrap().split(' ').next().unwrap();
    let chat = |user, more: &[&str]| {
        let args =
            ["chat", "--user", user, "--room", "r", "--server", server, "--transport", "quic"];
        let args = [&args, more].concat();
        let mut command = support::edgeway(dir.path(), &args);
        command.stdin(std::process::Stdio::null()).env("GOOD", "secret").env("BAD", "guess");
        command.output().unwrap()
    };
    assert_eq!(chat("ada", &["--password-env", "GOOD"]).status.code(), Some(0));
    for refused in [
        chat("ada", &["--password-env", "BAD"]),
        chat("bob", &["--password-env", "GOOD"]),
        chat("ada", &[]),
    ] {
        let error = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(1), "{error}");
        assert!(error.contains("login refused"), "{error}");
    }
}

#[test]
fn a_certificate_is_replaced_while_clients_stay() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    // Two authorities, each with a certificate.
    for name in ["old", "new"] {
        let made = tempfile::tempdir().unwrap();
        drop(Up::start(made.path()));
        for file in ["ca.pem", "server.pem", "server.key"] {
            let from = made.path().join("edgeway-data/certs").join(file);
            std::fs::copy(from, path(&format!("{name}-{file}"))).unwrap();
        }
    }
    let use_those_of = |name: &str| {
        for file in ["server.pem", "server.key"] {
            std::fs::copy(path(&format!("{name}-{file}")), path(file)).unwrap();
        }
    };
    use_those_of("old");
    let text = "[gateway.tls]\ncert = \"server.pem\"\nkey = \"server.key\"\n";
    write(dir.path(), "edgeway.toml", text);
    let args = ["up", "--config", "edgeway.toml", "--quic", ANY, "--tcp", ANY, "--http", ANY];
    let mut up = Process::spawn(dir.path(), &args);
    let ready = up.wait_for("ready ");
    let value = |name: &str| {
        ready.split(name).nth(1).unwrap().split_whitespace().next().unwrap().to_owned()
    };
    let (quic, tcp, http) = (value("quic="), value("tcp="), value("http="));
    let chat = |user, transport: &str, ca: &str| {
        let server = if transport == "quic" { &quic } else { &tcp };
        let args = ["chat", "--user", user, "--room", "r", "--transport", transport];
        Process::spawn(dir.path(), &[&args[..], &["--server", server, "--ca", ca]].concat())
    };
    let mut ada = chat("ada", "quic", "old-ca.pem");
    ada.type_in("/signal first\n");
    ada.wait_for("ada (signal): first");

    use_those_of("new");
    let answer = ask(&http, "POST", "/reload");
    assert!(answer.contains("gateway.tls: another certificate"), "{answer}");
    for transport in ["quic", "tcp"] {
        assert_ne!(chat("cid", transport, "old-ca.pem").finish().0, 0);
        let mut bob = chat("bob", transport, "new-ca.pem");
        bob.type_in("/signal here\n");
        ada.wait_for("bob (signal): here");
        assert_eq!(bob.finish().0, 0);
    }
    // A key of another certificate is refused, and changes nothing.
    std::fs::copy(path("old-server.key"), path("server.key")).unwrap();
    let answer = ask(&http, "POST", "/reload");
    assert!(answer.starts_with("HTTP/1.0 422") && answer.contains("gateway.tls"), "{answer}");
    assert_eq!(chat("dan", "tcp", "new-ca.pem").finish().0, 0);
    assert_eq!(ada.finish().0, 0);
}

#[test]
fn a_chat_that_cannot_connect_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let up = Up::start(dir.path());
    let elsewhere = tempfile::tempdir().unwrap();
    let (code, _, error) = run(elsewhere.path(), &up.chat_args("ada", "tcp"), "");
    assert_eq!(code, 1, "{error}");
    assert!(error.contains("certificate") && error.contains("--ca"), "{error}");

    let args = [&up.chat_args("ada", "tcp")[..], &["--ca", &up.ca]].concat();
    assert_eq!(run(elsewhere.path(), &args, "").0, 0);

    let nobody = format!("127.0.0.1:{}", free_port());
    let args = ["chat", "--user", "a", "--room", "r", "--transport", "tcp", "--server", &nobody];
    let (code, _, error) = run(dir.path(), &args, "");
    assert_eq!(code, 1, "{error}");
    assert!(error.contains("is `edgeway up` running?"), "{error}");
}

fn free_port() -> u16 {
    std::net::TcpListener::bind(ANY).unwrap().local_addr().unwrap().port()
}
