//! Lanes over QUIC: the control lane is the client's first bidirectional stream, a Session's
//! signal lane is a bidirectional stream of its own, and binary and chat lanes are a unidirectional
//! stream each, opened by who sends on it.

pub(crate) mod early;
mod sender;

use std::{
    fmt,
    future::Future,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use edgeway_proto::{
    Class, CloseCode, FrameBuffer, Lane, RawFrame,
    frame::{Close, LaneStart, Open, split},
};
use parking_lot::Mutex;
use quinn::{ConnectionError, ReadError, RecvStream, SendStream, Side, VarInt};
use tokio::time::{Instant, Sleep, sleep_until};

pub use early::{Early, Settled};
pub use sender::Sender;

use early::Farewell;

use crate::{
    Connection, End, Path, Sink, Stop, Transport,
    half::{Receiver as AnyReceiver, Sender as AnySender},
    repair::{Reorder, repaired, take_copy},
};

/// A stream that was opened must say within this time whose lane it is.
const SILENT_STREAM: Duration = Duration::from_secs(10);

/// Chunks read before other tasks get a turn.
const READ_BUDGET: usize = 12;

/// Stream priorities, strict between levels: control, then the classes in their order.
fn priority(lane: Lane) -> i32 {
    match (lane.is_control(), lane.class) {
        (true, _) => 3,
        (_, Class::Signal) => 2,
        (_, Class::Binary) => 1,
        (_, Class::Chat) => 0,
    }
}

fn wire_code(code: CloseCode) -> VarInt {
    VarInt::from_u64(code.code()).unwrap_or(VarInt::MAX)
}

/// What the two halves hand each other: the halves of bidirectional streams.
#[derive(Default)]
struct Handover {
    /// Server: send halves of streams that the client opened.
    sends: Vec<(u8, SendStream)>,
    /// Client: receive halves of streams that the sender opened.
    recvs: Vec<(Lane, RecvStream)>,
    /// Woken when `recvs` grows.
    receiver: Option<Waker>,
}

impl fmt::Debug for Handover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Handover")
    }
}

/// Makes the two halves of an established QUIC connection.
pub(crate) fn connection(conn: quinn::Connection) -> Connection {
    Halves { farewell: Farewell::new(&conn), conn }.connection()
}

/// What the two halves are made from.
struct Halves {
    conn: quinn::Connection,
    farewell: Option<Arc<Farewell>>,
}

impl Halves {
    fn connection(self) -> Connection {
        let Self { conn, farewell } = self;
        let shared = Arc::new(Mutex::new(Handover::default()));
        let path = Arc::new(Path::default());
        let remote = conn.remote_address();
        Connection {
            receiver: AnyReceiver::Quic(Box::new(Receiver {
                conn: conn.clone(),
                shared: Arc::clone(&shared),
                streams: Vec::new(),
                opened: 1,
                silence: None,
                path: Arc::clone(&path),
            })),
            sender: AnySender::Quic(Box::new(Sender::new(conn, shared, path, farewell))),
            remote,
            transport: Transport::Quic,
            early: None,
        }
    }
}

/// One stream that is read.
#[derive(Debug)]
struct Incoming {
    stream: RecvStream,
    /// `None` until the first frame has said it.
    lane: Option<Lane>,
    /// The other half of a Session's stream, until its number is known.
    send: Option<SendStream>,
    frames: FrameBuffer,
    /// Brings frames and their copies together, on lanes that are repaired.
    reorder: Reorder,
    deadline: Instant,
}

/// Reads all streams of a connection, in one task.
#[derive(Debug)]
pub struct Receiver {
    conn: quinn::Connection,
    shared: Arc<Mutex<Handover>>,
    /// Few: one for control, three for each Session.
    streams: Vec<Incoming>,
    /// Sessions whose own stream has come, by bit. A lane that comes before waits for it.
    opened: u64,
    /// Runs while there is a stream that has not said whose it is, or whose Session is not open.
    silence: Option<Pin<Box<Sleep>>>,
    path: Arc<Path>,
}

