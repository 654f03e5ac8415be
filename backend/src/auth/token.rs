//! Session tokens: what a login is given so that a later one need not prove anew who it is. The
//! client does not look into it.
//!
//! A token says which login it was given to, and is signed together with the names that it is for,
//! which the client says beside it, and with what the user proves by who it is: another password, and the
//! token is none. Whether it still holds, the record of the device says.

use bytes::{BufMut, Bytes, BytesMut};
use ring::hmac;

/// Of the layout below.
const VERSION: u8 = 1;

/// Version, generation, expiry.
const CLAIM_BYTES: usize = 1 + 8 + 8;

/// What is signed begins with this, so that no other use of the key gives a token.
const CONTEXT: &[u8] = b"edgeway session token\0";

/// What a token says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Claim {
    /// Of the login that it was given to.
    pub(super) generation: u64,
    /// Milliseconds since 1970 at which that login ends; 0 for never.
    pub(super) expires_ms: u64,
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

    pub(super) fn sign(&self, who: &Who<'_>, claim: Claim) -> Bytes {
        let mut token = BytesMut::with_capacity(CLAIM_BYTES + 32);
        token.put_u8(VERSION);
        token.put_u64(claim.generation);
        token.put_u64(claim.expires_ms);
        let tag = hmac::sign(&self.0, &who.signed(&token));
        token.extend_from_slice(tag.as_ref());
        token.freeze()
    }

    /// What a token says, where it was signed for these.
    pub(super) fn check(&self, who: &Who<'_>, token: &[u8]) -> Option<Claim> {
        let (claim, tag) = token.split_at_checked(CLAIM_BYTES)?;
        hmac::verify(&self.0, &who.signed(claim), tag).ok()?;
        let (version, numbers) = claim.split_first()?;
        let (generation, expires) = numbers.split_at_checked(8)?;
        (*version == VERSION).then_some(Claim {
            generation: u64::from_be_bytes(generation.try_into().ok()?),
            expires_ms: u64::from_be_bytes(expires.try_into().ok()?),
        })
    }
}

/// Whom a token is for.
#[derive(Clone, Copy)]
pub(super) struct Who<'a> {
    pub(super) user: &'a str,
    pub(super) device: &'a str,
    /// The hash of the user's password; empty where none is asked for.
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

    const CLAIM: Claim = Claim { generation: 7, expires_ms: 9 };

    #[test]
    fn a_token_is_good_for_its_own_device_and_key_only() {
        let key = TokenKey::new(&[1; 32]);
        let who = |user, device, proof| Who { user, device, proof };
        let ada = who("ada", "phone", "hash");
        let token = key.sign(&ada, CLAIM);
        assert_eq!(key.check(&ada, &token), Some(CLAIM));
        assert_eq!(key.check(&who("bob", "phone", "hash"), &token), None);
        assert_eq!(key.check(&who("ada", "tablet", "hash"), &token), None);
        assert_eq!(key.check(&who("ada", "phone", "other"), &token), None);
        assert_eq!(key.check(&who("adap", "hone", "hash"), &token), None);
        assert_eq!(key.check(&who("ada", "phoneh", "ash"), &token), None);
        assert_eq!(TokenKey::new(&[2; 32]).check(&ada, &token), None);
    }

    #[test]
    fn a_garbled_token_is_none() {
        let key = TokenKey::new(&[1; 32]);
        let ada = Who { user: "ada", device: "phone", proof: "" };
        let token = key.sign(&ada, CLAIM);
        for at in 0..token.len() {
            let mut garbled = token.to_vec();
            garbled[at] ^= 1;
            assert_eq!(key.check(&ada, &garbled), None, "byte {at}");
            assert_eq!(key.check(&ada, &token[..at]), None, "{at} bytes");
        }
        assert_eq!(key.check(&ada, &[&token[..], &[0]].concat()), None);
    }
}
