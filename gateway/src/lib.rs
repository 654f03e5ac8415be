//! The edge: connections, Sessions, lanes, groups, fan-out. It knows nothing of rooms but the
//! handles of groups, and speaks to backends by the contract of `proto/link.proto` alone.
//!
//! Modules import only from below in this list: `app`, `drain`, `listen`, `conn`, `reader`,
//! `sessions`, `handshake`, `context`, `registry`, `uplink`, `downlink`, `hub`, `opening`, `writer`,
//! `turns`, `outbox`, `tickets`;
//! `config`, `limits`, `metrics` and `clock` are leaves.

mod app;
mod clock;
pub mod config;
mod conn;
mod context;
mod downlink;
mod drain;
mod handshake;
mod hub;
mod limits;
mod listen;
mod metrics;
mod opening;
mod outbox;
mod paths;
mod reader;
mod refuse;
mod registry;
mod renew;
mod routing;
mod sessions;
mod tickets;
mod turns;
mod uplink;
mod writer;

pub use app::{BindError, Control, Gateway, Readiness};
pub use routing::{Key, Policy, RawRoute, Route, Routing, hash};
pub use tickets::{BadTicket, CheckTicket};
pub use uplink::AddressError;
