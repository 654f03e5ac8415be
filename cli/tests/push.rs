//! The HTTP API for business systems (SOURCE.md: HttpPushServer): what members get, and what is refused.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::{path::Path, time::Duration};

use edgeway_client::{
    Class, Client, ClientConfig, Event, Events, Login, Message, Room, Seq, TransportChoice, Trust,
};
use serde_json::{Value, json};
use support::{
    Process, Up,
    api::{JSON, Key, System, call},
    ask, get, write,
};

/// Above what a busy machine takes.
const PATIENCE: Duration = Duration::from_secs(60);

async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("it did not happen in time")
}

fn up(dir: &Path, config: &str) -> Up {
    write(dir, "edgeway.toml", config);
    let any = "127.0.0.1:0";
    let args = ["up", "--config", "edgeway.toml", "--quic", any, "--tcp", any, "--http", any];
    Up::ready(Process::spawn(dir, &args))
}

/// With a key that may do everything.
fn with_system(dir: &Path, config: &str) -> (Up, System) {
    let Key { key, lines } = Key::all(dir, "school");
    let up = up(dir, &format!("{config}\n{lines}"));
    let http = up.http.clone();
    (up, System { http, key })
}

async fn connect(up: &Up, transport: TransportChoice, user: &str) -> (Client, Events) {
    on_device(up, transport, user, "").await
}

async fn on_device(
    up: &Up,
    transport: TransportChoice,
    user: &str,
    device: &str,
) -> (Client, Events) {
    let server = if transport == TransportChoice::Quic { &up.quic } else { &up.tcp };
    let mut config = ClientConfig::new(server, Login::Development { user: user.to_owned() });
    config.trust = Trust::Ca(std::fs::read(&up.ca).unwrap());
    config.transport = transport;
    config.device = device.to_owned();
    within(Client::connect(config)).await.unwrap()
}

async fn join(up: &Up, transport: TransportChoice, user: &str) -> (Client, Events, Room) {
    let (client, events) = connect(up, transport, user).await;
    let room = within(client.join("lesson")).await.unwrap();
    (client, events, room)
}

async fn message(events: &mut Events) -> Message {
    loop {
        if let Event::Message(message) = within(events.next()).await.unwrap() {
            return message;
        }
    }
}

fn text(message: &Message) -> &str {
    std::str::from_utf8(&message.payload).unwrap()
}

