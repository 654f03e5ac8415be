#![allow(clippy::unwrap_used)]

use super::*;
use crate::auth::PasswordHash;

fn problems(raw: RawConfig) -> Vec<ConfigProblem> {
    validate(raw, LISTEN_BACKEND, &Links::Off).unwrap_err()
}

fn keys(raw: RawConfig) -> Vec<String> {
    problems(raw).into_iter().map(|p| p.key).collect()
}

#[test]
fn an_empty_config_is_a_working_one() {
    let config = validate(RawConfig::default(), LISTEN_UP, &Links::Off).unwrap();
    assert_eq!(config.listen, LISTEN_UP);
    assert_eq!(config.data_dir, PathBuf::from("edgeway-data"));
    assert_eq!(config.rooms.chat_per_second, 20);
    assert_eq!(config.rooms.per_session, 1_000);
    assert!(config.rooms.create_on_join);
    assert!(matches!(config.auth, Auth::Development));
    assert_eq!((config.history_sync, config.history_chat), (HistorySync::Process, true));
    assert_eq!(config.store, StoreConfig::Embedded);
}

#[test]
fn every_problem_is_reported_at_once_with_its_key() {
    let raw = RawConfig {
        backend: RawBackend {
            listen: Some("here".into()),
            data_dir: Some(String::new()),
            slot: Some(-1),
            name: Some(String::new()),
            advertise: Some("nowhere".into()),
        },
        store: RawStore { engine: Some("memory".into()), ..RawStore::default() },
        history: RawHistory {
            sync: Some("maybe".into()),
            chat: None,
            keep_days: Some(-1),
            keep_messages: Some(-1),
        },
        rooms: RawRooms {
            chat_per_second: Some(-1),
            chat_batch_ms: Some(0),
            create: Some("never".into()),
            max_members: Some(0),
            per_session: Some(1_000_000),
        },
        auth: RawAuth { mode: Some("trust".into()), ..RawAuth::default() },
        filter: RawFilter {
            words_file: Some("/no/such/list".into()),
            action: Some("delete".into()),
            classes: Some("stroke".into()),
            blocked: vec!["@me".into()],
            slow_mode_s: Some(-1),
            ..RawFilter::default()
        },
        nodes: RawNodes {
            room: vec!["127.0.0.1:1".into(), "nowhere".into(), "127.0.0.1:1".into()],
            peer: vec!["127.0.0.1:0".into()],
            access: vec!["10.0.0.1:7400".into(), "registry".into()],
            binary: Vec::new(),
        },
        discovery: RawDiscovery { lease_ms: Some(1), dns_ms: Some(0) },
        events: RawEvents { sink: Some("nowhere".into()), ..RawEvents::default() },
    };
    assert_eq!(
        keys(raw),
        [
            "backend.listen",
            "backend.data_dir",
            "backend.slot",
            "backend.name",
            "store.engine",
            "events.sink",
            "backend.advertise",
            "history.sync",
            "history.keep_days",
            "history.keep_messages",
            "rooms.chat_per_second",
            "rooms.chat_batch_ms",
            "rooms.max_members",
            "rooms.per_session",
            "rooms.create",
            "auth.mode",
            "filter.action",
            "filter.words_file",
            "filter.classes",
            "filter.blocked.0",
            "filter.slow_mode_s",
            "nodes.room.1",
            "nodes.room.2",
            "nodes.peer.0",
            "nodes.access.0",
            "nodes.access.1",
            "discovery.lease_ms",
            "discovery.dns_ms",
        ]
    );
}

#[test]
fn listening_for_other_machines_without_certificates_is_refused_and_says_why() {
    for listen in ["0.0.0.0:7400", "[::]:7400", "192.168.1.1:7400"] {
        let raw = RawConfig {
            backend: RawBackend { listen: Some(listen.into()), ..RawBackend::default() },
            ..RawConfig::default()
        };
        let found = problems(raw);
        assert_eq!(found[0].key, "backend.listen");
        assert!(found[0].problem.contains("certificates"), "{}", found[0]);
    }
}

#[test]
fn passwords_must_be_argon2id_hashes() {
    let with = |hash: &str| RawConfig {
        auth: RawAuth {
            mode: Some("passwords".into()),
            users: [("ada".to_owned(), hash.to_owned())].into(),
            ..RawAuth::default()
        },
        ..RawConfig::default()
    };
    assert_eq!(keys(with("secret")), ["auth.users.ada"]);
    assert!(problems(with("secret"))[0].problem.contains("argon2id"));
    let good = PasswordHash::new(b"secret").unwrap().to_string();
    assert!(validate(with(&good), LISTEN_BACKEND, &Links::Off).is_ok());
}

#[test]
fn hashes_are_not_printed() {
    let hash = PasswordHash::new(b"secret").unwrap();
    let users = [("ada".to_owned(), hash.to_string())].into();
    let raw = RawAuth { users, ..RawAuth::default() };
    assert!(!format!("{raw:?}").contains("argon2"));
    assert!(!format!("{hash:?}").contains("argon2"));
}

