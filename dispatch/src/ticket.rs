//! Tickets: JSON Web Tokens (RFC 7519) signed with HMAC-SHA-256, short-lived, for a gateway to know whom dispatch
//! has sent.
//!
//! Only what this makes is taken: the header is compared as a whole, so that no other algorithm can be asked for.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::hmac;
use serde::{Deserialize, Serialize};

/// A key has at least as many bytes as what it gives (RFC 7518, section 3.2).
pub const KEY_BYTES: usize = 32;
/// Keys at a time: the new one, and those that are going.
pub const KEYS: usize = 4;
/// A ticket is shorter.
pub const TICKET_BYTES: usize = 1024;

/// `{"alg":"HS256","typ":"JWT"}`.
const HEADER: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9";
const ISSUER: &str = "edgeway-dispatch";
/// Clocks of machines differ.
const LEEWAY_SECS: u64 = 30;

/// What a ticket says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims<'a> {
    /// Always `edgeway-dispatch`.
    pub iss: &'a str,
    /// The cluster.
    pub aud: &'a str,
    /// The app or tenant.
    pub app: &'a str,
    /// The user, where the client has said one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sub: Option<&'a str>,
    /// When it was made, in seconds since 1970.
    pub iat: u64,
    /// When it has run out.
    pub exp: u64,
}

/// Why a ticket is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadTicket {
    /// There is none.
    #[error("this gateway takes whom dispatch has sent: ask dispatch for a ticket")]
    Missing,
    /// No ticket of this dispatch.
    #[error("the ticket is none of this dispatch")]
    Forged,
    /// It is for another cluster.
    #[error("the ticket is for another cluster")]
    OtherCluster,
    /// It was good once.
    #[error("the ticket has run out")]
    Expired,
}

/// The keys: the first signs, all are taken. Cheap to clone.
#[derive(Clone)]
pub struct Keys(Arc<[hmac::Key]>);

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keys")
    }
}

impl Keys {
    /// Of these secrets. `None` where there is none.
    #[must_use]
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a [u8]>) -> Option<Self> {
        let keys = secrets.into_iter().map(|one| hmac::Key::new(hmac::HMAC_SHA256, one));
        let keys: Arc<[_]> = keys.collect();
        (!keys.is_empty()).then_some(Self(keys))
    }

    /// One that nobody else has.
    ///
    /// # Errors
    /// The system gives no random numbers.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut secret = [0; KEY_BYTES];
        getrandom::fill(&mut secret)?;
        Ok(Self(Arc::new([hmac::Key::new(hmac::HMAC_SHA256, &secret)])))
    }

    /// A ticket for `app` in `cluster`.
    #[must_use]
    pub fn sign(&self, cluster: &str, app: &str, user: Option<&str>, now: u64, exp: u64) -> String {
        let claims = Claims { iss: ISSUER, aud: cluster, app, sub: user, iat: now, exp };
        // Plain strings and numbers can always be written.
        let claims = serde_json::to_vec(&claims).unwrap_or_default();
        let mut ticket = String::with_capacity(256);
        ticket.push_str(HEADER);
        ticket.push('.');
        URL_SAFE_NO_PAD.encode_string(claims, &mut ticket);
        let tag = hmac::sign(&self.0[0], ticket.as_bytes());
        ticket.push('.');
        URL_SAFE_NO_PAD.encode_string(tag.as_ref(), &mut ticket);
        ticket
    }

    /// The user of a ticket for `cluster`, where it says one.
    ///
    /// # Errors
    /// Why it is not taken.
    pub fn check(
        &self,
        ticket: &[u8],
        cluster: &str,
        now: u64,
    ) -> Result<Option<Box<str>>, BadTicket> {
        if ticket.is_empty() {
            return Err(BadTicket::Missing);
        }
        let forged = BadTicket::Forged;
        let text = std::str::from_utf8(ticket).map_err(|_| forged)?;
        if text.len() > TICKET_BYTES {
            return Err(forged);
        }
        let (signed, tag) = text.rsplit_once('.').ok_or(forged)?;
        let claims = signed.strip_prefix(HEADER).and_then(|rest| rest.strip_prefix('.'));
        let claims = URL_SAFE_NO_PAD.decode(claims.ok_or(forged)?).map_err(|_| forged)?;
        let tag = URL_SAFE_NO_PAD.decode(tag).map_err(|_| forged)?;
        if !self.0.iter().any(|key| hmac::verify(key, signed.as_bytes(), &tag).is_ok()) {
            return Err(forged);
        }
        let claims: OwnedClaims = serde_json::from_slice(&claims).map_err(|_| forged)?;
        if claims.iss != ISSUER {
            return Err(forged);
        }
        if claims.aud != cluster {
            return Err(BadTicket::OtherCluster);
        }
        if claims.exp.saturating_add(LEEWAY_SECS) < now {
            return Err(BadTicket::Expired);
        }
        Ok(claims.sub.map(String::into_boxed_str))
    }
}