const LESSON: &str = "/v1/rooms/lesson/messages";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_of_the_system_takes_its_place_in_the_room_s_order_on_both_transports() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "words.txt", "reject: worst\n");
    let filter = "[filter]\nwords_file = \"words.txt\"\nclasses = [\"chat\", \"signal\"]\n";
    let (up, system) = with_system(dir.path(), filter);
    let (_ada, mut ada_hears, ada) = join(&up, TransportChoice::Quic, "ada").await;
    let (_bob, mut bob_hears, _) = join(&up, TransportChoice::Tcp, "bob").await;

    within(ada.send_signal("one".into())).await.unwrap();
    let two = system.post(LESSON, &json!({ "text": "the worst" }));
    within(ada.send_signal("three".into())).await.unwrap();
    assert_eq!(two.status, 200, "{two:?}");
    assert_eq!(two.body["status"], "sent");
    for events in [&mut ada_hears, &mut bob_hears] {
        let all = [message(events).await, message(events).await, message(events).await];
        let texts: Vec<_> = all.iter().map(|m| (text(m), &*m.sender)).collect();
        assert_eq!(texts, [("one", "ada"), ("the worst", ""), ("three", "ada")]);
        assert_eq!(two.body["place"], all[1].seq.to_string());
        assert_eq!([1, 2, 3], [0, 1, 2].map(|n: usize| all[n].seq.counter));
    }

    let chat = system.post(LESSON, &json!({ "base64": "AAH/", "class": "chat" }));
    assert_eq!((chat.status, &chat.body["class"]), (200, &json!("chat")));
    let heard = message(&mut bob_hears).await;
    assert_eq!((heard.class, &heard.payload[..]), (Class::Chat, &[0, 1, 255][..]));

    // Room state, for who joins later.
    let page = json!({ "json": {"page": 7}, "key": "page" });
    assert_eq!(system.post(LESSON, &page).status, 200);
    let (_cleo, _, cleo) = join(&up, TransportChoice::Quic, "cleo").await;
    assert_eq!(text(&cleo.state_of("page").unwrap()), r#"{"page":7}"#);

    // What is void is not read in history.
    let soon = json!({ "text": "soon over", "ttl_ms": 1 });
    assert_eq!(system.post(LESSON, &soon).status, 200);
    tokio::time::sleep(Duration::from_millis(5)).await;
    let history = within(cleo.history(Class::Signal, Seq::ZERO, 0)).await.unwrap();
    let texts: Vec<_> = history.messages.iter().map(text).collect();
    assert_eq!(texts, ["one", "the worst", "three", r#"{"page":7}"#]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_rooms_get_a_message_each_and_a_user_s_inbox_keeps_it() {
    let dir = tempfile::tempdir().unwrap();
    let (up, system) = with_system(dir.path(), "");
    let (client, mut events) = connect(&up, TransportChoice::Quic, "ada").await;
    let names: Vec<String> = (0..200).map(|n| format!("room-{n}")).collect();
    for room in within(client.join_all(names.clone())).await {
        room.unwrap();
    }
    // One of them has never been.
    let rooms = [&names[..], &["nobody was here".to_owned()]].concat();
    let body = json!({ "rooms": rooms, "text": "Break" });
    let sent = system.post_once("/v1/messages", "break-1", &body);
    assert_eq!((sent.status, &sent.body["failed"]), (200, &json!(0)), "{sent:?}");
    let told: Vec<_> = sent.body["rooms"].as_array().unwrap().iter().map(|r| &r["room"]).collect();
    assert_eq!(
        told,
        rooms.iter().map(|name| json!(name)).collect::<Vec<_>>().iter().collect::<Vec<_>>()
    );
    let again = system.post_once("/v1/messages", "break-1", &body);
    assert_eq!((again.header("idempotent-replayed"), &again.body), (Some("true"), &sent.body));
    let mut heard = std::collections::BTreeSet::new();
    while heard.len() < names.len() {
        let message = message(&mut events).await;
        assert_eq!(text(&message), "Break");
        assert!(heard.insert(message.room.to_string()), "{} twice", message.room);
    }

    // Sent before the user was ever there.
    for inbox in ["push", "research_push", "im"] {
        let body = json!({ "text": format!("for {inbox}"), "inbox": inbox });
        let sent = system.post("/v1/users/bob/messages", &body);
        assert_eq!((sent.status, &sent.body["place"]), (200, &json!("1-1")), "{sent:?}");
    }
    let (bob, _events) = connect(&up, TransportChoice::Tcp, "bob").await;
    for kind in ["push", "research_push"] {
        let inbox = within(bob.inbox(kind)).await.unwrap();
        let kept = within(inbox.room().history(Class::Signal, Seq::ZERO, 0)).await.unwrap();
        assert_eq!(kept.messages.iter().map(text).collect::<Vec<_>>(), [format!("for {kind}")]);
    }
    let inbox = within(bob.im()).await.unwrap();
    let kept = within(inbox.room().history(Class::Signal, Seq::ZERO, 0)).await.unwrap();
    assert_eq!(kept.messages.iter().map(text).collect::<Vec<_>>(), ["for im"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_comes_again_has_one_effect_and_the_same_answer() {
    let dir = tempfile::tempdir().unwrap();
    let (up, system) = with_system(dir.path(), "");
    let (_ada, _, room) = join(&up, TransportChoice::Quic, "ada").await;
    let body = json!({ "text": "once" });
    // Twenty at once, and some afterwards.
    let asking: Vec<_> = (0..20)
        .map(|_| {
            let (system, body) = (system.clone(), body.clone());
            tokio::task::spawn_blocking(move || system.post_once(LESSON, "a", &body))
        })
        .collect();
    let mut answers = Vec::new();
    for one in asking {
        answers.push(within(one).await.unwrap());
    }
    answers.extend((0..3).map(|_| system.post_once(LESSON, "a", &body)));
    let first: Vec<_> =
        answers.iter().filter(|a| a.header("idempotent-replayed").is_none()).collect();
    assert_eq!(first.len(), 1, "{answers:?}");
    assert!(answers.iter().all(|a| a.status == 200 && a.body == first[0].body), "{answers:?}");

    for (path, other) in [
        (LESSON, json!({ "text": "twice" })),
        (LESSON, json!({ "text": "once", "class": "chat" })),
        ("/v1/rooms/other/messages", body.clone()),
    ] {
        let answer = system.post_once(path, "a", &other);
        assert_eq!((answer.status, answer.problem()), (422, "idempotency_key_reused"));
    }
    // What was refused has not used its key up.
    let answer = system.post_once(LESSON, "b", &json!({ "text": "x", "key": "k".repeat(129) }));
    assert_eq!(answer.status, 400);
    assert_eq!(system.post_once(LESSON, "b", &body).status, 200);
    // Without a key each is one of its own.
    assert_eq!([system.post(LESSON, &body).status, system.post(LESSON, &body).status], [200; 2]);
    let history = within(room.history(Class::Signal, Seq::ZERO, 0)).await.unwrap();
    assert_eq!(history.messages.len(), 4);

    // Keys are the callers' own: another system may use the same.
    let other = Key::all(dir.path(), "other");
    let config = std::fs::read_to_string(dir.path().join("edgeway.toml")).unwrap();
    write(dir.path(), "edgeway.toml", &format!("{config}{}", other.lines));
    assert!(ask(&up.http, "POST", "/reload").starts_with("HTTP/1.0 200"));
    let other = System { key: other.key, ..system.clone() };
    let answer = other.post_once(LESSON, "a", &body);
    assert_eq!((answer.status, answer.header("idempotent-replayed")), (200, None));
    assert_eq!(within(room.history(Class::Signal, Seq::ZERO, 0)).await.unwrap().messages.len(), 5);
}

/// Status, and end of the problem's type.
#[track_caller]
fn refused(answer: &support::api::Answer, status: u16, problem: &str) {
    assert_eq!((answer.status, answer.problem()), (status, problem), "{answer:?}");
}

#[test]
fn everything_that_is_wrong_is_a_problem_with_a_status_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let Key { key, lines } = Key::make(dir.path(), "sender", &["--scope", "send"]);
    let reader = Key::make(dir.path(), "reader", &["--scope", "read"]);
    let up = up(dir.path(), &format!("[rooms]\ncreate = \"api\"\n{lines}{}", reader.lines));
    let system = System { http: up.http.clone(), key };
    let send = |body: &str| system.ask("POST", LESSON, &[], body);

    // Who asks.
    let good = r#"{"text":"x"}"#;
    let bare = |headers: &[(&str, &str)]| call(&up.http, "POST", LESSON, headers, good.as_bytes());
    refused(&bare(&[JSON]), 401, "no_api_key");
    assert_eq!(bare(&[JSON]).header("www-authenticate"), Some("bearer"));
    for value in ["", "Bearer", "Bearer x", "Basic eDp5", &format!("Bearer {}x", system.key)] {
        refused(&bare(&[JSON, ("Authorization", value)]), 401, "unknown_api_key");
    }
    let reads = System { key: reader.key, ..system.clone() };
    refused(&reads.post(LESSON, &json!({ "text": "x" })), 403, "no_scope");

    // What is asked.
    for body in [
        "",
        "{",
        "[]",
        "null",
        "{}",
        r#"{"text":"x","json":1}"#,
        r#"{"text":1}"#,
        r#"{"text":"x","colour":"red"}"#,
        r#"{"text":"x","class":"binary"}"#,
        r#"{"text":"x","class":"chat","key":"k"}"#,
        r#"{"text":"x","key":"a\u0000b"}"#,
        r#"{"text":"x","ttl_ms":0}"#,
        r#"{"text":"x","ttl_ms":-1}"#,
        r#"{"text":"x","ttl_ms":99999999999999}"#,
        r#"{"base64":"?"}"#,
        r#"{"text":"\ud800"}"#,
        r#"{"text":"x"}{"#,
    ] {
        refused(&send(body), 400, "bad_request");
    }
    let unknown = send(r#"{"text":"x","colour":"red"}"#);
    assert!(unknown.body["detail"].as_str().unwrap().contains("colour"), "{unknown:?}");
    let payload = |bytes: usize| json!({ "text": "x".repeat(bytes) }).to_string();
    refused(&send(&payload(60 * 1024 + 1)), 413, "too_large");
    refused(&send(&payload(600 * 1024)), 413, "too_large");
    let typed = |kind: &str| {
        let bearer = format!("Bearer {}", system.key);
        let headers = [("Authorization", bearer.as_str()), ("Content-Type", kind)];
        call(&up.http, "POST", LESSON, &headers, good.as_bytes())
    };
    refused(&typed("text/plain"), 415, "unsupported_media_type");
    for id in ["", &"x".repeat(256)] {
        refused(&system.post_once(LESSON, id, &json!({ "text": "x" })), 400, "bad_request");
    }

    // Where.
    refused(&send(good), 404, "no_such_room");
    let post = |path: &str| system.post(path, &json!({ "text": "x" }));
    let long = format!("/v1/rooms/{}/messages", "x".repeat(129));
    for path in [
        "/v1/rooms/%00/messages",
        "/v1/rooms/%ff/messages",
        &long,
        "/v1/users/@me/messages",
        "/v1/users/a%2Fb/messages",
    ] {
        refused(&post(path), 400, "bad_request");
    }
    for path in ["/v1", "/v1/rooms", "/v2/rooms/a/messages", "/nothing", "/v1/rooms/a/messages/"] {
        refused(&post(path), 404, "not_found");
    }
    let wrong = system.ask("DELETE", LESSON, &[], "");
    refused(&wrong, 405, "method_not_allowed");
    assert_eq!(wrong.header("allow"), Some("post"));
    refused(&system.ask("PUT", "/metrics", &[], ""), 405, "method_not_allowed");

    // Many rooms.
    let many = |rooms: Value| system.post("/v1/messages", &json!({ "rooms": rooms, "text": "x" }));
    for rooms in [json!([]), json!(["a", "a"]), json!([""]), json!("a"), json!(vec!["a"; 1001])] {
        refused(&many(rooms), 400, "bad_request");
    }
    let part = many(json!(["a"]));
    assert_eq!((part.status, &part.body["failed"]), (200, &json!(1)));
    let problem = &part.body["rooms"][0]["problem"];
    assert_eq!(
        (&problem["type"], &problem["status"]),
        (&json!("urn:edgeway:problem:no_such_room"), &json!(404))
    );

    let metrics = get(&up.http, "/metrics");
    assert!(metrics.contains("edgeway_http_problems_total{problem=\"bad_request\"}"), "{metrics}");
}

#[test]
fn a_key_has_its_limit_and_is_told_when_to_come_back_and_goes_with_the_config() {
    let dir = tempfile::tempdir().unwrap();
    let scopes = ["--scope", "send", "--per-second"];
    let slow = Key::make(dir.path(), "slow", &[&scopes[..], &["5"]].concat());
    let fast = Key::make(dir.path(), "fast", &[&scopes[..], &["100000"]].concat());
    let up = up(dir.path(), &format!("{}{}", slow.lines, fast.lines));
    let system = |key: &Key| System { http: up.http.clone(), key: key.key.clone() };
    let (slow, fast) = (system(&slow), system(&fast));
    // Ten times what it may have in a second: its whole limit for ten.
    let rooms: Vec<_> = (0..50).map(|n| format!("r{n}")).collect();
    let body = json!({ "rooms": rooms, "text": "x" });
    assert_eq!(slow.post("/v1/messages", &body).status, 200);
    let over = slow.post(LESSON, &json!({ "text": "x" }));
    refused(&over, 429, "over_limit");
    let after: u64 = over.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=10).contains(&after), "{over:?}");
    assert!(over.body["retry_after_ms"].as_u64().unwrap() > 0);
    for _ in 0..50 {
        assert_eq!(fast.post(LESSON, &json!({ "text": "x" })).status, 200);
    }
    // A key that is taken out of the config is none.
    write(dir.path(), "edgeway.toml", "");
    assert!(ask(&up.http, "POST", "/reload").contains("push.keys.fast.hash: changed"));
    refused(&fast.post(LESSON, &json!({ "text": "x" })), 401, "unknown_api_key");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_reach_who_listens_now_and_who_comes_back_and_take_nothing_from_clients() {
    let dir = tempfile::tempdir().unwrap();
    let (up, system) = with_system(dir.path(), "");
    let (ada, mut ada_hears) = connect(&up, TransportChoice::Quic, "ada").await;
    let (bob, mut bob_hears) = connect(&up, TransportChoice::Tcp, "bob").await;
    let maths = within(ada.topic("push", "maths", None)).await.unwrap();
    within(ada.everyone("push", None)).await.unwrap();
    within(bob.everyone("push", None)).await.unwrap();

    let sent = system.post_once("/v1/topics/maths/messages", "m-1", &json!({ "text": "one" }));
    assert_eq!((sent.status, &sent.body["place"]), (200, &json!("1-1")), "{sent:?}");
    let again = system.post_once("/v1/topics/maths/messages", "m-1", &json!({ "text": "one" }));
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    let heard = message(&mut ada_hears).await;
    assert_eq!((&*heard.room, text(&heard), &*heard.sender), ("topic/maths", "one", ""));

    let all = json!({ "text": "for all" });
    assert_eq!(system.post("/v1/everyone/messages", &all).status, 200);
    for events in [&mut ada_hears, &mut bob_hears] {
        let heard = message(events).await;
        assert_eq!((&*heard.room, text(&heard)), ("@everyone", "for all"));
    }

    // Who only listens: nothing is sent from there, and nobody is seen.
    assert!(within(maths.send_signal("me".into())).await.is_err());
    // Kept for who was away, but for what is void.
    let soon = json!({ "text": "soon over", "ttl_ms": 1 });
    assert_eq!(system.post("/v1/topics/maths/messages", &soon).status, 200);
    assert_eq!(system.post("/v1/topics/maths/messages", &json!({ "text": "two" })).status, 200);
    tokio::time::sleep(Duration::from_millis(5)).await;
    within(bob.topic("push", "maths", Some(Seq::ZERO))).await.unwrap();
    for expected in ["one", "two"] {
        assert_eq!(text(&message(&mut bob_hears).await), expected);
    }
    // Of another type is another topic; an inbox that has none is refused.
    let research = json!({ "text": "paper", "inbox": "research_push" });
    assert_eq!(system.post("/v1/topics/maths/messages", &research).body["place"], "1-1");
    let im = system.post("/v1/topics/maths/messages", &json!({ "text": "x", "inbox": "im" }));
    assert_eq!(im.status, 400, "{im:?}");
    let long = format!("/v1/topics/{}/messages", "x".repeat(123));
    assert_eq!(system.post(&long, &all).status, 400);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_device_goes_on_where_it_has_got_to_in_its_inbox_and_in_topics() {
    let dir = tempfile::tempdir().unwrap();
    let (up, system) = with_system(dir.path(), "");
    let send = |to: &str, text: &str| {
        let body = json!({ "text": text, "inbox": "research_push" });
        assert_eq!(system.post(&format!("/v1/{to}/messages"), &body).status, 200);
    };
    // Kept for one who was never there.
    send("users/ada", "one");
    send("users/ada", "two");
    send("users/ada", "three");
    {
        let (phone, mut hears) = on_device(&up, TransportChoice::Quic, "ada", "phone").await;
        let inbox = within(phone.inbox_from_cursor("research_push")).await.unwrap();
        assert_eq!(inbox.cursor("@me"), None);
        within(inbox.topic("news")).await.unwrap();
        send("topics/news", "first");
        let mut got = Vec::new();
        for _ in 0..4 {
            got.push(message(&mut hears).await);
        }
        got.sort_by_key(|message| message.room.clone());
        assert_eq!(got.iter().map(text).collect::<Vec<_>>(), ["one", "two", "three", "first"]);
        // It got three, and dealt with two.
        within(inbox.acknowledge(&got[1])).await.unwrap();
        within(inbox.acknowledge(&got[3])).await.unwrap();
        assert_eq!(inbox.cursor("@me"), Some(got[1].seq));
        within(phone.close()).await;
    }
    send("users/ada", "four");
    send("topics/news", "second");
    {
        let (tablet, mut hears) = on_device(&up, TransportChoice::Tcp, "ada", "tablet").await;
        within(tablet.inbox_from_cursor("research_push")).await.unwrap();
        for expected in ["one", "two", "three", "four"] {
            assert_eq!(text(&message(&mut hears).await), expected);
        }
    }
    let (phone, mut hears) = on_device(&up, TransportChoice::Tcp, "ada", "phone").await;
    let inbox = within(phone.inbox_from_cursor("research_push")).await.unwrap();
    for expected in ["three", "four"] {
        assert_eq!(text(&message(&mut hears).await), expected);
    }
    within(inbox.topic("news")).await.unwrap();
    assert_eq!(text(&message(&mut hears).await), "second");
    // An inbox of another type has cursors of its own.
    let other = within(phone.inbox_from_cursor("push")).await.unwrap();
    assert_eq!(other.cursor("@me"), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_is_read_by_time_and_exported_whole_in_its_order() {
    let dir = tempfile::tempdir().unwrap();
    let (up, system) = with_system(dir.path(), "[rooms]\nchat_per_second = 0\n");
    let (_ada, _hears, room) = join(&up, TransportChoice::Quic, "ada").await;
    for n in 0..300 {
        within(room.send_signal(format!("signal {n}").into())).await.unwrap();
    }
    within(room.send_chat("chat".into())).await.unwrap();
    let page = |query: &str| system.get(&format!("/v1/rooms/lesson/history?limit=200&{query}"));
    let first = page("");
    let messages = first.body["messages"].as_array().unwrap().clone();
    let time = |message: &Value| message["time_ms"].as_u64().unwrap();
    let since = time(&messages[120]);
    let at = messages.iter().position(|message| time(message) >= since).unwrap();
    let found = page(&format!("since_ms={since}"));
    assert_eq!(found.body["messages"][0], messages[at], "{found:?}");
    let found = page(&format!("since_ms={}&until_ms={since}", time(&messages[0])));
    assert_eq!(found.body["messages"].as_array().unwrap().len(), at);
    assert_eq!(found.body["more"], false);
    assert_eq!(page(&format!("since_ms={since}&until_ms={since}")).status, 400);

    // Chat is stored a moment after it is delivered.
    let lines = loop {
        let export = system.get("/v1/rooms/lesson/export");
        assert_eq!(export.header("content-type"), Some("application/jsonl"), "{export:?}");
        let lines = export.text.lines().map(|line| serde_json::from_str(line).unwrap());
        let lines: Vec<Value> = lines.collect();
        if lines.len() == 301 {
            break lines;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(lines.windows(2).all(|pair| time(&pair[0]) <= time(&pair[1])));
    let signals: Vec<_> = lines.iter().filter(|line| line["class"] == "signal").collect();
    assert_eq!(signals.len(), 300);
    assert!((0..300).all(|n| signals[n]["text"] == format!("signal {n}")));
    let none = system.get("/v1/rooms/lesson/export?since_ms=9000000000000");
    assert_eq!((none.status, &*none.text), (200, ""));
}
