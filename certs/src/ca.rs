//! The authority and what it issues.

use std::{
    collections::BTreeSet,
    fmt,
    net::IpAddr,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use time::OffsetDateTime;

use crate::{
    CertError,
    files::{self, Access},
    inspect::Parsed,
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Clients install `ca.pem` by hand, so it lives long.
const CA_LIFETIME: Duration = Duration::from_secs(3650 * 24 * 60 * 60);
/// Some clients refuse server certificates of more than 398 days.
const LEAF_LIFETIME: Duration = Duration::from_secs(397 * 24 * 60 * 60);
/// A server that starts today may run this long without its certificate running out.
const RENEW_BEFORE: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Clients whose clock is behind ours by up to this much accept a fresh certificate.
const BACKDATE: Duration = DAY;

/// Name of the authority that `up` makes.
const DEVELOPMENT: &str = "Edgeway development CA";

/// What a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// A server that clients connect to: its name is a host name or an IP address.
    Server,
    /// A client of mutual TLS: its name is its identity.
    Client,
    /// A process that is both, as on the links between gateways and backends.
    Peer,
}

impl Usage {
    fn purposes(self) -> Vec<ExtendedKeyUsagePurpose> {
        match self {
            Self::Server => vec![ExtendedKeyUsagePurpose::ServerAuth],
            Self::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
            Self::Peer => {
                vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth]
            }
        }
    }
}

/// A certificate and its key, both in PEM.
#[derive(Clone)]
pub struct Issued {
    /// The certificate. The authority's own is not appended: whoever checks it has that.
    pub cert_pem: String,
    /// The private key, PKCS #8.
    pub key_pem: String,
}

// Keys do not belong in logs: neither type prints its own.
impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issued").field("cert_pem", &self.cert_pem).finish_non_exhaustive()
    }
}

/// The server certificate of a directory, and what clients need to trust it.
#[derive(Clone)]
pub struct DevCerts {
    /// The authority's certificate: what clients trust.
    pub ca_pem: String,
    /// The server's certificate.
    pub cert_pem: String,
    /// The server's private key, PKCS #8.
    pub key_pem: String,
    /// Where `ca_pem` is.
    pub ca_path: PathBuf,
    /// Where the server's certificate is.
    pub cert_path: PathBuf,
    /// Where the server's key is.
    pub key_path: PathBuf,
    /// The authority was made by this call: clients have yet to be told.
    pub new_ca: bool,
}

impl fmt::Debug for DevCerts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DevCerts")
            .field("ca_path", &self.ca_path)
            .field("cert_path", &self.cert_path)
            .field("key_path", &self.key_path)
            .field("new_ca", &self.new_ca)
            .finish_non_exhaustive()
    }
}

/// A development certificate authority, open for issuing.
pub struct DevCa {
    pem: String,
    path: PathBuf,
    parsed: Parsed,
    issuer: Issuer<'static, KeyPair>,
    new: bool,
}

impl DevCa {
    /// The certificates of `dir` for a server that is reached by `names` (host names and IP
    /// addresses), made where they are missing.
    ///
    /// # Errors
    /// See [`CertError`]. An authority that is damaged or has run out is never replaced by
    /// itself: clients trust it.
    pub fn ensure(dir: &Path, names: &[impl AsRef<str>]) -> Result<DevCerts, CertError> {
        Self::ensure_at(dir, names, SystemTime::now())
    }

    /// The authority of `dir`, made where it is missing.
    ///
    /// # Errors
    /// See [`CertError`].
    pub fn open(dir: &Path) -> Result<Self, CertError> {
        let _lock = files::lock(dir)?;
        Self::open_locked(dir, SystemTime::now().into())
    }

    /// The authority's certificate in PEM: what clients trust.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Where the authority's certificate is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// When it runs out.
    pub(crate) fn not_after(&self) -> Option<OffsetDateTime> {
        self.parsed.not_after()
    }

    /// A fresh certificate and key for `name`, valid for 397 days; nothing is written to disk.
    ///
    /// # Errors
    /// See [`CertError::Name`] and [`CertError::Make`].
    pub fn issue(&self, name: &str, usage: Usage) -> Result<Issued, CertError> {
        self.issue_at(&[name], usage, SystemTime::now().into())
    }

    fn ensure_at(
        dir: &Path,
        names: &[impl AsRef<str>],
        now: SystemTime,
    ) -> Result<DevCerts, CertError> {
        let now = OffsetDateTime::from(now);
        let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
        let _lock = files::lock(dir)?;
        let ca = Self::open_locked(dir, now)?;
        let (cert_path, key_path) = (dir.join("server.pem"), dir.join("server.key"));
        let server = match ca.usable_server(&cert_path, &key_path, &names, now)? {
            Some(server) => server,
            None => {
                let server = ca.issue_at(&names, Usage::Server, now)?;
                // A crash between the two leaves a pair that does not match, which is noticed
                // and made anew next time.
                files::write(&key_path, &server.key_pem, Access::Private)?;
                files::write(&cert_path, &server.cert_pem, Access::Public)?;
                server
            }
        };
        let (new_ca, ca_path, ca_pem) = (ca.new, ca.path, ca.pem);
        let Issued { cert_pem, key_pem } = server;
        Ok(DevCerts { ca_pem, cert_pem, key_pem, ca_path, cert_path, key_path, new_ca })
    }

