//! The frames of the client protocol. `WIRE.md` is the same list in words.
//!
//! A frame is `kind: u8, length: varint, body`. Kinds below 0x40 are between the client and the
//! gateway; 0x40 to 0xbf are between the client and the backend of a Session and pass through
//! the gateway unread; 0xc0 to 0xff are skipped by a receiver that does not know them.

use bytes::{BufMut, Bytes, BytesMut};

use crate::{
    AckStatus, Class, DecodeError, Rest, Seq, Text,
    assemble::Assembler,
    limits, varint,
    wire::{FieldError, frames},
};

/// The version that this crate speaks.
pub const VERSION: u64 = 1;

/// ALPN of the protocol, on QUIC and on TLS over TCP.
pub const ALPN: &[u8] = b"edgeway/1";

/// The first kind that belongs to a Session's backend rather than to the gateway.
pub const FIRST_SESSION_KIND: u8 = 0x40;

/// The first kind that this protocol never gives a meaning: up to [`FIRST_SKIPPED_KIND`] a backend's
/// own.
pub const FIRST_OWN_KIND: u8 = 0x80;

/// The first kind that may be skipped unknown.
pub const FIRST_SKIPPED_KIND: u8 = 0xc0;

/// Numbers of the parameters in [`Hello`] and [`Welcome`].
pub mod param {
    /// Credit, in bytes, that the sender of the parameter grants on each signal lane at first.
    pub const CREDIT_SIGNAL: u64 = 1;
    /// The same for binary lanes.
    pub const CREDIT_BINARY: u64 = 2;
    /// The same for chat lanes.
    pub const CREDIT_CHAT: u64 = 3;
    /// Milliseconds without any frame after which the sender gives the connection up.
    pub const IDLE_MS: u64 = 4;
    /// Sessions that may be open at a time.
    pub const SESSIONS: u64 = 5;
    /// Rooms that one Session may join.
    pub const ROOMS: u64 = 6;
    /// 1: the sender understands datagrams with copies of frames.
    pub const REPAIR: u64 = 7;
    /// Milliseconds that a lost connection's place in its rooms is kept; 0 for not at all.
    pub const GRACE_MS: u64 = 8;
    /// 1: the gateway takes [`Renew`](super::Renew).
    pub const RENEW: u64 = 9;
}

/// How a [`Login`] proves who the user is.
pub mod method {
    /// By word alone: development only.
    pub const DEVELOPMENT: u64 = 0;
    /// `secret` is a password.
    pub const PASSWORD: u64 = 1;
    /// `secret` is a signed token.
    pub const TOKEN: u64 = 2;
    /// `secret` is the session token of an earlier [`LoggedIn`](super::LoggedIn).
    pub const RESUME: u64 = 3;
}

/// Flags of a [`Join`].
pub mod join_flag {
    /// Send only: nothing is delivered, and the sender is no member that others see.
    pub const SEND_ONLY: u64 = 1;
}

/// Flags of a [`Page`].
pub mod page_flag {
    /// There is more after the last message of this page.
    pub const MORE: u64 = 1;
    /// What followed `after` is no longer kept: a gap that cannot be refilled.
    pub const TRUNCATED: u64 = 2;
}

/// Flags of a [`Presence`].
pub mod presence_flag {
    /// The room is too large for names: only the count is told.
    pub const COUNT_ONLY: u64 = 1;
}

