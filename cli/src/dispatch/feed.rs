//! Tells dispatch which gateways live: those of its clusters' registries, and that of this process.

use std::{collections::HashMap, time::Duration};

use edgeway_backend::{
    config::{RedisConfig, StoreConfig},
    registry::Registry,
    store::{RedisServer, RedisUrl},
};
use edgeway_dispatch::{Dispatch, config::Registry as Named, table::Source};
use edgeway_stat::Report;
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use crate::stat::Stat;

/// How often it is looked which registries are wanted, and what this process has to do.
const PACE: Duration = Duration::from_millis(500);
/// Between two attempts to reach a registry that is not there.
const AGAIN: Duration = Duration::from_secs(1);

/// Until `stop`. `own`: this process has a gateway. The registry of the store also shows `stat` the others.
pub async fn feed(
    dispatch: Dispatch,
    store: StoreConfig,
    lease: Duration,
    stat: Stat,
    own: bool,
    stop: CancellationToken,
) {
    let mut reading: HashMap<Named, DropGuard> = HashMap::new();
    let tasks = TaskTracker::new();
    let mut ticks = tokio::time::interval(PACE);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.cancelled() => break,
        }
        if own {
            dispatch.learn(Source::Own, vec![stat.report()], std::time::Instant::now());
        }
        let wanted = dispatch.registries();
        reading.retain(|named, _| wanted.contains(named));
        for named in wanted {
            if reading.contains_key(&named) {
                continue;
            }
            let Some(redis) = server(&named, &store) else { continue };
            let stop = CancellationToken::new();
            reading.insert(named.clone(), stop.clone().drop_guard());
            tasks.spawn(read(dispatch.clone(), named, redis, lease, stat.clone(), stop));
        }
    }
    drop(reading);
    tasks.close();
    tasks.wait().await;
}

/// Where a registry is. The config was checked.
fn server(named: &Named, store: &StoreConfig) -> Option<RedisConfig> {
    match (named, store) {
        (Named::Store, StoreConfig::Redis(redis)) => Some(redis.clone()),
        (Named::Store, StoreConfig::Embedded) => None,
        (Named::Redis { url, prefix }, _) => {
            let urls = vec![RedisUrl::parse(url).ok()?];
            let state = RedisServer { urls, cluster: false };
            Some(RedisConfig { state, history: None, prefix: prefix.clone(), ca: None })
        }
    }
}

async fn read(
    dispatch: Dispatch,
    named: Named,
    redis: RedisConfig,
    lease: Duration,
    stat: Stat,
    stop: CancellationToken,
) {
    let mut told = false;
    let registry = loop {
        let looking = Registry::look(&redis, lease);
        let looked = tokio::select! {
            looked = looking => looked,
            () = stop.cancelled() => return,
        };
        match looked {
            Ok(registry) => break registry,
            Err(error) => {
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!(%error, server = %redis.state, "a registry of dispatch cannot be reached; trying on");
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(AGAIN) => {}
            () = stop.cancelled() => return,
        }
    };
    let mut looker = registry.looker();
    if named == Named::Store {
        stat.looks_through(looker.clone());
    }
    let learning = async {
        while let Some(view) = looker.next().await {
            let Some(at) = view.read_at else { continue };
            // A gateway that tells of itself what cannot be read is counted where it is looked at: /stat/all.
            let all = view.instances.iter().filter_map(|one| Report::read(&one.report));
            let gateways = all.filter(|report| report.gateway.is_some()).collect();
            dispatch.learn(Source::Registry(named.clone()), gateways, at);
        }
    };
    tokio::select! {
        () = registry.run(stop.clone()) => {}
        () = learning => {}
    }
}
