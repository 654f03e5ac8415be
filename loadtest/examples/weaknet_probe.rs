//! Measures the testbed for weak networks itself: `weaknet_probe [full]`, as root or where user
//! namespaces are allowed.
#![allow(dead_code, missing_docs, clippy::print_stdout)]

use std::{env, process::ExitCode, time::Instant};

use anyhow::Result;

#[path = "../src/weaknet/mod.rs"]
mod weaknet;

use weaknet::{
    netns,
    selfcheck::{core, wire},
};

fn main() -> Result<ExitCode> {
    netns::become_root()?;
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let full = env::args().nth(1).is_some_and(|size| size == "full");
    let begun = Instant::now();
    let mut verdicts = core::check(1);
    verdicts.extend(wire::check(if full { wire::Size::FULL } else { wire::Size::SMALL }, 1)?);
    verdicts.iter().for_each(|verdict| println!("{verdict}"));
    let failed = verdicts.iter().filter(|verdict| !verdict.held).count();
    println!("{failed} of {} did not hold, {:.1?}", verdicts.len(), begun.elapsed());
    Ok(ExitCode::from(u8::from(failed > 0)))
}
