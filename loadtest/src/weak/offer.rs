//! What each client says, and when: a function of the client's number, so that every transport gets
//! the same.

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use bytes::{Bytes, BytesMut};
use clap::ValueEnum;
use edgeway_client::Class;
use tokio::time::{Instant, sleep_until};

use super::record::Record;
use crate::{stamp, weaknet::draw::Direction};

/// What is offered on each connection, in each direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Offer {
    /// 1 signal, 16.7 strokes and 20 chat messages a second
    Standard,
    /// A signal every 1.5 s and nothing else
    Isolated,
    /// 1 signal a second and nothing else
    Signals,
    /// 1 signal and 16.7 strokes a second, and chat of 3 Mbit/s
    Flood,
    /// 2 Mbit/s in each class: more than any link here carries
    Greedy,
}

/// Bytes of a payload.
const SMALL: usize = 100;
const LARGE: usize = 1000;

/// Messages of one class.
#[derive(Debug, Clone, Copy)]
struct Part {
    class: Class,
    every: Duration,
    bytes: usize,
}

impl Offer {
    pub fn name(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Isolated => "isolated",
            Self::Signals => "signals",
            Self::Flood => "flood",
            Self::Greedy => "greedy",
        }
    }

    /// How many messages of a class a client says in a second.
    pub fn rate(self, class: Class) -> f64 {
        let parts = self.parts().into_iter().filter(|part| part.class == class);
        parts.map(|part| 1.0 / part.every.as_secs_f64()).sum()
    }

    fn parts(self) -> Vec<Part> {
        let part = |class, ms: f64, bytes| Part {
            class,
            every: Duration::from_secs_f64(ms / 1000.0),
            bytes,
        };
        let signal = part(Class::Signal, 1000.0, SMALL);
        let stroke = part(Class::Binary, 1000.0 / 16.7, SMALL);
        match self {
            Self::Standard => vec![signal, stroke, part(Class::Chat, 50.0, SMALL)],
            Self::Isolated => vec![part(Class::Signal, 1500.0, SMALL)],
            Self::Signals => vec![signal],
            Self::Flood => vec![signal, stroke, part(Class::Chat, 8.0 / 3.0, LARGE)],
            Self::Greedy => Class::ALL.map(|class| part(class, 4.0, LARGE)).to_vec(),
        }
    }

    /// When a client says what, each with its number within its class, in order.
    fn schedule(
        self,
        client: u32,
        lasts: Duration,
    ) -> impl Iterator<Item = (Duration, Part, u32)> + Send {
        let parts = self.parts().into_iter();
        let mut due: Vec<_> = parts.map(|part| (phase(client, part), part, 0)).collect();
        std::iter::from_fn(move || {
            let next = due.iter_mut().min_by_key(|(at, ..)| *at)?;
            let said = *next;
            next.0 += next.1.every;
            next.2 += 1;
            (said.0 < lasts).then_some(said)
        })
    }
}

/// Something that sends for one client in one direction.
pub trait Mouth: Send + Sync + 'static {
    /// Sends without waiting.
    fn say(&self, class: Class, payload: Bytes) -> Result<(), String>;
}

/// One client's part of a load in one direction.
pub struct Talk {
    pub record: Arc<Record>,
    pub mouth: Arc<dyn Mouth>,
    pub client: u32,
    pub direction: Direction,
    pub offer: Offer,
    /// Whether it counts.
    pub warm_up: bool,
    pub seed: u64,
}

impl Talk {
    /// Says everything, from `start` on for so long. Who is late says it at once and stays on
    /// schedule: the time of a message is when it was really said.
    pub async fn run(self, start: Instant, lasts: Duration) {
        let noise = stamp::filler(LARGE, self.seed ^ u64::from(self.client));
        for (at, part, n) in self.offer.schedule(self.client, lasts) {
            sleep_until(start + at).await;
            self.say(part, n, &noise);
        }
    }

    fn say(&self, part: Part, n: u32, noise: &[u8]) {
        let n = (!self.warm_up).then_some(n);
        let stamp = self.record.stamp((self.client, self.direction), part.class, n);
        let mut payload = BytesMut::with_capacity(part.bytes);
        stamp.write(&mut payload, &noise[..part.bytes - stamp::STAMP_BYTES]);
        if let Err(problem) = self.mouth.say(part.class, payload.freeze()) {
            self.record.problem(|| {
                format!("client {} could not send {}: {problem}", self.client, part.class.name())
            });
        }
    }
}

/// Where in its interval a client begins, so that neither clients nor classes move in step.
fn phase(client: u32, part: Part) -> Duration {
    let classes = u32::try_from(part.class.index()).unwrap_or(0);
    let golden = f64::from(client * 3 + classes) * 0.618_033_988_75;
    part.every.mul_f64(golden.fract())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standard_load_is_one_signal_17_strokes_and_20_chat_messages_a_second() {
        let mut counts = [0; 3];
        let mut last = Duration::ZERO;
        for (at, part, n) in Offer::Standard.schedule(5, Duration::from_secs(10)) {
            let count = &mut counts[part.class.index()];
            assert_eq!(n, *count);
            assert!(at >= last);
            *count += 1;
            last = at;
        }
        assert_eq!(counts, [10, 167, 200]);
    }

    #[test]
    fn clients_do_not_move_in_step() {
        let first = |client| {
            let lasts = Duration::from_secs(2);
            Offer::Signals.schedule(client, lasts).next().map(|(at, ..)| at)
        };
        assert_ne!(first(0), first(1));
        assert_eq!(first(7), first(7));
    }
}
