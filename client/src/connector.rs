//! What many clients of one process share.

use std::{io, net::IpAddr, sync::Arc};

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
        Self::bound(trust, None)
    }

    /// The same, with sockets that use this address of the machine; `None` leaves it to the system.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn bound(trust: &Trust, bind: Option<IpAddr>) -> Result<Self, ConnectError> {
        let trust = match trust {
            Trust::Web => tls::Trust::Web,
            Trust::Ca(pem) => tls::Trust::Ca(pem.clone()),
        };
        let tls = ClientTls::new(&trust)
            .map_err(|e| ConnectError::Config { problem: format!("trust: {e}") })?;
        Ok(Self { dialer: Arc::new(Dialer::new(tls, Settings::default()).bind(bind)) })
    }

    pub(crate) fn rebind(&self) -> io::Result<()> {
        self.dialer.rebind()
    }

    pub(crate) fn dialer(&self) -> &Dialer {
        &self.dialer
    }
}
