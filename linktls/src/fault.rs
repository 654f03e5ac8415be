//! What can be wrong with the other side of a link.

use std::io;

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage};

/// Why a connection does not become a link. In the texts "it" is the other side.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// It has no certificate.
    #[error("it shows no certificate, and links need certificates of both sides ([links])")]
    NoCertificate,
    /// Its certificate was issued by somebody else.
    #[error("its certificate is not of our CA (links.ca)")]
    OtherCa,
    /// Its certificate has run out.
    #[error(
        "its certificate has run out, or a clock is wrong; issue a new one (`edgeway certs link`)"
    )]
    Expired,
    /// Its certificate begins later.
    #[error("its certificate is not valid yet: a clock is wrong, here or where it was issued")]
    NotYetValid,
    /// Its certificate lacks the name of the cluster.
    #[error(
        "its certificate does not carry our links.name, so it is of another cluster or not for links"
    )]
    OtherName,
    /// Its certificate is only for servers, or only for clients.
    #[error(
        "its certificate is not for this use; `edgeway certs link` makes those that are for both"
    )]
    Purpose,
    /// It speaks in the clear where TLS is wanted.
    #[error("it speaks in the clear, and links here are TLS: give it certificates ([links])")]
    Clear,
    /// It speaks TLS where links are in the clear.
    #[error("it speaks TLS, and links here are in the clear: this process has no [links]")]
    Tls,
    /// It did not finish the handshake in time.
    #[error("it did not finish the TLS handshake in time")]
    Silent,
    /// It closed the connection in the handshake.
    #[error("it closed the connection during the TLS handshake")]
    Gone,
    /// It was the oldest of too many handshakes.
    #[error("too many handshakes at once: the oldest is given up")]
    Crowded,
    /// It says that it does not want our certificate.
    #[error("it refuses our certificate (links.cert): {}", refusal(*.0))]
    Refused(AlertDescription),
    /// It breaks TLS or HTTP/2, or cannot do what links need.
    #[error("{0}")]
    Protocol(String),
    /// The network.
    #[error("{0}")]
    Io(String),
}

impl Fault {
    /// What an error of a TLS stream says about the other side.
    pub(crate) fn of(error: &io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
            Some(error) => Self::of_tls(error),
            None => match error.kind() {
                io::ErrorKind::UnexpectedEof
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionAborted
                | io::ErrorKind::BrokenPipe => Self::Gone,
                _ => Self::Io(error.to_string()),
            },
        }
    }

    pub(crate) fn of_tls(error: &Error) -> Self {
        match error {
            Error::NoCertificatesPresented => Self::NoCertificate,
            Error::InvalidCertificate(error) => Self::of_certificate(error),
            Error::AlertReceived(alert) if is_refusal(*alert) => Self::Refused(*alert),
            Error::InvalidMessage(InvalidMessage::InvalidContentType) => Self::Clear,
            Error::NoApplicationProtocol
            | Error::AlertReceived(AlertDescription::NoApplicationProtocol) => no_http2(),
            Error::AlertReceived(AlertDescription::ProtocolVersion)
            | Error::PeerIncompatible(_) => {
                Self::Protocol("it cannot do TLS 1.3, which links need".to_owned())
            }
            other => Self::Protocol(format!("TLS: {other}")),
        }
    }

    fn of_certificate(error: &CertificateError) -> Self {
        match error {
            // The second: an authority of the same name with another key.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => Self::OtherCa,
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Self::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                Self::NotYetValid
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                Self::OtherName
            }
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
                Self::Purpose
            }
            other => Self::Protocol(format!("its certificate cannot be used: {other}")),
        }
    }

    /// For metrics.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::NoCertificate => "no_certificate",
            Self::OtherCa => "other_ca",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::OtherName => "other_name",
            Self::Purpose => "purpose",
            Self::Clear => "clear",
            Self::Tls => "tls",
            Self::Silent => "silent",
            Self::Gone => "gone",
            Self::Crowded => "crowded",
            Self::Refused(_) => "refused_ours",
            Self::Protocol(_) => "protocol",
            Self::Io(_) => "io",
        }
    }
}

/// It does not do HTTP/2, or not over TLS.
pub(crate) fn no_http2() -> Fault {
    Fault::Protocol("it does not offer HTTP/2 (ALPN `h2`): it is no gRPC peer".to_owned())
}

/// Whether an alert is about the certificate that we showed.
fn is_refusal(alert: AlertDescription) -> bool {
    use AlertDescription as A;
    matches!(
        alert,
        A::UnknownCA
            | A::DecryptError
            | A::CertificateExpired
            | A::CertificateUnknown
            | A::CertificateRequired
            | A::CertificateRevoked
            | A::BadCertificate
            | A::UnsupportedCertificate
            | A::AccessDenied
    )
}

fn refusal(alert: AlertDescription) -> String {
    use AlertDescription as A;
    match alert {
        // The second: an authority of the same name with another key.
        A::UnknownCA | A::DecryptError => {
            "it is not of its CA; all processes need the same links.ca".to_owned()
        }
        A::CertificateExpired => "it is not in date; issue a new one, or set the clocks".to_owned(),
        A::BadCertificate => "it does not carry its links.name, or not as it wants it".to_owned(),
        other => format!("{other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_told_by_its_cause() {
        let tls = |error| Fault::of(&io::Error::new(io::ErrorKind::InvalidData, error));
        let certificate = |error| tls(Error::InvalidCertificate(error));
        for (fault, label, says) in [
            (tls(Error::NoCertificatesPresented), "no_certificate", "both sides"),
            (certificate(CertificateError::UnknownIssuer), "other_ca", "links.ca"),
            (certificate(CertificateError::BadSignature), "other_ca", "links.ca"),
            (certificate(CertificateError::Expired), "expired", "run out"),
            (certificate(CertificateError::NotValidForName), "other_name", "links.name"),
            (certificate(CertificateError::InvalidPurpose), "purpose", "edgeway certs link"),
            (
                tls(Error::AlertReceived(AlertDescription::UnknownCA)),
                "refused_ours",
                "same links.ca",
            ),
            (
                tls(Error::InvalidMessage(InvalidMessage::InvalidContentType)),
                "clear",
                "in the clear",
            ),
            (tls(Error::NoApplicationProtocol), "protocol", "HTTP/2"),
            (Fault::of(&io::ErrorKind::ConnectionReset.into()), "gone", "closed"),
            (Fault::of(&io::Error::other("odd")), "io", "odd"),
        ] {
            assert_eq!(fault.label(), label, "{fault}");
            assert!(fault.to_string().contains(says), "{fault}");
        }
    }
}
