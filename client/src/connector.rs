//! What many clients of one process share.

use std::sync::Arc;

use edgeway_transport::{
    Dialer, Settings,
    tls::{self, ClientTls},
};

use crate::{ConnectError, Trust};

/// TLS and the UDP socket that connections are made with. A process with many clients makes one (or a
/// few, to spread them over several sockets) and connects with
/// [`Client::connect_through`](crate::Client::connect_through).
#[derive(Debug, Clone)]
pub struct Connector {
    dialer: Arc<Dialer>,
}

impl Connector {
    /// A connector that trusts `trust`. Sockets are made when they are first needed.
    ///
    /// # Errors
    /// [`ConnectError::Config`] where the PEM text is not readable.
    pub fn new(trust: &Trust) -> Result<Self, ConnectError> {
        let trust = match trust {
            Trust::Web => tls::Trust::Web,
            Trust::Ca(pem) => tls::Trust::Ca(pem.clone()),
        };
        let tls = ClientTls::new(&trust)
            .map_err(|e| ConnectError::Config { problem: format!("trust: {e}") })?;
        Ok(Self { dialer: Arc::new(Dialer::new(tls, Settings::default())) })
    }

    pub(crate) fn dialer(&self) -> &Dialer {
        &self.dialer
    }
}
