//! The task that writes, with a directory that is away now and then, and its readers.
#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeSet,
    pin::Pin,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use super::*;
use crate::{
    directory::{Cursor, Found, Lookup, Member, MemoryDirectory, gateways},
    room::SessionId,
    store::StoreFuture,
};

/// In memory, and away at times.
#[derive(Default)]
struct Away {
    memory: MemoryDirectory,
    away: AtomicBool,
    writes: AtomicU64,
}

impl Directory for Away {
    fn write(&self, batch: Vec<Arc<Write>>) -> Pin<Box<dyn Future<Output = Outcomes> + Send + '_>> {
        if self.away.load(Ordering::SeqCst) {
            let away = || StoreError::Unavailable("away".to_owned());
            return Box::pin(async move { batch.iter().map(|_| Err(away())).collect() });
        }
        self.writes.fetch_add(batch.len() as u64, Ordering::SeqCst);
        self.memory.write(batch)
    }

    fn read(&self, name: Name, after: Bytes, limit: usize) -> StoreFuture<'_, Option<Found>> {
        self.memory.read(name, after, limit)
    }

    fn sessions(&self, user: &str, limit: usize) -> StoreFuture<'_, Vec<String>> {
        self.memory.sessions(user, limit)
    }
}

/// The truth of one room.
struct Room {
    members: Mutex<BTreeSet<Bytes>>,
    listing: Mutex<Option<Listing>>,
}

impl Source for Room {
    fn ask(&self, _: (u64, u64)) {
        let (members, listing) = (self.members.lock(), self.listing.lock());
        if let Some(listing) = &*listing {
            listing.anew(head(), members.iter().cloned());
        }
    }
}

fn head() -> Bytes {
    gateways([1, 2].into_iter())
}

impl Room {
    fn open(recorder: &Recorder, name: &str) -> Arc<Self> {
        let room = Arc::new(Self { members: Mutex::default(), listing: Mutex::default() });
        let listing = recorder.open(Name::room(name), Term(1, 0), head(), room.clone(), (0, 0));
        *room.listing.lock() = Some(listing);
        room
    }

    fn toggle(&self, line: Bytes) {
        let mut members = self.members.lock();
        let listing = self.listing.lock();
        let listing = listing.as_ref().unwrap();
        if members.remove(&line) {
            listing.remove(line);
        } else {
            members.insert(line.clone());
            listing.add(line);
        }
    }
}

fn config() -> DirectoryConfig {
    DirectoryConfig {
        gather: Duration::from_millis(1),
        retry: Duration::from_millis(5),
        renew: Duration::from_millis(50),
        ..DirectoryConfig::default()
    }
}

fn start(directory: &Arc<Away>, config: &DirectoryConfig) -> (Recorder, Writing, Lookup) {
    let stamps = Arc::new(Stamps::new());
    let (recorder, writing) = Recorder::start(directory.clone(), config.clone(), stamps.clone());
    (recorder, writing, Lookup::new(directory.clone(), config, stamps))
}

fn line(n: u64) -> Bytes {
    Member::line(&format!("user {n}"), "phone", SessionId { gateway: 1 + n % 2, session: n })
}

/// Waits until the directory says the truth of a room.
async fn until_true(directory: &Away, name: &str, room: &Room) {
    loop {
        let found = directory.read(Name::room(name), Bytes::new(), 100_000).await.unwrap();
        let lines = found.map(|found| found.lines.into_iter().collect::<BTreeSet<_>>());
        if lines.as_ref() == Some(&*room.members.lock()) {
            return;
        }
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_directory_is_away_nothing_waits_and_then_it_says_the_truth() {
    let directory = Arc::new(Away::default());
    let config = DirectoryConfig { pending_bytes: 200_000, ..config() };
    let (recorder, _writing, _) = start(&directory, &config);
    let rooms: Vec<_> =
        (0..20).map(|n| (n.to_string(), Room::open(&recorder, &n.to_string()))).collect();
    for round in 0..6 {
        directory.away.store(round % 2 == 1, Ordering::SeqCst);
        for (n, (_, room)) in (0..2_000).zip(rooms.iter().cycle()) {
            room.toggle(line(round * 700 + n));
        }
        sleep(Duration::from_millis(20)).await;
    }
    directory.away.store(false, Ordering::SeqCst);
    for (name, room) in &rooms {
        until_true(&directory, name, room).await;
    }
}

#[tokio::test]
async fn what_the_directory_has_lost_comes_back_and_what_is_idle_stays() {
    let directory = Arc::new(Away::default());
    let (recorder, _writing, _) = start(&directory, &config());
    let (lost, idle) = (Room::open(&recorder, "lost"), Room::open(&recorder, "idle"));
    for n in 0..10 {
        lost.toggle(line(n));
        idle.toggle(line(n));
    }
    for _ in 0..3 {
        until_true(&directory, "lost", &lost).await;
        directory.memory.forget(&Name::room("lost"));
        // Longer than it lives.
        sleep(config().renew * 4).await;
        until_true(&directory, "idle", &idle).await;
    }
}

#[tokio::test]
async fn a_change_that_was_written_is_seen_by_who_reads_in_the_same_process() {
    let directory = Arc::new(Away::default());
    let config = DirectoryConfig { fresh: Duration::from_secs(3600), ..config() };
    let (recorder, _writing, lookup) = start(&directory, &config);
    let room = Room::open(&recorder, "chat:maths");
    for n in 1..=20 {
        room.toggle(line(n));
        // Only a reload can tell: what is cached would be good for an hour.
        loop {
            let page = lookup.members("maths", &Cursor::default(), 100).await.unwrap();
            if page.total == n {
                assert_eq!(page.members.len() as u64, n);
                break;
            }
            assert_eq!(page.total + 1, n);
            sleep(Duration::from_millis(1)).await;
        }
    }
    let route = lookup.route("maths").await.unwrap();
    assert_eq!((route.epoch, route.members, route.gateways.len()), (1, 20, 2));
}

#[tokio::test]
async fn at_the_end_all_that_is_closed_is_told() {
    let directory = Arc::new(Away::default());
    let (recorder, writing, _) = start(&directory, &DirectoryConfig::default());
    let rooms: Vec<_> = (0..2_000).map(|n| Room::open(&recorder, &n.to_string())).collect();
    while directory.writes.load(Ordering::SeqCst) < 2_000 {
        sleep(Duration::from_millis(5)).await;
    }
    for room in rooms {
        room.listing.lock().take();
    }
    writing.finish(Duration::from_secs(60)).await;
    for n in [0, 999, 1_999] {
        let name = Name::room(&n.to_string());
        assert_eq!(directory.read(name, Bytes::new(), 1).await.unwrap(), None);
    }
}
