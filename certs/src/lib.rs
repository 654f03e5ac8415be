//! A small certificate authority, twice.
//!
//! **By hand**, for links between processes ([`DevCa::make`], [`DevCa::issue_to`]; `edgeway certs`). The
//! operator keeps its key; only processes of the same cluster trust it, so that it needs no other authority.
//!
//! **For development**: certificates that `edgeway up` and the tests make for themselves, so that a newcomer
//! has TLS without a step.
//!
//! A directory holds it all: `ca.pem` and `ca.key` are the authority, `server.pem` and
//! `server.key` what a server presents. What is there is used again; a server certificate that
//! has (nearly) run out, or is not for the wanted names, is made anew, and clients that trust
//! `ca.pem` notice nothing. It is not meant for a public service: use certificates of a
//! real authority for clients there.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let tmp = tempfile::tempdir()?;
//! # let dir = tmp.path();
//! let certs = edgeway_certs::DevCa::ensure(dir, &["localhost", "127.0.0.1"])?;
//! println!("clients trust {}", certs.ca_path.display());
//! # Ok(())
//! # }
//! ```

mod by_hand;
mod ca;
mod error;
mod files;
mod inspect;

pub use by_hand::{Request, Saved};
pub use ca::{DevCa, DevCerts, Issued, Usage};
pub use error::CertError;
