//! Changes of address and blocks of UDP, as sockets see them.

use std::{
    net::{SocketAddr, TcpListener, UdpSocket},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, anyhow};

use super::{client_socket, server_socket, tcp, testbed};
use crate::weaknet::{OldPath, Testbed, profile::LinkSpec, selfcheck::Verdict, testbed::SERVER};

const PORT: u16 = 9002;

/// How long an answer is waited for; a round trip is 20 ms.
const PATIENCE: Duration = Duration::from_millis(600);

/// Hand-over, rebinding, blocks and blackouts of one client, and none of them for another.
pub fn check(seed: u64) -> Result<Vec<Verdict>> {
    let delay = Duration::from_millis(10);
    let testbed = testbed(LinkSpec { delay, ..LinkSpec::default() }, 2, seed)?;
    let server = server_socket(&testbed, PORT)?;
    server.set_read_timeout(Some(Duration::from_millis(50)))?;
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let mirror = scope.spawn(|| tell_callers_their_address(&server, &over));
        let verdicts = changes(&testbed);
        over.store(true, Ordering::Release);
        mirror.join().map_err(|_| anyhow!("the server panicked"))?;
        verdicts
    })
}

fn tell_callers_their_address(socket: &UdpSocket, over: &AtomicBool) {
    let mut buffer = [0; 64];
    while !over.load(Ordering::Acquire) {
        if let Ok((_, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(from.to_string().as_bytes(), from); // it will ask again
        }
    }
}

/// Under which address the server sees this socket, if it does.
fn seen_as(socket: &UdpSocket) -> Result<Option<SocketAddr>> {
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send_to(b"who am I", (SERVER, PORT))?;
    let mut buffer = [0; 64];
    match socket.recv_from(&mut buffer) {
        Ok((bytes, _)) => {
            let text = std::str::from_utf8(&buffer[..bytes]).context("not an address")?;
            Ok(Some(text.parse()?))
        }
        Err(_) => Ok(None),
    }
}

fn changes(testbed: &Testbed) -> Result<Vec<Verdict>> {
    let mut verdicts = vec![];
    let mut holds = |what: &str, held| verdicts.push(Verdict::holds(what, held));
    let (first, other) = (client_socket(testbed, 0)?, client_socket(testbed, 1)?);
    let before = seen_as(&first)?;
    holds("a client is seen as it is", before == Some(first.local_addr()?));
    let other_before = seen_as(&other)?;

    testbed.rebind(0, false)?;
    let rebound = seen_as(&first)?;
    holds(
        "a rebound client has another port",
        rebound.map(|a| a.port()) != before.map(|a| a.port()),
    );
    holds("and the same address", rebound.map(|a| a.ip()) == before.map(|a| a.ip()));

    testbed.hand_over(0, OldPath::Follows)?;
    let followed = seen_as(&first)?;
    holds(
        "a socket that follows has another address",
        followed.is_some() && followed.map(|a| a.ip()) != before.map(|a| a.ip()),
    );

    testbed.hand_over(0, OldPath::Dead)?;
    holds("a dead path has no answer", seen_as(&first)?.is_none());
    let fresh = client_socket(testbed, 0)?;
    let expected = testbed.outer_address(0)?;
    holds(
        "a new socket is seen at the new address",
        seen_as(&fresh)?.map(|a| a.ip()) == Some(expected.into()),
    );

    testbed.block_udp(0, true)?;
    holds("blocked UDP has no answer", seen_as(&fresh)?.is_none());
    let listener = testbed.server().run(|| Ok(TcpListener::bind((SERVER, PORT))?))?;
    holds("TCP passes a block of UDP", tcp::connect(testbed, PORT).is_ok());
    drop(listener);
    testbed.block_udp(0, false)?;
    holds("unblocked UDP passes again", seen_as(&fresh)?.is_some());

    testbed.black_out(0, PATIENCE * 2)?;
    holds("a blackout lets nothing pass", seen_as(&fresh)?.is_none());
    thread::sleep(PATIENCE);
    holds("and ends", seen_as(&fresh)?.is_some());

    holds("none of this happens to another client", seen_as(&other)? == other_before);
    Ok(verdicts)
}
