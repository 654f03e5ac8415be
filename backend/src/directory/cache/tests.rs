//! The cache in front of a directory that answers when it is told to.
#![allow(clippy::unwrap_used)]

use std::{pin::Pin, sync::atomic::AtomicUsize};

use super::*;
use crate::{
    directory::{Outcomes, Term, Write},
    store::StoreFuture,
};

/// Its listings are one number each, which is in the head.
#[derive(Default)]
struct Numbers {
    number: AtomicU64,
    reads: AtomicUsize,
    /// Reads that have begun wait here before they look, and before they answer.
    gate: Option<Semaphore>,
    fails: bool,
}

impl Directory for Numbers {
    fn write(&self, _: Vec<Arc<Write>>) -> Pin<Box<dyn Future<Output = Outcomes> + Send + '_>> {
        Box::pin(async { Vec::new() })
    }

    fn read(&self, _: Name, _: Bytes, limit: usize) -> StoreFuture<'_, Option<Found>> {
        Box::pin(async move {
            self.reads.fetch_add(1, Ordering::SeqCst);
            let number = self.number.load(Ordering::SeqCst);
            if let Some(gate) = &self.gate {
                gate.acquire().await.unwrap().forget();
            } else {
                tokio::task::yield_now().await;
            }
            if self.fails {
                return Err(StoreError::Unavailable("away".to_owned()));
            }
            let head = Bytes::copy_from_slice(&number.to_be_bytes());
            let lines = vec![Bytes::from(vec![0; 100]); limit];
            Ok((number > 0).then_some(Found {
                term: Term(1, 0),
                head,
                total: 0,
                lines,
                more: false,
            }))
        })
    }

    fn sessions(&self, _: &str, _: usize) -> StoreFuture<'_, Vec<String>> {
        Box::pin(async { Ok(Vec::new()) })
    }
}

fn cache(numbers: &Arc<Numbers>, change: impl FnOnce(&mut DirectoryConfig)) -> Arc<Cache> {
    // What is not the matter of a test does not happen while it runs.
    let mut config =
        DirectoryConfig { fresh: Duration::from_secs(3600), ..DirectoryConfig::default() };
    change(&mut config);
    Arc::new(Cache::new(numbers.clone(), &config, Arc::new(Stamps::new())))
}

fn key(room: &str, limit: usize) -> Key {
    Key::Listing { name: Name::room(room), after: Bytes::new(), limit }
}

/// What was read; 0 where there is nothing.
fn number(answer: &Answer) -> u64 {
    match answer {
        Answer::Listing(Some(found)) => u64::from_be_bytes(found.head[..].try_into().unwrap()),
        Answer::Listing(None) => 0,
        other => unreachable!("{other:?}"),
    }
}

fn reads(numbers: &Numbers) -> usize {
    numbers.reads.load(Ordering::SeqCst)
}

async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn what_was_read_is_not_read_again_also_where_there_was_nothing() {
    let numbers = Arc::new(Numbers::default());
    let cache = cache(&numbers, |_| {});
    for _ in 0..10 {
        assert_eq!(number(&cache.get(key("a", 0)).await), 0);
    }
    assert_eq!(reads(&numbers), 1);
    numbers.number.store(7, Ordering::SeqCst);
    assert_eq!(number(&cache.get(key("b", 0)).await), 7);
    assert_eq!(number(&cache.get(key("a", 1)).await), 7, "another page");
    assert_eq!(reads(&numbers), 3);
}

#[tokio::test]
async fn of_those_who_ask_at_the_same_time_one_reads() {
    let numbers = Arc::new(Numbers { gate: Some(Semaphore::new(0)), ..Numbers::default() });
    let cache = cache(&numbers, |_| {});
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let cache = cache.clone();
        asking.spawn(async move { number(&cache.get(key("a", 0)).await) });
    }
    until(|| reads(&numbers) == 1).await;
    numbers.gate.as_ref().unwrap().add_permits(1);
    assert_eq!(asking.join_all().await, [0; 50]);
    assert_eq!(reads(&numbers), 1);
}

