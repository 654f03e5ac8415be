//! Idle connections, each with the streams of an Edgeway client in one room.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use quinn::{Connection, RecvStream, SendStream};

use super::{Args, FloorServer, endpoint};
use crate::{
    drive,
    procstat::{Meter, Used},
    report::Report,
    settle::settled_rss,
};

/// About what Hello and Login, and then Open and Join, take.
const MESSAGE: &[u8] = &[0; 64];

/// The control stream, and the Session's.
const STREAMS: usize = 2;

/// A connection with its streams, which end when they are dropped.
struct Held {
    connection: Connection,
    _streams: Vec<(SendStream, RecvStream)>,
}

pub async fn run(args: &Args, overhead: usize) -> Result<Report> {
    let mut report = Report::new("floor_idle", "quic");
    let server = FloorServer::start(args, overhead).await?;
    let at_start = server.rss_bytes()?;
    let clients = endpoint::clients(&server.ca_pem, args.sockets)?;
    let addr = server.addr;
    let held = drive::connect_all(args.connections, |n| {
        let connecting = endpoint::connect(&clients, n, addr);
        async move { open(connecting.await?).await }
    })
    .await?;
    let rss_bytes = settled_rss(&[server.pid()]).await?;
    let (server_used, generator_used) = rest(server.pid(), args.load.duration()).await?;
    let lost = held.iter().filter(|held| held.connection.close_reason().is_some()).count();
    server.stop().await?;
    ensure!(lost == 0, "{lost} of {} connections did not stay", args.connections);

    report.connections = args.connections;
    report.secs = args.load.secs;
    report.cost(server_used, generator_used, rss_bytes, at_start);
    report.detail("sockets", args.sockets);
    Ok(report)
}

/// Opens the streams of a connection and exchanges one message on each.
async fn open(connection: Connection) -> Result<Held> {
    let mut streams = Vec::with_capacity(STREAMS);
    for _ in 0..STREAMS {
        let (mut send, mut recv) = connection.open_bi().await?;
        send.write_chunk(Bytes::from_static(MESSAGE)).await?;
        recv.read_chunk(MESSAGE.len(), true).await?.context("no answer")?;
        streams.push((send, recv));
    }
    Ok(Held { connection, _streams: streams })
}

/// What holding the connections costs while nothing happens.
async fn rest(pid: u32, duration: Duration) -> Result<(Used, Used)> {
    let server = Meter::start(&[pid])?;
    let generator = Meter::start(&[std::process::id()])?;
    tokio::time::sleep(duration).await;
    Ok((server.used()?, generator.used()?))
}