/// What became of one stream in one turn.
enum Turn {
    /// Read all there is.
    Idle,
    /// It is over and to be forgotten.
    Ended,
    /// It was refused and has been forgotten.
    Refused,
    /// The connection is over.
    Over(End),
}

impl Receiver {
    pub(crate) async fn run<S: Sink>(&mut self, sink: &mut S) -> End {
        let conn = self.conn.clone();
        let mut bidi = pin!(conn.accept_bi());
        let mut uni = pin!(conn.accept_uni());
        let mut datagram = pin!(conn.read_datagram());
        std::future::poll_fn(|cx| {
            loop {
                match bidi.as_mut().poll(cx) {
                    Poll::Ready(Ok((send, recv))) => {
                        self.accept_bidi(send, recv);
                        bidi.set(conn.accept_bi());
                    }
                    Poll::Ready(Err(e)) => return Poll::Ready(ended(&e)),
                    Poll::Pending => break,
                }
            }
            loop {
                match uni.as_mut().poll(cx) {
                    Poll::Ready(Ok(recv)) => {
                        self.add(None, None, recv);
                        uni.set(conn.accept_uni());
                    }
                    Poll::Ready(Err(e)) => return Poll::Ready(ended(&e)),
                    Poll::Pending => break,
                }
            }
            self.take_opened(cx);
            let mut result = self.read(cx, sink);
            while result.is_pending()
                && let Poll::Ready(copies) = datagram.as_mut().poll(cx)
            {
                result = match copies {
                    Ok(copies) => self.copies(copies, sink),
                    Err(e) => Poll::Ready(ended(&e)),
                };
                datagram.set(conn.read_datagram());
            }
            sink.flush();
            if result.is_pending() {
                self.watch_silence(cx);
            }
            result
        })
        .await
    }

    fn accept_bidi(&mut self, send: SendStream, recv: RecvStream) {
        if send.id().index() == 0 {
            self.shared.lock().sends.push((0, send));
            self.add(Some(Lane::CONTROL), None, recv);
        } else {
            self.add(None, Some(send), recv);
        }
    }