frames! {
    /// First frame of a client, on the control lane.
    Hello = 0x01 {
        /// Lowest version that the client speaks.
        version_min: u64,
        /// Highest version that the client speaks.
        version_max: u64,
        /// Name and version of the client, for logs.
        agent: Text,
        /// The ticket of dispatch; empty where there is none.
        token: Bytes,
        /// Parameters, see [`param`]; unknown ones are ignored.
        params: Vec<(u64, u64)>,
    }
    /// The gateway's answer to hello.
    Welcome = 0x02 {
        /// The version that both will speak.
        version: u64,
        /// Names the connection in the gateway's logs.
        connection: u64,
        /// Milliseconds since 1970 on the gateway's clock.
        time_ms: u64,
        /// Parameters, see [`param`].
        params: Vec<(u64, u64)>,
    }
    /// Who the client is.
    Login = 0x03 {
        /// See [`method`].
        method: u64,
        /// The user's name; may be empty with a token that says it.
        user: Text as name,
        /// Names this installation of the app; the user's other devices have others.
        device: Text as name,
        /// Password, token or session token; at most 8 KiB.
        secret: Bytes,
    }
    /// The login was accepted.
    LoggedIn = 0x04 {
        /// The user's name.
        user: Text as name,
        /// Milliseconds since 1970 at which the login ends; 0 for never.
        expires_ms: u64,
        /// Generation of the Session: a newer connection of the same device has a higher one.
        generation: u64,
        /// The session token, with which a later connection resumes; empty where it cannot.
        token: Bytes,
    }
    /// Asks for a pong. Either side, at any time.
    Ping = 0x05 {
        /// Comes back in the pong.
        token: u64,
    }
    /// Answers a ping.
    Pong = 0x06 {
        /// From the ping.
        token: u64,
    }
    /// Allows the peer to have sent `total` bytes on a lane since it began.
    Credit = 0x07 {
        /// Session of the lane.
        session: u64 as session,
        /// Class of the lane.
        class: Class,
        /// Bytes of whole frames since the lane began. Never shrinks.
        total: u64,
    }
    /// The server will close soon: finish, and connect anew.
    GoAway = 0x08 {
        /// A close code that says why.
        code: u64,
        /// Milliseconds to wait before connecting anew; the client adds a random part.
        reconnect_after_ms: u64,
        /// Where to connect to, host:port; empty for anywhere.
        endpoint: Text,
    }
    /// Last frame of a connection.
    Close = 0x09 {
        /// See [`crate::CloseCode`].
        code: u64,
        /// Milliseconds after which the client may come back; 0 leaves it to the code.
        retry_after_ms: u64,
        /// For a person.
        reason: Text,
    }
    /// The session token is not good (any more): the client logs in by another method, on the same
    /// connection. What it has sent meanwhile stands.
    ResumeRefused = 0x0c {
        /// For a person.
        reason: Text,
    }
    /// Opens a Session: the first frame of its bidirectional stream.
    Open = 0x10 {
        /// 1 to 63, chosen by the client.
        session: u64 as session,
        /// Name of the Session type: `chat`, `im`, `research_push`, `push`, `passthrough`, or another.
        kind: Text as name,
        /// For the backend, and for routing.
        headers: Vec<(Text, Text)>,
    }
    /// The Session is open.
    Opened = 0x11 {
        /// Its number.
        session: u64 as session,
    }
    /// The Session ended; the connection goes on.
    CloseSession = 0x12 {
        /// Its number.
        session: u64 as session,
        /// See [`crate::CloseCode`].
        code: u64,
        /// Milliseconds after which it may be opened anew; 0 leaves it to the code.
        retry_after_ms: u64,
        /// For a person.
        reason: Text,
    }
    /// First frame of a unidirectional QUIC stream: whose lane it carries.
    LaneStart = 0x13 {
        /// The Session.
        session: u64 as session,
        /// Binary or chat.
        class: Class as low,
    }
    /// Live deliveries of a group and class stopped for this client: it must page history.
    Behind = 0x18 {
        /// The group.
        group: u64,
        /// The class.
        class: Class,
        /// The latest position there is.
        head: Seq,
    }
    /// The client has everything up to `last`.
    CaughtUp = 0x19 {
        /// The group.
        group: u64,
        /// The class.
        class: Class,
        /// The last position the client has.
        last: Seq,
    }
    /// What the client has not got up to `upto`, it will not get: shed for this connection.
    Gap = 0x1a {
        /// The group.
        group: u64,
        /// The class.
        class: Class,
        /// The last position that was shed.
        upto: Seq,
    }
    /// A request failed.
    Error = 0x40 {
        /// Number of the request; 0 where it belongs to none.
        request: u64,
        /// See [`crate::ErrorCode`].
        code: u64,
        /// Milliseconds after which it may be tried again; 0 leaves it to the code.
        retry_after_ms: u64,
        /// For a person.
        detail: Text,
    }
    /// Joins a room.
    Join = 0x41 {
        /// Number of the request, chosen by the client, not 0.
        request: u64,
        /// See [`join_flag`].
        flags: u64,
        /// The room's name; on an IM Session the user's, where `@me` is one's own inbox.
        room: Text as name,
        /// What the client has already, by class; a class left out starts live.
        positions: Vec<(Class, Seq)> as positions,
    }
    /// The room was joined.
    Joined = 0x42 {
        /// Number of the request.
        request: u64,
        /// The room's name.
        room: Text as name,
        /// The group's handle: what all other frames call the room.
        group: u64,
        /// Members, each user counted once.
        members: u64,
        /// Version of the member list; presence continues from it.
        presence_version: u64,
        /// For each class, signal, binary, chat: the latest position, and the last message id
        /// that was accepted from this device (0 for none).
        classes: Vec<(Seq, u64)>,
        /// Room state: whole [`Deliver`] frames, the latest of each key.
        state: Rest,
    }
    /// Leaves a room.
    Leave = 0x43 {
        /// Number of the request.
        request: u64,
        /// The group.
        group: u64,
    }
    /// The room was left, by request or by force.
    Left = 0x44 {
        /// Number of the request; 0 where nobody asked.
        request: u64,
        /// The group.
        group: u64,
        /// Close code that says why.
        code: u64,
        /// For a person.
        reason: Text,
    }
    /// A message for a room.
    Send = 0x45 {
        /// The group.
        group: u64,
        /// Its class; the same as the lane's.
        class: Class,
        /// Message id: one more than the last of this device, room and class.
        id: u64,
        /// Milliseconds since 1970 after which it is not delivered any more; 0 for never.
        expires_ms: u64,
        /// For a signal: the room keeps the latest of each key as its state. Empty for none.
        key: Text as name,
        /// What to deliver.
        payload: Rest,
    }
    /// What became of a message.
    Ack = 0x46 {
        /// The group.
        group: u64,
        /// The class.
        class: Class,
        /// The message id.
        id: u64,
        /// What became of it.
        status: AckStatus,
        /// Its position; 0-0 where it has none.
        seq: Seq,
        /// With [`AckStatus::OutOfOrder`]: the id that would be accepted.
        expected: u64,
    }
    /// A message of a room. The same bytes for every member.
    Deliver = 0x47 {
        /// The group.
        group: u64,
        /// The class.
        class: Class,
        /// Its position.
        seq: Seq,
        /// Milliseconds since 1970 on the owner's clock when it was accepted.
        time_ms: u64,
        /// Milliseconds since 1970 after which it is void; 0 for never.
        expires_ms: u64,
        /// For chat: messages of the room that its policy has shed so far, in this epoch.
        shed: u64,
        /// The user who sent it; empty for the system.
        sender: Text as name,
        /// The key of room state that it sets; empty for none.
        key: Text as name,
        /// What was sent.
        payload: Rest,
    }
    /// Asks for a page of history.
    History = 0x48 {
        /// Number of the request.
        request: u64,
        /// The group.
        group: u64,
        /// The class.
        class: Class,
        /// Only what follows this position.
        after: Seq,
        /// Messages at most; 0 for as many as fit.
        limit: u64,
    }
    /// A page of history.
    Page = 0x49 {
        /// Number of the request.
        request: u64,
        /// The group.
        group: u64,
        /// The class.
        class: Class,
        /// See [`page_flag`].
        flags: u64,
        /// Where the next page starts: everything up to here is in this page or void.
        upto: Seq,
        /// The latest position there is.
        head: Seq,
        /// Whole [`Deliver`] frames, oldest first.
        messages: Rest,
    }
    /// Asks for a page of the member list.
    Members = 0x4a {
        /// Number of the request.
        request: u64,
        /// The group.
        group: u64,
        /// Only names after this one, by byte order; empty for the first page.
        after: Text as name,
        /// Names at most; 0 for as many as fit.
        limit: u64,
    }
    /// A page of the member list.
    MemberPage = 0x4b {
        /// Number of the request.
        request: u64,
        /// The group.
        group: u64,
        /// Members in all.
        total: u64,
        /// Version of the list at this page.
        presence_version: u64,
        /// 1 where more follow the last name.
        more: u64,
        /// Names in byte order.
        users: Vec<Text> as names,
    }
    /// Who came and went since the version before.
    Presence = 0x4c {
        /// The group.
        group: u64,
        /// Grows by one each time; a client that misses one reads the list anew.
        version: u64,
        /// See [`presence_flag`].
        flags: u64,
        /// Members after this change.
        members: u64,
        /// Users who came.
        joined: Vec<Text> as names,
        /// Users who went.
        left: Vec<Text> as names,
    }
    /// The login of this connection goes on by another proof. Of a kind that is skipped unknown.
    Renew = 0xc0 {
        /// See [`method`]; password or token.
        method: u64,
        /// Password or token; at most 8 KiB.
        secret: Bytes,
    }
    /// Answers [`Renew`].
    Renewed = 0xc1 {
        /// 0 where it was accepted, else the [`crate::CloseCode`] that a login would have got.
        code: u64,
        /// Milliseconds since 1970 at which the login ends; 0 for never.
        expires_ms: u64,
        /// The session token, in place of the last one; empty where there is none.
        token: Bytes,
        /// For a person; empty where it was accepted.
        reason: Text,
    }
}

