//! Answers without HTTP, of gateways whose load is known.

use std::{collections::BTreeMap, time::Instant};

use anyhow::{Context, Result, anyhow};
use edgeway_dispatch::{
    Dispatch,
    config::{RawCluster, RawDispatch, validate},
    table::Source,
};
use edgeway_stat::{Endpoint, Load, Report};

use super::{Spread, WithoutHttp};

pub(super) fn measure(
    policy: &str,
    gateways: &[(String, u32)],
    answers: u32,
) -> Result<WithoutHttp> {
    let policy = serde_json::from_value(policy.into())?;
    let cluster = RawCluster { policy, ..RawCluster::default() };
    let raw = RawDispatch {
        // For as long as it takes.
        stale_ms: Some(600_000),
        clusters: BTreeMap::from([("main".to_owned(), cluster)]),
        ..RawDispatch::default()
    };
    let config = validate(&raw, "main", false).map_err(|problems| anyhow!("{problems:?}"))?;
    let dispatch = Dispatch::new(config.live).context("no random numbers")?;
    let report = |(quic, weight): &(String, u32)| Report {
        cluster: "main".to_owned(),
        gateway: Some(Endpoint { quic: quic.clone(), weight: *weight, ..Endpoint::default() }),
        load: Load { at_unix_ms: 1, ..Load::default() },
        ..Report::default()
    };
    dispatch.learn(Source::Own, gateways.iter().map(report).collect(), Instant::now());
    let users: Vec<_> = (0..answers).map(|n| format!("user-{n}")).collect();
    let mut bodies = Vec::with_capacity(users.len());
    let begun = Instant::now();
    for user in &users {
        bodies.push(dispatch.answer("default", Some(user))?.body);
    }
    let us = begun.elapsed().as_secs_f64() * 1e6;
    let mut counts = BTreeMap::<String, u64>::new();
    for body in bodies {
        let first = super::asker::first(&body).context("an answer without a gateway")?;
        *counts.entry(first.to_owned()).or_default() += 1;
    }
    Ok(WithoutHttp {
        answers,
        us_per_answer: us / f64::from(answers),
        spread: Spread::of(counts, gateways),
    })
}
