//! Where in a log a time is: what any store can find by its places, since within a log times grow with them.

use edgeway_proto::Seq;

use super::{LogId, Store, StoreError};

/// A place behind which the first record is the first that was accepted at `time_ms` or later; where there is none, one
/// that no record follows. Takes some tens of reads of one record each, whatever the log holds.
///
/// Where the clock of an owner was behind that of the one before it, it is one of the places where the times of two
/// records in a row are on both sides of it.
pub(crate) async fn place_before(
    store: &dyn Store,
    log: LogId,
    time_ms: u64,
) -> Result<Seq, StoreError> {
    let last = store.last(log).await?;
    // The first epoch that no earlier record follows: the place is in it.
    let (mut epoch, mut known) = (0, last.epoch);
    while epoch < known {
        let middle = epoch.midpoint(known);
        // Counter 0 is that of seals, so this is the end of the epoch in the middle.
        let end = Seq::new(middle + 1, 0);
        if is_late(store, log, end, time_ms).await? { known = middle } else { epoch = middle + 1 }
    }
    let (mut counter, mut step) = (0, 1);
    let mut known = loop {
        let far = if epoch == last.epoch { last.counter.min(step) } else { step };
        if is_late(store, log, Seq::new(epoch, far), time_ms).await? {
            break far;
        }
        if far == u64::MAX || (epoch == last.epoch && far == last.counter) {
            // Appended meanwhile.
            return Ok(last);
        }
        (counter, step) = (far + 1, step.saturating_mul(2));
    };
    while counter < known {
        let middle = counter.midpoint(known);
        if is_late(store, log, Seq::new(epoch, middle), time_ms).await? {
            known = middle;
        } else {
            counter = middle + 1;
        }
    }
    Ok(Seq::new(epoch, counter))
}

/// Whether the record behind a place, if any, was accepted at this time or later.
async fn is_late(
    store: &dyn Store,
    log: LogId,
    mut after: Seq,
    time_ms: u64,
) -> Result<bool, StoreError> {
    loop {
        // At the beginning of time nothing is void.
        let page = store.read(log, after, 1, 1, 0).await?;
        match page.records.first() {
            Some(record) => return Ok(record.time_ms >= time_ms),
            None if !page.more => return Ok(true),
            None => after = page.upto,
        }
    }
}