/// Appends a frame whose body is written by `body`. The length takes 2 bytes up to a body of
/// 16,383 bytes and 4 above, so that the body need not be moved in the common case.
pub(crate) fn envelope(kind: u8, out: &mut BytesMut, body: impl FnOnce(&mut BytesMut)) {
    out.put_u8(kind);
    let at = out.len();
    out.put_u16(0);
    body(out);
    let len = out.len() - at - 2;
    if len < 0x4000 {
        let header = (0x4000u16 | u16::try_from(len).unwrap_or(0x3fff)).to_be_bytes();
        out[at..at + 2].copy_from_slice(&header);
    } else {
        // The header is longer than was left free, so the body moves.
        let body = out.split_off(at + 2);
        out.truncate(at);
        varint::put(out, len as u64);
        out.put_slice(&body);
    }
}

pub(crate) fn at(e: FieldError, frame: &'static str, field: &'static str) -> DecodeError {
    match e {
        FieldError::Truncated => DecodeError::Truncated { frame, field },
        FieldError::Invalid(problem) => DecodeError::Invalid { frame, field, problem },
    }
}

/// A frame that was cut out of a stream but not read: its kind, its body, and all its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawFrame {
    /// What [`Frame::parse`] takes.
    pub kind: u8,
    /// The fields.
    pub body: Bytes,
    /// Kind, length and body, for passing on unread.
    pub whole: Bytes,
}