fn redis(redis: RawRedis) -> RawConfig {
    let store = RawStore { engine: Some("redis".into()), redis };
    RawConfig { store, ..RawConfig::default() }
}

#[test]
fn a_store_on_redis_takes_a_server_a_cluster_and_a_history_of_its_own() {
    let url = |url: &str| crate::store::RedisUrl::parse(url).unwrap();
    let raw = RawRedis { url: Some("redis://:secret@redis:1".into()), ..RawRedis::default() };
    let StoreConfig::Redis(one) = validate(redis(raw), LISTEN_UP, &Links::Off).unwrap().store
    else {
        unreachable!()
    };
    let server = RedisServer { urls: vec![url("redis://:secret@redis:1")], cluster: false };
    let expected =
        RedisConfig { state: server, history: None, prefix: "edgeway".to_owned(), ca: None };
    assert_eq!(one, expected);
    assert!(!format!("{one:?}").contains("secret"));

    let raw = RawRedis {
        url: Some("rediss://a".into()),
        nodes: vec!["rediss://b".into()],
        cluster: Some(true),
        history_url: Some("redis://c/3".into()),
        prefix: Some("school-1".into()),
        ca: Some("ca.pem".into()),
        ..RawRedis::default()
    };
    let StoreConfig::Redis(many) = validate(redis(raw), LISTEN_UP, &Links::Off).unwrap().store
    else {
        unreachable!()
    };
    let expected = RedisConfig {
        state: RedisServer { urls: vec![url("rediss://a"), url("rediss://b")], cluster: true },
        history: Some(RedisServer { urls: vec![url("redis://c/3")], cluster: false }),
        prefix: "school-1".to_owned(),
        ca: Some("ca.pem".into()),
    };
    assert_eq!(many, expected);
}

#[test]
fn a_registry_needs_a_store_on_redis_and_an_address_that_others_can_dial() {
    let nodes = || RawNodes { room: vec!["registry".into()], ..RawNodes::default() };
    let found = problems(RawConfig { nodes: nodes(), ..RawConfig::default() });
    assert_eq!(found[0].key, "nodes.room.0");
    assert!(found[0].problem.contains("store.engine is not \"redis\""), "{}", found[0]);
    let url = || RawRedis { url: Some("redis://a".into()), ..RawRedis::default() };
    let good = validate(RawConfig { nodes: nodes(), ..redis(url()) }, LISTEN_BACKEND, &Links::Off)
        .unwrap();
    assert_eq!((&good.nodes.room[..], good.registers), (&[Place::Registry][..], true));
    assert_eq!(good.discovery.lease, Duration::from_secs(2));

    let listen = |listen: &str, advertise: Option<&str>| RawBackend {
        listen: Some(listen.into()),
        advertise: advertise.map(Into::into),
        ..RawBackend::default()
    };
    let wild = RawConfig { backend: listen("0.0.0.0:7400", None), ..redis(url()) };
    let found = problems(wild);
    let advertise = found.iter().find(|p| p.key == "backend.advertise").unwrap();
    assert!(advertise.problem.contains("no address that others can dial"), "{advertise}");
    let bad = RawConfig { backend: listen("127.0.0.1:1", Some("host")), ..redis(url()) };
    assert!(problems(bad)[0].problem.contains("has no port"));
    let named = RawConfig { backend: listen("127.0.0.1:1", Some("localhost:2")), ..redis(url()) };
    let named = validate(named, LISTEN_UP, &Links::Off).unwrap();
    assert_eq!(named.advertise.as_deref(), Some("localhost:2"));
}

#[test]
fn what_is_wrong_with_a_store_on_redis_is_told_at_once_and_without_its_passwords() {
    assert_eq!(keys(redis(RawRedis::default())), ["store.redis.url"]);
    let raw = RawRedis {
        url: Some("http://:secret@a".into()),
        nodes: vec!["redis://b:secret".into()],
        history_cluster: Some(true),
        prefix: Some("a{b}".into()),
        ..RawRedis::default()
    };
    assert!(!format!("{raw:?}").contains("secret"));
    let found = problems(redis(raw));
    let keys: Vec<_> = found.iter().map(|p| p.key.as_str()).collect();
    let expected = [
        "store.redis.nodes",
        "store.redis.url",
        "store.redis.nodes.0",
        "store.redis.history_cluster",
        "store.redis.prefix",
    ];
    assert_eq!(keys, expected);
    assert!(found.iter().all(|p| !p.to_string().contains("secret")), "{found:?}");

    let raw =
        RawRedis { url: Some("redis://a/1".into()), cluster: Some(true), ..RawRedis::default() };
    assert!(problems(redis(raw))[0].problem.contains("only the database 0"));
    let mut unused = redis(RawRedis { url: Some("redis://a".into()), ..RawRedis::default() });
    unused.store.engine = None;
    assert!(problems(unused)[0].problem.contains("has no effect"));
}
