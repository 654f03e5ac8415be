//! TLS for both transports, by rustls with ring: one certificate, one ALPN.

use std::{fmt, sync::Arc};

use edgeway_proto::ALPN;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig, client::Resumption, crypto::ring::Ticketer,
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use crate::{certificate::Certificate, tickets::Tickets};

/// Why TLS cannot be set up. Says which input and what would be right.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TlsError {
    /// A PEM text holds nothing usable.
    #[error("{what}: {problem}")]
    Pem {
        /// "certificate", "private key" or "CA".
        what: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// Certificate and key do not fit, or the settings do not.
    #[error("TLS: {0}")]
    Config(String),
}

/// TLS sessions of QUIC that a server can continue, at about 250 bytes each. The oldest are forgotten, and
/// their clients do a handshake without early data.
pub const SERVER_SESSIONS: usize = 64 * 1024;

/// Tickets that a QUIC client gets with each handshake. One: a second would be held for every idle
/// connection, for the case that the first was spent on a connection that did not come about.
const TICKETS: usize = 1;

/// Servers whose TLS sessions a client remembers, for each transport; of each server it keeps the
/// last eight tickets.
pub const CLIENT_SERVERS: usize = 32;

/// Bytes of a TLS record over TCP. A reader has nothing of one before it has all of it: at 16 KiB, what
/// rustls makes otherwise, that is 130 ms on a link of 1 Mbit/s. It costs 22 bytes for each.
const TLS_RECORD_BYTES: usize = 4 * 1024;

/// RFC 9001, section 4.6.1: the only other value than 0. How much may come is up to the
/// transport's own limits.
const EARLY_DATA: u32 = u32::MAX;

fn config(e: impl std::fmt::Display) -> TlsError {
    TlsError::Config(e.to_string())
}

fn certificates(pem: &[u8], what: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certs = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| TlsError::Pem { what, problem: e.to_string() })?;
    if certs.is_empty() {
        let problem = "no `BEGIN CERTIFICATE` block in it; expected PEM".into();
        return Err(TlsError::Pem { what, problem });
    }
    Ok(certs)
}

/// TLS of a server, for both transports.
#[derive(Clone)]
pub struct ServerTls {
    pub(crate) tcp: Arc<ServerConfig>,
    pub(crate) quic: Arc<QuicServerConfig>,
    certificate: Arc<Certificate>,
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerTls")
    }
}

impl ServerTls {
    /// From a certificate chain and its private key, both PEM.
    ///
    /// # Errors
    /// Unreadable PEM, or a key that does not belong to the certificate.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        let chain = certificates(chain, "certificate")?;
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|e| TlsError::Pem { what: "private key", problem: e.to_string() })?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let key = CertifiedKey::from_der(chain, key, &provider).map_err(config)?;
        let certificate = Certificate::new(key);
        let mut tcp = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(config)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&certificate) as _);
        tcp.alpn_protocols = vec![ALPN.to_vec()];
        tcp.max_fragment_size = Some(TLS_RECORD_BYTES);
        // Without state, since nobody sends early data over TCP; the key changes every six hours.
        tcp.ticketer = Ticketer::new().map_err(config)?;
        let mut quic = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(config)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&certificate) as _);
        quic.alpn_protocols = vec![ALPN.to_vec()];
        quic.session_storage = Arc::new(Tickets::new(SERVER_SESSIONS));
        quic.send_tls13_tickets = TICKETS;
        quic.max_early_data_size = EARLY_DATA;
        let quic = QuicServerConfig::try_from(quic).map_err(config)?;
        Ok(Self { tcp: Arc::new(tcp), quic: Arc::new(quic), certificate })
    }

    /// Shows new connections the certificate of `other` from now on; those that stand keep theirs. Whether
    /// it is another one.
    pub fn replace(&self, other: &Self) -> bool {
        self.certificate.replace(&other.certificate)
    }
}

/// Whom a client trusts.
#[derive(Debug, Clone)]
pub enum Trust {
    /// The certificate authorities of the public web.
    Web,
    /// Only these, PEM.
    Ca(Vec<u8>),
}

/// TLS of a client, for both transports.
#[derive(Clone)]
pub struct ClientTls {
    pub(crate) tcp: Arc<ClientConfig>,
    pub(crate) quic: Arc<QuicClientConfig>,
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientTls")
    }
}

impl ClientTls {
    /// Trusting `trust`.
    ///
    /// # Errors
    /// Unreadable PEM.
    pub fn new(trust: &Trust) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        match trust {
            Trust::Web => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
            Trust::Ca(pem) => {
                for cert in certificates(pem, "CA")? {
                    roots.add(cert).map_err(config)?;
                }
            }
        }
        let roots = Arc::new(roots);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tcp = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(config)?
            .with_root_certificates(Arc::clone(&roots))
            .with_no_client_auth();
        tcp.alpn_protocols = vec![ALPN.to_vec()];
        tcp.max_fragment_size = Some(TLS_RECORD_BYTES);
        tcp.resumption = Resumption::in_memory_sessions(CLIENT_SERVERS);
        let mut quic = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(config)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        quic.alpn_protocols = vec![ALPN.to_vec()];
        quic.resumption = Resumption::in_memory_sessions(CLIENT_SERVERS);
        // Used only by who asks for it: `Dialer::quic_early`.
        quic.enable_early_data = true;
        let quic = QuicClientConfig::try_from(quic).map_err(config)?;
        Ok(Self { tcp: Arc::new(tcp), quic: Arc::new(quic) })
    }
}
