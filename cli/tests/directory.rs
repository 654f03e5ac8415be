//! Who is where, asked of a process that has nothing to do with it.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use edgeway_testredis::{Options, Server};
use serde_json::Value;
use support::{Process, Up, free_ports, get, write};

/// Far above what a busy machine needs: what never becomes true fails here.
const PATIENCE: Duration = Duration::from_secs(60);

/// The status and the body of an answer.
fn ask(http: &str, path: &str) -> (u16, Value) {
    let answer = get(http, path);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let json = head.to_lowercase().contains("application/json");
    assert_eq!(json, status == 200, "{answer}");
    (status, serde_json::from_str(body).unwrap_or_else(|e| panic!("{e}: {answer}")))
}

/// Asks until the answer is as it should be.
#[track_caller]
fn until(http: &str, path: &str, good: impl Fn(&Value) -> bool) -> Value {
    let start = Instant::now();
    loop {
        let (status, answer) = ask(http, path);
        if status == 200 && good(&answer) {
            return answer;
        }
        assert!(start.elapsed() < PATIENCE, "{path}: {status} {answer}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn users(members: &Value) -> Vec<&str> {
    members["members"].as_array().unwrap().iter().map(|m| m["user"].as_str().unwrap()).collect()
}

/// A cluster of processes on one Redis.
struct Processes {
    gateways: Vec<String>,
    dir: PathBuf,
    /// Where access listens.
    access: String,
    /// Where the peer process answers.
    peer_http: String,
    running: Vec<(&'static str, Process)>,
}

impl Processes {
    fn start(path: &Path, redis: &Server) -> Self {
        // `up` makes the certificates that the gateways use here.
        drop(Up::start(path));
        let [access, room, peer] = free_ports();
        let text = format!(
            "[backends]\naccess = [\"{access}\"]\nroom = [\"{room}\"]\npeer = [\"{peer}\"]\n\
             [gateway.tls]\ncert = \"edgeway-data/certs/server.pem\"\n\
             key = \"edgeway-data/certs/server.key\"\n[gateway.limits]\ngrace_ms = 0\n\
             [store]\nengine = \"redis\"\n[store.redis]\nurl = \"{}\"\n",
            redis.url()
        );
        write(path, "edgeway.toml", &text);
        let any = "127.0.0.1:0";
        let (gateways, running, peer_http) = (Vec::new(), Vec::new(), String::new());
        let mut processes =
            Self { gateways, dir: path.to_owned(), access: access.clone(), peer_http, running };
        let mut running = vec![
            ("room", processes.backend("room", &room)),
            ("peer", processes.backend("peer", &peer)),
            ("access", processes.backend("access", &access)),
        ];
        for (role, process) in &mut running {
            let ready = process.wait_for("ready grpc=");
            if *role == "peer" {
                processes.peer_http = ready.split("http=").nth(1).unwrap().to_owned();
            }
        }
        for name in ["gw-1", "gw-2"] {
            let args = ["gateway", "--config", "edgeway.toml", "--name", name, "--http", any];
            let args = [&args[..], &["--quic", any, "--tcp", any]].concat();
            let mut gateway = Process::spawn(path, &args);
            let ready = gateway.wait_for("ready ");
            let quic = ready.split("quic=").nth(1).unwrap().split(' ').next().unwrap();
            processes.gateways.push(quic.to_owned());
            running.push(("gateway", gateway));
        }
        processes.running = running;
        processes
    }

    fn backend(&self, role: &str, addr: &str) -> Process {
        let args = ["backend", "--config", "edgeway.toml", "--roles", role, "--listen", addr];
        let beside = ["--http", "127.0.0.1:0", "--data-dir", role];
        Process::spawn(&self.dir, &[&args[..], &beside].concat())
    }

    fn chat(&self, path: &Path, user: &str, room: &str, gateway: usize) -> Process {
        let server = &self.gateways[gateway];
        let args = ["chat", "--user", user, "--room", room, "--server", server];
        let mut chat = Process::spawn(path, &args);
        chat.type_in("/signal here\n");
        chat.wait_for(&format!("{user} (signal): here"));
        chat
    }
}

#[test]
fn another_process_tells_who_is_where_as_members_come_and_go_over_two_gateways() {
    let dir = tempfile::tempdir().unwrap();
    let (path, redis) = (dir.path(), Server::start(&Options::default()));
    let processes = Processes::start(path, &redis);
    let http = &processes.peer_http;

    // Nobody is anywhere.
    let (members, route) = ("/rooms/lesson%201/members", "/rooms/lesson%201/route");
    assert_eq!(until(http, members, |_| true)["total"], 0);
    assert_eq!(until(http, "/users/ada", |_| true)["sessions"], Value::Array(Vec::new()));

    let ada = processes.chat(path, "ada", "lesson 1", 0);
    let bob = processes.chat(path, "bob", "lesson 1", 1);
    let cid = processes.chat(path, "cid", "lesson 1", 1);
    let all = until(http, members, |m| m["total"] == 3);
    assert_eq!((users(&all), &all["next"]), (vec!["ada", "bob", "cid"], &Value::Null));
    assert_eq!(all["room"], "lesson 1");
    let both = until(http, route, |r| r["gateways"].as_array().unwrap().len() == 2);
    assert_eq!((&both["members"], both["epoch"].as_u64() > Some(0)), (&Value::from(3), true));

    // Page by page.
    let first = until(http, &format!("{members}?limit=2"), |m| m["total"] == 3);
    assert_eq!(users(&first), ["ada", "bob"]);
    let next = first["next"].as_str().unwrap();
    let second = until(http, &format!("{members}?limit=2&after={next}"), |m| m["total"] == 3);
    assert_eq!((users(&second), &second["next"]), (vec!["cid"], &Value::Null));

    // Where a user is, on the gateway that the room knows too. The chat client may have other Sessions.
    let user = until(http, "/users/bob", |u| {
        let sessions = u["sessions"].as_array().unwrap();
        sessions.iter().any(|s| s["type"] == "chat" && s["rooms"] == 1)
    });
    let session = user["sessions"].as_array().unwrap().iter().find(|s| s["type"] == "chat");
    let session = session.unwrap();
    assert_eq!((&session["gateway_name"], &session["standing"]), (&"gw-2".into(), &"live".into()));
    assert_eq!(session["gateway"], all["members"][1]["gateway"]);
    assert_eq!(session["session"], all["members"][1]["session"]);

    // Who leaves is gone, and with the last one of a gateway its route.
    assert_eq!(ada.finish().0, 0);
    let rest = until(http, members, |m| m["total"] == 2);
    assert_eq!(users(&rest), ["bob", "cid"]);
    let one = until(http, route, |r| r["gateways"].as_array().unwrap().len() == 1);
    assert_eq!(one["gateways"][0], rest["members"][0]["gateway"]);
    until(http, "/users/ada", |u| u["sessions"].as_array().unwrap().is_empty());
    assert_eq!((bob.finish().0, cid.finish().0), (0, 0));
    until(http, members, |m| m["total"] == 0);
    until(http, "/users/bob", |u| u["sessions"].as_array().unwrap().is_empty());

    for (role, process) in processes.running {
        process.signal("TERM");
        let (code, _, log) = process.finish();
        assert_eq!(code, 0, "{role}: {log}");
    }
}

#[test]
fn what_a_session_has_outlives_its_access_and_is_its_successor_s() {
    let dir = tempfile::tempdir().unwrap();
    let (path, redis) = (dir.path(), Server::start(&Options::default()));
    let mut processes = Processes::start(path, &redis);
    let http = processes.peer_http.clone();
    let mut ada = processes.chat(path, "ada", "maths", 0);
    let chat = |user: &Value| {
        let sessions = user["sessions"].as_array().unwrap();
        sessions.iter().find(|session| session["type"] == "chat").cloned().unwrap_or(Value::Null)
    };
    let before = chat(&until(&http, "/users/ada", |user| chat(user)["rooms"] == 1));

    let at = processes.running.iter().position(|(role, _)| *role == "access").unwrap();
    let (_, access) = processes.running.remove(at);
    access.signal("KILL");
    drop(access);
    // The room's owner hears of it; what the Session had is there for whoever takes it over.
    until(&http, "/rooms/maths/members", |members| members["total"] == 0);
    let kept = chat(&until(&http, "/users/ada", |_| true));
    assert_eq!(kept, before);

    let access = processes.backend("access", &processes.access.clone());
    processes.running.push(("access", access));
    let (_, access) = processes.running.last_mut().unwrap();
    access.wait_for("ready grpc=");
    let after = until(&http, "/users/ada", |user| {
        let session = chat(user);
        session["rooms"] == 1 && session["access"] != before["access"]
    });
    assert!(chat(&after)["generation"].as_u64() >= before["generation"].as_u64(), "{after}");
    let members = until(&http, "/rooms/maths/members", |members| members["total"] == 1);
    assert_eq!(users(&members), ["ada"]);
    ada.type_in("/signal here again\n");
    ada.wait_for("ada (signal): here again");
    assert_eq!(ada.finish().0, 0);
    until(&http, "/users/ada", |user| user["sessions"].as_array().unwrap().is_empty());
}

#[test]
fn what_is_wrong_with_a_question_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let up = Up::start(dir.path());
    let long = "x".repeat(129);
    for (path, status, detail) in [
        ("/rooms/maths/members?limit=0", 400, "`limit` is 0; a page has 1 to 1000 members"),
        ("/rooms/maths/members?limit=many", 400, "`limit` is `many`, which is no number"),
        ("/rooms/maths/members?after=ada", 400, "give what `next` of that page said"),
        ("/rooms/maths/members?page=2", 400, "`page` is unknown; there are `after` and `limit`"),
        (&format!("/rooms/{long}/route"), 400, "at most 128 bytes"),
        ("/users/@me", 400, "must not begin with @"),
    ] {
        let (told, problem) = ask(&up.http, path);
        assert_eq!((told, problem["status"].as_u64()), (status, Some(u64::from(status))), "{path}");
        let said = problem["detail"].as_str().unwrap();
        assert!(said.contains(detail), "{path}: {said}");
        assert!(get(&up.http, path).contains("application/problem+json"));
    }
}

#[test]
fn what_others_could_read_is_not_told() {
    let dir = tempfile::tempdir().unwrap();
    let any = "127.0.0.1:0";
    let args = ["up", "--quic", any, "--tcp", any, "--http", "0.0.0.0:0"];
    let up = Up::ready(Process::spawn(dir.path(), &args));
    let http = up.http.replace("0.0.0.0", "127.0.0.1");
    for path in ["/users/ada", "/rooms/maths/members", "/rooms/maths/route"] {
        let (status, problem) = ask(&http, path);
        assert_eq!((status, &problem["title"]), (403, &Value::from("Only on loopback")));
    }
}
