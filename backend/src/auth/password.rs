//! Password hashes: argon2id in PHC form.

use std::fmt;

use argon2::{
    Algorithm, Argon2, Block, Params, PasswordHasher, Version,
    password_hash::phc::{Output, PasswordHash as Phc},
};

/// Above this one login would take memory that a server needs for others.
const MAX_MEMORY_KIB: u32 = 256 * 1024;
/// Above this one login would take a core for seconds.
const MAX_PASSES: u32 = 16;

/// What a verifier keeps of its memory between two checks: 32 MiB, which a hash of the default cost needs 19 of.
const KEPT_BLOCKS: usize = 32 * 1024 * 1024 / Block::SIZE;

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
        Verifier::default().verify(self, password)
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

/// Checks one password after the other in the same memory. Memory that is new to each check is thousands of page
/// faults and an unmapping: work in the kernel, which holds up others whatever the priority of the thread is.
#[derive(Default)]
pub(super) struct Verifier {
    blocks: Vec<Block>,
}

impl Verifier {
    /// As [`PasswordHash::verify`].
    pub(super) fn verify(&mut self, hash: &PasswordHash, password: &[u8]) -> bool {
        let right = self.hash(&hash.0, password);
        if self.blocks.len() > KEPT_BLOCKS {
            self.rest();
        }
        // The comparison of two `Output`s takes as long whatever they differ in.
        right.is_some() && right == hash.0.hash
    }

    /// Gives the memory back.
    pub(super) fn rest(&mut self) {
        self.blocks = Vec::new();
    }

    /// What the password's hash is, made as the other was.
    fn hash(&mut self, like: &Phc, password: &[u8]) -> Option<Output> {
        let version = match like.version {
            Some(version) => Version::try_from(version).ok()?,
            None => Version::default(),
        };
        let params = Params::try_from(like).ok()?;
        let blocks = params.block_count();
        if self.blocks.len() < blocks {
            self.blocks.resize(blocks, Block::default());
        }
        let mut out = [0; Output::MAX_LENGTH];
        let out = out.get_mut(..like.hash.as_ref()?.len())?;
        Argon2::new(Algorithm::Argon2id, version, params)
            .hash_password_into_with_memory(
                password,
                like.salt.as_ref()?.as_ref(),
                out,
                self.blocks.get_mut(..blocks)?,
            )
            .ok()?;
        Output::new(out).ok()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn with_cost(password: &[u8], m_cost: u32, output: usize) -> PasswordHash {
        let params = Params::new(m_cost, 1, 1, Some(output)).unwrap();
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::default(), params);
        PasswordHash(argon2.hash_password(password).unwrap())
    }

    #[test]
    fn one_memory_serves_hashes_of_all_costs() {
        let mut verifier = Verifier::default();
        for (m_cost, output) in [(64, 32), (1024, 16), (8, 64), (64 * 1024, 32), (64, 32)] {
            let hash = with_cost(b"right", m_cost, output);
            assert!(verifier.verify(&hash, b"right"), "{hash}");
            assert!(!verifier.verify(&hash, b"wrong"), "{hash}");
            assert!(verifier.blocks.len() <= KEPT_BLOCKS, "{hash}");
        }
        assert!(!verifier.blocks.is_empty());
        verifier.rest();
        assert_eq!(verifier.blocks.capacity(), 0);
        assert!(verifier.verify(&with_cost(b"right", 64, 32), b"right"));
    }

    /// A vector of the reference implementation's tests: other makers' hashes are checked as they made them.
    #[test]
    fn the_hash_of_another_maker_is_checked_as_it_was_made() {
        let old =
            "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";
        let hash = PasswordHash::parse(old).unwrap();
        assert!(hash.verify(b"password"));
        assert!(!hash.verify(b"Password"));
    }
}
