//! What the system says: messages that have no sender, each taken once however often it is asked for.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use edgeway_proto::{AckStatus, Class, ErrorCode, Seq, Text, frame};

use super::{
    Asker, Effects, Kind, Loaded, Now, Room,
    log::{Later, Refusal},
    rules::RESERVED,
    send::{Speaker, answer},
};

/// The device of what the system says, without a user: no user's device has this name.
pub(super) const DEVICE: &str = "system";
/// The same, as history knows it.
const KEY: &str = "/system";

/// Ids that callers give again on purpose: hours of a lesson's, and what a caller's retries last.
const KEYED: Kept = Kept { max: 1024, keep: Duration::from_secs(600) };
/// Ids of this project's own, given again only within a request.
const UNKEYED: Kept = Kept { max: 256, keep: Duration::from_secs(30) };

/// A message of the system.
#[derive(Debug, Clone)]
pub struct Push {
    /// Who is told what became of it.
    pub from: Asker,
    /// Of what was asked for: with its id again, another one is refused. 0: nobody gives the id again
    /// on purpose.
    pub digest: u64,
    /// The message; its id is that of the request, and need not grow.
    pub send: frame::Send,
}

/// How many ids are remembered, and how long.
#[derive(Debug, Clone, Copy)]
struct Kept {
    max: usize,
    keep: Duration,
}

/// The ids of the latest messages of the system, bounded in count and time.
#[derive(Debug, Default)]
pub(super) struct Pushes {
    known: HashMap<u64, Known>,
    keyed: VecDeque<(Duration, u64)>,
    unkeyed: VecDeque<(Duration, u64)>,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    class: Class,
    /// 0: not known any more.
    digest: u64,
    fate: Fate,
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It has a place, in which it may not be stored yet.
    Place(Seq),
    /// Chat that waits for the next batch.
    Waits,
    Shed,
}

impl Pushes {
    /// What the logs remember.
    pub(super) fn restore(loaded: &Loaded, now: Now) -> Self {
        let mut pushes = Self::default();
        for class in [Class::Signal, Class::Chat] {
            let recent = loaded.heads[class.index()].recent.iter();
            // Rules have no id.
            let of_system = recent.filter(|(origin, _)| origin.device == KEY && origin.id != 0);
            for (origin, seq) in of_system {
                let known = Known { class, digest: 0, fate: Fate::Place(*seq) };
                pushes.note(origin.id, known, true, now);
            }
        }
        pushes
    }

    fn note(&mut self, id: u64, known: Known, keyed: bool, now: Now) {
        let (order, kept) =
            if keyed { (&mut self.keyed, KEYED) } else { (&mut self.unkeyed, UNKEYED) };
        if self.known.insert(id, known).is_none() {
            order.push_back((now.since_start, id));
        }
        while let Some((since, id)) = order.front().copied()
            && (order.len() > kept.max || since + kept.keep <= now.since_start)
        {
            order.pop_front();
            self.known.remove(&id);
        }
    }

    fn get(&self, id: u64) -> Option<Known> {
        self.known.get(&id).copied()
    }

    fn set(&mut self, id: u64, fate: Fate) {
        if let Some(known) = self.known.get_mut(&id) {
            known.fate = fate;
        }
    }
}

impl Room {
    pub(super) fn push(&mut self, push: Push, store_full: bool, now: Now, fx: &mut Effects) {
        let Push { from, digest, send } = push;
        if let Err((code, detail)) = self.check_push(&send) {
            return fx.refuse(from, &send, code, detail);
        }
        if let Some(known) = self.pushes.get(send.id) {
            return self.push_again(from, digest, &send, known, fx);
        }
        let note = |fate| Known { class: send.class, digest, fate };
        let (id, keyed) = (send.id, digest != 0);
        // It is no member's, and is remembered by the log alone.
        let sender = self.senders.of("", DEVICE);
        if send.class == Class::Chat {
            self.pushes.note(id, note(Fate::Waits), keyed, now);
            return self.chat_waits(from, sender, Text::default(), send, now, fx);
        }
        let note = note(Fate::Waits);
        let speaker = Speaker { from, sender, user: Text::default() };
        match self.give_place(speaker, &send, store_full, now) {
            Ok(seq) => {
                self.pushes.note(id, Known { fate: Fate::Place(seq), ..note }, keyed, now);
            }
            Err((code, detail)) => fx.refuse(from, &send, code, detail),
        }
    }

    fn check_push(&self, send: &frame::Send) -> Result<(), Refusal> {
        self.check_form(send)?;
        self.check_open()?;
        if send.key.starts_with(RESERVED) {
            return Err((ErrorCode::BadRequest, "keys with @ in front are set by rules alone"));
        }
        if send.class == Class::Binary {
            return Err((ErrorCode::BadRequest, "strokes are drawn by members"));
        }
        if send.payload.0.len() > self.config.payload_bytes {
            return Err((ErrorCode::TooLarge, "the payload is larger than allowed"));
        }
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn knows_push(&self, id: u64) -> bool {
        self.pushes.get(id).is_some()
    }

    /// What became of chat of the system.
    pub(super) fn push_settled(&mut self, from: Asker, id: u64, place: Option<Seq>) {
        if matches!(from, Asker::System { .. }) {
            self.pushes.set(id, place.map_or(Fate::Shed, Fate::Place));
        }
    }

    fn push_again(
        &mut self,
        from: Asker,
        digest: u64,
        send: &frame::Send,
        known: Known,
        fx: &mut Effects,
    ) {
        let Asker::System { link, push } = from else { return };
        let differs = digest != 0 && known.digest != 0 && digest != known.digest;
        if differs || known.class != send.class {
            return fx.push_differs(link, push);
        }
        match known.fate {
            Fate::Place(seq) => {
                let ack = answer(send, AckStatus::Duplicate, seq, 0);
                let later = Later { from, ack, refusal: None };
                match self.logs.get_mut(send.class.index()) {
                    Some(log) if log.is_pending(seq) => {
                        self.pending_bytes += log.push_later(seq, later);
                    }
                    _ => fx.answer(&later),
                }
            }
            Fate::Shed => fx.answer(&Later {
                from,
                ack: answer(send, AckStatus::Shed, Seq::ZERO, 0),
                refusal: None,
            }),
            Fate::Waits => {
                fx.refuse(from, send, ErrorCode::Unavailable, "the same is on its way");
            }
        }
    }

    /// Another owner has the room: who waits for an answer asks there.
    pub(super) fn push_fenced(&mut self, fx: &mut Effects) {
        if self.kind == Kind::Strokes {
            return;
        }
        let waiting = self.logs[Class::Signal.index()].waiting();
        let waiting: Vec<_> = waiting.chain(self.chat.waiting()).collect();
        for from in waiting {
            if let Asker::System { link, push } = from {
                fx.push_refused(link, push, ErrorCode::Unavailable, "the room has moved");
            }
        }
    }
}
