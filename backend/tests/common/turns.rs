//! A way to a server on which time is counted in turns: what is sent is held until nobody sends any
//! more, then goes out, and what is answered is held until nothing more is answered. Requests that
//! wait for no answer share a turn, so that turns are round trips that follow each other.
//!
//! What the directory is told, nobody waits for: while turns are counted it is told nothing at all, and all else
//! must go on without it. What keeps a process in the registry goes by as if there were no turns.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    time::timeout,
};

/// When nothing was sent, or answered, at so many looks in a row, the turn goes on: far later than anyone
/// takes who has something to say. Several looks, since a machine may halt everybody for a while.
const LOOKS: usize = 6;
const LOOK: Duration = Duration::from_millis(50);

#[derive(Clone)]
pub struct Turns {
    addr: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    counting: AtomicBool,
    turns: AtomicUsize,
    /// The directory has been told something.
    directory: AtomicBool,
}

enum Event {
    Opened(usize, OwnedWriteHalf, OwnedWriteHalf),
    Asked(usize, Vec<u8>),
    Answered(usize, Vec<u8>),
}

impl Turns {
    /// A way to the server on this port of loopback.
    pub async fn before(port: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let state = Arc::<State>::default();
        let (events, waiting) = unbounded_channel();
        tokio::spawn(run(waiting, Arc::clone(&state)));
        tokio::spawn(async move {
            for number in 0.. {
                let (client, _) = listener.accept().await.unwrap();
                let server = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                let _ = events.send(Event::Opened(number, to_client, to_server));
                tokio::spawn(read(from_client, events.clone(), move |b| Event::Asked(number, b)));
                let answered = move |b| Event::Answered(number, b);
                tokio::spawn(read(from_server, events.clone(), answered));
            }
        });
        Self { addr, state }
    }

    pub fn url(&self) -> String {
        format!("redis://{}", self.addr)
    }

    /// Waits until the directory is told something: what was held back is known for what it is.
    pub async fn directory(&self) {
        while !self.state.directory.load(Ordering::SeqCst) {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// How many turns something takes. Before and after, the way is free.
    pub async fn count<T>(&self, work: impl Future<Output = T>) -> (usize, T) {
        self.state.turns.store(0, Ordering::SeqCst);
        self.state.counting.store(true, Ordering::SeqCst);
        let done = work.await;
        self.state.counting.store(false, Ordering::SeqCst);
        (self.state.turns.load(Ordering::SeqCst), done)
    }
}

async fn read(
    mut from: OwnedReadHalf,
    events: UnboundedSender<Event>,
    event: impl Fn(Vec<u8>) -> Event,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        let _ = events.send(event(buffer[..n].to_vec()));
    }
}

/// What a connection is for: each has one purpose, which its first keys tell.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Store,
    Directory,
    Registry,
}

impl Purpose {
    fn of(bytes: &[u8]) -> Self {
        let has = |key: &[u8]| bytes.windows(key.len()).any(|part| part == key);
        match () {
            () if has(b":{nodes}:") => Self::Registry,
            () if has(b":{r:") || has(b":{u:") => Self::Directory,
            () => Self::Store,
        }
    }
}

struct Way {
    to_client: OwnedWriteHalf,
    to_server: OwnedWriteHalf,
    purpose: Purpose,
}

#[derive(Default)]
struct Held {
    ways: HashMap<usize, Way>,
    asked: Vec<(usize, Vec<u8>)>,
    answered: Vec<(usize, Vec<u8>)>,
    /// What the directory is to be told later.
    later: Vec<(usize, Vec<u8>)>,
}

impl Held {
    fn way(&mut self, number: usize) -> &mut Way {
        self.ways.get_mut(&number).unwrap()
    }

    /// Whether it is for a turn.
    async fn hold(&mut self, event: Event) -> bool {
        match event {
            Event::Opened(number, to_client, to_server) => {
                let purpose = Purpose::Store;
                self.ways.insert(number, Way { to_client, to_server, purpose });
                false
            }
            Event::Asked(number, bytes) => {
                let way = self.way(number);
                if way.purpose == Purpose::Store {
                    way.purpose = Purpose::of(&bytes);
                }
                let purpose = way.purpose;
                match purpose {
                    Purpose::Store => self.asked.push((number, bytes)),
                    Purpose::Directory => self.later.push((number, bytes)),
                    Purpose::Registry => _ = way.to_server.write_all(&bytes).await,
                }
                purpose == Purpose::Store
            }
            Event::Answered(number, bytes) => {
                let way = self.way(number);
                let is_store = way.purpose == Purpose::Store;
                if is_store {
                    self.answered.push((number, bytes));
                } else {
                    let _ = way.to_client.write_all(&bytes).await;
                }
                is_store
            }
        }
    }

    async fn ask(&mut self) {
        for (number, bytes) in std::mem::take(&mut self.asked) {
            let _ = self.way(number).to_server.write_all(&bytes).await;
        }
    }

    async fn ask_later(&mut self) {
        for (number, bytes) in std::mem::take(&mut self.later) {
            let _ = self.way(number).to_server.write_all(&bytes).await;
        }
    }

    async fn answer(&mut self) {
        for (number, bytes) in std::mem::take(&mut self.answered) {
            let _ = self.way(number).to_client.write_all(&bytes).await;
        }
    }
}

/// Holds what comes until nothing does.
async fn wait(events: &mut UnboundedReceiver<Event>, held: &mut Held) {
    let mut quiet = 0;
    while quiet < LOOKS {
        match timeout(LOOK, events.recv()).await {
            Ok(Some(event)) => {
                if held.hold(event).await {
                    quiet = 0;
                }
            }
            Ok(None) => return,
            Err(_) => quiet += 1,
        }
    }
}

async fn run(mut events: UnboundedReceiver<Event>, state: Arc<State>) {
    let mut held = Held::default();
    loop {
        let counting = || state.counting.load(Ordering::SeqCst);
        if held.asked.is_empty() && held.answered.is_empty() {
            // Looks now and then whether what waits for the end of the counting may go.
            match timeout(LOOK, events.recv()).await {
                Ok(Some(event)) => _ = held.hold(event).await,
                Ok(None) => return,
                Err(_) => {}
            }
        }
        if !counting() {
            state.directory.fetch_or(!held.later.is_empty(), Ordering::SeqCst);
            held.ask_later().await;
            held.ask().await;
        } else if !held.asked.is_empty() {
            wait(&mut events, &mut held).await;
            state.turns.fetch_add(1, Ordering::SeqCst);
            held.ask().await;
            wait(&mut events, &mut held).await;
        }
        held.answer().await;
    }
}
