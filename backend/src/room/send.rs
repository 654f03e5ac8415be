//! Signals and strokes: accepted in order, stored, then published and acked.

use edgeway_proto::{AckStatus, Class, ErrorCode, Seq, Text, frame, limits};

use super::{
    Asker, Effects, Kind, Now, Room, SessionId,
    filter::Filtered,
    log::{Entry, Later, Refusal},
    rules::RESERVED,
    senders::Verdict,
};

/// Who sends.
pub(super) struct Speaker {
    pub(super) from: Asker,
    pub(super) sender: usize,
    pub(super) user: Text,
}

impl Room {
    pub(super) fn send(
        &mut self,
        session: SessionId,
        send: frame::Send,
        store_full: bool,
        now: Now,
        fx: &mut Effects,
    ) {
        let Some(member) = self.members.get(session) else {
            return fx.refuse(session, &send, ErrorCode::NotJoined, "the room is not joined");
        };
        let (from, sender, user) = (session.into(), member.sender, member.user.clone());
        let speaker = Speaker { from, sender, user };
        self.send_from(speaker, send, store_full, now, fx);
    }

    pub(super) fn send_from(
        &mut self,
        speaker: Speaker,
        send: frame::Send,
        store_full: bool,
        now: Now,
        fx: &mut Effects,
    ) {
        let Speaker { from, sender, user } = speaker;
        let form = self.check_form(&send).and_then(|()| check_key(&send));
        if let Err(refusal) = form {
            return self.refuse(from, sender, &send, refusal, fx);
        }
        if send.class == Class::Chat {
            return self.offer_chat(from, sender, user, send, now, fx);
        }
        let contiguous = self.kind != Kind::Inbox;
        match self.senders.judge(sender, send.class, send.id, contiguous) {
            Verdict::New => {}
            Verdict::Repeat(seq) => return self.repeat(from, sender, &send, seq, fx),
            Verdict::OutOfOrder(expected) => {
                let ack = answer(&send, AckStatus::OutOfOrder, Seq::ZERO, expected);
                return self.answer_in_order(sender, Later { from, ack, refusal: None }, fx);
            }
        }
        let send = match self.filtered(&user, send, now) {
            Filtered::Send(send) => send,
            // Of chat alone.
            Filtered::Silent => return,
            Filtered::Refused(send, refusal) => {
                return self.refuse(from, sender, &send, refusal, fx);
            }
        };
        let speaker = Speaker { from, sender, user };
        if let Err(refusal) = self.give_place(speaker, &send, store_full, now) {
            self.refuse(from, sender, &send, refusal, fx);
        }
    }

    /// Gives a message its place in the order.
    pub(super) fn give_place(
        &mut self,
        speaker: Speaker,
        send: &frame::Send,
        store_full: bool,
        now: Now,
    ) -> Result<Seq, Refusal> {
        let Speaker { from, sender, user } = speaker;
        if store_full || self.pending_bytes + send.payload.0.len() > self.config.pending_bytes {
            return Err((ErrorCode::Unavailable, "too much waits for the store"));
        }
        let deliver = frame::Deliver {
            group: self.group,
            class: send.class,
            seq: Seq::ZERO,
            time_ms: now.wall_ms,
            expires_ms: send.expires_ms,
            shed: 0,
            sender: user,
            key: send.key.clone(),
            payload: send.payload.clone(),
        };
        self.check_limits(send, &deliver, now)?;
        Ok(self.accept(from, sender, send, deliver))
    }

    fn refuse(
        &mut self,
        from: Asker,
        sender: usize,
        send: &frame::Send,
        refusal: Refusal,
        fx: &mut Effects,
    ) {
        let ack = answer(send, AckStatus::Refused, Seq::ZERO, 0);
        self.answer_in_order(sender, Later { from, ack, refusal: Some(refusal) }, fx);
    }

    /// Answers after the ack of what the sender sent before, which may have to wait for the store.
    fn answer_in_order(&mut self, sender: usize, later: Later, fx: &mut Effects) {
        let class = later.ack.class;
        let before = self.senders.last_place(sender, class);
        let log = self.logs.get_mut(class.index());
        match (before, log) {
            // Above the bound the order of answers is what gives way.
            (Some(seq), Some(log))
                if log.is_pending(seq) && self.pending_bytes < self.config.pending_bytes =>
            {
                self.pending_bytes += log.push_later(seq, later);
            }
            _ => fx.answer(&later),
        }
    }

    /// What can be said without knowing the sender's other messages.
    pub(super) fn check_form(&self, send: &frame::Send) -> Result<(), Refusal> {
        if send.id == 0 {
            return Err((ErrorCode::BadRequest, "message ids begin with 1"));
        }
        if !self.kind.classes().contains(&send.class) {
            return Err((ErrorCode::BadRequest, "this class has another owner"));
        }
        if send.class != Class::Signal {
            if self.kind == Kind::Inbox {
                return Err((ErrorCode::BadRequest, "an inbox takes signals only"));
            }
            if !send.key.is_empty() {
                return Err((ErrorCode::BadRequest, "only a signal may have a key"));
            }
        }
        Ok(())
    }

