//! Kernel TCP through the testbed: that it gets what the link carries, and that cubic and bbr are
//! what they are called.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use socket2::{Domain, SockRef, Socket, Type};

use super::{Size, testbed};
use crate::weaknet::{
    Testbed,
    profile::{Bottleneck, LinkSpec},
    selfcheck::Verdict,
    testbed::SERVER,
    units::{Queue, Rate},
};

const PORT: u16 = 9001;

/// What a packet of 1500 bytes carries besides headers (with timestamps).
const SHARE_OF_PAYLOAD: f64 = 1448.0 / 1500.0;

/// How far a TCP may stay behind the link: it has to find out what it carries.
const BEHIND: f64 = 0.15;

/// Throughput on a clean and on a lossy link, with cubic and with bbr.
pub fn check(size: Size, seed: u64) -> Result<Vec<Verdict>> {
    let rate = Rate(8e6);
    let link = |loss| LinkSpec {
        delay: Duration::from_millis(25),
        loss,
        bottleneck: Some(Bottleneck { rate, queue: Queue::Time(Duration::from_millis(100)) }),
        ..LinkSpec::default()
    };
    let mut verdicts = vec![];
    let mut lossy = vec![];
    for congestion in ["cubic", "bbr"] {
        let clean = goodput(&link(0.0), congestion, size.flood, seed)?;
        let expected = rate.0 / 1e6 * SHARE_OF_PAYLOAD;
        let what = format!("TCP {congestion}, clean link, Mbit/s");
        verdicts.push(Verdict::timing(what, expected, clean, expected * BEHIND / 3.0));
        lossy.push(goodput(&link(0.03), congestion, size.flood, seed)?);
    }
    // 3% of loss is far more than cubic stands, and bbr does not mind it: were both the same
    // algorithm, the figures would be too.
    let [cubic, bbr] = lossy[..] else { return Ok(verdicts) };
    let what = format!("TCP bbr far before cubic at 3% loss ({bbr:.2}, {cubic:.2} Mbit/s)");
    verdicts.push(Verdict::holds(what, bbr > 1.5 * cubic));
    Ok(verdicts)
}

/// What one connection carries upwards in the last three quarters of `time`, in Mbit/s.
fn goodput(link: &LinkSpec, congestion: &str, time: Duration, seed: u64) -> Result<f64> {
    let testbed = testbed(link.clone(), 1, seed)?;
    testbed.set_tcp_congestion(congestion)?;
    let listener = testbed.server().run(|| Ok(TcpListener::bind((SERVER, PORT))?))?;
    thread::scope(|scope| {
        let receiver = scope.spawn(|| receive(&listener, congestion, time));
        let sent = send(&testbed, congestion, time);
        let received = receiver.join().map_err(|_| anyhow!("the server panicked"))?;
        sent.and(received)
    })
}

fn must_use(stream: &TcpStream, congestion: &str) -> Result<()> {
    let name = SockRef::from(stream).tcp_congestion()?;
    let name = String::from_utf8_lossy(&name);
    if name.trim_end_matches('\0') != congestion {
        bail!("a connection uses {name}, not {congestion}");
    }
    Ok(())
}

/// A connection of client 0.
pub fn connect(testbed: &Testbed, port: u16) -> Result<TcpStream> {
    let socket = testbed.clients().run(|| Ok(Socket::new(Domain::IPV4, Type::STREAM, None)?))?;
    socket.bind(&SocketAddr::from((testbed.client_address(0), 0)).into())?;
    let server = SocketAddr::from((SERVER, port)).into();
    socket.connect_timeout(&server, Duration::from_secs(5)).context("cannot connect")?;
    Ok(socket.into())
}

fn send(testbed: &Testbed, congestion: &str, time: Duration) -> Result<()> {
    let mut stream = connect(testbed, PORT)?;
    must_use(&stream, congestion)?;
    let block = [0; 16_384];
    let begun = Instant::now();
    // Somewhat longer than the receiver counts.
    while begun.elapsed() < time + Duration::from_millis(200) {
        if stream.write_all(&block).is_err() {
            break; // the receiver has enough
        }
    }
    Ok(())
}

fn receive(listener: &TcpListener, congestion: &str, time: Duration) -> Result<f64> {
    let (mut stream, _) = listener.accept()?;
    must_use(&stream, congestion)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut buffer = [0; 16_384];
    let (begun, mut bytes) = (Instant::now(), 0_usize);
    while begun.elapsed() < time {
        let read = stream.read(&mut buffer).context("cannot read")?;
        if begun.elapsed() > time / 4 {
            bytes += read;
        }
    }
    #[allow(clippy::cast_precision_loss)] // bytes
    Ok(bytes as f64 * 8.0 / (time * 3 / 4).as_secs_f64() / 1e6)
}
