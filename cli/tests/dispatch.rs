//! Clients that ask dispatch where to connect, against real processes: gateways that are killed, dispatch that is away,
//! clusters that are apart, and what wrong requests get.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]
// How long things took.
#![allow(clippy::print_stderr)]

mod support;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use edgeway_client::{
    Bytes, Client, ClientConfig, ConnectError, Connector, Event, Events, Login, Trust,
};
use edgeway_testredis::{Options, Server};
use serde_json::Value;
use support::{Process, Up, get, node::Node, write};

const ANY: &str = "127.0.0.1:0";
/// Far above what a busy machine takes.
const PATIENCE: Duration = Duration::from_secs(120);
const KEY: &str = "0123456789abcdef0123456789abcdef";

fn value(ready: &str, name: &str) -> String {
    let rest = ready.split_once(&format!("{name}=")).unwrap_or_else(|| panic!("{ready}")).1;
    rest.split(' ').next().unwrap().to_owned()
}

/// The status and the JSON of an answer.
fn ask(addr: &str, path: &str) -> (u16, Value) {
    parse(&get(addr, path))
}

fn parse(answer: &str) -> (u16, Value) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap_or(Value::Null))
}

/// A request with a body.
fn post(addr: &str, method: &str, kind: &str, body: &str) -> (u16, Value) {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(addr).unwrap();
    let length = body.len();
    // Whoever refuses need not read it all.
    let _ = write!(
        stream,
        "{method} /dispatch HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Type: {kind}\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    );
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    parse(&String::from_utf8_lossy(&answer))
}

/// The QUIC addresses of an answer; none where there is no gateway.
fn given(dispatch: &str, app: &str) -> Vec<String> {
    let (_, answer) = ask(dispatch, &format!("/dispatch?app={app}"));
    let all = answer["endpoints"].as_array().cloned().unwrap_or_default();
    let mut all: Vec<_> = all.iter().map(|one| one["quic"].as_str().unwrap().to_owned()).collect();
    all.sort();
    all
}

#[track_caller]
fn until(what: &str, holds: impl Fn() -> bool) -> Duration {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
    start.elapsed()
}

async fn within<T>(what: &str, happens: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, happens).await {
        Ok(done) => done,
        Err(_) => panic!("not in time: {what}"),
    }
}

fn login(user: &str) -> Login {
    Login::Development { user: user.to_owned() }
}

fn trust(dir: &Path) -> Trust {
    Trust::Ca(std::fs::read(dir.join("edgeway-data/certs/ca.pem")).unwrap())
}

fn by_dispatch(dir: &Path, url: &str, app: &str, user: &str) -> ClientConfig {
    let mut config = ClientConfig::by_dispatch(url, app, login(user));
    config.trust = trust(dir);
    config.backoff_min = Duration::from_millis(100);
    config
}

/// Says something and has it acknowledged.
async fn talks(client: &Client) {
    let room = within("a join", client.join("lesson")).await.unwrap();
    within("an ack", room.send_signal(Bytes::from_static(b"hello"))).await.unwrap();
}

async fn reconnected(events: &mut Events) {
    let waiting = async {
        loop {
            match events.next().await {
                Some(Event::Reconnected { .. }) => return,
                Some(_) => {}
                None => panic!("the client has closed"),
            }
        }
    };
    within("a new connection", waiting).await;
}

/// A registry with a backend, two gateways that want tickets, and dispatch.
struct Cluster {
    dir: tempfile::TempDir,
    _redis: Server,
    _backend: Node,
    gateways: Vec<Node>,
    dispatch: Node,
}

