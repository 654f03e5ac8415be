//! What was recorded and not written yet. Recording never waits; at the bound what comes is dropped.

use std::{
    collections::VecDeque,
    time::{Duration, SystemTime},
};

use parking_lot::{Condvar, Mutex};

use crate::Event;

/// An event with its number and the time.
#[derive(Debug)]
pub(crate) struct Recorded {
    /// Counts all that this run has recorded, from 1; a hole is what was dropped here.
    pub(crate) number: u64,
    /// Milliseconds since 1970.
    pub(crate) at_ms: u64,
    pub(crate) event: Event,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Queue {
    state: Mutex<State>,
    ready: Condvar,
    max_bytes: usize,
}

#[derive(Debug, Default)]
struct State {
    events: VecDeque<Recorded>,
    bytes: usize,
    last: u64,
    stopped: bool,
    /// The writer sleeps, and must be woken.
    waiting: bool,
}

/// Why an event is not in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotTaken {
    Full,
    Stopped,
}

pub(crate) fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl Queue {
    pub(crate) fn new(max_bytes: usize) -> Self {
        Self { state: Mutex::default(), ready: Condvar::new(), max_bytes }
    }

    pub(crate) fn push(&self, event: Event) -> Result<(), NotTaken> {
        let (bytes, at_ms) = (event.bytes(), wall_ms());
        let mut state = self.state.lock();
        if state.stopped {
            return Err(NotTaken::Stopped);
        }
        state.last += 1;
        if state.bytes + bytes > self.max_bytes {
            return Err(NotTaken::Full);
        }
        let number = state.last;
        state.bytes += bytes;
        state.events.push_back(Recorded { number, at_ms, event });
        if state.waiting {
            state.waiting = false;
            self.ready.notify_one();
        }
        Ok(())
    }

    /// Takes some, of about so many bytes; waits for the first one for so long. `true` with them: no more
    /// will come.
    pub(crate) fn take(&self, max_bytes: usize, wait: Duration) -> (Vec<Recorded>, bool) {
        let mut state = self.state.lock();
        if state.events.is_empty() && !state.stopped && !wait.is_zero() {
            state.waiting = true;
            self.ready.wait_for(&mut state, wait);
            state.waiting = false;
        }
        let (mut taken, mut bytes) = (Vec::new(), 0);
        while bytes < max_bytes
            && let Some(recorded) = state.events.pop_front()
        {
            bytes += recorded.event.bytes();
            taken.push(recorded);
        }
        state.bytes -= bytes;
        (taken, state.stopped && state.events.is_empty())
    }

    pub(crate) fn bytes(&self) -> usize {
        self.state.lock().bytes
    }

    pub(crate) fn stop(&self) {
        self.state.lock().stopped = true;
        self.ready.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::What;

    fn event(user: &str) -> Event {
        Event { user: user.to_owned(), what: What::Online { device: "d".to_owned() } }
    }

    #[test]
    fn at_the_bound_what_comes_is_dropped_and_leaves_a_hole_in_the_numbers() {
        let queue = Queue::new(event("a").bytes() * 2);
        assert_eq!(queue.push(event("a")), Ok(()));
        assert_eq!(queue.push(event("b")), Ok(()));
        assert_eq!(queue.push(event("c")), Err(NotTaken::Full));
        let (taken, _) = queue.take(1, Duration::ZERO);
        assert_eq!(taken.len(), 1, "some at a time");
        assert_eq!(queue.push(event("d")), Ok(()));
        let (taken, last) = queue.take(usize::MAX, Duration::ZERO);
        let got: Vec<_> = taken.iter().map(|r| (r.number, r.event.user.as_str())).collect();
        assert_eq!((got, last), (vec![(2, "b"), (4, "d")], false));
        assert_eq!(queue.bytes(), 0);
    }

    #[test]
    fn what_was_recorded_before_the_stop_is_given_out_and_nothing_is_taken_after_it() {
        let queue = Queue::new(1 << 20);
        queue.push(event("a")).unwrap();
        queue.stop();
        assert_eq!(queue.push(event("b")), Err(NotTaken::Stopped));
        let (taken, last) = queue.take(1 << 20, Duration::from_secs(3600));
        assert_eq!((taken.len(), last), (1, true));
    }

    #[test]
    fn the_writer_is_woken() {
        let queue = std::sync::Arc::new(Queue::new(1 << 20));
        let writer = std::sync::Arc::clone(&queue);
        let thread =
            std::thread::spawn(move || writer.take(1 << 20, Duration::from_secs(3600)).0.len());
        while !queue.state.lock().waiting {
            std::thread::yield_now();
        }
        queue.push(event("a")).unwrap();
        assert_eq!(thread.join().unwrap(), 1);
    }
}
