//! What the system asks of rooms. Their answers go back by its link, and not to a Session.

use edgeway_proto::{
    Class, ErrorCode, Rest, Text, frame,
    rooms::{self, from_owner_item::Item, push::Ask, push_rule::Kind},
};

use std::time::Duration;

use super::{
    Reply,
    handover::MOVING,
    load::Waiting,
    task::{Shard, Slot},
};
use crate::{
    everywhere,
    room::{Asker, Change, Event, Push, RULES_BYTES, refused_push},
};

impl Shard {
    /// For an open room, or for one that is loaded first.
    pub(super) fn push(&mut self, group: u64, link: u64, push: rooms::Push) {
        if !self.accesses.contains_key(&link) {
            // Its link ended while the room's name was looked up.
            return;
        }
        let full = self.rooms.len() >= self.shared.rooms_a_shard;
        match self.rooms.get_mut(&group) {
            Some(Slot::Open(open)) if open.moving.is_some() => {
                self.refuse_pushes(&[(link, push)], MOVING);
            }
            Some(Slot::Open(_)) => self.push_into(group, link, push),
            Some(Slot::Loading(waiting)) => {
                if waiting.pushes.len() < self.shared.config.joins_waiting {
                    waiting.pushes.push((link, push));
                } else {
                    self.refuse_pushes(&[(link, push)], "too much waits for the room");
                }
            }
            None if full => {
                let detail = "there are as many rooms as there may be";
                self.refuse_pushes(&[(link, push)], detail);
            }
            None => {
                let name = Text::from(push.room.as_str());
                let waiting = Waiting { name, pushes: vec![(link, push)], ..Waiting::default() };
                self.rooms.insert(group, Slot::Loading(waiting));
                self.start_load(group, Duration::ZERO);
            }
        }
    }

    fn push_into(&mut self, group: u64, link: u64, push: rooms::Push) {
        let from = Asker::System { link, push: push.push };
        match push.ask {
            Some(Ask::Send(send)) => {
                let class = Class::from(send.class());
                let rooms::PushSend { id, digest, key, expires_ms, payload, .. } = send;
                let (key, payload) = (Text::from(key), Rest(payload));
                let send = frame::Send { group, class, id, expires_ms, key, payload };
                let store_full = self.pending_bytes >= self.shared.config.append_queue_bytes;
                let push = Push { from, digest, send };
                self.apply(group, Event::Push { push, store_full });
            }
            Some(Ask::Rule(rule)) => {
                let until = rule.on.then_some(rule.until_ms);
                let change = match rule.kind() {
                    Kind::Mute => Change::Mute(rule.user, until),
                    Kind::Block => Change::Block(rule.user, until),
                    Kind::MuteRoom => Change::MuteRoom(until),
                    Kind::Close => Change::Close(rule.on),
                };
                let store_full = self.pending_bytes >= self.shared.config.append_queue_bytes;
                let is_place = everywhere::is_place(&push.room);
                let bytes_max = if is_place { everywhere::BYTES } else { RULES_BYTES };
                self.apply(group, Event::Rule { from, change, bytes_max, store_full });
            }
            Some(Ask::Kick(kick)) => {
                let (push, user) = (push.push, Text::from(kick.user));
                self.apply(group, Event::Kick { link, push, user });
            }
            // Reads do not come here, but for one that a later version has moved.
            Some(Ask::State(_) | Ask::History(_)) | None => {
                let detail = "this version does not know what is asked";
                let refused = refused_push(push.push, ErrorCode::BadRequest, detail);
                self.reply(link, Reply::Item(Item::Pushed(refused)));
            }
        }
    }

    /// Not now.
    pub(super) fn refuse_pushes(&self, pushes: &[(u64, rooms::Push)], detail: &str) {
        for (link, push) in pushes {
            let refused = refused_push(push.push, ErrorCode::Unavailable, detail);
            self.reply(*link, Reply::Item(Item::Pushed(refused)));
        }
    }
}
