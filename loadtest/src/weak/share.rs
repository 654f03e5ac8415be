//! One bottleneck, three connections: two in bulk by others, over plain TCP, and one of ours that wants more
//! than its share.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use serde::Serialize;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{
    Congestion, Mode, Size,
    offer::{Offer, Talk},
    record::{DIRECTIONS, Record},
    sdk,
    sides::Sides,
};
use crate::{
    procstat,
    server::ServerArgs,
    weaknet::{
        Profile,
        counters::LinkCounters,
        draw::{Direction, Draw, Purpose},
        testbed::{Counters, SERVER},
    },
};

const PORT: u16 = 4435;

/// Ours is client 0.
const OTHERS: u32 = 2;

/// Everyone sends for so long before anything counts: TCP has found out what the link carries.
const BEFORE: Duration = Duration::from_secs(8);

/// Flows begin at a time within this, drawn for each seed.
const BEGIN_WITHIN: Duration = Duration::from_secs(2);

/// One direction of one run.
#[derive(Debug, Clone, Serialize)]
pub struct Shared {
    pub seed: u64,
    pub direction: Direction,
    /// Of whole IP packets that got through, Mbit/s.
    pub ours_mbit_s: f64,
    pub others_mbit_s: Vec<f64>,
    /// What ours got, in fair shares.
    pub of_fair_share: f64,
    /// The queue before the bottleneck, as all packets met it, milliseconds.
    pub queue_ms: f64,
}

/// Runs that belong together.
#[derive(Debug, Clone, Serialize)]
pub struct Shares {
    pub profile: String,
    pub transport: &'static str,
    /// Of kernel TCP.
    pub congestion: &'static str,
    pub seconds: u32,
    pub seeds: Vec<u64>,
    pub capacity_mbit_s: f64,
    pub runs: Vec<Shared>,
    pub load_before: Option<f64>,
    pub testbed_drops: u64,
}

impl Shares {
    /// Prints a summary.
    pub fn say(&self) {
        println!(
            "\n{}: {} beside {OTHERS} bulk flows over TCP ({}), {} s a direction",
            self.profile, self.transport, self.congestion, self.seconds
        );
        for run in &self.runs {
            let others: Vec<_> = run.others_mbit_s.iter().map(|one| format!("{one:.2}")).collect();
            println!(
                "  seed {} {:<4} ours {:.2}, others {} of {:.2} Mbit/s: {:.2} fair shares; queue {:.0} ms",
                run.seed,
                if run.direction == Direction::Up { "up" } else { "down" },
                run.ours_mbit_s,
                others.join(" and "),
                self.capacity_mbit_s,
                run.of_fair_share,
                run.queue_ms
            );
        }
    }

    /// The largest share that ours took, in fair shares.
    pub fn most(&self) -> Option<f64> {
        self.runs.iter().map(|run| run.of_fair_share).max_by(f64::total_cmp)
    }
}

/// Measures both directions for each seed.
pub fn run(
    profile: &Profile,
    mode: Mode,
    congestion: Congestion,
    size: &Size,
    server: &ServerArgs,
) -> Result<Shares> {
    let bottleneck = profile.up.bottleneck.as_ref().context("the profile has no bottleneck")?;
    let mut shares = Shares {
        profile: profile.name.clone(),
        transport: mode.name(),
        congestion: congestion.name(),
        seconds: size.seconds,
        seeds: size.seeds.clone(),
        capacity_mbit_s: bottleneck.rate.0 / 1e6,
        runs: vec![],
        load_before: procstat::load_average(),
        testbed_drops: 0,
    };
    for seed in size.seeds.iter().copied() {
        for direction in DIRECTIONS {
            let sides = Sides::start(profile, 1 + OTHERS, seed)?;
            sides.testbed.set_tcp_congestion(congestion.name())?;
            let begun = Begun { sides: &sides, mode, seed, direction };
            let lasts = Duration::from_secs(size.seconds.into());
            let (before, after) = sides.server.block_on(begun.measure(lasts, server))?;
            shares.runs.push(shared(profile, seed, direction, (&before, &after), lasts));
            shares.testbed_drops += after.testbed.kernel_drops + after.testbed.socket_drops;
        }
    }
    Ok(shares)
}

struct Begun<'a> {
    sides: &'a Sides,
    mode: Mode,
    seed: u64,
    direction: Direction,
}

