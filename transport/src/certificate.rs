//! The certificate of a server, which may be replaced while clients connect.

use std::sync::Arc;

use parking_lot::RwLock;
use rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

/// The chain and key that new connections are shown.
#[derive(Debug)]
pub(crate) struct Certificate(RwLock<Arc<CertifiedKey>>);

impl Certificate {
    pub(crate) fn new(key: CertifiedKey) -> Arc<Self> {
        Arc::new(Self(RwLock::new(Arc::new(key))))
    }

    /// Shows that of `other` from now on. Whether it is another one.
    pub(crate) fn replace(&self, other: &Self) -> bool {
        let new = Arc::clone(&other.0.read());
        let mut current = self.0.write();
        let differs = current.cert != new.cert;
        *current = new;
        differs
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read()))
    }
}
