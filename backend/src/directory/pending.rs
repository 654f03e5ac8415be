//! What waits to be written, as a pure core: no I/O, no clock. Changes go in, writes come out, and
//! what became of them goes in again.
//!
//! Of a listing one write is on its way at a time, and it is given again unchanged until it is known
//! what became of it. What changes meanwhile is gathered relative to it, so that coming and going
//! cancel each other. Where what is stored is not what is thought to be, or too much waits, the
//! changes are dropped and the listing is asked for from its writer.

mod kept;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;

pub(super) use self::kept::Lines;
use self::kept::{Kept, Standing};
use super::{Action, DirectoryConfig, Name, Outcome, Term, Write};

/// A listing lives so many rounds of renewal.
const ROUNDS: u32 = 3;
/// Renewals that may be made up for at once, where the time for them has passed unused.
const BURST: u32 = 64;

/// All listings of this process. `S` is how a listing's writer is asked for it.
pub(super) struct Pending<S> {
    config: DirectoryConfig,
    kept: HashMap<u64, Kept<S>>,
    next: u64,
    /// Those that have something to write, each once.
    changed: VecDeque<u64>,
    /// Those whose write has failed, until it is tried again.
    held: VecDeque<u64>,
    held_until: Duration,
    /// When to look whether a listing must be renewed: in the order of time, each once.
    renewals: VecDeque<(Duration, u64)>,
    /// Not before this, so that not all are renewed at once.
    renew_from: Duration,
    /// Those that are to be asked for.
    wanted: VecDeque<u64>,
    /// Lines that are asked for, about.
    asked: u64,
    bytes: usize,
    dropped: Dropped,
}

/// Listings whose changes were dropped, by the reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Dropped {
    /// Too much waited.
    pub(super) full: u64,
    /// Something else was stored.
    pub(super) behind: u64,
    /// A later term has it.
    pub(super) stale: u64,
}

impl<S: Clone> Pending<S> {
    pub(super) fn new(config: DirectoryConfig) -> Self {
        Self {
            config,
            kept: HashMap::new(),
            next: 0,
            changed: VecDeque::new(),
            held: VecDeque::new(),
            held_until: Duration::ZERO,
            renewals: VecDeque::new(),
            renew_from: Duration::ZERO,
            wanted: VecDeque::new(),
            asked: 0,
            bytes: 0,
            dropped: Dropped::default(),
        }
    }

    /// A new listing, without lines.
    pub(super) fn open(&mut self, name: Name, term: Term, source: S, head: Bytes) -> u64 {
        let id = self.next;
        self.next += 1;
        let mut kept = Kept::new(name, term, source);
        kept.work(&mut self.bytes).set_all(head, Lines::default(), &mut self.bytes);
        self.kept.insert(id, kept);
        self.queue_or_drop(id);
        id
    }

    /// A line comes (`true`) or goes. It must be gone before it comes, and the reverse; the same
    /// twice counts once.
    pub(super) fn line(&mut self, id: u64, line: Bytes, comes: bool) {
        let Some(kept) = self.kept.get_mut(&id).filter(|kept| kept.is_known()) else { return };
        kept.work(&mut self.bytes).change(line, comes, &mut self.bytes);
        self.queue_or_drop(id);
    }

    /// The head changes.
    pub(super) fn head(&mut self, id: u64, head: Bytes) {
        let Some(kept) = self.kept.get_mut(&id).filter(|kept| kept.is_known()) else { return };
        kept.work(&mut self.bytes).set_head(head, &mut self.bytes);
        self.queue_or_drop(id);
    }

    /// Its writer is done with it.
    pub(super) fn close(&mut self, id: u64) {
        let Some(kept) = self.kept.get_mut(&id) else { return };
        if let Standing::Lost { asked } = kept.standing {
            self.asked -= asked;
        }
        let over = kept.standing == Standing::Over;
        kept.standing = Standing::Closed;
        kept.drop_changes(&mut self.bytes);
        if over || kept.given == 0 {
            // Nothing of it is stored, or nothing of it may be.
            self.forget(id);
        } else {
            self.queue(id);
        }
    }

