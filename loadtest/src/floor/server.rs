//! The bare server, a process of its own. It ends when its standard input does, so it never
//! outlives the scenario, and says then what it did.

use std::{
    io::Read,
    path::PathBuf,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use quinn::{Connection, Endpoint, RecvStream, SendStream};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{Notify, mpsc},
    time::{Instant, sleep_until, timeout},
};

use super::{
    Batching, endpoint,
    wire::{Frames, UPLINK_OVERHEAD, start_frame},
};
use crate::tls;

/// Batches that wait for one connection at most: more than a second of them at the default
/// interval, more than any burst of batches of a fixed size. A client that is further behind is
/// cut off, and the run fails.
const OUTBOX_BATCHES: usize = 64;
const OUTBOX_FIXED_BATCHES: usize = 4096;

/// With a fixed batch size: the rest of a burst goes when nothing came for this time.
const REST: Duration = Duration::from_millis(20);

/// Payload of a signal.
const SIGNAL_BYTES: usize = 100;

/// A message of an idle connection is tiny.
const SMALL_MESSAGE_BYTES: usize = 1024;

/// The bare server of `floor`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Directory of the certificates
    #[arg(long)]
    certs: PathBuf,
    /// Bytes that a frame adds to the payload on the way down
    #[arg(long)]
    overhead: usize,
    #[command(flatten)]
    batching: Batching,
    /// Only hold connections
    #[arg(long)]
    idle: bool,
}

/// What the server says at its end.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Summary {
    /// Messages received.
    pub messages: u64,
    /// Batches passed on, each to all connections.
    pub batches: u64,
    /// Connections cut off because they did not keep up.
    pub cut_off: u64,
}

/// What precedes the address when it is ready.
pub const READY: &str = "ready ";
/// What precedes the [`Summary`].
pub const SUMMARY: &str = "summary ";

pub fn run(args: Args) -> Result<ExitCode> {
    tokio::runtime::Runtime::new()?.block_on(serve(args))?;
    Ok(ExitCode::SUCCESS)
}

async fn serve(args: Args) -> Result<()> {
    let endpoint = endpoint::server(&tls::certs(&args.certs)?)?;
    println!("{READY}{}", endpoint.local_addr()?);
    let fixed = args.batching.batch.is_some();
    let room = Arc::new(Room { overhead: args.overhead, fixed, ..Room::default() });
    if args.idle {
        tokio::spawn(accept(endpoint, hold));
    } else {
        if args.batching.signals > 0 {
            tokio::spawn(Arc::clone(&room).signal(args.batching.signals));
        }
        tokio::spawn(Arc::clone(&room).pass_on(args.batching));
        let shared = Arc::clone(&room);
        tokio::spawn(accept(endpoint, move |connection| Arc::clone(&shared).member(connection)));
    }
    tokio::task::spawn_blocking(|| std::io::stdin().read(&mut [0])).await??;
    println!("{SUMMARY}{}", serde_json::to_string(&room.summary())?);
    Ok(())
}

async fn accept<F>(endpoint: Endpoint, serve: impl Fn(Connection) -> F + Clone + Send + 'static)
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    while let Some(incoming) = endpoint.accept().await {
        let serve = serve.clone();
        tokio::spawn(async move {
            let result = match incoming.await {
                Ok(connection) => serve(connection).await,
                Err(error) => Err(error.into()),
            };
            if let Err(error) = result {
                tracing::debug!("{error:#}");
            }
        });
    }
}

/// Answers one message on each stream that the client opens, and holds the streams.
async fn hold(connection: Connection) -> Result<()> {
    let mut held: Vec<(SendStream, RecvStream)> = Vec::with_capacity(2);
    loop {
        let (mut send, mut recv) = connection.accept_bi().await?;
        let message = recv.read_chunk(SMALL_MESSAGE_BYTES, true).await?.context("no message")?;
        send.write_chunk(message.bytes).await?;
        held.push((send, recv));
    }
}

/// All members, and what they said since it was last passed on.
#[derive(Default)]
struct Room {
    overhead: usize,
    /// Whether batches have a fixed size.
    fixed: bool,
    gathered: Mutex<Gathered>,
    /// Rung after something was gathered.
    arrived: Notify,
    outboxes: Mutex<Vec<mpsc::Sender<Bytes>>>,
    messages: AtomicU64,
    batches: AtomicU64,
    cut_off: AtomicU64,
}

