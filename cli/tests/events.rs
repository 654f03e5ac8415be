//! The storage, into files: what users do is there, once and in order, after any end of the process.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]
// Counts, which are small.
#![allow(clippy::cast_possible_truncation)]

mod support;

use std::{
    fs::{self, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
};

use edgeway_client::{AckStatus, Bytes};
use support::{
    Process, Up,
    events::{Recorded, is_whole},
    free_ports, get,
    talk::{connect, drain, within},
    write,
};

const ANY: &str = "127.0.0.1:0";

fn up(dir: &Path) -> Up {
    let args = ["up", "--config", "edgeway.toml", "--quic", ANY, "--tcp", ANY, "--http", ANY];
    Up::ready(Process::spawn(dir, &args))
}

fn files(dir: &Path) -> Vec<PathBuf> {
    files_in(&dir.join("edgeway-data/events"))
}

fn files_in(dir: &Path) -> Vec<PathBuf> {
    let all = fs::read_dir(dir).unwrap();
    let is_one = |path: &PathBuf| path.extension().is_some_and(|end| end == "jsonl");
    let mut files: Vec<_> = all.map(|entry| entry.unwrap().path()).filter(is_one).collect();
    files.sort();
    files
}

fn recorded(dir: &Path) -> Vec<Recorded> {
    recorded_in(&dir.join("edgeway-data/events"))
}

fn recorded_in(dir: &Path) -> Vec<Recorded> {
    let text: String = files_in(dir).iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    // The last one may be just being written.
    let whole = text.rfind('\n').map_or(0, |at| at + 1);
    text[..whole].lines().map(Recorded::parse).collect()
}

fn text_of(text: &str) -> Bytes {
    Bytes::from(text.to_owned())
}

fn what(events: &[Recorded]) -> Vec<String> {
    events.iter().map(Recorded::what).collect()
}

#[tokio::test]
async fn storage_what_users_do_is_in_the_file_once_and_in_order_after_any_end_of_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    write(dir, "edgeway.toml", "[events]\nmessages = [\"signal\", \"chat\"]\n");
    let first = up(dir);
    let text = text_of;

    // Two devices of one user. The second one to come joins nothing, and the first one to go leaves nothing.
    let (phone, _phone_events) = connect(dir, &first.quic, true, 0).await;
    let on_phone = within(phone.join("lesson")).await.unwrap();
    let (tablet, _tablet_events) = connect(dir, &first.tcp, false, 0).await;
    let on_tablet = within(tablet.join("lesson")).await.unwrap();
    within(on_phone.leave()).await.unwrap();
    for n in ["one", "two"] {
        within(on_tablet.send_signal(text(n))).await.unwrap();
    }
    within(on_tablet.send_stroke(text("not asked for"))).await.unwrap();
    let ack = within(on_tablet.send_chat(text("three"))).await.unwrap();
    assert_eq!(ack.status, AckStatus::Accepted);
    // A lost connection that comes back is nothing that happened.
    tablet.reconnect();
    within(on_tablet.send_signal(text("four"))).await.unwrap();
    within(on_tablet.leave()).await.unwrap();
    let devices = [phone.device(), tablet.device()];
    within(tablet.close()).await;
    within(phone.close()).await;
    first.process.signal("TERM");
    assert_eq!(first.process.finish().0, 0);

    let events = recorded(dir);
    let expected = [
        format!("online {}", devices[0]),
        "join lesson".to_owned(),
        format!("online {}", devices[1]),
        "signal b25l".to_owned(),
        "signal dHdv".to_owned(),
        "chat dGhyZWU=".to_owned(),
        "signal Zm91cg==".to_owned(),
        "leave lesson left".to_owned(),
    ];
    assert_eq!(what(&events)[..8], expected, "{events:#?}");
    let mut offline = what(&events)[8..].to_vec();
    offline.sort();
    let mut expected = devices.map(|device| format!("offline {device}"));
    expected.sort();
    assert_eq!(offline, expected);
    is_whole(&events);
    assert!(events.iter().all(|event| event.text("user") == "user-0"));
    assert_eq!(events[3].0["message"], 1);
    assert!(events[3].text("seq").ends_with("-1"), "{:?}", events[3]);

    // The next one is killed, and what it wrote last is torn.
    let second = up(dir);
    let (client, _events) = connect(dir, &second.quic, true, 1).await;
    let room = within(client.join("lesson")).await.unwrap();
    within(room.send_signal(text("five"))).await.unwrap();
    let start = std::time::Instant::now();
    while recorded(dir).len() < events.len() + 3 {
        assert!(start.elapsed().as_secs() < 60, "{:#?}", recorded(dir));
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    second.process.signal("KILL");
    drop(second.process);
    let last = files(dir).pop().unwrap();
    OpenOptions::new().append(true).open(&last).unwrap().write_all(b"{\"v\":1,\"id\":").unwrap();

    // What is torn is gone, what was before it is not, and the ids are others.
    let third = up(dir);
    drop(client);
    let (client, _events) = connect(dir, &third.quic, true, 2).await;
    within(client.join("other")).await.unwrap();
    third.process.signal("TERM");
    assert_eq!(third.process.finish().0, 0);
    let all = recorded(dir);
    assert_eq!(files(dir).len(), 1, "one file goes on");
    let (before, after) = all.split_at(events.len());
    assert_eq!(before, events);
    assert_eq!(what(&after[1..3]), ["join lesson", "signal Zml2ZQ=="]);
    is_whole(&after[..3]);
    let last = &after[3..];
    assert_eq!(last[0].text("user"), "user-2");
    assert_eq!(what(&last[1..2]), ["join other"]);
    is_whole(last);
    let runs: Vec<_> = [&events[0], &after[0], &last[0]].map(|event| event.id().0).into();
    assert!(runs[0] != runs[1] && runs[1] != runs[2], "{runs:?}");
    // It was still there when the process stopped, in order.
    let gone = |begins: &str| what(last).iter().any(|what| what.starts_with(begins));
    assert!(gone("leave other") && gone("offline"), "{:?}", what(last));
}

#[tokio::test]
async fn storage_files_are_rotated_and_what_is_recorded_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let text = "[events]\nmessages = [\"signal\"]\nsync_ms = 0\n[events.file]\nmax_bytes = 65536\n\
                keep_files = 2\nkeep_bytes = 196608\n";
    write(dir, "edgeway.toml", text);
    let up = up(dir);
    let (client, events) = connect(dir, &up.quic, true, 0).await;
    drain(events);
    let room = within(client.join("lesson")).await.unwrap();
    for _ in 0..12 {
        within(room.send_signal(Bytes::from(vec![b'x'; 30_000]))).await.unwrap();
    }
    let value = |name: &str| -> u64 {
        let metrics = get(&up.http, "/metrics");
        let lines = metrics.lines().filter(|line| line.starts_with(name));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u64).sum()
    };
    let start = std::time::Instant::now();
    while value("edgeway_events_written_total") < 14 {
        assert!(start.elapsed().as_secs() < 60, "{}", get(&up.http, "/metrics"));
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(value("edgeway_events_recorded_total"), 14);
    assert_eq!(value("edgeway_events_dropped_total"), 0);
    let files = files(dir);
    assert_eq!(files.len(), 2, "{files:?}");
    assert!(files.iter().all(|file| fs::metadata(file).unwrap().len() <= 65_536));
    let events = recorded(dir);
    let counters: Vec<_> = events.iter().map(|event| event.id().1).collect();
    assert!(counters.is_sorted() && counters.last() == Some(&14), "{counters:?}");
    drop(client);
}

