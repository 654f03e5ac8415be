//! Reading the journal again: what of it has to be applied, and whether something is missing.
//!
//! Records that were not synced may be lost with the power, in any pattern: later ones may be
//! there where earlier ones are not. That is the end of the journal. But each record says up to which
//! one all were on the disk before it: where one of those is missing, the disk has lost what was promised.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    super::tables::unavailable,
    record::{Record, records},
    segment,
};
use crate::store::StoreError;

/// What to do with the next record that is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// It is in the tables already.
    Old,
    Apply,
    /// One before it was lost with the power, and so it does not count.
    Void,
    /// One before it was lost that had been on the disk.
    Missing,
}

/// Decides, record by record.
struct Replay {
    /// The tables hold everything before this.
    next: u64,
    ended: bool,
}

impl Replay {
    fn offer(&mut self, record: &Record<'_>) -> Verdict {
        if record.number < self.next {
            return Verdict::Old;
        }
        if record.number == self.next && !self.ended {
            self.next += 1;
            return Verdict::Apply;
        }
        self.ended = true;
        if record.synced >= self.next { Verdict::Missing } else { Verdict::Void }
    }
}

/// Where something could not be read.
struct Gap {
    path: PathBuf,
    at: usize,
}

/// Hands each record after number `applied`, up to `upto`, to `apply`, in order; the number of the last one.
///
/// # Errors
/// `Corrupt` where records are missing that were on the disk; those of `apply`.
pub(in super::super) fn replay(
    dir: &Path,
    applied: u64,
    upto: u64,
    mut apply: impl FnMut(u64, &[u8]) -> Result<(), StoreError>,
) -> Result<u64, StoreError> {
    let mut replay = Replay { next: applied + 1, ended: false };
    let mut gap: Option<Gap> = None;
    let mut void = 0;
    for (_, path) in segment::list(dir).map_err(|e| unavailable("cannot look into", dir, &e))? {
        let bytes = match fs::read(&path) {
            // Removed just now: it was applied.
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            read => read.map_err(|e| unavailable("cannot read", &path, &e))?,
        };
        let Some(mark) = segment::mark(&bytes) else {
            // It is on the disk before the first record is written.
            if bytes.len() > segment::HEADER_BYTES {
                return Err(corrupt("a segment without its header", &Gap { path, at: 0 }));
            }
            continue;
        };
        let mut end = segment::HEADER_BYTES;
        let body = bytes.get(end..).unwrap_or_default();
        for (at, record) in records(body, mark) {
            let at = at + segment::HEADER_BYTES;
            if at > end && record.number > applied {
                gap.get_or_insert_with(|| Gap { path: path.clone(), at: end });
            }
            end = at + super::record::HEADER_BYTES + record.ops.len();
            if record.number > upto {
                return Ok(replay.next - 1);
            }
            match replay.offer(&record) {
                Verdict::Old => {}
                Verdict::Apply => apply(record.number, record.ops)?,
                Verdict::Void => void += 1,
                Verdict::Missing => {
                    let here = gap.unwrap_or(Gap { path, at });
                    let what = format!("no record {}, which had been synced", replay.next);
                    return Err(corrupt(&what, &here));
                }
            }
        }
        if bytes.len() > end {
            gap.get_or_insert(Gap { path, at: end });
        }
    }
    if let Some(Gap { path, at }) = gap {
        let path = path.display();
        tracing::warn!(%path, at, void, "the journal ends in what was not written whole; it is left out");
    }
    Ok(replay.next - 1)
}

fn corrupt(what: &str, gap: &Gap) -> StoreError {
    StoreError::Corrupt {
        what: format!(
            "{what}; put a copy of the whole directory back, or move its \"journal\" away to go on \
             without what was appended last"
        ),
        place: format!("{}, byte {}", gap.path.display(), gap.at),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdicts(applied: u64, records: &[(u64, u64)]) -> Vec<Verdict> {
        let mut replay = Replay { next: applied + 1, ended: false };
        let offer = |&(number, synced)| replay.offer(&Record { number, synced, ops: &[] });
        records.iter().map(offer).collect()
    }

    #[test]
    fn what_follows_the_tables_is_applied_and_what_is_in_them_is_not() {
        use Verdict::{Apply, Old};
        assert_eq!(verdicts(2, &[(1, 0), (2, 0), (3, 1), (4, 1)]), [Old, Old, Apply, Apply]);
        // Lost, but in the tables.
        assert_eq!(verdicts(5, &[(1, 0), (6, 5), (7, 6)]), [Old, Apply, Apply]);
    }

    #[test]
    fn what_was_not_synced_ends_the_journal_where_it_is_missing() {
        use Verdict::{Apply, Void};
        assert_eq!(verdicts(0, &[(1, 0), (3, 1), (4, 1)]), [Apply, Void, Void]);
    }

    #[test]
    fn what_was_synced_and_is_missing_is_told_also_by_a_later_record() {
        use Verdict::{Apply, Missing, Void};
        assert_eq!(verdicts(0, &[(1, 0), (3, 2)]), [Apply, Missing]);
        assert_eq!(verdicts(0, &[(1, 0), (3, 1), (4, 2)]), [Apply, Void, Missing]);
        // A copy of the tables that is older than the journal.
        assert_eq!(verdicts(10, &[(21, 20)]), [Missing]);
    }
}
