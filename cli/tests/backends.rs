//! A Session type that no code knows: named in the config, and served by the example backends.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

mod support;

use std::{net::SocketAddr, path::Path, time::Duration};

use edgeway_client::{
    AckStatus, Bytes, Class, Client, ClientConfig, CloseCode, ErrorCode, Event, Events,
    JoinOptions, LeftCause, Login, Message, RawFrame, SendError, Seq, TransportChoice, Trust,
};
use support::{Process, Up, ask, get, python::Python, write};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

/// Above what a busy machine takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// The example in Rust, in this process.
struct Quizzes {
    addr: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Quizzes {
    async fn at(addr: SocketAddr) -> Self {
        let listener = TcpListener::bind(addr).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let serving = edgeway_example_quiz::serve(listener, None, stop.clone());
        let task = tokio::spawn(async { serving.await.unwrap() });
        Self { addr, stop, task }
    }

    async fn stop(self) -> SocketAddr {
        self.stop.cancel();
        within(self.task).await.unwrap();
        self.addr
    }
}

async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("it did not happen in time")
}

/// `edgeway up`, told of the type `quiz` by its config and nothing else.
fn up(dir: &Path, backend: &str) -> Up {
    let text = format!("[gateway.routes]\nquiz = \"quiz\"\n[backends]\nquiz = [\"{backend}\"]\n");
    up_with(dir, &text)
}

/// `edgeway up` with this config.
fn up_with(dir: &Path, config: &str) -> Up {
    write(dir, "edgeway.toml", config);
    let any = "127.0.0.1:0";
    let args = ["up", "--config", "edgeway.toml", "--quic", any, "--tcp", any, "--http", any];
    Up::ready(Process::spawn(dir, &args))
}

async fn connect(up: &Up, user: &str, transport: TransportChoice) -> (Client, Events) {
    let addr = if transport == TransportChoice::Quic { &up.quic } else { &up.tcp };
    let mut config = ClientConfig::new(addr, Login::Development { user: user.into() });
    config.trust = Trust::Ca(std::fs::read(&up.ca).unwrap());
    config.transport = transport;
    config.backoff_min = Duration::from_millis(50);
    config.backoff_max = Duration::from_millis(200);
    within(Client::connect(config)).await.unwrap()
}

/// The next event that is wanted.
async fn event<T>(events: &mut Events, wanted: impl Fn(Event) -> Option<T>) -> T {
    let search = async {
        loop {
            if let Some(found) = wanted(events.next().await.expect("the client goes on")) {
                return found;
            }
        }
    };
    within(search).await
}

async fn message(events: &mut Events) -> Message {
    event(events, |e| match e {
        Event::Message(message) => Some(message),
        Event::HistoryLost { .. } | Event::Gap { .. } => panic!("{e:?}"),
        _ => None,
    })
    .await
}

