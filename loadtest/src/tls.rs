//! TLS of the floors: certificates and settings as Edgeway's own.

use std::{path::Path, sync::Arc};

use anyhow::{Context, Result};
use edgeway_certs::{DevCa, DevCerts};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

/// The name that the floors' certificates are for.
pub const SERVER_NAME: &str = "localhost";

/// Certificates for a server of ours, in `dir`.
pub fn certs(dir: &Path) -> Result<DevCerts> {
    DevCa::ensure(dir, &[SERVER_NAME]).context("cannot make certificates")
}

/// TLS 1.3 of a QUIC server.
pub fn quic_server(certs: &DevCerts) -> Result<ServerConfig> {
    let chain = CertificateDer::pem_slice_iter(certs.cert_pem.as_bytes())
        .collect::<Result<_, _>>()
        .context("server certificate")?;
    let key = PrivateKeyDer::from_pem_slice(certs.key_pem.as_bytes()).context("server key")?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![edgeway_proto::ALPN.to_vec()];
    Ok(config)
}

/// TLS 1.3 of a QUIC client that trusts `ca_pem`.
pub fn quic_client(ca_pem: &str) -> Result<ClientConfig> {
    let mut config = tcp_client(ca_pem)?;
    config.alpn_protocols = vec![edgeway_proto::ALPN.to_vec()];
    Ok(config)
}

/// TLS 1.3 of a client over TCP that trusts `ca_pem`.
pub fn tcp_client(ca_pem: &str) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for cert in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
        roots.add(cert.context("CA certificate")?)?;
    }
    Ok(ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
