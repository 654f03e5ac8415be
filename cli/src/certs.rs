//! The development certificates of `up`; and `edgeway certs`, those of links.

mod command;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::Context;
use edgeway_certs::{DevCa, DevCerts};

pub use command::{Args, run};

/// Where the certificates of a data directory are.
pub fn dir(data_dir: &Path) -> PathBuf {
    data_dir.join("certs")
}

/// The authority's certificate that an `up` in this directory has made, if one has.
pub fn of_local_up() -> Option<PathBuf> {
    let path = dir(Path::new("edgeway-data")).join("ca.pem");
    path.is_file().then_some(path)
}

/// Certificates for a server that is reached on this machine, and at `listening` where that is
/// an address that can be dialled.
pub fn ensure(data_dir: &Path, listening: &[SocketAddr]) -> anyhow::Result<DevCerts> {
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    for addr in listening.iter().filter(|addr| !addr.ip().is_unspecified()) {
        let name = addr.ip().to_string();
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let dir = dir(data_dir);
    DevCa::ensure(&dir, &names)
        .with_context(|| format!("cannot make development certificates in {}", dir.display()))
}
