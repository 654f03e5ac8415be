//! What of a config takes effect while processes run, and what says that it needs a restart.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::{path::Path, time::Duration};

use edgeway_backend::auth::PasswordHash;
use edgeway_client::{Client, ClientConfig, Login, TransportChoice, Trust};
use edgeway_testredis::{Options, Server};
use support::{Process, Up, ask, free_ports, get, write};

/// Above what a busy machine takes.
const PATIENCE: Duration = Duration::from_secs(60);

async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("it did not happen in time")
}

/// Waits until an answer of HTTP is as wanted.
#[track_caller]
fn until(http: &str, path: &str, wanted: impl Fn(&str) -> bool) -> String {
    let start = std::time::Instant::now();
    loop {
        let answer = get(http, path);
        if wanted(&answer) {
            return answer;
        }
        assert!(start.elapsed() < PATIENCE, "{answer}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Waits until somebody listens.
#[track_caller]
fn reachable(http: &str) {
    let start = std::time::Instant::now();
    while std::net::TcpStream::connect(http).is_err() {
        assert!(start.elapsed() < PATIENCE, "nobody listens at {http}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

async fn log_in(up: &Up, user: &str, password: &str) -> Option<Client> {
    let login = Login::Password { user: user.to_owned(), password: password.to_owned() };
    let mut config = ClientConfig::new(&up.tcp, login);
    config.trust = Trust::Ca(std::fs::read(&up.ca).unwrap());
    config.transport = TransportChoice::Tcp;
    within(Client::connect(config)).await.ok().map(|(client, _)| client)
}

fn config(users: &[(&str, &str)], more: &str) -> String {
    let mut text = "[auth]\nmode = \"passwords\"\n[auth.users]\n".to_owned();
    for (user, password) in users {
        let hash = PasswordHash::new(password.as_bytes()).unwrap().to_string();
        text += &format!("{user} = {hash:?}\n");
    }
    text + more
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_limits_and_rooms_change_while_the_process_runs_and_the_rest_says_when() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "edgeway.toml", &config(&[("ada", "a"), ("bob", "b")], ""));
    let any = "127.0.0.1:0";
    let args = ["up", "--config", "edgeway.toml", "--quic", any, "--tcp", any, "--http", any];
    let up = Up::ready(Process::spawn(dir.path(), &args));
    let ada = log_in(&up, "ada", "a").await.unwrap();
    let room = within(ada.join("lesson")).await.unwrap();

    let more = "[rooms]\nmax_members = 1\nper_session = 1\n[gateway.limits]\ngrace_ms = 5\n\
        [runtime]\nthreads = 3\n";
    write(dir.path(), "edgeway.toml", &config(&[("ada", "new"), ("eve", "e")], more));
    until(&up.http, "/metrics", |all| all.contains("reloads_total{outcome=\"applied\"} 1"));
    let answer = ask(&up.http, "POST", "/reload");
    let waits = "runtime.threads: set to 3 (at the next restart)";
    assert!(answer.starts_with("HTTP/1.0 200") && answer.contains(waits), "{answer}");
    assert!(log_in(&up, "bob", "b").await.is_none());
    assert!(log_in(&up, "ada", "a").await.is_none());
    let eve = log_in(&up, "eve", "e").await.unwrap();
    // Who is there stays, and sends; the room and the Session have as many as they may have.
    within(room.send_signal("still here".into())).await.unwrap();
    assert!(within(eve.join("lesson")).await.is_err(), "it is full");
    assert!(within(ada.join("another")).await.is_err(), "one for each Session");

    // A file with a mistake changes nothing, wherever it is.
    let wrong = config(&[("eve", "e")], "[rooms]\nmax_members = 5\nchat_per_second = -1\n");
    write(dir.path(), "edgeway.toml", &wrong);
    let answer = ask(&up.http, "POST", "/reload");
    assert!(answer.starts_with("HTTP/1.0 422") && answer.contains("chat_per_second"), "{answer}");
    assert!(within(eve.join("lesson")).await.is_err(), "still full");
    assert!(log_in(&up, "ada", "new").await.is_some());

    up.process.signal("TERM");
    let (code, _, log) = up.process.finish();
    assert_eq!(code, 0, "{log}");
    for line in [
        "auth.users.ada: changed",
        "auth.users.bob: changed",
        "auth.users.eve: changed",
        "gateway.limits.grace_ms: set to 5",
        "rooms.max_members: set to 1",
        "rooms.per_session: set to 1",
        waits,
    ] {
        assert!(log.contains(&format!("config: {line}")), "{line:?} is not in {log}");
    }
}

fn backend(dir: &Path, url: &str, http: &str) -> Process {
    let [listen] = free_ports();
    let text = format!(
        "[store]\nengine = \"redis\"\n[store.redis]\nurl = {url:?}\n[backends]\n\
         access = [{listen:?}]\nroom = [{listen:?}]\npeer = [{listen:?}]\n"
    );
    write(dir, "edgeway.toml", &text);
    let args = ["backend", "--config", "edgeway.toml", "--roles", "access,room,peer"];
    Process::spawn(dir, &[&args[..], &["--listen", &listen, "--http", http]].concat())
}

#[test]
fn a_backend_that_starts_before_its_redis_waits_for_it_and_says_so() {
    let mut server = Server::start(&Options { durable: true, ..Options::default() });
    let url = server.url();
    server.stop();
    let dir = tempfile::tempdir().unwrap();
    let [http] = free_ports();
    let mut process = backend(dir.path(), &url, &http);
    reachable(&http);
    let answer =
        until(&http, "/readyz", |answer| answer.contains("waits for the store on redis://"));
    assert!(answer.starts_with("HTTP/1.0 503"), "{answer}");
    assert!(ask(&http, "POST", "/reload").starts_with("HTTP/1.0 503"));
    process.signal("HUP");
    // Long enough for it to remind of that.
    std::thread::sleep(Duration::from_secs(6));
    server.resume();
    process.wait_for("ready grpc=");
    until(&http, "/readyz", |answer| answer.starts_with("HTTP/1.0 200"));
    process.signal("TERM");
    let (code, _, log) = process.finish();
    assert_eq!(code, 0, "{log}");
    assert!(log.contains("not ready yet: it starts: waits for the store on redis://"), "{log}");
}

#[test]
fn a_backend_that_waits_for_its_redis_can_be_stopped() {
    let mut server = Server::start(&Options::default());
    let url = server.url();
    server.stop();
    let dir = tempfile::tempdir().unwrap();
    let [http] = free_ports();
    let process = backend(dir.path(), &url, &http);
    reachable(&http);
    process.signal("TERM");
    let (code, _, log) = process.finish();
    assert_eq!(code, 0, "{log}");
}

#[test]
fn a_password_that_is_wrong_is_not_waited_for() {
    let server = Server::start(&Options { password: Some("right".into()), ..Options::default() });
    let url = server.url().replace("right", "wrong");
    let dir = tempfile::tempdir().unwrap();
    let (code, _, log) = backend(dir.path(), &url, "off").finish();
    assert_eq!(code, 1, "{log}");
    assert!(log.contains("cannot open the store on redis://"), "{log}");
}
