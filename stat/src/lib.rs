//! What an instance has to do: measured, kept for a while, and told to others.
//!
//! [`Load`] is one sample, [`Ring`] the recent ones, [`Report`] what travels with a heartbeat in the registry.
//! Reads the process's CPU and memory ([`Used`]); no clock and no other I/O.

mod load;
mod report;
mod ring;
mod used;

pub use load::Load;
pub use report::{CLUSTER_BYTES, Endpoint, REPORT_BYTES, Report, WEIGHT_MAX};
pub use ring::{RECENT, Ring};
pub use used::Used;
