//! Where a client is to connect: the gateways of its cluster in the order of a policy, and a ticket.
//!
//! - [`config`]: apps, clusters and their static gateways, as the file has them and as the program uses them.
//! - [`table`]: which gateways a cluster has now, and what is known of each.
//! - [`policy`]: their order for one client. Pure.
//! - [`ticket`]: signed, so that a gateway knows whom dispatch has sent.
//! - [`service`]: requests to answers, with all their errors.
//! - [`server`]: HTTP and HTTPS.
//! - [`probe`]: asks gateways of static lists whether they live, and for their load.
//!
//! It knows nothing of registries: whoever does tells it ([`Dispatch::learn`]).

pub mod config;
mod dispatch;
mod flood;
pub mod policy;
mod probe;
mod problem;
mod request;
pub mod server;
pub mod service;
pub mod table;
pub mod ticket;

pub use dispatch::{Answer, Dispatch, Refusal};
