//! The testbed for weak networks, small and whole: namespaces, TUN devices, real sockets.
//!
//! Its core is tested where it is; this needs root, or user namespaces and an accessible
//! `/dev/net/tun`. Without them it is skipped and says so, but not where `CI` is set.
// Without the harness, the unit tests in the path are not built, but what they use is.
#![allow(unused_imports)]
#![allow(dead_code, missing_docs, clippy::print_stderr, clippy::unwrap_used, clippy::panic)]

use std::{env, process::ExitCode};

#[path = "../src/weaknet/mod.rs"]
mod weaknet;

use weaknet::{
    Profile, Testbed, netns,
    profile::LinkSpec,
    selfcheck::{Verdict, wire},
};

fn main() -> ExitCode {
    if let Err(error) = can_be_made() {
        let required = env::var_os("CI").is_some();
        eprintln!("{}: {error:#}", if required { "FAIL" } else { "skipped" });
        return ExitCode::from(u8::from(required));
    }
    let verdicts = match wire::check(wire::Size::SMALL, 1) {
        Ok(verdicts) => verdicts,
        Err(error) => {
            eprintln!("FAIL: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    for verdict in &verdicts {
        eprintln!("{verdict}{}", if verdict.timing { "  (not judged: timing)" } else { "" });
    }
    // How late things are is for a quiet machine to say; that nothing is early holds on any.
    ExitCode::from(u8::from(!verdicts.iter().all(|Verdict { held, timing, .. }| *held || *timing)))
}

fn can_be_made() -> anyhow::Result<()> {
    netns::become_root()?;
    Testbed::start(&Profile::symmetric("probe", LinkSpec::default()), 1, 1).map(drop)
}
