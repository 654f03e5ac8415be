//! What was sent and what arrived, message by message; all figures are made of this.

use std::{collections::HashSet, sync::Arc};

use edgeway_client::Class;
use parking_lot::Mutex;

use crate::{
    stamp::{Clock, Stamp},
    weaknet::draw::Direction,
};

/// Both ways.
pub const DIRECTIONS: [Direction; 2] = [Direction::Up, Direction::Down];

/// One message. Times are nanoseconds of the run's clock.
#[derive(Debug, Clone, Copy)]
pub struct Sent {
    pub client: u32,
    pub direction: Direction,
    pub class: Class,
    /// Number within client, direction and class, from 0.
    pub n: u32,
    pub at_ns: u64,
}

/// One delivery to the receiver's callback.
#[derive(Debug, Clone, Copy)]
pub struct Arrived {
    pub sent: Sent,
    pub at_ns: u64,
}

/// Everything that a run has sent and received. Grows with the load, which has an end.
#[derive(Debug)]
pub struct Record {
    pub clock: Clock,
    sent: Mutex<Vec<Sent>>,
    arrived: Mutex<Vec<Arrived>>,
    problems: Mutex<Vec<String>>,
}

/// Problems that are kept: after some more the rest says nothing new.
const PROBLEMS_MAX: usize = 20;

impl Record {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            clock: Clock::start(),
            sent: Mutex::default(),
            arrived: Mutex::default(),
            problems: Mutex::default(),
        })
    }

    /// The stamp of a message that is sent now; of a warm-up (`n` is none) nobody asks later.
    pub fn stamp(
        &self,
        (client, direction): (u32, Direction),
        class: Class,
        n: Option<u32>,
    ) -> Stamp {
        let sent_ns = self.clock.now_ns();
        let Some(n) = n else { return Stamp { sender: Stamp::NOBODY, n: 0, sent_ns } };
        self.sent.lock().push(Sent { client, direction, class, n, at_ns: sent_ns });
        Stamp { sender: client << 1 | u32::from(direction == Direction::Down), n, sent_ns }
    }

    /// A message arrived at an end that receives `direction`: those that come back to their sender do
    /// not count.
    pub fn arrived(&self, direction: Direction, class: Class, payload: &[u8]) {
        let at_ns = self.clock.now_ns();
        let Some(stamp) = Stamp::read(payload) else {
            return self.problem(|| "a message that nobody sent".to_owned());
        };
        let down = stamp.sender & 1 == 1;
        if stamp.sender == Stamp::NOBODY || down != (direction == Direction::Down) {
            return;
        }
        let (client, n) = (stamp.sender >> 1, stamp.n);
        let sent = Sent { client, direction, class, n, at_ns: stamp.sent_ns };
        self.arrived.lock().push(Arrived { sent, at_ns });
    }

    pub fn problem(&self, say: impl FnOnce() -> String) {
        let mut problems = self.problems.lock();
        if problems.len() < PROBLEMS_MAX {
            problems.push(say());
        }
    }

    /// Messages of reliable classes that are still to come.
    pub fn outstanding(&self) -> usize {
        let reliable = |class| class != Class::Chat;
        let sent = self.sent.lock().iter().filter(|sent| reliable(sent.class)).count();
        let arrived = self.arrived.lock();
        sent.saturating_sub(arrived.iter().filter(|one| reliable(one.sent.class)).count())
    }

    /// Messages that have arrived.
    pub fn arrivals(&self) -> usize {
        self.arrived.lock().len()
    }

    /// Takes everything out.
    pub fn take(&self) -> Log {
        Log {
            sent: std::mem::take(&mut self.sent.lock()),
            arrived: std::mem::take(&mut self.arrived.lock()),
            problems: std::mem::take(&mut self.problems.lock()),
        }
    }
}

/// A finished [`Record`].
#[derive(Debug, Default)]
pub struct Log {
    pub sent: Vec<Sent>,
    /// In the order of arrival.
    pub arrived: Vec<Arrived>,
    pub problems: Vec<String>,
}

/// What became of the messages of one direction and class.
#[derive(Debug, Clone, Default)]
pub struct Fates {
    pub sent: usize,
    /// Latencies of those delivered, sorted, in milliseconds.
    pub latency_ms: Vec<f64>,
    pub twice: usize,
    pub out_of_order: usize,
}

