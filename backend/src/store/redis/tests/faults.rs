//! Servers that go away, come back, and do not answer.

use std::time::Duration;

use tokio::time::sleep;

use super::*;

fn durable() -> Options {
    Options { durable: true, ..Options::default() }
}

fn is_unavailable(outcome: &Result<(), StoreError>) -> bool {
    matches!(outcome, Err(StoreError::Unavailable(_)))
}

/// Gives a batch again until it is stored, as owners do.
async fn until_stored(store: &Redis, batch: &[Append]) {
    while let Err(e) = store.append(batch.to_vec()).await {
        assert!(matches!(e, StoreError::Unavailable(_)), "{e}");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_yet_is_told_from_one_that_does_not_take_us() {
    let mut server = Server::start(&durable());
    let options = options(&[server.url()], false);
    server.halt();
    let Err(silent) = Redis::open(options.clone()).await else { panic!("it does not answer") };
    server.go_on();
    server.stop();
    let Err(away) = Redis::open(options.clone()).await else { panic!("it is not there") };
    assert!(silent.may_pass && away.may_pass, "{silent}, {away}");
}

#[tokio::test]
async fn a_server_that_comes_back_is_found_again_with_all_that_was_answered() {
    let mut server = Server::start(&durable());
    let store = open(options(&[server.url()], false)).await;
    let log = new_log(&store, "maths").await;
    for round in 0..3 {
        let counter = 2 * round + 1;
        store.append(append(log, counter, 10)).await.unwrap();
        server.stop();
        let next = append(log, counter + 1, 10);
        let outcome = store.append(next.clone()).await;
        assert!(is_unavailable(&outcome), "{outcome:?}");
        assert!(store.head(log).await.is_err());
        server.resume();
        until_stored(&store, &next).await;
        let page = store.read(log, Seq::ZERO, 100, usize::MAX, 0).await.unwrap();
        assert_eq!(page.records.len() as u64, counter + 1);
        assert_eq!(store.group("maths", false).await.unwrap(), Some(log.group));
    }
}

/// Logs would begin again at places that clients have seen, and handles be given out twice.
#[tokio::test]
async fn a_server_that_comes_back_without_its_data_is_not_taken_for_the_one_that_was_lost() {
    let mut server = Server::start(&Options::default());
    let options = options(&[server.url()], false);
    let store = open(options.clone()).await;
    let log = new_log(&store, "maths").await;
    store.append(append(log, 1, 10)).await.unwrap();
    server.stop();
    server.resume();
    for _ in 0..3 {
        let outcome = store.append(append(log, 2, 10)).await;
        assert!(is_unavailable(&outcome), "{outcome:?}");
    }
    let told = store.head(log).await.unwrap_err().to_string();
    assert!(told.contains("has lost its data"), "{told}");
    // Whoever starts now starts empty, and the old ones stay out.
    assert_eq!(open(options).await.group("maths", false).await.unwrap(), None);
    assert!(store.group("maths", false).await.is_err());
}

/// It has the append in its socket, and does it when it goes on; the caller has given it again.
#[tokio::test]
async fn an_append_whose_answer_was_late_is_there_once_when_it_was_given_again() {
    let server = Server::start(&Options::default());
    let store = open(options(&[server.url()], false)).await;
    let log = new_log(&store, "maths").await;
    store.append(append(log, 1, 10)).await.unwrap();
    server.halt();
    let batch = append(log, 2, 10);
    let outcome = store.append(batch.clone()).await;
    assert!(is_unavailable(&outcome), "{outcome:?}");
    server.go_on();
    until_stored(&store, &batch).await;
    store.append(append(log, 3, 10)).await.unwrap();
    let page = store.read(log, Seq::ZERO, 100, usize::MAX, 0).await.unwrap();
    let places: Vec<_> = page.records.iter().map(|record| record.seq.counter).collect();
    assert_eq!(places, [1, 2, 3]);
}

#[tokio::test]
async fn a_server_without_memory_stores_nothing_of_a_batch_and_takes_it_later() {
    let server = Server::start(&Options::default());
    let store = open(options(&[server.url()], false)).await;
    let log = new_log(&store, "maths").await;
    store.append(append(log, 1, 10)).await.unwrap();
    let limit = |bytes: &str| ask::<()>(&server.url(), &["CONFIG", "SET", "maxmemory", bytes]);
    limit("1");
    let batch: Vec<_> = (2..=9).flat_map(|counter| append(log, counter, 1_000)).collect();
    let outcome = store.append(batch.clone()).await;
    assert!(is_unavailable(&outcome), "{outcome:?}");
    // Before version 7 a server without memory does not answer transactions either.
    limit("0");
    assert_eq!(store.head(log).await.unwrap().last, Seq::new(1, 1));
    store.append(batch).await.unwrap();
    assert_eq!(store.head(log).await.unwrap().last, Seq::new(1, 9));
}

#[tokio::test]
async fn a_script_that_the_server_has_forgotten_is_sent_again() {
    let server = Server::start(&Options::default());
    let store = open(options(&[server.url()], false)).await;
    let log = new_log(&store, "maths").await;
    for counter in 1..=3 {
        store.append(append(log, counter, 10)).await.unwrap();
        let _: () = ask(&server.url(), &["SCRIPT", "FLUSH"]);
    }
    assert_eq!(store.head(log).await.unwrap().last, Seq::new(1, 3));
}

#[tokio::test]
async fn while_a_node_of_a_cluster_is_away_the_rooms_of_the_others_go_on() {
    let args = ["--cluster-require-full-coverage", "no"].map(str::to_owned).to_vec();
    let mut cluster = Cluster::start(&Options { args, ..durable() });
    let urls = cluster.urls();
    let store = open(options(&urls, true)).await;
    let mut logs = Vec::new();
    for n in 0..12 {
        let log = new_log(&store, &format!("room {n}")).await;
        store.append(append(log, 1, 10)).await.unwrap();
        logs.push(log);
    }
    // Which are on the node is asked of the node.
    let here = |log: &LogId| {
        let keys: Vec<String> = ask(&urls[1], &["KEYS", "*"]);
        keys.contains(&store.shared.keys.log(*log))
    };
    let (away, others): (Vec<_>, Vec<_>) = logs.into_iter().partition(here);
    assert!(!away.is_empty() && !others.is_empty());
    cluster.nodes()[1].stop();
    let outcome = store.append(append(away[0], 2, 10)).await;
    assert!(is_unavailable(&outcome), "{outcome:?}");
    for log in &others {
        store.append(append(*log, 2, 10)).await.unwrap();
    }
    // A batch over both: the rest is stored, and is so when all of it is given again.
    let mut batch = append(others[0], 3, 10);
    batch.extend(append(away[0], 2, 10));
    let outcome = store.append(batch.clone()).await;
    assert!(is_unavailable(&outcome), "{outcome:?}");
    assert_eq!(store.head(others[0]).await.unwrap().last, Seq::new(1, 3));
    cluster.nodes()[1].resume();
    until_stored(&store, &batch).await;
    for (log, last) in [(away[0], 2), (others[0], 3)] {
        let page = store.read(log, Seq::ZERO, 100, usize::MAX, 0).await.unwrap();
        assert_eq!(page.records.len() as u64, last);
    }
}

/// Redis answers before its replica has the write: what the replica had is what the test may ask for.
#[tokio::test]
async fn a_replica_takes_the_place_of_a_lost_node_and_appends_go_on_there() {
    let mut cluster = Cluster::start(&durable());
    let urls = cluster.urls();
    let replica = cluster.add_replica(&durable(), 1);
    let store = open(options(&urls, true)).await;
    let mut logs = Vec::new();
    for n in 0..12 {
        let log = new_log(&store, &format!("room {n}")).await;
        store.append(append(log, 1, 10)).await.unwrap();
        logs.push(log);
    }
    let replicas: i64 = ask(&urls[1], &["WAIT", "1", "60000"]);
    assert_eq!(replicas, 1);
    cluster.nodes()[1].stop();
    for log in &logs {
        until_stored(&store, &append(*log, 2, 10)).await;
    }
    let keys: Vec<String> = ask(&replica.url(), &["KEYS", "*"]);
    let moved = logs.iter().filter(|log| keys.contains(&store.shared.keys.log(**log)));
    assert!(moved.count() > 0, "none was on the node");
    for log in logs {
        let page = store.read(log, Seq::ZERO, 100, usize::MAX, 0).await.unwrap();
        let counters: Vec<u64> = page.records.iter().map(|r| r.seq.counter).collect();
        assert_eq!(counters, [1, 2]);
    }
}

#[tokio::test]
async fn at_the_bound_of_the_queue_appends_wait_and_none_is_lost() {
    let store = Arc::new(open(RedisOptions { queue_bytes: 2_000, ..on_single() }).await);
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..50 {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            let log = new_log(&store, &format!("bound {n}")).await;
            // The largest is larger than the queue.
            store.append(append(log, 1, 100 * n)).await.unwrap();
            log
        });
    }
    for log in tasks.join_all().await {
        assert_eq!(store.head(log).await.unwrap().last, Seq::new(1, 1));
    }
}

#[tokio::test]
async fn an_append_whose_future_was_dropped_is_there_or_not_and_harms_nothing() {
    let store = open(on_single()).await;
    let log = new_log(&store, "dropped").await;
    for counter in 1..=50 {
        tokio::select! {
            biased;
            () = async { tokio::task::yield_now().await } => {}
            result = store.append(append(log, counter, 10)) => result.unwrap(),
        }
    }
    store.append(append(log, 51, 10)).await.unwrap();
    assert_eq!(store.head(log).await.unwrap().last, Seq::new(1, 51));
}
