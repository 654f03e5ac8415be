//! One shard: the task that owns its rooms.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    sync::Arc,
    time::{Duration, SystemTime},
};

use edgeway_proto::{Class, Seq, Text, rooms};
use tokio::{sync::mpsc, time::Instant};

use super::{
    behind::Behind,
    commit::Commits,
    listing::Listings,
    load::Waiting,
    metrics::level,
    outbox::Outbox,
    owner::{Access, Shared},
    queue::Receiver,
    requests::Reading,
    strokes::{Asks, EarlyRoutes},
};
use crate::{
    directory::Listing,
    events,
    room::{Effects, Event, Loaded, Notes, Now, Room, RoomConfig, SessionId},
    store::StoreError,
};

/// What comes into a shard.
#[derive(Debug)]
pub(super) enum Input {
    /// An access link begins. First on the control queue of every shard.
    Attached(Arc<Access>),
    /// An access link ended.
    AccessGone(u64),
    /// A gateway's link ended.
    GatewayGone(u64),
    /// Who owns what has changed.
    Ring,
    /// A gateway's link begins.
    GatewayCame(u64),
    Join {
        group: u64,
        /// Boxed: there are few, and it is larger than all else.
        join: Box<crate::room::Join>,
    },
    /// From the system, by a link.
    Push {
        group: u64,
        link: u64,
        push: rooms::Push,
    },
    Leave {
        access: u64,
        session: SessionId,
        request: u64,
        group: u64,
    },
    Frames {
        session: SessionId,
        group: u64,
        frames: bytes::Bytes,
    },
    /// For an owner of strokes.
    Strokes(rooms::Strokes),
    Ask(u64, rooms::Ask),
    Route(u64, rooms::Route),
    /// From an owner of strokes.
    Answer(rooms::Answer),
    /// An owner of strokes can be reached again, or cannot any more.
    StrokesReached(u64),
    StrokesLost(u64),
    /// Groups' strokes have other owners.
    StrokesMoved,
}

/// What was done beside the shard.
#[derive(Debug)]
pub(super) enum Done {
    Loaded {
        group: u64,
        result: Result<Loaded, StoreError>,
    },
    Committed {
        result: Result<(), StoreError>,
        took: Duration,
    },
    Behind(Result<(), StoreError>),
    PageSent {
        session: SessionId,
        group: u64,
    },
    /// These rooms have been sealed by others.
    Sealed(Vec<u64>),
    /// What the store knows of the strokes, for a join.
    LookedUp {
        ask: u64,
        result: Result<(Seq, u64), StoreError>,
    },
    /// The directory asks for all of a room.
    Asked {
        group: u64,
        epoch: u64,
    },
}

pub(super) enum Slot {
    Loading(Waiting),
    Open(Box<OpenRoom>),
}

pub(super) struct OpenRoom {
    pub(super) room: Room,
    pub(super) name: Text,
    /// It is another owner's: until when it may take to be handed over.
    pub(super) moving: Option<Duration>,
    /// Its listing in the directory, once anybody has come.
    pub(super) listing: Option<Listing>,
    /// It is among those that have something to store, or in the commit that is under way.
    pub(super) committing: bool,
    /// When it is woken next. Timers for other times are left over from before.
    pub(super) wake: Option<Duration>,
}

/// Inputs that are taken in one go, before their effects go out.
const INPUTS_A_WAKE: usize = 1024;

pub(super) struct Shard {
    pub(super) shared: Arc<Shared>,
    pub(super) metrics: Arc<super::metrics::Metrics>,
    pub(super) rooms: HashMap<u64, Slot>,
    /// As it was at the last wake.
    pub(super) room_config: Arc<RoomConfig>,
    pub(super) accesses: HashMap<u64, Arc<Access>>,
    pub(super) reading: Reading,
    pub(super) asks: Asks,
    pub(super) early_routes: EarlyRoutes,
    pub(super) out: Outbox,
    pub(super) commits: Commits,
    pub(super) behind: Behind,
    pub(super) timers: BinaryHeap<Reverse<(Duration, u64)>>,
    pub(super) fx: Effects,
    /// Rooms that are being handed over.
    pub(super) moving: Vec<u64>,
    /// Rooms as they were counted last.
    pub(super) counted: usize,
    /// How often the lease was lost, as far as this shard has looked into it.
    pub(super) losses: u64,
    pub(super) listings: Option<Listings>,
    /// Bytes that wait for the store, over all rooms.
    pub(super) pending_bytes: usize,
    pub(super) now: Now,
    start: Instant,
    /// The one that speaks for all.
    pub(super) first: bool,
    pub(super) done_tx: mpsc::UnboundedSender<Done>,
    done: mpsc::UnboundedReceiver<Done>,
    control: Receiver<Input>,
    bulk: Receiver<Input>,
}

