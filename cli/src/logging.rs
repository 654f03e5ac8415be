//! Logs go to standard error, one compact line each: standard output belongs to what a command
//! was asked for.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Starts logging. `levels` were checked before, by the command line or the config.
pub fn start(levels: &str) {
    let color = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let logger = tracing_subscriber::fmt()
        .compact()
        .with_env_filter(EnvFilter::new(levels))
        .with_writer(std::io::stderr)
        .with_ansi(color)
        .with_target(false)
        .finish();
    // It fails only where a logger is set already, which then stays.
    let _ = tracing::subscriber::set_global_default(logger);
}
