//! A real Apache Kafka for tests: fetched by Maven, started on free ports, and stopped when it is dropped, when the test
//! panics, and when its process is killed.
//!
//! ```no_run
//! let kafka = match edgeway_testkafka::Kafka::find() {
//!     Ok(program) => program.start(&[]),
//!     Err(why) => return eprintln!("SKIPPED: {why}"),
//! };
//! println!("{}", kafka.address());
//! ```
#![allow(clippy::panic, clippy::unwrap_used)] // for tests, which say so by panic

mod consume;
mod find;
mod server;

pub use consume::Message;
pub use find::Program;
pub use server::Kafka;
