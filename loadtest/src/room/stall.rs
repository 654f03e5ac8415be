//! Members who stop reading for a while: what it costs the server, and what they get later.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use edgeway_client::Class;
use serde_json::json;
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, sleep_until},
};

use super::{Args, shared::Shared};
use crate::{audit::Audit, procstat, report::Report, server, target::Target};

/// How often it is looked whether they have caught up, and for how long at most.
const LOOK: Duration = Duration::from_millis(10);
const LOOKS: u32 = 6000;

/// From when to when they do not read, if any stop at all: in the middle of the load.
pub fn times(args: &Args, start: Instant) -> Option<(Instant, Instant)> {
    let stall = Duration::from_secs(args.stall_secs.into());
    let before = args.load.duration().checked_sub(stall)? / 2;
    let from = start + args.alone() + before;
    (args.stall > 0).then(|| (from, from + stall))
}

/// A stall under way.
pub struct Stall {
    task: JoinHandle<Result<Seen>>,
    shared: Arc<Shared>,
}

/// What was seen of it.
struct Seen {
    rss_bytes_at_start: u64,
    rss_bytes_at_end: u64,
    /// Once a second from the beginning of the load to the end of the stall: how memory grew
    /// before tells how much of the growth is not the stall's.
    rss_bytes: Vec<u64>,
    /// The fullest outbox of the gateway, in the same way.
    outbox_bytes: Vec<u64>,
    /// What they had not got when they began to read again, by class.
    owed: [u64; 2],
    caught_up: Option<Duration>,
}

/// What must not be lost.
const RELIABLE: [Class; 2] = [Class::Signal, Class::Binary];

impl Stall {
    /// Stops those who stop, at their time, and lets them read again.
    pub fn start(
        args: &Args,
        start: Instant,
        target: &Target,
        shared: &Arc<Shared>,
    ) -> Option<Self> {
        let times = times(args, start)?;
        let watched = Watched { pids: target.pids.clone(), http: target.http() };
        let task = tokio::spawn(stall(times, watched, args.stall.into(), Arc::clone(shared)));
        Some(Self { task, shared: Arc::clone(shared) })
    }

    #[allow(clippy::cast_precision_loss)] // figures for people
    pub async fn report(self, report: &mut Report, args: &Args) -> Result<()> {
        let seen = self.task.await.context("the stall")??;
        let (members, audit) = (u64::from(args.stall), &self.shared.stalled);
        let grown = seen.rss_bytes_at_end as f64 - seen.rss_bytes_at_start as f64;
        let classes = Class::ALL.map(|class| {
            let found = audit.findings(class);
            let counts = json!({
                "expected": found.sent * members,
                "delivered": found.delivered,
                "missed": found.missed,
                "duplicated": found.duplicated,
                "reordered": found.reordered,
            });
            (class.name().to_owned(), counts)
        });
        for class in RELIABLE {
            let missing = missing(audit, class, members);
            if missing > 0 {
                report.problems.push(format!(
                    "members who read again lack {missing} messages of class {}",
                    class.name()
                ));
            }
        }
        report.run(&[(
            "stall",
            json!({
                "members": members,
                "secs": args.stall_secs,
                "rss_bytes_at_start": seen.rss_bytes_at_start,
                "rss_bytes_at_end": seen.rss_bytes_at_end,
                "rss_bytes_each_second": seen.rss_bytes,
                "rss_growth_bytes_per_member": grown / members as f64,
                "outbox_bytes_max_each_second": seen.outbox_bytes,
                "outbox_bytes_max": seen.outbox_bytes.iter().max(),
                "owed_signals": seen.owed[0],
                "owed_strokes": seen.owed[1],
                "caught_up_ms": seen.caught_up.map(|took| took.as_secs_f64() * 1e3),
                "by_class": serde_json::Map::from_iter(classes),
            }),
        )]);
        Ok(())
    }
}

async fn stall(
    (from, to): (Instant, Instant),
    watched: Watched,
    members: u64,
    shared: Arc<Shared>,
) -> Result<Seen> {
    let (mut rss_bytes, mut outbox_bytes) = (Vec::new(), Vec::new());
    watched.until(from, &mut rss_bytes, &mut outbox_bytes).await?;
    let rss_bytes_at_start = procstat::rss_bytes_of(&watched.pids)?;
    shared.stop.send_replace(true);
    watched.until(to, &mut rss_bytes, &mut outbox_bytes).await?;
    let rss_bytes_at_end = procstat::rss_bytes_of(&watched.pids)?;
    let audit = &shared.stalled;
    let owed = RELIABLE.map(|class| missing(audit, class, members));
    // What is sent from now on comes live.
    let due = RELIABLE.map(|class| audit.messages(class) * members);
    shared.stop.send_replace(false);
    let began = Instant::now();
    let mut caught_up = None;
    for _ in 0..LOOKS {
        if RELIABLE.iter().zip(due).all(|(class, due)| audit.delivered_of(*class) >= due) {
            caught_up = Some(began.elapsed());
            break;
        }
        sleep(LOOK).await;
    }
    Ok(Seen { rss_bytes_at_start, rss_bytes_at_end, rss_bytes, outbox_bytes, owed, caught_up })
}

/// Whose memory is looked at.
struct Watched {
    pids: Vec<u32>,
    http: Option<SocketAddr>,
}

impl Watched {
    /// Notes resident memory and the fullest outbox once a second.
    async fn until(&self, end: Instant, rss: &mut Vec<u64>, outbox: &mut Vec<u64>) -> Result<()> {
        while Instant::now() < end {
            rss.push(procstat::rss_bytes_of(&self.pids)?);
            if let Some(http) = self.http {
                let most = server::metric(http, "edgeway_gateway_outbox_bytes_max", "").await?;
                #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // bytes
                outbox.push(most.unwrap_or(0.0) as u64);
            }
            sleep_until(end.min(Instant::now() + Duration::from_secs(1))).await;
        }
        Ok(())
    }
}

fn missing(audit: &Audit, class: Class, members: u64) -> u64 {
    (audit.messages(class) * members).saturating_sub(audit.delivered_of(class))
}
