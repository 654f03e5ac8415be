//! Guests who come and go.

use std::{collections::VecDeque, time::Duration};

use anyhow::{Result, bail};
use hdrhistogram::Histogram;
use serde_json::Value;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::{
    Args, crowd,
    door::{Door, Said, join, leave, open},
    report,
    site::Site,
};
use crate::{
    audit::histogram,
    fleet::room_name,
    procstat::{Meter, Used, rss_bytes_of},
    report::{Latency, Report},
};

/// Guests come at this rhythm, as many as are due.
const TICK: Duration = Duration::from_millis(1);
/// They come for so long before it is measured.
const WARM_UP: Duration = Duration::from_secs(2);
/// How long the last of them may take to be out again.
const PATIENCE: Duration = Duration::from_secs(10);

/// Measures each number of members.
pub async fn measure(args: &Args) -> Result<Report> {
    let mut report = report(args, "grpc");
    report.rooms = args.rooms;
    report.secs = args.secs;
    report.detail("rate", args.rate);
    report.detail("guests", args.guests);
    let mut each = Vec::new();
    for members in &args.members {
        each.push(once(args, *members, &mut report).await?);
    }
    if let [first, .., last] = each[..] {
        // Where there was too little to be seen, nothing is said.
        let ratio = (first > 0.0).then(|| last / first);
        report.detail("cpu_ratio", ratio);
        if let Some(ratio) = ratio.filter(|ratio| *ratio > args.ratio) {
            let problem = format!("a join cost {ratio:.2} times as much with the most members");
            report.problems.push(problem);
        }
    }
    Ok(report)
}

/// Microseconds of CPU for each join and its leave, with so many members.
async fn once(args: &Args, members: u32, report: &mut Report) -> Result<f64> {
    let mut site = Site::open(args).await?;
    let at_start = rss_bytes_of(&site.pids)?;
    let mut door = Door::dial(&site.backend).await?;
    let rooms: Vec<String> = (0..args.rooms).map(room_name).collect();
    crowd::gather(&mut door, members, &rooms).await?;
    let mut guests = Guests::open(&door, args.guests, rooms)?;
    guests.come(&mut door, args.rate, WARM_UP).await?;
    crowd::quiet(&mut door).await?;

    let (server, generator) = (Meter::start(&site.pids)?, Meter::start(&[std::process::id()])?);
    let came = guests.come(&mut door, args.rate, Duration::from_secs(args.secs.into())).await?;
    let (server, generator) = (server.used()?, generator.used()?);
    site.check()?;
    let cpu_us = server.cpu_us_each(came.joined);
    tell(args, members, &came, (cpu_us, server), report);
    report.members = report.members.max(members);
    report.connections = members + args.guests;
    report.cost(server, generator, rss_bytes_of(&site.pids)?, at_start);
    site.close().await?;
    Ok(cpu_us)
}

fn tell(args: &Args, members: u32, came: &Came, (cpu_us, used): (f64, Used), report: &mut Report) {
    let latency = Latency::of(&came.latency_us);
    let wanted = u64::from(args.rate) * u64::from(args.secs);
    report.total.latency_ms = latency;
    report.run(&[
        ("members", members.into()),
        ("joins", came.joined.into()),
        ("joins_per_s", came.per_second().into()),
        ("latency_ms", serde_json::to_value(latency).unwrap_or(Value::Null)),
        ("cpu_us_per_join", cpu_us.into()),
        ("cpu_cores", used.cores().into()),
        ("presences", came.presences.into()),
        ("errors", came.refused.into()),
    ]);
    if let Some(why) = &came.why {
        report.problems.push(format!("{} joins or leaves were refused: {why}", came.refused));
    }
    if came.joined < wanted {
        let problem = format!("{} of {wanted} joins were answered in time", came.joined);
        report.problems.push(problem);
    }
}

/// Those who come and go. The number of the Session, less one, is the place in the list.
struct Guests {
    rooms: Vec<String>,
    /// When the present join of each was due.
    due: Vec<Instant>,
    /// Those who are out, who has been so for longest first.
    idle: VecDeque<u64>,
    request: u64,
}

/// What became of guests who came for a while.
struct Came {
    joined: u64,
    left: u64,
    refused: u64,
    why: Option<String>,
    presences: u64,
    latency_us: Histogram<u64>,
    /// From the first join that was due to the last one that was answered.
    took: Duration,
}

impl Came {
    #[allow(clippy::cast_precision_loss)] // a figure for people
    fn per_second(&self) -> f64 {
        self.joined as f64 / self.took.as_secs_f64().max(f64::EPSILON)
    }
}

impl Guests {
    /// Opens a Session for each.
    fn open(door: &Door, count: u32, rooms: Vec<String>) -> Result<Self> {
        let count = u64::from(count);
        door.send((1..=count).map(|n| open(n, format!("guest-{n:05}"))).collect())?;
        let due = vec![Instant::now(); usize::try_from(count)?];
        Ok(Self { rooms, due, idle: (1..=count).collect(), request: 0 })
    }

    /// Has them join, at a rate, for a while; each leaves when it has joined. Returns when all are out.
    async fn come(&mut self, door: &mut Door, rate: u32, during: Duration) -> Result<Came> {
        let start = Instant::now();
        let total = (f64::from(rate) * during.as_secs_f64()).round();
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // below 10^11
        let total = total as u64;
        let mut came = Came {
            joined: 0,
            left: 0,
            refused: 0,
            why: None,
            presences: 0,
            latency_us: histogram(),
            took: Duration::ZERO,
        };
        let mut begun = 0;
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while came.left + came.refused < total {
            let said = tokio::select! {
                _ = tick.tick(), if begun < total => {
                    door.send(self.due_joins(start, rate, total, &mut begun))?;
                    continue;
                }
                said = door.next() => said?,
                () = sleep_until(start + during + PATIENCE) => break,
            };
            let now = Instant::now();
            let mut leaves = Vec::new();
            for said in said {
                match said {
                    Said::Joined { session, group } => {
                        let waited = now - self.due[place(session)?];
                        came.latency_us.saturating_record(micros(waited));
                        came.joined += 1;
                        came.took = now - start;
                        self.request += 1;
                        leaves.push(leave(session, self.request, group));
                    }
                    Said::Left { session } => {
                        came.left += 1;
                        self.idle.push_back(session);
                    }
                    Said::Refused { session, why } => {
                        came.refused += 1;
                        came.why.get_or_insert(why);
                        self.idle.push_back(session);
                    }
                    Said::Presence { .. } => came.presences += 1,
                }
            }
            door.send(leaves)?;
        }
        Ok(came)
    }

    /// The joins whose time has come, as far as there are guests who are out.
    fn due_joins(
        &mut self,
        start: Instant,
        rate: u32,
        total: u64,
        begun: &mut u64,
    ) -> Vec<edgeway_proto::link::UpItem> {
        let mut joins = Vec::new();
        let now = Instant::now();
        while *begun < total {
            let due = start + Duration::from_nanos(*begun * 1_000_000_000 / u64::from(rate));
            if due > now {
                break;
            }
            let Some(session) = self.idle.pop_front() else { break };
            *begun += 1;
            self.request += 1;
            if let Ok(place) = place(session) {
                self.due[place] = due;
                let room = &self.rooms[place % self.rooms.len()];
                joins.push(join(session, self.request, room));
            }
        }
        joins
    }
}

fn place(session: u64) -> Result<usize> {
    match session.checked_sub(1).and_then(|n| usize::try_from(n).ok()) {
        Some(place) => Ok(place),
        None => bail!("an answer for Session {session}, which nobody opened"),
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1)
}
