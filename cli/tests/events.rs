//! Events in files: what users do is there, once and in order, after any end of the process.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

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
    get,
    talk::{connect, drain, within},
    write,
};

const ANY: &str = "127.0.0.1:0";

fn up(dir: &Path) -> Up {
    let args = ["up", "--config", "edgeway.toml", "--quic", ANY, "--tcp", ANY, "--http", ANY];
    Up::ready(Process::spawn(dir, &args))
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let all = fs::read_dir(dir.join("edgeway-data/events")).unwrap();
    let is_one = |path: &PathBuf| path.extension().is_some_and(|end| end == "jsonl");
    let mut files: Vec<_> = all.map(|entry| entry.unwrap().path()).filter(is_one).collect();
    files.sort();
    files
}

fn recorded(dir: &Path) -> Vec<Recorded> {
    let text: String = files(dir).iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    // The last one may be just being written.
    let whole = text.rfind('\n').map_or(0, |at| at + 1);
    text[..whole].lines().map(Recorded::parse).collect()
}

fn what(events: &[Recorded]) -> Vec<String> {
    events.iter().map(Recorded::what).collect()
}

#[tokio::test]
async fn what_users_do_is_in_the_file_once_and_in_order_after_any_end_of_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    write(dir, "edgeway.toml", "[events]\nmessages = [\"signal\", \"chat\"]\n");
    let first = up(dir);
    let text = |text: &str| Bytes::from(text.to_owned());

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
async fn files_are_rotated_and_what_is_recorded_is_counted() {
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

#[test]
fn a_directory_that_cannot_be_written_is_told_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "file", "");
    write(dir.path(), "edgeway.toml", "[events]\npath = \"file/events\"\n");
    let args = ["up", "--config", "edgeway.toml", "--quic", ANY, "--tcp", ANY, "--http", ANY];
    let (code, _, error) = support::run(dir.path(), &args, "");
    assert_ne!(code, 0);
    assert!(error.contains("file/events") && error.contains("events.path"), "{error}");
}
