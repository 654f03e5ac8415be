//! Work of the least priority that has nothing to do with the server: what a machine's busy cores cost by
//! themselves, whoever keeps them busy.

use std::{
    io,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::Duration,
};

use nix::time::{ClockId, clock_gettime};
use parking_lot::Mutex;
use thread_priority::{
    NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id,
};

/// Threads that count to nothing, and end with this.
pub struct Busy {
    turns: Sender<Duration>,
}

impl Busy {
    /// Starts as many threads.
    pub fn start(threads: usize) -> io::Result<Self> {
        let (turns, receiver) = channel();
        let receiver = Arc::new(Mutex::new(receiver));
        for n in 0..threads {
            let receiver = Arc::clone(&receiver);
            thread::Builder::new().name(format!("busy-{n}")).spawn(move || work(&receiver))?;
        }
        Ok(Self { turns })
    }

    /// Takes so much time of a core, when one is free.
    pub fn take(&self, time: Duration) {
        let _ = self.turns.send(time); // the threads end after this
    }
}

/// Time that this thread has had.
pub fn used() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from).unwrap_or_default()
}

fn work(turns: &Mutex<Receiver<Duration>>) {
    let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
    if let Err(error) =
        set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, idle)
    {
        tracing::warn!("busy with the priority of all others: {error}");
    }
    loop {
        let turn = turns.lock().recv();
        let Ok(time) = turn else { return };
        let end = used() + time;
        while used() < end {
            for n in 0..10_000_u32 {
                std::hint::black_box(n);
            }
        }
    }
}
