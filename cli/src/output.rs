//! Lines for a person or a script. A reader that went away (`| head`) is no reason to panic, as
//! `println!` would.

use std::io::{Write, stderr, stdout};

/// One line, or several, to standard output.
pub fn say(text: &str) {
    let mut out = stdout().lock();
    // Nobody is left to tell.
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// One line, or several, to standard error.
pub fn complain(text: &str) {
    let _ = writeln!(stderr().lock(), "{text}");
}
