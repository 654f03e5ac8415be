//! Coming and going.

use edgeway_proto::{
    AckStatus, Class, CloseCode, ErrorCode, Text, frame,
    rooms::{self, from_owner_item::Item},
};

use super::{Effect, Effects, Join, Kind, Move, Now, Room, SessionId, members::Member};

/// Joins of one room that wait for the store. More come only while it is away.
const JOINS_WAITING: usize = 1024;

impl Room {
    pub(super) fn join(&mut self, join: Join, now: Now, fx: &mut Effects) {
        let (session, access, request) = (join.session, join.access, join.request);
        if self.name.is_empty() {
            self.name = join.name.detached();
        }
        if let Err((code, detail)) = self.check_open() {
            return self.refuse_join(&join, code, detail, fx);
        }
        // The client will take the ids that it is told as acked, and go on behind them. So while a
        // device has messages that are not stored, its new Session waits for their fate.
        let known = self.members.get(session).is_some();
        if !known && self.senders.has_pending(&join.user, &join.device) {
            if self.waiting.len() < JOINS_WAITING {
                self.waiting.push(join);
            } else {
                self.refuse_join(&join, ErrorCode::Unavailable, "the store is away", fx);
            }
            return;
        }
        // Joining again starts anew.
        self.remove(session, now, fx);
        let of_user = |old: &SessionId| {
            let member = self.members.get(*old);
            member.is_some_and(|member| member.user == join.user)
        };
        let replaced = join.replaces.filter(of_user);
        let others = self.members.sessions() - usize::from(replaced.is_some());
        if others >= self.config.members_max {
            let detail = "the room has as many members as it may have";
            return self.refuse_join(&join, ErrorCode::RoomFull, detail, fx);
        }
        let sender = self.senders.attach(&join.user, &join.device);
        let member =
            Member { user: join.user.detached(), sender, access, send_only: join.send_only };
        let gateways = self.members.gateways();
        self.members.insert(session, member, now.since_start);
        fx.counts.members += 1;
        if let Some(member) = self.members.get(session) {
            self.note_move(session, member, true, gateways, fx);
        }
        // After it has come, so that its user was never gone.
        if let Some(old) = replaced {
            self.remove(old, now, fx);
        }
        let joined = self.joined(&join, sender, now);
        fx.tell(session, |out| joined.encode(out));
        if !join.send_only {
            for class in Class::ALL {
                let elsewhere = !self.kind.classes().contains(&class);
                let head = if elsewhere { join.strokes.0 } else { self.head(class) };
                let have = join.have[class.index()];
                fx.list.push(Effect::Subscribe { session, class, head, have, elsewhere });
            }
        }
        let (session, group) = (Some(session.into()), self.group);
        fx.tell_access(access, Item::Joined(rooms::Joined { session, request, group }));
    }

    fn refuse_join(&self, join: &Join, code: ErrorCode, detail: &'static str, fx: &mut Effects) {
        let (session, request) = (join.session, join.request);
        fx.error(session, request, code, detail);
        let refused = rooms::Refused { session: Some(session.into()), request, code: 0 };
        fx.tell_access(join.access, Item::Refused(refused));
    }

    /// Lets those in whose messages are stored now.
    pub(super) fn join_waiting(&mut self, now: Now, fx: &mut Effects) {
        for join in std::mem::take(&mut self.waiting) {
            self.join(join, now, fx);
        }
    }

    fn joined(&self, join: &Join, sender: usize, now: Now) -> frame::Joined {
        let last = self.senders.stored(sender);
        // One who only sends is shown nothing of an inbox.
        let (members, state) = if join.send_only {
            (0, bytes::Bytes::new())
        } else {
            (self.members.users().len() as u64, self.state.frames(now.wall_ms))
        };
        let mut classes = Class::ALL.map(|c| (self.head(c), last[c.index()]));
        if self.kind == Kind::Apart {
            classes[Class::Binary.index()] = join.strokes;
        }
        frame::Joined {
            request: join.request,
            room: join.asked.clone(),
            group: self.group,
            members,
            presence_version: self.members.presence.version(),
            classes: classes.to_vec(),
            state: state.into(),
        }
    }

    pub(super) fn leave(
        &mut self,
        session: SessionId,
        access: u64,
        request: u64,
        now: Now,
        fx: &mut Effects,
    ) {
        let was_member = self.remove(session, now, fx).is_some();
        if request != 0 && was_member {
            let left = self.left(request, CloseCode::Normal, "");
            fx.tell(session, |out| left.encode(out));
        } else if request != 0 {
            fx.error(session, request, ErrorCode::NotJoined, "the room is not joined");
        }
        self.tell_left(session, access, fx);
    }

