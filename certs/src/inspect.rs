//! Reads certificates back: are they still good for what is wanted?

use std::{collections::BTreeSet, net::IpAddr};

use rcgen::{KeyPair, PublicKeyData};
use time::OffsetDateTime;
use x509_parser::{
    extensions::GeneralName,
    pem::{Pem, parse_x509_pem},
};

/// A certificate in PEM, parsed once.
pub struct Parsed(Pem);

impl Parsed {
    /// `None` where `text` is no certificate.
    pub fn from_pem(text: &str) -> Option<Self> {
        let (_, pem) = parse_x509_pem(text.as_bytes()).ok()?;
        pem.parse_x509().ok()?;
        Some(Self(pem))
    }

    /// Was it made for this key?
    pub fn has_key(&self, key: &KeyPair) -> bool {
        self.0
            .parse_x509()
            .is_ok_and(|cert| cert.public_key().subject_public_key.data.as_ref() == key.der_bytes())
    }

    /// Is it signed by `issuer`?
    pub fn is_signed_by(&self, issuer: &Self) -> bool {
        let (Ok(cert), Ok(issuer)) = (self.0.parse_x509(), issuer.0.parse_x509()) else {
            return false;
        };
        cert.verify_signature(Some(issuer.public_key())).is_ok()
    }

    /// Is it valid now, and will it still be at `until`?
    pub fn is_valid(&self, now: OffsetDateTime, until: OffsetDateTime) -> bool {
        self.0.parse_x509().is_ok_and(|cert| {
            let validity = cert.validity();
            validity.not_before.to_datetime() <= now && until < validity.not_after.to_datetime()
        })
    }

    /// When it runs out.
    pub fn not_after(&self) -> Option<OffsetDateTime> {
        self.0.parse_x509().ok().map(|cert| cert.validity().not_after.to_datetime())
    }

    /// The names and addresses that it is for, as text.
    pub fn names(&self) -> BTreeSet<String> {
        let Ok(cert) = self.0.parse_x509() else { return BTreeSet::new() };
        let Ok(Some(extension)) = cert.subject_alternative_name() else { return BTreeSet::new() };
        extension.value.general_names.iter().filter_map(name).collect()
    }
}

fn name(general: &GeneralName<'_>) -> Option<String> {
    match general {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => {
            let address = <[u8; 4]>::try_from(*bytes)
                .map(IpAddr::from)
                .or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from));
            address.ok().map(|address| address.to_string())
        }
        _ => None,
    }
}
