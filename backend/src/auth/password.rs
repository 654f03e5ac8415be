//! Password hashes: argon2id in PHC form.

use std::fmt;

use argon2::{
    Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier,
    password_hash::phc::PasswordHash as Phc,
};

/// Above this one login would take memory that a server needs for others.
const MAX_MEMORY_KIB: u32 = 256 * 1024;
/// Above this one login would take a core for seconds.
const MAX_PASSES: u32 = 16;

/// Why a hash of the config cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HashProblem {
    /// Not a PHC string, or another algorithm.
    #[error(
        "is not an argon2id hash in PHC form; it must look like $argon2id$v=19$m=19456,t=2,p=1$...$..."
    )]
    NotArgon2id,
    /// It would take too long, or too much memory.
    #[error("is too costly to check; at most m=262144 (256 MiB) and t=16 are allowed")]
    TooCostly,
    /// The system gave no random salt.
    #[error("could not be made: no random salt")]
    NoSalt,
}

/// The hash of a password. Its `Display` is the PHC string of the config; its `Debug` tells nothing.
#[derive(Clone, PartialEq)]
pub struct PasswordHash(Phc);

impl PasswordHash {
    /// Hashes a password, with a random salt and the default cost.
    ///
    /// # Errors
    /// Where the system has no random numbers.
    pub fn new(password: &[u8]) -> Result<Self, HashProblem> {
        Argon2::default().hash_password(password).map(Self).map_err(|_| HashProblem::NoSalt)
    }

    /// Reads a PHC string.
    ///
    /// # Errors
    /// Another algorithm, a string that is no hash, or a cost that is out of reason.
    pub fn parse(phc: &str) -> Result<Self, HashProblem> {
        let hash = Phc::new(phc).map_err(|_| HashProblem::NotArgon2id)?;
        if hash.algorithm != Algorithm::Argon2id.ident()
            || hash.salt.is_none()
            || hash.hash.is_none()
        {
            return Err(HashProblem::NotArgon2id);
        }
        let params = Params::try_from(&hash).map_err(|_| HashProblem::NotArgon2id)?;
        if params.m_cost() > MAX_MEMORY_KIB || params.t_cost() > MAX_PASSES {
            return Err(HashProblem::TooCostly);
        }
        Ok(Self(hash))
    }

    /// Whether this is the password. Takes a core for tens of milliseconds: not for async tasks.
    #[must_use]
    pub fn verify(&self, password: &[u8]) -> bool {
        Argon2::default().verify_password(password, &self.0).is_ok()
    }

    /// What checking it takes, comparable between hashes.
    pub(super) fn cost(&self) -> u64 {
        Params::try_from(&self.0).map_or(0, |p| u64::from(p.m_cost()) * u64::from(p.t_cost()))
    }
}

impl fmt::Display for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash")
    }
}
