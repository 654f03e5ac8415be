//! The directory of one process, in memory.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Bound,
    pin::Pin,
    sync::Arc,
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{Action, Directory, Found, Name, Outcome, Outcomes, Term, Write};
use crate::store::StoreFuture;

/// See the module. It holds what the process itself has told, and no more than its writers hold.
#[derive(Default)]
pub struct MemoryDirectory(Mutex<Tables>);

#[derive(Default)]
struct Tables {
    listings: HashMap<Name, Stored>,
    /// Names of each user's Sessions.
    users: BTreeMap<Arc<str>, BTreeSet<Arc<str>>>,
    /// Writes since those whose time is over were looked for.
    writes: usize,
}

struct Stored {
    term: Term,
    /// `None`: it is closed, and only its term is remembered.
    content: Option<Content>,
    until: Instant,
}

#[derive(Default)]
struct Content {
    version: u64,
    head: Bytes,
    lines: BTreeSet<Bytes>,
}

#[cfg(test)]
impl MemoryDirectory {
    /// As if the time of a listing were over.
    pub(super) fn forget(&self, name: &Name) {
        self.0.lock().listings.remove(name);
    }
}

impl Directory for MemoryDirectory {
    fn write(&self, batch: Vec<Arc<Write>>) -> Pin<Box<dyn Future<Output = Outcomes> + Send + '_>> {
        Box::pin(async move {
            let now = Instant::now();
            batch.iter().map(|write| Ok(self.0.lock().write(write, now))).collect()
        })
    }

    fn read(&self, name: Name, after: Bytes, limit: usize) -> StoreFuture<'_, Option<Found>> {
        Box::pin(async move { Ok(self.0.lock().read(&name, &after, limit, Instant::now())) })
    }

    fn sessions(&self, user: &str, limit: usize) -> StoreFuture<'_, Vec<String>> {
        let tables = self.0.lock();
        let names = tables.users.get(user).into_iter().flatten().take(limit);
        let names = names.map(|name| (**name).to_owned()).collect();
        drop(tables);
        Box::pin(async move { Ok(names) })
    }
}

impl Tables {
    fn write(&mut self, write: &Write, now: Instant) -> Outcome {
        self.tidy(now);
        let stored = self.listings.get_mut(&write.name).filter(|stored| now < stored.until);
        if stored.as_ref().is_some_and(|stored| stored.term > write.term) {
            return Outcome::Stale;
        }
        let until = now + write.lives;
        let content = stored.filter(|stored| stored.term == write.term);
        let content = content.and_then(|stored| stored.content.as_mut());
        match (write.action, content) {
            (Action::Close, _) => {
                self.index(&write.name, false);
                let closed = Stored { term: write.term, content: None, until };
                self.listings.insert(write.name.clone(), closed);
                Outcome::Done
            }
            (_, Some(content)) if content.version == write.after => self.renew(write, until),
            // A copy of a write that was given again, and came late.
            (Action::Anew, Some(content)) if content.version > write.after => Outcome::Behind,
            (Action::Anew, _) => {
                let mut content = Content::default();
                content.apply(write);
                let stored = Stored { term: write.term, content: Some(content), until };
                self.listings.insert(write.name.clone(), stored);
                self.renew(write, until)
            }
            (Action::Change, Some(content)) if content.version == write.before => {
                content.apply(write);
                self.renew(write, until)
            }
            (Action::Change, _) => Outcome::Behind,
        }
    }

    fn renew(&mut self, write: &Write, until: Instant) -> Outcome {
        self.index(&write.name, true);
        let Some(stored) = self.listings.get_mut(&write.name) else { return Outcome::Behind };
        stored.until = until;
        let lines = stored.content.as_ref().map_or(0, |content| content.lines.len());
        if lines as u64 == write.total { Outcome::Done } else { Outcome::Behind }
    }

    /// Notes that a user has a Session, or not.
    fn index(&mut self, name: &Name, is_there: bool) {
        let Some((user, name)) = name.of_user() else { return };
        if is_there {
            if self.users.get(user).is_none_or(|names| !names.contains(name)) {
                self.users.entry(user.into()).or_default().insert(name.into());
            }
        } else if let Some(names) = self.users.get_mut(user) {
            names.remove(name);
            if names.is_empty() {
                self.users.remove(user);
            }
        }
    }

    /// Removes those whose time is over, each time that there were as many writes as there are listings.
    fn tidy(&mut self, now: Instant) {
        self.writes += 1;
        if self.writes <= self.listings.len() {
            return;
        }
        self.writes = 0;
        let over = self.listings.extract_if(|_, stored| stored.until <= now);
        let over: Vec<_> = over.map(|(name, _)| name).collect();
        for name in over {
            self.index(&name, false);
        }
    }

    fn read(&self, name: &Name, after: &Bytes, limit: usize, now: Instant) -> Option<Found> {
        let stored = self.listings.get(name).filter(|stored| now < stored.until)?;
        let content = stored.content.as_ref()?;
        let from = if after.is_empty() { Bound::Unbounded } else { Bound::Excluded(after) };
        let mut rest = content.lines.range::<Bytes, _>((from, Bound::Unbounded));
        let lines: Vec<_> = rest.by_ref().take(limit).cloned().collect();
        let more = limit > 0 && rest.next().is_some();
        let total = content.lines.len() as u64;
        Some(Found { term: stored.term, head: content.head.clone(), total, lines, more })
    }
}

impl Content {
    fn apply(&mut self, write: &Write) {
        self.version = write.after;
        if let Some(head) = &write.head {
            self.head = head.clone();
        }
        self.lines.extend(write.added.iter().cloned());
        for line in &write.removed {
            self.lines.remove(line);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::directory::conformance;

    conformance::promises!(async { Arc::new(MemoryDirectory::default()) as Arc<dyn Directory> });
}
