//! How long it takes from nothing to the first message.

use std::{
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use edgeway_client::{Bytes, Client, ClientConfig, Event};
use tokio::{task::JoinSet, time::sleep};

use super::{
    Args, Mode,
    found::number,
    record::Fates,
    sdk,
    sides::{Sides, login},
};
use crate::weaknet::Profile;

/// Somebody always says something, so that the first message does not have to be waited for.
const EVERY: Duration = Duration::from_millis(2);

/// Starts are apart, so that they do not slow each other down.
const APART: Duration = Duration::from_millis(100);

/// A start that takes longer has failed.
const MAX: Duration = Duration::from_secs(30);

const ROOM: &str = "start";

/// Each client connects, joins and waits for its first message, once for each seed.
pub fn run(args: &Args, profile: &Profile, mode: Mode) -> Result<ExitCode> {
    let mut all = Fates::default();
    for seed in args.seeds.iter().copied() {
        let sides = Sides::start(profile, args.clients, seed)?;
        all.join(&sides.server.block_on(measure(&sides, args, mode))?);
    }
    println!(
        "{} over {}: from connect() to the first message, {} starts, {} failed: p50 {} p90 {} p99 {} max {} ms",
        profile.name,
        mode.name(),
        all.sent,
        all.sent - all.latency_ms.len(),
        number(all.quantile(0.5)),
        number(all.quantile(0.9)),
        number(all.quantile(0.99)),
        number(all.quantile(1.0))
    );
    Ok(ExitCode::from(u8::from(all.latency_ms.len() < all.sent)))
}

async fn measure(sides: &Sides, args: &Args, mode: Mode) -> Result<Fates> {
    let users = (0..args.clients).map(|n| format!("starter-{n}"));
    let users: Vec<_> = users.chain(["speaker".to_owned()]).collect();
    let server = sides.edgeway(&args.server, &users).await?;
    let base = Arc::new(sdk::config(sides, &server));
    let speaker = ClientConfig { login: login("speaker"), ..(*base).clone() };
    let speaking = sides.server.spawn(async move {
        let (client, _) = Client::connect(speaker).await?;
        let room = client.join(ROOM).await?;
        anyhow::Ok((client, room))
    });
    let (client, room) = speaking.await?.context("the speaker cannot connect")?;
    let talking = sides.server.spawn(async move {
        loop {
            // Where there is no room for it, the next one does.
            let _ = room.send_signal_nowait(Bytes::from_static(b"hello"));
            sleep(EVERY).await;
        }
    });
    let mut starts = JoinSet::new();
    for n in 0..args.clients {
        let config = ClientConfig {
            transport: mode.transport(),
            bind: Some(sides.bind(n)),
            login: login(&format!("starter-{n}")),
            ..(*base).clone()
        };
        starts.spawn_on(start(config), sides.clients.handle());
        sleep(APART).await;
    }
    let mut fates = Fates { sent: args.clients as usize, ..Fates::default() };
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
async fn start(config: ClientConfig) -> Option<Duration> {
    let began = Instant::now();
    let first = async {
        let (client, mut events) = Client::connect(config).await.ok()?;
        let _room = client.join(ROOM).await.ok()?;
        loop {
            if let Event::Message(_) = events.next().await? {
                return Some(began.elapsed());
            }
        }
    };
    tokio::time::timeout(MAX, first).await.ok()?
}
