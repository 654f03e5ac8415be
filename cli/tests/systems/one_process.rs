//! Rows that `edgeway up` shows.

use edgeway_client::{Class, ConnectError, ErrorCode, Login, SendError, TransportChoice};
use tokio::{net::TcpListener, sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    ANY, PATIENCE, ask, connect, hears, hears_text,
    support::{
        Process, Up,
        api::{Key, System},
        events::Recorded,
        talk, write,
    },
    until, user, within,
};

/// `edgeway up` with this config.
fn up(dir: &tempfile::TempDir, config: &str) -> Up {
    write(dir.path(), "edgeway.toml", config);
    let args = ["up", "--config", "edgeway.toml", "--quic", ANY, "--tcp", ANY, "--http", ANY];
    Up::ready(Process::spawn(dir.path(), &args))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dispatch_server_assigns_an_access_point_by_http() {
    let dir = tempfile::tempdir().unwrap();
    let up = up(&dir, "");
    let given = until("an access point", || {
        let answer = crate::support::get(&up.http, "/dispatch?user=ada");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        head.contains(" 200 ").then(|| serde_json::from_str::<serde_json::Value>(body).unwrap())
    });
    let access_point = given["endpoints"][0]["quic"].as_str().unwrap();
    let (ada, _) =
        connect(dir.path(), access_point, TransportChoice::Quic, user("ada")).await.unwrap();
    let room = within("a join", ada.join("lesson")).await.unwrap();
    within("an ack", room.send_signal("here".into())).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn auth_server_checks_user_name_and_password() {
    let dir = tempfile::tempdir().unwrap();
    let hash = edgeway_backend::auth::PasswordHash::new(b"secret").unwrap();
    let up = up(&dir, &format!("[auth]\nmode = \"passwords\"\n[auth.users]\nada = \"{hash}\"\n"));
    let by = |name: &str, password: &str| Login::Password {
        user: name.to_owned(),
        password: password.to_owned(),
    };
    for (addr, transport) in [(&up.quic, TransportChoice::Quic), (&up.tcp, TransportChoice::Tcp)] {
        let (ada, _) = connect(dir.path(), addr, transport, by("ada", "secret")).await.unwrap();
        assert_eq!(ada.user(), "ada");
        for wrong in [by("ada", "guess"), by("eve", "secret"), user("ada")] {
            let refused = connect(dir.path(), addr, transport, wrong).await;
            assert!(matches!(refused, Err(ConnectError::LoginFailed { .. })), "{refused:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn message_server_gives_all_in_a_room_one_order_in_which_nothing_is_missing() {
    const MEMBERS: usize = 4;
    let dir = tempfile::tempdir().unwrap();
    let up = up(&dir, "");
    let stop = std::sync::Arc::default();
    let (total, sent) = watch::channel(None);
    let (mut clients, mut speakers, mut listeners) = (Vec::new(), JoinSet::new(), JoinSet::new());
    let mut rooms = Vec::new();
    for n in 0..MEMBERS {
        let quic = n % 2 == 0;
        let addr = if quic { &up.quic } else { &up.tcp };
        let (client, events) = talk::connect(dir.path(), addr, quic, n).await;
        rooms.push(within("a join", client.join("lesson")).await.unwrap());
        let listening = talk::listen(events, sent.clone());
        listeners.spawn(async move { (n, listening.await) });
        clients.push(client);
    }
    for (n, room) in rooms.into_iter().enumerate() {
        speakers.spawn(talk::speak(room, n, std::sync::Arc::clone(&stop)));
    }
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let mut said = [0; 2];
    while let Some(one) = within("the last acks", speakers.join_next()).await {
        let one = one.unwrap();
        said = [said[0] + one[0], said[1] + one[1]];
    }
    total.send(Some(said.iter().sum())).unwrap();
    let mut heard = talk::Heard::default();
    while let Some(one) = within("all of it", listeners.join_next()).await {
        let (n, all) = one.unwrap();
        heard.insert(n, all);
    }
    heard.check(said, MEMBERS);
    assert!(said.iter().all(|said| *said > 0), "{said:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn msg_filter_server_masks_words_and_refuses_who_is_blocked_and_sheds_chat() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "words.txt", "badword\n");
    let config =
        "[filter]\nwords_file = \"words.txt\"\nblocked = [\"eve\"]\n[rooms]\nchat_per_second = 5\n";
    let up = up(&dir, config);
    let join = async |name: &str| {
        let client = connect(dir.path(), &up.quic, TransportChoice::Quic, user(name)).await;
        let (client, events) = client.unwrap();
        let room = within("a join", client.join("lesson")).await.unwrap();
        (client, events, room)
    };
    let (_ada, _, ada) = join("ada").await;
    let (_bob, mut bob_hears, _) = join("bob").await;
    let (_eve, _, eve) = join("eve").await;
    within("an ack", ada.send_chat("a badword!".into())).await.unwrap();
    assert_eq!(hears_text(&mut bob_hears).await, "a *******!");
    let refused = within("an answer", eve.send_chat("hello".into())).await;
    assert!(
        matches!(refused, Err(SendError::Refused { code: Some(ErrorCode::Forbidden), .. })),
        "{refused:?}"
    );
    // Low priority: more than a screen can show is shed before it is forwarded, and never a signal.
    let mut shed = 0;
    for n in 0..50 {
        let ack = within("an ack", ada.send_chat(format!("chat {n}").into())).await.unwrap();
        shed += u32::from(ack.status == edgeway_client::AckStatus::Shed);
    }
    assert!(shed > 0);
    within("an ack", ada.send_signal("last".into())).await.unwrap();
    while hears(&mut bob_hears).await.class != Class::Signal {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stat_server_tells_the_load_of_each_access_server() {
    let dir = tempfile::tempdir().unwrap();
    let up = up(&dir, "");
    let load = |key: &str| ask(&up.http, "/stat")["report"]["load"][key].as_f64().unwrap();
    let mut clients = Vec::new();
    for n in 0..3 {
        let login = user(&format!("user-{n}"));
        clients.push(connect(dir.path(), &up.quic, TransportChoice::Quic, login).await.unwrap());
        within("a join", clients[n].0.join("lesson")).await.unwrap();
    }
    until("three users in a room", || {
        (load("connections") == 3.0 && load("rooms") >= 1.0).then_some(())
    });
    assert!(load("memory_bytes") > 1e6 && load("cpu_cores") >= 0.0);
    clients.pop().unwrap().0.close().await;
    until("two users", || (load("connections") == 2.0).then_some(()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tcp_proxy_server_carries_sessions_of_each_type_on_one_connection_and_new_ones_by_config() {
    let dir = tempfile::tempdir().unwrap();
    let up = up(&dir, "");
    for (addr, transport) in [(&up.quic, TransportChoice::Quic), (&up.tcp, TransportChoice::Tcp)] {
        let (ada, mut events) = connect(dir.path(), addr, transport, user("ada")).await.unwrap();
        let room = within("a join", ada.join("lesson")).await.unwrap();
        let mut inboxes = Vec::new();
        for kind in ["im", "push", "research_push"] {
            inboxes.push(within("an inbox", ada.inbox(kind)).await.unwrap());
        }
        within("an ack", room.send_signal("in the room".into())).await.unwrap();
        assert_eq!(hears_text(&mut events).await, "in the room");
        let im = &inboxes[0];
        within("an ack", im.send_to("ada", "to myself".into())).await.unwrap();
        let message = hears(&mut events).await;
        assert_eq!((message.session, &message.payload[..]), (im.session(), &b"to myself"[..]));
        assert_eq!(
            ask(&up.http, "/stat")["report"]["load"]["connections"].as_u64().map(|n| n <= 1),
            Some(true)
        );

        // A kind of business that no code knows, served by a process of its own.
        let unknown = within("an answer", ada.rooms("quiz", Vec::new())).await;
        assert!(unknown.is_err());
        let listener = TcpListener::bind(ANY).await.unwrap();
        let backend = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let serving = edgeway_example_quiz::serve(listener, None, stop.clone());
        let serving = tokio::spawn(serving);
        let config =
            format!("[gateway.routes]\nquiz = \"quiz\"\n[backends]\nquiz = [\"{backend}\"]\n");
        write(dir.path(), "edgeway.toml", &config);
        let start = std::time::Instant::now();
        let quiz = loop {
            match within("an answer", ada.rooms("quiz", Vec::new())).await {
                Ok(quiz) => break quiz,
                Err(error) => assert!(start.elapsed() < PATIENCE, "{error}"),
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        };
        let quiz = within("a join", quiz.join("sums")).await.unwrap();
        within("an ack", quiz.send_signal("ask 1 + 1?|2|3".into())).await.unwrap();
        // The others go on, on the same connection.
        within("an ack", room.send_signal("still here".into())).await.unwrap();
        assert_eq!(ada.stats().reconnects, 0);
        within("the end", ada.close()).await;
        stop.cancel();
        within("the end of the backend", serving).await.unwrap().unwrap();
        write(dir.path(), "edgeway.toml", "");
        let told = tokio::task::block_in_place(|| crate::support::ask(&up.http, "POST", "/reload"));
        assert!(told.contains(" 200 "), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clusters_are_isolated_and_dispatch_server_assigns_clients_to_them() {
    let names = ["maths", "bank"];
    let dirs = names.map(|_| tempfile::tempdir().unwrap());
    let of = |name: &str| format!("[gateway.dispatch]\ncluster = \"{name}\"\n");
    let ups = [up(&dirs[0], &of(names[0])), up(&dirs[1], &of(names[1]))];
    let dir = tempfile::tempdir().unwrap();
    let mut text = "[dispatch]\n".to_owned();
    for (name, up) in names.iter().zip(&ups) {
        text += &format!(
            "[dispatch.clusters.{name}]\ngateways = [{{ quic = \"{}\", tcp = \"{}\", http = \"{}\" }}]\n",
            up.quic, up.tcp, up.http
        );
    }
    text += "[dispatch.apps]\nmaths = \"maths\"\nbank = \"bank\"\n";
    write(dir.path(), "edgeway.toml", &text);
    let args = ["dispatch", "--config", "edgeway.toml", "--listen", ANY, "--http", ANY];
    let dispatch = crate::support::node::Node::start(dir.path(), &args);
    let at = dispatch.at("dispatch");
    let mut members = Vec::new();
    for ((app, up), certs) in names.iter().zip(&ups).zip(&dirs) {
        let given = until("an access point", || {
            let answer = crate::support::get(&at, &format!("/dispatch?app={app}"));
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            head.contains(" 200 ").then(|| serde_json::from_str::<serde_json::Value>(body).unwrap())
        });
        assert_eq!(given["endpoints"].as_array().unwrap().len(), 1);
        let access_point = given["endpoints"][0]["quic"].as_str().unwrap();
        assert_eq!(access_point, up.quic);
        let client = connect(certs.path(), access_point, TransportChoice::Quic, user("ada")).await;
        let (client, events) = client.unwrap();
        let room = within("a join", client.join("lesson")).await.unwrap();
        members.push((client, events, room));
    }
    // The same room of the same user, and not the same.
    for ((_, _, room), app) in members.iter().zip(names) {
        within("an ack", room.send_signal(app.into())).await.unwrap();
    }
    for ((_, events, room), app) in members.iter_mut().zip(names) {
        assert_eq!(hears_text(events).await, app);
        assert_eq!(room.members_count(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_push_server_lets_business_systems_send_to_rooms_and_users_and_set_who_may_speak() {
    let dir = tempfile::tempdir().unwrap();
    let made = Key::all(dir.path(), "school");
    let up = up(&dir, &made.lines);
    let school = System { http: up.http.clone(), key: made.key };
    let ask = |method: &str, path: &str, body: &str| {
        let answer = tokio::task::block_in_place(|| school.ask(method, path, &[], body));
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer.body
    };
    let (ada, mut ada_hears) =
        connect(dir.path(), &up.quic, TransportChoice::Quic, user("ada")).await.unwrap();
    let room = within("a join", ada.join("lesson")).await.unwrap();
    let inbox = within("an inbox", ada.inbox("push")).await.unwrap();
    ask("POST", "/v1/rooms/lesson/messages", "{\"text\": \"five minutes\"}");
    let message = hears(&mut ada_hears).await;
    assert_eq!((&*message.sender, &message.payload[..]), ("", &b"five minutes"[..]));
    ask("POST", "/v1/users/ada/messages", "{\"text\": \"well done\"}");
    let message = hears(&mut ada_hears).await;
    assert_eq!((message.session, &message.payload[..]), (inbox.session(), &b"well done"[..]));
    ask("PUT", "/v1/rooms/lesson/mutes/ada", "");
    let muted = within("an answer", room.send_chat("hello".into())).await;
    assert!(matches!(muted, Err(SendError::Refused { .. })), "{muted:?}");
    ask("DELETE", "/v1/rooms/lesson/mutes/ada", "");
    within("an ack", room.send_chat("hello".into())).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn storage_server_tells_who_is_online_and_joins_and_leaves() {
    let dir = tempfile::tempdir().unwrap();
    let up = up(&dir, "");
    let (ada, _) = connect(dir.path(), &up.quic, TransportChoice::Quic, user("ada")).await.unwrap();
    let room = within("a join", ada.join("lesson")).await.unwrap();
    within("a leave", room.leave()).await.unwrap();
    within("the end", ada.close()).await;
    up.process.signal("TERM");
    assert_eq!(tokio::task::block_in_place(|| up.process.finish()).0, 0);
    let files = std::fs::read_dir(dir.path().join("edgeway-data/events")).unwrap();
    let files = files.map(|file| file.unwrap().path());
    let files = files.filter(|file| file.extension().is_some_and(|ext| ext == "jsonl"));
    let text: String = files.map(|file| std::fs::read_to_string(file).unwrap()).collect();
    let events: Vec<_> = text.lines().map(Recorded::parse).collect();
    let types: Vec<_> = events.iter().map(|event| event.text("type")).collect();
    assert_eq!(types, ["online", "join", "leave", "offline"], "{text}");
    assert!(events.iter().all(|event| event.text("user") == "ada"), "{text}");
}
