//! What the handles of a client and its tasks share.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use edgeway_proto::{CloseCode, Lane, RawFrame};
use edgeway_transport::{Stop, Transport};
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};

use crate::{
    Stats,
    core::{Core, CoreConfig, Write},
    queue::Queue,
    renew::LoginState,
    signs::Signs,
};

/// What a reader gives on.
#[derive(Debug)]
pub(crate) enum Incoming {
    Frame(Lane, RawFrame),
    Ended(Lane),
}

/// One client.
pub(crate) struct Shared {
    core: Mutex<Core>,
    pub(crate) queue: Queue,
    /// Told when there may be something to write.
    pub(crate) write: Notify,
    /// Told when who reconnects has something to do.
    pub(crate) control: Notify,
    /// Bytes of signals and strokes that may still wait for their acks.
    pub(crate) permits: Arc<Semaphore>,
    pub(crate) permits_max: usize,
    pub(crate) signs: Signs,
    rtt_us: AtomicU64,
    server_idle_ms: AtomicU64,
    asked: Mutex<Asked>,
    pub(crate) login: Mutex<LoginState>,
    pub(crate) over: Notify,
}

/// What the app asks of the connection as a whole.
#[derive(Debug, Default)]
struct Asked {
    close: bool,
    reconnect: bool,
    /// The network has changed.
    moved: bool,
    transport: Option<Transport>,
    user: String,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shared")
    }
}

impl Shared {
    pub(crate) fn new(config: CoreConfig, unacked_bytes: usize) -> Self {
        let permits_max =
            unacked_bytes.clamp(crate::config::UNACKED_MIN_BYTES, Semaphore::MAX_PERMITS);
        Self {
            core: Mutex::new(Core::new(config)),
            queue: Queue::default(),
            write: Notify::new(),
            control: Notify::new(),
            permits: Arc::new(Semaphore::new(permits_max)),
            permits_max,
            signs: Signs::default(),
            rtt_us: AtomicU64::new(0),
            // Where nothing is said (WIRE.md, "Hello").
            server_idle_ms: AtomicU64::new(60_000),
            asked: Mutex::new(Asked::default()),
            login: Mutex::new(LoginState::default()),
            over: Notify::new(),
        }
    }

    /// Works on what was read, and passes on what came of it: one lock each, however much it is.
    pub(crate) fn receive(&self, batch: &mut Vec<Incoming>) -> Result<(), Stop> {
        let now = Instant::now();
        self.signs.heard(now);
        let mut result = Ok(());
        let mut core = self.core.lock();
        for incoming in batch.drain(..) {
            match incoming {
                Incoming::Frame(lane, frame) if result.is_ok() => {
                    result = core.frame(lane, &frame, now);
                }
                Incoming::Frame(..) => {}
                Incoming::Ended(lane) => core.lane_ended(lane, now),
            }
        }
        let passed = self.pass_on(&mut core);
        let going = core.going_away_pending();
        let write = core.wants_write() || core.next_timeout().is_some();
        drop(core);
        if write || matches!(passed, Ok(true)) {
            self.write.notify_one();
        }
        if going {
            self.control.notify_one();
        }
        result.and(passed.map(|_| ()))
    }

    /// Gives events to the app's queue. The core stays locked, so that their order stays.
    fn pass_on(&self, core: &mut Core) -> Result<bool, Stop> {
        if core.arrived.is_empty() { Ok(false) } else { self.queue.push(&mut core.arrived) }
    }

    /// Works on the core, passes on what came of it, and wakes the writer where it has work.
    pub(crate) fn with<T>(&self, work: impl FnOnce(&mut Core) -> T) -> T {
        let mut core = self.core.lock();
        let result = work(&mut core);
        let grants = self.pass_on(&mut core).unwrap_or(false);
        let write = core.wants_write() || core.next_timeout().is_some();
        drop(core);
        if write || grants {
            self.write.notify_one();
        }
        result
    }

    /// What the writer does next, and when it is to look again without being told. `low` is false while
    /// strokes and chat are held back.
    pub(crate) fn next_write(&self, low: bool) -> (Option<Write>, Option<Instant>) {
        let mut core = self.core.lock();
        let now = Instant::now();
        if core.next_timeout().is_some_and(|at| at <= now) {
            core.timeout(now);
            // An error would be the peer's: a timer has none.
            let _ = self.pass_on(&mut core);
        }
        self.queue.grants(|lane, total| core.grant(lane, total));
        let write = core.next_write(now, low);
        if let Some(Write::Finish(session)) = write {
            self.queue.close(session);
        }
        (write, core.next_timeout())
    }

    pub(crate) fn stats(&self) -> Stats {
        let mut stats = self.core.lock().stats;
        stats.unacked_bytes = (self.permits_max - self.permits.available_permits()) as u64;
        stats.queued_event_bytes = self.queue.bytes();
        stats
    }

    pub(crate) fn set_rtt(&self, rtt: Duration) {
        let us = u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX).max(1);
        self.rtt_us.store(us, Ordering::Relaxed);
    }

    pub(crate) fn rtt(&self) -> Option<Duration> {
        match self.rtt_us.load(Ordering::Relaxed) {
            0 => None,
            us => Some(Duration::from_micros(us)),
        }
    }

    /// After how long a silence the gateway gives up.
    pub(crate) fn set_server_idle(&self, idle: Duration) {
        let ms = u64::try_from(idle.as_millis()).unwrap_or(u64::MAX);
        self.server_idle_ms.store(ms, Ordering::Relaxed);
    }

    pub(crate) fn server_idle(&self) -> Duration {
        Duration::from_millis(self.server_idle_ms.load(Ordering::Relaxed))
    }

    pub(crate) fn ask_close(&self) {
        self.asked.lock().close = true;
        self.control.notify_one();
    }

    pub(crate) fn ask_reconnect(&self) {
        self.asked.lock().reconnect = true;
        self.control.notify_one();
    }

    pub(crate) fn ask_move(&self) {
        self.asked.lock().moved = true;
        self.control.notify_one();
    }

    pub(crate) fn take_move(&self) -> bool {
        std::mem::take(&mut self.asked.lock().moved)
    }

    pub(crate) fn close_asked(&self) -> bool {
        self.asked.lock().close
    }

    pub(crate) fn take_reconnect(&self) -> bool {
        std::mem::take(&mut self.asked.lock().reconnect)
    }

    pub(crate) fn set_connection(&self, transport: Option<Transport>, user: Option<&str>) {
        let mut asked = self.asked.lock();
        asked.transport = transport;
        if let Some(user) = user {
            user.clone_into(&mut asked.user);
        }
    }

    pub(crate) fn transport(&self) -> Option<Transport> {
        self.asked.lock().transport
    }

    pub(crate) fn user(&self) -> String {
        self.asked.lock().user.clone()
    }

    /// The client is over.
    pub(crate) fn finished(&self, code: CloseCode, reason: String) {
        self.with(|core| core.close(code, reason));
        self.permits.close();
        self.queue.end();
        self.over.notify_waiters();
    }
}
