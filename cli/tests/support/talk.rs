//! Members of a room who speak and listen, and what they must have heard.

#![allow(clippy::expect_used)]

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use edgeway_client::{
    AckStatus, Bytes, Class, Client, ClientConfig, Event, Events, Login, Room, SendError,
    TransportChoice, Trust,
};
use tokio::sync::watch;

/// Above what a busy machine takes.
const PATIENCE: Duration = Duration::from_secs(120);

pub async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("it did not happen in time")
}

/// Member `n`, by the certificates that `up` has made in the directory.
pub async fn connect(dir: &Path, addr: &str, quic: bool, n: usize) -> (Client, Events) {
    let login = Login::Development { user: format!("user-{n}") };
    let mut config = ClientConfig::new(addr, login);
    config.trust = Trust::Ca(std::fs::read(dir.join("edgeway-data/certs/ca.pem")).unwrap());
    config.transport = if quic { TransportChoice::Quic } else { TransportChoice::Tcp };
    within(Client::connect(config)).await.unwrap()
}

/// Takes what happens, for who does not look at it: else no more comes.
pub fn drain(mut events: Events) {
    tokio::spawn(async move { while events.next().await.is_some() {} });
}

/// Signals, each after the ack of the one before, and strokes, until told to stop; gives how many of
/// each.
pub async fn speak(room: Room, user: usize, stop: Arc<AtomicBool>) -> [u64; 2] {
    let (mut signals, mut strokes) = (0, 0);
    let mut ticks = tokio::time::interval(Duration::from_millis(50));
    while !stop.load(Ordering::Relaxed) {
        ticks.tick().await;
        let stroke = Bytes::from(format!("{user} {strokes}"));
        match room.send_stroke_nowait(stroke) {
            Ok(_) => strokes += 1,
            Err(SendError::Full) => {}
            Err(error) => panic!("a stroke: {error}"),
        }
        let _ = room.send_chat_nowait(Bytes::from_static(b"chat"));
        let ack = within(room.send_signal(Bytes::from(format!("{user} {signals}")))).await.unwrap();
        assert_ne!(ack.status, AckStatus::Shed);
        signals += 1;
    }
    [signals, strokes]
}

/// All signals and strokes that one member was given, in order, until there are as many as were sent.
pub async fn listen(mut events: Events, sent: watch::Receiver<Option<u64>>) -> [Vec<String>; 2] {
    let mut all = [Vec::new(), Vec::new()];
    loop {
        let total = sent.borrow().unwrap_or(u64::MAX);
        if all.iter().map(Vec::len).sum::<usize>() as u64 >= total {
            return all;
        }
        let event = match tokio::time::timeout(Duration::from_millis(100), events.next()).await {
            Err(_) => continue,
            Ok(event) => event.expect("the client goes on"),
        };
        match event {
            Event::Message(message) if message.class != Class::Chat => {
                let text = String::from_utf8(message.payload.to_vec()).unwrap();
                all[usize::from(message.class == Class::Binary)].push(text);
            }
            Event::HistoryLost { .. } => panic!("{event:?}"),
            _ => {}
        }
    }
}

/// What the members of a room heard: signals and strokes.
#[derive(Default)]
pub struct Heard(BTreeMap<usize, [Vec<String>; 2]>);

impl Heard {
    pub fn insert(&mut self, member: usize, all: [Vec<String>; 2]) {
        self.0.insert(member, all);
    }

    /// All that was said, once, by each in its order, and for all in one order.
    pub fn check(&self, said: [u64; 2], speakers: usize) {
        let (_, first) = self.0.first_key_value().expect("somebody listens");
        for (class, of) in first.iter().enumerate() {
            assert_eq!(of.len() as u64, said[class], "class {class}");
            let mut next = vec![0; speakers];
            for text in of {
                let (user, number) = text.split_once(' ').unwrap();
                let user: usize = user.parse().unwrap();
                assert_eq!(number.parse::<u64>().unwrap(), next[user], "{text} in class {class}");
                next[user] += 1;
            }
        }
        for (n, all) in &self.0 {
            assert!(all == first, "member {n} saw another order");
        }
    }
}
