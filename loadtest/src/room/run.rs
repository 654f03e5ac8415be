//! One run: a server, members, their talk, and what came of it.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use anyhow::Result;
use edgeway_client::Class;
use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::{
    Args,
    history::Stored,
    members::{self, Member},
    send,
    shared::Shared,
    stall::{self, Stall},
};
use crate::{
    drive::{self, Cost, Progress},
    report::{Latency, Report},
    target::Target,
};

/// What comparisons need to know of a run.
pub struct Ran {
    pub cpu_us_per_delivery: f64,
    /// Messages of chat that the gateway wrote at once, where it says.
    pub messages_per_write: Option<f64>,
    /// Bytes of frames a delivery, as clients counted.
    pub frame_bytes: f64,
    pub chat_p99_ms: f64,
}

/// Runs the load once and adds what came of it to the report.
pub async fn once(args: &Args, report: &mut Report) -> Result<Ran> {
    let config = args.history.as_ref().map_or("", |history| history.config.as_str());
    let mut target = Target::open_with(&args.target, !args.policy_on, config).await?;
    let shared = Arc::new(Shared::default());
    let (members, tried_again) = members::gather(args, &target, &shared).await?;
    if args.warmup {
        send::warm_up(&members, &args.load).await;
    }
    shared.recording.store(true, Relaxed);
    let talk = Talk { args, members: &members, shared: &shared, before: Totals::of(&members) };
    let wrote = Writes::of(&target).await;
    let stored = Stored::of(&target).await;
    let mut stall = None;
    let cost = drive::measure(&talk, &target.pids, args.duration(), |start| {
        shared.phases.plan(phases(args, &shared, start));
        stall = Stall::start(args, start, &target, &shared);
        send::all(args, &members, &shared, start)
    })
    .await?;
    target.check()?;
    let ran = talk.report(report, &target, &cost, wrote).await?;
    report.run(&[("connecting_tried_again", json!(tried_again))]);
    if let Some(stall) = stall {
        stall.report(report, args).await?;
    }
    if let Some(history) = &args.history {
        history.check(&target, stored, report).await;
    }
    report.problems.extend(shared.problems.take());
    drop(members);
    target.close().await?;
    Ok(ran)
}

/// When which phase begins.
fn phases(args: &Args, shared: &Shared, start: Instant) -> Vec<(&'static str, u64)> {
    let at = |instant: Instant| shared.audit.clock.at_ns(instant.into_std());
    let mut phases = Vec::new();
    if args.alone > 0 {
        phases.push(("alone", at(start)));
    }
    phases.push(("load", at(start + args.alone())));
    if let Some((from, to)) = stall::times(args, start) {
        phases.push(("stalled", at(from)));
        phases.push(("after", at(to)));
    }
    phases
}

/// What is under way.
struct Talk<'a> {
    args: &'a Args,
    members: &'a [Arc<Member>],
    shared: &'a Shared,
    /// Counts of the clients when it began.
    before: Totals,
}

/// Sums over all clients.
#[derive(Clone, Copy, Default)]
struct Totals {
    shed: u64,
    failed: u64,
    received_bytes: u64,
    messages: u64,
    pages: u64,
    holes: u64,
    queued_event_bytes: u64,
}

impl Totals {
    fn of(members: &[Arc<Member>]) -> Self {
        members.iter().map(|member| member.stats()).fold(Self::default(), |sum, one| Self {
            shed: sum.shed + one.shed,
            failed: sum.failed + one.failed,
            received_bytes: sum.received_bytes + one.received_bytes,
            messages: sum.messages + one.messages,
            pages: sum.pages + one.pages,
            holes: sum.holes + one.holes,
            queued_event_bytes: sum.queued_event_bytes + one.queued_event_bytes,
        })
    }
}

