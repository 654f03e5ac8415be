//! An authority that is made and used by hand: nothing is made or replaced that nobody asked for.

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rcgen::PublicKeyData;
use time::OffsetDateTime;

use crate::{
    CertError, DevCa, Usage,
    ca::new_key,
    files::{self, Access},
};

/// A certificate to issue.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Whose it is; names its files too.
    pub subject: &'a str,
    /// Host names and IP addresses that it is good for.
    pub names: &'a [&'a str],
    /// What it is for.
    pub usage: Usage,
    /// How long it is good.
    pub lifetime: Duration,
}

/// Files of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// The certificate.
    pub cert_path: PathBuf,
    /// Its key, readable by its owner only.
    pub key_path: PathBuf,
    /// Its last day.
    pub until: String,
}

impl DevCa {
    /// A new authority in `dir`. Its name begins with `title`, and ends with a part of its key: so that an error
    /// tells two of the same title apart.
    ///
    /// # Errors
    /// Where there is one already, unless `replace`; and as [`CertError`].
    pub fn make(
        dir: &Path,
        title: &str,
        lifetime: Duration,
        replace: bool,
    ) -> Result<Self, CertError> {
        let _lock = files::lock(dir)?;
        let (path, key_path) = (dir.join("ca.pem"), dir.join("ca.key"));
        let instead = "it is what other processes trust. With --force another CA takes its place, and all \
                       certificates have to be issued anew";
        absent(&[&path, &key_path], instead, replace)?;
        let key = new_key(title)?;
        let bytes = key.der_bytes();
        let part = &bytes[bytes.len().saturating_sub(4)..];
        let part: String = part.iter().map(|byte| format!("{byte:02x}")).collect();
        let title = format!("{title} {part}");
        Self::create(path, &key_path, key, &title, lifetime, SystemTime::now().into())
    }

    /// The authority of `dir`, which must be there.
    ///
    /// # Errors
    /// See [`CertError`].
    pub fn existing(dir: &Path) -> Result<Self, CertError> {
        if !dir.join("ca.pem").exists() && !dir.join("ca.key").exists() {
            return Err(CertError::NoAuthority { dir: dir.to_owned() });
        }
        Self::open(dir)
    }

    /// Issues a certificate into `SUBJECT.pem` and `SUBJECT.key` of `dir`.
    ///
    /// # Errors
    /// Where these are there already, unless `replace`; where it would outlive the authority; and as [`CertError`].
    pub fn issue_to(
        &self,
        dir: &Path,
        request: &Request<'_>,
        replace: bool,
    ) -> Result<Saved, CertError> {
        let Request { subject, names, usage, lifetime } = *request;
        check_file_name(subject)?;
        let now = OffsetDateTime::from(SystemTime::now());
        let until = now + lifetime;
        if let Some(end) = self.not_after().filter(|end| *end < until) {
            let days = (end - now).whole_days();
            return Err(CertError::OutlivesAuthority { until: end.date().to_string(), days });
        }
        let _lock = files::lock(dir)?;
        let cert_path = dir.join(format!("{subject}.pem"));
        let key_path = dir.join(format!("{subject}.key"));
        let instead = "give the process another name, or replace its certificate with --force";
        absent(&[&cert_path, &key_path], instead, replace)?;
        let issued = self.sign(subject, names, usage, lifetime, now)?;
        files::write(&key_path, &issued.key_pem, Access::Private)?;
        files::write(&cert_path, &issued.cert_pem, Access::Public)?;
        Ok(Saved { cert_path, key_path, until: until.date().to_string() })
    }
}

fn absent(paths: &[&Path], instead: &'static str, replace: bool) -> Result<(), CertError> {
    let there = paths.iter().find(|path| path.exists());
    match there.filter(|_| !replace) {
        Some(path) => Err(CertError::Exists { path: path.to_path_buf(), instead }),
        None => Ok(()),
    }
}

fn check_file_name(name: &str) -> Result<(), CertError> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let good = !name.is_empty()
        && name.len() <= 64
        && !name.starts_with('.')
        && name != "ca"
        && name.chars().all(is_plain);
    if good { Ok(()) } else { Err(CertError::FileName { name: name.to_owned() }) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs;

    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    fn request<'a>(subject: &'a str, names: &'a [&'a str]) -> Request<'a> {
        Request { subject, names, usage: Usage::Peer, lifetime: 30 * DAY }
    }

    #[test]
    fn nothing_is_overwritten_unless_that_is_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let read = |name: &str| fs::read_to_string(dir.join(name)).unwrap();
        let ca = DevCa::make(dir, "A CA", 365 * DAY, false).unwrap();
        let error = DevCa::make(dir, "A CA", 365 * DAY, false).map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("ca.pem is there already"), "{error}");
        assert_eq!(read("ca.pem"), ca.pem());

        let names = ["edgeway-link", "10.0.0.1"];
        let saved = ca.issue_to(dir, &request("gw-1", &names), false).unwrap();
        let first = read("gw-1.pem");
        let error = ca.issue_to(dir, &request("gw-1", &names), false).unwrap_err();
        assert!(error.to_string().contains("gw-1.pem is there already"), "{error}");
        assert_eq!(read("gw-1.pem"), first);
        assert_eq!(ca.issue_to(dir, &request("gw-1", &names), true).unwrap(), saved);
        assert_ne!(read("gw-1.pem"), first);

        let other = DevCa::make(dir, "A CA", 365 * DAY, true).unwrap();
        assert_ne!(other.pem(), ca.pem());
    }

    #[cfg(unix)]
    #[test]
    fn keys_are_for_their_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let ca = DevCa::make(dir.path(), "A CA", 365 * DAY, false).unwrap();
        let saved = ca.issue_to(dir.path(), &request("gw-1", &["a"]), false).unwrap();
        for key in [dir.path().join("ca.key"), saved.key_path] {
            let mode = fs::metadata(&key).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{}", key.display());
        }
    }

    #[test]
    fn what_cannot_be_issued_is_told_why() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let error = DevCa::existing(&dir.join("none")).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("none") && error.contains("edgeway certs ca"), "{error}");
        let ca = DevCa::make(dir, "A CA", 20 * DAY, false).unwrap();
        let error = ca.issue_to(dir, &request("gw-1", &["a"]), false).unwrap_err().to_string();
        assert!(error.contains("for 19 days at most"), "{error}");
        for name in ["", "ca", "../gw", ".hidden", "a/b", "a b", "bücher"] {
            let error = ca.issue_to(dir, &request(name, &["a"]), false).unwrap_err().to_string();
            assert!(error.contains("cannot name files"), "{name}: {error}");
        }
    }

    #[test]
    fn two_authorities_have_different_names() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let name = |dir: &Path| {
            let ca = DevCa::make(dir, "A CA", 20 * DAY, false).unwrap();
            let (_, pem) = x509_parser::pem::parse_x509_pem(ca.pem().as_bytes()).unwrap();
            pem.parse_x509().unwrap().subject().to_string()
        };
        let (one, two) = (name(one.path()), name(two.path()));
        assert!(one.starts_with("CN=A CA ") && one != two, "{one} {two}");
    }
}