impl Fates {
    /// The latency that a share of all messages sent did not exceed; none where so many did not
    /// arrive.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        #[allow(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss
        )] // counts of messages
        let rank = (share * self.sent as f64).ceil() as usize;
        self.latency_ms.get(rank.saturating_sub(1)).copied()
    }

    /// The same, of those delivered only: for chat, which may be shed.
    pub fn quantile_of_delivered(&self, share: f64) -> Option<f64> {
        let delivered = Self { sent: self.latency_ms.len(), ..self.clone() };
        delivered.quantile(share)
    }

    /// Adds those of another run.
    pub fn join(&mut self, other: &Self) {
        self.sent += other.sent;
        self.twice += other.twice;
        self.out_of_order += other.out_of_order;
        self.latency_ms.extend(&other.latency_ms);
        self.latency_ms.sort_by(f64::total_cmp);
    }
}

impl Log {
    /// The fates of the messages of a direction and class.
    pub fn fates(&self, direction: Direction, class: Class) -> Fates {
        let of = |sent: &Sent| sent.direction == direction && sent.class == class;
        let mut fates =
            Fates { sent: self.sent.iter().filter(|sent| of(sent)).count(), ..Fates::default() };
        let mut seen = HashSet::new();
        let mut last = std::collections::HashMap::new();
        for one in self.arrived.iter().filter(|one| of(&one.sent)) {
            if !seen.insert((one.sent.client, one.sent.n)) {
                fates.twice += 1;
                continue;
            }
            let last = last.entry(one.sent.client).or_insert(0);
            fates.out_of_order += usize::from(one.sent.n < *last);
            *last = one.sent.n.max(*last);
            fates.latency_ms.push(ms(one.at_ns.saturating_sub(one.sent.at_ns)));
        }
        fates.latency_ms.sort_by(f64::total_cmp);
        fates
    }
}

/// Nanoseconds as milliseconds.
#[allow(clippy::cast_precision_loss)] // of minutes
pub fn ms(ns: u64) -> f64 {
    ns as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(n: u32) -> Sent {
        Sent { client: 0, direction: Direction::Up, class: Class::Signal, n, at_ns: 0 }
    }

    fn log(count: u32, arrived: &[(u32, u64)]) -> Log {
        Log {
            sent: (0..count).map(sent).collect(),
            arrived: arrived
                .iter()
                .map(|(n, ms)| Arrived { sent: sent(*n), at_ns: ms * 1_000_000 })
                .collect(),
            problems: vec![],
        }
    }

    #[test]
    fn what_did_not_arrive_is_in_the_quantiles() {
        let fates = log(4, &[(0, 50), (1, 51), (2, 52)]).fates(Direction::Up, Class::Signal);
        assert_eq!(fates.quantile(0.5), Some(51.0));
        assert_eq!(fates.quantile(0.75), Some(52.0));
        assert_eq!(fates.quantile(0.99), None);
        assert_eq!(fates.quantile_of_delivered(0.99), Some(52.0));
    }

    #[test]
    fn twice_and_out_of_order_are_told_and_counted_once() {
        let log = log(3, &[(1, 50), (0, 60), (1, 70), (2, 80)]);
        let fates = log.fates(Direction::Up, Class::Signal);
        assert_eq!((fates.twice, fates.out_of_order, fates.latency_ms.len()), (1, 1, 3));
        assert_eq!(log.fates(Direction::Down, Class::Signal).sent, 0);
    }

    #[test]
    fn a_message_that_comes_back_to_its_sender_does_not_count() {
        let record = Record::new();
        let stamp = record.stamp((3, Direction::Up), Class::Signal, Some(0));
        let mut payload = bytes::BytesMut::new();
        stamp.write(&mut payload, &[]);
        record.arrived(Direction::Down, Class::Signal, &payload);
        assert_eq!(record.outstanding(), 1);
        record.arrived(Direction::Up, Class::Signal, &payload);
        assert_eq!(record.outstanding(), 0);
        assert_eq!(record.take().arrived[0].sent.client, 3);
    }
}
