//! The thread between the two namespaces: reads packets, asks what becomes of each, and hands them
//! over when they arrive.
//!
//! One thread for everything: on a machine of two cores a second one would take time from what is
//! measured, and there is no order to lose between threads.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    io,
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use nix::{
    poll::{PollFd, PollFlags, ppoll},
    sys::{
        eventfd::{EfdFlags, EventFd},
        time::TimeSpec,
    },
};
use parking_lot::Mutex;
use thread_priority::{
    RealtimeThreadSchedulePolicy, ScheduleParams, ThreadPriority, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id,
};

use super::{
    device::{Device, MTU},
    draw::Direction,
    link::Fate,
    nat::client_of,
    packet::Headers,
    path::Path,
};

/// Packets that are on their way at a time: 200 clients at 1.5 Mbit/s each way in packets of 100
/// bytes for a second. Beyond it packets are lost for the cause "testbed".
const MAX_ON_THE_WAY: usize = 750_000;

/// Packets read from one device before the others get their turn.
const BATCH: usize = 64;

/// The least time between two looks, as network cards moderate their interrupts: with a thread woken for each of
/// 20,000 packets a second, and waking another for each, two cores do little else. Where packets are few nothing
/// waits for it.
const MODERATION: Duration = Duration::from_micros(200);

/// Buffers kept for the next packets.
const MAX_SPARE: usize = 16_384;

/// What commands and the forwarder share.
pub struct Shared {
    /// The clock's zero.
    pub started: Instant,
    /// One for each client.
    pub paths: Vec<Path>,
    /// How much later than due packets were handed over, in microseconds.
    pub lateness_us: Histogram<u64>,
    /// Packets that are not UDP or TCP over IPv4, or of no client.
    pub ignored: u64,
    /// Packets on their way now.
    pub on_the_way: usize,
}

impl Shared {
    /// Time since the start.
    pub fn now(&self) -> Duration {
        self.started.elapsed()
    }
}

/// The running thread; it ends when dropped.
pub struct Forwarder {
    stop: Arc<AtomicBool>,
    wake: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
    shared: Arc<Mutex<Shared>>,
}

impl Forwarder {
    /// Starts forwarding between the clients' device and the server's.
    pub fn start(paths: Vec<Path>, clients: Device, server: Device) -> Result<Self> {
        let lateness_us = Histogram::new_with_bounds(1, 60_000_000, 3).context("bounds")?;
        let shared = Arc::new(Mutex::new(Shared {
            started: Instant::now(),
            paths,
            lateness_us,
            ignored: 0,
            on_the_way: 0,
        }));
        let wake = EventFd::from_flags(EfdFlags::EFD_NONBLOCK).context("no eventfd")?;
        let (wake, stop) = (Arc::new(wake), Arc::new(AtomicBool::new(false)));
        let mut work = Work {
            clients,
            server,
            shared: shared.clone(),
            started: shared.lock().started,
            queue: BinaryHeap::new(),
            spare: vec![],
            next: 0,
            wake: wake.clone(),
            stop: stop.clone(),
        };
        let thread = thread::Builder::new()
            .name("weaknet-link".to_owned())
            .spawn(move || {
                prepare_thread();
                if let Err(error) = work.run() {
                    tracing::error!("the emulated link broke: {error:#}");
                }
            })
            .context("cannot start the forwarder")?;
        Ok(Self { stop, wake, thread: Some(thread), shared })
    }

    /// Runs something on what is shared with the forwarder; it stands still meanwhile.
    pub fn with<T>(&self, work: impl FnOnce(&mut Shared) -> T) -> T {
        work(&mut self.shared.lock())
    }

    /// Whether it still forwards.
    pub fn is_running(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        let _ = self.wake.write(1); // a full counter wakes as well
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // its panic has been printed
        }
    }
}

/// A link that is late is measured as a bad network, so its thread goes before everything else. It
/// sleeps most of the time.
fn prepare_thread() {
    if let Err(error) = nix::sys::prctl::set_timerslack(1) {
        tracing::warn!("timers may be 50 us late: {error}");
    }
    let real_time = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::Fifo);
    let priority = ThreadPriority::from_posix(ScheduleParams { sched_priority: 1 });
    // Refused in a user namespace; how late packets were is in the report either way.
    if let Err(error) = set_thread_priority_and_policy(thread_native_id(), priority, real_time) {
        tracing::info!("the emulated link shares the machine with everything else: {error}");
    }
}

/// A packet on its way.
struct InFlight {
    arrives: Duration,
    /// Those that arrive at one moment keep their order.
    number: u64,
    direction: Direction,
    client: u32,
    /// A copy is not counted.
    copy: bool,
    packet: Vec<u8>,
}

impl PartialEq for InFlight {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for InFlight {}

impl PartialOrd for InFlight {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for InFlight {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.arrives, self.number).cmp(&(other.arrives, other.number))
    }
}

struct Work {
    clients: Device,
    server: Device,
    shared: Arc<Mutex<Shared>>,
    started: Instant,
    queue: BinaryHeap<Reverse<InFlight>>,
    spare: Vec<Vec<u8>>,
    next: u64,
    wake: Arc<EventFd>,
    stop: Arc<AtomicBool>,
}

