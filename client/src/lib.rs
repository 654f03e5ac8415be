//! The Edgeway client: connects over QUIC or TCP, whichever gets through, joins rooms, sends and
//! receives in order and exactly once, and does all of it again when the network comes back.
//!
//! Start at [`Client::connect`]. All types are owned, errors are enums that say whose fault it is and
//! whether another try may help, and futures may be dropped at any time.
//!
//! Everything that waits has a bound in bytes:
//!
//! | what | bound | at the bound |
//! |---|---|---|
//! | events that the app has not taken | the credit of the lanes: 64 KiB signals, 16 KiB strokes, 16 KiB chat for each Session | the server gets no more credit and keeps the rest: signals and strokes wait in history, chat is shed |
//! | events left from connections that were lost | 512 KiB | no new connection until the app has taken some |
//! | signals and strokes without an ack | [`ClientConfig::unacked_bytes`] | [`Room::send`] waits, [`Room::send_nowait`] fails |
//! | chat that is not written yet | [`ClientConfig::chat_queue_bytes`] | the oldest is dropped |
//! | requests without an answer | 256 | [`RequestError::TooMany`] |
//! | frames of raw Sessions | 64 KiB a lane | [`SendError::Full`] |

mod after;
mod beside;
mod client;
mod config;
mod connect;
mod connector;
mod core;
mod dispatch;
mod error;
mod event;
mod greet;
mod heartbeat;
mod memory;
mod port;
mod pulse;
mod queue;
mod renew;
mod room;
mod session;
mod shared;
mod signs;
mod supervise;
mod takeover;
mod watch;
mod writer;

pub use bytes::Bytes;
pub use edgeway_proto::{Class, CloseCode, ErrorCode, Seq, Text};
pub use edgeway_transport::Transport;

pub use client::{Client, Events};
pub use config::{ClientConfig, DispatchConfig, Login, TransportChoice, Trust};
pub use connector::Connector;
pub use error::{ConnectError, Fault, RenewError, RequestError, SendError};
pub use event::{
    Ack, AckStatus, Behind, Event, HistoryPage, JoinOptions, LeftCause, MembersPage, Message,
    Outgoing, Presence, RawFrame, SessionId, Stats,
};
pub use room::Room;
pub use session::{Inbox, Rooms, Session};
pub use signs::PathStats;
