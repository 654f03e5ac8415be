//! A testbed for weak networks: a server and many clients in network namespaces of their own, and
//! an emulated link for each client between them.
//!
//! ```text
//!   namespace "clients"                 this thread                 namespace "server"
//!   10.77.1.0, 10.77.1.1, ... -- TUN -- forwarder: path of -- TUN -- 10.255.0.1
//!   (one address a client)              each client
//! ```
//!
//! No packet leaves the two namespaces, and they exist only as long as the [`Testbed`]. What becomes
//! of a packet is decided by a pure core ([`path`], [`link`], [`nat`], [`timeline`], [`weather`])
//! that does no I/O, reads no clock and whose chance has no state; [`selfcheck`] measures that it
//! does what a profile says.

pub mod capacity;
pub mod counters;
mod device;
pub mod draw;
mod forwarder;
pub mod link;
pub mod nat;
pub mod netns;
pub mod packet;
pub mod path;
pub mod profile;
pub mod selfcheck;
pub mod testbed;
pub mod timeline;
pub mod units;
pub mod weather;

pub use self::{
    profile::{OldPath, Profile},
    testbed::Testbed,
};
