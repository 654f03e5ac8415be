//! Lanes over TCP, with or without TLS: records (`edgeway_proto::record`), or a bare stream of
//! frames for a legacy client, which has one Session and needs no lanes.

use std::{
    cell::RefCell,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::{BufMut, Bytes, BytesMut};
use edgeway_proto::{
    Class, CloseCode, FrameBuffer, Lane, RawFrame,
    frame::{Behind, Close, Deliver, Gap, Hello, Open, Renew, Renewed, Send, measure, split},
    limits::{REASON_BYTES, RECORD_BYTES},
    record::{self, RecordBuffer},
    varint,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf, ReadHalf, WriteHalf},
    net::TcpStream,
};
use tokio_rustls::TlsStream;

use crate::{
    Connection, End, SendError, Sink, Stop, Transport,
    bbr::Fresh,
    half::{Receiver as AnyReceiver, Sender as AnySender},
};

/// Bytes read at a time. A record of TLS holds at most this much.
const READ_BYTES: usize = 16 * 1024;

/// Bytes of a record of strokes or chat, about. A reader has a record when all of it is there, and its
/// credit comes back then: a lane's whole window in one record would be sent in one piece each round
/// trip, and on a slow link a signal behind it would wait for all of it.
const LOW_RECORD_BYTES: usize = 2 * 1024;

/// Reads before other tasks get a turn.
const READ_BUDGET: usize = 16;

thread_local! {
    // One buffer a thread, not one a connection: an idle connection holds no buffer.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
}

/// A TCP connection, encrypted or not.
#[derive(Debug)]
pub(crate) struct Stream {
    io: Io,
    bbr: Fresh,
}

