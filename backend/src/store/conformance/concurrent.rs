//! Many at the same time.

use tokio::task::JoinSet;

use super::*;

pub(crate) async fn appends_of_many_tasks_are_all_there(place: &Place) {
    const TASKS: u64 = 32;
    const APPENDS: u64 = 30;
    let store = place.open().await;
    let group = new_log(&*store, Class::Signal).await.group;
    let shared = LogId { group, class: Class::Signal };
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            let log = new_log(&*store, Class::Binary).await;
            for counter in 1..=APPENDS {
                let mut append = message(log, Seq::new(1, counter));
                append = from_device(append, &format!("user{task}/d"), counter);
                store.append(vec![append]).await.unwrap();
                // What was answered is there.
                assert_eq!(store.head(log).await.unwrap().last, Seq::new(1, counter));
            }
            log
        });
    }
    for counter in 1..=APPENDS {
        store.append(vec![message(shared, Seq::new(1, counter))]).await.unwrap();
    }
    let mut logs = tasks.join_all().await;
    logs.push(shared);
    let store = place.reopen(store).await;
    for log in logs {
        let found = read_all(&*store, log, Seq::ZERO).await.records;
        let expected = (1..=APPENDS).map(|counter| Seq::new(1, counter)).collect::<Vec<_>>();
        assert_eq!(found.iter().map(|record| record.seq).collect::<Vec<_>>(), expected);
    }
}

/// Each appends under the same numbers; of each number one wins, and nothing is overwritten.
pub(crate) async fn of_two_owners_one_is_stale(place: &Place) {
    let store = place.open().await;
    let log = new_log(&*store, Class::Signal).await;
    let mut tasks = JoinSet::new();
    for owner in ["ann/a", "bob/b", "eve/c"] {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            let mut won = Vec::new();
            for counter in 1..=100 {
                let append = from_device(message(log, Seq::new(1, counter)), owner, counter);
                match store.append(vec![append.clone()]).await {
                    Ok(()) => won.push(append.record),
                    Err(StoreError::Stale { last, .. }) => assert!(last.counter >= counter),
                    Err(e) => panic!("{e}"),
                }
            }
            won
        });
    }
    let mut won = tasks.join_all().await.concat();
    won.sort_by_key(|record| record.seq);
    assert_eq!(read_all(&*store, log, Seq::ZERO).await.records, won);
}

pub(crate) async fn a_reader_sees_whole_batches_only(place: &Place) {
    const BATCHES: u64 = 100;
    let store = place.open().await;
    let log = new_log(&*store, Class::Signal).await;
    let writer = {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            for batch in 0..BATCHES {
                let seqs = (1..=5).map(|n| Seq::new(1, batch * 5 + n));
                let appends = seqs.map(|seq| with_key(message(log, seq), "k", "v")).collect();
                store.append(appends).await.unwrap();
            }
        })
    };
    loop {
        let done = writer.is_finished();
        let head = store.head(log).await.unwrap();
        assert_eq!(head.last.counter % 5, 0);
        assert_eq!(head.last_ids.first().map_or(0, |origin| origin.id), head.last.counter);
        let read = read_all(&*store, log, Seq::ZERO).await;
        assert_eq!(read.records.len() % 5, 0);
        if done {
            assert_eq!(read.records.len() as u64, BATCHES * 5);
            break;
        }
    }
    writer.await.unwrap();
}