/// Encoded messages.
#[derive(Default)]
struct Gathered {
    frames: BytesMut,
    messages: u32,
}

impl Room {
    /// Serves one connection.
    async fn member(self: Arc<Self>, connection: Connection) -> Result<()> {
        let bound = if self.fixed { OUTBOX_FIXED_BATCHES } else { OUTBOX_BATCHES };
        let (outbox, batches) = mpsc::channel(bound);
        self.outboxes.lock().push(outbox);
        tokio::spawn(write(connection.clone(), batches, self.fixed));
        let mut uplink = connection.accept_uni().await?;
        let mut frames = Frames::default();
        while let Some(chunk) = uplink.read_chunk(usize::MAX, true).await? {
            let mut gathered = self.gathered.lock();
            let before = gathered.messages;
            frames.push(chunk.bytes, UPLINK_OVERHEAD, |payload| {
                let Gathered { frames, messages } = &mut *gathered;
                start_frame(frames, self.overhead, payload.len());
                frames.extend_from_slice(payload);
                *messages += 1;
            });
            let came = gathered.messages - before;
            drop(gathered);
            self.messages.fetch_add(came.into(), Relaxed);
            self.arrived.notify_one();
        }
        Ok(())
    }

    /// Passes on what was gathered, for ever.
    async fn pass_on(self: Arc<Self>, batching: Batching) {
        let interval = Duration::from_millis(batching.batch_ms);
        let mut next = Instant::now();
        loop {
            self.arrived.notified().await;
            match batching.batch {
                Some(messages) => self.wait_for(messages).await,
                None => sleep_until(next).await,
            }
            let Gathered { frames, messages } = std::mem::take(&mut *self.gathered.lock());
            if messages > 0 {
                next = Instant::now() + interval;
                self.batches.fetch_add(1, Relaxed);
                self.fan_out(&frames.freeze());
            }
        }
    }

    /// Sends small messages of its own to everyone, each at once. What they cost is what the
    /// signals among a room's chat cost: a packet for each connection.
    async fn signal(self: Arc<Self>, per_second: u32) {
        let mut ticks = tokio::time::interval(Duration::from_secs(1) / per_second);
        let mut frame = BytesMut::new();
        start_frame(&mut frame, self.overhead, SIGNAL_BYTES);
        frame.resize(frame.len() + SIGNAL_BYTES, u8::MAX);
        let frame = frame.freeze();
        loop {
            ticks.tick().await;
            self.fan_out(&frame);
        }
    }

    async fn wait_for(&self, messages: u32) {
        while self.gathered.lock().messages < messages {
            if timeout(REST, self.arrived.notified()).await.is_err() {
                return;
            }
        }
    }

    /// Hands the same bytes to everyone. Who does not keep up or has gone is dropped.
    fn fan_out(&self, frames: &Bytes) {
        self.outboxes.lock().retain(|outbox| match outbox.try_send(frames.clone()) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Closed(_)) => false,
            Err(mpsc::error::TrySendError::Full(_)) => {
                self.cut_off.fetch_add(1, Relaxed);
                false
            }
        });
    }

    fn summary(&self) -> Summary {
        Summary {
            messages: self.messages.load(Relaxed),
            batches: self.batches.load(Relaxed),
            cut_off: self.cut_off.load(Relaxed),
        }
    }
}

/// Writes batches to a connection, until it or the room ends: all that are there at once, or
/// those of a fixed size one at a time.
async fn write(
    connection: Connection,
    mut batches: mpsc::Receiver<Bytes>,
    fixed: bool,
) -> Result<()> {
    let mut stream: Option<SendStream> = None;
    let mut taken = Vec::with_capacity(1);
    let together = if fixed { 1 } else { OUTBOX_BATCHES };
    while batches.recv_many(&mut taken, together).await > 0 {
        let stream = match &mut stream {
            Some(stream) => stream,
            none => none.insert(connection.open_uni().await?),
        };
        stream.write_all_chunks(&mut taken).await?;
        taken.clear();
        if fixed {
            // The connection's own task, which the write woke, sends before more is written.
            tokio::task::yield_now().await;
        }
    }
    Ok(())
}
