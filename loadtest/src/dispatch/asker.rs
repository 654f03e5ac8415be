//! Clients that ask over HTTP/1.1, as many a second as are wanted whether or not answers come.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use anyhow::{Context, Result, bail};
use hdrhistogram::Histogram;
use tokio::time::{Instant, sleep_until, timeout};

use crate::http::Asker;

/// A request that is not answered by then is not.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    pub(super) addr: SocketAddr,
    pub(super) begun: Instant,
    pub(super) time: Duration,
    /// Between two requests of one connection.
    pub(super) between: Duration,
    /// A connection for each request.
    pub(super) fresh: bool,
}

#[derive(Debug)]
pub(super) struct Asked {
    pub(super) requests: u64,
    pub(super) failed: u64,
    /// From when a request was due to its answer, in microseconds.
    pub(super) latency: Histogram<u64>,
    /// Clients of each gateway.
    pub(super) counts: BTreeMap<String, u64>,
}

/// The `n`-th of `all`.
pub(super) async fn ask(pace: Pace, n: u32, all: u32) -> Asked {
    let latency = Histogram::new_with_bounds(1, super::LONGEST_US, 3);
    let latency = latency.unwrap_or_else(|_| unreachable!("the bounds are good"));
    let mut asked = Asked { requests: 0, failed: 0, latency, counts: BTreeMap::new() };
    let mut due = pace.begun + pace.between * n / all;
    let (end, mut asker) = (pace.begun + pace.time, Asker::new(pace.addr));
    let mut user = u64::from(n);
    while due < end {
        sleep_until(due).await;
        match timeout(PATIENCE, once(&mut asker, user)).await {
            Ok(Ok(gateway)) => {
                asked.requests += 1;
                *asked.counts.entry(gateway).or_default() += 1;
                let us = u64::try_from(due.elapsed().as_micros()).unwrap_or(u64::MAX);
                asked.latency.saturating_record(us.max(1));
            }
            Ok(Err(_)) | Err(_) => asked.failed += 1,
        }
        if pace.fresh {
            asker.hang_up();
        }
        due += pace.between;
        user += u64::from(all);
    }
    asked
}

async fn once(asker: &mut Asker, user: u64) -> Result<String> {
    let request = format!("GET /dispatch?user=user-{user} HTTP/1.1\r\nHost: dispatch\r\n\r\n");
    let answer = asker.ask(request.as_bytes()).await?;
    if !answer.is_ok() {
        bail!("{answer:?}");
    }
    Ok(first(&answer.body).context("an answer without a gateway")?.to_owned())
}

/// The first gateway of an answer.
pub(super) fn first(body: &str) -> Option<&str> {
    let (_, rest) = body.split_once("\"quic\":\"")?;
    Some(rest.split_once('"')?.0)
}
