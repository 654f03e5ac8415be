//! Real Redis servers for tests and measurements: found on the machine or fetched, started on free ports, and stopped
//! when they are dropped, when the test panics, and when its process is killed.
//!
//! ```no_run
//! let server = edgeway_testredis::Server::start(&edgeway_testredis::Options::default());
//! println!("{}", server.url());
//! ```
//!
//! What cannot be done ends the test, with what to do about it: a test that needs Redis and has none
//! must not pass.
#![allow(clippy::panic, clippy::unwrap_used)] // for tests, which say so by panic

mod cluster;
mod find;
mod server;
mod tls;

pub use cluster::Cluster;
pub use find::{binary, find};
pub use server::{Options, Server};
pub use tls::TlsFront;
