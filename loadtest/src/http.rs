//! Just enough of HTTP/1.1 to ask many times a second, at little cost beside what is measured.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// An answer is smaller.
const ANSWER_BYTES: usize = 16 * 1024;

/// One who asks, over a connection that is kept while it works.
pub struct Asker {
    addr: SocketAddr,
    conn: Option<TcpStream>,
}

/// An answer with a length.
#[derive(Debug)]
pub struct Answer {
    head: String,
    pub body: String,
}

impl Asker {
    pub const fn new(addr: SocketAddr) -> Self {
        Self { addr, conn: None }
    }

    /// The answer to a whole request. After an error, or dropped before its end, it begins a connection anew.
    pub async fn ask(&mut self, request: &[u8]) -> Result<Answer> {
        let mut stream = match self.conn.take() {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect(self.addr).await?;
                stream.set_nodelay(true)?;
                stream
            }
        };
        stream.write_all(request).await?;
        let answer = read(&mut stream).await?;
        self.conn = Some(stream);
        Ok(answer)
    }

    /// The next request takes a connection of its own.
    pub fn hang_up(&mut self) {
        self.conn = None;
    }
}

async fn read(stream: &mut TcpStream) -> Result<Answer> {
    let (mut buffer, mut filled) = (vec![0; ANSWER_BYTES], 0);
    loop {
        let read = stream.read(&mut buffer[filled..]).await?;
        if read == 0 {
            bail!("the answer ends early, or is too long");
        }
        filled += read;
        let text = std::str::from_utf8(&buffer[..filled])?;
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let answer = Answer { head: head.to_owned(), body: body.to_owned() };
        let length = answer.header("content-length").and_then(|value| value.parse().ok());
        if answer.body.len() >= length.context("an answer without a length")? {
            return Ok(answer);
        }
    }
}

impl Answer {
    /// Whether it is 200.
    pub fn is_ok(&self) -> bool {
        self.head.starts_with("HTTP/1.1 200 ")
    }

    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (one, value) = line.split_once(':')?;
            one.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}