pub(super) fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl Shard {
    pub(super) fn new(
        shared: Arc<Shared>,
        index: usize,
        control: Receiver<Input>,
        bulk: Receiver<Input>,
    ) -> Self {
        let config = &shared.config;
        let (done_tx, done) = mpsc::unbounded_channel();
        let listings = Listings::new(shared.kind, shared.recorder.as_ref(), &done_tx);
        let mut fx = Effects::noting(Notes::new(events::wanted(&config.events, shared.kind)));
        fx.moves.wanted = listings.is_some();
        Self {
            metrics: Arc::new(super::metrics::Metrics::new(shared.kind, index)),
            rooms: HashMap::new(),
            room_config: shared.live.room(),
            accesses: HashMap::new(),
            reading: Reading::new(),
            asks: Asks::default(),
            early_routes: EarlyRoutes::default(),
            out: Outbox::new(shared.gateways.clone()),
            commits: Commits::default(),
            behind: Behind::new(
                config.chat_append_bytes,
                config.commit_bytes,
                config.chat_append_interval,
            ),
            timers: BinaryHeap::new(),
            fx,
            listings,
            moving: Vec::new(),
            counted: 0,
            losses: 0,
            pending_bytes: 0,
            now: Now { since_start: Duration::ZERO, wall_ms: wall_ms() },
            start: Instant::now(),
            first: index == 0,
            done_tx,
            done,
            control,
            bulk,
            shared,
        }
    }

    /// Runs until cancelled, or until nobody is left who could send.
    pub(super) async fn run(mut self) {
        let cancel = self.shared.cancel.clone();
        let mut inputs = Vec::new();
        let mut end = None;
        while end.is_none_or(|end| self.now.since_start < end && !self.is_drained()) {
            let wake = [self.next_due(), end].into_iter().flatten().min();
            let wake = self.start + wake.unwrap_or(Duration::from_secs(3600));
            let mut done = None;
            let mut closed = false;
            tokio::select! {
                biased;
                () = cancel.cancelled(), if end.is_none() => closed = true,
                result = self.done.recv() => done = result,
                input = self.control.recv(), if end.is_none() || !self.control.is_empty() => {
                    closed = input.is_none();
                    inputs.extend(input);
                }
                input = self.bulk.recv(), if end.is_none() || !self.bulk.is_empty() => {
                    closed = input.is_none();
                    inputs.extend(input);
                }
                () = tokio::time::sleep_until(wake) => {}
            }
            self.reassure().await;
            let since_start = self.start.elapsed();
            self.now = Now { since_start, wall_ms: wall_ms() };
            if closed && end.is_none() {
                end = Some(since_start + self.shared.config.drain);
            }
            self.wake(done, &mut inputs);
        }
        self.leave_all();
    }

    /// Takes what is there, and sends what follows from it, once.
    fn wake(&mut self, mut done: Option<Done>, inputs: &mut Vec<Input>) {
        self.room_config = self.shared.live.room();
        while let Some(result) = done {
            self.done(result);
            done = self.done.try_recv().ok();
        }
        while inputs.len() < INPUTS_A_WAKE
            && let Some(input) = self.control.try_recv()
        {
            inputs.push(input);
        }
        // A budget of their own: a flood of control does not starve them, only goes first.
        let most = inputs.len() + INPUTS_A_WAKE;
        while inputs.len() < most
            && let Some(input) = self.bulk.try_recv()
        {
            inputs.push(input);
        }
        for input in inputs.drain(..) {
            self.input(input);
        }
        self.tick();
        self.give_up_asks();
        self.hand_over();
        self.start_commit();
        self.start_behind();
        self.out.flush();
        self.report();
    }

    /// Wakes the rooms whose time has come, and unloads those that nobody needs.
    fn tick(&mut self) {
        while let Some(Reverse((due, group))) = self.timers.peek().copied() {
            if due > self.now.since_start {
                break;
            }
            self.timers.pop();
            match self.rooms.get_mut(&group) {
                Some(Slot::Open(open)) if open.wake == Some(due) => open.wake = None,
                _ => continue,
            }
            self.apply(group, Event::Tick);
            if let Some(Slot::Open(open)) = self.rooms.get(&group)
                && !open.committing
                && open.room.is_idle(self.now)
            {
                self.rooms.remove(&group);
            }
        }
    }

    fn next_due(&self) -> Option<Duration> {
        let timer = self.timers.peek().map(|Reverse((due, _))| *due);
        let rooms = [timer, self.commits.due(), self.behind.due()];
        let others = [self.handover_due(), self.asks.due()];
        rooms.into_iter().chain(others).flatten().min()
    }

    /// Nothing is left that a client was or will be told is stored.
    fn is_drained(&self) -> bool {
        self.pending_bytes == 0
            && self.commits.is_empty()
            && self.behind.is_empty()
            && self.control.is_empty()
            && self.bulk.is_empty()
    }

    fn report(&mut self) {
        self.metrics.add(std::mem::take(&mut self.fx.counts));
        self.metrics.rooms.set(level(self.rooms.len()));
        self.count_rooms();
        self.metrics.control_bytes.set(level(self.control.bytes()));
        self.metrics.bulk_bytes.set(level(self.bulk.bytes()));
        self.metrics.pending_bytes.set(level(self.pending_bytes));
        self.metrics.unstored_bytes.set(level(self.behind.bytes()));
        self.metrics.early_routes.set(level(self.early_routes.count(self.now.since_start)));
    }

    fn done(&mut self, done: Done) {
        match done {
            Done::Loaded { group, result } => self.loaded(group, result),
            Done::Committed { result, took } => {
                self.metrics.append_seconds.record(took);
                self.committed(result);
            }
            Done::PageSent { session, group } => self.page_sent(session, group),
            Done::Behind(result) => self.behind_done(result),
            Done::Sealed(groups) => groups.into_iter().for_each(|group| self.fence(group)),
            Done::LookedUp { ask, result } => self.looked_up(ask, result),
            Done::Asked { group, epoch } => self.asked(group, epoch),
        }
    }

    /// The classes that are stored before they are published.
    pub(super) const STORED_FIRST: [Class; 2] = [Class::Signal, Class::Binary];
}
