//! The certificate of a process, as TLS settings for both directions.

use std::{fmt, sync::Arc};

use parking_lot::RwLock;
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    client::{Resumption, WebPkiServerVerifier, danger::ServerCertVerifier},
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::{CertifiedKey, SingleCertAndKey},
    version::TLS13,
};
use x509_parser::{certificate::X509Certificate, parse_x509_certificate, x509::X509Name};

use crate::{config::Problem, fault::Fault, members::Members};

/// What gRPC speaks.
pub(crate) const ALPN: &[u8] = b"h2";

/// PEM texts.
#[derive(Clone, Default)]
pub struct Pem {
    /// The authorities whose certificates are accepted; at least one.
    pub ca: Vec<u8>,
    /// The certificate of this process, and what is between it and the authority.
    pub cert: Vec<u8>,
    /// Its private key.
    pub key: Vec<u8>,
}

/// Whose certificate it is, for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// The name of the process.
    pub subject: String,
    /// Who issued it.
    pub issuer: String,
    /// When it runs out, in seconds of Unix time.
    pub not_after: i64,
    /// The same as a date.
    pub until: String,
}

/// The certificate with which a process dials and serves. Clones are the same one, and are replaced together.
#[derive(Clone)]
pub struct Identity(Arc<RwLock<Arc<Current>>>);

/// What new connections use; changed as a whole.
pub(crate) struct Current {
    pub(crate) client: Arc<ClientConfig>,
    pub(crate) server: Arc<ServerConfig>,
    pub(crate) name: ServerName<'static>,
    about: About,
    /// What makes it another one.
    chain: Vec<CertificateDer<'static>>,
    authorities: Vec<CertificateDer<'static>>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Identity").field(&self.about()).finish()
    }
}

impl Identity {
    /// From PEM texts. `name` is that of the cluster, which certificates must carry.
    ///
    /// # Errors
    /// All that is wrong: also what the other processes would refuse, so that a bad certificate is found
    /// before anybody dials.
    pub fn from_pem(pem: &Pem, name: &str) -> Result<Self, Vec<Problem>> {
        let current = Current::new(pem, name)?;
        Ok(Self(Arc::new(RwLock::new(Arc::new(current)))))
    }

    /// Uses what `other` has for new connections from now on; those that stand go on. Whether it is another one.
    pub fn replace(&self, other: &Self) -> bool {
        let new = other.current();
        let mut current = self.0.write();
        let same = current.chain == new.chain
            && current.authorities == new.authorities
            && current.name == new.name;
        *current = new;
        !same
    }

    /// Whose it is.
    #[must_use]
    pub fn about(&self) -> About {
        self.0.read().about.clone()
    }

    pub(crate) fn current(&self) -> Arc<Current> {
        Arc::clone(&self.0.read())
    }
}

impl Current {
    fn new(pem: &Pem, name: &str) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let server_name = match ServerName::try_from(name.to_owned()) {
            Ok(name @ ServerName::DnsName(_)) => Some(name),
            _ => {
                let problem =
                    format!("`{name}` is no name as of a host; write one such as \"edgeway-link\"");
                problems.push(Problem::new("links.name", problem));
                None
            }
        };
        let authorities = certificates(&pem.ca, "links.ca", &mut problems);
        let chain = certificates(&pem.cert, "links.cert", &mut problems);
        let key = PrivateKeyDer::from_pem_slice(&pem.key)
            .map_err(|_| problems.push(Problem::new("links.key", "holds no private key in PEM")))
            .ok();
        let (Some(name), Some(key), true) = (server_name, key, problems.is_empty()) else {
            return Err(problems);
        };
        let roots = roots(&authorities).map_err(|p| vec![p])?;
        let provider = Arc::new(ring::default_provider());
        let key = CertifiedKey::from_der(chain.clone(), key, &provider)
            .map_err(|_| vec![Problem::new("links.key", "is not the key of links.cert")])?;
        let about = About::of(&chain, &authorities).map_err(|p| vec![p])?;
        let verifiers =
            Verifiers::new(roots, &provider, &name).map_err(|e| vec![fault_of_ours(&e)])?;
        verifiers.accept(&chain, &name, &about).map_err(|p| vec![p])?;
        let key = Arc::new(SingleCertAndKey::from(key));
        let (client, server) =
            settings(&provider, verifiers, &key).map_err(|e| vec![fault_of_ours(&e)])?;
        Ok(Self { client, server, name, about, chain, authorities })
    }
}

fn certificates(
    pem: &[u8],
    key: &'static str,
    problems: &mut Vec<Problem>,
) -> Vec<CertificateDer<'static>> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.unwrap_or_default();
    let good = found.iter().all(|der| parse_x509_certificate(der).is_ok());
    if found.is_empty() || !good {
        problems
            .push(Problem::new(key, "holds no certificate in PEM (`-----BEGIN CERTIFICATE-----`)"));
    }
    found
}

