//! How a command ends, and what the shell learns of it.

use std::process::ExitCode;

use crate::{config::BadConfig, output::complain};

/// Why a command did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Wrong use, or a config that cannot take effect.
    #[error(transparent)]
    Config(#[from] BadConfig),
    /// It failed, or what was asked does not hold.
    #[error(transparent)]
    Failed(#[from] anyhow::Error),
}

/// What every command gives.
pub type Outcome = Result<(), Failure>;

const FAILED: u8 = 1;
const WRONG_USE: u8 = 2;

/// Tells what went wrong on standard error, and gives the exit code.
pub fn exit_code(outcome: Outcome) -> ExitCode {
    let Err(failure) = outcome else { return ExitCode::SUCCESS };
    match failure {
        Failure::Config(bad @ BadConfig::Wrong(_)) => {
            complain(&format!("{bad}\nedgeway: the config is wrong; nothing was started"));
            ExitCode::from(WRONG_USE)
        }
        Failure::Config(bad) => {
            complain(&format!("edgeway: {bad}"));
            ExitCode::from(WRONG_USE)
        }
        Failure::Failed(cause) => {
            complain(&format!("edgeway: {}", in_one_line(&cause)));
            ExitCode::from(FAILED)
        }
    }
}

/// An error with its causes. Many say their cause themselves: it is not said again.
pub fn in_one_line(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |text, cause| {
        if text.is_empty() {
            cause
        } else if text.contains(&cause) {
            text
        } else {
            format!("{text}: {cause}")
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_told_once() {
        let cause = std::io::Error::other("no room");
        let error = anyhow::Error::new(cause).context("cannot write: no room").context("start");
        assert_eq!(in_one_line(&error), "start: cannot write: no room");
    }
}
