//! One listing, and what is to be done with it.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;

use crate::directory::{Action, Name, Term, Write};

/// What a line that waits costs beside its bytes, and what a listing does that has something to do,
/// roughly.
const LINE_BYTES: usize = 96;
pub(super) const WORK_BYTES: usize = 256;

pub(super) struct Kept<S> {
    name: Name,
    term: Term,
    pub(super) source: S,
    pub(super) standing: Standing,
    /// The version that is stored, as far as is known, and the last one that was given to a write.
    pub(super) version: u64,
    pub(super) given: u64,
    /// Lines that are stored once the write on its way is.
    pub(super) total: u64,
    /// When it was last known to be stored.
    pub(super) renewed: Duration,
    /// It is among those that are looked at for renewal.
    pub(super) listed: bool,
    /// `None` where nothing is to be done.
    pub(super) work: Option<Box<Work>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// What is stored is known.
    Known,
    /// It is to be written anew; how many lines it has been asked for, 0 where it has not been.
    Lost { asked: u64 },
    /// Nothing of it is to be stored any more, but that it is closed.
    Closed,
    /// A later term has it. It is tried again once a round: generations go by clocks, which may differ, so that
    /// the later term may be that of who is gone.
    Over,
}

/// All lines of a listing, made up beside the lock.
#[derive(Default)]
pub(in crate::directory) struct Lines {
    lines: HashMap<Bytes, bool>,
    bytes: usize,
}

impl FromIterator<Bytes> for Lines {
    fn from_iter<I: IntoIterator<Item = Bytes>>(lines: I) -> Self {
        let lines: HashMap<_, _> = lines.into_iter().map(|line| (line, true)).collect();
        let bytes = lines.keys().map(|line| line.len() + LINE_BYTES).sum();
        Self { lines, bytes }
    }
}

/// What is to be done with a listing.
#[derive(Default)]
pub(super) struct Work {
    /// It is among those that have something to write.
    pub(super) queued: bool,
    /// The write is on its way.
    pub(super) away: bool,
    /// What was given out last and is not known to be there.
    pub(super) write: Option<Arc<Write>>,
    /// What comes after `write`: all goes first.
    pub(super) anew: bool,
    head: Option<Bytes>,
    /// Lines that come (true) or go.
    lines: HashMap<Bytes, bool>,
    /// Of all of it; and of the write.
    bytes: usize,
    write_bytes: usize,
}

impl Work {
    /// Nothing is to be written after what is on its way.
    pub(super) fn is_empty(&self) -> bool {
        !self.anew && self.head.is_none() && self.lines.is_empty()
    }

    pub(super) fn set_head(&mut self, head: Bytes, bytes: &mut usize) {
        self.grow(head.len(), bytes);
        let old = self.head.replace(head).map_or(0, |old| old.len());
        self.shrink(old, bytes);
    }

    pub(super) fn change(&mut self, line: Bytes, comes: bool, bytes: &mut usize) {
        let cost = line.len() + LINE_BYTES;
        match self.lines.entry(line) {
            Entry::Occupied(waits) if *waits.get() == comes => {}
            Entry::Occupied(waits) => {
                waits.remove();
                self.shrink(cost, bytes);
            }
            Entry::Vacant(vacant) => {
                vacant.insert(comes);
                self.grow(cost, bytes);
            }
        }
    }

    /// All of it is to be written. There is nothing else to be.
    pub(super) fn set_all(&mut self, head: Bytes, lines: Lines, bytes: &mut usize) {
        self.anew = true;
        self.set_head(head, bytes);
        self.grow(lines.bytes, bytes);
        self.lines = lines.lines;
    }

    pub(super) fn take_write(&mut self, bytes: &mut usize) -> Option<Arc<Write>> {
        let cost = std::mem::take(&mut self.write_bytes);
        self.shrink(cost, bytes);
        self.write.take()
    }

    fn grow(&mut self, by: usize, bytes: &mut usize) {
        self.bytes += by;
        *bytes += by;
    }

    fn shrink(&mut self, by: usize, bytes: &mut usize) {
        self.bytes -= by;
        *bytes -= by;
    }
}

impl<S> Kept<S> {
    pub(super) fn new(name: Name, term: Term, source: S) -> Self {
        Self {
            name,
            term,
            source,
            standing: Standing::Known,
            version: 0,
            given: 0,
            total: 0,
            renewed: Duration::ZERO,
            listed: false,
            work: None,
        }
    }

    pub(super) fn is_known(&self) -> bool {
        self.standing == Standing::Known
    }

    /// What is to be done with it; nothing so far, where there was none.
    pub(super) fn work(&mut self, bytes: &mut usize) -> &mut Work {
        work_of(&mut self.work, bytes)
    }

    pub(super) fn drop_work(&mut self, bytes: &mut usize) -> Option<Box<Work>> {
        let work = self.work.take()?;
        *bytes -= work.bytes;
        Some(work)
    }

    /// Forgets what waits. That a write is on its way, or that it is queued, is remembered.
    pub(super) fn drop_changes(&mut self, bytes: &mut usize) {
        let Some(old) = self.drop_work(bytes).filter(|work| work.away || work.queued) else {
            return;
        };
        let work = self.work(bytes);
        (work.queued, work.away) = (old.queued, old.away);
        if old.away {
            work.write = old.write;
            work.write_bytes = old.write_bytes;
            work.grow(old.write_bytes, bytes);
        }
    }

    /// The next write, with at most `limit` lines. Without any work: a renewal.
    pub(super) fn make(&mut self, limit: usize, lives: Duration, bytes: &mut usize) -> Arc<Write> {
        let (before, name) = (self.version, self.name.clone());
        let work = work_of(&mut self.work, bytes);
        work.take_write(bytes);
        let action = match self.standing {
            Standing::Closed => Action::Close,
            _ if std::mem::take(&mut work.anew) => Action::Anew,
            _ => Action::Change,
        };
        if action == Action::Anew {
            self.total = 0;
        }
        let (mut added, mut removed, mut size) = (Vec::new(), Vec::new(), 0);
        for (line, comes) in work.lines.extract_if(|_, _| true).take(limit) {
            size += line.len() + LINE_BYTES;
            if comes {
                added.push(line);
                self.total += 1;
            } else {
                removed.push(line);
                self.total = self.total.saturating_sub(1);
            }
        }
        if work.lines.is_empty() {
            // A map that was large keeps its room.
            work.lines = HashMap::new();
        }
        let head = work.head.take();
        let changes = size > 0 || head.is_some() || action != Action::Change;
        // What it takes is counted until it is answered.
        work.write_bytes = size + head.as_ref().map_or(0, Bytes::len);
        self.given += u64::from(changes);
        let after = if changes { self.given } else { before };
        let lives = match (action, &name) {
            // A Session's number is never used again, so that its end needs not be remembered.
            (Action::Close, Name::Session(_)) => Duration::ZERO,
            _ => lives,
        };
        let (term, total) = (self.term, self.total);
        let write = Write { name, term, action, before, after, head, added, removed, total, lives };
        let write = Arc::new(write);
        work.write = Some(Arc::clone(&write));
        work.away = true;
        write
    }
}

fn work_of<'a>(work: &'a mut Option<Box<Work>>, bytes: &mut usize) -> &'a mut Work {
    work.get_or_insert_with(|| {
        *bytes += WORK_BYTES;
        Box::new(Work { bytes: WORK_BYTES, ..Work::default() })
    })
}
