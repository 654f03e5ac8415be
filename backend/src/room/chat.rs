//! Chat: numbered after the policy has thinned it, published before it is stored.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use edgeway_proto::{AckStatus, Class, ErrorCode, Seq, Text, frame};

use super::{
    Asker, Effect, Effects, Now, Room, config::RoomConfig, filter::Filtered, log::device_record,
    policy::ChatPolicy, senders::Verdict,
};

/// Messages that make a batch a large one: some packets of them for each member.
const LARGE_BATCH: usize = 32;

/// A batch costs a packet for each member, however little is in it: each so many members more make
/// the time from one to the next longer by the configured time, up to [`SLOWEST`] times.
const MEMBERS_PER_BATCH: usize = 100;
const SLOWEST: usize = 6;

/// The chat of a room.
#[derive(Debug)]
pub(crate) struct Chat {
    epoch: u64,
    published: u64,
    /// Up to here the store has it, or never will.
    settled: Seq,
    /// Messages that the policy has shed in this epoch.
    shed: u64,
    policy: ChatPolicy,
    waiting: Vec<Candidate>,
    waiting_bytes: usize,
    flushed: Option<Duration>,
    /// From one batch to the next: `batch`, and longer in a large room or after a large one.
    pause: Duration,
    batch: Duration,
    /// Reused between ticks.
    speakers: Vec<usize>,
    chosen: Vec<bool>,
}

/// A message that waits for the next tick.
#[derive(Debug)]
struct Candidate {
    from: Asker,
    sender: usize,
    user: Text,
    id: u64,
    time_ms: u64,
    expires_ms: u64,
    payload: Bytes,
}

impl Chat {
    pub(crate) fn new(epoch: u64, config: &RoomConfig, now: Now) -> Self {
        Self {
            epoch,
            published: 0,
            settled: Seq::new(epoch, 0),
            shed: 0,
            policy: ChatPolicy::new(config.chat_per_second, now.since_start),
            waiting: Vec::new(),
            waiting_bytes: 0,
            flushed: None,
            pause: config.chat_batch,
            batch: config.chat_batch,
            speakers: Vec::new(),
            chosen: Vec::new(),
        }
    }

    /// Other numbers from the next batch on.
    pub(crate) fn configure(&mut self, config: &RoomConfig, now: Now) {
        self.policy.set_rate(config.chat_per_second, now.since_start);
        self.batch = config.chat_batch;
    }

    /// The last position that is published.
    pub(crate) fn head(&self) -> Seq {
        Seq::new(self.epoch, self.published)
    }

    pub(crate) fn settled(&self) -> Seq {
        self.settled
    }

    pub(crate) fn settle(&mut self, upto: Seq) {
        self.settled = self.settled.max(upto);
    }

    pub(crate) fn is_settled(&self) -> bool {
        self.waiting.is_empty() && self.settled == self.head()
    }

    /// When the next batch is to be forwarded: at once after a pause.
    pub(crate) fn due(&self) -> Option<Duration> {
        let due = self.flushed.map_or(Duration::ZERO, |flushed| flushed + self.pause);
        (!self.waiting.is_empty()).then_some(due)
    }

    /// Those whose messages wait for the next batch.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = Asker> + '_ {
        self.waiting.iter().map(|candidate| candidate.from)
    }

    #[cfg(test)]
    pub(crate) fn waiting_len(&self) -> usize {
        self.waiting.len()
    }

    fn ack(&self, group: u64, id: u64, status: AckStatus, seq: Seq) -> frame::Ack {
        frame::Ack { group, class: Class::Chat, id, status, seq, expected: 0 }
    }
}

impl Room {
    /// A chat message arrives: it competes at the next tick.
    pub(super) fn offer_chat(
        &mut self,
        from: Asker,
        sender: usize,
        user: Text,
        send: frame::Send,
        now: Now,
        fx: &mut Effects,
    ) {
        let (group, id) = (self.group, send.id);
        if let Verdict::Repeat(seq) = self.senders.judge(sender, Class::Chat, id, false) {
            let seq = seq.unwrap_or(Seq::ZERO);
            fx.ack(from, &self.chat.ack(group, id, AckStatus::Duplicate, seq));
            return;
        }
        if send.payload.0.len() > self.config.payload_bytes {
            fx.refuse(from, &send, ErrorCode::TooLarge, "the payload is larger than allowed");
            return;
        }
        let send = match self.filtered(&user, send, now) {
            Filtered::Send(send) => send,
            Filtered::Silent => {
                self.senders.accept_chat(sender, id);
                let ack = self.chat.ack(group, id, AckStatus::Accepted, self.chat.head());
                return fx.ack(from, &ack);
            }
            Filtered::Refused(send, (code, detail)) => {
                return fx.refuse(from, &send, code, detail);
            }
        };
        self.chat_waits(from, sender, user, send, now, fx);
    }

