//! What business systems set and see over HTTP: room state, history, who is where, who may be in rooms and who may speak.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use edgeway_client::{
    Client, ClientConfig, CloseCode, ErrorCode, Event, Events, LeftCause, Login, RequestError,
    Room, SendError, TransportChoice, Trust,
};
use serde_json::{Value, json};
use support::{
    Process, Up,
    api::{Key, System},
    write,
};

/// Above what a busy machine takes.
const PATIENCE: Duration = Duration::from_secs(60);

async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("it did not happen in time")
}

fn up(dir: &Path) -> Up {
    let any = "127.0.0.1:0";
    let args = ["up", "--config", "edgeway.toml", "--quic", any, "--tcp", any, "--http", any];
    Up::ready(Process::spawn(dir, &args))
}

fn with_system(dir: &Path, config: &str) -> (Up, System) {
    let Key { key, lines } = Key::all(dir, "school");
    write(dir, "edgeway.toml", &format!("{config}\n{lines}"));
    let up = up(dir);
    let http = up.http.clone();
    (up, System { http, key })
}

async fn connect(up: &Up, user: &str) -> (Client, Events) {
    let quic = user.len().is_multiple_of(2);
    let server = if quic { &up.quic } else { &up.tcp };
    let mut config = ClientConfig::new(server, Login::Development { user: user.to_owned() });
    config.trust = Trust::Ca(std::fs::read(&up.ca).unwrap());
    config.transport = if quic { TransportChoice::Quic } else { TransportChoice::Tcp };
    within(Client::connect(config)).await.unwrap()
}

async fn join(up: &Up, user: &str) -> (Client, Events, Room) {
    let (client, events) = connect(up, user).await;
    let room = within(client.join("lesson")).await.unwrap();
    (client, events, room)
}

#[track_caller]
fn done(system: &System, method: &str, path: &str) -> Value {
    let answer = system.ask(method, path, &[], "");
    assert_eq!(answer.status, 200, "{method} {path}: {answer:?}");
    answer.body
}

async fn says(room: &Room, text: &'static str) -> Result<(), String> {
    match within(room.send_chat(text.into())).await {
        Ok(_) => Ok(()),
        Err(SendError::Refused { code: Some(ErrorCode::Forbidden), detail }) => {
            Err(detail.split(':').next().unwrap().to_owned())
        }
        Err(other) => panic!("{other}"),
    }
}

