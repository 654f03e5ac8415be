//! Signed tokens (JWT, RFC 7519): what a third party, who knows the user, says that the user may do.
//!
//! The key says the algorithm, never the token: a token that names another one is refused, so that no public key
//! is ever taken for a secret, and `none` is nothing that a key can have.

use std::{collections::BTreeMap, fmt, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use edgeway_proto::{CloseCode, limits};
use jsonwebtoken::{DecodingKey, EncodingKey, Header, Validation, errors::ErrorKind};
use serde::{Deserialize, Serialize};

use super::{crypto, refusal::Refusal, rights};

/// A secret of HS256 has at least as many bytes as what it signs with gives (RFC 7518, section 3.2).
const SECRET_MIN_BYTES: usize = 32;

/// The latest end of a token, in seconds: what a client's clock in milliseconds holds exactly.
const LATEST: u64 = (1 << 53) / 1000;

/// How tokens are signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// HMAC with SHA-256: who checks can also sign.
    Hs256,
    /// RSA (PKCS #1 v1.5) with SHA-256, 2048 to 8192 bits.
    Rs256,
    /// Ed25519.
    EdDsa,
}

impl Algorithm {
    /// All of them, in words.
    pub const NAMES: &str = "HS256, RS256 and EdDSA";

    /// By its name in a token's header.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "HS256" => Some(Self::Hs256),
            "RS256" => Some(Self::Rs256),
            "EdDSA" => Some(Self::EdDsa),
            _ => None,
        }
    }

    /// Its name in a token's header.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::Rs256 => "RS256",
            Self::EdDsa => "EdDSA",
        }
    }

    const fn of_jwt(self) -> jsonwebtoken::Algorithm {
        match self {
            Self::Hs256 => jsonwebtoken::Algorithm::HS256,
            Self::Rs256 => jsonwebtoken::Algorithm::RS256,
            Self::EdDsa => jsonwebtoken::Algorithm::EdDSA,
        }
    }
}

/// Why a key cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyProblem {
    /// Too short to keep a secret.
    #[error("a secret of HS256 must have at least 32 bytes; this one has {0}")]
    ShortSecret(usize),
    /// Everyone knows a public key.
    #[error(
        "is in PEM form, which a secret of HS256 is not: whoever has the public key could sign; \
         use RS256 or EdDSA"
    )]
    PemAsSecret,
    /// Not what the algorithm takes.
    #[error("is no {kind} key of {algorithm} in PEM form")]
    NotPem {
        /// public or private
        kind: &'static str,
        /// Its name.
        algorithm: &'static str,
    },
}

fn check_secret(secret: &[u8]) -> Result<&[u8], KeyProblem> {
    let secret = secret.trim_ascii();
    if secret.starts_with(b"-----BEGIN") {
        return Err(KeyProblem::PemAsSecret);
    }
    if secret.len() < SECRET_MIN_BYTES {
        return Err(KeyProblem::ShortSecret(secret.len()));
    }
    Ok(secret)
}

/// A key that tokens are checked with.
#[derive(Clone)]
pub struct VerifyKey {
    algorithm: Algorithm,
    key: DecodingKey,
    /// Names the key's bytes: session tokens are bound to it.
    fingerprint: String,
}

impl VerifyKey {
    /// Of the secret, or of a public key in PEM form.
    ///
    /// # Errors
    /// It is none of this algorithm.
    pub fn new(algorithm: Algorithm, bytes: &[u8]) -> Result<Self, KeyProblem> {
        crypto::install();
        let name = algorithm.name();
        let not_pem = |_| KeyProblem::NotPem { kind: "public", algorithm: name };
        let key = match algorithm {
            Algorithm::Hs256 => DecodingKey::from_secret(check_secret(bytes)?).map_err(not_pem)?,
            Algorithm::Rs256 => DecodingKey::from_rsa_pem(bytes).map_err(not_pem)?,
            Algorithm::EdDsa => DecodingKey::from_ed_pem(bytes).map_err(not_pem)?,
        };
        let digest = ring::digest::digest(&ring::digest::SHA256, bytes.trim_ascii());
        let fingerprint = format!("{name}:{}", URL_SAFE_NO_PAD.encode(digest.as_ref()));
        Ok(Self { algorithm, key, fingerprint })
    }
}

