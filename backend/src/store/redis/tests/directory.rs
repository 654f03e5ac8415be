//! The directory on servers: its conformance suite, and what happens when they go away.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::time::sleep;

use super::*;
use crate::directory::{
    Directory, DirectoryConfig, Listing, Member, Name, Recorder, Source, Stamps, Term, Writing,
    conformance, gateways,
};

async fn open(options: RedisOptions) -> Arc<dyn Directory> {
    Arc::new(RedisDirectory::open(options).await.unwrap())
}

mod on_one_server {
    use super::*;
    conformance::promises!(open(on_single()));
}

mod over_tls_with_a_password {
    use super::*;
    conformance::promises!(open(on_tls()));
}

mod on_a_cluster {
    use super::*;
    conformance::promises!(open(on_cluster()));
}

/// Rooms of this process, and what is true of them.
struct Rooms {
    recorder: Recorder,
    _writing: Writing,
    truth: Arc<Truth>,
}

#[derive(Default)]
struct Truth(parking_lot::Mutex<Vec<(Option<Listing>, BTreeSet<Bytes>)>>);

impl Source for Truth {
    fn ask(&self, (at, _): (u64, u64)) {
        let rooms = self.0.lock();
        if let (Some(listing), lines) = &rooms[usize::try_from(at).unwrap()] {
            listing.anew(gateways([1].into_iter()), lines.iter().cloned());
        }
    }
}

fn name(at: usize) -> Name {
    Name::room(&format!("chat:{at}"))
}

impl Rooms {
    fn new(directory: &Arc<dyn Directory>, term: u64, rooms: usize) -> Self {
        let config = DirectoryConfig {
            gather: Duration::from_millis(1),
            retry: Duration::from_millis(20),
            renew: Duration::from_millis(500),
            ..DirectoryConfig::default()
        };
        let stamps = Arc::new(Stamps::new());
        let (recorder, writing) = Recorder::start(directory.clone(), config, stamps);
        let rooms_of = Self { recorder, _writing: writing, truth: Arc::default() };
        for at in 0..rooms {
            let (head, of) = (gateways([1].into_iter()), (at as u64, 0));
            let source = rooms_of.truth.clone();
            let listing = rooms_of.recorder.open(name(at), Term(term, 0), head, source, of);
            rooms_of.truth.0.lock().push((Some(listing), BTreeSet::new()));
        }
        rooms_of
    }

    fn toggle(&self, at: usize, session: u64) {
        let id = crate::room::SessionId { gateway: 1, session };
        let line = Member::line("ada", &session.to_string(), id);
        let mut rooms = self.truth.0.lock();
        let (listing, lines) = &mut rooms[at];
        let listing = listing.as_ref().unwrap();
        if lines.remove(&line) {
            listing.remove(line);
        } else {
            lines.insert(line.clone());
            listing.add(line);
        }
    }

    fn toggle_all(&self, sessions: std::ops::Range<u64>) {
        let rooms = self.truth.0.lock().len();
        sessions.for_each(|session| (0..rooms).for_each(|at| self.toggle(at, session)));
    }

    /// Waits until the directory says the truth of all rooms.
    async fn until_true(&self, directory: &Arc<dyn Directory>) {
        let rooms = self.truth.0.lock().len();
        for at in 0..rooms {
            loop {
                let found = directory.read(name(at), Bytes::new(), 10_000).await;
                // While the server is away, nothing is known.
                let lines = found.ok().flatten().map(|found| found.lines);
                let truth: Vec<_> = self.truth.0.lock()[at].1.iter().cloned().collect();
                if lines == Some(truth) {
                    break;
                }
                sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_happened_while_the_server_was_away_is_there_when_it_is_back_even_where_it_lost_all() {
    for durable in [true, false] {
        let mut server = Server::start(&Options { durable, ..Options::default() });
        let directory = open(options(&[server.url()], false)).await;
        let rooms = Rooms::new(&directory, 1, 30);
        rooms.toggle_all(0..20);
        rooms.until_true(&directory).await;
        for round in 0..2 {
            server.stop();
            rooms.toggle_all(round * 10 + 5..round * 10 + 30);
            sleep(Duration::from_millis(300)).await;
            rooms.toggle_all(100..120);
            server.resume();
            // Some have not changed since, and come back by themselves.
            rooms.until_true(&directory).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_halts_and_goes_on_says_the_truth_at_last() {
    let server = Server::start(&Options::default());
    let directory = open(options(&[server.url()], false)).await;
    let rooms = Rooms::new(&directory, 1, 5);
    rooms.toggle_all(0..5);
    rooms.until_true(&directory).await;
    server.halt();
    rooms.toggle_all(3..8);
    // Longer than an answer is waited for: the write is in its socket, and is given again.
    sleep(Duration::from_millis(5_500)).await;
    rooms.toggle_all(0..2);
    server.go_on();
    rooms.until_true(&directory).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_did_to_the_keys_is_undone() {
    let server = Server::start(&Options::default());
    let directory = open(options(&[server.url()], false)).await;
    let rooms = Rooms::new(&directory, 1, 3);
    rooms.toggle_all(0..10);
    rooms.until_true(&directory).await;
    for key in ["edgeway:{r:chat:0}:members", "edgeway:{r:chat:1}:here"] {
        let _: () = ask(&server.url(), &["DEL", key]);
    }
    let _: () = ask(&server.url(), &["ZADD", "edgeway:{r:chat:2}:members", "0", "of another"]);
    rooms.until_true(&directory).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_owner_changes_nothing_of_its_successor_s() {
    let server = Server::start(&Options::default());
    let directory = open(options(&[server.url()], false)).await;
    let old = Rooms::new(&directory, 1, 3);
    old.toggle_all(0..10);
    old.until_true(&directory).await;
    // It halts, and another one takes over.
    let new = Rooms::new(&directory, 2, 3);
    new.toggle_all(100..105);
    new.until_true(&directory).await;
    old.toggle_all(5..20);
    old.truth.0.lock()[0].0 = None;
    sleep(Duration::from_millis(1_200)).await;
    new.until_true(&directory).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_dead_process_left_vanishes() {
    let server = Server::start(&Options::default());
    let directory = open(options(&[server.url()], false)).await;
    let rooms = Rooms::new(&directory, 1, 3);
    rooms.toggle_all(0..10);
    rooms.until_true(&directory).await;
    let Rooms { recorder, _writing: writing, truth } = rooms;
    // Nothing is told, as when a process is killed.
    writing.abort();
    while directory.read(name(0), Bytes::new(), 1).await.unwrap().is_some() {
        sleep(Duration::from_millis(10)).await;
    }
    while !ask::<Vec<String>>(&server.url(), &["KEYS", "*{r:chat:*"]).is_empty() {
        sleep(Duration::from_millis(10)).await;
    }
    drop((recorder, truth));
}

#[tokio::test]
async fn what_is_no_listing_is_told_with_its_key() {
    let directory = open(on_single()).await;
    let room = Name::room("chat:wrong");
    let _: () = ask(&single().url(), &["SET", "edgeway:{r:chat:wrong}:here", "text"]);
    let told = directory.read(room, Bytes::new(), 1).await.unwrap_err();
    assert!(matches!(&told, StoreError::Corrupt { place, .. } if place.contains("chat:wrong")));
}
