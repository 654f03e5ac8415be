//! Members who are there and silent: what a connection costs in memory.

use std::{
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use edgeway_client::{Client, Event, Events, Room};
use tokio::time::Instant;

use crate::{
    drive,
    fleet::{Fleet, Mix, room_name},
    floor,
    load::{Load, Output},
    procstat::Meter,
    report::Report,
    settle::settled_rss,
    target::{Target, TargetArgs},
};

/// Events taken at a time.
const BATCH: usize = 64;

/// What members who say nothing cost: each connected, logged in and in one room
///
/// Memory is that of all the server's processes, resident, once it has come to rest, less what it
/// was before the first connection. With --floor also that of a bare QUIC server with as many
/// connections, and the ratio.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Connections to hold
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    connections: u32,
    /// What carries them
    #[arg(long, value_enum, default_value_t = Mix::Quic)]
    transport: Mix,
    /// Rooms that they are spread over
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rooms: u32,
    /// For how long CPU is looked at once memory has come to rest
    #[arg(long, value_name = "SECONDS", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    secs: u32,
    /// UDP sockets that the clients share
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1024))]
    sockets: u32,
    /// Also measure a bare QUIC server that holds as many connections
    #[arg(long)]
    floor: bool,
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    output: Output,
}

pub fn run(args: Args) -> Result<ExitCode> {
    if args.floor && args.transport != Mix::Quic {
        eprintln!("loadtest: --floor is bare QUIC: it goes with --transport quic only");
        return Ok(ExitCode::from(2));
    }
    tokio::runtime::Runtime::new()?.block_on(scenario(args))
}

async fn scenario(args: Args) -> Result<ExitCode> {
    let mut report = hold(&args).await?;
    if args.floor {
        let load = Load::silent(args.secs);
        let floor = floor::of_idle(load, args.connections, args.sockets).await?.server;
        let ours = report.server.rss_bytes_per_connection;
        report.detail("floor_rss_bytes_per_connection", floor.rss_bytes_per_connection);
        report.detail("floor_ratio", ours / floor.rss_bytes_per_connection.max(1.0));
        report.detail("floor_cpu_cores", floor.cpu_cores);
    }
    report.finish(&args.output)
}

async fn hold(args: &Args) -> Result<Report> {
    let mut report = Report::new("idle", args.transport.name());
    let mut target = Target::open(&args.target, true).await?;
    let fleet = Fleet::new(&target, args.transport, args.sockets)?;
    let rooms: Vec<Arc<str>> = (0..args.rooms).map(|n| room_name(n).into()).collect();
    let disturbed = Arc::new(AtomicU32::new(0));
    let began = Instant::now();
    let held = drive::connect_all(args.connections, |n| {
        let connecting = fleet.connect(n);
        let room = Arc::clone(&rooms[n as usize % rooms.len()]);
        let disturbed = Arc::clone(&disturbed);
        async move {
            let (client, events) = connecting.await?;
            let reading = tokio::spawn(read(events, disturbed));
            let room = client.join(&room).await.context("cannot join")?;
            Ok(Held { _client: client, _room: room, reading })
        }
    })
    .await?;
    let connecting = began.elapsed();
    target.check()?;
    let rss_bytes = settled_rss(&target.pids).await?;
    let server = Meter::start(&target.pids)?;
    let generator = Meter::start(&[std::process::id()])?;
    tokio::time::sleep(Duration::from_secs(args.secs.into())).await;

    report.connections = args.connections;
    report.members = args.connections.div_ceil(args.rooms);
    report.rooms = args.rooms;
    report.secs = args.secs;
    report.cost(server.used()?, generator.used()?, rss_bytes, target.rss_bytes_at_start);
    report.detail("sockets", args.sockets);
    report.detail("connecting_secs", connecting.as_secs_f64());
    report.detail("connecting_tried_again", fleet.tried_again());
    let disturbed = disturbed.load(Relaxed);
    if disturbed > 0 {
        report.problems.push(format!("{disturbed} times a connection, Session or room was lost"));
    }
    held.iter().for_each(|held| held.reading.abort());
    target.check()?;
    target.close().await?;
    Ok(report)
}

/// A connection: it ends when all of this is dropped.
struct Held {
    _client: Client,
    _room: Room,
    reading: tokio::task::JoinHandle<()>,
}

/// Takes what comes, presence above all, and counts what should not.
async fn read(mut events: Events, disturbed: Arc<AtomicU32>) {
    loop {
        let batch = events.next_batch(BATCH).await;
        if batch.is_empty() {
            return;
        }
        let expected = |event: &&Event| !matches!(event, Event::Presence(_) | Event::Message(_));
        let unexpected = batch.iter().filter(expected).count();
        disturbed.fetch_add(u32::try_from(unexpected).unwrap_or(u32::MAX), Relaxed);
    }
}