impl fmt::Debug for VerifyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.algorithm.name())
    }
}

/// A key that tokens are signed with: an operator's, never a server's.
pub struct SigningKey {
    algorithm: Algorithm,
    key: EncodingKey,
}

impl SigningKey {
    /// Of the secret, or of a private key in PEM form.
    ///
    /// # Errors
    /// It is none of this algorithm.
    pub fn new(algorithm: Algorithm, bytes: &[u8]) -> Result<Self, KeyProblem> {
        crypto::install();
        let name = algorithm.name();
        let not_pem = |_| KeyProblem::NotPem { kind: "private", algorithm: name };
        let key = match algorithm {
            Algorithm::Hs256 => EncodingKey::from_secret(check_secret(bytes)?).map_err(not_pem)?,
            Algorithm::Rs256 => EncodingKey::from_rsa_pem(bytes).map_err(not_pem)?,
            Algorithm::EdDsa => EncodingKey::from_ed_pem(bytes).map_err(not_pem)?,
        };
        Ok(Self { algorithm, key })
    }

    /// A token.
    ///
    /// # Errors
    /// The key cannot sign.
    pub fn sign(&self, kid: &str, claims: &Claims) -> Result<String, jsonwebtoken::errors::Error> {
        let mut header = Header::new(self.algorithm.of_jwt());
        header.kid = Some(kid.to_owned());
        jsonwebtoken::encode(&header, claims, &self.key)
    }
}

/// One or several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Audience {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

/// What a token says. Other claims are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// The user.
    pub sub: String,
    /// Whole seconds since 1970 from which on it is void.
    pub exp: u64,
    /// Seconds since 1970 before which it is void.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nbf: Option<u64>,
    /// Who signed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iss: Option<String>,
    /// For whom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aud: Option<Audience>,
    /// Rooms that may be joined, `*` for any text; all where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rooms: Option<Vec<String>>,
    /// Rooms that may be spoken in; those that may be joined where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speak: Option<Vec<String>>,
    /// `signal`, `binary`, `chat`, `im`, and others for backends of one's own; all where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rights: Option<Vec<String>>,
}

/// What tokens are checked by.
#[derive(Debug, Clone, Default)]
pub struct Tokens {
    /// By `kid`.
    pub keys: BTreeMap<String, VerifyKey>,
    /// One of them must be `iss`; any where empty.
    pub issuers: Vec<String>,
    /// One of them must be in `aud`; without any, tokens with an `aud` are for somebody else.
    pub audiences: Vec<String>,
    /// How far the clocks of those who sign and of this machine may differ: a token is good so long before `nbf`
    /// and after `exp`.
    pub leeway: Duration,
}

/// What of a header is looked at.
#[derive(Deserialize)]
struct RawHeader {
    alg: String,
    kid: Option<String>,
    crit: Option<serde_json::Value>,
}

/// A token that is good.
#[derive(Debug)]
pub struct Good {
    /// What it says.
    pub claims: Claims,
    /// Which key has signed it.
    pub kid: String,
    /// When a login by it ends, in milliseconds since 1970.
    pub expires_ms: u64,
}

impl Tokens {
    /// What session tokens of a key's logins are bound to; none where there is no such key (any more).
    #[must_use]
    pub(super) fn proof(&self, kid: &str) -> Option<String> {
        self.keys.get(kid).map(|key| key.fingerprint.clone())
    }

