//! One user who joins hundreds of rooms in one call.

use std::{collections::HashMap, time::Duration};

use anyhow::{Context, Result, bail};
use edgeway_client::{Client, ClientConfig, Login, Trust};
use serde_json::{Map, Value};
use tokio::{
    task::JoinHandle,
    time::{Instant, timeout_at},
};

use super::{
    Args, crowd,
    door::{Door, Said},
    redis::{self, Calls},
    report,
    site::Site,
};
use crate::{
    fleet::room_name,
    procstat::{Meter, rss_bytes_of},
    report::Report,
};

/// For how long presence is looked at: rooms tell within a second.
const LOOK: Duration = Duration::from_secs(3);
/// Presence is counted by parts of that.
const PART_MS: u128 = 100;
/// Where there are as many rooms, they must not tell in the same of these parts.
const ROOMS_TO_SPREAD: u32 = 100;

pub async fn measure(args: &Args) -> Result<Report> {
    let rooms = args.many.unwrap_or(300);
    let members = args.members[0];
    let mut report = report(args, "quic");
    report.rooms = rooms;
    report.members = members;
    let mut site = Site::open(args).await?;
    let at_start = rss_bytes_of(&site.pids)?;
    let mut door = Door::dial(&site.backend).await?;
    let names: Vec<String> = (0..rooms).map(room_name).collect();
    crowd::gather(&mut door, members, &names).await?;
    let (server, generator) = (Meter::start(&site.pids)?, Meter::start(&[std::process::id()])?);
    for n in 1..=args.repeat {
        once(args, n, &site, &mut door, &names, &mut report).await?;
    }
    let new: Vec<String> = (0..rooms).map(room_name).collect();
    let founder = Teacher::join(&site, "founder", new, &mut report).await?;
    report.detail("new_rooms_ms", founder.took_ms);
    if let Some(calls) = &founder.calls {
        report.detail("new_rooms_redis_calls", calls.clone());
    }
    founder.leave().await;
    site.check()?;
    report.cost(server.used()?, generator.used()?, rss_bytes_of(&site.pids)?, at_start);
    site.close().await?;
    Ok(report)
}

/// One teacher: how long it took, and what the rooms were told.
async fn once(
    args: &Args,
    n: u32,
    site: &Site,
    door: &mut Door,
    names: &[String],
    report: &mut Report,
) -> Result<()> {
    let name = format!("teacher-{n}");
    let teacher = Teacher::join(site, &name, names.to_vec(), report).await?;
    let (took, within) = (teacher.took_ms, args.within_ms);
    if took > f64::from(within) {
        report.problems.push(format!("it took {took:.0} ms, where {within} are allowed"));
    }
    let told = presence(door).await?;
    let most = told.parts.iter().max().copied().unwrap_or_default();
    let rooms = report.rooms;
    report.run(&[
        ("join_ms", took.into()),
        ("redis_calls", teacher.calls.clone().map_or(Value::Null, Value::from)),
        ("presences", told.all.into()),
        ("presences_of_a_room", told.of_a_room.into()),
        ("presences_in_100_ms", most.into()),
    ]);
    if told.of_a_room > 2 {
        report.problems.push(format!("a room told {} times who came and went", told.of_a_room));
    }
    if rooms >= ROOMS_TO_SPREAD && most > rooms / 2 {
        report.problems.push(format!("{most} rooms of {rooms} told at the same time who came"));
    }
    teacher.leave().await;
    crowd::quiet(door).await
}

/// A user in all the rooms.
struct Teacher {
    client: Client,
    reading: JoinHandle<()>,
    /// How long the call took.
    took_ms: f64,
    /// What Redis was asked meanwhile.
    calls: Option<Map<String, Value>>,
}

impl Teacher {
    /// Connects, and joins the rooms in one call.
    async fn join(
        site: &Site,
        user: &str,
        names: Vec<String>,
        report: &mut Report,
    ) -> Result<Self> {
        let server = site.server.as_ref().context("a server of our own")?;
        let login = Login::Development { user: user.to_owned() };
        let config = ClientConfig {
            trust: Trust::Ca(server.ca_pem.clone().into_bytes()),
            agent: "loadtest".to_owned(),
            ..ClientConfig::new(&server.quic.to_string(), login)
        };
        let (client, mut events) = Client::connect(config).await?;
        let reading = tokio::spawn(async move { while !events.next_batch(64).await.is_empty() {} });
        let before = look(site)?;
        let began = Instant::now();
        let rooms = client.join_all(names).await;
        let took_ms = began.elapsed().as_secs_f64() * 1000.0;
        let calls = match (before, look(site)?) {
            (Some(before), Some(after)) => Some(redis::between(&before, &after)),
            _ => None,
        };
        let refused: Vec<_> = rooms.iter().filter_map(|room| room.as_ref().err()).collect();
        if let Some(error) = refused.first() {
            report.problems.push(format!("{} rooms were refused: {error}", refused.len()));
        }
        Ok(Self { client, reading, took_ms, calls })
    }

    async fn leave(self) {
        self.client.close().await;
        self.reading.abort();
    }
}

fn look(site: &Site) -> Result<Option<Calls>> {
    site.redis.as_deref().map(redis::calls).transpose()
}

/// What the members' gateway was told of who came and went.
struct Told {
    all: u64,
    /// Of the room that told most.
    of_a_room: u32,
    /// Rooms that told in each part of the time.
    parts: Vec<u32>,
}

async fn presence(door: &mut Door) -> Result<Told> {
    let began = Instant::now();
    let mut told = Told { all: 0, of_a_room: 0, parts: Vec::new() };
    let mut rooms: HashMap<u64, u32> = HashMap::new();
    while let Ok(said) = timeout_at(began + LOOK, door.next()).await {
        let part = usize::try_from(began.elapsed().as_millis() / PART_MS)?;
        told.parts.resize(told.parts.len().max(part + 1), 0);
        for said in said? {
            match said {
                Said::Presence { group } => {
                    told.all += 1;
                    told.parts[part] += 1;
                    let of_room = rooms.entry(group).or_default();
                    *of_room += 1;
                    told.of_a_room = told.of_a_room.max(*of_room);
                }
                Said::Refused { why, .. } => bail!("a member was refused: {why}"),
                Said::Joined { .. } | Said::Left { .. } => {}
            }
        }
    }
    Ok(told)
}
