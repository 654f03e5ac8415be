#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use edgeway_stat::{Endpoint, Load};
use proptest::prelude::*;

use super::*;
use crate::config::{RawCluster, RawDispatch, RawStatic, validate};

/// Two clusters by the same registry, one gateway of each from lists, and an app each.
fn config(policy: Policy) -> Live {
    let cluster = |of: &str| RawCluster {
        policy,
        registry: Some("store".into()),
        gateways: vec![RawStatic {
            quic: format!("{of}-static:1"),
            http: format!("{of}-static:2"),
            ..RawStatic::default()
        }],
        ..RawCluster::default()
    };
    let raw = RawDispatch {
        clusters: ["red", "blue"].map(|of| (of.to_owned(), cluster(of))).into(),
        apps: [("r", "red"), ("b", "blue")].map(|(a, c)| (a.to_owned(), c.to_owned())).into(),
        endpoints: Some(16),
        ticket_keys: vec!["0123456789abcdef0123456789abcdef".into()],
        ..RawDispatch::default()
    };
    validate(&raw, "main", true).unwrap().live
}

fn gateway(cluster: &str, at: &str, weight: u32, draining: bool) -> Report {
    let endpoint = Endpoint { quic: at.into(), weight, draining, ..Endpoint::default() };
    let load = Load { at_unix_ms: 1, ..Load::default() };
    Report { cluster: cluster.into(), gateway: Some(endpoint), load, ..Report::default() }
}

fn registry() -> Source {
    Source::Registry(Registry::Store)
}

fn parsed(dispatch: &Dispatch, app: &str, user: Option<&str>) -> (String, Vec<String>, String) {
    let answer: serde_json::Value =
        serde_json::from_str(&dispatch.answer(app, user).unwrap().body).unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let endpoints = answer["endpoints"].as_array().unwrap();
    let all = endpoints.iter().map(|one| text(&one["quic"])).collect();
    (text(&answer["cluster"]), all, text(&answer["ticket"]))
}

#[test]
fn an_answer_says_where_and_by_which_ticket() {
    let dispatch = Dispatch::new(config(Policy::Sticky)).unwrap();
    assert_eq!(dispatch.answer("none", None), Err(Refusal::UnknownApp));
    assert_eq!(dispatch.answer("r", None), Err(Refusal::NoGateway));
    dispatch.learn(registry(), vec![gateway("red", "gw.example:1", 100, false)], Instant::now());
    let (cluster, endpoints, ticket) = parsed(&dispatch, "r", Some("ada"));
    assert_eq!((&*cluster, &endpoints[..]), ("red", &["gw.example:1".to_owned()][..]));
    let check = |cluster| dispatch.keys().check(ticket.as_bytes(), cluster, unix_secs());
    assert_eq!(check("red").unwrap().as_deref(), Some("ada"));
    assert!(check("blue").is_err());
    let body = dispatch.answer("r", None).unwrap().body;
    assert!(body.contains("\"server_name\":\"gw.example\"") && body.contains("\"ttl_ms\":60000"));
}

#[test]
fn who_is_gone_draining_or_of_another_cluster_is_given_to_nobody() {
    let dispatch = Dispatch::new(config(Policy::Sticky)).unwrap();
    let all = [
        gateway("red", "a:1", 100, false),
        gateway("red", "b:1", 100, true),
        gateway("red", "c:1", 0, false),
        gateway("green", "d:1", 100, false),
    ];
    dispatch.learn(registry(), all.to_vec(), Instant::now());
    let probe = Source::Probe("red-static:2".into());
    dispatch.learn(probe.clone(), vec![gateway("red", "x:1", 1, false)], Instant::now());
    let given = |dispatch: &Dispatch| {
        let mut all = parsed(dispatch, "r", None).1;
        all.sort();
        all
    };
    assert_eq!(given(&dispatch), ["a:1", "red-static:1"]);
    // It is another cluster's by its own word, drains, or is gone.
    for report in [gateway("blue", "x:1", 1, false), gateway("red", "x:1", 1, true)] {
        dispatch.learn(probe.clone(), vec![report], Instant::now());
        assert_eq!(given(&dispatch), ["a:1"]);
    }
    dispatch.learn(probe.clone(), vec![gateway("red", "x:1", 1, false)], Instant::now());
    dispatch.forget(&probe);
    assert_eq!(given(&dispatch), ["a:1"]);
    dispatch.learn(registry(), all[1..].to_vec(), Instant::now());
    assert_eq!(dispatch.answer("r", None), Err(Refusal::NoGateway));
}

