//! A business system that sends by two processes with the role push, while owners go.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use edgeway_client::{Bytes, Class, Event, Events, Seq};
use serde_json::json;
use tokio::task::JoinHandle;

use crate::{
    cluster::{Cluster, PATIENCE, within},
    pause,
    support::{
        api::{Key, System},
        write,
    },
};

const ROOM: &str = "lesson";
const PATH: &str = "/v1/rooms/lesson/messages";
/// Said after all else.
const END: &str = "end";
/// Between the messages of one speaker: three of them stay below the 1,000 a second of an API key.
const BREATH: Duration = Duration::from_millis(5);

/// A signal a time, each by both processes under the same key, until told to stop: text and place.
fn speak(systems: [System; 2], name: char, until: Instant) -> JoinHandle<Vec<(String, String)>> {
    tokio::task::spawn_blocking(move || {
        let mut said = Vec::new();
        while Instant::now() < until {
            let text = format!("{name} {}", said.len());
            let body = json!({ "text": text });
            let places = [0, 1].map(|n| {
                let start = Instant::now();
                loop {
                    // As docs/PUSH.md says: what may pass is asked again, with the same key.
                    let answer = systems[n].post_once(PATH, &text, &body);
                    match answer.status {
                        200 => break answer.body["place"].as_str().unwrap().to_owned(),
                        503 if start.elapsed() < PATIENCE => {}
                        _ => panic!("{answer:?}"),
                    }
                }
            });
            assert_eq!(places[0], places[1], "{text} has one place");
            let [place, _] = places;
            said.push((text, place));
            std::thread::sleep(BREATH);
        }
        said
    })
}

/// The instance that has the members' room: one may have what is set for all rooms.
fn owner_of(cluster: &Cluster) -> String {
    let members = |name: &&String| cluster.node(name).metric("edgeway_owner_members", "") > 0.0;
    let rooms = cluster.nodes.keys().filter(|name| name.starts_with("room"));
    let owners: Vec<_> = rooms.filter(members).collect();
    assert_eq!(owners.len(), 1, "{owners:?}");
    owners[0].clone()
}

/// What a member hears, until the end.
async fn hear(mut events: Events) -> Vec<(Seq, String)> {
    let mut heard = Vec::new();
    loop {
        match within("a message", events.next()).await.expect("the client goes on") {
            Event::Message(message) if message.class == Class::Signal && message.key.is_empty() => {
                let text = String::from_utf8(message.payload.to_vec()).unwrap();
                if text == END {
                    return heard;
                }
                heard.push((message.seq, text));
            }
            Event::HistoryLost { .. } => panic!("history is lost"),
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_system_sends_has_one_effect_also_where_the_owner_of_the_room_is_killed() {
    let mut cluster = Cluster::start(3);
    let Key { key, lines } = Key::all(cluster.dir.path(), "school");
    let config = std::fs::read_to_string(cluster.dir.path().join("edgeway.toml")).unwrap();
    write(cluster.dir.path(), "push.toml", &format!("{config}{lines}"));
    cluster.add_push("push-1");
    cluster.add_push("push-2");
    let systems = ["push-1", "push-2"].map(|name| {
        let http = cluster.node(name).at("http");
        System { http, key: key.clone() }
    });
    let (mut clients, mut all) = (Vec::new(), Vec::new());
    for n in 0..4 {
        let (client, events) = cluster.connect(n).await;
        within("a join", client.join(ROOM)).await.unwrap();
        clients.push(client);
        all.push(tokio::spawn(hear(events)));
    }
    let until = Instant::now() + Duration::from_secs(8);
    let speaking = ['a', 'b', 'c'].map(|name| speak(systems.clone(), name, until));
    pause(2).await;
    // What is set holds with the next owner too; of all rooms, with every owner.
    for path in ["/v1/rooms/lesson/mutes/user-0", "/v1/blocks/user-1"] {
        let answer = systems[0].ask("PUT", path, &[], "");
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    let first = owner_of(&cluster);
    cluster.take(&first).process.signal("KILL");
    tokio::task::block_in_place(|| {
        cluster.wait_until("another owner", |cluster| {
            let rooms = cluster.nodes.iter().filter(|(name, _)| name.starts_with("room"));
            rooms.map(|(_, node)| node.metric("edgeway_owner_members", "")).sum::<f64>() >= 4.0
        });
    });
    let mut rooms = Vec::new();
    for client in &clients[..3] {
        rooms.push(within("a join", client.join(ROOM)).await.unwrap());
    }
    for (room, speaks) in rooms.iter().zip([false, false, true]) {
        let text = Bytes::from_static(b"chat");
        let sent = within("an ack of chat", room.send_chat(text)).await;
        assert_eq!(sent.is_ok(), speaks, "{sent:?}");
    }
    let mut said = BTreeMap::new();
    for one in speaking {
        said.extend(within("the last answers", one).await.unwrap());
    }
    let answer = systems[0].post(PATH, &json!({ "text": END }));
    assert_eq!(answer.status, 200, "{answer:?}");
    for heard in all {
        let heard = heard.await.unwrap();
        assert!(heard.is_sorted_by(|a, b| a.0 < b.0), "in one order: {heard:?}");
        let heard: BTreeMap<_, _> =
            heard.into_iter().map(|(seq, text)| (text, seq.to_string())).collect();
        assert!(heard == said, "each once, at the place that its answer told");
    }
    let epochs: Vec<_> = said.values().map(|place| place.split_once('-').unwrap().0).collect();
    assert!(epochs.iter().any(|epoch| *epoch != epochs[0]), "two owners: {epochs:?}");
    cluster.end();
}
