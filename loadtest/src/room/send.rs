//! Who sends what when.

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use edgeway_client::Class;
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};

use super::{Args, members::Member, shared::Shared};
use crate::load::{Load, Ticks};

/// Members whose chat one task sends: few enough that it does not hold up receivers.
const TOGETHER: usize = 64;

/// How long a warm-up is.
const WARM_UP: Duration = Duration::from_secs(3);

/// Spawns all senders; the first signal goes at `start`, chat and strokes after the time that
/// signals are to be alone.
pub fn all(
    args: &Args,
    members: &[Arc<Member>],
    shared: &Arc<Shared>,
    start: Instant,
) -> JoinSet<Result<()>> {
    let mut senders = JoinSet::new();
    let (chat_start, end) = (start + args.alone(), start + args.duration());
    for members in members.chunks(TOGETHER) {
        let members = members.to_vec();
        senders.spawn(chat(members, Arc::clone(shared), args.load.clone(), chat_start));
    }
    for (class, rate, start) in
        [(Class::Signal, args.signals, start), (Class::Binary, args.strokes, chat_start)]
    {
        if rate > 0.0 {
            let scattered = Scattered {
                class,
                interval: Duration::from_secs_f64(1.0 / rate),
                rng: SmallRng::seed_from_u64(args.load.seed ^ class.index() as u64),
                members: members.to_vec(),
                shared: Arc::clone(shared),
            };
            senders.spawn(scattered.send(start, end));
        }
    }
    senders
}

/// The chat of some members, each at its times.
async fn chat(
    members: Vec<Arc<Member>>,
    shared: Arc<Shared>,
    load: Load,
    start: Instant,
) -> Result<()> {
    let ticks = |member: Arc<Member>| (load.ticks(member.index, start), member);
    let mut speakers: Vec<(Ticks, Arc<Member>)> = members.into_iter().map(ticks).collect();
    // In each round in the order of their times.
    speakers.sort_by_key(|(ticks, _)| ticks.first());
    while !speakers.is_empty() {
        let mut over = false;
        for (ticks, member) in &mut speakers {
            match ticks.next().await {
                Some(_) if member.stalls && *shared.stop.borrow() => {}
                Some(_) => member.say(Class::Chat, &shared),
                None => over = true,
            }
        }
        if over {
            speakers.retain(|(ticks, _)| !ticks.is_over());
        }
    }
    Ok(())
}

/// Messages at random times from random members.
struct Scattered {
    class: Class,
    interval: Duration,
    rng: SmallRng,
    members: Vec<Arc<Member>>,
    shared: Arc<Shared>,
}

impl Scattered {
    /// One message in each interval, at a random time in it.
    async fn send(mut self, start: Instant, end: Instant) -> Result<()> {
        let mut from = start;
        while from < end {
            let at = from + self.interval.mul_f64(self.rng.random());
            sleep_until(at.min(end)).await;
            if let Some(speaker) = self.speaker() {
                speaker.say(self.class, &self.shared);
            }
            from += self.interval;
        }
        Ok(())
    }

    /// Someone who reads: signals wait for acks, and who does not read gets none.
    fn speaker(&mut self) -> Option<Arc<Member>> {
        let stopped = *self.shared.stop.borrow();
        let from = self.rng.random_range(0..self.members.len());
        let (before, after) = self.members.split_at(from);
        let mut in_turn = after.iter().chain(before);
        in_turn.find(|member| !(stopped && member.stalls)).cloned()
    }
}

/// Lets everyone talk for a while, unaudited, and waits until nothing of it is under way.
pub async fn warm_up(members: &[Arc<Member>], load: &Load) {
    let start = Instant::now();
    let interval = Duration::from_secs_f64(1.0 / load.rate);
    let mut at = start;
    while at < start + WARM_UP {
        sleep_until(at).await;
        members.iter().for_each(|member| member.mumble());
        at += interval;
    }
    settle(members).await;
}

/// Waits until nobody has received anything for a second.
async fn settle(members: &[Arc<Member>]) {
    let received = || members.iter().map(|member| member.stats().received_bytes).sum::<u64>();
    let mut before = received();
    for _ in 0..30 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = received();
        if now == before {
            return;
        }
        before = now;
    }
}
