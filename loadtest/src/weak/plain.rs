//! What an app has without Edgeway: one TLS connection over TCP, no delay asked of the kernel, and
//! everything on it in the order in which it was said. Where both are in one room, the server also hands
//! each message back to its sender, as a room does.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use anyhow::{Context, Result};
use bytes::{BufMut, Bytes, BytesMut};
use edgeway_client::Class;
use rustls_pki_types::ServerName;
use tempfile::TempDir;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, split},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::JoinSet,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::{offer::Mouth, record::Record, run::Ends, sides::Sides};
use crate::{
    tls::{self, SERVER_NAME},
    weaknet::{draw::Direction, nat::client_of, testbed::SERVER},
};

const PORT: u16 = 4434;

/// Everything of the baseline that runs.
pub struct Plain {
    tasks: JoinSet<()>,
}

impl Plain {
    pub fn close(mut self) {
        self.tasks.abort_all();
    }
}

/// The queue before one end of a connection. Its bound is the load's: it ends.
struct Queue(UnboundedSender<Bytes>);

impl Mouth for Queue {
    fn say(&self, class: Class, payload: Bytes) -> Result<(), String> {
        self.0.send(frame(class, &payload)).map_err(|_| "the connection is over".to_owned())
    }
}

/// `length: u16, class: u8, payload`
fn frame(class: Class, payload: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(3 + payload.len());
    frame.put_u16(u16::try_from(payload.len()).unwrap_or(u16::MAX));
    frame.put_u8(class as u8);
    frame.put_slice(payload);
    frame.freeze()
}

/// Starts the server and connects everyone.
pub async fn start(
    sides: &Sides,
    record: &Arc<Record>,
    clients: u32,
    one_room: bool,
) -> Result<(Ends, Plain)> {
    let dir = TempDir::with_prefix("loadtest-plain-").context("no temporary directory")?;
    let certs = tls::certs(dir.path())?;
    let acceptor = TlsAcceptor::from(Arc::new(tls::quic_server(&certs)?));
    let connector = TlsConnector::from(Arc::new(tls::tcp_client(&certs.ca_pem)?));
    let address = SocketAddr::from((SERVER, PORT));
    let listening = async move { TcpListener::bind(address).await };
    let listener = sides.server.spawn(listening).await?.context("the plain server's socket")?;
    let mut all = Plain { tasks: JoinSet::new() };
    let mut ends = Ends::default();
    let mut connecting = Vec::new();
    for n in 0..clients {
        let bind = SocketAddr::new(sides.bind(n), 0);
        let connector = connector.clone();
        connecting.push(sides.clients.spawn(async move {
            let name = ServerName::try_from(SERVER_NAME).map_err(io::Error::other)?;
            let socket = TcpSocket::new_v4()?;
            socket.bind(bind)?;
            let stream = socket.connect(address).await?;
            stream.set_nodelay(true)?;
            connector.connect(name, stream).await
        }));
    }
    // Whose it is says the address: a handshake on a lossy link takes seconds.
    let mut accepting = HashMap::new();
    while accepting.len() < connecting.len() {
        let (stream, peer) = listener.accept().await?;
        let client = match peer.ip() {
            IpAddr::V4(address) => client_of(address),
            IpAddr::V6(_) => None,
        };
        let client = client.context("a connection of no client")?;
        accepting.insert(client, sides.server.spawn(accept(acceptor.clone(), stream)));
    }
    for (n, connecting) in (0..clients).zip(connecting) {
        let accepting = accepting.remove(&n).with_context(|| format!("client {n} is not there"))?;
        let accepted = accepting.await?.context("TLS of the plain server")?;
        let connected = connecting.await?.with_context(|| format!("client {n} cannot connect"))?;
        let up = Arc::clone(record);
        let down = Arc::clone(record);
        let (say_down, echoes) = unbounded_channel();
        let (say_up, queue) = unbounded_channel();
        let (read, write) = split(accepted);
        let echo = one_room.then(|| say_down.clone());
        let server = sides.server.handle();
        all.tasks.spawn_on(pump(echoes, write), server);
        all.tasks.spawn_on(
            listen(read, move |class, payload| {
                up.arrived(Direction::Up, class, &payload);
                // Where nobody takes it any more the run is over.
                let _ = echo.as_ref().map(|echo| echo.send(frame(class, &payload)));
            }),
            server,
        );
        let (read, write) = split(connected);
        let client = sides.clients.handle();
        all.tasks.spawn_on(pump(queue, write), client);
        all.tasks.spawn_on(
            listen(read, move |class, payload| down.arrived(Direction::Down, class, &payload)),
            client,
        );
        ends.speakers(Direction::Up).push(Arc::new(Queue(say_up)));
        ends.speakers(Direction::Down).push(Arc::new(Queue(say_down)));
    }
    Ok((ends, all))
}

async fn accept(
    acceptor: TlsAcceptor,
    stream: TcpStream,
) -> io::Result<tokio_rustls::server::TlsStream<TcpStream>> {
    stream.set_nodelay(true)?;
    acceptor.accept(stream).await
}

/// Writes what is queued, in order.
async fn pump(mut queue: UnboundedReceiver<Bytes>, mut write: impl AsyncWrite + Unpin) {
    while let Some(frame) = queue.recv().await {
        // A broken connection shows in what does not arrive.
        if write.write_all(&frame).await.is_err() || write.flush().await.is_err() {
            return;
        }
    }
}

async fn listen(read: impl AsyncRead + Unpin, mut heard: impl FnMut(Class, Bytes)) {
    let mut read = BufReader::new(read);
    while let Ok(length) = read.read_u16().await {
        let Ok(class) = read.read_u8().await else { return };
        let mut payload = vec![0; length.into()];
        if read.read_exact(&mut payload).await.is_err() {
            return;
        }
        let Some(class) = Class::ALL.get(usize::from(class)) else { return };
        heard(*class, payload.into());
    }
}