impl RawFrame {
    /// Reads the fields.
    ///
    /// # Errors
    /// See [`Frame::parse`].
    pub fn parse(&self) -> Result<Frame, DecodeError> {
        Frame::parse(self.kind, self.body.clone())
    }
}

/// The length of the header and the body of the frame at the front of `input`; `None` where more
/// bytes are needed to tell.
///
/// # Errors
/// A body above [`limits::FRAME_BODY_BYTES`].
pub fn measure(input: &[u8]) -> Result<Option<(usize, usize)>, DecodeError> {
    let Some((len, len_len)) = input.get(1..).and_then(varint::get) else {
        return Ok(None);
    };
    match usize::try_from(len) {
        Ok(body) if body <= limits::FRAME_BODY_BYTES => Ok(Some((1 + len_len, body))),
        _ => Err(DecodeError::TooLarge { what: "frame", len, max: limits::FRAME_BODY_BYTES }),
    }
}

/// Cuts the frame at the front of `input` off; `None` where it is not all there yet.
///
/// # Errors
/// A frame above the limit.
pub fn split(input: &mut Bytes) -> Result<Option<RawFrame>, DecodeError> {
    let Some((header, body)) = measure(input)? else { return Ok(None) };
    if input.len() < header + body {
        return Ok(None);
    }
    let kind = input[0];
    let whole = input.split_to(header + body);
    Ok(Some(RawFrame { kind, body: whole.slice(header..), whole }))
}

/// Turns a stream of chunks into frames. Frames that lie within one chunk share its bytes; only
/// a frame that straddles chunks is copied, and never more than one is held.
#[derive(Debug, Default)]
pub struct FrameBuffer(Assembler);

impl FrameBuffer {
    /// Adds bytes. Take all frames out before: what is still in there is copied otherwise.
    pub fn push(&mut self, chunk: Bytes) {
        self.0.push(chunk);
    }

    /// The next whole frame, or `None` until more is pushed.
    ///
    /// # Errors
    /// A frame above the limit; the stream cannot go on.
    pub fn next_frame(&mut self) -> Result<Option<RawFrame>, DecodeError> {
        let Some((header, whole)) = self.0.next(measure)? else { return Ok(None) };
        Ok(Some(RawFrame { kind: whole[0], body: whole.slice(header..), whole }))
    }

    /// Whether a frame has begun and not ended.
    #[must_use]
    pub fn mid_frame(&self) -> bool {
        !self.0.is_empty()
    }
}