    fn check_limits(
        &mut self,
        send: &frame::Send,
        deliver: &frame::Deliver,
        now: Now,
    ) -> Result<(), Refusal> {
        if send.payload.0.len() > self.config.payload_bytes {
            return Err((ErrorCode::TooLarge, "the payload is larger than allowed"));
        }
        if send.key.len() > limits::NAME_BYTES {
            return Err((ErrorCode::TooLarge, "the key is longer than allowed"));
        }
        if !send.key.is_empty() {
            let len = state_len(send, deliver);
            if !self.state.admits(&send.key, len, now.wall_ms) {
                return Err((ErrorCode::TooLarge, "the room's state is full"));
            }
            self.state.plan(&send.key, len, send.expires_ms);
        }
        Ok(())
    }

    fn accept(
        &mut self,
        from: Asker,
        sender: usize,
        send: &frame::Send,
        deliver: frame::Deliver,
    ) -> Seq {
        let entry = Entry {
            end: 0,
            from,
            sender,
            id: send.id,
            time_ms: deliver.time_ms,
            expires_ms: send.expires_ms,
            key: if send.key.is_empty() { Text::default() } else { send.key.detached() },
            removes: send.payload.0.is_empty(),
            later: Vec::new(),
        };
        let (seq, bytes) = self.logs[send.class.index()].push(deliver, entry);
        self.pending_bytes += bytes;
        self.senders.accept(sender, send.class, send.id, seq);
        seq
    }

    /// A message that was accepted before. While it is not stored there is no ack for it: the
    /// repeat gets its own together with the first. Each is answered: on a connection that stands nothing is
    /// sent again.
    fn repeat(
        &mut self,
        from: Asker,
        sender: usize,
        send: &frame::Send,
        seq: Option<Seq>,
        fx: &mut Effects,
    ) {
        let place = seq.unwrap_or(Seq::ZERO);
        let ack = answer(send, AckStatus::Duplicate, place, 0);
        let later = Later { from, ack, refusal: None };
        if send.id <= self.senders.stored(sender)[send.class.index()] {
            return fx.answer(&later);
        }
        // Where its own place is forgotten, that of the last one is not, which is stored no earlier.
        let after = seq.or_else(|| self.senders.last_place(sender, send.class));
        // Above the bound the first's own ack has to do: while that is under way no other Session of the
        // device is let in.
        if let (Some(after), Some(log)) = (after, self.logs.get_mut(send.class.index()))
            && log.is_pending(after)
            && self.pending_bytes < self.config.pending_bytes
        {
            self.pending_bytes += log.push_later(after, later);
        }
    }

    /// A batch is stored: it is published, its state is set, and its senders are told.
    pub(super) fn appended(&mut self, class: Class, now: Now, fx: &mut Effects) {
        let Some(log) = self.logs.get_mut(class.index()) else { return };
        let Some(batch) = log.take_stored() else { return };
        self.pending_bytes -= batch.bytes();
        let group = self.group;
        let batch = batch.into_live(group, class, now.wall_ms);
        let ends = batch.entries.iter().map(|e| e.end);
        fx.publish(class, batch.first, &batch.frames, ends);
        let (mut seq, ruled) = (batch.first, self.ruled);
        for (frame, entry) in batch.cut().zip(&batch.entries) {
            let device = self.senders.key(entry.sender);
            fx.notes.message(class, seq, device, entry.id, || frame.clone());
            if !entry.key.is_empty() {
                let frame = if entry.removes { &[][..] } else { &frame[..] };
                self.state.set(&entry.key, seq, frame, entry.expires_ms, now.wall_ms);
            }
            let (id, status, expected) = (entry.id, AckStatus::Accepted, 0);
            fx.ack(entry.from, &frame::Ack { group, class, id, status, seq, expected });
            entry.later.iter().for_each(|later| fx.answer(later));
            self.senders.set_stored(entry.sender, class, entry.id);
            if class == Class::Signal && seq == ruled {
                self.rules_stored(now, fx);
            }
            seq = seq.next();
        }
        self.join_waiting(now, fx);
        self.answer_waiting(fx);
    }
}

/// What the system alone may set.
fn check_key(send: &frame::Send) -> Result<(), Refusal> {
    if send.key.starts_with(RESERVED) {
        return Err((ErrorCode::Forbidden, "keys with @ in front are the system's"));
    }
    Ok(())
}

pub(super) fn answer(send: &frame::Send, status: AckStatus, seq: Seq, expected: u64) -> frame::Ack {
    frame::Ack { group: send.group, class: send.class, id: send.id, status, seq, expected }
}

/// What the message will take of the room's state; at most a few bytes more than it does.
fn state_len(send: &frame::Send, deliver: &frame::Deliver) -> usize {
    // Kind and length 5, group and class 9, position 16, times 16, shed 1, lengths of names 4.
    const HEADER: usize = 51;
    if send.payload.0.is_empty() {
        return 0;
    }
    HEADER + deliver.sender.len() + deliver.key.len() + deliver.payload.0.len()
}