async fn left(events: &mut Events) -> LeftCause {
    loop {
        if let Event::Left { cause, .. } = within(events.next()).await.unwrap() {
            return cause;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn state_is_set_and_seen_and_history_is_read_by_range() {
    let dir = tempfile::tempdir().unwrap();
    let (up, system) = with_system(dir.path(), "");
    let put = |path: &str, body: Value| system.ask("PUT", path, &[], &body.to_string());
    let state = "/v1/rooms/lesson/state";
    assert_eq!(system.get(state).problem(), "no_such_room");
    assert_eq!(put(&format!("{state}/page"), json!({ "json": {"page": 1} })).status, 200);
    let set = put(&format!("{state}/page"), json!({ "text": "7" }));
    put(&format!("{state}/quiz"), json!({ "base64": "/w==" }));
    let (_ada, _, ada) = join(&up, "ada").await;
    assert_eq!(&ada.state_of("page").unwrap().payload[..], b"7");
    let seen = system.get(state).body;
    assert_eq!(
        (&seen["state"][0]["place"], &seen["state"][0]["text"]),
        (&set.body["place"], &json!("7"))
    );
    assert_eq!(
        (&seen["state"][1]["key"], &seen["state"][1]["base64"]),
        (&json!("quiz"), &json!("/w=="))
    );
    done(&system, "DELETE", &format!("{state}/quiz"));
    assert_eq!(system.get(state).body["state"].as_array().unwrap().len(), 1);
    for (path, body) in [("page", json!({ "text": "" })), ("@rules", json!({ "text": "x" }))] {
        assert_eq!(put(&format!("{state}/{path}"), body).problem(), "bad_request");
    }

    for n in 0..10 {
        within(ada.send_signal(n.to_string().into())).await.unwrap();
    }
    let history = |range: &str| system.get(&format!("/v1/rooms/lesson/history{range}"));
    let all = history("").body;
    let messages = all["messages"].as_array().unwrap();
    assert_eq!((messages.len(), &all["more"]), (14, &json!(false)));
    assert_eq!((&messages[4]["sender"], &messages[4]["text"]), (&json!("ada"), &json!("0")));
    let (after, upto) = (&messages[5]["place"], &messages[8]["place"]);
    let range = format!("after={}&upto={}", after.as_str().unwrap(), upto.as_str().unwrap());
    let part = history(&format!("?{range}")).body;
    assert_eq!((&part["messages"], &part["upto"]), (&json!(messages[6..9]), upto));
    assert_eq!(part["more"], json!(false));
    let page = history(&format!("?limit=2&{range}")).body;
    assert_eq!((&page["messages"], &page["more"]), (&json!(messages[6..8]), &json!(true)));
    for bad in ["?limit=0", "?limit=201", "?after=7", "?after=1-x", "?class=loud", "?colour=red"] {
        assert_eq!(history(bad).problem(), "bad_request", "{bad}");
    }
    assert_eq!(history("?class=binary").body["messages"], json!([]));

    let until = |path: &str, good: &dyn Fn(&Value) -> bool| {
        let start = Instant::now();
        loop {
            let answer = system.get(path);
            if good(&answer.body) {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "{path}: {answer:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    until("/v1/rooms/lesson/members", &|body| body["members"][0]["user"] == "ada");
    until("/v1/users/ada", &|body| body["online"] == true && body["sessions"][0]["type"] == "chat");
    assert_eq!(system.get("/v1/users/nobody").body, json!({ "online": false, "sessions": [] }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mutes_and_blocks_of_a_room_and_of_all_rooms_hold_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (mut up, mut system) = with_system(dir.path(), "");
    let (_eve, _, eve) = join(&up, "eve").await;
    let (_bob, _, bob) = join(&up, "bob").await;
    assert_eq!(says(&eve, "hello").await, Ok(()));
    let mute = "/v1/rooms/lesson/mutes/eve";
    assert_eq!(done(&system, "PUT", mute), json!({ "changed": true }));
    assert_eq!(done(&system, "PUT", mute), json!({ "changed": false }));
    assert_eq!(says(&eve, "x").await, Err("muted".to_owned()));
    assert_eq!(says(&bob, "x").await, Ok(()));
    let (other, _events) = connect(&up, "eve").await;
    let elsewhere = within(other.join("elsewhere")).await.unwrap();
    assert_eq!(says(&elsewhere, "x").await, Ok(()), "the mute is of one room");
    done(&system, "PUT", "/v1/blocks/mallory?for_s=3600");
    done(&system, "PUT", "/v1/rooms/lesson/blocks/trent");

    // What was set is with the room, and not with the process that has it now.
    up.process.signal("TERM");
    assert_eq!(up.process.finish().0, 0);
    up = self::up(dir.path());
    system.http.clone_from(&up.http);
    for (user, told) in [("eve", "muted"), ("mallory", "blocked"), ("trent", "blocked")] {
        let (_client, _events, room) = join(&up, user).await;
        assert_eq!(says(&room, "x").await, Err(told.to_owned()), "{user}");
    }
    let (_client, _events, eve) = join(&up, "eve").await;
    done(&system, "DELETE", mute);
    assert_eq!(says(&eve, "at last").await, Ok(()));
    done(&system, "PUT", "/v1/rooms/lesson/mute");
    assert_eq!(says(&eve, "x").await, Err("room_muted".to_owned()));
    done(&system, "DELETE", "/v1/rooms/lesson/mute");

    // Of all rooms: within a second.
    done(&system, "PUT", "/v1/mutes/eve");
    let start = Instant::now();
    while says(&eve, "x").await != Err("muted".to_owned()) {
        assert!(start.elapsed() < PATIENCE);
    }
    done(&system, "DELETE", "/v1/mutes/eve");
    let start = Instant::now();
    while says(&eve, "x").await != Ok(()) {
        assert!(start.elapsed() < PATIENCE);
    }
    for path in [
        "/v1/mutes/@me",
        "/v1/rooms/lesson/mutes/a%2Fb",
        "/v1/mutes/eve?for_s=0",
        "/v1/mutes/eve?for=1",
    ] {
        assert_eq!(system.ask("PUT", path, &[], "").problem(), "bad_request", "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rooms_are_opened_and_closed_and_users_are_put_out() {
    let dir = tempfile::tempdir().unwrap();
    let (up, system) = with_system(dir.path(), "[rooms]\ncreate = \"api\"\n");
    let (client, mut events) = connect(&up, "ada").await;
    let refused = async |code: ErrorCode| match within(client.join("lesson")).await {
        Err(RequestError::Refused { code: told, .. }) => assert_eq!(told, code),
        other => panic!("{:?}", other.err()),
    };
    refused(ErrorCode::NoSuchRoom).await;
    let message = json!({ "text": "hello" });
    let send = || system.post("/v1/rooms/lesson/messages", &message);
    assert_eq!(send().problem(), "no_such_room");
    let mute = system.ask("PUT", "/v1/rooms/lesson/mutes/ada", &[], "");
    assert_eq!(mute.problem(), "no_such_room", "which does not make a room");
    done(&system, "POST", "/v1/rooms/lesson/open");
    within(client.join("lesson")).await.unwrap();
    assert_eq!(send().status, 200);

    assert_eq!(
        done(&system, "POST", "/v1/rooms/lesson/members/ada/kick"),
        json!({ "sessions": 1 })
    );
    assert_eq!(left(&mut events).await, LeftCause::Ended(CloseCode::Kicked));
    assert_eq!(
        done(&system, "POST", "/v1/rooms/lesson/members/ada/kick"),
        json!({ "sessions": 0 })
    );
    within(client.join("lesson")).await.unwrap();

    assert_eq!(done(&system, "POST", "/v1/rooms/lesson/close"), json!({ "changed": true }));
    assert_eq!(left(&mut events).await, LeftCause::Ended(CloseCode::Kicked));
    refused(ErrorCode::RoomClosed).await;
    let closed = send();
    assert_eq!((closed.status, closed.problem()), (409, "room_closed"));
    let history = system.get("/v1/rooms/lesson/history").body;
    assert_eq!(history["messages"][0]["text"], "hello", "what was said stays");
    done(&system, "POST", "/v1/rooms/lesson/open");
    within(client.join("lesson")).await.unwrap();
    assert_eq!(send().status, 200);
}
