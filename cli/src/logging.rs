//! Logs go to standard error, one compact line each: standard output belongs to what a command
//! was asked for.

use std::{io::IsTerminal, sync::OnceLock};

use tracing_subscriber::EnvFilter;

type SetLevels = Box<dyn Fn(&str) + Send + Sync>;

/// Changes the levels of the logger that runs.
static SET: OnceLock<SetLevels> = OnceLock::new();

/// Starts logging. `levels` were checked before, by the command line or the config.
pub fn start(levels: &str) {
    let color = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let logger = tracing_subscriber::fmt()
        .compact()
        .with_env_filter(EnvFilter::new(levels))
        .with_writer(std::io::stderr)
        .with_ansi(color)
        .with_target(false)
        // It would say on standard error that standard error is gone, and panic: so whoever logs would end.
        .log_internal_errors(false)
        .with_filter_reloading();
    let filter = logger.reload_handle();
    // Both fail only where a logger is set already, which then stays.
    if tracing::subscriber::set_global_default(logger.finish()).is_ok() {
        let _ = SET.set(Box::new(move |levels| {
            let _ = filter.reload(EnvFilter::new(levels));
        }));
    }
}

/// Logs at other levels from now on. They were checked before.
pub fn set(levels: &str) {
    if let Some(set) = SET.get() {
        set(levels);
    }
}
