//! Until when places of Sessions are kept whose connections were lost. Pure: the caller says what
//! time it is.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use edgeway_proto::rooms::SessionRef;

/// Deadlines, one for each Session at most.
#[derive(Debug)]
pub(super) struct Grace {
    /// By time; the number keeps those of the same time apart.
    due: BTreeMap<(Duration, u64), SessionRef>,
    of: HashMap<SessionRef, (Duration, u64)>,
    next: u64,
    max: usize,
}

impl Grace {
    pub(super) fn new(max: usize) -> Self {
        Self { due: BTreeMap::new(), of: HashMap::new(), next: 0, max }
    }

    /// Keeps a Session's places until a time. Where that makes too many, the one that would be over
    /// first is to end now.
    pub(super) fn keep(&mut self, session: SessionRef, until: Duration) -> Option<SessionRef> {
        self.forget(session);
        self.next += 1;
        self.due.insert((until, self.next), session);
        self.of.insert(session, (until, self.next));
        if self.of.len() <= self.max {
            return None;
        }
        let (_, first) = self.due.pop_first()?;
        self.of.remove(&first);
        Some(first)
    }

    /// The Session is back, or over.
    pub(super) fn forget(&mut self, session: SessionRef) {
        if let Some(key) = self.of.remove(&session) {
            self.due.remove(&key);
        }
    }

    /// Takes up to `max` of those whose time is over.
    pub(super) fn due(&mut self, now: Duration, max: usize) -> Vec<SessionRef> {
        let mut due = Vec::new();
        while due.len() < max
            && let Some(first) = self.due.first_entry()
            && first.key().0 <= now
        {
            let session = first.remove();
            self.of.remove(&session);
            due.push(session);
        }
        due
    }

    pub(super) fn len(&self) -> usize {
        self.of.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(session: u64) -> SessionRef {
        SessionRef { gateway: 1, session }
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn each_is_due_at_its_time_and_once() {
        let mut grace = Grace::new(10);
        assert_eq!(grace.keep(session(1), 3 * SECOND), None);
        grace.keep(session(2), 2 * SECOND);
        grace.keep(session(3), 2 * SECOND);
        assert!(grace.due(SECOND, 10).is_empty());
        assert_eq!(grace.due(2 * SECOND, 10), [session(2), session(3)]);
        assert!(grace.due(2 * SECOND, 10).is_empty());
        assert_eq!(grace.due(4 * SECOND, 10), [session(1)]);
        assert_eq!(grace.len(), 0);
    }

    #[test]
    fn one_that_is_back_is_not_due_and_one_that_is_lost_again_later() {
        let mut grace = Grace::new(10);
        grace.keep(session(1), SECOND);
        grace.forget(session(1));
        grace.keep(session(2), SECOND);
        grace.keep(session(2), 3 * SECOND);
        assert!(grace.due(2 * SECOND, 10).is_empty());
        assert_eq!(grace.due(3 * SECOND, 10), [session(2)]);
    }

    #[test]
    fn above_the_bound_the_first_to_be_over_ends_early() {
        let mut grace = Grace::new(2);
        grace.keep(session(1), 2 * SECOND);
        grace.keep(session(2), SECOND);
        assert_eq!(grace.keep(session(3), 3 * SECOND), Some(session(2)));
        assert_eq!(grace.len(), 2);
        assert_eq!(grace.due(9 * SECOND, 1), [session(1)], "not all in one go");
        assert_eq!(grace.due(9 * SECOND, 1), [session(3)]);
    }
}
