//! Members that speak and listen, and what must hold for what they have heard.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use edgeway_client::{AckStatus, Bytes, Class, Client, Event, Events, Room, SendError, Seq};
use tokio::{sync::watch, task::JoinSet};

use crate::cluster::{Cluster, PATIENCE, within};

/// A message as one member was given it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    pub seq: Seq,
    pub text: String,
    pub at: Instant,
}

/// By class.
type Classes = [Vec<Heard>; 3];

/// A signal whose sender has its ack.
#[derive(Debug, Clone)]
pub struct Acked {
    pub text: String,
    pub seq: Seq,
    pub at: Instant,
}

/// What was said by all, in all rooms.
#[derive(Debug, Default)]
pub struct Said {
    pub signals: Vec<Acked>,
    pub strokes: u64,
}

/// Members of some rooms, all speaking in each of them.
pub struct Talk {
    stop: Arc<AtomicBool>,
    total: watch::Sender<Option<u64>>,
    speakers: JoinSet<Said>,
    listeners: JoinSet<(usize, BTreeMap<String, Classes>)>,
    clients: Vec<Client>,
    members: usize,
}

/// What all members have heard, by member and room.
pub struct Whole {
    pub said: Said,
    pub heard: BTreeMap<usize, BTreeMap<String, Classes>>,
}

impl Talk {
    pub async fn start(cluster: &Cluster, members: usize, rooms: &[&str]) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let (total, sent) = watch::channel(None);
        let (mut clients, mut joined, mut listeners) = (Vec::new(), Vec::new(), JoinSet::new());
        for n in 0..members {
            let (client, events) = cluster.connect(n).await;
            let heard = listen(events, sent.clone());
            listeners.spawn(async move { (n, heard.await) });
            for name in rooms {
                let room = within("a join", client.join(name)).await.unwrap();
                joined.push((n, room));
            }
            clients.push(client);
        }
        // Only once all are in: so all hear all.
        let mut speakers = JoinSet::new();
        for (n, room) in joined {
            speakers.spawn(speak(room, n, Arc::clone(&stop)));
        }
        Self { stop, total, speakers, listeners, clients, members }
    }

    /// Waits until all have said all that they wanted, and heard all of it.
    pub async fn end(mut self) -> Whole {
        self.stop.store(true, Ordering::Relaxed);
        let mut said = Said::default();
        while let Some(one) = within("the last acks", self.speakers.join_next()).await {
            let one = one.unwrap();
            said.signals.extend(one.signals);
            said.strokes += one.strokes;
        }
        self.total.send(Some(said.signals.len() as u64 + said.strokes)).unwrap();
        let mut heard = BTreeMap::new();
        while let Some(one) = self.listeners.join_next().await {
            let (n, all) = one.unwrap();
            heard.insert(n, all);
        }
        assert_eq!(heard.len(), self.members);
        for client in &self.clients {
            assert_eq!(client.stats().reconnects, 0, "no connection is lost for an owner");
        }
        Whole { said, heard }
    }
}

/// Signals, each after the ack of the one before; strokes and chat.
async fn speak(room: Room, user: usize, stop: Arc<AtomicBool>) -> Said {
    let mut said = Said::default();
    let mut ticks = tokio::time::interval(Duration::from_millis(50));
    let name = room.name().to_string();
    let mut chats = 0;
    while !stop.load(Ordering::Relaxed) {
        ticks.tick().await;
        let text = |what: char, n: u64| Bytes::from(format!("{name} {user} {what} {n};"));
        match room.send_stroke_nowait(text('b', said.strokes)) {
            Ok(_) => said.strokes += 1,
            Err(SendError::Full) => {}
            Err(error) => panic!("a stroke: {error}"),
        }
        if room.send_chat_nowait(text('c', chats)).is_ok() {
            chats += 1;
        }
        let signal = text('s', said.signals.len() as u64);
        // Chat and strokes do not wait for a signal's ack.
        let mut sending = std::pin::pin!(within("an ack", room.send_signal(signal.clone())));
        let ack = loop {
            tokio::select! {
                ack = &mut sending => break ack.unwrap(),
                _ = ticks.tick() => {
                    if room.send_chat_nowait(text('c', chats)).is_ok() {
                        chats += 1;
                    }
                }
            }
        };
        assert_ne!(ack.status, AckStatus::Shed);
        let text = String::from_utf8(signal.to_vec()).unwrap();
        said.signals.push(Acked { text, seq: ack.seq, at: Instant::now() });
    }
    said
}