    /// It waits for the next tick, or is shed.
    pub(super) fn chat_waits(
        &mut self,
        from: Asker,
        sender: usize,
        user: Text,
        send: frame::Send,
        now: Now,
        fx: &mut Effects,
    ) {
        let (group, id) = (self.group, send.id);
        self.senders.accept_chat(sender, id);
        let chat = &mut self.chat;
        let bytes = send.payload.0.len();
        let late = send.expires_ms != 0 && send.expires_ms <= now.wall_ms;
        if late
            || chat.waiting.len() >= self.config.chat_waiting
            || chat.waiting_bytes + bytes > self.config.chat_waiting_bytes
        {
            chat.shed += 1;
            fx.ack(from, &chat.ack(group, id, AckStatus::Shed, Seq::ZERO));
            return self.push_settled(from, id, None);
        }
        self.senders.hold(sender);
        chat.waiting_bytes += bytes;
        chat.waiting.push(Candidate {
            from,
            sender,
            user,
            id,
            time_ms: now.wall_ms,
            expires_ms: send.expires_ms,
            payload: send.payload.0,
        });
    }

    /// Forwards what the policy chooses of what waits, and sheds the rest.
    pub(super) fn flush_chat(&mut self, now: Now, fx: &mut Effects) {
        let chat = &mut self.chat;
        let mut waiting = std::mem::take(&mut chat.waiting);
        chat.waiting_bytes = 0;
        chat.flushed = Some(now.since_start);
        chat.speakers.clear();
        chat.speakers.extend(waiting.iter().map(|c| c.sender));
        chat.policy.choose(now.since_start, &chat.speakers, &mut chat.chosen);
        let forwarded = chat.chosen.iter().filter(|yes| **yes).count();
        chat.shed += (waiting.len() - forwarded) as u64;
        chat.pause = pause(chat.batch, self.members.sessions(), forwarded);
        let first = chat.head().next();
        let mut frames = BytesMut::new();
        let mut ends = Vec::with_capacity(forwarded);
        for (candidate, _) in waiting.iter_mut().zip(&chat.chosen).filter(|(_, yes)| **yes) {
            chat.published += 1;
            candidate.deliver(self.group, chat.head(), chat.shed).encode(&mut frames);
            ends.push(frames.len());
        }
        let frames = frames.freeze();
        fx.publish(Class::Chat, first, &frames, ends.iter().copied());
        let stored = self.config.chat_history;
        let mut records = Vec::with_capacity(if stored { forwarded } else { 0 });
        let chosen = std::mem::take(&mut self.chat.chosen);
        let (mut seq, mut start, mut ends) = (first, 0, ends.into_iter());
        for (candidate, chosen) in waiting.iter().zip(&chosen) {
            let (sender, id) = (candidate.sender, candidate.id);
            let (mut status, mut place) = (AckStatus::Shed, Seq::ZERO);
            if *chosen {
                (status, place) = (AckStatus::Accepted, seq);
                let end = ends.next().unwrap_or(start);
                let device = self.senders.key(sender);
                fx.notes.message(Class::Chat, seq, device, id, || frames.slice(start..end));
                if stored {
                    let (time_ms, expires_ms) = (candidate.time_ms, candidate.expires_ms);
                    let frame = frames.slice(start..end);
                    records.push(device_record(seq, device, id, time_ms, expires_ms, "", frame));
                }
                self.senders.remember(sender, Class::Chat, id, seq);
                (seq, start) = (seq.next(), end);
            }
            let from = candidate.from;
            fx.ack(from, &self.chat.ack(self.group, id, status, place));
            self.push_settled(from, id, (*chosen).then_some(place));
            self.senders.release(sender);
        }
        if !records.is_empty() {
            fx.list.push(Effect::AppendBehind(records));
        } else if !stored {
            self.chat.settle(self.chat.head());
        }
        waiting.clear();
        (self.chat.waiting, self.chat.chosen) = (waiting, chosen);
    }
}

/// From a batch of so many messages for so many members to the next.
fn pause(batch: Duration, members: usize, forwarded: usize) -> Duration {
    let room = (1 + members / MEMBERS_PER_BATCH).min(SLOWEST);
    let load = if forwarded > LARGE_BATCH { 3 } else { 1 };
    batch * u32::try_from(room.max(load)).unwrap_or(1)
}

impl Candidate {
    /// The delivery; takes what the candidate holds.
    fn deliver(&mut self, group: u64, seq: Seq, shed: u64) -> frame::Deliver {
        frame::Deliver {
            group,
            class: Class::Chat,
            seq,
            time_ms: self.time_ms,
            expires_ms: self.expires_ms,
            shed,
            sender: std::mem::take(&mut self.user),
            key: Text::default(),
            payload: std::mem::take(&mut self.payload).into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_room_is_sent_fewer_and_larger_batches() {
        let batch = Duration::from_millis(20);
        let ms = |members, forwarded| pause(batch, members, forwarded).as_millis();
        assert_eq!((ms(2, 1), ms(99, 32), ms(99, 33)), (20, 20, 60));
        assert_eq!((ms(100, 1), ms(500, 2), ms(50_000, 500)), (40, 120, 120));
    }
}