    /// Streams that the sending half opened (client only).
    fn take_opened(&mut self, cx: &Context<'_>) {
        if self.conn.side() == Side::Server {
            return;
        }
        let mut shared = self.shared.lock();
        match &mut shared.receiver {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        let opened = std::mem::take(&mut shared.recvs);
        drop(shared);
        for (lane, recv) in opened {
            self.opened |= 1 << lane.session;
            self.add(Some(lane), None, recv);
        }
    }

    fn add(&mut self, lane: Option<Lane>, send: Option<SendStream>, stream: RecvStream) {
        let deadline = Instant::now() + SILENT_STREAM;
        // Few: an idle connection holds no room for more.
        self.streams.reserve_exact(1);
        self.streams.push(Incoming {
            stream,
            lane,
            send,
            frames: FrameBuffer::default(),
            reorder: Reorder::default(),
            deadline,
        });
        // What is urgent is read first. Streams that have not said whose they are may be urgent.
        self.streams.sort_by_key(|s| s.lane.map(|lane| -priority(lane)));
    }

    fn read<S: Sink>(&mut self, cx: &mut Context<'_>, sink: &mut S) -> Poll<End> {
        let mut budget = READ_BUDGET;
        let opened = self.opened;
        let mut at = 0;
        while at < self.streams.len() {
            if self.waits(&self.streams[at]) {
                at += 1;
                continue;
            }
            match self.read_stream(at, cx, sink, &mut budget) {
                Turn::Idle => at += 1,
                Turn::Ended => {
                    let stream = self.streams.remove(at);
                    if let Some(lane) = stream.lane {
                        sink.ended(lane);
                    }
                }
                Turn::Refused => {}
                Turn::Over(end) => return Poll::Ready(end),
            }
            if budget == 0 {
                break;
            }
        }
        if budget == 0 || opened != self.opened {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// Whether a stream cannot be read on: its Session's own stream has not come yet.
    fn waits(&self, stream: &Incoming) -> bool {
        stream.lane.is_some_and(|lane| self.opened & (1 << lane.session) == 0)
    }

    fn read_stream<S: Sink>(
        &mut self,
        at: usize,
        cx: &mut Context<'_>,
        sink: &mut S,
        budget: &mut usize,
    ) -> Turn {
        // What came before its Session did.
        if let Err(end) = self.give(at, sink) {
            return end;
        }
        while *budget > 0 {
            let incoming = &mut self.streams[at];
            let chunk = match pin!(incoming.stream.read_chunk(usize::MAX, true)).poll(cx) {
                Poll::Ready(Ok(Some(chunk))) => chunk.bytes,
                Poll::Ready(Ok(None)) if incoming.frames.mid_frame() => {
                    return Turn::Over(End::Stopped(Stop::new(
                        CloseCode::Protocol,
                        "a stream ended inside a frame",
                    )));
                }
                Poll::Ready(Ok(None) | Err(ReadError::Reset(_) | ReadError::ClosedStream)) => {
                    return Turn::Ended;
                }
                Poll::Ready(Err(ReadError::ConnectionLost(e))) => return Turn::Over(ended(&e)),
                Poll::Ready(Err(e)) => return Turn::Over(End::Lost(e.to_string())),
                Poll::Pending => return Turn::Idle,
            };
            *budget -= 1;
            incoming.frames.push(chunk);
            if let Err(end) = self.give(at, sink) {
                return end;
            }
        }
        Turn::Idle
    }

    /// Gives the whole frames of a stream to the sink.
    fn give<S: Sink>(&mut self, at: usize, sink: &mut S) -> Result<(), Turn> {
        let over = |stop: Stop| Turn::Over(End::Stopped(stop));
        loop {
            let incoming = &mut self.streams[at];
            let Some(frame) = incoming.frames.next_frame().map_err(|e| over(e.into()))? else {
                return Ok(());
            };
            let lane = match incoming.lane {
                Some(lane) => lane,
                None => match self.assign(at, &frame)? {
                    Some(lane) => lane,
                    // LaneStart is for us alone. What follows may have to wait.
                    None if self.waits(&self.streams[at]) => return Err(Turn::Idle),
                    None => continue,
                },
            };
            if repaired(lane).is_some() {
                let frame = self.streams[at].reorder.stream(frame);
                self.pass_on(at, lane, frame, sink)?;
            } else {
                sink.frame(lane, frame).map_err(over)?;
            }
        }
    }

    /// Gives a frame whose turn has come, and those that waited for it.
    fn pass_on<S: Sink>(
        &mut self,
        at: usize,
        lane: Lane,
        first: Option<RawFrame>,
        sink: &mut S,
    ) -> Result<(), Turn> {
        let mut next = first;
        while let Some(frame) = next {
            if lane.is_control() && frame.kind == Close::KIND {
                return Err(Turn::Over(closed_by(frame)));
            }
            sink.frame(lane, frame).map_err(|stop| Turn::Over(End::Stopped(stop)))?;
            next = self.streams[at].reorder.released();
            if next.is_some() {
                self.path.copy_was_first();
            }
        }
        Ok(())
    }

    /// Copies of frames that may have been lost. Those of lanes that have not begun here are left
    /// to their streams.
    fn copies<S: Sink>(&mut self, mut datagram: Bytes, sink: &mut S) -> Poll<End> {
        while let Some((lane, first, mut frames)) = take_copy(&mut datagram) {
            let at = self.streams.iter().position(|s| s.lane == Some(lane) && !self.waits(s));
            let Some(at) = at.filter(|_| repaired(lane).is_some()) else { continue };
            let mut number = first;
            loop {
                let frame = match split(&mut frames) {
                    Ok(Some(frame)) => frame,
                    Ok(None) => break,
                    Err(e) => return Poll::Ready(End::Stopped(e.into())),
                };
                let frame = self.streams[at].reorder.copy(number, frame);
                self.path.copy_came();
                if frame.is_some() {
                    self.path.copy_was_first();
                }
                number += 1;
                if let Err(Turn::Over(end)) = self.pass_on(at, lane, frame, sink) {
                    return Poll::Ready(end);
                }
            }
        }
        Poll::Pending
    }

    /// Learns from its first frame whose lane a stream is. `None` where the frame is not to be
    /// passed on.
    fn assign(&mut self, at: usize, frame: &RawFrame) -> Result<Option<Lane>, Turn> {
        let over = |stop: Stop| Turn::Over(End::Stopped(stop));
        let bidirectional = self.streams[at].send.is_some();
        let (session, class) = if bidirectional && frame.kind == Open::KIND {
            let open = Open::parse(frame.body.clone()).map_err(|e| over(e.into()))?;
            (open.session, Class::Signal)
        } else if !bidirectional && frame.kind == LaneStart::KIND {
            let start = LaneStart::parse(frame.body.clone()).map_err(|e| over(e.into()))?;
            (start.session, start.class)
        } else {
            return Err(over(Stop::new(
                CloseCode::Protocol,
                "the first frame of a stream must be Open (bidirectional) or LaneStart (unidirectional)",
            )));
        };
        let lane = match u8::try_from(session) {
            Ok(n @ 1..=63) if bidirectional || class != Class::Signal => Lane::new(n, class),
            _ => {
                return Err(over(Stop::new(
                    CloseCode::Protocol,
                    "a stream of a Session numbered outside of 1 to 63, or of class signal without a Session's own stream",
                )));
            }
        };
        let used = bidirectional && self.opened & (1 << lane.session) != 0;
        if used || self.streams.iter().any(|s| s.lane == Some(lane)) {
            let mut refused = self.streams.remove(at);
            let _ = refused.stream.stop(wire_code(CloseCode::SessionInUse));
            if let Some(mut send) = refused.send.take() {
                let _ = send.reset(wire_code(CloseCode::SessionInUse));
            }
            return Err(Turn::Refused);
        }
        let incoming = &mut self.streams[at];
        incoming.lane = Some(lane);
        if let Some(send) = incoming.send.take() {
            self.opened |= 1 << lane.session;
            self.shared.lock().sends.push((lane.session, send));
        }
        Ok(bidirectional.then_some(lane))
    }

    /// Refuses streams that stay silent too long.
    fn watch_silence(&mut self, cx: &mut Context<'_>) {
        let opened = self.opened;
        let silent = |s: &Incoming| s.lane.is_none_or(|l| opened & (1 << l.session) == 0);
        loop {
            let Some(first) = self.streams.iter().filter(|s| silent(s)).map(|s| s.deadline).min()
            else {
                self.silence = None;
                return;
            };
            let sleep = self.silence.get_or_insert_with(|| Box::pin(sleep_until(first)));
            if sleep.deadline() != first {
                sleep.as_mut().reset(first);
            }
            if sleep.as_mut().poll(cx).is_pending() {
                return;
            }
            self.streams.retain_mut(|s| {
                let expired = silent(s) && s.deadline <= first;
                if expired {
                    let code =
                        if s.lane.is_some() { CloseCode::NotOpen } else { CloseCode::OpenTimeout };
                    let _ = s.stream.stop(wire_code(code));
                    if let Some(send) = &mut s.send {
                        let _ = send.reset(wire_code(code));
                    }
                }
                !expired
            });
        }
    }
}

fn closed_by(frame: RawFrame) -> End {
    match Close::parse(frame.body) {
        Ok(close) => End::Peer {
            code: CloseCode::from_code(close.code),
            reason: close.reason.to_string(),
            retry_after_ms: close.retry_after_ms,
        },
        Err(e) => End::Stopped(e.into()),
    }
}

fn ended(e: &ConnectionError) -> End {
    match e {
        ConnectionError::ApplicationClosed(close) => End::Peer {
            code: CloseCode::from_code(close.error_code.into_inner()),
            reason: String::from_utf8_lossy(&close.reason).into_owned(),
            retry_after_ms: 0,
        },
        ConnectionError::LocallyClosed => End::Local,
        other => End::Lost(other.to_string()),
    }
}