#[tokio::test]
async fn who_begins_to_read_after_a_change_sees_it_though_an_older_read_ends_later() {
    let numbers = Arc::new(Numbers { gate: Some(Semaphore::new(0)), ..Numbers::default() });
    let cache = cache(&numbers, |_| {});
    let ask = || {
        let cache = cache.clone();
        tokio::spawn(async move { number(&cache.get(key("a", 0)).await) })
    };
    let before = ask();
    until(|| reads(&numbers) == 1).await;
    numbers.number.store(1, Ordering::SeqCst);
    cache.stamps.changed(&Name::room("a"));
    let after = ask();
    // It waits for the one that reads, and then does not take what that has seen.
    tokio::time::sleep(Duration::from_millis(20)).await;
    numbers.gate.as_ref().unwrap().add_permits(10);
    assert_eq!((before.await.unwrap(), after.await.unwrap()), (0, 1));
    assert_eq!((number(&cache.get(key("a", 0)).await), reads(&numbers)), (1, 2));
}

#[tokio::test]
async fn who_stops_waiting_leaves_the_read_to_the_next() {
    let numbers = Arc::new(Numbers { gate: Some(Semaphore::new(0)), ..Numbers::default() });
    let cache = cache(&numbers, |_| {});
    let ask = || {
        let cache = cache.clone();
        tokio::spawn(async move { number(&cache.get(key("a", 0)).await) })
    };
    let (first, second) = (ask(), ask());
    until(|| reads(&numbers) == 1).await;
    first.abort();
    second.abort();
    let third = ask();
    until(|| reads(&numbers) == 2).await;
    numbers.gate.as_ref().unwrap().add_permits(1);
    assert_eq!(third.await.unwrap(), 0);
}

#[tokio::test]
async fn a_failure_is_told_to_all_who_wait_and_soon_tried_again() {
    let gate = Some(Semaphore::new(0));
    let numbers = Arc::new(Numbers { gate, fails: true, ..Numbers::default() });
    let cache = cache(&numbers, |c| c.failed = Duration::from_millis(20));
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let cache = cache.clone();
        asking.spawn(async move { matches!(cache.get(key("a", 0)).await, Answer::Failed(_)) });
    }
    until(|| reads(&numbers) == 1).await;
    numbers.gate.as_ref().unwrap().add_permits(1_000);
    assert_eq!(asking.join_all().await, [true; 50]);
    let tried = reads(&numbers);
    assert!(tried < 50, "{tried}");
    tokio::time::sleep(Duration::from_millis(30)).await;
    cache.get(key("a", 0)).await;
    assert_eq!(reads(&numbers), tried + 1);
}

#[tokio::test]
async fn what_is_too_old_is_read_again() {
    let numbers = Arc::new(Numbers::default());
    let cache = cache(&numbers, |c| c.fresh = Duration::from_millis(20));
    assert_eq!(number(&cache.get(key("a", 0)).await), 0);
    numbers.number.store(1, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(30)).await;
    assert_eq!(number(&cache.get(key("a", 0)).await), 1);
}

#[tokio::test]
async fn it_holds_no_more_than_it_may_and_forgets_little_by_little() {
    const BOUND: u64 = 1 << 20;
    let numbers = Arc::new(Numbers { number: AtomicU64::new(1), ..Numbers::default() });
    let cache = cache(&numbers, |c| c.cache_bytes = BOUND);
    for n in 0..5_000 {
        cache.get(key(&n.to_string(), 10)).await;
        assert!(cache.quick.weight() <= BOUND);
    }
    assert!(cache.quick.weight() > BOUND / 2, "{}", cache.quick.weight());
    // What alone is too large is read each time.
    let before = reads(&numbers);
    for _ in 0..3 {
        assert_eq!(number(&cache.get(key("large", 100_000)).await), 1);
    }
    assert_eq!(reads(&numbers), before + 3);
}

/// Readers and a writer at the same time: nobody sees less than what was written when it began.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn under_concurrent_change_nobody_sees_what_was_over_when_it_began() {
    let numbers = Arc::new(Numbers { number: AtomicU64::new(1), ..Numbers::default() });
    let cache = cache(&numbers, |_| {});
    let told = Arc::new(AtomicU64::new(1));
    let mut readers = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (cache, told) = (cache.clone(), told.clone());
        readers.spawn(async move {
            let mut last = 0;
            while last < 2_000 {
                let least = told.load(Ordering::SeqCst).max(last);
                last = number(&cache.get(key("a", 0)).await);
                assert!(last >= least, "{last} after {least}");
            }
        });
    }
    for n in 2..=2_000 {
        numbers.number.store(n, Ordering::SeqCst);
        cache.stamps.changed(&Name::room("a"));
        told.store(n, Ordering::SeqCst);
        if n % 8 == 0 {
            tokio::task::yield_now().await;
        }
    }
    readers.join_all().await;
    let most = 8 * 2_000;
    assert!(reads(&numbers) < most, "{} reads", reads(&numbers));
}