impl Begun<'_> {
    /// What was counted before and after.
    async fn measure(&self, lasts: Duration, args: &ServerArgs) -> Result<(Counters, Counters)> {
        // Nobody asks what became of each message.
        let record = Record::new();
        let (mut ends, ours) = sdk::start(self.sides, args, self.mode, &record, 1, false).await?;
        let mut tasks = self.others().await?;
        let mouth = Arc::clone(ends.speakers(self.direction).first().context("nobody speaks")?);
        let talk = Talk {
            record,
            mouth,
            client: 0,
            direction: self.direction,
            offer: Offer::Greedy,
            warm_up: true,
            seed: self.seed,
        };
        let side = match self.direction {
            Direction::Up => self.sides.clients.handle(),
            Direction::Down => self.sides.server.handle(),
        };
        let all = BEFORE + lasts + Duration::from_secs(1);
        tasks.spawn_on(talk.run(Instant::now() + self.begins(0), all), side);
        sleep(BEFORE).await;
        let before = self.sides.testbed.counters()?;
        sleep(lasts).await;
        let after = self.sides.testbed.counters()?;
        tasks.abort_all();
        ours.close().await?;
        Ok((before, after))
    }

    fn begins(&self, flow: u32) -> Duration {
        Draw::new(self.seed, flow, None, Purpose::Stagger, 0).time(0, BEGIN_WITHIN)
    }

    /// Connects the bulk flows.
    async fn others(&self) -> Result<JoinSet<()>> {
        let address = SocketAddr::from((SERVER, PORT));
        let listening = async move { TcpListener::bind(address).await };
        let listener = self.sides.server.spawn(listening).await??;
        let mut tasks = JoinSet::new();
        for client in 1..=OTHERS {
            let bind = SocketAddr::new(self.sides.bind(client), 0);
            let connecting = self.sides.clients.spawn(async move {
                let socket = TcpSocket::new_v4()?;
                socket.bind(bind)?;
                socket.connect(address).await
            });
            let (accepted, _) = listener.accept().await?;
            let connected = connecting.await?.context("a bulk flow cannot connect")?;
            let (from, to) = match self.direction {
                Direction::Up => (connected, accepted),
                Direction::Down => (accepted, connected),
            };
            let (here, there) = match self.direction {
                Direction::Up => (self.sides.clients.handle(), self.sides.server.handle()),
                Direction::Down => (self.sides.server.handle(), self.sides.clients.handle()),
            };
            tasks.spawn_on(pour(from, self.begins(client)), here);
            tasks.spawn_on(drain(to), there);
        }
        Ok(tasks)
    }
}

/// Sends for as long as anybody takes it.
async fn pour(mut stream: TcpStream, begins: Duration) {
    sleep(begins).await;
    let bytes = vec![0; 64 * 1024];
    while stream.write_all(&bytes).await.is_ok() {}
}

async fn drain(mut stream: TcpStream) {
    let mut bytes = vec![0; 64 * 1024];
    while stream.read(&mut bytes).await.is_ok_and(|read| read > 0) {}
}

#[allow(clippy::cast_precision_loss)] // bytes of minutes
fn shared(
    profile: &Profile,
    seed: u64,
    direction: Direction,
    (before, after): (&Counters, &Counters),
    lasts: Duration,
) -> Shared {
    let link = |counters: &Counters, client: usize| -> LinkCounters {
        let of = counters.by_client.get(client).copied().unwrap_or_default();
        if direction == Direction::Up { of.up } else { of.down }
    };
    let flows: Vec<f64> = (0..after.by_client.len())
        .map(|client| {
            let bytes = link(after, client).arrived.bytes - link(before, client).arrived.bytes;
            bytes as f64 * 8.0 / 1e6 / lasts.as_secs_f64()
        })
        .collect();
    let capacity = profile.link(direction).bottleneck.as_ref().map_or(f64::NAN, |b| b.rate.0) / 1e6;
    let total = |counters: &Counters| {
        if direction == Direction::Up { counters.total.up } else { counters.total.down }.queue
    };
    let waited = total(after).sum_us - total(before).sum_us;
    let packets = (total(after).packets - total(before).packets).max(1);
    let ours = flows.first().copied().unwrap_or_default();
    Shared {
        seed,
        direction,
        ours_mbit_s: ours,
        of_fair_share: ours / (capacity / flows.len() as f64),
        others_mbit_s: flows.into_iter().skip(1).collect(),
        queue_ms: waited as f64 / packets as f64 / 1000.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weaknet::{counters::ClientCounters, profile::Profiles};

    #[test]
    fn the_share_is_of_what_the_bottleneck_carries() {
        let profiles = Profiles::load(None).unwrap();
        let profile = profiles.get("bottleneck-5m").unwrap();
        assert!(profile.shared);
        let counters = |mbit: [u64; 3]| {
            let by_client: Vec<_> = mbit
                .iter()
                .map(|mbit| {
                    let mut one = ClientCounters::default();
                    one.down.delivered(mbit * 125_000);
                    one
                })
                .collect();
            let mut total = ClientCounters::default();
            by_client.iter().for_each(|one| total += *one);
            Counters { total, by_client, testbed: crate::weaknet::testbed::Health::default() }
        };
        let (before, after) = (counters([1, 1, 1]), counters([26, 6, 6]));
        let lasts = Duration::from_secs(10);
        let found = shared(profile, 1, Direction::Down, (&before, &after), lasts);
        assert!((found.ours_mbit_s - 2.5).abs() < 1e-9);
        assert!((found.of_fair_share - 1.5).abs() < 1e-9);
        assert_eq!(found.others_mbit_s.len(), 2);
    }
}
