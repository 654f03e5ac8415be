//! Links between processes: TLS with certificates of both sides, and in the clear on loopback only.

#![allow(clippy::unwrap_used)]

mod support;

use std::{path::Path, thread, time::Duration};

use support::{Process, Up, ask, free_ports, get, run, write};

/// Runs `edgeway certs`; gives what it says.
#[track_caller]
fn certs(dir: &Path, args: &str) -> String {
    let args: Vec<_> = std::iter::once("certs").chain(args.split(' ')).collect();
    let (code, said, error) = run(dir, &args, "");
    assert_eq!(code, 0, "{args:?}: {error}");
    said
}

/// Waits until the metrics at `http` have a line with all of these.
fn wait_for_metric(http: &str, holds: impl Fn(&str) -> bool) {
    let start = std::time::Instant::now();
    while !get(http, "/metrics").lines().any(&holds) {
        assert!(start.elapsed() < Duration::from_secs(60), "{}", get(http, "/metrics"));
        thread::sleep(Duration::from_millis(20));
    }
}

/// How often links were refused for a cause.
fn refused(line: &str, cause: &str) -> u64 {
    let metric = format!("edgeway_links_refused_total{{cause=\"{cause}\"}} ");
    line.strip_prefix(&metric).map_or(0, |count| count.parse().unwrap())
}

fn talk(dir: &Path, server: &str) {
    let chat = |user| {
        let args = ["chat", "--user", user, "--room", "lesson", "--server", server];
        Process::spawn(dir, &[&args[..], &["--transport", "quic"]].concat())
    };
    let (mut ada, mut bob) = (chat("ada"), chat("bob"));
    bob.type_in("/signal here\n");
    bob.wait_for("bob (signal): here");
    ada.type_in("/signal one\n/msg bob psst\n");
    bob.wait_for("ada (signal): one");
    bob.wait_for("ada (to you): psst");
    assert_eq!(ada.finish().0, 0);
    assert_eq!(bob.finish().0, 0);
}

#[test]
fn a_cluster_links_by_certificates_and_a_stranger_cannot_join_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    // `up` makes the certificates that clients see here.
    drop(Up::start(path));
    certs(path, "ca --dir ours");
    certs(path, "link back --dir ours --host 127.0.0.1");
    certs(path, "link gw-1 --dir ours");
    certs(path, "ca --dir theirs");
    certs(path, "link stranger --dir theirs");
    let both = ["ours/ca.pem", "theirs/ca.pem"];
    let both = both.map(|ca| std::fs::read_to_string(path.join(ca)).unwrap()).concat();
    write(path, "both.pem", &both);
    let [access, room, peer, http] = free_ports();
    let config = |ca: &str, process: &str| {
        format!(
            "[backends]\naccess = [\"{access}\"]\nroom = [\"{room}\"]\npeer = [\"{peer}\"]\n\
             [gateway.tls]\ncert = \"edgeway-data/certs/server.pem\"\n\
             key = \"edgeway-data/certs/server.key\"\n[http]\nlisten = \"\"\n\
             [links]\nca = \"{ca}\"\ncert = \"{process}.pem\"\nkey = \"{process}.key\"\n"
        )
    };
    write(path, "edgeway.toml", &config("ours/ca.pem", "ours/back"));
    // It trusts the cluster, which does not trust it; and one that trusts only its own.
    write(path, "stranger.toml", &config("both.pem", "theirs/stranger"));
    write(path, "hermit.toml", &config("theirs/ca.pem", "theirs/stranger"));
    let (code, said, error) = run(path, &["check", "edgeway.toml"], "");
    assert_eq!(code, 0, "{error}");
    assert!(said.contains("links     TLS with certificates of both sides: back of"), "{said}");

    let backend = |role, addr: &str, slot, http: &str| {
        let args = ["backend", "--config", "edgeway.toml", "--roles", role, "--listen", addr];
        let dir = format!("data-{role}");
        let own = ["--data-dir", &dir, "--slot", slot, "--http", http];
        Process::spawn(path, &[&args[..], &own].concat())
    };
    let gateway = |more: &[&str]| {
        let any = "127.0.0.1:0";
        Process::spawn(path, &[&["gateway", "--quic", any, "--tcp", any], more].concat())
    };
    let mut backends = [
        backend("room", &room, "1", "off"),
        backend("peer", &peer, "2", "off"),
        backend("access", &access, "3", &http),
    ];
    let own = ["--link-cert", "ours/gw-1.pem", "--link-key", "ours/gw-1.key"];
    let mut ours = gateway(&[&["--config", "edgeway.toml"][..], &own[..]].concat());
    for backend in &mut backends {
        backend.wait_for("ready grpc=");
    }
    let ready = ours.wait_for("ready ");
    let server = ready.split("quic=").nth(1).unwrap().split(' ').next().unwrap();
    talk(path, server);

    // The second try of each is after it has told of the first.
    let stranger = gateway(&["--config", "stranger.toml"]);
    wait_for_metric(&http, |line| refused(line, "other_ca") >= 2);
    let hermit = gateway(&["--config", "hermit.toml"]);
    wait_for_metric(&http, |line| refused(line, "refused_ours") >= 2);
    for (process, why) in [
        (stranger, "it refuses our certificate (links.cert)"),
        (hermit, "its certificate is not of our CA (links.ca)"),
    ] {
        process.signal("TERM");
        let (_, said, log) = process.finish();
        assert!(!said.contains("ready") && log.contains(why), "{said} {log}");
    }
    talk(path, server);

    // New certificates, under way.
    certs(path, "link back --dir ours --force");
    let told = ask(&http, "POST", "/reload");
    assert!(told.contains("links: another certificate"), "{told}");
    certs(path, "link gw-1 --dir ours --force");
    ours.signal("HUP");
    talk(path, server);
    for process in backends.into_iter().chain([ours]) {
        process.signal("TERM");
        let (code, _, log) = process.finish();
        assert_eq!(code, 0, "{log}");
    }
}

