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
        }
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
        }
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
        let mut due: Vec<_> = self
            .offer
            .parts()
            .into_iter()
            .map(|part| (start + phase(self.client, part), part, 0))
            .collect();
        while let Some((at, part, n)) = due.iter_mut().min_by_key(|(at, ..)| *at) {
            if *at >= start + lasts {
                return;
            }
            sleep_until(*at).await;
            self.say(*part, *n, &noise);
            *at += part.every;
            *n += 1;
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
    use std::collections::BTreeMap;

    use parking_lot::Mutex;

    use super::*;

    #[derive(Default)]
    struct Said(Mutex<BTreeMap<Class, u32>>);

    impl Mouth for Said {
        fn say(&self, class: Class, _: Bytes) -> Result<(), String> {
            *self.0.lock().entry(class).or_default() += 1;
            Ok(())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_standard_load_is_one_signal_17_strokes_and_20_chat_messages_a_second() {
        let said = Arc::new(Said::default());
        let talk = Talk {
            record: Record::new(),
            mouth: Arc::clone(&said) as _,
            client: 5,
            direction: Direction::Up,
            offer: Offer::Standard,
            warm_up: false,
            seed: 1,
        };
        talk.run(Instant::now(), Duration::from_secs(10)).await;
        let said: Vec<_> = said.0.lock().values().copied().collect();
        assert_eq!(said, [10, 167, 200]);
    }
}
