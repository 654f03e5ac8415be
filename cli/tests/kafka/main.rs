//! The sink "kafka" of the storage: events in a real Kafka, as a consumer that knows nothing of Edgeway reads them,
//! against what clients did. Where there is no Java, or no Maven to fetch Kafka by, the tests are skipped and say so.
//!
//! A build without the feature `kafka` has one test here, which runs these in a build that has it.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]
// Counts, which are small.
#![allow(clippy::cast_possible_truncation)]

#[cfg(not(feature = "kafka"))]
mod build;
#[cfg(feature = "kafka")]
mod faults;
#[cfg(feature = "kafka")]
mod outage;
#[cfg(feature = "kafka")]
mod setup;
#[cfg(feature = "kafka")]
#[path = "../support/mod.rs"]
mod support;

use std::io::Write;

use edgeway_testkafka::{Kafka, Program};

/// Kafka, or which test is skipped without it and why.
fn kafka(test: &str) -> Option<&'static Program> {
    Kafka::find().inspect_err(|why| tell(&format!("SKIPPED {test}: {why}\n"))).ok()
}

/// Not by a macro of the standard library: the harness would hide it.
fn tell(text: &str) {
    std::io::stderr().write_all(text.as_bytes()).unwrap();
}