    /// Whether a token is good now.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self, token: &[u8]) -> Result<Good, Refusal> {
        const MALFORMED: Refusal =
            Refusal::failed("token_malformed", "it is no signed token (JWT)");
        if token.len() > limits::SECRET_BYTES {
            return Err(Refusal::failed("token_too_long", "a token may have 8 KiB"));
        }
        let header = token.split(|b| *b == b'.').next().unwrap_or_default();
        let header = URL_SAFE_NO_PAD.decode(header).map_err(|_| MALFORMED)?;
        let header: RawHeader = serde_json::from_slice(&header).map_err(|_| MALFORMED)?;
        if header.crit.is_some() {
            return Err(Refusal::failed(
                "token_malformed",
                "its header asks for extensions (crit)",
            ));
        }
        let (kid, key) = self.key(header.kid.as_deref())?;
        if header.alg != key.algorithm.name() {
            let detail = "its algorithm is not that of its key";
            return Err(Refusal::failed("token_algorithm", detail));
        }
        let decoded = jsonwebtoken::decode::<Claims>(token, &key.key, &self.validation(key));
        let claims = decoded.map_err(|e| refused(e.kind()))?.claims;
        if claims.sub.is_empty() {
            return Err(Refusal::failed("token_claims", "it says no user (sub)"));
        }
        rights::check([&claims.rooms, &claims.speak, &claims.rights])
            .map_err(|detail| Refusal::failed("token_claims", detail))?;
        let seconds = claims.exp.saturating_add(self.leeway.as_secs()).min(LATEST);
        Ok(Good { kid: kid.to_owned(), expires_ms: seconds * 1000, claims })
    }

    fn key(&self, kid: Option<&str>) -> Result<(&String, &VerifyKey), Refusal> {
        let unknown = Refusal::failed("token_unknown_key", "its key (kid) is unknown here");
        match kid {
            Some(kid) => self.keys.get_key_value(kid).ok_or(unknown),
            // Where there is one key, nobody needs to say which.
            None if self.keys.len() == 1 => self.keys.first_key_value().ok_or(unknown),
            None => Err(Refusal::failed("token_unknown_key", "it does not say its key (kid)")),
        }
    }

    fn validation(&self, key: &VerifyKey) -> Validation {
        let mut validation = Validation::new(key.algorithm.of_jwt());
        validation.leeway = self.leeway.as_secs();
        validation.validate_nbf = true;
        let mut required = vec!["exp", "sub"];
        if !self.issuers.is_empty() {
            validation.set_issuer(&self.issuers);
            required.push("iss");
        }
        if !self.audiences.is_empty() {
            validation.set_audience(&self.audiences);
            required.push("aud");
        }
        validation.set_required_spec_claims(&required);
        validation
    }
}

fn refused(kind: &ErrorKind) -> Refusal {
    match kind {
        ErrorKind::ExpiredSignature => Refusal {
            code: CloseCode::LoginExpired,
            ..Refusal::failed("token_expired", "its time (exp) is over")
        },
        ErrorKind::ImmatureSignature => {
            Refusal::failed("token_not_yet_valid", "its time (nbf) has not come")
        }
        ErrorKind::InvalidSignature => {
            Refusal::failed("token_signature", "its signature is not that of its key")
        }
        ErrorKind::InvalidAudience => Refusal::failed("token_audience", "it is for others (aud)"),
        ErrorKind::InvalidIssuer => Refusal::failed("token_issuer", "it is signed by others (iss)"),
        ErrorKind::MissingRequiredClaim(claim) if claim == "aud" => {
            Refusal::failed("token_audience", "it does not say for whom it is (aud)")
        }
        ErrorKind::MissingRequiredClaim(claim) if claim == "iss" => {
            Refusal::failed("token_issuer", "it does not say who signed it (iss)")
        }
        ErrorKind::MissingRequiredClaim(_)
        | ErrorKind::InvalidClaimFormat(_)
        | ErrorKind::Json(_) => {
            let detail = "sub must be a text, exp and nbf whole seconds since 1970, rooms, speak and rights lists";
            Refusal::failed("token_claims", detail)
        }
        _ => Refusal::failed("token_malformed", "it is no signed token (JWT)"),
    }
}

/// Header and claims of a token as they stand in it, believed by nobody: for a person who looks for what is wrong.
#[must_use]
pub fn inspect(token: &[u8]) -> Option<(serde_json::Value, serde_json::Value)> {
    let mut parts = token.splitn(3, |b| *b == b'.');
    let mut part = || {
        let bytes = URL_SAFE_NO_PAD.decode(parts.next()?).ok()?;
        serde_json::from_slice(&bytes).ok()
    };
    Some((part()?, part()?))
}

#[cfg(test)]
mod tests;
