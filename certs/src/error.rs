//! What can go wrong, each with the file and what to do about it.

use std::path::PathBuf;

/// Why there are no certificates.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CertError {
    /// A file or directory could not be read or written.
    #[error("cannot {action} {}: {source}; check that the directory exists and that this user may write to it", .path.display())]
    Io {
        /// `read`, `write`, ...
        action: &'static str,
        /// Which one.
        path: PathBuf,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// One of `ca.pem` and `ca.key` is there without the other.
    #[error("{} is missing, but {} is there; put it back, or delete the other too to make a new CA (clients then need the new ca.pem)", .missing.display(), .present.display())]
    HalfAuthority {
        /// The file that is not there.
        missing: PathBuf,
        /// The file that is.
        present: PathBuf,
    },
    /// The authority's files do not hold what they should, or it has run out.
    #[error("{} {problem}; delete ca.pem and ca.key beside it to make a new CA (clients then need the new ca.pem)", .path.display())]
    Authority {
        /// The file.
        path: PathBuf,
        /// What is wrong with it: a verb phrase.
        problem: String,
    },
    /// There is no authority.
    #[error("there is no CA in {}; make one with `edgeway certs ca`, or name its directory", .dir.display())]
    NoAuthority {
        /// Where it was looked for.
        dir: PathBuf,
    },
    /// What would be overwritten.
    #[error("{} is there already; {instead}", .path.display())]
    Exists {
        /// The file.
        path: PathBuf,
        /// What to do.
        instead: &'static str,
    },
    /// A certificate would outlive the authority.
    #[error("the CA itself runs out on {until}: issue for {days} days at most, or make a new CA")]
    OutlivesAuthority {
        /// Its last day.
        until: String,
        /// Days that are left.
        days: i64,
    },
    /// A name that no file should have.
    #[error(
        "{name:?} cannot name files; use letters, digits, and - _ . (not first), and not \"ca\""
    )]
    FileName {
        /// The name.
        name: String,
    },
    /// A name that no certificate can carry.
    #[error("{name:?} cannot stand in a certificate: {source}; use a host name or an IP address")]
    Name {
        /// The name.
        name: String,
        /// What rcgen says.
        source: rcgen::Error,
    },
    /// Key generation or signing failed.
    #[error(
        "cannot make the certificate of {subject}: {source}; this is a fault of Edgeway or of the system's random numbers"
    )]
    Make {
        /// Whose certificate.
        subject: String,
        /// What rcgen says.
        source: rcgen::Error,
    },
}
