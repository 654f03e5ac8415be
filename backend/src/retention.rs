//! Retention: what is older than histories are kept, or more than one may have, is trimmed away, log by log, beside
//! everything else. Any process that owns rooms does it, for all of them: whose a room is does not matter to what is old.

use std::{sync::Arc, time::Duration};

use edgeway_proto::{Class, Seq};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::{
    config::Retention,
    store::{LogId, Store, StoreError, place_before},
};

/// Before the first sweep, so that a start is not slower for it.
const FIRST: Duration = Duration::from_secs(60);
/// Between the end of a sweep and the next.
const BETWEEN: Duration = Duration::from_secs(3600);
/// Between two groups: a sweep is nobody's load, and one of eight million groups takes a day.
const PAUSE: Duration = Duration::from_millis(10);
/// Groups that are asked for at a time.
const GROUPS: usize = 256;
/// Entries that are trimmed at a time where there are too many.
const ENTRIES: u64 = 200;
/// Bytes of what is read for that.
const PAGE_BYTES: usize = 1 << 20;

/// Sweeps until `stop`.
pub(crate) async fn run(store: Arc<dyn Store>, keep: Retention, stop: CancellationToken) {
    if keep == Retention::default() {
        return;
    }
    let work = async {
        sleep(FIRST).await;
        loop {
            match sweep(&*store, keep, PAUSE).await {
                Ok(trimmed) => tracing::debug!(trimmed, "histories were looked through"),
                Err(error) => {
                    tracing::warn!(%error, "old history cannot be trimmed now; it is tried again");
                }
            }
            sleep(BETWEEN).await;
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = work => {}
    }
}

/// Looks through all logs once; how many were trimmed.
async fn sweep(store: &dyn Store, keep: Retention, pause: Duration) -> Result<u64, StoreError> {
    let (mut after, mut trimmed) = (0, 0);
    loop {
        let groups = store.groups_after(after, GROUPS).await?;
        let Some(last) = groups.last().copied() else { return Ok(trimmed) };
        for group in groups {
            for class in Class::ALL {
                match trim(store, LogId { group, class }, keep, wall_ms()).await {
                    Ok(false) => {}
                    Ok(true) => {
                        metrics::counter!("edgeway_backend_history_trimmed_total").increment(1);
                        trimmed += 1;
                    }
                    Err(error @ StoreError::Unavailable(_)) => return Err(error),
                    // One log that cannot be read must not keep all behind it from being trimmed.
                    Err(error) => {
                        tracing::warn!(%error, group, %class, "this history is not trimmed")
                    }
                }
            }
            sleep(pause).await;
        }
        after = last;
    }
}

/// Trims one log; whether there was anything to trim.
async fn trim(
    store: &dyn Store,
    log: LogId,
    keep: Retention,
    now_ms: u64,
) -> Result<bool, StoreError> {
    let first = store.read(log, Seq::ZERO, 1, 1, 0).await?;
    let Some(first) = first.records.first() else { return Ok(false) };
    let mut trimmed = false;
    if let Some(age) = keep.age {
        let since = now_ms.saturating_sub(u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
        if first.time_ms < since {
            let before = place_before(store, log, since).await?;
            store.trim(log, before.next()).await?;
            trimmed = true;
        }
    }
    let Some(most) = keep.messages else { return Ok(trimmed) };
    loop {
        let over = store.len(log).await?.saturating_sub(most);
        if over == 0 {
            return Ok(trimmed);
        }
        let limit = usize::try_from(over.min(ENTRIES)).unwrap_or(usize::MAX);
        let page = store.read(log, Seq::ZERO, limit, PAGE_BYTES, 0).await?;
        let Some(last) = page.records.last() else { return Ok(trimmed) };
        store.trim(log, last.seq.next()).await?;
        trimmed = true;
    }
}

fn wall_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use bytes::Bytes;

    use std::sync::atomic::Ordering;

    use super::*;
    use crate::{
        shard::memory_store::MemoryStore,
        store::{Append, Embedded, EmbeddedOptions, Origin, Record},
    };

    const DAY: Duration = Duration::from_hours(24);

    /// One message an hour, the last one now.
    async fn fill(store: &dyn Store, log: LogId, hours: u64, now_ms: u64) {
        let record = |n: u64| Record {
            seq: Seq::new(1, n),
            origin: Origin { device: "ann/phone".to_owned(), id: n },
            time_ms: now_ms - (hours - n) * 3_600_000,
            expires_ms: 0,
            key: String::new(),
            frame: Bytes::from_static(b"frame"),
        };
        let all = (1..=hours).map(|n| Append { log, record: record(n) });
        store.append(all.collect()).await.unwrap();
    }

    async fn first(store: &dyn Store, log: LogId) -> Option<u64> {
        let page = store.read(log, Seq::ZERO, 1, 1, 0).await.unwrap();
        page.records.first().map(|record| record.seq.counter)
    }

    #[tokio::test]
    async fn what_is_old_goes_from_every_log_and_the_rest_stays() {
        let dir = tempfile::tempdir().unwrap();
        let store = Embedded::open(dir.path(), EmbeddedOptions::default()).unwrap();
        let now_ms = wall_ms();
        let mut logs = Vec::new();
        for room in ["a", "b", "never written to", "c"] {
            let group = store.group(room, true).await.unwrap().unwrap();
            let class = if room == "c" { Class::Chat } else { Class::Signal };
            if room.len() == 1 {
                logs.push(LogId { group, class });
            }
        }
        fill(&store, logs[0], 100, now_ms).await;
        fill(&store, logs[1], 10, now_ms).await;
        fill(&store, logs[2], 60, now_ms).await;
        let none = Retention::default();
        assert_eq!(sweep(&store, none, Duration::ZERO).await.unwrap(), 0);
        // Half an hour more, so that a slow machine does not move the edge.
        let by_age = Retention { age: Some(DAY + DAY / 48), messages: None };
        assert_eq!(sweep(&store, by_age, Duration::ZERO).await.unwrap(), 2);
        assert_eq!(first(&store, logs[0]).await, Some(76));
        assert_eq!(first(&store, logs[1]).await, Some(1));
        assert_eq!(first(&store, logs[2]).await, Some(36));
        assert_eq!(sweep(&store, by_age, Duration::ZERO).await.unwrap(), 0);
        // Whoever reads from where something was is told.
        let page = store.read(logs[0], Seq::new(1, 3), 1, 1, 0).await.unwrap();
        assert!(page.truncated);
        assert_eq!(store.last(logs[0]).await.unwrap(), Seq::new(1, 100));

        let by_count = Retention { age: None, messages: Some(10) };
        assert_eq!(sweep(&store, by_count, Duration::ZERO).await.unwrap(), 2);
        for (log, expected) in [(logs[0], 91), (logs[1], 1), (logs[2], 51)] {
            assert_eq!(first(&store, log).await, Some(expected), "{log:?}");
        }
    }

    #[tokio::test]
    async fn a_log_that_is_all_old_is_emptied_and_goes_on_where_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let store = Embedded::open(dir.path(), EmbeddedOptions::default()).unwrap();
        let group = store.group("old", true).await.unwrap().unwrap();
        let log = LogId { group, class: Class::Signal };
        fill(&store, log, 500, wall_ms() - 1_000 * 3_600_000).await;
        let keep = Retention { age: Some(DAY), messages: Some(1_000) };
        assert_eq!(sweep(&store, keep, Duration::ZERO).await.unwrap(), 1);
        assert_eq!(first(&store, log).await, None);
        assert_eq!(store.last(log).await.unwrap(), Seq::new(1, 500));
        assert_eq!(store.len(log).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_log_that_cannot_be_read_keeps_no_other_from_being_trimmed() {
        let store = MemoryStore::default();
        let mut logs = Vec::new();
        for room in ["a", "b", "c"] {
            let group = store.group(room, true).await.unwrap().unwrap();
            logs.push(LogId { group, class: Class::Signal });
            fill(&store, logs[logs.len() - 1], 100, wall_ms()).await;
        }
        let keep = Retention { age: Some(DAY + DAY / 48), messages: None };
        *store.bad_log.lock() = Some(logs[1]);
        assert_eq!(sweep(&store, keep, Duration::ZERO).await.unwrap(), 2);
        *store.bad_log.lock() = None;
        for (log, expected) in [(logs[0], 76), (logs[1], 1), (logs[2], 76)] {
            assert_eq!(first(&store, log).await, Some(expected), "{log:?}");
        }
        // A store that is away ends the sweep: the next one begins anew.
        store.down.store(true, Ordering::SeqCst);
        let swept = sweep(&store, keep, Duration::ZERO).await;
        assert!(matches!(swept, Err(StoreError::Unavailable(_))), "{swept:?}");
    }
}