/// All that one member is given, until it is as much as was said. What is missing then is seen by
/// [`Whole::check`].
async fn listen(
    mut events: Events,
    sent: watch::Receiver<Option<u64>>,
) -> BTreeMap<String, Classes> {
    let mut all = BTreeMap::<String, Classes>::new();
    let (mut count, mut ended) = (0, None);
    loop {
        let total = *sent.borrow();
        if let Some(total) = total {
            let since = *ended.get_or_insert_with(Instant::now);
            if count >= total || since.elapsed() > PATIENCE {
                return all;
            }
        }
        let event = match tokio::time::timeout(Duration::from_millis(100), events.next()).await {
            Err(_) => continue,
            Ok(event) => event.expect("the client goes on"),
        };
        match event {
            Event::Message(message) => {
                let text = String::from_utf8(message.payload.to_vec()).unwrap();
                let heard = Heard { seq: message.seq, text, at: Instant::now() };
                let classes = all.entry(message.room.to_string()).or_default();
                classes[message.class.index()].push(heard);
                count += u64::from(message.class != Class::Chat);
            }
            Event::HistoryLost { .. } => panic!("{event:?}"),
            Event::Left { .. } | Event::SessionClosed { .. } => eprintln!("{event:?}"),
            _ => {}
        }
    }
}

impl Whole {
    /// Nothing is lost, repeated or reordered, and all have heard the same.
    pub fn check(&self) {
        let (_, first) = self.heard.first_key_value().unwrap();
        let mut whole = [0; 2];
        for (room, classes) in first {
            for (class, of) in [Class::Signal, Class::Binary].iter().zip(classes) {
                whole[class.index()] += of.len();
                in_order(&format!("{room} {class}"), of, true);
            }
        }
        assert_eq!(
            whole,
            [self.said.signals.len(), self.said.strokes as usize],
            "signals, strokes"
        );
        for (n, all) in &self.heard {
            for (room, classes) in all {
                for class in [Class::Signal, Class::Binary] {
                    let what = |heard: &Vec<Heard>| {
                        heard.iter().map(|one| (one.seq, one.text.clone())).collect::<Vec<_>>()
                    };
                    let (mine, first) = (&classes[class.index()], &first[room][class.index()]);
                    assert!(what(mine) == what(first), "member {n} saw another order in {room}");
                }
                in_order(&format!("chat of {room} for {n}"), &classes[Class::Chat.index()], false);
            }
        }
        // Of chat some may be missing; what is there has one place.
        let mut places = BTreeMap::new();
        for (room, classes) in self.heard.values().flatten() {
            for one in &classes[Class::Chat.index()] {
                let text = places.entry((room, one.seq)).or_insert(&one.text);
                assert_eq!(**text, one.text, "two messages at {} of {room}", one.seq);
            }
        }
    }

    /// The epochs in which signals were heard.
    pub fn epochs(&self) -> std::collections::BTreeSet<u64> {
        self.said.signals.iter().map(|one| one.seq.epoch).filter(|epoch| *epoch != 0).collect()
    }

    /// How many chat messages members were given between two moments.
    pub fn chat_between(&self, from: Instant, to: Instant) -> usize {
        let all = self.heard.values().flat_map(BTreeMap::values);
        let chat = all.flat_map(|classes| &classes[Class::Chat.index()]);
        chat.filter(|one| from <= one.at && one.at < to).count()
    }
}

/// Places only grow; and of what is reliable each sender's numbers, by one.
fn in_order(what: &str, heard: &[Heard], whole: bool) {
    let mut next = BTreeMap::<String, u64>::new();
    let mut last = Seq::ZERO;
    for one in heard {
        assert!(one.seq > last, "{what}: {} after {last}", one.seq);
        last = one.seq;
        let (sender, number) = one.text.trim_end_matches(';').rsplit_once(' ').unwrap();
        let number: u64 = number.parse().unwrap();
        let expected = next.entry(sender.to_owned()).or_default();
        // Chat whose ack was lost with its owner is said again.
        assert!(!whole || number == *expected, "{what}: {} where {expected} was to come", one.text);
        *expected = number + 1;
    }
}
