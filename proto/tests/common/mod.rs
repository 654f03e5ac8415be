//! What the tests of the codec share.
#![allow(dead_code, clippy::panic, clippy::unwrap_used)] // each test binary uses a part

pub mod page;
pub mod strategies;

use bytes::{Bytes, BytesMut};
use edgeway_proto::{
    AckStatus, Class, CloseCode, ErrorCode, Frame, Rest, Seq, Text,
    frame::{method, page_flag, param, *},
};

fn t(text: &'static str) -> Text {
    Text::from_static(text)
}

fn rest(bytes: &'static [u8]) -> Rest {
    Rest(Bytes::from_static(bytes))
}

/// A signal with a key, as room 7 delivers it.
pub fn delivered_signal() -> Deliver {
    Deliver {
        group: 7,
        class: Class::Signal,
        seq: Seq::new(2, 41),
        time_ms: 1_760_000_000_000,
        expires_ms: 0,
        shed: 0,
        sender: t("ada"),
        key: t("page"),
        payload: rest(b"12"),
    }
}

/// One example of each frame, in the order of their kinds.
pub fn examples() -> Vec<Frame> {
    let mut frames = connection_examples();
    frames.extend(session_examples());
    frames.extend(room_examples());
    frames.extend(history_examples());
    frames.extend(renewal_examples());
    frames
}

fn renewal_examples() -> Vec<Frame> {
    vec![
        Renew { method: method::TOKEN, secret: Bytes::from_static(b"eyJh.eyJz.c2ln") }.into(),
        Renewed {
            code: CloseCode::LoginExpired.code(),
            expires_ms: 1_760_000_000_000,
            token: Bytes::new(),
            reason: t("token_expired"),
        }
        .into(),
    ]
}

fn connection_examples() -> Vec<Frame> {
    vec![
        Hello {
            version_min: 1,
            version_max: 1,
            agent: t("demo/1.0"),
            token: Bytes::new(),
            params: vec![(param::CREDIT_CHAT, 32768), (param::IDLE_MS, 60000)],
        }
        .into(),
        Welcome {
            version: 1,
            connection: 9001,
            time_ms: 1_760_000_000_000,
            params: vec![(param::CREDIT_SIGNAL, 65536), (param::SESSIONS, 8)],
        }
        .into(),
        Login {
            method: method::PASSWORD,
            user: t("ada"),
            device: t("phone-1"),
            secret: Bytes::from_static(b"secret"),
        }
        .into(),
        LoggedIn { user: t("ada"), expires_ms: 0, generation: 3, token: Bytes::new() }.into(),
        Ping { token: 77 }.into(),
        Pong { token: 77 }.into(),
        Credit { session: 1, class: Class::Chat, total: 24576 }.into(),
        GoAway {
            code: CloseCode::GoingAway.code(),
            reconnect_after_ms: 2000,
            endpoint: t("edge2.example:4433"),
        }
        .into(),
        Close {
            code: CloseCode::LoginFailed.code(),
            retry_after_ms: 0,
            reason: t("wrong password"),
        }
        .into(),
        ResumeRefused { reason: t("the session is over") }.into(),
    ]
}

fn session_examples() -> Vec<Frame> {
    vec![
        Open { session: 1, kind: t("chat"), headers: vec![(t("tenant"), t("school-5"))] }.into(),
        Opened { session: 1 }.into(),
        CloseSession {
            session: 1,
            code: CloseCode::BackendLost.code(),
            retry_after_ms: 500,
            reason: t("backend restarted"),
        }
        .into(),
        LaneStart { session: 1, class: Class::Chat }.into(),
        Behind { group: 7, class: Class::Signal, head: Seq::new(2, 90) }.into(),
        CaughtUp { group: 7, class: Class::Signal, last: Seq::new(2, 90) }.into(),
        Gap { group: 7, class: Class::Chat, upto: Seq::new(2, 310) }.into(),
    ]
}

fn room_examples() -> Vec<Frame> {
    let mut state = BytesMut::new();
    delivered_signal().encode(&mut state);
    vec![
        Error {
            request: 5,
            code: ErrorCode::NoSuchRoom.code(),
            retry_after_ms: 0,
            detail: t("no room `maths`"),
        }
        .into(),
        Join {
            request: 1,
            flags: 0,
            room: t("maths"),
            positions: vec![(Class::Signal, Seq::new(2, 40))],
        }
        .into(),
        Joined {
            request: 1,
            room: t("maths"),
            group: 7,
            members: 31,
            presence_version: 12,
            classes: vec![(Seq::new(2, 41), 5), (Seq::new(2, 0), 0), (Seq::new(2, 300), 64)],
            state: Rest(state.freeze()),
        }
        .into(),
        Leave { request: 2, group: 7 }.into(),
        Left { request: 2, group: 7, code: 0, reason: Text::default() }.into(),
        Send {
            group: 7,
            class: Class::Signal,
            id: 6,
            expires_ms: 0,
            key: t("page"),
            payload: rest(b"13"),
        }
        .into(),
        Ack {
            group: 7,
            class: Class::Signal,
            id: 6,
            status: AckStatus::Accepted,
            seq: Seq::new(2, 42),
            expected: 0,
        }
        .into(),
        delivered_signal().into(),
    ]
}

fn history_examples() -> Vec<Frame> {
    let mut messages = BytesMut::new();
    delivered_signal().encode(&mut messages);
    vec![
        History { request: 3, group: 7, class: Class::Signal, after: Seq::new(2, 40), limit: 0 }
            .into(),
        Page {
            request: 3,
            group: 7,
            class: Class::Signal,
            flags: page_flag::MORE,
            upto: Seq::new(2, 41),
            head: Seq::new(2, 90),
            messages: Rest(messages.freeze()),
        }
        .into(),
        Members { request: 4, group: 7, after: t("ada"), limit: 100 }.into(),
        MemberPage {
            request: 4,
            group: 7,
            total: 3,
            presence_version: 12,
            more: 0,
            users: vec![t("grace"), t("linus")],
        }
        .into(),
        Presence {
            group: 7,
            version: 13,
            flags: 0,
            members: 3,
            joined: vec![t("edsger")],
            left: vec![t("linus")],
        }
        .into(),
    ]
}

/// All bytes of a frame.
pub fn encoded(frame: &Frame) -> Bytes {
    let mut out = BytesMut::new();
    frame.encode(&mut out);
    out.freeze()
}

/// Its name.
pub fn name(frame: &Frame) -> &'static str {
    let kind = encoded(frame)[0];
    Frame::KINDS.iter().find(|(k, _)| *k == kind).map_or("?", |(_, name)| name)
}

/// `01 40 0a`
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(" ")
}