    /// The listing as its writer has it, which was asked for. Changes before it are in it.
    pub(super) fn anew(&mut self, id: u64, head: Bytes, lines: Lines) {
        let Some(kept) = self.kept.get_mut(&id) else { return };
        let Standing::Lost { asked: asked @ 1.. } = kept.standing else { return };
        self.asked -= asked;
        kept.standing = Standing::Known;
        kept.work(&mut self.bytes).set_all(head, lines, &mut self.bytes);
        self.queue(id);
    }

    /// The next listing whose writer is to be asked for it, and how; not too many at a time.
    pub(super) fn want(&mut self) -> Option<S> {
        while self.bytes <= self.config.pending_bytes / 2 {
            let id = *self.wanted.front()?;
            let lost = self.kept.get_mut(&id);
            let lost = lost.filter(|kept| kept.standing == Standing::Lost { asked: 0 });
            let Some(kept) = lost else {
                self.wanted.pop_front();
                continue;
            };
            let lines = kept.total + 1;
            if self.asked > 0 && self.asked + lines > self.config.anew_lines {
                return None;
            }
            self.wanted.pop_front();
            self.asked += lines;
            kept.standing = Standing::Lost { asked: lines };
            return Some(kept.source.clone());
        }
        None
    }

    fn queue_or_drop(&mut self, id: u64) {
        if self.bytes > self.config.pending_bytes {
            self.dropped.full += 1;
            self.lose(id);
        } else {
            self.queue(id);
        }
    }

    /// Puts a listing among those that have something to write, where it is not one, and no write of it
    /// is on its way.
    fn queue(&mut self, id: u64) {
        let Some(kept) = self.kept.get_mut(&id) else { return };
        let work = kept.work(&mut self.bytes);
        if !work.queued && !work.away {
            work.queued = true;
            self.changed.push_back(id);
        }
    }

    /// What is stored is not known any more, or what is to be stored is not.
    fn lose(&mut self, id: u64) {
        let Some(kept) = self.kept.get_mut(&id) else { return };
        kept.standing = Standing::Lost { asked: 0 };
        kept.drop_changes(&mut self.bytes);
        self.wanted.push_back(id);
    }

    fn forget(&mut self, id: u64) {
        if let Some(mut kept) = self.kept.remove(&id) {
            kept.drop_work(&mut self.bytes);
        }
    }

    /// The next write, if any is due: changes first, then renewals.
    pub(super) fn take(&mut self, now: Duration) -> Option<(u64, Arc<Write>)> {
        if now >= self.held_until {
            self.changed.append(&mut self.held);
        }
        while let Some(id) = self.changed.pop_front() {
            if let Some(write) = self.write(id) {
                return Some((id, write));
            }
        }
        self.renewal(now)
    }

    /// What of a listing is to be written now.
    fn write(&mut self, id: u64) -> Option<Arc<Write>> {
        let lives = self.lives();
        let kept = self.kept.get_mut(&id)?;
        let closed = kept.standing == Standing::Closed;
        let work = kept.work.as_mut()?;
        work.queued = false;
        if let Some(write) = &work.write {
            // Given again. But where the listing is closed, what it was matters no more.
            if !closed || write.action == Action::Close {
                work.away = true;
                return Some(Arc::clone(write));
            }
        }
        // Changes may have cancelled each other while its renewal, which they were to replace, went by.
        let waits = !work.is_empty() || !kept.listed;
        if closed || kept.is_known() && waits {
            return Some(kept.make(self.config.lines, lives, &mut self.bytes));
        }
        kept.drop_changes(&mut self.bytes);
        None
    }

    fn lives(&self) -> Duration {
        let listings = u32::try_from(self.kept.len()).unwrap_or(u32::MAX);
        let round = Duration::from_secs(1) * listings / self.config.renewals_per_second.max(1);
        self.config.renew.max(round) * ROUNDS
    }

