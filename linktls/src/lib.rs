//! Links between processes: who may dial whom, and how each knows the other.
//!
//! A process has one [`Identity`], a certificate of the operator's own authority, and uses it to dial and to
//! serve. Both sides show theirs. A process without one ([`Links::Off`]) speaks in the clear, and only on
//! loopback: [`Peer::new`] dials no other address, and [`Links::listen_problem`] says why one is refused.
//!
//! **Whom a link trusts**: who has a certificate of `links.ca` that is in date, for this use, and carries the
//! name `links.name`. The address that was dialled does not matter: instances move, and whoever has a
//! certificate of the cluster is trusted with all that goes through it anyhow. The name keeps clusters of one
//! authority apart, and keeps out what else such an authority has issued.
//!
//! - `address`, `config`: the pure rules.
//! - `identity`, `members`: certificates to TLS settings; replaced as a whole while connections come.
//! - `dial`: under tonic's channels. `accept`: under tonic's server. `stream` is what both give.
//! - `paced`: how often a stream of strokes and chat takes a message.
//! - `fault`: what can be wrong with the other side, in words, labels and logs.

mod accept;
mod address;
mod config;
mod dial;
mod fault;
mod identity;
mod members;
mod paced;
mod report;
mod stream;

pub use accept::{Incoming, Limits, incoming};
pub use address::{AddressProblem, is_loopback};
pub use config::{DEFAULT_NAME, Links, Problem, RawLinks};
pub use dial::{DialError, Peer, causes};
pub use fault::Fault;
pub use identity::{About, Identity, Pem};
pub use paced::Paced;
pub use stream::Stream;
