//! The backend roles of Edgeway, each able to run alone or beside the others in one process.
//!
//! [`config`] says what is to run; [`Backend::start`] opens and binds it; [`Backend::run`] drives it.
//!
//! - `links`: gateways dial in; owners and access reach clients through them.
//! - `access`: the Sessions; passes what clients ask on to owners, in this process or over `uplink`.
//! - [`shard`]: the owners of rooms, of strokes and of inboxes, around the pure [`room`].
//! - `strokes`: how owners of rooms reach those of strokes.
//! - [`store`]: where rooms live when their owner does not.
//! - [`directory`]: who is where, shared by all processes.
//! - [`push`]: what business systems ask of rooms and inboxes.
//! - [`auth`]: who may log in.
//! - [`registry`]: which processes live.

mod access;
pub mod auth;
mod backend;
pub mod config;
mod control;
pub mod directory;
mod events;
mod everywhere;
mod http2;
mod links;
mod placement;
pub mod push;
mod queue;
pub mod registry;
mod retention;
mod ring;
mod roles;
pub mod room;
pub mod shard;
pub mod store;
mod strokes;
mod uplink;
mod warn;

pub use backend::{Backend, Readiness, StartError, check_roles};
pub use control::Control;
pub use placement::Placement;
pub use roles::{Role, Roles, UnknownRole};