#[derive(Debug)]
enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    pub(crate) fn plain(stream: TcpStream) -> Self {
        Self { bbr: Fresh::of(&stream), io: Io::Plain(stream) }
    }

    pub(crate) fn tls(stream: TlsStream<TcpStream>) -> Self {
        Self { bbr: Fresh::of(stream.get_ref().0), io: Io::Tls(Box::new(stream)) }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.get_mut().io {
            Io::Plain(s) => Pin::new(s).poll_read(cx, buf),
            Io::Tls(s) => Pin::new(s).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Self { io, bbr } = self.get_mut();
        match io {
            Io::Plain(s) => {
                bbr.keep(s);
                Pin::new(s).poll_write(cx, buf)
            }
            Io::Tls(s) => {
                bbr.keep(s.get_ref().0);
                Pin::new(s).poll_write(cx, buf)
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().io {
            Io::Plain(s) => Pin::new(s).poll_flush(cx),
            Io::Tls(s) => Pin::new(s).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().io {
            Io::Plain(s) => Pin::new(s).poll_shutdown(cx),
            Io::Tls(s) => Pin::new(s).poll_shutdown(cx),
        }
    }
}

/// Makes the two halves of a TCP connection. A client says by `legacy` which carriage it speaks;
/// a server (`None`) learns it from the first byte.
pub(crate) fn connection(stream: Stream, remote: SocketAddr, legacy: Option<bool>) -> Connection {
    // What a client hears first may be on any lane.
    let carriage = (legacy == Some(false)).then(|| Carriage::Records(RecordBuffer::default()));
    let legacy = Arc::new(AtomicBool::new(legacy == Some(true)));
    let (read, write) = tokio::io::split(stream);
    Connection {
        receiver: AnyReceiver::Tcp(Box::new(Receiver {
            read,
            legacy: Arc::clone(&legacy),
            carriage,
        })),
        sender: AnySender::Tcp(Sender { write, legacy }),
        remote,
        transport: Transport::Tcp,
        early: None,
    }
}

/// How frames are laid into the byte stream.
#[derive(Debug)]
enum Carriage {
    Records(RecordBuffer),
    Bare(FrameBuffer),
}

/// Reads a connection.
#[derive(Debug)]
pub struct Receiver {
    read: ReadHalf<Stream>,
    legacy: Arc<AtomicBool>,
    /// `None` until the first byte has said it.
    carriage: Option<Carriage>,
}

impl Receiver {
    pub(crate) async fn run<S: Sink>(&mut self, sink: &mut S) -> End {
        std::future::poll_fn(|cx| {
            let end = self.read(cx, sink);
            sink.flush();
            end
        })
        .await
    }

    pub(crate) async fn drain(&mut self) {
        let mut scratch = [0; 512];
        while let Ok(1..) = self.read.read(&mut scratch).await {}
    }

    fn read<S: Sink>(&mut self, cx: &mut Context<'_>, sink: &mut S) -> Poll<End> {
        for _ in 0..READ_BUDGET {
            let given = SCRATCH.with_borrow_mut(|scratch| {
                let mut buf = ReadBuf::new(scratch);
                match ready!(Pin::new(&mut self.read).poll_read(cx, &mut buf)) {
                    Ok(()) if buf.filled().is_empty() => {
                        Poll::Ready(Err(End::Lost("the peer closed without a word".into())))
                    }
                    Ok(()) => {
                        let filled = buf.filled();
                        Poll::Ready(give(&mut self.carriage, &self.legacy, filled, sink))
                    }
                    Err(e) => Poll::Ready(Err(End::Lost(e.to_string()))),
                }
            });
            if let Err(end) = ready!(given) {
                return Poll::Ready(end);
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// Takes bytes apart and gives the whole frames among them to the sink.
fn give<S: Sink>(
    carriage: &mut Option<Carriage>,
    legacy: &AtomicBool,
    bytes: &[u8],
    sink: &mut S,
) -> Result<(), End> {
    let stop = |stop: Stop| End::Stopped(stop);
    if carriage.is_none() {
        *carriage = Some(match bytes[0] {
            record::FIRST_BYTE => Carriage::Records(RecordBuffer::default()),
            Hello::KIND => {
                legacy.store(true, Ordering::Release);
                Carriage::Bare(FrameBuffer::default())
            }
            // A client knows what it speaks; what it reads first may be any frame.
            _ if legacy.load(Ordering::Acquire) => Carriage::Bare(FrameBuffer::default()),
            other => {
                return Err(stop(Stop::new(
                    CloseCode::Protocol,
                    format!(
                        "the first byte is 0x{other:02x}; 0x00 begins records, 0x01 a bare Hello"
                    ),
                )));
            }
        });
    }
    match carriage {
        Some(Carriage::Records(records)) => {
            records.push(bytes);
            while let Some((lane, mut record)) =
                records.next_record().map_err(|e| stop(e.into()))?
            {
                while let Some(frame) = split(&mut record).map_err(|e| stop(e.into()))? {
                    one(lane, frame, sink)?;
                }
                if !record.is_empty() {
                    return Err(stop(Stop::new(
                        CloseCode::Protocol,
                        "a record ends inside a frame",
                    )));
                }
            }
        }
        Some(Carriage::Bare(frames)) => {
            frames.push(Bytes::copy_from_slice(bytes));
            while let Some(frame) = frames.next_frame().map_err(|e| stop(e.into()))? {
                if frame.kind == Open::KIND {
                    let open = Open::parse(frame.body.clone()).map_err(|e| stop(e.into()))?;
                    if open.session != u64::from(BARE_SESSION) {
                        let reason = "a bare connection has one Session, number 1";
                        return Err(stop(Stop::new(CloseCode::TooManySessions, reason)));
                    }
                }
                one(bare_lane(&frame), frame, sink)?;
            }
        }
        None => {}
    }
    Ok(())
}

fn one<S: Sink>(lane: Lane, frame: RawFrame, sink: &mut S) -> Result<(), End> {
    if lane.is_control() && frame.kind == Close::KIND {
        return Err(match Close::parse(frame.body) {
            Ok(close) => End::Peer {
                code: CloseCode::from_code(close.code),
                reason: close.reason.to_string(),
                retry_after_ms: close.retry_after_ms,
            },
            Err(e) => End::Stopped(e.into()),
        });
    }
    sink.frame(lane, frame).map_err(End::Stopped)
}

/// The only Session of a bare connection.
const BARE_SESSION: u8 = 1;

/// The lane that a frame would have travelled on: its kind says whether it is the Session's, and
/// messages say their class.
fn bare_lane(frame: &RawFrame) -> Lane {
    let class = match frame.kind {
        Send::KIND | Deliver::KIND | Behind::KIND | Gap::KIND => varint::get(&frame.body)
            .and_then(|(_, len)| frame.body.get(len).copied())
            .and_then(Class::from_wire)
            .unwrap_or_default(),
        _ => Class::Signal,
    };
    let of_session =
        frame.kind >= Open::KIND && ![Renew::KIND, Renewed::KIND].contains(&frame.kind);
    if of_session { Lane::new(BARE_SESSION, class) } else { Lane::CONTROL }
}

/// Writes to a connection.
#[derive(Debug)]
pub struct Sender {
    write: WriteHalf<Stream>,
    legacy: Arc<AtomicBool>,
}

impl Sender {
    pub(crate) async fn send(&mut self, lane: Lane, frames: &mut [Bytes]) -> Result<(), SendError> {
        // One write; the copy is small beside the encryption that follows.
        let mut out = BytesMut::new();
        if self.legacy.load(Ordering::Acquire) {
            frames.iter().for_each(|frames| out.put_slice(frames));
        } else if lane.is_control() || lane.class == Class::Signal {
            put_records(&mut out, lane, frames, RECORD_BYTES);
        } else {
            put_records(&mut out, lane, frames, LOW_RECORD_BYTES);
        }
        self.write.write_all(&out).await.map_err(lost)
    }

    pub(crate) async fn flush(&mut self) -> Result<(), SendError> {
        self.write.flush().await.map_err(lost)
    }

    pub(crate) async fn close(mut self, code: CloseCode, reason: &str, retry_after_ms: u64) {
        let reason = &reason[..reason.floor_char_boundary(REASON_BYTES)];
        let frame = Close { code: code.code(), retry_after_ms, reason: reason.into() };
        if self.send(Lane::CONTROL, &mut [frame.to_bytes()]).await.is_ok() {
            // Ends TLS properly and then TCP; where the peer is gone there is nobody to tell.
            let _ = self.write.shutdown().await;
        }
    }
}

/// Lays frames into records of `most` bytes at most, or of one frame where that is larger.
fn put_records(out: &mut BytesMut, lane: Lane, frames: &[Bytes], most: usize) {
    let len: usize = frames.iter().map(Bytes::len).sum();
    out.reserve(len + 4 * (len / most + 1));
    if len <= most {
        record::put_header(out, lane, len);
        frames.iter().for_each(|frames| out.put_slice(frames));
        return;
    }
    let all = frames.concat();
    let mut rest = all.as_slice();
    while !rest.is_empty() {
        let (record, behind) = rest.split_at(whole_frames(rest, most));
        record::put_header(out, lane, record.len());
        out.put_slice(record);
        rest = behind;
    }
}

/// Bytes of the frames at the front of `all` that fit into `most`, of the first in any case.
fn whole_frames(all: &[u8], most: usize) -> usize {
    let mut end = 0;
    while let Ok(Some((header, body))) = measure(&all[end..])
        && end + header + body <= all.len()
        && (end == 0 || end + header + body <= most)
    {
        end += header + body;
    }
    // Whole frames are all that is ever written.
    if end == 0 { all.len() } else { end }
}

fn lost(e: io::Error) -> SendError {
    SendError(e.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use edgeway_proto::frame::Ping;

    use super::*;

    /// The lengths of the records that frames are laid into, and all that is in them.
    fn records(frames: &[Bytes], most: usize) -> (Vec<usize>, Vec<u8>) {
        let lane = Lane::new(1, Class::Chat);
        let mut out = BytesMut::new();
        put_records(&mut out, lane, frames, most);
        let mut buffer = RecordBuffer::default();
        buffer.push(&out);
        let (mut lens, mut all) = (Vec::new(), Vec::new());
        while let Some((of, record)) = buffer.next_record().unwrap() {
            assert_eq!(of, lane);
            lens.push(record.len());
            all.extend_from_slice(&record);
        }
        (lens, all)
    }

    #[test]
    fn records_of_low_lanes_are_small_and_hold_whole_frames() {
        let frame = Ping { token: 1 }.to_bytes();
        let three = Bytes::from(frame.repeat(3));
        let frames = [three.clone(), frame.clone(), three];
        let n = frame.len();
        assert_eq!(records(&frames, 2 * n + 1), (vec![2 * n, 2 * n, 2 * n, n], frames.concat()));
        assert_eq!(records(&frames, 7 * n), (vec![7 * n], frames.concat()));
        assert_eq!(records(&frames, 1).0, [n; 7], "one frame at least");
    }
}
