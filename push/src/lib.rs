//! The HTTP API for business systems: who may ask, what is asked, and what is answered. What is asked of rooms and
//! inboxes is passed on to their owners by [`edgeway_backend::push`]. docs/PUSH.md is for its users.
//!
//! - [`config`]: API keys, with their scopes and limits.
//! - `api`: what a process serves.
//! - `caller`, `body`: what is looked at before a request is worked on.
//! - `send`: messages.
//! - `repeats`: requests that come again.
//! - [`problem`]: everything that is wrong, as RFC 9457 has it.

mod api;
mod body;
mod caller;
pub mod config;
mod keys;
pub mod problem;
mod repeats;
mod send;

pub use api::{Api, BODY_BYTES, IDEMPOTENCY_KEY, no_method, no_path};
pub use keys::{Made, Scope, make_key};