/// As [`Claims`]: what is escaped cannot be borrowed.
#[derive(Deserialize)]
struct OwnedClaims {
    iss: String,
    aud: String,
    #[serde(default)]
    sub: Option<String>,
    exp: u64,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn keys(secrets: &[&str]) -> Keys {
        Keys::new(secrets.iter().map(|one| one.as_bytes())).unwrap()
    }

    #[test]
    fn a_ticket_is_for_its_cluster_its_user_and_its_time() {
        let keys = keys(&["one"]);
        let ticket = keys.sign("schools", "maths", Some("ada \"a\""), NOW, NOW + 60);
        let check = |cluster, now| keys.check(ticket.as_bytes(), cluster, now);
        assert_eq!(check("schools", NOW).unwrap().as_deref(), Some("ada \"a\""));
        assert_eq!(check("schools", NOW + 60 + LEEWAY_SECS).unwrap().as_deref(), Some("ada \"a\""));
        assert_eq!(check("schools", NOW + 61 + LEEWAY_SECS), Err(BadTicket::Expired));
        assert_eq!(check("banks", NOW), Err(BadTicket::OtherCluster));
        assert_eq!(keys.check(b"", "schools", NOW), Err(BadTicket::Missing));
        let anyone = keys.sign("schools", "maths", None, NOW, NOW + 60);
        assert_eq!(keys.check(anyone.as_bytes(), "schools", NOW), Ok(None));
    }

    #[test]
    fn keys_are_rotated_without_a_gap() {
        let (old, both, new) = (keys(&["old"]), keys(&["new", "old"]), keys(&["new"]));
        let ticket = old.sign("c", "a", None, NOW, NOW + 60);
        assert!(both.check(ticket.as_bytes(), "c", NOW).is_ok());
        assert_eq!(new.check(ticket.as_bytes(), "c", NOW), Err(BadTicket::Forged));
        let ticket = both.sign("c", "a", None, NOW, NOW + 60);
        assert!(new.check(ticket.as_bytes(), "c", NOW).is_ok());
    }

    #[test]
    fn no_other_algorithm_is_taken() {
        let keys = keys(&["one"]);
        let ticket = keys.sign("c", "a", None, NOW, NOW + 60);
        let claims = ticket.split('.').nth(1).unwrap();
        let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"JWT"}"#);
        for forged in [format!("{none}.{claims}."), format!("{HEADER}.{claims}.")] {
            assert_eq!(keys.check(forged.as_bytes(), "c", NOW), Err(BadTicket::Forged));
        }
        assert_eq!(URL_SAFE_NO_PAD.decode(HEADER).unwrap(), br#"{"alg":"HS256","typ":"JWT"}"#);
    }

    proptest! {
        #[test]
        fn a_ticket_with_any_other_byte_is_none(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let keys = keys(&["one"]);
            let mut ticket = keys.sign("c", "a", Some("u"), NOW, NOW + 60).into_bytes();
            let at = at.index(ticket.len());
            prop_assume!(ticket[at] != byte);
            ticket[at] = byte;
            prop_assert!(keys.check(&ticket, "c", NOW).is_err());
        }

        #[test]
        fn nothing_that_anybody_sends_breaks_the_reader(ticket in any::<Vec<u8>>()) {
            prop_assert!(keys(&["one"]).check(&ticket, "c", NOW).is_err());
        }
    }
}
