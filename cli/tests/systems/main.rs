//! The table of systems in SOURCE.md, row by row: for each a test of its name, over real sockets between real
//! processes, that fails where that system does not do what its row says. What each does beside that, and under faults,
//! is tested in the files of the other tests.
//!
//! In `one_process` are those that `edgeway up` shows; in `many_processes` those that need a cluster.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

mod cluster;
mod many_processes;
mod one_process;
#[path = "../support/mod.rs"]
mod support;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use edgeway_client::{
    Client, ClientConfig, ConnectError, Event, Events, Login, Message, TransportChoice, Trust,
};
use serde_json::Value;

const ANY: &str = "127.0.0.1:0";

/// Far above what a busy machine takes.
const PATIENCE: Duration = Duration::from_secs(120);

async fn within<T>(what: &str, happens: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, happens).await {
        Ok(done) => done,
        Err(_) => panic!("not in time: {what}"),
    }
}

/// Asks again until it holds.
#[track_caller]
fn until<T>(what: &str, mut holds: impl FnMut() -> Option<T>) -> T {
    tokio::task::block_in_place(|| {
        let start = Instant::now();
        loop {
            if let Some(found) = holds() {
                return found;
            }
            assert!(start.elapsed() < PATIENCE, "not in time: {what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    })
}

/// The JSON of an answer of 200.
fn ask(http: &str, path: &str) -> Value {
    let answer = tokio::task::block_in_place(|| support::get(http, path));
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(" 200 "), "{path}: {answer}");
    serde_json::from_str(body).unwrap()
}

/// A client of a server whose certificates are in this directory.
async fn connect(
    dir: &Path,
    addr: &str,
    transport: TransportChoice,
    login: Login,
) -> Result<(Client, Events), ConnectError> {
    let mut config = ClientConfig::new(addr, login);
    config.trust = Trust::Ca(std::fs::read(dir.join("edgeway-data/certs/ca.pem")).unwrap());
    config.transport = transport;
    within("a connection", Client::connect(config)).await
}

fn user(name: &str) -> Login {
    Login::Development { user: name.to_owned() }
}

/// The next message.
async fn hears(events: &mut Events) -> Message {
    loop {
        let event = within("a message", events.next()).await.expect("the client goes on");
        if let Event::Message(message) = event {
            return message;
        }
    }
}

async fn hears_text(events: &mut Events) -> String {
    String::from_utf8(hears(events).await.payload.to_vec()).unwrap()
}
