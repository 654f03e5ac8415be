//! UDP: the delay and the loss of many clients, and one that fills its bottleneck.

use std::{
    collections::BTreeSet,
    io,
    net::UdpSocket,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};
use tokio::time::MissedTickBehavior;

use super::{Size, client_socket, server_socket, testbed};
use crate::weaknet::{
    Testbed,
    draw::Direction,
    link::{Fate, Link},
    profile::{Bottleneck, LinkSpec},
    selfcheck::{Verdict, mean_and_sigma, ms},
    testbed::SERVER,
    units::{Queue, Rate},
};

const PORT: u16 = 9000;

/// After the last packet, what is still under way is waited for.
const REST: Duration = Duration::from_millis(500);

/// What a packet says.
#[derive(Clone, Copy)]
struct Stamp {
    client: u32,
    number: u32,
    /// When the client sent it and when the server had it, in nanoseconds from a common zero.
    sent: u64,
    echoed: u64,
}

impl Stamp {
    const BYTES: usize = 24;

    fn write(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..4].copy_from_slice(&self.client.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.number.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.sent.to_le_bytes());
        bytes[16..].copy_from_slice(&self.echoed.to_le_bytes());
        bytes
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let long = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        Some(Self { client: word(0)?, number: word(4)?, sent: long(8)?, echoed: long(16)? })
    }
}

/// An answer, and when the client had it.
type Answer = (Stamp, u64);

fn nanos(zero: Instant) -> u64 {
    u64::try_from(zero.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

fn between_ms(from: u64, to: u64) -> f64 {
    ms(Duration::from_nanos(to.saturating_sub(from)))
}

/// Many clients send to a server that echoes: loss and delay of both directions, and whether the
/// very packets are lost that the core says.
pub fn echo(size: Size, seed: u64) -> Result<Vec<Verdict>> {
    const DELAY: Duration = Duration::from_millis(50);
    const LOSS: f64 = 0.05;
    let link = LinkSpec { delay: DELAY, loss: LOSS, ..LinkSpec::default() };
    let testbed = testbed(link.clone(), size.clients, seed)?;
    let zero = testbed.restart();
    let (arrived, answered) = run_echo(&testbed, size, zero)?;

    let mut differ = 0;
    let (mut up_lost, mut down_lost) = (0, 0);
    for client in 0..size.clients {
        let arrived: Vec<_> = arrived.iter().filter(|stamp| stamp.client == client).collect();
        let numbers: BTreeSet<_> = arrived.iter().map(|stamp| stamp.number).collect();
        up_lost += size.packets as usize - numbers.len();
        let expected = predicted(&link, seed, client, Direction::Up, size.packets);
        differ += (0..size.packets)
            .filter(|number| numbers.contains(number) == expected.contains(number))
            .count();
        // Downwards the packets are numbered in the order in which they were echoed.
        let echoes = u32::try_from(arrived.len())?;
        let expected = predicted(&link, seed, client, Direction::Down, echoes);
        let answers: BTreeSet<_> = answered
            .iter()
            .filter(|(stamp, _)| stamp.client == client)
            .map(|(stamp, _)| stamp.number)
            .collect();
        down_lost += arrived.len() - answers.len();
        differ += (0..)
            .zip(&arrived)
            .filter(|(index, stamp)| answers.contains(&stamp.number) == expected.contains(index))
            .count();
    }
    let sent = f64::from(size.clients * size.packets);
    #[allow(clippy::cast_precision_loss)] // counts of packets
    let (up_share, echoes) = (up_lost as f64 / sent, arrived.len() as f64);
    #[allow(clippy::cast_precision_loss)] // counts of packets
    let down_share = down_lost as f64 / echoes;
    let sigma = |count: f64| (LOSS * (1.0 - LOSS) / count).sqrt();
    let up: Vec<_> = arrived.iter().map(|s| between_ms(s.sent, s.echoed)).collect();
    let down: Vec<_> = answered.iter().map(|(s, at)| between_ms(s.echoed, *at)).collect();
    let early = up.iter().chain(&down).filter(|delay| **delay < ms(DELAY)).count();
    let ((up, up_sigma), (down, down_sigma)) = (mean_and_sigma(&up), mean_and_sigma(&down));
    let counters = testbed.counters()?;
    let lateness = counters.testbed.late_ms;
    Ok(vec![
        Verdict::figure("real packets up, share lost", LOSS, up_share, sigma(sent)),
        Verdict::figure("real packets down, share lost", LOSS, down_share, sigma(echoes)),
        Verdict::never("real packets with another fate than predicted", differ),
        Verdict::never("real packets that arrive early", early),
        Verdict::timing("real packets up, mean delay, ms", ms(DELAY), up, up_sigma),
        Verdict::timing("real packets down, mean delay, ms", ms(DELAY), down, down_sigma),
        Verdict::timing(
            "handed over late, p50, ms (2% of the delay)",
            0.0,
            lateness.p50,
            1.0 / 3.0,
        ),
        Verdict::timing("handed over late, p99, ms", 0.0, lateness.p99, 1.0 / 3.0),
        Verdict::never(
            "lost by the testbed itself, or by a machine too busy",
            usize::try_from(
                counters.testbed.kernel_drops
                    + counters.testbed.socket_drops
                    + counters.total.up.lost.testbed.packets
                    + counters.total.down.lost.testbed.packets,
            )?,
        ),
    ])
}

/// Numbers of the packets that the core says are lost.
fn predicted(
    spec: &LinkSpec,
    seed: u64,
    client: u32,
    direction: Direction,
    packets: u32,
) -> BTreeSet<u32> {
    let mut link = Link::new(spec, seed, client, direction);
    let lost =
        |_: &u32| matches!(link.send(Duration::ZERO, Duration::ZERO, 52, |_| None), Fate::Lost(_));
    (0..packets).filter(lost).collect()
}

/// What the server got, in order, and what the clients got, with the time.
fn run_echo(testbed: &Testbed, size: Size, zero: Instant) -> Result<(Vec<Stamp>, Vec<Answer>)> {
    let server = server_socket(testbed, PORT)?;
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let echoes = scope.spawn(|| echo_until(&server, &over, zero));
        let answers = testbed.clients().run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(run_clients(testbed, size, zero))
        });
        over.store(true, Ordering::Release);
        let echoes = echoes.join().map_err(|_| anyhow!("the server panicked"))??;
        Ok((echoes, answers?))
    })
}

