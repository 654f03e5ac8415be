//! How many packets a second the testbed carries on this machine, with nothing else to do: what
//! clients and server cost comes on top.

use std::{
    fmt,
    net::{SocketAddr, UdpSocket},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};

use super::{Profile, Testbed, profile::LinkSpec, testbed::SERVER};

const PORT: u16 = 9002;
const CLIENTS: u32 = 20;

/// Packets a second that are tried.
const STEPS: [u32; 6] = [5_000, 10_000, 20_000, 40_000, 80_000, 160_000];

/// For how long each.
const LASTS: Duration = Duration::from_secs(3);

/// A sender wakes so often.
const TICK: Duration = Duration::from_millis(1);

/// Bytes of a payload: that of a stroke with its headers.
const BYTES: usize = 150;

/// What came of one rate.
#[derive(Debug, Clone)]
pub struct Step {
    asked: u32,
    sent: u64,
    arrived: u64,
    late_p99_ms: f64,
    late_max_ms: f64,
    drops: u64,
    /// Of the reader, which is not the testbed.
    unread: u64,
}

impl fmt::Display for Step {
    #[allow(clippy::cast_precision_loss)] // counts of packets
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let per_second = |count: u64| count as f64 / LASTS.as_secs_f64();
        write!(
            f,
            "{:>7} packets/s asked: {:>8.0} sent, {:>8.0} carried, late p99 {:.2} max {:.2} ms, {} dropped, {} not read in time",
            self.asked,
            per_second(self.sent),
            per_second(self.arrived),
            self.late_p99_ms,
            self.late_max_ms,
            self.drops,
            self.unread
        )
    }
}

/// Sends more and more upwards.
pub fn measure() -> Result<Vec<Step>> {
    STEPS.into_iter().map(step).collect()
}

fn step(asked: u32) -> Result<Step> {
    let link = LinkSpec { delay: Duration::from_millis(50), ..LinkSpec::default() };
    let testbed = Testbed::start(&Profile::symmetric("capacity", link), CLIENTS, 1)?;
    let server = testbed.server().run(|| Ok(UdpSocket::bind((SERVER, PORT))?))?;
    server.set_read_timeout(Some(Duration::from_millis(100)))?;
    let sockets = (0..CLIENTS)
        .map(|client| {
            let address = SocketAddr::from((testbed.client_address(client), 0));
            let socket = testbed.clients().run(|| Ok(UdpSocket::bind(address)?))?;
            socket.connect((SERVER, PORT))?;
            Ok(socket)
        })
        .collect::<Result<Vec<_>>>()
        .context("the clients' sockets")?;
    let over = AtomicBool::new(false);
    testbed.restart();
    let sent = thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut bytes = [0; 2048];
            while !over.load(Relaxed) {
                let _ = server.recv(&mut bytes); // or nothing came in time
            }
        });
        let sent = send(&sockets, asked);
        thread::sleep(Duration::from_millis(200));
        over.store(true, Relaxed);
        reader.join().map(|()| sent).map_err(|_| anyhow!("the reader panicked"))
    })?;
    let counters = testbed.counters()?;
    let health = counters.testbed;
    Ok(Step {
        asked,
        sent,
        arrived: counters.total.up.arrived.packets,
        late_p99_ms: health.late_ms.p99,
        late_max_ms: health.late_ms.max,
        drops: health.kernel_drops,
        unread: health.socket_drops,
    })
}

/// What is due at each tick; who is late sends it then.
fn send(sockets: &[UdpSocket], a_second: u32) -> u64 {
    let (began, mut sent) = (Instant::now(), 0);
    while began.elapsed() < LASTS {
        let due = began.elapsed().as_micros() * u128::from(a_second) / 1_000_000;
        for n in (0..sockets.len()).cycle() {
            if u128::from(sent) >= due || began.elapsed() >= LASTS {
                break;
            }
            // A full queue shows in what is carried.
            sent += u64::from(sockets[n].send(&[0; BYTES]).is_ok());
        }
        thread::sleep(TICK);
    }
    sent
}
