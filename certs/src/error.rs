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
