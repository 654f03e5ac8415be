//! A client of the NATS protocol over TLS: as much of it as a room needs.
//! <https://docs.nats.io/reference/reference-protocols/nats-protocol>

use std::{net::SocketAddr, sync::Arc};

use anyhow::{Context, Result, bail};
use bytes::{Buf, Bytes, BytesMut};
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf},
    net::TcpStream,
    sync::Mutex,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::tls;

/// Room for what the server sends at once.
const READ_BYTES: usize = 64 * 1024;

type Stream = TlsStream<TcpStream>;

/// The sending half.
#[derive(Clone)]
pub struct Sender {
    write: Arc<Mutex<WriteHalf<Stream>>>,
}

/// The receiving half.
pub struct Receiver {
    read: ReadHalf<Stream>,
    sender: Sender,
    parser: Parser,
}

/// Connects, subscribes to `subject`, and waits until the server has taken the subscription.
pub async fn connect(
    addr: SocketAddr,
    tls: Arc<rustls::ClientConfig>,
    subject: &str,
) -> Result<(Sender, Receiver)> {
    let mut tcp = TcpStream::connect(addr).await?;
    tcp.set_nodelay(true)?;
    // The greeting comes in the clear, TLS follows; more comes only inside of it.
    let mut greeting = Vec::new();
    while !greeting.ends_with(b"\r\n") {
        greeting.push(tcp.read_u8().await?);
    }
    if !greeting.starts_with(b"INFO ") {
        bail!("this is no NATS server");
    }
    let name = ServerName::try_from(tls::SERVER_NAME)?;
    let (read, write) = tokio::io::split(TlsConnector::from(tls).connect(name, tcp).await?);
    let sender = Sender { write: Arc::new(Mutex::new(write)) };
    let mut receiver = Receiver { read, sender: sender.clone(), parser: Parser::default() };
    let hello = format!(
        "CONNECT {{\"verbose\":false,\"pedantic\":false,\"tls_required\":true,\
         \"name\":\"loadtest\",\"lang\":\"rust\",\"version\":\"1\",\"protocol\":1}}\r\n\
         SUB {subject} 1\r\nPING\r\n"
    );
    sender.write(hello.as_bytes()).await?;
    while !receiver.read(|_| {}).await?.pong {}
    Ok((sender, receiver))
}

impl Sender {
    /// Sends commands as they are.
    pub async fn write(&self, commands: &[u8]) -> Result<()> {
        let mut write = self.write.lock().await;
        write.write_all(commands).await?;
        write.flush().await?;
        Ok(())
    }
}

/// What came besides messages.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Came {
    ping: bool,
    pong: bool,
}

impl Receiver {
    /// Waits for more, and gives the payload of each message to `each`.
    pub async fn read(&mut self, each: impl FnMut(&[u8])) -> Result<Came> {
        self.parser.buffer.reserve(READ_BYTES);
        if self.read.read_buf(&mut self.parser.buffer).await? == 0 {
            bail!("the NATS server closed the connection");
        }
        let came = self.parser.take(each)?;
        if came.ping {
            self.sender.write(b"PONG\r\n").await?;
        }
        Ok(came)
    }
}

/// Takes operations out of a stream of bytes.
#[derive(Default)]
struct Parser {
    buffer: BytesMut,
}

impl Parser {
    /// Takes the operations that are whole.
    fn take(&mut self, mut each: impl FnMut(&[u8])) -> Result<Came> {
        let mut came = Came::default();
        while let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\r\n") {
            let line = &self.buffer[..end];
            if line.starts_with(b"MSG ") {
                let size = payload_bytes(line).context("a MSG without a size")?;
                let (start, whole) = (end + 2, end + 2 + size + 2);
                if self.buffer.len() < whole {
                    break;
                }
                each(&self.buffer[start..start + size]);
                self.buffer.advance(whole);
                continue;
            }
            match line {
                b"PING" => came.ping = true,
                b"PONG" => came.pong = true,
                line if line.starts_with(b"-ERR") => {
                    bail!("the NATS server says {}", String::from_utf8_lossy(line));
                }
                _ => {} // INFO and +OK
            }
            self.buffer.advance(end + 2);
        }
        Ok(came)
    }
}

/// `MSG <subject> <sid> [reply-to] <#bytes>`
fn payload_bytes(line: &[u8]) -> Option<usize> {
    let size = line.rsplit(|byte| *byte == b' ').next()?;
    std::str::from_utf8(size).ok()?.parse().ok()
}

/// A message for `subject`: its command, ready to send.
pub fn publish(subject: &str, payload: &Bytes) -> Bytes {
    let mut command = BytesMut::with_capacity(payload.len() + subject.len() + 16);
    command.extend_from_slice(format!("PUB {subject} {}\r\n", payload.len()).as_bytes());
    command.extend_from_slice(payload);
    command.extend_from_slice(b"\r\n");
    command.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_come_out_whole_however_the_stream_is_cut() {
        let stream =
            b"INFO {}\r\nMSG room 1 5\r\na\r\nbc\r\n+OK\r\nPING\r\nMSG room 1 0\r\n\r\nPONG\r\n";
        for size in 1..=stream.len() {
            let (mut parser, mut got) = (Parser::default(), Vec::new());
            let (mut ping, mut pong) = (false, false);
            for chunk in stream.chunks(size) {
                parser.buffer.extend_from_slice(chunk);
                let came = parser.take(|payload| got.push(payload.to_vec())).unwrap();
                ping |= came.ping;
                pong |= came.pong;
            }
            assert_eq!(got, [b"a\r\nbc".to_vec(), Vec::new()], "cut every {size} bytes");
            assert!(ping && pong);
        }
    }

    #[test]
    fn an_error_of_the_server_is_told() {
        let mut parser = Parser { buffer: BytesMut::from(&b"-ERR 'Slow Consumer'\r\n"[..]) };
        assert!(parser.take(|_| {}).unwrap_err().to_string().contains("Slow Consumer"));
    }
}