fn roots(authorities: &[CertificateDer<'static>]) -> Result<Arc<RootCertStore>, Problem> {
    let mut roots = RootCertStore::empty();
    for der in authorities {
        let is_ca = parse_x509_certificate(der).is_ok_and(|(_, cert)| cert.is_ca());
        if !is_ca || roots.add(der.clone()).is_err() {
            return Err(Problem::new(
                "links.ca",
                "is the certificate of no authority; name the ca.pem that `edgeway certs ca` has made",
            ));
        }
    }
    Ok(Arc::new(roots))
}

fn fault_of_ours(error: &impl fmt::Display) -> Problem {
    Problem::new("links.cert", format!("cannot be used for TLS: {error}"))
}

impl About {
    /// Of the first of a chain, and whether it and its authority are in date.
    fn of(
        chain: &[CertificateDer<'_>],
        authorities: &[CertificateDer<'_>],
    ) -> Result<Self, Problem> {
        let unreadable = || Problem::new("links.cert", "holds no certificate in PEM");
        let first = chain.first().ok_or_else(unreadable)?;
        let (_, cert) = parse_x509_certificate(first).map_err(|_| unreadable())?;
        in_date(&cert, "links.cert", "issue a new one with `edgeway certs link`")?;
        let parsed = authorities.iter().filter_map(|der| Some(parse_x509_certificate(der).ok()?.1));
        for authority in parsed.filter(|one| one.subject() == cert.issuer()) {
            let instead = "make a new CA with `edgeway certs ca` and new certificates of it";
            in_date(&authority, "links.ca", instead)?;
        }
        let until = cert.validity().not_after;
        Ok(Self {
            subject: common_name(cert.subject()),
            issuer: common_name(cert.issuer()),
            not_after: until.timestamp(),
            until: until.to_datetime().date().to_string(),
        })
    }
}

fn in_date(cert: &X509Certificate<'_>, key: &'static str, instead: &str) -> Result<(), Problem> {
    let now = i64::try_from(UnixTime::now().as_secs()).unwrap_or(i64::MAX);
    in_date_at(cert, key, instead, now)
}

fn in_date_at(
    cert: &X509Certificate<'_>,
    key: &'static str,
    instead: &str,
    now: i64,
) -> Result<(), Problem> {
    let validity = cert.validity();
    if now > validity.not_after.timestamp() {
        let date = validity.not_after.to_datetime().date();
        let problem =
            format!("has run out on {date} (or this machine's clock is wrong); {instead}");
        return Err(Problem::new(key, problem));
    }
    if now < validity.not_before.timestamp() {
        let date = validity.not_before.to_datetime().date();
        let problem = format!("is not valid before {date}: is this machine's clock wrong?");
        return Err(Problem::new(key, problem));
    }
    Ok(())
}

fn common_name(name: &X509Name<'_>) -> String {
    let first = name.iter_common_name().next().and_then(|name| name.as_str().ok());
    first.map_or_else(|| name.to_string(), str::to_owned)
}

/// The checks of other processes' certificates.
struct Verifiers {
    of_servers: Arc<WebPkiServerVerifier>,
    of_clients: Arc<Members>,
}

impl Verifiers {
    fn new(
        roots: Arc<RootCertStore>,
        provider: &Arc<CryptoProvider>,
        name: &ServerName<'static>,
    ) -> Result<Self, rustls::server::VerifierBuilderError> {
        let provider = || Arc::clone(provider);
        let servers = WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots), provider());
        let inner = WebPkiClientVerifier::builder_with_provider(roots, provider()).build()?;
        let of_clients = Arc::new(Members { inner, name: name.clone() });
        Ok(Self { of_servers: servers.build()?, of_clients })
    }

    /// Would another process like ours accept this chain, of a server and of a client?
    fn accept(
        &self,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        about: &About,
    ) -> Result<(), Problem> {
        let Some((first, between)) = chain.split_first() else { return Ok(()) };
        let now = UnixTime::now();
        let served = self.of_servers.verify_server_cert(first, between, name, &[], now).map(|_| ());
        let dialled = self.of_clients.verify_client_cert(first, between, now).map(|_| ());
        served.and(dialled).map_err(|error| {
            let problem = match Fault::of_tls(&error) {
                Fault::OtherCa => format!(
                    "was not issued by links.ca but by `{}`; use the ca.pem that stands beside the CA's \
                     key there, or issue another one with `edgeway certs link`",
                    about.issuer
                ),
                Fault::OtherName => format!(
                    "does not carry the name `{}`; issue one that does with `edgeway certs link`, or \
                     set links.name",
                    name.to_str()
                ),
                Fault::Purpose => "is not for both clients and servers; issue one that is with \
                                   `edgeway certs link`"
                    .to_owned(),
                other => format!("would be refused by others: {other}"),
            };
            Problem::new("links.cert", problem)
        })
    }
}

/// Nothing is resumed: links are few and long, and each new one is to be checked against the
/// certificates of its day.
fn settings(
    provider: &Arc<CryptoProvider>,
    verifiers: Verifiers,
    key: &Arc<SingleCertAndKey>,
) -> Result<(Arc<ClientConfig>, Arc<ServerConfig>), rustls::Error> {
    let mut client = ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&TLS13])?
        .with_webpki_verifier(verifiers.of_servers)
        .with_client_cert_resolver(Arc::clone(key) as _);
    client.alpn_protocols = vec![ALPN.to_vec()];
    client.resumption = Resumption::disabled();
    let mut server = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifiers.of_clients)
        .with_cert_resolver(Arc::clone(key) as _);
    server.alpn_protocols = vec![ALPN.to_vec()];
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    Ok((Arc::new(client), Arc::new(server)))
}

#[cfg(test)]
#[path = "identity_tests.rs"]
mod tests;
