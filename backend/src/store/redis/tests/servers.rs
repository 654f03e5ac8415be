//! What is on the servers, and which servers are taken.

use super::*;

#[tokio::test]
async fn a_wrong_password_is_refused_and_not_told() {
    let port = with_password().port();
    for (login, cluster) in [(":wrong-secret@", false), ("", false), (":wrong-secret@", true)] {
        let told = refused(options(&[format!("redis://{login}127.0.0.1:{port}")], cluster)).await;
        assert!(matches!(told, StoreError::Unavailable(_)), "{told}");
        let told = told.to_string();
        assert!(told.contains(&format!("redis://127.0.0.1:{port}")), "{told}");
        assert!(!told.contains("wrong-secret"), "{told}");
    }
}

#[tokio::test]
async fn a_certificate_of_an_unknown_authority_is_refused() {
    let told = refused(RedisOptions { ca_pem: None, ..on_tls() }).await;
    assert!(matches!(told, StoreError::Unavailable(_)), "{told}");
}

#[tokio::test]
async fn what_is_no_cluster_and_what_is_one_is_told() {
    let told = refused(options(&[single().url()], true)).await;
    assert!(matches!(told, StoreError::Unavailable(_)), "{told}");
    // A node has a third of the keys; some are elsewhere.
    let node = cluster().urls().remove(0);
    for n in 0..30 {
        let prefix = format!("node-{n}");
        if let Err(e) =
            Redis::open(prefixed(&prefix, options(std::slice::from_ref(&node), false))).await
        {
            assert!(e.to_string().contains("set store.redis.cluster"), "{e}");
            return;
        }
    }
    panic!("one node took everything");
}

#[tokio::test]
async fn another_schema_is_refused_with_what_to_do() {
    let options = prefixed("old", on_single());
    drop(open(options.clone()).await);
    let _: () = ask(&single().url(), &["SET", "old:schema", "9 0123"]);
    let told = refused(options).await;
    assert!(matches!(told, StoreError::Corrupt { .. }), "{told}");
    let told = told.to_string();
    assert!(told.contains("schema `9`") && told.contains("old:schema"), "{told}");
    assert!(told.contains("another store.redis.prefix"), "{told}");
}

#[tokio::test]
async fn a_history_on_a_server_of_its_own_has_the_logs_and_belongs_to_its_state() {
    let (state, history) = (Server::start(&Options::default()), Server::start(&Options::default()));
    let of = |server: &Server| options(&[server.url()], false).state;
    let options = RedisOptions { history: Some(of(&history)), ..RedisOptions::new(of(&state)) };
    let store = open(options.clone()).await;
    let log = new_log(&store, "maths").await;
    store.append(append(log, 1, 10)).await.unwrap();
    store.trim(log, Seq::new(1, 1)).await.unwrap();
    assert_eq!(store.head(log).await.unwrap().last, Seq::new(1, 1));
    let keys = |server: &Server| {
        let mut keys: Vec<String> = ask(&server.url(), &["KEYS", "*"]);
        keys.sort();
        keys
    };
    assert_eq!(keys(&state), ["edgeway:groups", "edgeway:room:maths", "edgeway:schema"]);
    let [stream, meta] =
        ["", ":meta"].map(|end| format!("edgeway:{{g:{}}}:binary{end}", log.group));
    assert_eq!(keys(&history), ["edgeway:schema".to_owned(), stream, meta]);
    // Handles that another state gives out would meet the logs that are there.
    let _: () = ask(&state.url(), &["FLUSHALL"]);
    let told = refused(options).await;
    assert!(matches!(told, StoreError::Corrupt { .. }), "{told}");
    assert!(told.to_string().contains("belongs to another state"), "{told}");
}

#[tokio::test]
async fn stores_of_two_prefixes_share_a_server_and_do_not_meet() {
    let (one, two) =
        (open(prefixed("one", on_single())).await, open(prefixed("two", on_single())).await);
    let log = new_log(&one, "maths").await;
    one.append(append(log, 1, 10)).await.unwrap();
    assert_eq!(two.group("maths", false).await.unwrap(), None);
    assert_eq!(new_log(&two, "physics").await, log);
    assert_eq!(two.head(log).await.unwrap(), LogHead::default());
}

