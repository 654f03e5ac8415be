//! A Session type comes and goes by an edit of the config while clients talk, and nobody else notices.
//! What it takes from the edit to the first use is told with `--nocapture`.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

mod support;

use std::{
    io::Write,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use edgeway_client::{
    Bytes, Class, Client, ClientConfig, CloseCode, Event, Events, Login, Message, RawFrame, Room,
    Seq, Session, SessionId, TransportChoice, Trust,
};
use support::{Process, Up, python::Python, write};
use tokio::{sync::mpsc, task::JoinHandle};

/// Above what a busy machine takes.
const PATIENCE: Duration = Duration::from_secs(60);

async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("it did not happen in time")
}

/// A client, its events told apart.
struct Member {
    client: Client,
    messages: mpsc::UnboundedReceiver<Message>,
    frames: mpsc::UnboundedReceiver<(SessionId, Class, RawFrame)>,
    /// Everything that is neither, nor presence.
    others: mpsc::UnboundedReceiver<Event>,
}

impl Member {
    async fn connect(up: &Up, user: &str, transport: TransportChoice) -> Self {
        let addr = if transport == TransportChoice::Quic { &up.quic } else { &up.tcp };
        let mut config = ClientConfig::new(addr, Login::Development { user: user.into() });
        config.trust = Trust::Ca(std::fs::read(&up.ca).unwrap());
        config.transport = transport;
        let (client, events) = within(Client::connect(config)).await.unwrap();
        let (to_messages, messages) = mpsc::unbounded_channel();
        let (to_frames, frames) = mpsc::unbounded_channel();
        let (to_others, others) = mpsc::unbounded_channel();
        tokio::spawn(tell_apart(events, to_messages, to_frames, to_others));
        Self { client, messages, frames, others }
    }

    async fn message(&mut self, session: SessionId) -> Message {
        loop {
            let message = within(self.messages.recv()).await.expect("the client goes on");
            if message.session == session {
                return message;
            }
        }
    }

    /// What a Session sends comes back, whatever it is.
    async fn echoes(&mut self, session: &Session, kinds: &[u8]) {
        let all: Vec<u8> = (0..=255).collect();
        for class in Class::ALL {
            for (kind, body) in kinds.iter().zip([&all[..0], &all, &all.repeat(100)].iter().cycle())
            {
                let frame = RawFrame { kind: *kind, body: Bytes::copy_from_slice(body) };
                session.send(class, frame.clone()).await.unwrap();
                let back = within(self.frames.recv()).await.expect("the client goes on");
                assert_eq!(back, (session.id(), class, frame));
            }
        }
    }
}

async fn tell_apart(
    mut events: Events,
    messages: mpsc::UnboundedSender<Message>,
    frames: mpsc::UnboundedSender<(SessionId, Class, RawFrame)>,
    others: mpsc::UnboundedSender<Event>,
) {
    while let Some(event) = events.next().await {
        // A test that has ended does not listen.
        match event {
            Event::Message(message) => drop(messages.send(message)),
            Event::Frame { session, class, frame } => drop(frames.send((session, class, frame))),
            Event::Presence(_) => {}
            event => drop(others.send(event)),
        }
    }
}