impl Talk<'_> {
    /// Members of a room: those who read all the time, and those who stop.
    fn copies(&self) -> (u64, u64) {
        let stalled = u64::from(self.args.stall);
        (u64::from(self.args.load.members) - stalled, stalled)
    }

    fn missed(&self) -> u64 {
        self.shared.audit.missed(Class::Chat) + self.shared.stalled.missed(Class::Chat)
    }

    fn sent(&self) -> u64 {
        Class::ALL.iter().map(|class| self.shared.audit.messages(*class)).sum()
    }

    async fn report(
        &self,
        report: &mut Report,
        target: &Target,
        cost: &Cost,
        wrote: Writes,
    ) -> Result<Ran> {
        let shared = self.shared;
        let totals = Totals::of(self.members);
        let policy_shed = totals.shed - self.before.shed;
        let (copies, stalled) = self.copies();
        let audits = [(&*shared.audit, copies), (&*shared.stalled, stalled)];
        let audits = if stalled == 0 { &audits[..1] } else { &audits[..] };
        report.deliveries(audits, policy_shed);
        let rss_bytes = target.rss_bytes()?;
        report.cost(cost.server, cost.generator, rss_bytes, target.rss_bytes_at_start);
        let failed = totals.failed - self.before.failed;
        if failed > 0 {
            shared
                .problems
                .add(|| format!("{failed} messages were refused, dropped or not answered"));
        }
        let delivered = self.delivered();
        let wrote = Writes::of(target).await.since(wrote);
        let ran = self.ran(cost, totals, wrote.messages_each());
        report.run(&[
            ("delivered", json!(delivered)),
            ("cpu_us_per_delivery", json!(ran.cpu_us_per_delivery)),
            ("server_cores", json!(cost.server.cores())),
            ("generator_cores", json!(cost.generator.cores())),
            ("wall_secs", json!(cost.server.wall.as_secs_f64())),
            ("signal_ms", signals(shared, |[whole, _]| whole)),
            ("signal_up_ms", signals(shared, |[_, up]| up)),
            ("chat_p99_ms", json!(ran.chat_p99_ms)),
            ("frame_bytes", json!(ran.frame_bytes)),
            ("messages_per_write", json!(ran.messages_per_write)),
            ("turns", json!(wrote.turns)),
            ("turns_overdue", json!(wrote.overdue)),
            ("history_pages", json!(totals.pages - self.before.pages)),
            ("holes", json!(totals.holes - self.before.holes)),
            ("server_rss_bytes", json!(rss_bytes)),
        ]);
        Ok(ran)
    }

    #[allow(clippy::cast_precision_loss)] // figures for people
    fn ran(&self, cost: &Cost, totals: Totals, messages_per_write: Option<f64>) -> Ran {
        let received = totals.received_bytes - self.before.received_bytes;
        let messages = totals.messages - self.before.messages;
        Ran {
            cpu_us_per_delivery: cost.server.cpu_us_each(self.delivered()),
            messages_per_write,
            frame_bytes: received as f64 / messages.max(1) as f64,
            chat_p99_ms: p99(self.shared, Class::Chat),
        }
    }
}

impl Progress for Talk<'_> {
    fn delivered(&self) -> u64 {
        self.shared.audit.delivered() + self.shared.stalled.delivered()
    }

    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // positive and small
    fn expected(&self) -> u64 {
        let args = self.args;
        let chat = args.load.messages() * u64::from(args.rooms);
        let signals = args.signals * args.duration().as_secs_f64();
        let strokes = args.strokes * f64::from(args.load.secs);
        (chat + (signals + strokes) as u64) * u64::from(args.load.members)
    }

    fn complete(&self) -> bool {
        let copies = u64::from(self.args.load.members);
        let missing = self.sent() * copies;
        let missing = missing.saturating_sub(self.delivered() + self.missed());
        // Asking all clients takes a while.
        missing == 0 || missing <= (Totals::of(self.members).shed - self.before.shed) * copies
    }
}

type Way = Histogram<u64>;

fn signals(shared: &Shared, of: impl Fn(&[Way; 2]) -> &Way) -> Value {
    let phases = shared.phases.all().into_iter();
    let latencies = phases.map(|(name, both)| (name.to_owned(), json!(Latency::of(of(&both)))));
    Value::Object(latencies.collect::<Map<_, _>>())
}

fn p99(shared: &Shared, class: Class) -> f64 {
    Latency::of(&shared.audit.findings(class).latency_us).p99
}

/// What the gateway counts of its writes of chat.
#[derive(Debug, Clone, Copy, Default)]
struct Writes {
    deliveries: f64,
    writes: f64,
    turns: f64,
    overdue: f64,
}

impl Writes {
    async fn of(target: &Target) -> Self {
        let chat = "class=\"chat\"";
        let of = async |name, label| target.metric(name, label).await.unwrap_or(0.0);
        let value = async |name| of(name, chat).await;
        Self {
            deliveries: value("edgeway_gateway_deliveries_total").await,
            writes: value("edgeway_gateway_writes_total").await,
            turns: of("edgeway_gateway_turns_total", "").await,
            overdue: of("edgeway_gateway_turns_overdue_total", "").await,
        }
    }

    fn since(self, before: Self) -> Self {
        Self {
            deliveries: self.deliveries - before.deliveries,
            writes: self.writes - before.writes,
            turns: self.turns - before.turns,
            overdue: self.overdue - before.overdue,
        }
    }

    fn messages_each(self) -> Option<f64> {
        (self.writes > 0.0).then(|| self.deliveries / self.writes)
    }
}