/// Each in a process of its own, all of them told of the same directory.
#[tokio::test]
async fn storage_processes_of_a_cluster_record_what_their_roles_see() {
    const ROLES: [&str; 4] = ["room", "room", "peer", "access"];
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    // It makes the certificates.
    drop(Up::start(dir));
    let addrs: [String; 4] = free_ports();
    let text = format!(
        "[backends]\nroom = {:?}\npeer = {:?}\naccess = {:?}\n[events]\npath = \"events\"\n\
         messages = [\"signal\"]\n[gateway.tls]\ncert = \"edgeway-data/certs/server.pem\"\n\
         key = \"edgeway-data/certs/server.key\"\n[http]\nlisten = \"\"\n",
        &addrs[..2],
        &addrs[2..3],
        &addrs[3..]
    );
    write(dir, "edgeway.toml", &text);
    let mut backends = Vec::new();
    for (n, (role, addr)) in ROLES.iter().zip(&addrs).enumerate() {
        let (data, slot) = (format!("data-{n}"), (n + 1).to_string());
        let args = ["backend", "--config", "edgeway.toml", "--roles", role, "--listen", addr];
        let more = ["--data-dir", &data, "--slot", &slot, "--name", &data];
        let mut process = Process::spawn(dir, &[&args[..], &more].concat());
        process.wait_for("ready grpc=");
        backends.push(process);
    }
    let args = ["gateway", "--config", "edgeway.toml", "--quic", ANY, "--tcp", ANY];
    let mut gateway = Process::spawn(dir, &args);
    let ready = gateway.wait_for("ready ");
    let quic = ready.split("quic=").nth(1).unwrap().split(' ').next().unwrap();

    let (client, events) = connect(dir, quic, true, 0).await;
    drain(events);
    // So many rooms that both owners have some.
    let rooms: Vec<_> = (0..30).map(|n| format!("lesson-{n}")).collect();
    for name in &rooms {
        let room = within(client.join(name)).await.unwrap();
        within(room.send_signal(text_of(name))).await.unwrap();
        within(room.leave()).await.unwrap();
    }
    let device = client.device();
    within(client.close()).await;
    for process in [gateway].into_iter().chain(backends) {
        process.signal("TERM");
        let (code, _, log) = process.finish();
        assert_eq!(code, 0, "{log}");
    }

    // One has the directory, and the others those beside it.
    let of_process = ["events", "events-2", "events-3", "events-4"].map(|name| {
        let recorded = recorded_in(&dir.join(name));
        is_whole(&recorded);
        recorded
    });
    let of_node = |n: usize| -> Vec<Recorded> {
        let name = format!("data-{n}");
        let all = of_process.iter().flatten();
        all.filter(|event| event.text("node") == name).cloned().collect()
    };
    assert_eq!(what(&of_node(3)), [format!("online {device}"), format!("offline {device}")]);
    assert_eq!(what(&of_node(2)), [""; 0]);
    let owners = [of_node(0), of_node(1)];
    assert!(owners.iter().all(|of| !of.is_empty()), "both have rooms: {owners:#?}");
    for name in &rooms {
        let of_room = |events: &Vec<Recorded>| -> Vec<Recorded> {
            events.iter().filter(|event| event.text("room") == *name).cloned().collect()
        };
        let [one, other] = owners.each_ref().map(of_room);
        let of_room = if one.is_empty() { other } else { one };
        let expected = ["join", "message", "leave"];
        assert!(of_room.iter().map(|event| event.text("type")).eq(expected), "{of_room:#?}");
    }
    assert_eq!(owners.iter().map(Vec::len).sum::<usize>(), rooms.len() * 3);
}

#[test]
fn storage_a_directory_that_cannot_be_written_is_told_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "file", "");
    write(dir.path(), "edgeway.toml", "[events]\npath = \"file/events\"\n");
    let args = ["up", "--config", "edgeway.toml", "--quic", ANY, "--tcp", ANY, "--http", ANY];
    let (code, _, error) = support::run(dir.path(), &args, "");
    assert_ne!(code, 0);
    assert!(error.contains("file/events") && error.contains("events.path"), "{error}");
}
