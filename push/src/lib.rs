//! The HTTP API for business systems: who may ask, what is asked, and what is answered. What is asked of rooms and
//! inboxes is passed on to their owners by [`edgeway_backend::push`]. docs/PUSH.md is for its users.
//!
//! - [`config`]: API keys, with their scopes and limits.
//! - `api`: what a process serves.
//! - `caller`, `body`: what is looked at before a request is worked on.
//! - `send`: messages to rooms and users. `topic`: to all who listen. `set`: room state.
//! - `moderate`: who may be in rooms and who may speak. `read`: what is known of rooms and users. `export`: all of a
//!   room's history.
//! - `repeats`: requests that come again.
//! - [`problem`]: everything that is wrong, as RFC 9457 has it.

mod api;
mod body;
mod caller;
pub mod config;
mod export;
mod keys;
mod moderate;
pub mod problem;
mod read;
mod repeats;
mod send;
mod set;
mod topic;

pub use api::{Api, BODY_BYTES, IDEMPOTENCY_KEY, no_method, no_path};
pub use caller::{Name, Params};
pub use keys::{Made, Scope, make_key};
