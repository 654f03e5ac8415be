//! Group commits: which rooms have something to store, and what is being stored.

use std::{collections::VecDeque, time::Duration};

/// At most one commit is under way; what comes meanwhile makes up the next.
#[derive(Debug, Default)]
pub(super) struct Commits {
    /// Groups that have something to store, each once.
    waiting: VecDeque<u64>,
    /// Groups of the commit that is under way.
    storing: Option<Vec<u64>>,
    not_before: Duration,
    /// The last commit failed; the next one says whether the store is back.
    pub(super) failing: bool,
}

impl Commits {
    pub(super) fn push(&mut self, group: u64) {
        self.waiting.push_back(group);
    }

    /// When a commit can start; `None` while one is under way or nothing waits.
    pub(super) fn due(&self) -> Option<Duration> {
        (self.storing.is_none() && !self.waiting.is_empty()).then_some(self.not_before)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.storing.is_none() && self.waiting.is_empty()
    }

    /// The next group for the commit that is being made up.
    pub(super) fn next_group(&mut self) -> Option<u64> {
        self.waiting.pop_front()
    }

    pub(super) fn started(&mut self, groups: Vec<u64>) {
        self.storing = Some(groups);
    }

    /// The commit is through: its groups.
    pub(super) fn done(&mut self) -> Vec<u64> {
        self.storing.take().unwrap_or_default()
    }

    /// The groups of a failed commit come first in the next one, not before `retry_at`.
    pub(super) fn again(&mut self, groups: Vec<u64>, retry_at: Duration) {
        for group in groups.into_iter().rev() {
            self.waiting.push_front(group);
        }
        self.not_before = retry_at;
    }
}
