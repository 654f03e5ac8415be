//! The numbers of the directory, each with its reason.

use std::time::Duration;

/// What the directory goes by.
#[derive(Debug, Clone)]
pub struct DirectoryConfig {
    /// For so long changes are gathered before they are written: who comes and goes within it costs
    /// nothing, and a person does not notice.
    pub gather: Duration,
    /// Changes that wait to be written. Above: those of a listing are dropped, and it is written anew from
    /// its writer's truth when there is room.
    pub pending_bytes: usize,
    /// Listings that are written at a time.
    pub batch: usize,
    /// Lines of one write: what a server does for one writer in a go, about a millisecond.
    pub lines: usize,
    /// After a failure.
    pub retry: Duration,
    /// How often a listing is compared with what is stored and renewed. It lives three times as long.
    pub renew: Duration,
    /// Listings renewed a second at most, at about 20 us for client and server: with more than `renew`
    /// times as many, rounds get longer, and so do lives.
    pub renewals_per_second: u32,
    /// Lines of listings that are asked for anew at the same time, or one listing: a large room.
    pub anew_lines: u64,
    /// How old what is read from the cache may be.
    pub fresh: Duration,
    /// How long a failure to read is told to others who ask the same: they need not all try it.
    pub failed: Duration,
    /// What the cache may hold.
    pub cache_bytes: u64,
    /// Reads at a time; further ones wait.
    pub reads: usize,
}

impl Default for DirectoryConfig {
    fn default() -> Self {
        Self {
            gather: Duration::from_millis(25),
            pending_bytes: 64 << 20,
            batch: 512,
            lines: 1_000,
            retry: Duration::from_millis(500),
            renew: Duration::from_secs(20),
            renewals_per_second: 2_000,
            anew_lines: 100_000,
            fresh: Duration::from_secs(2),
            failed: Duration::from_millis(200),
            cache_bytes: 32 << 20,
            reads: 32,
        }
    }
}
