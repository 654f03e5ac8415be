//! A way to a server on which time is counted in turns: what is sent is held until nobody sends any
//! more, then goes out, and what is answered is held until nothing more is answered. Requests that
//! wait for no answer share a turn, so that turns are round trips that follow each other.

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

#[derive(Default)]
struct Held {
    ways: HashMap<usize, (OwnedWriteHalf, OwnedWriteHalf)>,
    asked: Vec<(usize, Vec<u8>)>,
    answered: Vec<(usize, Vec<u8>)>,
}

impl Held {
    fn hold(&mut self, event: Event) {
        match event {
            Event::Opened(number, to_client, to_server) => {
                self.ways.insert(number, (to_client, to_server));
            }
            Event::Asked(number, bytes) => self.asked.push((number, bytes)),
            Event::Answered(number, bytes) => self.answered.push((number, bytes)),
        }
    }

    async fn ask(&mut self) {
        for (number, bytes) in self.asked.drain(..) {
            let _ = self.ways.get_mut(&number).unwrap().1.write_all(&bytes).await;
        }
    }

    async fn answer(&mut self) {
        for (number, bytes) in self.answered.drain(..) {
            let _ = self.ways.get_mut(&number).unwrap().0.write_all(&bytes).await;
        }
    }
}

/// Holds what comes until nothing does.
async fn wait(events: &mut UnboundedReceiver<Event>, held: &mut Held) {
    let mut quiet = 0;
    while quiet < LOOKS {
        match timeout(LOOK, events.recv()).await {
            Ok(Some(event)) => {
                held.hold(event);
                quiet = 0;
            }
            Ok(None) => return,
            Err(_) => quiet += 1,
        }
    }
}

async fn run(mut events: UnboundedReceiver<Event>, state: Arc<State>) {
    let mut held = Held::default();
    loop {
        if held.asked.is_empty() {
            let Some(event) = events.recv().await else { return };
            held.hold(event);
        }
        if state.counting.load(Ordering::SeqCst) {
            wait(&mut events, &mut held).await;
            state.turns.fetch_add(usize::from(!held.asked.is_empty()), Ordering::SeqCst);
            held.ask().await;
            wait(&mut events, &mut held).await;
        } else {
            held.ask().await;
        }
        held.answer().await;
    }
}
