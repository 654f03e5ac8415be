//! The last entry of the logs that are written to, so that an append need not look for it.

use std::collections::HashMap;

use edgeway_proto::Seq;

use crate::store::LogId;

/// Bounded by two generations: when the young one is full it becomes the old one, and the old one
/// is forgotten. What is used stays; what is forgotten is read from the disk again.
pub(super) struct Lasts {
    young: HashMap<LogId, Seq>,
    old: HashMap<LogId, Seq>,
    generation: usize,
    forgotten: u64,
}

impl Lasts {
    /// At most `logs` logs, and those of one commit.
    pub(super) fn new(logs: usize) -> Self {
        let generation = (logs / 2).max(1);
        Self { young: HashMap::new(), old: HashMap::new(), generation, forgotten: 0 }
    }

    /// The last entry of a log; `None` where it is not known here.
    pub(super) fn get(&mut self, log: LogId) -> Option<Seq> {
        if let Some(seq) = self.young.get(&log) {
            return Some(*seq);
        }
        let seq = self.old.remove(&log)?;
        self.set(log, seq);
        Some(seq)
    }

    /// Remembers the last entry of a log.
    pub(super) fn set(&mut self, log: LogId, seq: Seq) {
        self.young.insert(log, seq);
    }

    /// Keeps to the bound. To be called after each commit, `record` being its record in the journal.
    pub(super) fn committed(&mut self, record: u64) {
        if self.young.len() >= self.generation {
            self.old = std::mem::take(&mut self.young);
            self.forgotten = record;
        }
    }

    /// Forgets everything; the last commit was that of `record`.
    pub(super) fn clear(&mut self, record: u64) {
        self.young.clear();
        self.old.clear();
        self.forgotten = record;
    }

    /// A log that is not known here has its last entry in the tables, once they have this record.
    pub(super) const fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// How many logs are known.
    pub(super) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

#[cfg(test)]
mod tests {
    use edgeway_proto::Class;

    use super::*;

    fn log(group: u64) -> LogId {
        LogId { group, class: Class::Signal }
    }

    #[test]
    fn a_log_in_use_is_kept_and_the_number_is_bounded() {
        let mut lasts = Lasts::new(10);
        lasts.set(log(0), Seq::new(1, 7));
        for group in 1..1000 {
            lasts.set(log(group), Seq::new(1, group));
            assert_eq!(lasts.get(log(0)), Some(Seq::new(1, 7)));
            assert_eq!(lasts.get(log(group)), Some(Seq::new(1, group)));
            lasts.committed(group);
            assert!(lasts.len() <= 11);
        }
        assert_eq!(lasts.get(log(1)), None);
        assert!(lasts.forgotten() > 990);
        lasts.clear(2000);
        assert_eq!((lasts.get(log(0)), lasts.forgotten()), (None, 2000));
    }

    #[test]
    fn the_newer_value_wins_over_the_one_of_the_old_generation() {
        let mut lasts = Lasts::new(2);
        for counter in [1, 2] {
            lasts.set(log(0), Seq::new(1, counter));
            lasts.committed(counter);
        }
        assert_eq!(lasts.get(log(0)), Some(Seq::new(1, 2)));
    }
}
