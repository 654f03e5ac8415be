//! Waits until a server's memory has come to rest.

use std::time::Duration;

use anyhow::Result;
use tokio::time::sleep;

use crate::procstat::rss_bytes_of;

/// How often memory is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// Memory is at rest when it moved less than this share of itself, ...
const STILL: f64 = 0.002;
/// ... for this many looks in a row.
const STILL_LOOKS: u32 = 5;
/// It is taken as it is after this many looks.
const LOOKS: u32 = 60;

/// Resident memory of some processes together, once it is at rest.
pub async fn settled_rss(pids: &[u32]) -> Result<u64> {
    let (mut before, mut still) = (rss_bytes_of(pids)?, 0);
    for _ in 0..LOOKS {
        sleep(LOOK).await;
        let now = rss_bytes_of(pids)?;
        #[allow(clippy::cast_precision_loss)] // a share
        let moved = now.abs_diff(before) as f64 / before.max(1) as f64;
        still = if moved < STILL { still + 1 } else { 0 };
        before = now;
        if still == STILL_LOOKS {
            break;
        }
    }
    Ok(before)
}