async fn signals(events: &mut Events, count: usize) -> Vec<String> {
    let mut all = Vec::new();
    while all.len() < count {
        let message = message(events).await;
        if message.class == Class::Signal {
            all.push(String::from_utf8(message.payload.to_vec()).unwrap());
        }
    }
    all
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// Frames that only the backend understands, of all bytes and sizes, on every lane and both ways.
async fn opaque_bytes_come_back_unchanged(up: &Up, transport: TransportChoice) {
    let (client, mut events) = connect(up, &format!("echo-{transport:?}"), transport).await;
    let headers = vec![("lang".to_owned(), "en".to_owned())];
    let session = within(client.open("quiz", headers)).await.unwrap();
    let all: Vec<u8> = (0..=255).collect();
    for class in Class::ALL {
        for body in [Bytes::new(), all.clone().into(), all.repeat(200).into()] {
            let frame = RawFrame { kind: 0x80, body };
            session.send(class, frame.clone()).await.unwrap();
            let back = event(&mut events, |e| match e {
                Event::Frame { class, frame, .. } => Some((class, frame)),
                _ => None,
            });
            assert_eq!(back.await, (class, frame), "over {transport:?}");
        }
    }
    // What is broken ends its Session, with a reason, and nothing else.
    let broken = RawFrame { kind: 0x41, body: Bytes::from_static(&[0x40]) };
    session.send(Class::Signal, broken).await.unwrap();
    let closed = event(&mut events, |e| match e {
        Event::SessionClosed { code, reopening, .. } => Some((code, reopening)),
        _ => None,
    });
    assert_eq!(closed.await, (CloseCode::Protocol, false));
    within(client.ping()).await.unwrap();
}

/// One over QUIC, one over TCP, in one quiz.
async fn members_of_a_quiz_see_one_order(up: &Up) {
    let (ada, mut to_ada) = connect(up, "ada", TransportChoice::Quic).await;
    let (bob, mut to_bob) = connect(up, "bob", TransportChoice::Tcp).await;
    let quizzes = within(ada.rooms("quiz", Vec::new())).await.unwrap();
    let at_ada = within(quizzes.join("maths")).await.unwrap();
    let at_bob = within(bob.rooms("quiz", Vec::new())).await.unwrap();
    let at_bob = within(at_bob.join("maths")).await.unwrap();

    let ack = within(at_ada.send_signal(bytes("ask 2 + 2?|3|4"))).await.unwrap();
    assert_eq!((ack.status, ack.seq.counter), (AckStatus::Accepted, 1));
    within(at_bob.send_signal(bytes("answer 2"))).await.unwrap();
    within(at_ada.send_signal(bytes("answer 1"))).await.unwrap();
    let refused = within(at_bob.send_signal(bytes("answer 9"))).await;
    let Err(SendError::Refused { code: Some(ErrorCode::BadRequest), detail }) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(detail, "answer 1 to 2");
    // It has not used up its number.
    within(at_bob.send_signal(bytes("answer 1"))).await.unwrap();
    let all = ["2 + 2?|3|4", "0 1", "1 1", "2 0"];
    assert_eq!(signals(&mut to_ada, 4).await, all);
    assert_eq!(signals(&mut to_bob, 4).await, all);
    let remark = within(at_bob.send_chat(bytes("easy"))).await.unwrap();
    assert_eq!(remark.status, AckStatus::Accepted);
    let heard = message(&mut to_ada).await;
    assert_eq!((heard.class, &*heard.sender, heard.payload), (Class::Chat, "bob", bytes("easy")));

    // Who comes late knows the state at once, and reads what was before.
    let (cleo, mut to_cleo) = connect(up, "cleo", TransportChoice::Quic).await;
    let options = JoinOptions { positions: vec![(Class::Signal, Seq::ZERO)], ..Default::default() };
    let at_cleo = within(cleo.rooms("quiz", Vec::new())).await.unwrap();
    let at_cleo = within(at_cleo.join_with("maths", options)).await.unwrap();
    assert_eq!(at_cleo.state_of("tally").unwrap().payload, bytes("2 0"));
    assert_eq!(signals(&mut to_cleo, 4).await, all);
    within(at_ada.send_signal(bytes("answer 2"))).await.unwrap();
    assert_eq!(signals(&mut to_cleo, 1).await, ["1 1"], "live from there");

    // Frames of the backend's own go beside the rooms.
    let frame = RawFrame { kind: 0x80, body: bytes("psst") };
    quizzes.send(Class::Chat, frame.clone()).await.unwrap();
    let back =
        event(&mut to_ada, |e| if let Event::Frame { frame, .. } = e { Some(frame) } else { None });
    assert_eq!(back.await, frame);

    within(at_ada.send_signal(bytes("end"))).await.unwrap();
    for events in [&mut to_ada, &mut to_bob, &mut to_cleo] {
        let left = event(events, |e| match e {
            Event::Left { cause, reason, .. } => Some((cause, reason)),
            _ => None,
        });
        let expected = (LeftCause::Ended(CloseCode::Kicked), "ada has ended the quiz".to_owned());
        assert_eq!(left.await, expected);
    }
}

/// More than a gateway keeps for a client that does not read: the rest waits in the backend's log.
async fn who_falls_behind_reads_the_rest_from_the_log(up: &Up) {
    const COUNT: usize = 150;
    let (slow, mut to_slow) = connect(up, "slow", TransportChoice::Tcp).await;
    let at_slow = within(slow.rooms("quiz", Vec::new())).await.unwrap();
    within(at_slow.join("long")).await.unwrap();
    let (fast, to_fast) = connect(up, "fast", TransportChoice::Tcp).await;
    drop(to_fast);
    let at_fast = within(fast.rooms("quiz", Vec::new())).await.unwrap();
    let at_fast = within(at_fast.join("long")).await.unwrap();
    let questions: Vec<String> =
        (0..COUNT).map(|n| format!("{n}{}|a|b", "?".repeat(4000))).collect();
    for question in &questions {
        within(at_fast.send_signal(bytes(&format!("ask {question}")))).await.unwrap();
    }
    assert!(signals(&mut to_slow, COUNT).await == questions, "in order, and each once");
    let metrics = support::get(&up.http, "/metrics");
    let behind = metrics.lines().any(|l| {
        l.starts_with("edgeway_gateway_behind_total") && l.contains("signal") && !l.ends_with(" 0")
    });
    assert!(behind, "it never was behind: {metrics}");
}

async fn serves_a_type_named_only_in_the_config(backend: &str) {
    let dir = tempfile::tempdir().unwrap();
    let up = up(dir.path(), backend);
    for transport in [TransportChoice::Quic, TransportChoice::Tcp] {
        opaque_bytes_come_back_unchanged(&up, transport).await;
    }
    members_of_a_quiz_see_one_order(&up).await;
    who_falls_behind_reads_the_rest_from_the_log(&up).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_in_rust_serves_a_type_named_only_in_the_config() {
    let quizzes = Quizzes::at(SocketAddr::from(([127, 0, 0, 1], 0))).await;
    serves_a_type_named_only_in_the_config(&quizzes.addr.to_string()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_in_python_serves_a_type_named_only_in_the_config() {
    let Some(python) = Python::start(&[]) else { return };
    serves_a_type_named_only_in_the_config(&python.addr).await;
}

/// Servers of gRPC's C core permit a ping each five minutes, and cut the connection at the third that comes earlier.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_rests_stands_with_a_server_of_default_settings_and_a_hanging_one_is_noticed() {
    let Some(python) = Python::start(&[]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let up = up(dir.path(), &python.addr);
    let (ada, mut events) = connect(&up, "ada", TransportChoice::Quic).await;
    let quiz = within(ada.open("quiz", Vec::new())).await.unwrap();
    tokio::time::sleep(Duration::from_secs(45)).await;
    assert!(!get(&up.http, "/metrics").contains("edgeway_gateway_link_lost_total{"));
    echo(&quiz, &mut events).await;

    python.signal("STOP");
    event(&mut events, |e| matches!(e, Event::SessionClosed { .. }).then_some(())).await;
    let not_ready = get(&up.http, "/readyz");
    assert!(not_ready.starts_with("HTTP/1.0 503") && not_ready.contains("quiz"), "{not_ready}");
    python.signal("CONT");
    event(&mut events, |e| matches!(e, Event::SessionOpened { .. }).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_a_backend_that_restarts_come_back_by_themselves() {
    let quizzes = Quizzes::at(SocketAddr::from(([127, 0, 0, 1], 0))).await;
    let dir = tempfile::tempdir().unwrap();
    let up = up(dir.path(), &quizzes.addr.to_string());
    let (ada, mut events) = connect(&up, "ada", TransportChoice::Quic).await;
    let room = within(ada.rooms("quiz", Vec::new())).await.unwrap();
    let room = within(room.join("maths")).await.unwrap();
    within(room.send_signal(bytes("ask 2 + 2?|3|4"))).await.unwrap();
    assert_eq!(signals(&mut events, 1).await, ["2 + 2?|3|4"]);

    let addr = quizzes.stop().await;
    let closed = event(&mut events, |e| match e {
        Event::SessionClosed { code, reopening, .. } => Some((code, reopening)),
        _ => None,
    });
    assert_eq!(closed.await, (CloseCode::GoingAway, true));
    // The connection, and other Sessions on it, go on.
    within(ada.join("lesson")).await.unwrap();

    let _quizzes = Quizzes::at(addr).await;
    event(&mut events, |e| matches!(e, Event::SessionOpened { .. }).then_some(())).await;
    // The new run has not got the log of the old one, and says so.
    event(&mut events, |e| matches!(e, Event::HistoryLost { .. }).then_some(())).await;
    within(room.send_signal(bytes("ask 3 + 3?|5|6"))).await.unwrap();
    assert_eq!(signals(&mut events, 1).await, ["3 + 3?|5|6"]);
}

/// Waits until the config has been read again so often with this outcome.
async fn reloaded(up: &Up, outcome: &str, times: u64) {
    let line = format!("edgeway_config_reloads_total{{outcome=\"{outcome}\"}} {times}");
    let search = async {
        while !get(&up.http, "/metrics").contains(&line) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within(search).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_type_is_added_and_removed_by_editing_the_file_while_clients_are_connected() {
    let dir = tempfile::tempdir().unwrap();
    let plain = "[log]\nlevel = \"info\"\n";
    let up = up_with(dir.path(), plain);
    let (client, mut events) = connect(&up, "ada", TransportChoice::Quic).await;
    let room = within(client.join("lesson")).await.unwrap();
    assert!(within(client.open("quiz", Vec::new())).await.is_err(), "there is no such type yet");

    let quizzes = Quizzes::at("127.0.0.1:0".parse().unwrap()).await;
    let with_quiz = format!(
        "{plain}[gateway.routes]\nquiz = {{ backend = \"quiz\", policy = \"round_robin\" }}\n\
         [backends]\nquiz = [\"{}\"]\n",
        quizzes.addr
    );
    write(dir.path(), "edgeway.toml", &with_quiz);
    let opening = async {
        loop {
            match client.open("quiz", Vec::new()).await {
                Ok(session) => return session,
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    };
    let quiz = within(opening).await;
    echo(&quiz, &mut events).await;

    // Nonsense changes nothing, and is told by key and line however it is found.
    let nonsense = with_quiz.replace("round_robin", "round_and_round");
    write(dir.path(), "edgeway.toml", &nonsense);
    reloaded(&up, "refused", 1).await;
    let answer = ask(&up.http, "POST", "/reload");
    assert!(answer.starts_with("HTTP/1.0 422"), "{answer}");
    for part in ["edgeway.toml:4: gateway.routes.quiz", "round_and_round", "`round_robin`"] {
        assert!(answer.contains(part), "{part:?} is not in {answer}");
    }
    echo(&quiz, &mut events).await;

    // Without its route the type's Sessions end, and no others.
    write(dir.path(), "edgeway.toml", plain);
    let code = event(&mut events, |e| match e {
        Event::SessionClosed { code, .. } => Some(code),
        _ => None,
    });
    assert_eq!(code.await, CloseCode::NoRoute);
    let answer = ask(&up.http, "POST", "/reload");
    assert!(answer.starts_with("HTTP/1.0 200") && answer.contains("nothing to change"), "{answer}");
    up.process.signal("HUP");
    reloaded(&up, "unchanged", 2).await;
    assert_eq!(client.stats().reconnects, 0);
    within(room.send_signal(bytes("still here"))).await.unwrap();
    quizzes.stop().await;
}

/// What a Session sends comes back.
async fn echo(session: &edgeway_client::Session, events: &mut Events) {
    let frame = RawFrame { kind: 0x80, body: Bytes::from_static(b"anyone there?") };
    session.send(Class::Signal, frame.clone()).await.unwrap();
    let back = event(events, |e| match e {
        Event::Frame { frame, .. } => Some(frame),
        _ => None,
    });
    assert_eq!(back.await, frame);
}
