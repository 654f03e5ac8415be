//! Sessions whose backends have not answered yet.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

/// Since when each is being opened. As many as there are Sessions, at most.
#[derive(Debug, Default)]
pub struct Opening {
    /// By id, which grows with time.
    since: Mutex<BTreeMap<u64, Instant>>,
}

impl Opening {
    /// A backend is asked to open a Session.
    pub fn begin(&self, id: u64, now: Instant) {
        self.since.lock().insert(id, now);
    }

    /// It has answered, or the Session is gone.
    pub fn end(&self, id: u64) {
        self.since.lock().remove(&id);
    }

    /// Those that have not been answered for `patience`; each is given once.
    pub fn overdue(&self, patience: Duration, now: Instant) -> Vec<u64> {
        let mut since = self.since.lock();
        let mut overdue = Vec::new();
        while let Some(first) = since.first_entry()
            && now.saturating_duration_since(*first.get()) >= patience
        {
            overdue.push(first.remove_entry().0);
        }
        overdue
    }
}