#[test]
fn without_certificates_nothing_is_linked_beyond_this_machine() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    let config = |listen: &str, quiz: &str, more: &str| {
        let text = format!(
            "[backend]\nlisten = \"{listen}\"\n[backends]\nquiz = [\"127.0.0.1:1\", \"{quiz}\"]\n{more}"
        );
        write(path, "edgeway.toml", &text);
    };
    let wrong = |what: &str| {
        let (code, said, _) = run(path, &["check", "edgeway.toml"], "");
        assert_eq!(code, 1, "{said}");
        assert!(said.starts_with("edgeway.toml:") && said.contains(what), "{said}");
        said
    };
    config("0.0.0.0:7400", "127.0.0.1:2", "");
    let said = wrong(":2: backend.listen: 0.0.0.0:7400 can be reached from other machines");
    assert!(said.contains("edgeway certs --help"), "{said}");
    let args = ["backend", "--config", "edgeway.toml", "--roles", "room"];
    let (code, _, error) = run(path, &args, "");
    assert!(code == 2 && error.contains("backend.listen"), "{error}");

    config("127.0.0.1:0", "10.0.0.1:7500", "");
    let said = wrong(":4: backends.quiz.1: `10.0.0.1:7500` is on another machine");
    assert!(said.contains("edgeway certs --help"), "{said}");

    // With them both are right.
    certs(path, "ca");
    certs(path, "link one");
    let links = "[links]\nca = \"edgeway-links/ca.pem\"\ncert = \"edgeway-links/one.pem\"\n\
                 key = \"edgeway-links/one.key\"\n";
    config("0.0.0.0:7400", "10.0.0.1:7500", links);
    let (code, said, _) = run(path, &["check", "edgeway.toml"], "");
    assert_eq!(code, 0, "{said}");
    config("0.0.0.0:7400", "10.0.0.1:7500", &links.replace("one.key", "ca.key"));
    wrong(":8: links.key: is not the key of links.cert");
    config("127.0.0.1:0", "http://10.0.0.1:7500", links);
    wrong(":4: backends.quiz.1: `http://10.0.0.1:7500` is in the clear on another machine");
}

#[test]
fn a_reload_links_no_other_machine_without_the_certificates_of_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    certs(path, "ca");
    certs(path, "link one");
    let config = |quiz: &str, more: &str| {
        write(path, "edgeway.toml", &format!("[backends]\n{quiz}\n{more}"));
    };
    config("", "");
    let any = "127.0.0.1:0";
    let args = ["up", "--config", "edgeway.toml", "--quic", any, "--tcp", any, "--http", any];
    let up = Up::ready(Process::spawn(path, &args));
    let far = "quiz = [\"10.0.0.1:7500\"]";
    config(far, "");
    let told = ask(&up.http, "POST", "/reload");
    assert!(told.contains("422") && told.contains("edgeway.toml:2: backends.quiz.0: "), "{told}");
    let links = "[links]\nca = \"edgeway-links/ca.pem\"\ncert = \"edgeway-links/one.pem\"\n\
                 key = \"edgeway-links/one.key\"\n";
    config(far, links);
    let told = ask(&up.http, "POST", "/reload");
    assert!(told.contains("422") && told.contains("started without [links]"), "{told}");
    config("", links);
    let told = ask(&up.http, "POST", "/reload");
    assert!(told.contains("200") && told.contains("links.ca: set to"), "{told}");
    assert!(told.contains("(at the next restart)"), "{told}");
    // It goes on as it was.
    talk(path, &up.quic);
}

#[test]
fn up_links_with_itself_by_certificates_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    certs(path, "ca");
    certs(path, "link one");
    write(
        path,
        "edgeway.toml",
        "[links]\nca = \"edgeway-links/ca.pem\"\ncert = \"edgeway-links/one.pem\"\n\
         key = \"edgeway-links/one.key\"\n",
    );
    let any = "127.0.0.1:0";
    let args = ["up", "--config", "edgeway.toml", "--quic", any, "--tcp", any, "--http", any];
    let up = Up::ready(Process::spawn(path, &args));
    talk(path, &up.quic);
    wait_for_metric(&up.http, |line| {
        line.starts_with("edgeway_links_certificate_expiry_timestamp_seconds ")
    });
}

#[test]
fn certs_overwrites_nothing_and_says_what_to_do_next() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    let fails = |args: &str, what: &str| {
        let args: Vec<_> = std::iter::once("certs").chain(args.split(' ')).collect();
        let (code, _, error) = run(path, &args, "");
        assert!(code == 1 && error.contains(what), "{args:?}: {error}");
    };
    fails("link gw-1", "edgeway certs ca");
    assert!(certs(path, "ca").contains("Next: edgeway certs link NAME"));
    fails("ca", "ca.pem is there already");
    let said = certs(path, "link gw-1 --cluster east --days 30");
    for line in ["[links]", "ca = \"edgeway-links/ca.pem\"", "name = \"east\""] {
        assert!(said.lines().any(|said| said == line), "{line}: {said}");
    }
    fails("link gw-1", "gw-1.pem is there already");
    fails("link gw-2 --days 4000", "at most");
    fails("link a/b", "cannot name files");
    fails("link gw-3 --host bücher", "cannot stand in a certificate");
    certs(path, "link gw-1 --force");
}
