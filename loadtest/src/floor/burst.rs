//! The clients of a burst: each sends at its times, and checks all that comes.

use std::sync::Arc;

use anyhow::Result;
use bytes::{Bytes, BytesMut};
use edgeway_proto::{Class, Seq};
use quinn::Connection;
use tokio::{task::JoinSet, time::Instant};

use super::{
    Args, FloorServer, endpoint,
    wire::{Frames, UPLINK_OVERHEAD, start_frame},
};
use crate::{
    audit::{Audit, Whole},
    drive,
    load::Load,
    report::Report,
    stamp::{self, Stamp},
};

/// Chunks taken from a stream at a time.
const CHUNKS: usize = 64;

pub async fn run(args: &Args, overhead: usize) -> Result<Report> {
    let mut report = Report::new("floor", "quic");
    let server = FloorServer::start(args, overhead).await?;
    let at_start = server.rss_bytes()?;
    let clients = endpoint::clients(&server.ca_pem, args.sockets)?;
    let addr = server.addr;
    let load = &args.load;
    let connections =
        drive::connect_all(load.members, |n| endpoint::connect(&clients, n, addr)).await?;

    let audit = Audit::new();
    let mut receivers = JoinSet::new();
    for connection in &connections {
        receivers.spawn(receive(connection.clone(), Arc::clone(&audit), overhead, load.members));
    }
    let expected = load.messages() * u64::from(load.members);
    let progress = Whole { audit: &audit, expected };
    let cost = drive::measure(&progress, &[server.pid()], load.duration(), |start| {
        let mut senders = JoinSet::new();
        for (member, connection) in (0..).zip(&connections) {
            senders.spawn(send(
                connection.clone(),
                Arc::clone(&audit),
                load.clone(),
                member,
                start,
            ));
        }
        senders
    })
    .await?;
    let rss_bytes = server.rss_bytes()?;
    let served = server.stop().await?;
    receivers.shutdown().await;

    report.members = load.members;
    report.connections = load.members;
    report.secs = load.secs;
    report.seed = load.seed;
    report.deliveries(&[(&audit, load.members.into())], 0);
    report.cost(cost.server, cost.generator, rss_bytes, at_start);
    report.detail("burst", load.burst);
    report.detail("sockets", args.sockets);
    report.detail("frame_bytes", overhead + load.size);
    report.detail("batches", served.batches);
    report.detail("messages_per_batch", served.messages.checked_div(served.batches).unwrap_or(0));
    report.detail("cut_off", served.cut_off);
    Ok(report)
}

/// Sends what one member has to say.
async fn send(
    connection: Connection,
    audit: Arc<Audit>,
    load: Load,
    member: u32,
    start: Instant,
) -> Result<()> {
    let filler = stamp::filler(load.size, load.seed ^ u64::from(member));
    let mut ticks = load.ticks(member, start);
    let mut stream = connection.open_uni().await?;
    let mut frame = BytesMut::new();
    while let Some(n) = ticks.next().await {
        audit.sent(Class::Chat);
        start_frame(&mut frame, UPLINK_OVERHEAD, load.size);
        Stamp { sender: member, n, sent_ns: audit.clock.now_ns() }.write(&mut frame, &filler);
        stream.write_chunk(frame.split().freeze()).await?;
    }
    Ok(())
}

/// Checks what one member gets, until the connection ends.
async fn receive(
    connection: Connection,
    audit: Arc<Audit>,
    overhead: usize,
    members: u32,
) -> Result<()> {
    let mut receiver = audit.receiver(0, members as usize);
    let mut stream = connection.accept_uni().await?;
    let (mut frames, mut counter) = (Frames::default(), 0);
    let mut chunks = [const { Bytes::new() }; CHUNKS];
    while let Some(filled) = stream.read_chunks(&mut chunks).await? {
        let now_ns = audit.clock.now_ns();
        for chunk in chunks.iter_mut().take(filled) {
            frames.push(std::mem::take(chunk), overhead, |payload| {
                // The server's signals are of no member; they are not counted.
                if let Some(stamp) = Stamp::read(payload).filter(|s| s.sender != u32::MAX) {
                    counter += 1;
                    // The stream's own order: it must be the same for all.
                    let seq = Some(Seq { epoch: 1, counter });
                    receiver.delivered(Class::Chat, seq, stamp, now_ns);
                }
            });
        }
        receiver.flush();
    }
    Ok(())
}