fn echo_until(socket: &UdpSocket, over: &AtomicBool, zero: Instant) -> Result<Vec<Stamp>> {
    socket.set_read_timeout(Some(Duration::from_millis(50)))?;
    let mut buffer = [0; 2048];
    let mut all = vec![];
    while !over.load(Ordering::Acquire) {
        let (bytes, from) = match socket.recv_from(&mut buffer) {
            Ok(received) => received,
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock) => continue,
            Err(e) => return Err(e).context("the server cannot receive"),
        };
        let stamp = Stamp::read(&buffer[..bytes]).context("a packet that nobody sent")?;
        let stamp = Stamp { echoed: nanos(zero), ..stamp };
        socket.send_to(&stamp.write(), from)?;
        all.push(stamp);
    }
    Ok(all)
}

async fn run_clients(testbed: &Testbed, size: Size, zero: Instant) -> Result<Vec<Answer>> {
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..size.clients {
        let socket = client_socket(testbed, client)?;
        socket.set_nonblocking(true)?;
        let socket = tokio::net::UdpSocket::from_std(socket)?;
        clients.spawn(run_client(socket, client, size, zero));
    }
    let mut all = vec![];
    while let Some(answers) = clients.join_next().await {
        all.extend(answers.context("a client panicked")??);
    }
    Ok(all)
}

async fn run_client(
    socket: tokio::net::UdpSocket,
    client: u32,
    size: Size,
    zero: Instant,
) -> Result<Vec<Answer>> {
    // Clients do not send in step.
    tokio::time::sleep(size.gap.mul_f64(f64::from(client) / f64::from(size.clients))).await;
    let mut ticks = tokio::time::interval(size.gap);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut buffer = [0; 2048];
    let mut answers = vec![];
    let mut number = 0;
    let rest = tokio::time::sleep(size.gap * size.packets + REST);
    tokio::pin!(rest);
    loop {
        tokio::select! {
            received = socket.recv_from(&mut buffer) => {
                let (bytes, _) = received?;
                let stamp = Stamp::read(&buffer[..bytes]).context("an answer to nothing")?;
                answers.push((stamp, nanos(zero)));
            }
            _ = ticks.tick(), if number < size.packets => {
                let stamp = Stamp { client, number, sent: nanos(zero), echoed: 0 };
                socket.send_to(&stamp.write(), (SERVER, PORT)).await?;
                number += 1;
            }
            () = &mut rest => return Ok(answers),
        }
    }
}

/// One client sends twice what its bottleneck carries.
pub fn flood(size: Size, seed: u64) -> Result<Vec<Verdict>> {
    const BYTES: usize = 1000;
    let rate = Rate(4e6);
    let queue = Duration::from_millis(200);
    let bottleneck = Some(Bottleneck { rate, queue: Queue::Time(queue) });
    let delay = Duration::from_millis(50);
    let testbed = testbed(LinkSpec { delay, bottleneck, ..LinkSpec::default() }, 1, seed)?;
    let server = server_socket(&testbed, PORT)?;
    let client = client_socket(&testbed, 0)?;
    let zero = testbed.restart();
    let over = AtomicBool::new(false);
    let arrived = thread::scope(|scope| {
        let receiver = scope.spawn(|| echo_until(&server, &over, zero));
        let gap = rate.time_of(BYTES as u64) / 2;
        let mut packet = [0; BYTES - 28]; // the rest are headers
        let mut number = 0;
        while zero.elapsed() < size.flood {
            let stamp = Stamp { client: 0, number, sent: nanos(zero), echoed: 0 };
            packet[..Stamp::BYTES].copy_from_slice(&stamp.write());
            client.send_to(&packet, (SERVER, PORT))?;
            number += 1;
            thread::sleep((gap * number).saturating_sub(zero.elapsed()));
        }
        thread::sleep(REST);
        over.store(true, Ordering::Release);
        receiver.join().map_err(|_| anyhow!("the server panicked"))?
    })?;
    // Once the queue is full, and as long as it is.
    let full: Vec<_> = arrived
        .iter()
        .filter(|stamp| {
            let at = Duration::from_nanos(stamp.sent);
            at > size.flood / 4 && at < size.flood
        })
        .collect();
    let (Some(first), Some(last)) = (full.first(), full.last()) else {
        return Ok(vec![Verdict::never("nothing arrives through a bottleneck", 1)]);
    };
    let seconds = between_ms(first.echoed, last.echoed) / 1000.0;
    #[allow(clippy::cast_precision_loss)] // counts of packets
    let measured = (full.len() - 1) as f64 * BYTES as f64 * 8.0 / seconds / 1e6;
    let mut delays: Vec<_> = full.iter().map(|s| between_ms(s.sent, s.echoed)).collect();
    delays.sort_by(f64::total_cmp);
    let median = delays[delays.len() / 2];
    Ok(vec![
        Verdict::timing("real packets, rate of a bottleneck, Mbit/s", rate.0 / 1e6, measured, 0.0),
        Verdict::timing("real packets, delay by a full queue, ms", ms(delay + queue), median, 0.0),
    ])
}
