//! Any frame that the protocol allows, for property tests.

use bytes::Bytes;
use edgeway_proto::{AckStatus, Class, Frame, Rest, Seq, Text, frame::*, limits, varint};
use proptest::{collection::vec, prelude::*, sample::select, strategy::Union};

fn int() -> impl Strategy<Value = u64> {
    prop_oneof![0..100u64, 0..=varint::MAX]
}

fn session() -> impl Strategy<Value = u64> {
    1..=limits::SESSION_MAX
}

pub fn class() -> impl Strategy<Value = Class> {
    select(Class::ALL.to_vec())
}

fn seq() -> impl Strategy<Value = Seq> {
    (int(), int()).prop_map(|(epoch, counter)| Seq { epoch, counter })
}

fn status() -> impl Strategy<Value = AckStatus> {
    use AckStatus::{Accepted, Duplicate, OutOfOrder, Refused, Shed};
    select(vec![Accepted, Duplicate, Shed, OutOfOrder, Refused])
}

fn text_of(max: usize) -> impl Strategy<Value = Text> {
    // Characters of one to four bytes, cut back to the limit.
    "\\PC{0,40}".prop_map(move |mut s| {
        while s.len() > max {
            s.pop();
        }
        Text::from(s)
    })
}

fn text() -> impl Strategy<Value = Text> {
    prop_oneof![9 => text_of(limits::REASON_BYTES),
                1 => Just(Text::from("x".repeat(limits::REASON_BYTES)))]
}

fn name() -> impl Strategy<Value = Text> {
    prop_oneof![9 => text_of(limits::NAME_BYTES),
                1 => Just(Text::from("n".repeat(limits::NAME_BYTES)))]
}

fn names() -> impl Strategy<Value = Vec<Text>> {
    prop_oneof![9 => vec(name(), 0..8),
                1 => vec("[a-z]{0,3}".prop_map(Text::from), limits::NAMES)]
}

fn bytes() -> impl Strategy<Value = Bytes> {
    prop_oneof![9 => vec(any::<u8>(), 0..200), 1 => vec(any::<u8>(), limits::SECRET_BYTES)]
        .prop_map(Bytes::from)
}

fn rest() -> impl Strategy<Value = Rest> {
    // On both sides of the body size at which the length takes four bytes.
    prop_oneof![8 => vec(any::<u8>(), 0..200),
                1 => vec(any::<u8>(), 16_300..16_500),
                1 => vec(any::<u8>(), limits::PAYLOAD_BYTES)]
    .prop_map(|v| Rest(Bytes::from(v)))
}

fn list<T: std::fmt::Debug>(
    a: impl Strategy<Value = T>,
    max: usize,
) -> impl Strategy<Value = Vec<T>> {
    vec(a, 0..=max)
}

macro_rules! any_of {
    ($( $name:ident { $($field:ident : $strategy:expr),* } )*) => {
        Vec::<BoxedStrategy<Frame>>::from([$(
            ($($strategy,)*).prop_map(|($($field,)*)| Frame::from($name { $($field),* })).boxed(),
        )*])
    };
}

/// One strategy for each kind of frame.
pub fn each_kind() -> Vec<BoxedStrategy<Frame>> {
    let mut all = any_of! {
        Hello { version_min: int(), version_max: int(), agent: text(), token: bytes(), params: list((int(), int()), limits::LIST_ITEMS) }
        Welcome { version: int(), connection: int(), time_ms: int(), params: list((int(), int()), 4) }
        Login { method: int(), user: name(), device: name(), secret: bytes() }
        LoggedIn { user: name(), expires_ms: int(), generation: int(), token: bytes() }
        Ping { token: int() }
        Pong { token: int() }
        Credit { session: session(), class: class(), total: int() }
        GoAway { code: int(), reconnect_after_ms: int(), endpoint: text() }
        Close { code: int(), retry_after_ms: int(), reason: text() }
        ResumeRefused { reason: text() }
        Open { session: session(), kind: name(), headers: list((text(), text()), limits::LIST_ITEMS) }
        Opened { session: session() }
        CloseSession { session: session(), code: int(), retry_after_ms: int(), reason: text() }
        LaneStart { session: session(), class: select(vec![Class::Binary, Class::Chat]) }
        Behind { group: int(), class: class(), head: seq() }
        CaughtUp { group: int(), class: class(), last: seq() }
        Gap { group: int(), class: class(), upto: seq() }
    };
    all.extend(any_of! {
        Error { request: int(), code: int(), retry_after_ms: int(), detail: text() }
        Join { request: int(), flags: int(), room: name(), positions: list((class(), seq()), 3) }
        Joined { request: int(), room: name(), group: int(), members: int(), presence_version: int(), classes: list((seq(), int()), 3), state: rest() }
        Leave { request: int(), group: int() }
        Left { request: int(), group: int(), code: int(), reason: text() }
        Send { group: int(), class: class(), id: int(), expires_ms: int(), key: name(), payload: rest() }
        Ack { group: int(), class: class(), id: int(), status: status(), seq: seq(), expected: int() }
        Deliver { group: int(), class: class(), seq: seq(), time_ms: int(), expires_ms: int(), shed: int(), sender: name(), key: name(), payload: rest() }
        History { request: int(), group: int(), class: class(), after: seq(), limit: int() }
        Page { request: int(), group: int(), class: class(), flags: int(), upto: seq(), head: seq(), messages: rest() }
        Members { request: int(), group: int(), after: name(), limit: int() }
        MemberPage { request: int(), group: int(), total: int(), presence_version: int(), more: int(), users: names() }
        Presence { group: int(), version: int(), flags: int(), members: int(), joined: names(), left: names() }
        Renew { method: int(), secret: bytes() }
        Renewed { code: int(), expires_ms: int(), token: bytes(), reason: text() }
    });
    all
}

/// Any frame.
pub fn frame() -> impl Strategy<Value = Frame> {
    Union::new(each_kind())
}