    pub(crate) fn open_locked(dir: &Path, now: OffsetDateTime) -> Result<Self, CertError> {
        let (cert_path, key_path) = (dir.join("ca.pem"), dir.join("ca.key"));
        match (files::read(&cert_path)?, files::read(&key_path)?) {
            (Some(pem), Some(key_pem)) => Self::load(cert_path, pem, &key_path, &key_pem, now),
            (None, None) => {
                let key = new_key(DEVELOPMENT)?;
                Self::create(cert_path, &key_path, key, DEVELOPMENT, CA_LIFETIME, now)
            }
            (None, Some(_)) => {
                Err(CertError::HalfAuthority { missing: cert_path, present: key_path })
            }
            (Some(_), None) => {
                Err(CertError::HalfAuthority { missing: key_path, present: cert_path })
            }
        }
    }

    fn load(
        path: PathBuf,
        pem: String,
        key_path: &Path,
        key_pem: &str,
        now: OffsetDateTime,
    ) -> Result<Self, CertError> {
        let bad = |path: &Path, problem: &str| CertError::Authority {
            path: path.to_owned(),
            problem: problem.to_owned(),
        };
        let parsed = Parsed::from_pem(&pem).ok_or_else(|| bad(&path, "is no certificate"))?;
        let key = KeyPair::from_pem(key_pem).map_err(|_| bad(key_path, "is no private key"))?;
        if !parsed.has_key(&key) {
            return Err(bad(key_path, "is not the key of ca.pem"));
        }
        if !parsed.is_valid(now, now) {
            return Err(bad(&path, "has run out (or this machine's clock is wrong)"));
        }
        let issuer = Issuer::from_ca_cert_pem(&pem, key)
            .map_err(|e| bad(&path, &format!("cannot issue certificates ({e})")))?;
        Ok(Self { pem, path, parsed, issuer, new: false })
    }

    pub(crate) fn create(
        path: PathBuf,
        key_path: &Path,
        key: KeyPair,
        title: &str,
        lifetime: Duration,
        now: OffsetDateTime,
    ) -> Result<Self, CertError> {
        let make = |source| CertError::Make { subject: title.to_owned(), source };
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, title);
        // Signs leaves only, and nothing but them.
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = now - BACKDATE;
        params.not_after = now + lifetime;
        let pem = params.self_signed(&key).map_err(make)?.pem();
        files::write(key_path, &key.serialize_pem(), Access::Private)?;
        files::write(&path, &pem, Access::Public)?;
        let bad = |problem: &str| CertError::Authority {
            path: path.clone(),
            problem: problem.to_owned(),
        };
        let parsed = Parsed::from_pem(&pem).ok_or_else(|| bad("is no certificate"))?;
        Ok(Self { pem, path, parsed, issuer: Issuer::new(params, key), new: true })
    }

    /// The server's certificate on disk, where it will do.
    fn usable_server(
        &self,
        cert_path: &Path,
        key_path: &Path,
        names: &[&str],
        now: OffsetDateTime,
    ) -> Result<Option<Issued>, CertError> {
        let (Some(cert_pem), Some(key_pem)) = (files::read(cert_path)?, files::read(key_path)?)
        else {
            return Ok(None);
        };
        let (Some(cert), Ok(key)) = (Parsed::from_pem(&cert_pem), KeyPair::from_pem(&key_pem))
        else {
            return Ok(None);
        };
        let usable = cert.has_key(&key)
            && cert.is_signed_by(&self.parsed)
            && cert.is_valid(now, now + RENEW_BEFORE)
            && cert.names() == normalized(names);
        Ok(usable.then_some(Issued { cert_pem, key_pem }))
    }

    fn issue_at(
        &self,
        names: &[&str],
        usage: Usage,
        now: OffsetDateTime,
    ) -> Result<Issued, CertError> {
        let subject = names.first().copied().unwrap_or("the server");
        self.sign(subject, names, usage, LEAF_LIFETIME, now)
    }

    pub(crate) fn sign(
        &self,
        subject: &str,
        names: &[&str],
        usage: Usage,
        lifetime: Duration,
        now: OffsetDateTime,
    ) -> Result<Issued, CertError> {
        let make = |source| CertError::Make { subject: subject.to_owned(), source };
        let mut params = CertificateParams::default();
        for name in names {
            let one = CertificateParams::new(vec![(*name).to_owned()])
                .map_err(|source| CertError::Name { name: (*name).to_owned(), source })?;
            params.subject_alt_names.extend(one.subject_alt_names);
        }
        params.distinguished_name.push(DnType::CommonName, subject);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = usage.purposes();
        params.use_authority_key_identifier_extension = true;
        params.not_before = now - BACKDATE;
        params.not_after = now + lifetime;
        let key = new_key(subject)?;
        let cert = params.signed_by(&key, &self.issuer).map_err(make)?;
        Ok(Issued { cert_pem: cert.pem(), key_pem: key.serialize_pem() })
    }
}

pub(crate) fn new_key(subject: &str) -> Result<KeyPair, CertError> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
        .map_err(|source| CertError::Make { subject: subject.to_owned(), source })
}

/// Names as [`Parsed::names`] gives them: an IP address has many spellings.
fn normalized(names: &[&str]) -> BTreeSet<String> {
    names
        .iter()
        .map(|name| name.parse::<IpAddr>().map_or((*name).to_owned(), |ip| ip.to_string()))
        .collect()
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