#[tokio::test]
async fn a_cluster_over_tls_with_a_password_takes_rooms_on_all_nodes() {
    let cluster = Cluster::start_tls(&password());
    let urls: Vec<_> =
        cluster.urls().iter().map(|url| url.replace("p@ss word", PASSWORD)).collect();
    let options =
        RedisOptions { ca_pem: Some(cluster.ca_pem().into()), ..options(&urls[..1], true) };
    let store = open(options).await;
    let mut batch = Vec::new();
    for n in 0..50 {
        let log = new_log(&store, &format!("room {n}")).await;
        batch.extend(append(log, 1, 100));
    }
    store.append(batch.clone()).await.unwrap();
    for Append { log, record } in batch {
        let page = store.read(log, Seq::ZERO, 10, usize::MAX, 0).await.unwrap();
        assert_eq!(page.records, [record]);
    }
}

#[tokio::test]
async fn what_is_trimmed_is_gone_from_the_server() {
    let store = open(on_single()).await;
    let log = new_log(&store, "trimmed").await;
    let batch = (1..=2_500).flat_map(|counter| append(log, counter, 10)).collect();
    store.append(batch).await.unwrap();
    let kept = || ask::<usize>(&single().url(), &["XLEN", &store.shared.keys.log(log)]);
    store.trim(log, Seq::new(1, 2_001)).await.unwrap();
    assert_eq!(kept(), 500);
    store.trim(log, Seq::new(9, 0)).await.unwrap();
    assert_eq!(kept(), 0);
    // What is hidden and not removed yet is not read.
    store.append((2_501..=2_510).flat_map(|n| append(log, n, 10)).collect()).await.unwrap();
    let meta = store.shared.keys.meta(log);
    let _: () =
        ask(&single().url(), &["HSET", &meta, "trimmed", "1-2505", "trimmed_message", "1-2505"]);
    let page = store.read(log, Seq::new(1, 2_501), 100, usize::MAX, 0).await.unwrap();
    assert_eq!((page.records.len(), page.truncated), (5, true));
    assert_eq!(store.head(log).await.unwrap().recent.len(), 5);
}

#[tokio::test]
async fn what_cannot_be_read_is_told_with_its_key() {
    let store = open(on_single()).await;
    let url = single().url();
    let keys = &store.shared.keys;
    let check = |told: StoreError, key: &str| {
        assert!(
            matches!(&told, StoreError::Corrupt { place, .. } if place.contains(key)),
            "{told}"
        );
    };
    // Of another type.
    let log = new_log(&store, "wrong type").await;
    let _: () = ask(&url, &["SET", &keys.log(log), "text"]);
    check(store.append(append(log, 1, 10)).await.unwrap_err(), &keys.log(log));
    check(store.read(log, Seq::ZERO, 1, 1, 0).await.unwrap_err(), &keys.log(log));
    check(store.head(log).await.unwrap_err(), &keys.log(log));
    check(store.open(log.group, &[Class::Binary], 0).await.unwrap_err(), &keys.log(log));
    let _: () = ask(&url, &["SET", &keys.state(log.group), "text"]);
    check(store.state(log.group, 0).await.unwrap_err(), &keys.state(log.group));
    // Of another form.
    let log = new_log(&store, "wrong form").await;
    store.append(append(log, 1, 10)).await.unwrap();
    let _: String = ask(&url, &["XADD", &keys.log(log), "1-2", "r", "short"]);
    check(store.read(log, Seq::ZERO, 9, usize::MAX, 0).await.unwrap_err(), &keys.log(log));
    // The ends of the log do not know of it.
    check(store.head(log).await.unwrap_err(), &keys.meta(log));
    check(store.append(append(log, 2, 10)).await.unwrap_err(), &keys.log(log));
    let _: () = ask(&url, &["HSET", &keys.state(log.group), "page", "1-1 x"]);
    check(store.state(log.group, 0).await.unwrap_err(), "page");
    check(store.open(log.group, &[Class::Signal], 0).await.unwrap_err(), "page");
    check(store.open(log.group, &[Class::Binary], 0).await.unwrap_err(), &keys.log(log));
    // A handle that is none.
    let _: () = ask(&url, &["SET", &keys.room("no number"), "one"]);
    check(store.group("no number", true).await.unwrap_err(), &keys.room("no number"));
}
