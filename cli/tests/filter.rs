//! The filter over real sockets: what others see of a message, what its sender is told, and a list that changes.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::time::Duration;

use edgeway_client::{
    Client, ClientConfig, ErrorCode, Event, Events, Login, Room, SendError, TransportChoice, Trust,
};
use support::{Process, Up, ask, get, write};

/// Above what a busy machine takes.
const PATIENCE: Duration = Duration::from_secs(60);

async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("it did not happen in time")
}

async fn join(up: &Up, transport: TransportChoice, user: &str) -> (Client, Events, Room) {
    let server = if transport == TransportChoice::Quic { &up.quic } else { &up.tcp };
    let mut config = ClientConfig::new(server, Login::Development { user: user.to_owned() });
    config.trust = Trust::Ca(std::fs::read(&up.ca).unwrap());
    config.transport = transport;
    let (client, events) = within(Client::connect(config)).await.unwrap();
    let room = within(client.join("lesson")).await.unwrap();
    (client, events, room)
}

async fn hears(events: &mut Events) -> String {
    loop {
        if let Event::Message(message) = within(events.next()).await.unwrap() {
            return String::from_utf8(message.payload.to_vec()).unwrap();
        }
    }
}

/// What a sender is told of a message that is not sent.
async fn refused(room: &Room, text: &'static str) -> (ErrorCode, String) {
    match within(room.send_chat(text.into())).await.unwrap_err() {
        SendError::Refused { code: Some(code), detail } => (code, detail),
        other => panic!("{other}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn words_are_masked_refused_or_dropped_and_the_list_changes_while_it_runs() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "words.txt", "badword\nreject: worst\nsilent: spam\n傻逼\n");
    let config = "[filter]\nwords_file = \"words.txt\"\nblocked = [\"eve\"]\n";
    write(dir.path(), "edgeway.toml", config);
    let any = "127.0.0.1:0";
    let args = ["up", "--config", "edgeway.toml", "--quic", any, "--tcp", any, "--http", any];
    let up = Up::ready(Process::spawn(dir.path(), &args));
    let (_ada, mut ada_hears, ada) = join(&up, TransportChoice::Quic, "ada").await;
    let (_bob, mut bob_hears, bob) = join(&up, TransportChoice::Tcp, "bob").await;

    within(ada.send_chat("you B.a.d-W.o.r.d, 傻 逼!".into())).await.unwrap();
    let masked = "you *.*.*-*.*.*.*, * *!";
    assert_eq!(hears(&mut bob_hears).await, masked);
    assert_eq!(hears(&mut ada_hears).await, masked);

    let (code, detail) = refused(&bob, "the ｗｏｒｓｔ").await;
    assert!(code == ErrorCode::Forbidden && detail.starts_with("filtered: "), "{code}: {detail}");
    within(bob.send_chat("buy s p a m".into())).await.unwrap();
    within(bob.send_chat("Scunthorpe".into())).await.unwrap();
    assert_eq!(hears(&mut ada_hears).await, "Scunthorpe", "and nothing before it");
    // Signals are not looked at unless the config says so.
    assert_eq!(hears(&mut bob_hears).await, "Scunthorpe");
    within(ada.send_signal("worst".into())).await.unwrap();
    assert_eq!(hears(&mut bob_hears).await, "worst");

    let (_eve, _, eve) = join(&up, TransportChoice::Quic, "eve").await;
    let (code, detail) = refused(&eve, "hello").await;
    assert!(code == ErrorCode::Forbidden && detail.starts_with("blocked: "), "{code}: {detail}");

    write(dir.path(), "words.txt", "reject: other\n");
    let config = "[filter]\nwords_file = \"words.txt\"\nslow_mode_s = 3600\n";
    write(dir.path(), "edgeway.toml", config);
    assert!(ask(&up.http, "POST", "/reload").starts_with("HTTP/1.0 200"));
    let (_, detail) = refused(&ada, "other").await;
    assert!(detail.starts_with("filtered: "), "{detail}");
    within(ada.send_chat("badword".into())).await.unwrap();
    assert_eq!(hears(&mut bob_hears).await, "badword");
    let (code, detail) = refused(&ada, "and another").await;
    assert!(
        code == ErrorCode::RateLimited && detail.starts_with("slow_mode: "),
        "{code}: {detail}"
    );
    within(eve.send_chat("hello".into())).await.unwrap();

    // A list with a mistake changes nothing.
    write(dir.path(), "words.txt", "good\n!!!\n");
    let answer = ask(&up.http, "POST", "/reload");
    assert!(answer.starts_with("HTTP/1.0 422") && answer.contains("line 2"), "{answer}");
    let metrics = get(&up.http, "/metrics");
    for line in [
        "edgeway_filter_messages_total{action=\"mask\"} 1",
        "edgeway_filter_messages_total{action=\"silent\"} 1",
        "edgeway_filter_messages_total{action=\"reject\"} 2",
        "edgeway_filter_messages_total{action=\"blocked\"} 1",
        "edgeway_filter_words 1",
    ] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
}