#[test]
fn the_least_loaded_gets_clients_until_it_is_as_full_and_a_new_load_counts_anew() {
    let dispatch = Dispatch::new(config(Policy::LeastLoad)).unwrap();
    let with = |connections: [u64; 2], at_unix_ms| {
        let one = |at: &str, connections| Report {
            load: Load { connections, at_unix_ms, ..Load::default() },
            ..gateway("red", at, 100, false)
        };
        vec![one("a:1", connections[0]), one("b:1", connections[1])]
    };
    let counts = || {
        let mut counts = BTreeMap::new();
        for _ in 0..1_000 {
            *counts.entry(parsed(&dispatch, "r", Some("u")).1[0].clone()).or_insert(0) += 1;
        }
        counts
    };
    dispatch.learn(registry(), with([0, 600], 1), Instant::now());
    assert_eq!(counts(), BTreeMap::from([("a:1".into(), 800), ("b:1".into(), 200)]));
    // The same sample again: those who were sent are still under way.
    dispatch.learn(registry(), with([0, 600], 1), Instant::now());
    assert_eq!(counts(), BTreeMap::from([("a:1".into(), 500), ("b:1".into(), 500)]));
    // They have arrived, and two samples later nobody is under way any more.
    dispatch.learn(registry(), with([1_300, 1_300], 2), Instant::now());
    dispatch.learn(registry(), with([1_300, 1_500], 3), Instant::now());
    assert_eq!(counts(), BTreeMap::from([("a:1".into(), 600), ("b:1".into(), 400)]));
}

#[test]
fn a_load_that_is_stale_or_missing_has_weights_decide() {
    let dispatch = Dispatch::new(config(Policy::LeastLoad)).unwrap();
    let mut full = gateway("red", "a:1", 100, false);
    full.load.connections = 1_000_000;
    let all = vec![full, gateway("red", "b:1", 300, false)];
    let now = Instant::now();
    let share = |dispatch: &Dispatch| {
        (0..10_000).filter(|_| parsed(dispatch, "r", None).1[0] == "a:1").count()
    };
    dispatch.learn(registry(), all.clone(), now);
    assert_eq!(share(&dispatch), 0);
    let old = now.checked_sub(Duration::from_secs(6)).unwrap();
    dispatch.learn(registry(), all, old);
    assert!((2_300..2_700).contains(&share(&dispatch)), "a quarter, by weight");
}

#[test]
fn another_config_holds_at_once() {
    let dispatch = Dispatch::new(config(Policy::Sticky)).unwrap();
    dispatch.learn(registry(), vec![gateway("red", "a:1", 100, false)], Instant::now());
    assert!(dispatch.answer("r", None).is_ok());
    let mut live = config(Policy::Sticky);
    live.apps.insert("r".into(), "blue".into());
    live.apps.insert("new".into(), "red".into());
    dispatch.change(live);
    assert_eq!(dispatch.answer("r", None), Err(Refusal::NoGateway));
    assert_eq!(parsed(&dispatch, "new", None).1, ["a:1"]);
}

proptest! {
    /// Whatever is said by whom, in whatever order: an app is given gateways of its cluster alone, none that
    /// drains, none that is gone, and none without weight.
    #[test]
    fn clusters_never_mix(
        policy in 0..3_usize,
        steps in proptest::collection::vec(
            (0..4_u8, proptest::collection::vec((0..3_u8, 0..12_u8, 0..3_u32, any::<bool>()), 0..12)),
            1..12,
        ),
        user in proptest::option::of("[a-z]{1,6}"),
    ) {
        let policy = [Policy::Weighted, Policy::LeastLoad, Policy::Sticky][policy];
        let dispatch = Dispatch::new(config(policy)).unwrap();
        let mut said: HashMap<Source, Vec<Report>> = HashMap::new();
        for (source, reports) in steps {
            // The name of a gateway says what is true of it.
            let reports: Vec<_> = reports.iter().map(|(cluster, n, weight, draining)| {
                let cluster = ["red", "blue", "green"][usize::from(*cluster)];
                let at = format!("{cluster}-{n}-w{weight}-{draining}:1");
                gateway(cluster, &at, *weight, *draining)
            }).collect();
            let source = match source {
                0 => registry(),
                1 => Source::Own,
                2 => Source::Probe("red-static:2".into()),
                _ => Source::Probe("blue-static:2".into()),
            };
            if reports.is_empty() && matches!(source, Source::Probe(_)) {
                dispatch.forget(&source);
                said.remove(&source);
            } else {
                dispatch.learn(source.clone(), reports.clone(), Instant::now());
                said.insert(source, reports);
            }
            for (app, cluster) in [("r", "red"), ("b", "blue")] {
                let Ok(answer) = dispatch.answer(app, user.as_deref()) else { continue };
                let answer: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
                prop_assert_eq!(&answer["cluster"], cluster);
                for one in answer["endpoints"].as_array().unwrap() {
                    let at = one["quic"].as_str().unwrap();
                    prop_assert!(at.starts_with(cluster), "{} for {}", at, app);
                    prop_assert!(!at.contains("-w0-") && !at.contains("true"), "{}", at);
                    if at.contains("static") {
                        let probe = &said[&Source::Probe(format!("{cluster}-static:2"))];
                        prop_assert!(probe.first().is_none_or(|r| r.cluster == cluster));
                    } else {
                        let lives = |source: &Source| {
                            let all = said.get(source).into_iter().flatten();
                            all.filter_map(|r| r.gateway.as_ref()).any(|g| g.quic == at)
                        };
                        prop_assert!(lives(&registry()) || lives(&Source::Own), "{} is gone", at);
                    }
                }
            }
        }
    }
}
