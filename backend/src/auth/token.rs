//! Session tokens: what a login is given so that a later one need not prove anew who it is. The
//! client does not look into it.
//!
//! A token says which login it was given to, and is signed together with the names that it is for,
//! which the client says beside it, and with what the user proves by who it is: another password, and the
//! token is none. Whether it still holds, the record of the device says.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use edgeway_proto::{auth::LoginRequest, link};
use prost::Message;
use ring::hmac;

/// Of the layout below.
const VERSION: u8 = 2;

/// Of HMAC with SHA-256.
const TAG_BYTES: usize = 32;

/// What is signed begins with this, so that no other use of the key gives a token.
const CONTEXT: &[u8] = b"edgeway session token\0";

/// What a token says.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Claim {
    /// Of the login that it was given to.
    pub(super) generation: u64,
    /// Milliseconds since 1970 at which that login ends; 0 for never.
    pub(super) expires_ms: u64,
    /// By what that login had proved who it is.
    pub(super) source: Source,
    /// What it may do; everything where absent.
    pub(super) rights: Option<link::Rights>,
}

/// By what a login has proved who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// By word.
    Development,
    Password,
    /// By a token that was signed with this key.
    Token(String),
    /// The operator's endpoint said so.
    Callback,
}

impl Source {
    /// Whether a login that has said a name must be of just that user.
    pub(super) fn names_the_user(&self, request: &LoginRequest) -> bool {
        !request.user.is_empty() && !matches!(self, Self::Callback)
    }
}

impl Claim {
    fn put(&self, out: &mut BytesMut) {
        out.put_u8(VERSION);
        out.put_u64(self.generation);
        out.put_u64(self.expires_ms);
        let (source, kid) = match &self.source {
            Source::Development => (0, ""),
            Source::Password => (1, ""),
            Source::Token(kid) => (2, kid.as_str()),
            Source::Callback => (3, ""),
        };
        out.put_u8(source);
        // The config holds it to so many bytes.
        out.put_u8(u8::try_from(kid.len()).unwrap_or(u8::MAX));
        out.put_slice(kid.as_bytes());
        out.put_u8(self.rights.is_some().into());
        if let Some(rights) = &self.rights {
            out.put_slice(&rights.encode_to_vec());
        }
    }

    fn parse(mut from: &[u8]) -> Option<Self> {
        if from.try_get_u8().ok()? != VERSION {
            return None;
        }
        let generation = from.try_get_u64().ok()?;
        let expires_ms = from.try_get_u64().ok()?;
        let source = from.try_get_u8().ok()?;
        let kid = usize::from(from.try_get_u8().ok()?);
        let (kid, mut rest) = from.split_at_checked(kid)?;
        let source = match source {
            0 => Source::Development,
            1 => Source::Password,
            2 => Source::Token(std::str::from_utf8(kid).ok()?.to_owned()),
            3 => Source::Callback,
            _ => return None,
        };
        let rights = match rest.try_get_u8().ok()? {
            0 => None,
            _ => Some(link::Rights::decode(rest).ok()?),
        };
        Some(Self { generation, expires_ms, source, rights })
    }
}

/// The key that tokens are signed with. Instances that are to take each other's tokens need the same.
pub struct TokenKey(hmac::Key);

impl std::fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenKey")
    }
}

impl TokenKey {
    /// A key of these bytes.
    #[must_use]
    pub fn new(secret: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    /// A key that nobody else has.
    ///
    /// # Errors
    /// The system gives no random numbers.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret)?;
        Ok(Self::new(&secret))
    }

    pub(super) fn sign(&self, who: &Who<'_>, claim: &Claim) -> Bytes {
        let mut token = BytesMut::new();
        claim.put(&mut token);
        let tag = hmac::sign(&self.0, &who.signed(&token));
        token.extend_from_slice(tag.as_ref());
        token.freeze()
    }

    /// What a token says, where it was signed for this user and device, and for what `proof` gives of whatever the
    /// login had proved itself by.
    pub(super) fn check(
        &self,
        user: &str,
        device: &str,
        token: &[u8],
        proof: impl Fn(&Source) -> Option<String>,
    ) -> Option<Claim> {
        let (signed, tag) = token.split_at_checked(token.len().checked_sub(TAG_BYTES)?)?;
        // Believed only once the signature holds.
        let claim = Claim::parse(signed)?;
        let proof = proof(&claim.source)?;
        let who = Who { user, device, proof: &proof };
        hmac::verify(&self.0, &who.signed(signed), tag).ok()?;
        Some(claim)
    }
}

/// Whom a token is for.
#[derive(Clone, Copy)]
pub(super) struct Who<'a> {
    pub(super) user: &'a str,
    pub(super) device: &'a str,
    /// The hash of the user's password, or what names the key of its token; empty where nothing is asked for.
    pub(super) proof: &'a str,
}

impl Who<'_> {
    fn signed(&self, claim: &[u8]) -> Vec<u8> {
        let mut signed = CONTEXT.to_vec();
        for part in [self.user, self.device, self.proof] {
            // With its length, so that no other three are the same bytes.
            signed.put_u64(part.len() as u64);
            signed.extend_from_slice(part.as_bytes());
        }
        signed.extend_from_slice(claim);
        signed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims() -> [Claim; 2] {
        let claim = |source, rights| Claim { generation: 7, expires_ms: 9, source, rights };
        let rooms = link::Names { names: vec!["maths-*".to_owned()] };
        let rights = link::Rights { rooms: Some(rooms), ..link::Rights::default() };
        [
            claim(Source::Password, None),
            claim(Source::Token("school-2026".to_owned()), Some(rights)),
        ]
    }

    fn check(key: &TokenKey, who: &Who<'_>, token: &[u8]) -> Option<Claim> {
        key.check(who.user, who.device, token, |_| Some(who.proof.to_owned()))
    }

    #[test]
    fn a_token_is_good_for_its_own_device_and_key_only() {
        let key = TokenKey::new(&[1; 32]);
        let who = |user, device, proof| Who { user, device, proof };
        let ada = who("ada", "phone", "hash");
        for claim in claims() {
            let token = key.sign(&ada, &claim);
            assert_eq!(check(&key, &ada, &token), Some(claim));
            for other in [
                who("bob", "phone", "hash"),
                who("ada", "tablet", "hash"),
                who("ada", "phone", "other"),
                who("adap", "hone", "hash"),
                who("ada", "phoneh", "ash"),
            ] {
                assert_eq!(check(&key, &other, &token), None);
            }
            assert_eq!(check(&TokenKey::new(&[2; 32]), &ada, &token), None);
            assert_eq!(key.check("ada", "phone", &token, |_| None), None, "its key is no more");
        }
    }

    #[test]
    fn a_garbled_token_is_none() {
        let key = TokenKey::new(&[1; 32]);
        let ada = Who { user: "ada", device: "phone", proof: "" };
        for claim in claims() {
            let token = key.sign(&ada, &claim);
            for at in 0..token.len() {
                let mut garbled = token.to_vec();
                garbled[at] ^= 1;
                assert_eq!(check(&key, &ada, &garbled), None, "byte {at}");
                assert_eq!(check(&key, &ada, &token[..at]), None, "{at} bytes");
            }
            assert_eq!(check(&key, &ada, &[&token[..], &[0]].concat()), None);
        }
    }
}
