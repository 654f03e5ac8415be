//! How long it takes from nothing, or from a connection that was given up, to the first message.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use clap::ValueEnum;
use edgeway_client::{Bytes, Client, ClientConfig, Event, Events};
use serde::Serialize;
use tokio::{task::JoinSet, time::sleep};

use super::{
    Mode, Size,
    found::{Quantiles, number},
    record::Fates,
    sdk,
    sides::{Sides, login},
};
use crate::{procstat, server::ServerArgs, weaknet::Profile};

/// Somebody always says something, so that the first message does not have to be waited for.
const EVERY: Duration = Duration::from_millis(2);

/// Starts are apart, so that they do not slow each other down.
const APART: Duration = Duration::from_millis(100);

/// How long a connection has been there before it is given up: all that a server sends to be
/// remembered by has arrived.
const SETTLED: Duration = Duration::from_secs(1);

/// A start that takes longer has failed.
const MAX: Duration = Duration::from_secs(30);

const ROOM: &str = "start";

/// From where a client starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum From {
    /// From nothing: connect, log in, join, and the first message
    Cold,
    /// From a connection that it gives up: back in its room by session token, without early data, and the
    /// first message
    Warm,
    /// The same with early data; where the server has not taken it the start has failed
    Early,
}

impl From {
    /// As it is told.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cold => "cold start",
            Self::Warm => "warm return",
            Self::Early => "warm return with early data",
        }
    }
}

/// Starts that belong together.
#[derive(Debug, Clone, Serialize)]
pub struct Starts {
    pub profile: String,
    pub transport: &'static str,
    pub from: From,
    pub clients: u32,
    pub seeds: Vec<u64>,
    pub starts: usize,
    pub failed: usize,
    pub first_message_ms: Quantiles,
    pub load_before: Option<f64>,
    #[serde(skip)]
    pub fates: Fates,
}

impl Starts {
    /// Prints a summary.
    pub fn say(&self) {
        let q = self.first_message_ms;
        println!(
            "{} over {}, {}: to the first message, {} starts, {} failed: p50 {} p90 {} p99 {} max {} ms",
            self.profile,
            self.transport,
            self.from.name(),
            self.starts,
            self.failed,
            number(q.p50),
            number(q.p90),
            number(q.p99),
            number(q.max)
        );
    }
}

/// Each client starts once for each seed.
pub fn run(
    profile: &Profile,
    mode: Mode,
    from: From,
    size: &Size,
    server: &ServerArgs,
) -> Result<Starts> {
    let load_before = procstat::load_average();
    let mut fates = Fates::default();
    for seed in size.seeds.iter().copied() {
        let sides = Sides::start(profile, size.clients, seed)?;
        let measured = measure(&sides, size.clients, mode, from, server);
        fates.join(&sides.server.block_on(measured)?);
    }
    Ok(Starts {
        profile: profile.name.clone(),
        transport: mode.name(),
        from,
        clients: size.clients,
        seeds: size.seeds.clone(),
        starts: fates.sent,
        failed: fates.sent - fates.latency_ms.len(),
        first_message_ms: Quantiles::of(|share| fates.quantile(share)),
        load_before,
        fates,
    })
}

async fn measure(
    sides: &Sides,
    clients: u32,
    mode: Mode,
    from: From,
    server: &ServerArgs,
) -> Result<Fates> {
    let users = (0..clients).map(|n| format!("starter-{n}"));
    let users: Vec<_> = users.chain(["speaker".to_owned()]).collect();
    let server = sides.edgeway(server, &users).await?;
    let base = Arc::new(sdk::config(sides, &server));
    let speaker = ClientConfig { login: login("speaker"), ..(*base).clone() };
    let speaking = sides.server.spawn(async move {
        let (client, events) = Client::connect(speaker).await?;
        let room = client.join(ROOM).await?;
        anyhow::Ok((client, room, events))
    });
    let (client, room, mut events) = speaking.await?.context("the speaker cannot connect")?;
    let talking = sides.server.spawn(async move {
        loop {
            // Where there is no room for it, the next one does. What is not taken stops the client.
            let _ = room.send_signal_nowait(Bytes::from_static(b"hello"));
            events.try_batch(256);
            sleep(EVERY).await;
        }
    });
    let mut starts = JoinSet::new();
    for n in 0..clients {
        let config = ClientConfig {
            transport: mode.transport(),
            bind: Some(sides.bind(n)),
            // The kernel's, as the row asks.
            tcp_bbr: false,
            login: login(&format!("starter-{n}")),
            join: vec![ROOM.to_owned()],
            early_data: from == From::Early,
            ..(*base).clone()
        };
        starts.spawn_on(start(config, from), sides.clients.handle());
        sleep(APART).await;
    }
    let mut fates = Fates { sent: clients as usize, ..Fates::default() };
    for took in starts.join_all().await.into_iter().flatten() {
        fates.latency_ms.push(took.as_secs_f64() * 1000.0);
    }
    fates.latency_ms.sort_by(f64::total_cmp);
    talking.abort();
    drop(client);
    server.stop().await?;
    Ok(fates)
}

/// None where it failed.
async fn start(config: ClientConfig, from: From) -> Option<Duration> {
    let began = Instant::now();
    let cold = async {
        let (client, mut events) = Client::connect(config).await.ok()?;
        let _room = client.join(ROOM).await.ok()?;
        message(&mut events).await?;
        Some((began.elapsed(), client, _room, events))
    };
    let (took, client, _room, mut events) = tokio::time::timeout(MAX, cold).await.ok()??;
    if from == From::Cold {
        return Some(took);
    }
    let settling = tokio::time::Instant::now() + SETTLED;
    while tokio::time::timeout_at(settling, events.next()).await.is_ok() {}
    let began = Instant::now();
    client.reconnect();
    let warm = async {
        // What still comes from the old connection does not count.
        while !matches!(
            events.next().await?,
            Event::Reconnecting { .. } | Event::Reconnected { .. }
        ) {}
        message(&mut events).await
    };
    tokio::time::timeout(MAX, warm).await.ok()??;
    let took = began.elapsed();
    // A return without it is of the other kind.
    (from != From::Early || client.stats().early_data > 0).then_some(took)
}

/// Waits for a message; none where the client is closed.
async fn message(events: &mut Events) -> Option<()> {
    while !matches!(events.next().await?, Event::Message(_)) {}
    Some(())
}
