//! The backend roles of Edgeway, each able to run alone or beside the others in one process.
//!
//! [`config`] says what is to run; [`Backend::start`] opens and binds it; [`Backend::run`] drives it.
//!
//! - `links`: gateways dial in; owners and access reach clients through them.
//! - `access`: the Sessions; passes what clients ask on to owners, in this process or over `uplink`.
//! - [`shard`]: the owners of rooms and inboxes, around the pure [`room`].
//! - [`store`]: where rooms live when their owner does not.
//! - [`directory`]: who is where, shared by all processes.
//! - [`auth`]: who may log in.

mod access;
pub mod auth;
mod backend;
pub mod config;
mod control;
pub mod directory;
mod http2;
mod links;
mod queue;
mod roles;
pub mod room;
pub mod shard;
pub mod store;
mod uplink;
mod warn;

pub use backend::{Backend, Readiness, StartError, check_roles};
pub use control::Control;
pub use roles::{Role, Roles, UnknownRole};