    /// The next listing that must be renewed, so that it does not vanish, and compared with what is
    /// stored.
    fn renewal(&mut self, now: Duration) -> Option<(u64, Arc<Write>)> {
        let mut looked = 0;
        while now >= self.renew_from && looked < self.config.batch {
            let (due, id) = self.renewals.front().copied().filter(|(due, _)| *due <= now)?;
            self.renewals.pop_front();
            looked += 1;
            let lives = self.lives();
            let Some(kept) = self.kept.get_mut(&id) else { continue };
            kept.listed = false;
            if kept.standing == Standing::Over {
                // Whoever had the later term may be gone: then this is the truth again.
                self.lose(id);
                continue;
            }
            if !kept.is_known() || kept.work.is_some() {
                // Comes back when it has been written.
                continue;
            }
            if kept.renewed + self.config.renew > due {
                kept.listed = true;
                self.renewals.push_back((now + self.config.renew, id));
                continue;
            }
            let apart = Duration::from_secs(1) / self.config.renewals_per_second.max(1);
            self.renew_from = self.renew_from.max(now.saturating_sub(apart * BURST)) + apart;
            return Some((id, kept.make(0, lives, &mut self.bytes)));
        }
        None
    }

    /// When [`Self::take`] or [`Self::want`] will have something, by now.
    pub(super) fn due(&self) -> Option<Duration> {
        let may_ask = !self.wanted.is_empty()
            && self.bytes <= self.config.pending_bytes / 2
            && self.asked <= self.config.anew_lines / 2;
        if !self.changed.is_empty() || may_ask {
            return Some(Duration::ZERO);
        }
        let held = (!self.held.is_empty()).then_some(self.held_until);
        let renewal = self.renewals.front().map(|(due, _)| self.renew_from.max(*due));
        held.into_iter().chain(renewal).min()
    }

    /// What became of the write of a listing; `None`: that is not known.
    pub(super) fn answered(&mut self, id: u64, outcome: Option<Outcome>, now: Duration) {
        let Some(kept) = self.kept.get_mut(&id) else { return };
        let Some(work) = kept.work.as_mut() else { return };
        work.away = false;
        match outcome {
            None => return self.hold(id, now),
            Some(outcome) => {
                let write = work.take_write(&mut self.bytes);
                let was_close = write.as_ref().is_some_and(|w| w.action == Action::Close);
                if let (Outcome::Done, Some(write)) = (outcome, write) {
                    kept.version = write.after;
                    kept.renewed = now;
                }
                if outcome == Outcome::Stale {
                    self.dropped.stale += 1;
                    if kept.standing != Standing::Closed {
                        if let Standing::Lost { asked } = kept.standing {
                            self.asked -= asked;
                        }
                        kept.standing = Standing::Over;
                    }
                }
                if was_close || (outcome, kept.standing) == (Outcome::Stale, Standing::Closed) {
                    return self.forget(id);
                }
                // Where all of it waits to be written anyway, what there was does not matter.
                let anew = kept.work.as_ref().is_some_and(|work| work.anew);
                if outcome == Outcome::Behind && kept.is_known() && !anew {
                    self.dropped.behind += 1;
                    self.lose(id);
                }
            }
        }
        self.go_on(id, now);
    }

    /// It is tried again later.
    fn hold(&mut self, id: u64, now: Duration) {
        let Some(work) = self.kept.get_mut(&id).and_then(|kept| kept.work.as_mut()) else { return };
        if self.held.is_empty() {
            self.held_until = now + self.config.retry;
        }
        work.queued = true;
        self.held.push_back(id);
    }

    /// After an answer.
    fn go_on(&mut self, id: u64, now: Duration) {
        let Some(kept) = self.kept.get_mut(&id) else { return };
        let waits = kept.work.as_ref().is_some_and(|work| !work.is_empty());
        match kept.standing {
            Standing::Closed => return self.queue(id),
            Standing::Known if waits => return self.queue(id),
            Standing::Known | Standing::Over if !kept.listed => {
                kept.listed = true;
                self.renewals.push_back((now + self.config.renew, id));
            }
            Standing::Known | Standing::Lost { .. } | Standing::Over => {}
        }
        kept.drop_changes(&mut self.bytes);
    }

    /// Bytes that wait, or are on their way.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Listings that there are.
    pub(super) fn len(&self) -> usize {
        self.kept.len()
    }

    /// Whether anything waits to be written.
    pub(super) fn has_changes(&self) -> bool {
        !self.changed.is_empty() || !self.held.is_empty()
    }

    /// What was dropped since this was last asked.
    pub(super) fn take_dropped(&mut self) -> Dropped {
        std::mem::take(&mut self.dropped)
    }
}
