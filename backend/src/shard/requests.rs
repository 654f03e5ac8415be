//! Requests of one Session to one group, answered in their order: what comes while a page of
//! history is being read waits for it.

use std::{
    collections::{HashMap, VecDeque},
    sync::atomic::Ordering,
};

use edgeway_proto::{ErrorCode, frame, link};

use super::{
    history::Request,
    outbox::to_session,
    task::{Done, Shard, Slot, wall_ms},
};
use crate::room::{Event, Join, SessionId};

/// Whose requests.
pub(super) type Asker = (SessionId, u64);

/// What waits for the page before it.
#[derive(Debug)]
pub(super) enum Queued {
    Join(Box<Join>),
    Leave { access: u64, request: u64 },
    History(frame::History),
    Members(frame::Members),
}

/// Those who have a page on its way, and what they asked since.
pub(super) type Reading = HashMap<Asker, VecDeque<Queued>>;

/// Requests that wait for a page. A client asks for one page at a time.
const QUEUED_MAX: usize = 64;

impl Shard {
    /// Takes a request, now or when the page before it is sent.
    pub(super) fn request(&mut self, session: SessionId, group: u64, request: Queued) {
        match self.reading.get_mut(&(session, group)) {
            None => self.take_request(session, group, request),
            // Access waits for the answer to each join and leave before its next, so only pages pile up.
            Some(queue) if queue.len() < QUEUED_MAX || !request.asks_for_page() => {
                queue.push_back(request);
            }
            Some(_) => {
                let detail = "too many requests wait for history";
                self.error(session, request.number(), ErrorCode::RateLimited, detail);
            }
        }
    }

    fn take_request(&mut self, session: SessionId, group: u64, request: Queued) {
        match request {
            Queued::Join(join) => self.join(group, *join),
            Queued::Leave { access, request } => self.leave(access, session, request, group),
            Queued::Members(members) => self.members(session, members),
            Queued::History(history) => self.history(session, history),
        }
    }

    /// A page was sent: what waited for it has its turn.
    pub(super) fn page_sent(&mut self, session: SessionId, group: u64) {
        let Some(mut queue) = self.reading.remove(&(session, group)) else { return };
        while let Some(request) = queue.pop_front() {
            self.take_request(session, group, request);
            if let Some(reading) = self.reading.get_mut(&(session, group)) {
                *reading = queue;
                return;
            }
        }
    }

    /// Requests of those who are gone: only access may still wait for an answer.
    pub(super) fn forget_requests(&mut self, gone: impl Fn(SessionId, Option<u64>) -> bool) {
        let mut forgotten = Vec::new();
        for ((session, group), queue) in &mut self.reading {
            for request in std::mem::take(queue) {
                if gone(*session, request.access()) {
                    forgotten.push((*session, *group, request));
                } else {
                    queue.push_back(request);
                }
            }
        }
        for (session, group, request) in forgotten {
            match request {
                Queued::Join(join) => self.unreachable(&join),
                Queued::Leave { access, .. } => self.leave(access, session, 0, group),
                Queued::History(_) | Queued::Members(_) => {}
            }
        }
    }

    fn members(&mut self, session: SessionId, members: frame::Members) {
        if let Some(Slot::Open(_)) = self.rooms.get(&members.group) {
            self.apply(members.group, Event::Members { session, members });
        } else {
            let detail = "the room is not joined";
            self.error(session, members.request, ErrorCode::NotJoined, detail);
        }
    }

    fn history(&mut self, session: SessionId, history: frame::History) {
        let (request, group) = (history.request, history.group);
        let Some(Slot::Open(open)) = self.rooms.get(&group) else {
            return self.error(session, request, ErrorCode::NotJoined, "the room is not joined");
        };
        if let Err((code, detail)) = open.room.may_read(session) {
            return self.error(session, request, code, detail);
        }
        // Of what another owner publishes only the store knows the end.
        let known = open.room.settled(history.class);
        let settled = known.unwrap_or_default();
        if known.is_some() && history.class.reliable() && history.after >= settled {
            // Whoever comes back asks in case it has missed something: most have not.
            let request = Request { history, settled };
            let page = request.nothing().to_bytes();
            let item = to_session(session, page);
            self.out.push(session.gateway, link::Stream::Control, item);
            return;
        }
        let shared = self.shared.clone();
        let waiting = shared.history_waiting.fetch_add(1, Ordering::Relaxed);
        if waiting >= shared.config.history_waiting {
            shared.history_waiting.fetch_sub(1, Ordering::Relaxed);
            self.metrics.history_refused.increment(1);
            let detail = "too many ask for history";
            return self.error(session, request, ErrorCode::RateLimited, detail);
        }
        self.reading.insert((session, group), VecDeque::new());
        let (metrics, done) = (self.metrics.clone(), self.done_tx.clone());
        self.shared.tasks.spawn(async move {
            let turn = shared.history_reads.acquire().await;
            let request = Request { history, settled };
            let (frames, failed) = request.answer(&*shared.store, wall_ms()).await;
            drop(turn);
            shared.history_waiting.fetch_sub(1, Ordering::Relaxed);
            metrics.read_errors.increment(u64::from(failed));
            let item = to_session(session, frames);
            shared.gateways.send(session.gateway, link::Stream::Control, item);
            let _ = done.send(Done::PageSent { session, group });
        });
    }
}

impl Queued {
    fn asks_for_page(&self) -> bool {
        matches!(self, Self::History(_) | Self::Members(_))
    }

    fn number(&self) -> u64 {
        match self {
            Self::Join(join) => join.request,
            Self::Leave { request, .. } => *request,
            Self::History(history) => history.request,
            Self::Members(members) => members.request,
        }
    }

    /// The access instance that waits for an answer, too.
    fn access(&self) -> Option<u64> {
        match self {
            Self::Join(join) => Some(join.access),
            Self::Leave { access, .. } => Some(*access),
            Self::History(_) | Self::Members(_) => None,
        }
    }
}
