//! Which events are on their way to Kafka. Pure.

use std::collections::VecDeque;

/// What may be on its way at a time: Kafka's client holds it in memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) events: usize,
    pub(crate) bytes: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Window {
    limits: Limits,
    /// Below this all are delivered.
    start: u64,
    /// From `start` on.
    slots: VecDeque<Slot>,
    /// The next one to send; below it none waits.
    next: u64,
    in_flight: usize,
    bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot {
    Waiting,
    /// With its time and bytes.
    InFlight(u64, u64),
    Done,
}

impl Window {
    pub(crate) fn new(start: u64, limits: Limits) -> Self {
        Self { limits, start, slots: VecDeque::new(), next: start, in_flight: 0, bytes: 0 }
    }

    /// Below this all are delivered.
    pub(crate) const fn start(&self) -> u64 {
        self.start
    }

    /// The next one to send.
    pub(crate) const fn next(&self) -> u64 {
        self.next
    }

    pub(crate) const fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Whether one more may be on its way.
    pub(crate) const fn has_room(&self) -> bool {
        self.in_flight < self.limits.events && self.bytes < self.limits.bytes
    }

    /// The next one is sent.
    pub(crate) fn sent(&mut self, at_ms: u64, bytes: u64) {
        self.set(self.next, Slot::InFlight(at_ms, bytes));
        self.in_flight += 1;
        self.bytes += bytes;
        self.skip();
    }

    /// The next ones, up to a position, will not be sent.
    pub(crate) fn give_up_to(&mut self, position: u64) {
        while self.next < position {
            self.set(self.next, Slot::Done);
            self.skip();
        }
        self.advance();
    }

    /// One is delivered, or given up; the time at which it was recorded where it was on its way.
    pub(crate) fn done(&mut self, position: u64) -> Option<u64> {
        let slot = self.slot(position)?;
        let Slot::InFlight(at_ms, bytes) = std::mem::replace(slot, Slot::Done) else { return None };
        self.in_flight -= 1;
        self.bytes -= bytes;
        self.advance();
        Some(at_ms)
    }

    /// All that was on its way is to be sent again.
    pub(crate) fn rewind(&mut self) {
        for slot in &mut self.slots {
            if *slot != Slot::Done {
                *slot = Slot::Waiting;
            }
        }
        (self.in_flight, self.bytes, self.next) = (0, 0, self.start);
        self.skip();
    }

    fn slot(&mut self, position: u64) -> Option<&mut Slot> {
        let at = usize::try_from(position.checked_sub(self.start)?).ok()?;
        self.slots.get_mut(at)
    }

    fn set(&mut self, position: u64, to: Slot) {
        match self.slot(position) {
            Some(slot) => *slot = to,
            None => self.slots.push_back(to),
        }
    }

    /// Goes on to one that waits, or that was never looked at.
    fn skip(&mut self) {
        loop {
            let next = self.next;
            match self.slot(next) {
                Some(Slot::InFlight(..) | Slot::Done) => self.next += 1,
                Some(Slot::Waiting) | None => return,
            }
        }
    }

    fn advance(&mut self) {
        while self.slots.front() == Some(&Slot::Done) {
            self.slots.pop_front();
            self.start += 1;
        }
        self.next = self.next.max(self.start);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window() -> Window {
        Window::new(10, Limits { events: 4, bytes: 100 })
    }

    #[test]
    fn it_is_full_by_events_or_bytes_and_has_room_once_one_is_done() {
        let mut window = window();
        (0..4).for_each(|_| window.sent(0, 1));
        assert!(!window.has_room());
        window.done(12);
        assert_eq!((window.has_room(), window.start(), window.next()), (true, 10, 14));
        window.sent(0, 100);
        assert!(!window.has_room());
        window.done(14);
        window.done(10);
        assert_eq!((window.has_room(), window.start(), window.in_flight()), (true, 11, 2));
    }

    #[test]
    fn what_is_sent_again_leaves_out_what_is_delivered() {
        let mut window = window();
        (0..4).for_each(|_| window.sent(7, 1));
        assert_eq!(window.done(11), Some(7));
        assert_eq!(window.done(11), None, "once");
        window.rewind();
        let mut again = Vec::new();
        while window.next() < 14 {
            again.push(window.next());
            window.sent(7, 1);
        }
        assert_eq!(again, [10, 12, 13]);
        [10, 12, 13].into_iter().for_each(|position| assert!(window.done(position).is_some()));
        assert_eq!((window.start(), window.next(), window.in_flight()), (14, 14, 0));
    }

    #[test]
    fn what_is_given_up_is_not_waited_for() {
        let mut window = window();
        window.sent(0, 1);
        window.give_up_to(13);
        assert_eq!((window.start(), window.next()), (10, 13));
        window.done(10);
        assert_eq!((window.start(), window.next()), (13, 13));
    }
}
