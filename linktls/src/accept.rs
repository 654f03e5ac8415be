//! Serving: connections that have shown who they are, for tonic's server.
//!
//! Accepting never waits for a peer. Each handshake is a task with a deadline, and there are so many at a
//! time: at the bound the oldest is given up. One that means it is done within milliseconds, so that those
//! who connect and say nothing lose their places first, and keep nobody out.

use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::AbortHandle,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, warn};

use crate::{
    fault::{Fault, no_http2},
    identity::{ALPN, Identity},
    report::Report,
    stream::Stream,
};

/// Bounds of a listener.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Handshakes at a time. Each takes a socket and some 10 KB; a cluster that comes back as a whole has a few
    /// hundred links to a process.
    pub handshakes: usize,
    /// For a handshake: many round trips, and a busy machine.
    pub deadline: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { handshakes: 512, deadline: Duration::from_secs(10) }
    }
}

/// Links that stand and that the server has not taken yet.
const TAKEN: usize = 16;

/// After an error of the process (too many open files), not of a connection.
const PAUSE: Duration = Duration::from_millis(100);

/// A peer that is refused may take so long to read why.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// And what it has sent meanwhile is thrown away, up to this: unread, it would make the kernel throw away
/// our last words instead.
const THROWN_AWAY: u64 = 64 * 1024;

/// The first byte of a TLS handshake (RFC 8446, section 5.1). HTTP/2 begins with "PRI".
const HANDSHAKE: u8 = 22;

/// What a peer in the clear is answered where TLS is wanted: empty SETTINGS, and GOAWAY with
/// INADEQUATE_SECURITY (RFC 9113, sections 6.5 and 6.8), whose text its logs show.
const GO_AWAY: &[u8] = b"\0\0\0\x04\0\0\0\0\0\0\0\x48\x07\0\0\0\0\0\0\0\0\0\0\0\0\x0c\
links here are TLS with certificates of both sides: set [links].";

/// Connections that may be served, as tonic takes them.
#[derive(Debug)]
pub struct Incoming(mpsc::Receiver<Stream>);

impl tokio_stream::Stream for Incoming {
    type Item = io::Result<Stream>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(cx).map(|stream| stream.map(Ok))
    }
}

/// Accepts on `listener` until `stop`: TLS with an identity, else in the clear. Its tasks are of `tasks`.
pub fn incoming(
    listener: TcpListener,
    identity: Option<Identity>,
    limits: Limits,
    tasks: &TaskTracker,
    stop: CancellationToken,
) -> Incoming {
    let (links, taken) = mpsc::channel(TAKEN);
    let door = Arc::new(Door { identity, limits, report: Report::default(), links });
    let accepting = accept(listener, door, tasks.clone(), stop);
    tasks.spawn(accepting);
    Incoming(taken)
}

struct Door {
    identity: Option<Identity>,
    limits: Limits,
    report: Report,
    links: mpsc::Sender<Stream>,
}