/// Signals that count, each after the ack of the one before, until told to stop; how many.
fn count_aloud(room: Room, stop: Arc<AtomicBool>) -> JoinHandle<u64> {
    tokio::spawn(async move {
        let mut said = 0;
        while !stop.load(Ordering::Relaxed) {
            within(room.send_signal(said.to_string().into())).await.unwrap();
            said += 1;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        said
    })
}

/// The config with the types that are there from the start, and with `quiz`.
fn configs(passthrough: &Python, quiz: &Python) -> [String; 2] {
    let text = |route: &str, backend: &str| {
        format!(
            "[gateway.routes]\npassthrough = \"opaque\"\n{route}[backends]\nopaque = [{:?}]\n{backend}",
            passthrough.addr
        )
    };
    let backend = format!("python = [{:?}]\n", quiz.addr);
    [text("", ""), text("quiz = \"python\"\n", &backend)]
}

fn up(dir: &Path, config: &str) -> Up {
    write(dir, "edgeway.toml", config);
    let any = "127.0.0.1:0";
    let args = ["up", "--config", "edgeway.toml", "--quic", any, "--tcp", any, "--http", any];
    Up::ready(Process::spawn(dir, &args))
}

/// Tries until the type is there.
async fn opened(client: &Client, kind: &str) -> Session {
    let opening = async {
        loop {
            match client.open(kind, Vec::new()).await {
                Ok(session) => return session,
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    };
    within(opening).await
}

async fn comes_and_goes(transport: TransportChoice, passthrough: &Python, quiz: &Python) {
    let dir = tempfile::tempdir().unwrap();
    let [without, with] = configs(passthrough, quiz);
    let up = up(dir.path(), &without);
    let mut ada = Member::connect(&up, "ada", transport).await;
    let mut bob = Member::connect(&up, "bob", TransportChoice::Quic).await;

    // The five types, on one connection.
    let at_ada = within(ada.client.join("lesson")).await.unwrap();
    let at_bob = within(bob.client.join("lesson")).await.unwrap();
    let im = within(ada.client.im()).await.unwrap();
    let from_bob = within(bob.client.im()).await.unwrap();
    let push = within(ada.client.inbox("push")).await.unwrap();
    let research_push = within(ada.client.inbox("research_push")).await.unwrap();
    let opaque = within(ada.client.open("passthrough", Vec::new())).await.unwrap();
    ada.echoes(&opaque, &[0x40, 0x45, 0x7f, 0x80, 0xbf, 0xc0, 0xff]).await;
    let stop = Arc::new(AtomicBool::new(false));
    let counting = count_aloud(at_bob, Arc::clone(&stop));
    assert!(
        within(ada.client.open("quiz", Vec::new())).await.is_err(),
        "there is no such type yet"
    );

    let edited = Instant::now();
    write(dir.path(), "edgeway.toml", &with);
    let session = opened(&ada.client, "quiz").await;
    ada.echoes(&session, &[0x80]).await;
    // Not by a macro of the standard library, which the harness takes where the test goes well.
    let took = edited.elapsed().as_millis();
    let told = format!("over {transport:?} the new type was used {took} ms after the edit\n");
    std::io::stderr().write_all(told.as_bytes()).unwrap();
    // The other client, too, without a new connection.
    let also = opened(&bob.client, "quiz").await;
    bob.echoes(&also, &[0x80]).await;

    // All six at the same time.
    ada.echoes(&opaque, &[0x42, 0x80]).await;
    within(from_bob.send_to("ada", Bytes::from_static(b"hello"))).await.unwrap();
    // What was counted in the lesson comes before it, too, and is looked at below.
    let mut heard = Vec::new();
    let mut hello = None;
    while hello.is_none() {
        let message = within(ada.messages.recv()).await.expect("the client goes on");
        if message.session == at_ada.session() {
            heard.push(message);
        } else {
            hello = Some(message);
        }
    }
    let hello = hello.unwrap();
    assert_eq!((hello.session, &hello.payload[..]), (im.session(), &b"hello"[..]));
    let mut all =
        [at_ada.session(), im.session(), push.session(), research_push.session()].to_vec();
    all.extend([opaque.id(), session.id()]);
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 6, "six Sessions");

    write(dir.path(), "edgeway.toml", &without);
    for (member, id) in [(&mut ada, session.id()), (&mut bob, also.id())] {
        match within(member.others.recv()).await.expect("the client goes on") {
            Event::SessionClosed { session, code, reason, reopening } => {
                assert_eq!((session, code, reopening), (id, CloseCode::NoRoute, false));
                assert!(reason.contains("quiz"), "{reason:?} does not say which type");
            }
            other => panic!("{other:?}"),
        }
    }

    // Nothing else has ended, and nothing was missed.
    ada.echoes(&opaque, &[0x41, 0x80]).await;
    for inbox in [&im, &push, &research_push] {
        within(inbox.room().history(Class::Signal, Seq::ZERO, 0)).await.unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    let said = within(counting).await.unwrap();
    while (heard.len() as u64) < said {
        heard.push(ada.message(at_ada.session()).await);
    }
    for (n, message) in (0_u64..).zip(&heard) {
        assert_eq!(&message.payload[..], n.to_string().as_bytes());
        assert_eq!(message.seq.counter, n + 1);
        assert_eq!(message.seq.epoch, heard[0].seq.epoch);
    }
    for member in [&mut ada, &mut bob] {
        assert_eq!(member.client.stats().reconnects, 0);
        let other = member.others.try_recv();
        assert!(other.is_err(), "{other:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_type_served_in_python_comes_and_goes_by_an_edit_and_five_others_go_on() {
    let Some(passthrough) = Python::start(&["--echo", "passthrough"]) else { return };
    let quiz = Python::start(&[]).expect("it started before");
    for transport in [TransportChoice::Quic, TransportChoice::Tcp] {
        comes_and_goes(transport, &passthrough, &quiz).await;
    }
}
