//! Where Sessions go: from a Session type to a backend, and from there to one of its instances.
//! It changes while the gateway runs; what is in use is one value, swapped as a whole.

mod policy;
mod route;

use std::collections::BTreeMap;

pub use policy::{Policy, hash};
pub use route::{Key, Keys, RawRoute, Route, Routes};

/// Section `[backends]`: the instances of each backend, `host:port`.
pub type RawBackends = BTreeMap<String, Vec<String>>;

/// Backends that no route names, and that Sessions need all the same: they publish to those that access has.
pub const PUBLISHERS: [&str; 2] = ["room", "peer"];

/// What the config says of where Sessions go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Routing {
    /// Where Sessions of each type go.
    pub routes: Routes,
    /// The backend that is asked about logins.
    pub login: String,
    /// Instances of each backend.
    pub backends: RawBackends,
}