async fn accept(
    listener: TcpListener,
    door: Arc<Door>,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    let mut shaking = Shaking::default();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        match accepted {
            Ok((tcp, peer)) => {
                if let Some(oldest) = shaking.make_room(door.limits.handshakes) {
                    door.report.refused(oldest, &Fault::Crowded);
                }
                let admitting = tasks.spawn(Arc::clone(&door).admit(tcp, peer));
                shaking.0.push_back((peer, admitting.abort_handle()));
            }
            Err(e) if of_connection(&e) => debug!(error = %e, "a peer went away at once"),
            Err(e) => {
                warn!(error = %e, "cannot accept links; is the limit on open files high enough?");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    shaking.0.iter().for_each(|(_, task)| task.abort());
}

/// Handshakes that go on, the oldest first; some are done already.
#[derive(Default)]
struct Shaking(VecDeque<(SocketAddr, AbortHandle)>);

impl Shaking {
    /// Gives up the oldest where there are so many; whose it was.
    fn make_room(&mut self, most: usize) -> Option<SocketAddr> {
        if self.0.len() < most {
            return None;
        }
        self.0.retain(|(_, task)| !task.is_finished());
        if self.0.len() < most {
            return None;
        }
        let (peer, task) = self.0.pop_front()?;
        task.abort();
        Some(peer)
    }
}

impl Door {
    async fn admit(self: Arc<Self>, tcp: TcpStream, peer: SocketAddr) {
        let admitted = tokio::time::timeout(self.limits.deadline, self.handshake(tcp)).await;
        match admitted.unwrap_or_else(|_| Err((Fault::Silent, None))) {
            // Where nobody takes it the server has ended.
            Ok(stream) => drop(self.links.send(stream).await),
            Err((fault, tcp)) => {
                self.report.refused(peer, &fault);
                if let Some(tcp) = tcp {
                    let _ = tokio::time::timeout(LAST_WORDS, part(tcp, &fault)).await;
                }
            }
        }
    }

    /// A link, or what is wrong and the connection to say so.
    async fn handshake(&self, tcp: TcpStream) -> Result<Stream, (Fault, Option<TcpStream>)> {
        let io = |e| (Fault::of(&e), None);
        // Batches are made by the queues, so Nagle's algorithm could only add delay.
        tcp.set_nodelay(true).map_err(io)?;
        let mut first = [0];
        let seen = tcp.peek(&mut first).await.map_err(io)?;
        match (&self.identity, first[0]) {
            _ if seen == 0 => Err((Fault::Gone, None)),
            (None, HANDSHAKE) => Err((Fault::Tls, None)),
            (None, _) => Ok(Stream::Clear(tcp)),
            (Some(identity), HANDSHAKE) => {
                let server = Arc::clone(&identity.current().server);
                let accepting = Box::pin(TlsAcceptor::from(server).accept(tcp).into_fallible());
                let tls = accepting.await.map_err(|(e, tcp)| (Fault::of(&e), Some(tcp)))?;
                if tls.get_ref().1.alpn_protocol() != Some(ALPN) {
                    return Err((no_http2(), None));
                }
                Ok(Stream::Tls(Box::new(tls.into())))
            }
            (Some(_), _) => Err((Fault::Clear, Some(tcp))),
        }
    }
}

/// Lets a peer that is refused read why. (An alert of TLS is on its way already.)
async fn part(mut tcp: TcpStream, fault: &Fault) {
    if *fault == Fault::Clear {
        let _ = tcp.write_all(GO_AWAY).await;
    }
    let _ = tcp.shutdown().await;
    let _ = tokio::io::copy(&mut tcp.take(THROWN_AWAY), &mut tokio::io::sink()).await;
}

/// Whether an error of `accept` is about one connection, so that the next may be fine.
fn of_connection(e: &io::Error) -> bool {
    matches!(
        e.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_in_the_clear_is_well_formed() {
        let (settings, go_away) = GO_AWAY.split_at(9);
        assert_eq!(settings, b"\0\0\0\x04\0\0\0\0\0");
        let length = u32::from_be_bytes([0, go_away[0], go_away[1], go_away[2]]);
        assert_eq!(length as usize, go_away.len() - 9);
        assert_eq!(go_away[3], 7);
        assert_eq!(&go_away[13..17], [0, 0, 0, 12]);
    }

    #[tokio::test]
    async fn at_the_bound_the_oldest_that_is_not_done_goes() {
        let peer = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let mut shaking = Shaking::default();
        let done = tokio::spawn(async {});
        let handle = done.abort_handle();
        done.await.unwrap_or_else(|e| panic!("{e}"));
        let waiting = |_| tokio::spawn(std::future::pending::<()>()).abort_handle();
        shaking.0.extend([(peer(1), handle)]);
        shaking.0.extend((2..=3).map(|port| (peer(port), waiting(port))));
        assert_eq!(shaking.make_room(3), None, "one was done");
        shaking.0.push_back((peer(4), waiting(4)));
        assert_eq!(shaking.make_room(3), Some(peer(2)));
        assert_eq!(shaking.0.len(), 2);
    }
}