impl Cluster {
    fn config(redis: &str, require_ticket: bool) -> String {
        format!(
            "[backends]\naccess = [\"registry\"]\npeer = [\"registry\"]\nroom = [\"registry\"]\n\
             [store]\nengine = \"redis\"\n[store.redis]\nurl = \"{redis}\"\n\
             [gateway.tls]\ncert = \"edgeway-data/certs/server.pem\"\n\
             key = \"edgeway-data/certs/server.key\"\n\
             [gateway.dispatch]\nrequire_ticket = {require_ticket}\n\
             [dispatch]\nticket_keys = [\"{KEY}\"]\nttl_ms = 1000\n\
             [dispatch.clusters.main]\nregistry = \"store\"\npolicy = \"least_load\"\n"
        )
    }

    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        // `up` makes the certificates.
        drop(Up::start(dir.path()));
        let redis = Server::start(&Options { durable: true, ..Options::default() });
        write(dir.path(), "edgeway.toml", &Self::config(&redis.url(), true));
        let at = ["--config", "edgeway.toml", "--http", ANY];
        let start = |args: &[&str]| Node::start(dir.path(), &[args, &at].concat());
        let backend = start(&["backend", "--roles", "access,room,peer", "--listen", ANY]);
        let gateways = ["gw-1", "gw-2"]
            .map(|name| start(&["gateway", "--quic", ANY, "--tcp", ANY, "--name", name]))
            .into();
        let dispatch = start(&["dispatch", "--listen", ANY]);
        let cluster = Self { dir, _redis: redis, _backend: backend, gateways, dispatch };
        until("both gateways are given", || given(&cluster.at(), "default").len() == 2);
        cluster
    }

    /// Where dispatch is.
    fn at(&self) -> String {
        self.dispatch.at("dispatch")
    }

    fn client(&self, user: &str) -> ClientConfig {
        by_dispatch(self.dir.path(), &format!("http://{}", self.at()), "", user)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dispatch_sends_clients_to_gateways_that_live_and_they_do_without_it_where_it_is_away() {
    let mut cluster = Cluster::start();
    // Over both, and with tickets that the gateways take.
    let mut clients = Vec::new();
    for n in 0..4 {
        let config = cluster.client(&format!("user-{n}"));
        let connector = Connector::of(&config).unwrap();
        let connecting = Client::connect_through(&connector, config);
        let (client, events) = within("a connection", connecting).await.unwrap();
        talks(&client).await;
        clients.push((client, events, connector));
    }
    // Who comes by itself has none.
    let gateway = cluster.gateways[0].at("quic");
    let direct = |user: &str| {
        let mut config = ClientConfig::new(&gateway, login(user));
        config.trust = trust(cluster.dir.path());
        config
    };
    let refused = within("a refusal", Client::connect(direct("eve"))).await;
    assert!(
        matches!(&refused, Err(ConnectError::LoginFailed { reason }) if reason.contains("dispatch")),
        "{refused:?}"
    );
    // A ticket is for its user.
    let (_, answer) = ask(&cluster.at(), "/dispatch?user=ada");
    let ticket = answer["ticket"].as_str().unwrap().as_bytes().to_vec();
    let mut config = direct("eve");
    config.ticket.clone_from(&ticket);
    let refused = within("a refusal", Client::connect(config)).await;
    assert!(
        matches!(&refused, Err(ConnectError::LoginFailed { reason }) if reason.contains("another user")),
        "{refused:?}"
    );
    let mut config = direct("ada");
    config.ticket = ticket;
    talks(&within("a connection", Client::connect(config)).await.unwrap().0).await;

    // The load of all that live is there: two gateways, one backend.
    let http = cluster.gateways[1].at("http");
    until("the load of both gateways", || {
        let (_, all) = ask(&http, "/stat/all");
        let of_gateways = all["instances"].as_array().unwrap().iter();
        let connections: u64 = of_gateways
            .filter(|one| one["roles"][0] == "gateway")
            .map(|one| one["report"]["load"]["connections"].as_u64().unwrap())
            .sum();
        all["source"] == "registry"
            && all["instances"].as_array().unwrap().len() == 3
            && connections == 4
    });
    until("the loads are used", || {
        let metrics = get(&cluster.dispatch.at("http"), "/metrics");
        metrics.contains("edgeway_dispatch_stat_is_stale{cluster=\"main\"} 0")
    });

    // A gateway is killed.
    let killed = cluster.gateways.remove(0);
    let gone = killed.at("quic");
    killed.process.signal("KILL");
    let took = until("the killed gateway is given to nobody", || {
        !given(&cluster.at(), "default").contains(&gone)
    });
    eprintln!("a killed gateway was out of the answers after {} ms", took.as_millis());
    assert_eq!(given(&cluster.at(), "default"), [cluster.gateways[0].at("quic")]);
    drop(killed);
    // Those who were there find out by silence, or when asked to look; then all are at the other one.
    for (client, events, _) in &mut clients {
        client.reconnect();
        reconnected(events).await;
        talks(client).await;
    }

    // Dispatch is killed: who was sent somewhere remembers it past its time.
    cluster.dispatch.process.signal("KILL");
    until("dispatch is gone", || std::net::TcpStream::connect(cluster.at()).is_err());
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let (client, events, connector) = &mut clients[0];
    client.reconnect();
    reconnected(events).await;
    talks(client).await;
    client.close().await;
    let again = Client::connect_through(connector, cluster.client("user-0"));
    talks(&within("a connection by what is remembered", again).await.unwrap().0).await;
    // Who was never told knows only what it was configured with; and the gateway's word about tickets is live.
    let nowhere = within("a failure", Client::connect(cluster.client("new"))).await;
    assert!(matches!(&nowhere, Err(ConnectError::Dispatch { .. })), "{nowhere:?}");
    assert!(nowhere.err().unwrap().may_retry());
    write(cluster.dir.path(), "edgeway.toml", &Cluster::config(&cluster._redis.url(), false));
    let mut config = cluster.client("new");
    config.server = cluster.gateways[0].at("quic");
    config.tcp_server = Some(cluster.gateways[0].at("tcp"));
    let start = Instant::now();
    let client = loop {
        match within("a connection by the fallback", Client::connect(config.clone())).await {
            Ok((client, _events)) => break client,
            Err(ConnectError::LoginFailed { .. }) => assert!(start.elapsed() < PATIENCE),
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!(client.user(), "new");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_clusters_behind_one_dispatch_never_mix_and_another_config_holds_at_once() {
    let names = ["red", "blue"];
    let dirs = names.map(|_| tempfile::tempdir().unwrap());
    let mut ups = Vec::new();
    for (name, dir) in names.iter().zip(&dirs) {
        let config = format!(
            "[gateway.dispatch]\ncluster = \"{name}\"\nrequire_ticket = true\n[dispatch]\nticket_keys = [\"{KEY}\"]\n"
        );
        write(dir.path(), "edgeway.toml", &config);
        let args = ["up", "--config", "edgeway.toml", "--quic", ANY, "--tcp", ANY, "--http", ANY];
        ups.push(Up::ready(Process::spawn(dir.path(), &args)));
    }
    let dir = tempfile::tempdir().unwrap();
    let text = |apps: [&str; 2], draining: bool| {
        let clusters = names.iter().zip(&ups).map(|(name, up)| {
            format!(
                "[dispatch.clusters.{name}]\ngateways = [{{ quic = \"{}\", tcp = \"{}\", http = \"{}\", \
                 draining = {} }}]\n",
                up.quic, up.tcp, up.http, draining && *name == "blue"
            )
        });
        let clusters: String = clusters.collect();
        format!(
            "[dispatch]\nttl_ms = 1000\nticket_keys = [\"{KEY}\"]\n{clusters}[dispatch.apps]\nmaths = \"{}\"\n\
             bank = \"{}\"\n",
            apps[0], apps[1]
        )
    };
    write(dir.path(), "edgeway.toml", &text(names, false));
    let args = ["dispatch", "--config", "edgeway.toml", "--listen", ANY, "--http", ANY];
    let dispatch = Node::start(dir.path(), &args);
    let at = dispatch.at("dispatch");
    let (red, blue) = (vec![ups[0].quic.clone()], vec![ups[1].quic.clone()]);
    until("both clusters", || given(&at, "maths") == red && given(&at, "bank") == blue);

    // Each app's clients are in its cluster, and a ticket of one is none of the other's.
    for (app, dir) in ["maths", "bank"].iter().zip(&dirs) {
        let config = by_dispatch(dir.path(), &format!("http://{at}/dispatch"), app, "ada");
        talks(&within("a connection", Client::connect(config)).await.unwrap().0).await;
    }
    let (_, answer) = ask(&at, "/dispatch?app=maths&user=ada");
    let mut config = ClientConfig::new(&ups[1].quic, login("ada"));
    config.trust = trust(dirs[1].path());
    config.ticket = answer["ticket"].as_str().unwrap().as_bytes().to_vec();
    let refused = within("a refusal", Client::connect(config)).await;
    assert!(
        matches!(&refused, Err(ConnectError::LoginFailed { reason }) if reason.contains("another cluster")),
        "{refused:?}"
    );

    // Drained by the config; then the apps change places.
    write(dir.path(), "edgeway.toml", &text(names, true));
    until("blue is drained", || ask(&at, "/dispatch?app=bank").0 == 503);
    assert_eq!(given(&at, "maths"), red);
    write(dir.path(), "edgeway.toml", &text(["blue", "red"], false));
    until("the apps have changed places", || {
        given(&at, "maths") == blue && given(&at, "bank") == red
    });

    // One dies: its apps have nobody, rather than the other cluster's gateway.
    ups[0].process.signal("KILL");
    let took = until("red is given to nobody", || {
        let (status, problem) = ask(&at, "/dispatch?app=bank");
        assert!(status == 503 || given(&at, "bank") != blue);
        problem["type"] == "urn:edgeway:problem:no_gateway"
    });
    eprintln!("a killed gateway of a list was out of the answers after {} ms", took.as_millis());
    assert_eq!(given(&at, "maths"), blue);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn up_dispatches_to_itself_over_http_and_https_and_shows_its_load() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "edgeway.toml", "[dispatch]\ntls_listen = \"127.0.0.1:0\"\n");
    let args = ["up", "--config", "edgeway.toml", "--quic", ANY, "--tcp", ANY, "--http", ANY];
    let mut process = Process::spawn(dir.path(), &args);
    let ready = process.wait_for("ready ");
    let [quic, http, tls] = ["quic", "http", "tls"].map(|name| value(&ready, &format!(" {name}")));
    until("it gives itself", || given(&http, "default") == std::slice::from_ref(&quic));
    for url in [format!("http://{http}"), format!("https://{tls}/dispatch")] {
        let config = by_dispatch(dir.path(), &url, "default", "ada");
        talks(&within("a connection", Client::connect(config)).await.unwrap().0).await;
    }
    // Not trusted, not asked.
    let mut config = by_dispatch(dir.path(), &format!("https://{tls}"), "default", "ada");
    config.trust = Trust::Web;
    let refused = within("a refusal", Client::connect(config)).await;
    assert!(
        matches!(&refused, Err(ConnectError::Dispatch { reason, .. }) if reason.contains("certificate")),
        "{refused:?}"
    );

    until("two samples", || ask(&http, "/stat").1["recent"].as_array().unwrap().len() >= 2);
    let (status, stat) = ask(&http, "/stat");
    let load = &stat["report"]["load"];
    assert_eq!((status, &stat["interval_ms"]), (200, &1_000.into()));
    assert!(load["memory_bytes"].as_u64().unwrap() > 1_000_000, "{stat}");
    for key in [
        "connections",
        "sessions",
        "rooms",
        "messages_in_per_second",
        "messages_out_per_second",
        "cpu_cores",
        "loop_lag_ms",
    ] {
        assert!(load[key].is_number(), "{key}: {stat}");
    }
    assert!(ask(&http, "/stat?recent=0").1["recent"].as_array().unwrap().is_empty());
    assert_eq!(ask(&http, "/stat?recent=1").0, 400);
    let (_, all) = ask(&http, "/stat/all");
    assert_eq!((&all["source"], &all["is_stale"]), (&"self".into(), &false.into()));
    assert_eq!(all["instances"].as_array().unwrap().len(), 1);
}

#[test]
fn what_is_wrong_with_a_request_is_told_as_problem_json() {
    let dir = tempfile::tempdir().unwrap();
    let config = "[dispatch]\nper_ip_per_second = 40\n[dispatch.clusters.main]\n\
        gateways = [{ quic = \"gw.example:4433\" }]\n";
    write(dir.path(), "edgeway.toml", config);
    let args = ["dispatch", "--config", "edgeway.toml", "--listen", ANY, "--http", "off"];
    let dispatch = Node::start(dir.path(), &args);
    let at = dispatch.at("dispatch");
    let (status, answer) = ask(&at, "/dispatch?user=ada");
    assert_eq!((status, &answer["endpoints"][0]["quic"]), (200, &"gw.example:4433".into()));
    assert_eq!(answer["endpoints"][0]["server_name"], "gw.example");
    let (status, answer) = post(&at, "POST", "application/json", "{\"user\": \"ada\"}");
    assert_eq!((status, &answer["cluster"]), (200, &"main".into()));

    let long = format!("/dispatch?user={}", "x".repeat(200));
    let longer = format!("/dispatch?user={}", "x".repeat(5_000));
    for (path, status, kind, says) in [
        ("/dispatch?app=none", 404, "unknown_app", "none"),
        ("/dispatch?usr=ada", 400, "bad_request", "`usr` is no parameter"),
        ("/dispatch?user=%00", 400, "bad_request", "user holds what is no text"),
        (&long, 400, "bad_request", "at most 128"),
        (&longer, 400, "bad_request", "at most 2048"),
        ("/elsewhere", 404, "not_found", "/dispatch?app="),
    ] {
        let (got, problem) = ask(&at, path);
        assert_eq!((got, &problem["status"]), (status, &status.into()), "{path}: {problem}");
        assert_eq!(problem["type"], format!("urn:edgeway:problem:{kind}"));
        assert!(problem["detail"].as_str().unwrap().contains(says), "{problem}");
    }
    let big = format!("{{\"user\": \"{}\"}}", "x".repeat(5_000));
    for (method, kind, body, status) in [
        ("DELETE", "application/json", "", 405),
        ("POST", "text/plain", "{}", 415),
        ("POST", "application/json", "{", 400),
        ("POST", "application/json", "{\"user\": 5}", 400),
        ("POST", "application/json", &big, 413),
    ] {
        let (got, problem) = post(&at, method, kind, body);
        assert_eq!(
            (got, &problem["status"]),
            (status, &status.into()),
            "{method} {body}: {problem}"
        );
    }
    // A flood is told so, and does no harm to those who come after it.
    let flood = until("a flood is refused", || (0..300).any(|_| ask(&at, "/dispatch").0 == 429));
    eprintln!("a flood was refused after {} ms", flood.as_millis());
    until("it is over", || ask(&at, "/dispatch").0 == 200);
}