    /// Sessions whose gateway or access instance is gone. Those of a gateway that is gone cannot be
    /// told anything.
    pub(super) fn sweep(
        &mut self,
        which: impl Fn(SessionId, u64) -> bool,
        now: Now,
        fx: &mut Effects,
    ) {
        let waiting = std::mem::take(&mut self.waiting);
        for join in waiting {
            if which(join.session, join.access) {
                let code = u32::try_from(ErrorCode::Unavailable.code()).unwrap_or_default();
                let (session, request) = (Some(join.session.into()), join.request);
                let refused = rooms::Refused { session, request, code };
                fx.tell_access(join.access, Item::Refused(refused));
            } else {
                self.waiting.push(join);
            }
        }
        for session in self.members.find(|session, member| which(session, member.access)) {
            if let Some(member) = self.remove(session, now, fx) {
                self.tell_left(session, member.access, fx);
            }
        }
    }

    /// Members of these users leave by force; how many Sessions.
    pub(super) fn put_out(
        &mut self,
        which: impl Fn(&str) -> bool,
        code: CloseCode,
        why: &'static str,
        now: Now,
        fx: &mut Effects,
    ) -> u64 {
        let mut sessions = 0;
        for session in self.members.find(|_, member| which(&member.user)) {
            if let Some(member) = self.remove(session, now, fx) {
                let left = self.left(0, code, why);
                fx.tell(session, |out| left.encode(out));
                self.tell_left(session, member.access, fx);
                sessions += 1;
            }
        }
        sessions
    }

    /// Everybody out: nothing can be stored here any more. What waits gets no ack, so that its
    /// senders send it to the new owner.
    pub(super) fn fenced(&mut self, now: Now, fx: &mut Effects) {
        for session in self.members.find(|_, _| true) {
            if let Some(member) = self.remove(session, now, fx) {
                let left = self.left(0, CloseCode::BackendLost, "the room has moved");
                fx.tell(session, |out| left.encode(out));
                self.tell_left(session, member.access, fx);
            }
        }
        for join in std::mem::take(&mut self.waiting) {
            self.refuse_join(&join, ErrorCode::Unavailable, "the room has moved", fx);
        }
        self.push_fenced(fx);
        self.strokes_fenced(fx);
    }

    pub(super) fn member_page(
        &mut self,
        session: SessionId,
        request: &frame::Members,
        fx: &mut Effects,
    ) {
        match self.may_read(session) {
            Ok(()) => {
                let page = self.members.page(request);
                fx.tell(session, |out| page.encode(out));
            }
            Err((code, detail)) => fx.error(session, request.request, code, detail),
        }
    }

    pub(super) fn left(&self, request: u64, code: CloseCode, reason: &'static str) -> frame::Left {
        let (group, reason) = (self.group, Text::from_static(reason));
        frame::Left { request, group, code: code.code(), reason }
    }

    fn tell_left(&self, session: SessionId, access: u64, fx: &mut Effects) {
        let (session, group) = (Some(session.into()), self.group);
        fx.tell_access(access, Item::Left(rooms::Left { session, group }));
    }

    /// `gateways`: how many had members before.
    fn note_move(
        &self,
        session: SessionId,
        member: &Member,
        came: bool,
        gateways: usize,
        fx: &mut Effects,
    ) {
        if fx.moves.wanted && !member.send_only {
            fx.moves.rerouted |= self.members.gateways() != gateways;
            let (user, device) = (member.user.clone(), self.senders.device(member.sender).into());
            fx.moves.list.push(Move { session, user, device, came });
        }
    }

    fn remove(&mut self, session: SessionId, now: Now, fx: &mut Effects) -> Option<Member> {
        let gateways = self.members.gateways();
        let member = self.members.remove(session, now.since_start)?;
        self.note_move(session, &member, false, gateways, fx);
        self.senders.release(member.sender);
        fx.counts.members -= 1;
        if !member.send_only {
            fx.list.push(Effect::Unsubscribe { session });
        }
        Some(member)
    }
}

/// Statuses in the order of [`super::Counts::acks`].
pub(crate) const ACK_STATUSES: [(AckStatus, &str); 5] = [
    (AckStatus::Accepted, "accepted"),
    (AckStatus::Duplicate, "duplicate"),
    (AckStatus::Shed, "shed"),
    (AckStatus::OutOfOrder, "out_of_order"),
    (AckStatus::Refused, "refused"),
];