impl Work {
    fn run(&mut self) -> Result<()> {
        while !self.stop.load(Ordering::Acquire) {
            let looked = self.started.elapsed();
            let more = {
                let shared = self.shared.clone();
                let mut shared = shared.lock();
                // What is due goes first: it has waited.
                self.deliver(&mut shared);
                let up = self.take(&mut shared, Direction::Up)?;
                let down = self.take(&mut shared, Direction::Down)?;
                self.deliver(&mut shared);
                shared.on_the_way = self.queue.len();
                up || down
            };
            if !more {
                self.wait(looked + MODERATION)?;
            }
        }
        Ok(())
    }

    /// Reads a batch of packets; whether there may be more.
    fn take(&mut self, shared: &mut Shared, direction: Direction) -> Result<bool> {
        for _ in 0..BATCH {
            let mut packet = self.spare.pop().unwrap_or_default();
            packet.resize(usize::from(MTU), 0);
            let device = match direction {
                Direction::Up => &self.clients,
                Direction::Down => &self.server,
            };
            let Some(bytes) = device.receive(&mut packet).context("cannot read packets")? else {
                self.recycle(packet);
                return Ok(false);
            };
            packet.truncate(bytes);
            self.put_on_its_way(shared, direction, packet);
        }
        Ok(true)
    }

    fn put_on_its_way(&mut self, shared: &mut Shared, direction: Direction, mut packet: Vec<u8>) {
        let now = self.started.elapsed();
        let found = Headers::read(&packet).and_then(|headers| {
            let (address, _) = match direction {
                Direction::Up => headers.source,
                Direction::Down => headers.destination,
            };
            Some((headers, client_of(address)?))
        });
        let path = found.and_then(|(headers, client)| {
            Some((headers, client, shared.paths.get_mut(usize::try_from(client).ok()?)?))
        });
        let Some((mut headers, client, path)) = path else {
            shared.ignored += 1;
            return self.recycle(packet);
        };
        let fate = match direction {
            Direction::Up => path.up(now, &mut headers, &mut packet),
            Direction::Down => path.down(now, &packet),
        };
        let Fate::Arrives { at, copy } = fate else { return self.recycle(packet) };
        if self.queue.len() >= MAX_ON_THE_WAY {
            path.failed(direction, packet.len() as u64);
            return self.recycle(packet);
        }
        if let Some(at) = copy {
            let copy = packet.clone();
            self.push(InFlight {
                arrives: at,
                number: 0,
                direction,
                client,
                copy: true,
                packet: copy,
            });
        }
        self.push(InFlight { arrives: at, number: 0, direction, client, copy: false, packet });
    }

    fn push(&mut self, in_flight: InFlight) {
        self.next += 1;
        self.queue.push(Reverse(InFlight { number: self.next, ..in_flight }));
    }

    /// Hands over what is due.
    fn deliver(&mut self, shared: &mut Shared) {
        loop {
            let now = self.started.elapsed();
            if self.queue.peek().is_none_or(|Reverse(first)| first.arrives > now) {
                return;
            }
            let Some(Reverse(mut in_flight)) = self.queue.pop() else { return };
            let late = now.saturating_sub(in_flight.arrives).as_micros();
            shared.lateness_us.saturating_record(u64::try_from(late).unwrap_or(u64::MAX));
            self.hand_over(shared, &mut in_flight, now);
            self.recycle(in_flight.packet);
        }
    }

    fn hand_over(&self, shared: &mut Shared, in_flight: &mut InFlight, now: Duration) {
        let InFlight { direction, client, copy, packet, .. } = in_flight;
        let Some(path) = usize::try_from(*client).ok().and_then(|i| shared.paths.get_mut(i)) else {
            return;
        };
        let sent = match direction {
            Direction::Up => self.server.send(packet),
            Direction::Down if path.arrive_down(now, packet, *copy) => self.clients.send(packet),
            Direction::Down => Ok(()),
        };
        match sent {
            Ok(()) if *direction == Direction::Up && !*copy => path.arrive_up(packet),
            Ok(()) => {}
            Err(error) => {
                tracing::warn!("a packet could not be handed over: {error}");
                path.failed(*direction, packet.len() as u64);
            }
        }
    }

    fn recycle(&mut self, packet: Vec<u8>) {
        if self.spare.len() < MAX_SPARE {
            self.spare.push(packet);
        }
    }

    /// Waits for a packet to read or one that is due, and until it is time to look again.
    fn wait(&self, again: Duration) -> Result<()> {
        let rest = again.saturating_sub(self.started.elapsed());
        if !rest.is_zero() {
            thread::sleep(rest);
        }
        let due = self.queue.peek().map(|Reverse(first)| {
            TimeSpec::from_duration(first.arrives.saturating_sub(self.started.elapsed()))
        });
        let readable = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let mut fds = [
            readable(self.clients.as_fd()),
            readable(self.server.as_fd()),
            readable(self.wake.as_fd()),
        ];
        match ppoll(&mut fds, due, None) {
            Ok(_) | Err(nix::Error::EINTR) => Ok(()),
            Err(error) => Err(io::Error::from(error)).context("cannot wait for packets"),
        }
    }
}
